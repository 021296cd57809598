# A cluster's processes are what stands in its cgroup: no stored process id is ever trusted or killed. Sourced.
# shellcheck shell=bash

cgroup_mount=/sys/fs/cgroup

# The folders in which a cluster needs one of its own: each hierarchy of version 1, or the one tree of version 2.
cgroup_roots() {
  if [ -e $cgroup_mount/cgroup.controllers ]; then echo $cgroup_mount; return; fi
  local root
  for root in "$cgroup_mount"/*/; do
    if [ -e "$root/cgroup.procs" ] && [ ! -L "${root%/}" ]; then echo "${root%/}"; fi
  done
}

# cgroup_of_init NAME: the leaf that process 1 of the cluster and the node's components stand in.
cgroup_of_init() {
  if [ -e $cgroup_mount/cgroup.controllers ]; then echo "$cgroup_mount/$1/node"; else echo "$cgroup_mount/pids/$1/node"; fi
}

cgroup_make() {
  local root file controller
  for root in $(cgroup_roots); do
    mkdir -p "$root/$1/node"
    if [ "$root" != $cgroup_mount ]; then   # version 1: empty until filled, and no process may enter before that
      for file in cpuset.cpus cpuset.mems; do
        [ -e "$root/$1/$file" ] || continue
        cat "$root/$file" >"$root/$1/$file"
        cat "$root/$file" >"$root/$1/node/$file"
      done
    else
      for controller in cpu cpuset memory pids io hugetlb; do   # version 2: what pods are limited by, handed down
        echo "+$controller" 2>/dev/null >"$root/cgroup.subtree_control" || true
        echo "+$controller" 2>/dev/null >"$root/$1/cgroup.subtree_control" || true
      done
    fi
  done
}

# cgroup_enter NAME: puts the calling shell, and so all that it starts, into the cluster's leaf of every hierarchy.
cgroup_enter() {
  local root
  for root in $(cgroup_roots); do echo "$BASHPID" >"$root/$1/node/cgroup.procs"; done
}

# cgroup_processes NAME: every process of the cluster, its pods' too, as seen from here.
cgroup_processes() {
  local root
  for root in $(cgroup_roots); do
    if [ -d "$root/$1" ]; then find "$root/$1" -name cgroup.procs -exec cat {} + 2>/dev/null || true; fi
  done | sort -un
}

# cgroup_init NAME: the process that is number 1 of the cluster's own pid namespace; nothing if there is none.
cgroup_init() {
  local procs pid
  procs=$(cgroup_of_init "$1")/cgroup.procs
  [ -e "$procs" ] || return 0
  while read -r pid; do
    if [ "$(awk '/^NSpid:/ {print (NF > 2 && $NF == 1) ? "init" : ""}' "/proc/$pid/status" 2>/dev/null)" = init ]; then
      echo "$pid"; return
    fi
  done <"$procs"
}

cgroup_kill() {
  local pids i
  for i in $(seq 100); do
    pids=$(cgroup_processes "$1")
    [ -n "$pids" ] || return 0
    # shellcheck disable=SC2086
    kill -KILL $pids 2>/dev/null || true
    sleep 0.05
  done
  return 1
}

cgroup_remove() {
  local root i
  for root in $(cgroup_roots); do
    for i in $(seq 20); do   # a killed process leaves its cgroup a moment after it is gone
      [ -d "$root/$1" ] || break
      find "$root/$1" -depth -type d -exec rmdir {} + 2>/dev/null || true
      if [ -d "$root/$1" ]; then sleep 0.05; fi
    done
    if [ -d "$root/$1" ]; then return 1; fi
  done
}

# cgroup_owner NAME: the state folder that the running cluster was started with; nothing if none runs.
cgroup_owner() {
  local init
  init=$(cgroup_init "$1")
  # process 1 is: bash NODE/INIT STATE
  if [ -n "$init" ]; then tr '\0' '\n' <"/proc/$init/cmdline" | tail -n 1; fi
}
