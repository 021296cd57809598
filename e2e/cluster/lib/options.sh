# The options that every command on a cluster takes. Sourced after paths.sh.
# shellcheck shell=bash

# take_options NAMES "$@": takes the options named in NAMES ("--state --name") from the front of the arguments,
# sets option_state and so on, and leaves the rest in `arguments`.
take_options() {
  local allowed=" $1 " key
  shift
  while [ $# -gt 0 ]; do
    case $1 in
      --) shift; break ;;
      --*)
        [[ $allowed == *" $1 "* ]] || die "no such option: $1; there are:$allowed"
        [ $# -ge 2 ] || die "$1 needs a value"
        key=${1#--}
        printf -v "option_${key//-/_}" %s "$2"
        shift 2
        ;;
      *) break ;;
    esac
  done
  arguments=("$@")
}

# take_state: sets `state` from --state, else TSUJIBAN_CLUSTER_STATE, else the checkout's own.
take_state() {
  state=$(realpath -m -- "${option_state:-${TSUJIBAN_CLUSTER_STATE:-$default_state}}")
}

# running_cluster: sets name, addresses and init (process 1 as seen from here) of the cluster in `state`, or ends.
running_cluster() {
  read_cluster "$state" || die "no cluster in $state: start it with $cluster_dir/up"
  init=$(cgroup_init "$name")
  [ -n "$init" ] || die "the cluster $name is not running any more: start it again with $cluster_dir/up"
}

# inside CMD...: runs CMD in the mount, network and pid namespaces of the cluster, with its kubeconfig.
inside() {
  KUBECONFIG=$state/kubeconfig KUBECACHEDIR=$state/kubectl PATH=$bin:$PATH nsenter --target "$init" --mount --net --pid -- "$@"
}

# inside_for_long CMD...: the same for what stays: it belongs to the cluster's cgroup, not to the caller's.
inside_for_long() { (cgroup_enter "$name" && inside "$@"); }
