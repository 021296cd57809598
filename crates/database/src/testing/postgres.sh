#!/bin/bash
# A PostgreSQL on the loopback interface for as long as standard input is open, then nothing of it: postgres.sh PROGRAMS PORT
# Environment: CERTIFICATE, KEY (PEM), PASSWORD of the user `guarded`. Says "ready" when it is.
set -euo pipefail
umask 077
programs=$1 port=$2
dir=$(mktemp -d "${TMPDIR:-/tmp}/tsujiban-postgres.XXXXXX")
stop() {
  "$programs/pg_ctl" stop -D "$dir/data" -m immediate -s >/dev/null 2>&1 || true
  rm -rf "$dir"
}
trap stop EXIT
cd "$dir"

"$programs/initdb" -D data -U postgres --auth=trust --encoding=UTF8 --no-locale --no-sync >log 2>&1 || { cat log >&2; exit 1; }
printf '%s\n' "$CERTIFICATE" >data/server.crt
printf '%s\n' "$KEY" >data/server.key
printf '%s\n' 'hostssl all guarded 127.0.0.1/32 scram-sha-256' 'host all guarded all reject' 'host all all 127.0.0.1/32 trust' >data/pg_hba.conf
cat >>data/postgresql.conf <<EOF
listen_addresses = '127.0.0.1'
port = $port
unix_socket_directories = ''
ssl = on
max_connections = 300
shared_buffers = 32MB
# a server whose disk is lost with it
fsync = off
full_page_writes = off
EOF
"$programs/pg_ctl" start -D data -l log -w -s -t 60 >&2 || { cat log >&2; exit 1; }
"$programs/psql" -h 127.0.0.1 -p "$port" -U postgres -q -c "CREATE ROLE guarded LOGIN PASSWORD '$PASSWORD'" >&2
echo ready
cat >/dev/null
