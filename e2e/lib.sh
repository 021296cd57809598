# What the scripts beside this file share. Sourced; sets:
#   checkout, cluster (the folder with the cluster's commands), state, KUBECONFIG, PATH with kubectl, helm and tsujiban first
# CLUSTER=own uses the cluster whose state is in TSUJIBAN_CLUSTER_STATE (default target/cluster); CLUSTER=external the current KUBECONFIG.
set -euo pipefail
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cluster=$checkout/e2e/cluster
CLUSTER=${CLUSTER:-own}
IMAGES=${IMAGES:-own}
target=${CARGO_BUILD_TARGET:-x86_64-unknown-linux-musl}
binaries=${CARGO_TARGET_DIR:-$checkout/target}/$target/debug
state=${TSUJIBAN_CLUSTER_STATE:-$checkout/target/cluster}
cluster_name=${TSUJIBAN_CLUSTER_NAME:-tsuji}
cluster_subnet=${TSUJIBAN_CLUSTER_SUBNET:-10.99.0}
system=tsujiban-system
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$checkout/Cargo.toml" | head -1)
export TSUJIBAN_CLUSTER_STATE=$state CARGO_BUILD_TARGET=$target

die() { echo "$(basename "$0"): $*" >&2; exit 1; }
started=$SECONDS
step() { printf '[%4ds] %s\n' "$((SECONDS - started))" "$*"; }

# Runs a command quietly; when it fails, says what failed and shows the end of what it printed.
quietly() { # WHAT COMMAND...
  local what=$1 log status=0
  shift
  log=$(mktemp)
  "$@" >"$log" 2>&1 || status=$?
  if [ $status != 0 ]; then
    echo "$(basename "$0"): $what failed; the end of its output:" >&2
    tail -n 20 "$log" >&2
  fi
  rm -f "$log"
  return $status
}

use_tools() {
  PATH=$binaries:$("$cluster/path" bin):$PATH
  export PATH
  # what kubectl and helm remember goes with the cluster
  if [ "$CLUSTER" = own ]; then
    export KUBECONFIG=$state/kubeconfig KUBECACHEDIR=$state/kubectl HELM_CACHE_HOME=$state/helm/cache HELM_CONFIG_HOME=$state/helm/config HELM_DATA_HOME=$state/helm/data
  fi
}
