# Waiting for a compiler. Sourced by what has a function `step`.
# shellcheck shell=bash

# await_saying PID COMMAND...: waits for a background job of this shell, and answers its status. Once a minute it says what COMMAND prints.
await_saying() {
  local job=$1 waited=0
  shift
  while kill -0 "$job" 2>/dev/null; do
    sleep 1
    waited=$((waited + 1))
    if [ $((waited % 60)) = 0 ]; then step "  $("$@")"; fi
  done
  wait "$job"
}
