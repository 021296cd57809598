# etcd, the apiserver with encryption at rest, the controller manager and the scheduler. Sourced by init.
# shellcheck shell=bash

etcd_start() {
  # no fsync: this etcd need not outlive the machine, and the disk is shared with builds
  component_start etcd etcd --data-dir "$state/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380
}

encryption_config() {
  (umask 077; cat >"$state/pki/encryption.yaml" <<C
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets, "*.tsujiban.dev"]
  providers:
  - secretbox: {keys: [{name: k1, secret: $(head -c 32 /dev/urandom | base64 -w0)}]}
  - identity: {}
C
  )
}

apiserver_start() {
  local pki=$state/pki
  encryption_config
  # InternalIP: nothing resolves the node's name, and logs, exec and port-forward go to the kubelet by this
  component_start kube-apiserver kube-apiserver --etcd-servers=http://127.0.0.1:2379 --encryption-provider-config="$pki/encryption.yaml" \
    --secure-port=6443 --advertise-address="$node_ip" --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" \
    --client-ca-file="$pki/ca.crt" --service-cluster-ip-range=10.96.0.0/16 --allow-privileged=true \
    --service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$pki/sa.pub" --service-account-signing-key-file="$pki/sa.key" \
    --requestheader-client-ca-file="$pki/front-proxy-ca.crt" --requestheader-allowed-names=front-proxy \
    --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group --requestheader-extra-headers-prefix=X-Remote-Extra- \
    --proxy-client-cert-file="$pki/front-proxy.crt" --proxy-client-key-file="$pki/front-proxy.key" --enable-aggregator-routing=true \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
    --kubelet-preferred-address-types=InternalIP --kubelet-certificate-authority="$pki/ca.crt" \
    --kubelet-client-certificate="$pki/admin.crt" --kubelet-client-key="$pki/admin.key" --cert-dir="$pki"
}

controllers_start() {
  local pki=$state/pki
  component_start kube-controller-manager kube-controller-manager --kubeconfig="$pki/kube-controller-manager.kubeconfig" --leader-elect=false \
    --authentication-kubeconfig="$pki/kube-controller-manager.kubeconfig" --authorization-kubeconfig="$pki/kube-controller-manager.kubeconfig" \
    --service-account-private-key-file="$pki/sa.key" --root-ca-file="$pki/ca.crt" --use-service-account-credentials=true \
    --cluster-signing-cert-file="$pki/ca.crt" --cluster-signing-key-file="$pki/ca.key" --allocate-node-cidrs=true --cluster-cidr=10.244.0.0/16
  component_start kube-scheduler kube-scheduler --kubeconfig="$pki/kube-scheduler.kubeconfig" --leader-elect=false \
    --authentication-kubeconfig="$pki/kube-scheduler.kubeconfig" --authorization-kubeconfig="$pki/kube-scheduler.kubeconfig"
}
