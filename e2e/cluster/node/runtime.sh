# containerd with runc, the kubelet and kube-proxy, on machines with little privilege and either cgroup version. Sourced by init.
# shellcheck shell=bash

containerd_start() {
  # restrict_oom_score_adj, oom_score: lowering a score needs CAP_SYS_RESOURCE, which containers on CI machines lack
  cat >"$state/containerd/config.toml" <<C
version = 3
root = '$state/containerd/root'
state = '/run/containerd'
oom_score = 0
[grpc]
  address = '/run/containerd/containerd.sock'
[plugins.'io.containerd.cri.v1.images']
  snapshotter = 'overlayfs'
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = 'tsujiban.dev/pause:cluster'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ['$bin/cni']
    conf_dir = '$state/cni'
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = 'runc'
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = 'io.containerd.runc.v2'
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        BinaryName = '$bin/runc'
        SystemdCgroup = false
C
  component_start containerd containerd --config "$state/containerd/config.toml" --log-level info
}

images_import() {
  local archive
  for archive in "$binaries"/images/*.tar; do
    ctr --namespace k8s.io images import "$archive" >>"$state/log/image.log" 2>&1 || fail image "importing ${archive##*/} failed"
  done
}

kubelet_start() {
  # imageGCHighThresholdPercent 100: images are only ever imported, one that was collected could not come back
  # KubeletInUserNamespace: carry on without /dev/kmsg and sysctls that the machine refuses
  cat >"$state/kubelet/config.yaml" <<C
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $state/pki/ca.crt}}
authorization: {mode: Webhook}
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$name
failCgroupV1: false
failSwapOn: false
enforceNodeAllocatable: []
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
imageGCHighThresholdPercent: 100
oomScoreAdj: 0
featureGates: {KubeletInUserNamespace: true}
podLogsDir: $state/podlogs
syncFrequency: 10s
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
resolvConf: ""
tlsCertFile: $state/pki/kubelet.crt
tlsPrivateKeyFile: $state/pki/kubelet.key
C
  component_start kubelet kubelet --config "$state/kubelet/config.yaml" --kubeconfig "$state/pki/kubelet.kubeconfig" \
    --hostname-override=node1 --node-ip="$node_ip" --root-dir="$state/kubelet/root" --cert-dir="$state/kubelet/pki"
}

proxy_start() {
  component_start kube-proxy kube-proxy --kubeconfig="$state/pki/kube-proxy.kubeconfig" --proxy-mode=nftables \
    --cluster-cidr=10.244.0.0/16 --hostname-override=node1 --conntrack-max-per-core=0
}
