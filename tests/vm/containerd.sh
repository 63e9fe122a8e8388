#!/bin/bash
# containerd.sh RUNTIME - in the machine with systemd, as root: the life of a container under containerd and its shim for runc, with
# RUNTIME as BinaryName and with SystemdCgroup, as Kubernetes has it.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source "$here/parts.sh"
runtime=$1

directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
mkdir -p "$directory"/root/{bin,tmp}
cp "$(command -v busybox)" "$directory/root/bin/busybox"
for applet in sh cat sleep; do ln -s busybox "$directory/root/bin/$applet"; done
systemctl start containerd
space=kelson-test unit=kelson-life.scope cgroup=/sys/fs/cgroup/system.slice/kelson-life.scope
ctr() { command ctr --namespace $space "$@"; }
# run NAME OPTION... -- COMMAND...
run() {
	local name=$1 options=()
	shift
	while [[ $1 != -- ]]; do options+=("$1"); shift; done
	ctr run --runc-binary "$runtime" --runc-systemd-cgroup --cgroup "system.slice:kelson:$name" "${options[@]}" \
		--rootfs "$directory/root" "$name" "${@:2}" </dev/null
}
show() { systemctl show --property "$1" --value -- "$unit"; }
status() { ctr task list | awk -v name=life '$1 == name { print $3 }'; }
# eventually EXPECTED COMMAND... - what COMMAND says at last.
eventually() {
	local deadline=$((SECONDS + 30)) seen
	while seen=$("${@:2}" 2>&1); [[ $seen != "$1" && SECONDS -lt $deadline ]]; do :; done
	echo "$seen"
}

run once --rm -- sh -c 'exit 42'
is "run gives the exit code" 42 $?
output=$(run life --detach --memory-limit 67108864 --cpus 0.5 -- sleep 1000 2>&1)
is "a detached container is started" "" "$output"
pid=$(ctr task list | awk '$1 == "life" { print $2 }')
is "its process is alone in its scope" "$pid" "$(cat "$cgroup/cgroup.procs" 2>&1)"
is "the scope is of this runtime" "kelson container life" "$(show Description)"
properties=(ActiveState Slice MemoryMax CPUQuotaPerSecUSec Delegate)
values() { for property in "${properties[@]}"; do echo "$(show "$property")"; done; }
is "it has the limits as properties" $'active\nsystem.slice\n67108864\n500ms\nyes' "$(values)"
systemctl daemon-reload
is "its files have them, after a daemon-reload, too" $'67108864\n50000 100000' "$(cat "$cgroup"/{memory.max,cpu.max} 2>&1)"
ctr task exec --exec-id one life sh -c 'exit 7' </dev/null
is "exec gives the exit code" 7 $?
ctr task exec --detach --exec-id two life sleep 1000 </dev/null
is "exec is in the scope" 2 "$(wc -l <"$cgroup/cgroup.procs")"
has "metrics tell of it" "pids.current" "$(ctr task metrics life 2>&1)"
is "of its memory, too" "$(cat "$cgroup/memory.max")" "$(ctr task metrics life | awk '$1 == "memory.usage_limit" { print $2 }')"
ctr task pause life
is "pause freezes it" "PAUSED frozen 1" "$(status) $(grep frozen "$cgroup/cgroup.events")"
ctr task resume life
is "resume thaws it" "RUNNING frozen 0" "$(status) $(grep frozen "$cgroup/cgroup.events")"
ctr task kill --signal KILL life
is "kill ends it" STOPPED "$(eventually STOPPED status)"
has "delete tells the exit code" "exit code 137" "$(ctr task delete life 2>&1)"
ctr container delete life

is "no container is left" "" "$(ctr container list --quiet 2>&1)"
is "the runtime has none left" "" "$("$runtime" --root /run/containerd/runc/$space list --quiet 2>&1)"
is "no unit is left" not-found "$(eventually not-found show LoadState)"
is "no cgroup is left" "" "$(find /sys/fs/cgroup -name 'kelson-*.scope')"
is "no shim is left" "" "$(eventually "" pgrep -f "containerd-shim.*$space")"
totals
