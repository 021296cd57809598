# Builds an image from a Dockerfile without a container engine, into an archive. Sourced after paths.sh.
# shellcheck shell=bash

# full_name NAME:TAG: the name as the kubelet asks the runtime for it.
full_name() {
  local first=${1%%/*}
  case $1 in
    */*) case $first in *.* | *:* | localhost) echo "$1" ;; *) echo "docker.io/$1" ;; esac ;;
    *) echo "docker.io/library/$1" ;;
  esac
}

# oci_build NAME:TAG CONTEXT DOCKERFILE ARCHIVE [BUILD-ARG...]
# buildah keeps its storage beside the archive until it is done. /run and /var/lib, where it writes whatever it is told, are
# empty file systems of its own mount namespace, which also takes along whatever it mounts.
oci_build() {
  local image=$1 context=$2 dockerfile=$3 archive=$4 argument arguments=() status=0
  shift 4
  for argument in "$@"; do arguments+=(--build-arg "$argument"); done
  rm -rf "$archive.tmp"
  mkdir -p "$archive.tmp"
  TMPDIR=$archive.tmp unshare --mount --propagation private -- bash -euc '
    mount -t tmpfs tmpfs /run
    mount -t tmpfs tmpfs /var/lib
    image=$1 context=$2 dockerfile=$3
    shift 3
    storage=(--root "$TMPDIR/root" --runroot "$TMPDIR/run" --storage-driver vfs)
    buildah "${storage[@]}" build --quiet --isolation chroot --layers=false "$@" --file "$dockerfile" --tag "$image" "$context" >/dev/null
    buildah "${storage[@]}" push --quiet "$image" "oci-archive:$TMPDIR/archive:$image"
  ' oci "$image" "$context" "$dockerfile" "${arguments[@]}" || status=$?
  if [ $status = 0 ]; then mv "$archive.tmp/archive" "$archive"; fi
  rm -rf "$archive.tmp"
  return $status
}
