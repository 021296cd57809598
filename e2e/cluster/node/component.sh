# The node's programs: each one supervised, with a log of its own. Sourced by what runs inside the namespaces; needs `state`.
# shellcheck shell=bash

# component_start NAME CMD...: starts it, or starts it again, in the background.
component_start() {
  local part=$1
  shift
  mkdir -p "$state/components/$part"
  printf '%s\0' "$@" >"$state/components/$part/command"
  component_run "$part"
}

component_run() {
  rm -f "$state/components/$1/ended" "$state/components/$1/pid"
  setsid "$cluster_dir/node/supervise" "$state" "$1" >/dev/null 2>&1 </dev/null &
}

# fail PART MESSAGE: what `up` reports, with the end of PART's log.
fail() {
  printf '%s\n%s\n' "$1" "$2" >"$state/failed.part"
  mv "$state/failed.part" "$state/failed"
  exit 1
}

# component_await NAME SECONDS WHAT CMD...: waits until CMD succeeds. Fails when the time is over, and at once when any component
# has ended: the first one that did, for the others may only have missed it.
component_await() {
  local part=$1 deadline=$((SECONDS + $2)) what=$3 ended
  shift 3
  until "$@" >/dev/null 2>&1; do
    ended=$(cd "$state/components" && find . -name ended -printf '%T@ %h\n' | sort -n | sed -n '1s/.* \.\///p')
    if [ -n "$ended" ]; then fail "$ended" "$ended $(cat "$state/components/$ended/ended")"; fi
    if [ $SECONDS -ge $deadline ]; then fail "$part" "$part: $what: not within its time"; fi
    sleep 0.1
  done
}
