#!/usr/bin/env bash
# Part of docker/check.sh, run in new namespaces: mounts a container's file systems in $ROOT, switches to UID:GID and execs the command.
set -euo pipefail

identity=$1
shift
ip link set lo up
mount -t proc proc "$ROOT/proc"
mount --bind /sys "$ROOT/sys"
mount -o remount,bind,ro "$ROOT/sys"
mount -t tmpfs -o mode=755 tmpfs "$ROOT/dev"
for device in null zero full random urandom tty; do
    touch "$ROOT/dev/$device"
    mount --bind "/dev/$device" "$ROOT/dev/$device"
done
ln -s /proc/self/fd "$ROOT/dev/fd"
mkdir "$ROOT/dev/shm"
mount -t tmpfs -o "mode=1777,size=$SHM_SIZE" tmpfs "$ROOT/dev/shm"
mount --bind "$ARTIFACTS" "$ROOT/app/artifacts"
exec chroot --userspec="$identity" --groups= "$ROOT" "$@"
