#!/bin/bash
# systemd.sh RUNTIME RUNTIME-TESTS - in the machine with systemd, as root: all that is tested there, in one boot.
set -uo pipefail
here=$(dirname "$0")
source "$here/parts.sh"
runtime=$1 tests=$2
parts=$(mktemp -d)

modprobe loop max_loop=8
# Each part has a deadline of its own, so that one which hangs does not take the others' results along.
part systemd-cgroupfs timeout 400 "$tests" --runtime "$runtime" --slow 10 --quiet cgroups:: lifecycle::
part systemd-podman timeout 300 "$here/podman.sh" "$runtime" cgroupfs
part systemd-user timeout 240 as-tester -- "$here/podman.sh" "$runtime" cgroupfs
is "no unit of the machine has failed" "[]" "[$(systemctl --failed --no-legend --plain; systemctl is-system-running | grep -v running)]"
totals
