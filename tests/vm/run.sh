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
	local name=$1 status try p f s
	shift
	echo "--- $name"
	for try in 1 2 3; do
		"$@" >"target/vm/$name.log" 2>&1
		status=$?
		# The emulated machine itself died: under emulation a kernel that patches its own code does so now and then.
		[[ $status == 125 && $try != 3 ]] || break
		echo "$name: the machine died, once more: $(tail -n 1 "target/vm/$name.log")"
	done
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

# Emulation is slow: deadlines are stretched, and only what cgroup v2 makes a difference to is run; all of runtime-tests is
# `vm.sh --minimal --timeout 1200 -- runtime-tests …`.
part v2 "$here/vm.sh" --minimal --timeout 400 -- "$tests" --runtime "$runtime" --slow 10 --quiet cgroups:: rootless::
# The machine has the host's programs.
scripts/need apparmor_parser=apparmor
part apparmor "$here/vm.sh" --minimal --timeout 300 -- "$here/apparmor.sh" "$runtime"
echo "$passed passed, $failed failed, $skipped skipped"
((failed == 0))
