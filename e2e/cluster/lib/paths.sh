# Where things are: the checkout, the cache of binaries, a cluster's state. Sourced after output.sh.
# shellcheck shell=bash

cluster_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
checkout=$(cd "$cluster_dir/../.." && pwd)
cache=${TSUJIBAN_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/tsujiban}
. "$cluster_dir/pins"

# The binaries' folder changes its name with anything that decides what is in it.
pins_hash=$(cd "$cluster_dir" && cat lib/binaries go/go.mod go/go.sum go/coredns/main.go calico/go.mod calico/go.sum \
  images/pause.c images/*.Dockerfile | sha256sum | cut -c1-12)
binaries=$cache/cluster-$pins_hash
bin=$binaries/bin

tools=$cache/tools
buf=$tools/buf-$BUF_VERSION/buf
cargo_deny=$tools/cargo-deny-$CARGO_DENY_VERSION/bin/cargo-deny
# they write and read the list of crates that a binary carries
cargo_auditable=$tools/cargo-auditable-$CARGO_AUDITABLE_VERSION/bin/cargo-auditable
rust_audit_info=$tools/rust-audit-info-$RUST_AUDIT_INFO_VERSION/bin/rust-audit-info
# what checks the charts, in a folder named after what pins it
chart_tools=$tools/charts-$(cd "$checkout/charts/lint" && cat */go.mod */go.sum requirements.txt | sha256sum | cut -c1-12)

# what our log is compared with and checked by (e2e/bench/tessera): likewise
tessera=$tools/tessera-$(cd "$checkout/e2e/bench/tessera" && cat go.mod go.sum */main.go | sha256sum | cut -c1-12)

default_state=$checkout/target/cluster

# read_cluster STATE: sets name, subnet, node_ip and host_ip of the cluster whose state this is; fails if there is none.
read_cluster() {
  [ -r "$1/cluster" ] || return 1
  read -r name subnet <"$1/cluster" || return 1
  [ -n "$subnet" ] || return 1
  node_ip=$subnet.1 host_ip=$subnet.254
}
