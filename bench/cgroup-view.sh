#!/bin/bash
# cgroup-view.sh v1|v2|host COMMAND [ARG...] - runs COMMAND in a mount namespace that shows one cgroup version alone.
#
# The machine's own mounts stay as they are. `host` changes nothing.
export KELSON_VIEW=$1
shift
[[ $KELSON_VIEW != host ]] || exec "$@"
exec unshare --mount --propagation private bash -c '
set -e
mount -t tmpfs none /mnt
case $KELSON_VIEW in
v1)
	grep -q "^cgroup /sys/fs/cgroup/" /proc/mounts || { echo "this host has no cgroup v1" >&2; exit 77; }
	for path in /sys/fs/cgroup/*; do
		[[ -d $path && ! -L $path && ${path##*/} != unified ]] || continue
		mkdir "/mnt/${path##*/}"
		mount --move "$path" "/mnt/${path##*/}"
	done
	umount --recursive --lazy /sys/fs/cgroup
	mount --move /mnt /sys/fs/cgroup ;;
v2)
	mkdir /mnt/cgroup
	mount -t cgroup2 none /mnt/cgroup
	umount --recursive --lazy /sys/fs/cgroup
	mount --move /mnt/cgroup /sys/fs/cgroup
	umount --lazy /mnt ;;
esac
exec "$@"' sh "$@"
