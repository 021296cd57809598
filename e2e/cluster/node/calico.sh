# Calico's felix, which enforces NetworkPolicies, and its CNI plugin. Sourced by init.
# shellcheck shell=bash

# FELIX_FELIXHOSTNAME must be the node's name: else felix takes every pod for a remote one and drops its traffic while it says it is ready.
calico_environment() {
  printf '%s\n' KUBECONFIG="$state/pki/calico-node.kubeconfig" DATASTORE_TYPE=kubernetes WAIT_FOR_DATASTORE=true \
    NODENAME=node1 FELIX_FELIXHOSTNAME=node1 IP=none CALICO_NETWORKING_BACKEND=none \
    CALICO_IPV4POOL_CIDR=10.244.0.0/16 CALICO_IPV4POOL_IPIP=Never CALICO_IPV4POOL_VXLAN=Never \
    FELIX_DEFAULTENDPOINTTOHOSTACTION=ACCEPT FELIX_IPV6SUPPORT=false FELIX_HEALTHENABLED=true FELIX_HEALTHPORT=9099 \
    FELIX_LOGSEVERITYSCREEN=info FELIX_LOGFILEPATH=none FELIX_LOGSEVERITYSYS=none FELIX_USAGEREPORTINGENABLED=false
}

calico_start() {
  local environment
  mapfile -t environment < <(calico_environment)
  env "${environment[@]}" calico-node -startup >"$state/log/calico-startup.log" 2>&1 || fail calico-startup "calico-node -startup failed"
  component_start felix env "${environment[@]}" calico-node -felix
  component_await felix 60 "ready to enforce policies" curl -fsS http://127.0.0.1:9099/readiness
  # last: with this file the node becomes ready, and no pod starts before its policies are enforced
  cat >"$state/cni/part" <<C
{"cniVersion": "0.3.1", "name": "pods", "plugins": [
 {"type": "calico", "log_level": "info", "log_file_path": "$state/log/cni.log", "datastore_type": "kubernetes", "nodename": "node1", "mtu": 1450,
  "ipam": {"type": "host-local", "subnet": "usePodCidr"}, "policy": {"type": "k8s"}, "kubernetes": {"kubeconfig": "$state/pki/calico-cni-plugin.kubeconfig"}},
 {"type": "portmap", "snat": true, "capabilities": {"portMappings": true}}]}
C
  mv "$state/cni/part" "$state/cni/10-calico.conflist"
}
