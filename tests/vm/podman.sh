#!/bin/bash
# podman.sh RUNTIME MANAGER - in the machine with systemd: the life of a container under podman with RUNTIME and the cgroup
# manager (cgroupfs or systemd), as root or as an ordinary user; as root also a systemd inside a container.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source "$here/parts.sh"
runtime=$1 manager=$2

directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
# conmon writes a file "oom" into its working directory.
cd "$directory" || exit 1
"$here/../../scripts/containers-conf" "$runtime" >"$directory/containers.conf"
export CONTAINERS_CONF_OVERRIDE=$directory/containers.conf
image=localhost/busybox
podman() { command podman --runtime kelson --cgroup-manager "$manager" "$@"; }
inspect() { podman inspect --format "$2" "$1" 2>&1; }

if ! podman image exists $image; then
	mkdir -p "$directory"/root/{bin,tmp}
	cp "$(command -v busybox)" "$directory/root/bin/busybox"
	for applet in $(busybox --list); do ln -s busybox "$directory/root/bin/$applet" 2>/dev/null; done
	tar -C "$directory/root" -c . | podman import --quiet - $image >/dev/null || exit 1
fi

podman run --rm --network none $image sh -c 'exit 42'
is "run gives the exit code" 42 $?
output=$(podman run --rm --network none --memory 64m --pids-limit 33 --cpus 0.5 $image \
	sh -c 'cd /sys/fs/cgroup && cat memory.max pids.max cpu.max && grep Seccomp: /proc/1/status && cat /proc/1/attr/current' 2>&1)
has "the container sees its limits" $'67108864\n33\n50000 100000\n' "$output"
has "it has podman's seccomp filter" $'Seccomp:\t2' "$output"
# podman gives a profile to root's containers only.
[[ $(id -u) != 0 ]] || has "it has podman's AppArmor profile" "containers-default" "$output"
has "the default network gives an address" "inet " "$(podman run --rm $image ip -o -4 address show scope global 2>&1)"

podman run --detach --name life --network none --memory 64m $image \
	sh -c 'trap "exit 3" TERM; while :; do sleep 0.1; done' >/dev/null
is "a detached container is running, of this runtime" "running kelson" "$(inspect life '{{.State.Status}} {{.OCIRuntime}}')"
cgroup=/sys/fs/cgroup$(inspect life '{{.State.CgroupPath}}')
is "its cgroup has the limit" 67108864 "$(cat "$cgroup/memory.max" 2>&1)"
has "its process is there" "$(inspect life '{{.State.Pid}}')" "$(cat "$cgroup"/{,container/}cgroup.procs 2>/dev/null)"
podman exec life sh -c 'test $(cat /sys/fs/cgroup/memory.max) = 67108864 && exit 7'
is "exec gives the exit code, and is below the limit" 7 $?
podman pause life >/dev/null
has "pause freezes it" "frozen 1" "$(cat "$cgroup/cgroup.events" 2>&1)"
is "it is paused" paused "$(inspect life '{{.State.Status}}')"
podman unpause life >/dev/null
has "unpause thaws it" "frozen 0" "$(cat "$cgroup/cgroup.events" 2>&1)"
podman stop --time 60 life >/dev/null
is "stop ends it with its own exit code" "exited 3" "$(inspect life '{{.State.Status}} {{.State.ExitCode}}')"
[[ ! -e $cgroup ]]
is "its cgroup is gone" 0 $?
podman start life >/dev/null
podman kill life >/dev/null
is "started again and killed" "exited 137" "$(podman wait life >/dev/null; inspect life '{{.State.Status}} {{.State.ExitCode}}')"
podman rm life >/dev/null
has "rm removes it" "no such" "$(inspect life '{{.Id}}')"

podman run --name oom --network none --memory 32m $image tail -c 200m /dev/zero
is "out of memory it is killed" 137 $?
# With systemd's driver the scope may be gone before conmon has read why (conmon#426; so with runc, too).
[[ $manager == systemd ]] || is "podman is told of it" true "$(inspect oom '{{.State.OOMKilled}}')"
podman rm oom >/dev/null

if [[ $(id -u) == 0 ]]; then
	# The machine's own system below an overlay; the targets above basic have its containerd and the like.
	podman run --detach --name nested --network none --systemd always --rootfs /:O /sbin/init --unit=basic.target >/dev/null
	deadline=$((SECONDS + 120)) output=
	# Before its socket is there, systemctl cannot wait.
	while [[ $output != running && SECONDS -lt $deadline ]]; do
		output=$(podman exec nested systemctl is-system-running --wait 2>&1)
	done
	is "systemd boots in a container" running "$output"
	has "it has cgroups of its own below the container's" "systemd-journald.service" \
		"$(ls "/sys/fs/cgroup$(inspect nested '{{.State.CgroupPath}}')/system.slice" 2>&1)"
	is "exec joins the cgroup into which it moved itself" "0::/init.scope" "$(podman exec nested cat /proc/self/cgroup 2>&1)"
	podman stop --time 60 nested >/dev/null
	is "stop shuts it down" "exited 0" "$(inspect nested '{{.State.Status}} {{.State.ExitCode}}')"
	podman rm nested >/dev/null
fi

is "no container is left" "[]" "[$(podman ps --all --quiet 2>&1)]"
is "the runtime has none left" "[]" "[$("$runtime" list --quiet 2>&1)]"
is "no cgroup is left" "[]" "[$(find /sys/fs/cgroup -type d -user "$(id -u)" -regextype posix-extended -regex '.*[0-9a-f]{64}.*')]"
totals
