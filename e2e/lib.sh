# What the scripts beside this file share. Sourced; sets:
#   checkout, cluster (the folder with the cluster's commands), state, KUBECONFIG, PATH with kubectl, helm and tsujiban first
# DATABASE=sqlite or postgres: what the services keep their data in.
# CLUSTER=own uses the cluster whose state is in TSUJIBAN_CLUSTER_STATE (default target/cluster); CLUSTER=external the current KUBECONFIG.
set -euo pipefail
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cluster=$checkout/e2e/cluster
CLUSTER=${CLUSTER:-own}
IMAGES=${IMAGES:-own}
DATABASE=${DATABASE:-sqlite}
target=${CARGO_BUILD_TARGET:-x86_64-unknown-linux-musl}
binaries=${CARGO_TARGET_DIR:-$checkout/target}/$target/debug
state=${TSUJIBAN_CLUSTER_STATE:-$checkout/target/cluster}
cluster_name=${TSUJIBAN_CLUSTER_NAME:-tsuji}
cluster_subnet=${TSUJIBAN_CLUSTER_SUBNET:-10.99.0}
system=tsujiban-system
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$checkout/Cargo.toml" | head -1)
export TSUJIBAN_CLUSTER_STATE=$state CARGO_BUILD_TARGET=$target

# The services (the rows of the table in crates/core/src/workload.rs), and all programs that become images.
services() { sed -n 's/^- name: //p' "$checkout/charts/tsujiban/services.yaml"; }
programs() { echo operator; services; echo collector; }

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

. "$cluster/lib/progress.sh"
compiled_crates() { echo "$(grep -c '^ *Compiling ' "$1") of at most $2 crates compiled"; }

# Builds all binaries. Says every minute how far it is, for on a new machine it takes long.
build_binaries() {
  local log builder crates
  log=$(mktemp)
  crates=$(grep -c '^name = ' "$checkout/Cargo.lock")
  (cd "$checkout" && exec build/cargo build --workspace --bins) >"$log" 2>&1 &
  builder=$!
  if ! await_saying $builder compiled_crates "$log" "$crates"; then
    echo "$(basename "$0"): building the binaries failed; the end of its output:" >&2
    tail -n 40 "$log" >&2
    rm -f "$log"
    return 1
  fi
  rm -f "$log"
}

# Installs and builds what is missing, starts our own cluster unless it is up, and puts what was built into the cluster.
bring_up() {
  local programs=
  step "installing what is missing"
  if [ "$CLUSTER" = own ]; then
    "$cluster/install" cluster
    # beside all that is built of Rust: while the one links, which takes one core, the other compiles
    step "building the cluster's programs and, beside them, our own (usually 15 minutes when nothing was ever compiled)"
    "$cluster/build" &
    programs=$!
    # a failure here ends the other one, too
    trap 'kill $programs 2>/dev/null || true' ERR
    "$cluster/install" build
  else
    "$cluster/install" build
    "$cluster/build" kubectl helm
    step "building the binaries (usually 8 minutes when nothing was ever compiled)"
  fi
  build_binaries
  if [ "$CLUSTER" = own ]; then
    trap - ERR
    wait $programs || die "building the cluster's programs failed: see above"
    step "starting Kubernetes"
    "$cluster/up" --name "$cluster_name" --state "$state" --subnet "$cluster_subnet"
  fi
  use_tools
  step "building and loading the images"
  "$checkout/e2e/images"
  step "installing the charts"
  "$checkout/e2e/deploy"
}
