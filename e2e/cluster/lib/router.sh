# Making and removing one router. Sourced by router; needs state, router, files and the cluster's `inside`.
# shellcheck shell=bash

vtysh() {
  local pid
  pid=$(inside ip netns pids "$router" | head -n 1)
  [ -n "$pid" ] || die_with_log "router $router" "$state/log/router-$router.log"
  inside nsenter --target "$pid" --mount --net --uts -- env HOME="/run/routers/$router" vtysh -N "$router" "$@"
}

router_listens() { inside nsenter --net="/run/netns/$router" ss -Hltn "sport = :22" | grep -q .; }

# The link: no subnet, one address at the router, routed to by the node. The router's way to anywhere is the node.
router_link() {
  inside bash -euc '
    router=$1 address=$2 node_ip=$3
    ip netns add "$router"
    ip link add "r-$router" type veth peer name eth0 netns "$router"
    ip link set "r-$router" up
    ip -n "$router" link set lo up
    ip -n "$router" address add "$address/32" dev eth0
    ip -n "$router" link set eth0 up
    ip -n "$router" route add "$node_ip/32" dev eth0
    ip -n "$router" route add default via "$node_ip" dev eth0
    ip route add "$address/32" dev "r-$router"
  ' link "$router" "$1" "$node_ip"
}

# Users of this router alone, in copies of the machine's files.
router_users() {   # USER PASSWORD
  local hash='*'
  if [ -n "$2" ]; then hash=$(printf %s "$2" | openssl passwd -6 -stdin); fi
  cp /etc/passwd /etc/group "$files/etc/"
  (umask 077; grep -v "^$1:" /etc/shadow >"$files/etc/shadow"; echo "$1:$hash:19000:0:99999:7:::" >>"$files/etc/shadow")
  sed -i "/^$1:/d" "$files/etc/passwd" "$files/etc/group"
  echo "$1:x:60000:60000:router login:/:/bin/sh" >>"$files/etc/passwd"
  echo "$1:x:60000:" >>"$files/etc/group"
  sed -i -E "s/^((frr|frrvty):.*[^:])\$/\\1,$1/; s/^((frr|frrvty):.*:)\$/\\1$1/" "$files/etc/group"
}

router_sshd() {   # USER KEY_FILE
  local own=/run/routers/$router
  : >"$files/etc/authorized_keys"
  if [ -n "$2" ]; then cat "$2" >"$files/etc/authorized_keys"; fi
  # no PAM: it would bring in what the machine has configured for itself
  cat >"$files/etc/sshd_config" <<C
Port 22
ListenAddress $address
HostKey $own/hostkey
PidFile none
UsePAM no
PermitRootLogin no
AllowUsers $1
PasswordAuthentication yes
KbdInteractiveAuthentication no
AuthorizedKeysFile $own/authorized_keys
StrictModes no
AllowTcpForwarding no
X11Forwarding no
PrintMotd no
PrintLastLog no
UseDNS no
LoginGraceTime 30
MaxStartups 50
ForceCommand $own/shell
C
  cat >"$files/etc/shell" <<C
#!/bin/sh
if [ -n "\$SSH_ORIGINAL_COMMAND" ]; then exec /usr/bin/vtysh -N $router -c "\$SSH_ORIGINAL_COMMAND"; fi
exec /usr/bin/vtysh -N $router
C
  chmod 755 "$files/etc/shell"
  printf '%s sufficient pam_permit.so\n' auth account >"$files/etc/pam"
}

router_config() {   # what a customer's router has to start with, secrets in several forms included
  mkdir -p "$files/etc/frr/$router"
  cat >"$files/etc/frr/$router/frr.conf" <<C
frr defaults traditional
hostname $router
log stdout informational
service integrated-vtysh-config
password Vty-$router-0815
enable password Enable-$router-4711
!
interface eth0
 description uplink to the carrier
exit
!
interface lo
 description router id
exit
!
ip route 192.0.2.0/24 Null0
ip route 198.51.100.0/24 $node_ip
!
end
C
  echo "service integrated-vtysh-config" >"$files/etc/frr/$router/vtysh.conf"
}

router_up() {
  local address=${option_address-} user=${option_user:-backup} i
  [[ $address =~ ^[0-9]+(\.[0-9]+){3}$ ]] || die "router up NAME needs --address with an IPv4 address"
  [[ $user =~ ^[a-z][a-z0-9_-]*$ ]] || die "--user: not a user's name: $user"
  if [ -n "${option_authorized_key-}" ]; then [ -r "$option_authorized_key" ] || die "cannot read $option_authorized_key"; fi
  if [ -d "$files" ]; then
    if [ "$(cat "$files/address" 2>/dev/null)" = "$address" ] && router_listens; then echo "router $router is up already"; return; fi
    router_down
  fi
  if grep -qxF "$address" "$state"/routers/*/address 2>/dev/null; then die "$address is another router's"; fi
  mkdir -p "$files/etc"
  echo "$address" >"$files/address"
  if [ -n "${option_hostkey-}" ]; then
    install -m 600 "$option_hostkey" "$files/etc/hostkey"
  else
    ssh-keygen -q -t ed25519 -N '' -C "$router" -f "$files/etc/hostkey"
  fi
  ssh-keygen -y -f "$files/etc/hostkey" >"$files/hostkey.pub"
  router_users "$user" "${option_password-}"
  router_sshd "$user" "${option_authorized_key-}"
  router_config
  router_link "$address"
  inside_for_long bash -c 'state=$1 cluster_dir=$2; . "$2/node/component.sh"; component_start "router-$3" "$2/node/router" "$1" "$3"' \
    start "$state" "$cluster_dir" "$router"
  for i in $(seq 200); do
    if [ -e "$state/components/router-$router/ended" ]; then break; fi
    if [ -e "$files/ready" ] && router_listens; then echo "router $router at $address, user $user: $(cat "$files/hostkey.pub")"; return; fi
    sleep 0.05
  done
  die_with_log "router $router" "$state/log/router-$router.log"
}

router_down() {
  local i
  # whatever stands in its network namespace, which nothing else ever enters
  inside bash -c '
    for i in $(seq 40); do
      pids=$(ip netns pids "$1" 2>/dev/null) && [ -n "$pids" ] || break
      kill -KILL $pids 2>/dev/null
      sleep 0.05
    done
    ip netns delete "$1" 2>/dev/null
    ip link delete "r-$1" 2>/dev/null
    rm -rf "/run/routers/$1" "/run/frr/$1"
  ' down "$router" || true
  for i in $(seq 40); do [ ! -d "$state/components/router-$router" ] || [ -e "$state/components/router-$router/ended" ] || sleep 0.05; done
  rm -rf "${state:?}/components/router-$router" "$files" "$state/log/router-$router.log"
}
