#!/bin/bash
# systemd.sh RUNTIME RUNTIME-TESTS - in the machine with systemd, as root: all that is tested there, in one boot.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source "$here/parts.sh"
cd "$here/../.." || exit 1
runtime=$1 tests=$2
parts=$(mktemp -d)

modprobe loop max_loop=8
# Each part has a deadline of its own, so that one which hangs does not take the others' results along.
part systemd-cgroupfs timeout 450 "$tests" --runtime "$runtime" --slow 10 --quiet cgroups:: lifecycle::
part systemd-driver timeout 750 "$tests" --runtime "$runtime" --slow 10 --quiet systemd::
part systemd-driver-limits timeout 300 "$tests" --runtime "$runtime" --slow 10 --quiet --systemd-cgroup \
	--skip not_blamed cgroups::memory_ cgroups::cpu cgroups::pids_ cgroups::unified cgroups::devices_ cgroups::block_io
part systemd-driver-ends timeout 300 "$tests" --runtime "$runtime" --slow 10 --quiet --systemd-cgroup \
	wait::killed wait::others wait::memory_pressure wait::of_a_foreground events::oom events::stream top::once update::
# Debian's runc, with which one test compares, tells nothing of huge pages in a scope.
part systemd-driver-life timeout 450 "$tests" --runtime "$runtime" --slow 10 --quiet --systemd-cgroup \
	--skip stats_have_the_keys_of_runc lifecycle:: delegation:: events::stats cgroups::frozen
# As where no unit has asked for io yet.
modprobe bfq
for file in /sys/fs/cgroup/{*/,}cgroup.subtree_control; do echo -io >"$file"; done 2>/dev/null
part systemd-driver-bfq timeout 60 "$tests" --runtime "$runtime" --slow 10 --quiet systemd::weight_of_the_first
part systemd-image-tests timeout 450 "$tests" --runtime "$runtime" --slow 10 --quiet image::
part systemd-image timeout 120 "$here/image.sh" "$runtime"
part systemd-image-driver timeout 120 "$here/image.sh" "$runtime" --systemd-cgroup
part systemd-podman timeout 450 "$here/podman.sh" "$runtime" cgroupfs
part systemd-podman-driver timeout 450 "$here/podman.sh" "$runtime" systemd
part systemd-containerd timeout 200 "$here/containerd.sh" "$runtime"
part systemd-apparmor timeout 120 "$here/apparmor.sh" "$runtime"
# An ordinary user has what can be found by everybody, which the checkout need not be.
mkdir -p /srv/kelson/tests
cp -r tests/vm /srv/kelson/tests/
cp -r scripts /srv/kelson/
cp "$runtime" /srv/kelson/kelson
cp "$runtime-image" "$runtime-init" /srv/kelson/
chmod -R a+rX /srv/kelson
cd /srv/kelson || exit 1
part systemd-user-image timeout 120 as-tester -- tests/vm/image.sh /srv/kelson/kelson
part systemd-user-image-driver timeout 120 as-tester -- tests/vm/image.sh /srv/kelson/kelson --systemd-cgroup
part systemd-user timeout 450 as-tester -- tests/vm/podman.sh /srv/kelson/kelson cgroupfs
part systemd-user-driver timeout 450 as-tester -- tests/vm/podman.sh /srv/kelson/kelson systemd
is "no unit of the machine has failed" "[]" "[$(systemctl --failed --no-legend --plain; systemctl is-system-running | grep -v running)]"
totals
