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

# part NAME COMMAND... - a run in a machine: shows its output, adds its totals.
passed=0 failed=0 skipped=0
part() {
	local name=$1 status p f s
	shift
	echo "--- $name"
	"$@" 2>&1 | tee "target/vm/$name.log" | grep --line-buffered -vE '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$'
	status=${PIPESTATUS[0]}
	if read -r p f s < <(grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "target/vm/$name.log" | tail -n 1 | tr -dc '0-9 \n'); then
		echo "$name: $p ok, $f not ok, $s left out"
		passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
		((status == 0 || f > 0)) || failed=$((failed + 1))
	else
		echo "$name: no totals (exit status $status)"
		failed=$((failed + 1))
	fi
}

# Emulation is slow: deadlines are stretched, and what takes long on a real machine is left out.
# veth is a module, which the kernel does not find by itself there.
part v2 "$here/vm.sh" --minimal --timeout 1200 -- sh -c 'modprobe veth && exec "$@"' sh \
	"$tests" --runtime "$runtime" --slow 10 --quiet --skip chaos::
# The machine has the host's programs.
scripts/need apparmor_parser=apparmor
part apparmor "$here/vm.sh" --minimal --timeout 300 -- "$here/apparmor.sh" "$runtime"
echo "$passed passed, $failed failed, $skipped skipped"
((failed == 0))
