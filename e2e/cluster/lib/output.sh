# Progress and errors, the same for every command here. Sourced.
# shellcheck shell=bash

SECONDS=0

# One line for each step: seconds since the command started, and what begins now.
step() { printf '[%3ds] %s\n' "$SECONDS" "$*"; }

die() { printf '%s: error: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# die_with_log WHAT LOGFILE: names the part that failed and shows what it said last.
die_with_log() {
  printf '%s: error: %s failed; the last lines of %s:\n' "${0##*/}" "$1" "$2" >&2
  { tail -n 15 "$2" 2>/dev/null || echo "(no log)"; } | sed 's/^/  | /' >&2
  exit 1
}

need_root() { [ "$(id -u)" = 0 ] || die "must run as root"; }
