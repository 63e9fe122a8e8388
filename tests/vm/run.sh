#!/bin/bash
# run.sh RUNTIME - what needs another host than this one: cgroup v2 alone, and AppArmor.
#
# RUNTIME and runtime-tests are static and below the current directory or on the host's own file system.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
runtime=$(realpath "$1")
tests=$(realpath target/x86_64-unknown-linux-gnu/release/runtime-tests)
mkdir -p target/vm

# part NAME COMMAND... - a run in a machine: shows its output, adds its totals. A machine that dies has failed.
passed=0 failed=0 skipped=0
part() {
	local name=$1 status p f s
	shift
	echo "--- $name"
	"$here/vm.sh" --console "target/vm/$name.console" "$@" >"target/vm/$name.log" 2>&1
	status=$?
	grep -vE '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "target/vm/$name.log"
	if read -r p f s < <(grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "target/vm/$name.log" | tail -n 1 | tr -dc '0-9 \n'); then
		echo "$name: $p ok, $f not ok, $s left out"
		passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
		((status == 0 || f > 0)) || failed=$((failed + 1))
	else
		echo "$name: no totals (exit status $status)"
		failed=$((failed + 1))
	fi
}

# The machine has the host's programs.
scripts/need apparmor_parser=apparmor newuidmap=uidmap
# Emulation is slow: deadlines are stretched, and chaos, which takes long everywhere, is left out. The kernel does not find
# modules by itself there.
part v2 --minimal --timeout 1020 -- sh -c 'modprobe veth && modprobe loop max_loop=8 && exec "$@"' sh \
	"$tests" --runtime "$runtime" --slow 10 --quiet --skip chaos::
# What one processor cannot show.
part two-cpus --minimal --cpus 2 --timeout 120 -- "$tests" --runtime "$runtime" --slow 10 --quiet cpu_affinity cpuset
part apparmor --minimal --timeout 240 -- "$here/apparmor.sh" "$runtime"
echo "$passed passed, $failed failed, $skipped skipped"
((failed == 0))
