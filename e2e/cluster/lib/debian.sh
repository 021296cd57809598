# Debian packages without their services. Sourced after output.sh.
# shellcheck shell=bash

policy=/usr/sbin/policy-rc.d

# apt_missing PACKAGE...: a removed package may leave its configuration, and then dpkg still knows it.
apt_missing() {
  dpkg-query --show --showformat '${Package} ${db:Status-Status}\n' "$@" 2>/dev/null |
    awk -v wanted="$*" '$2 == "installed" {have[$1]} END {n = split(wanted, p, " "); for (i = 1; i <= n; i++) if (!(p[i] in have)) print p[i]}'
}

# apt_install LOG PACKAGE...: no package may start a daemon on this machine: sshd and frr run in routers only, PostgreSQL in tests only.
apt_install() {
  local log=$1 mine=0 status=0
  shift
  if [ ! -e $policy ]; then
    mine=1
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
    trap 'rm -f $policy' EXIT
  elif ! grep -q 'exit 101' $policy; then
    die "$policy exists and does not refuse services; make it say 'exit 101' while packages are installed"
  fi
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update -q && apt-get install -q -y --no-install-recommends -o Dpkg::Options::=--force-confold "$@"; } >"$log" 2>&1 || status=$?
  if [ $mine = 1 ]; then rm -f $policy; trap - EXIT; fi
  [ $status = 0 ] || die_with_log "apt-get install $*" "$log"
  # policy-rc.d stops the start now; without this the next boot would start them
  if command -v systemctl >/dev/null && [ -d /run/systemd/system ]; then
    case " $* " in *" openssh-server "*) systemctl disable -q ssh 2>/dev/null || true ;; esac
    case " $* " in *" frr "*) systemctl disable -q frr 2>/dev/null || true ;; esac
    case " $* " in *" postgresql "*) systemctl disable -q postgresql 2>/dev/null || true ;; esac
  fi
}
