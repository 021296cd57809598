# Certificates and kubeconfigs, made anew for every start. Sourced by init; works in $state/pki.
# shellcheck shell=bash

# pki_ca NAME: an authority of its own
pki_ca() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj "/CN=$1" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign \
    -keyout "$1.key" -out "$1.crt" 2>/dev/null
}

# pki_certificate CA NAME SUBJECT ALTERNATIVE_NAMES
pki_certificate() {
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$3" -keyout "$2.key" -out "$2.csr" 2>/dev/null
  openssl x509 -req -in "$2.csr" -CA "$1.crt" -CAkey "$1.key" -set_serial "0x$(openssl rand -hex 16)" -days 365 -out "$2.crt" \
    -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=CA:FALSE\n' "$4") 2>/dev/null
}

pki_kubeconfig() {   # NAME FILE
  cat >"$2" <<C
apiVersion: v1
kind: Config
current-context: $name
contexts: [{name: $name, context: {cluster: $name, user: $1}}]
clusters: [{name: $name, cluster: {server: "https://$node_ip:6443", certificate-authority-data: $(base64 -w0 ca.crt)}}]
users: [{name: $1, user: {client-certificate-data: $(base64 -w0 "$1.crt"), client-key-data: $(base64 -w0 "$1.key")}}]
C
}

pki_all() {
  local part
  umask 077
  cd "$state/pki" || return 1
  pki_ca ca
  pki_ca s3-ca
  pki_ca front-proxy-ca
  pki_certificate front-proxy-ca front-proxy /CN=front-proxy DNS:front-proxy
  openssl ecparam -name prime256v1 -genkey -noout -out sa.key
  openssl ec -in sa.key -pubout -out sa.pub 2>/dev/null
  pki_certificate ca apiserver /CN=kube-apiserver "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,DNS:localhost,IP:127.0.0.1,IP:10.96.0.1,IP:$node_ip"
  pki_certificate ca kubelet /O=system:nodes/CN=system:node:node1 "DNS:node1,IP:$node_ip,IP:127.0.0.1"
  pki_certificate ca admin /O=system:masters/CN=admin DNS:admin
  for part in kube-controller-manager kube-scheduler kube-proxy; do pki_certificate ca $part "/CN=system:$part" DNS:$part; done
  for part in calico-node calico-cni-plugin; do pki_certificate ca $part /CN=$part DNS:$part; done
  pki_certificate s3-ca s3 /CN=s3 "DNS:localhost,IP:127.0.0.1,IP:$node_ip"
  for part in kubelet kube-controller-manager kube-scheduler kube-proxy calico-node calico-cni-plugin; do pki_kubeconfig $part $part.kubeconfig; done
  pki_kubeconfig admin "$state/kubeconfig.part"
  mv "$state/kubeconfig.part" "$state/kubeconfig"
}
