#!/bin/sh
# v1.sh COMMAND... - in the minimal machine: runs it where /sys/fs/cgroup holds cgroup v1, with controllers that other hosts with v1
# leave out. Those that cgroup v2 uses stay there.
modprobe -a loop bfq || exit 1
exec unshare --mount sh -c '
	umount /sys/fs/cgroup && mount -t tmpfs cgroup /sys/fs/cgroup || exit 1
	for hierarchy in net_cls,net_prio devices freezer hugetlb pids blkio cpu,cpuacct; do
		mkdir "/sys/fs/cgroup/$hierarchy" && mount -t cgroup -o "$hierarchy" cgroup "/sys/fs/cgroup/$hierarchy" || exit 1
	done
	"$@"' sh "$@"
