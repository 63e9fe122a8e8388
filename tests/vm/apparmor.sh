#!/bin/bash
# apparmor.sh RUNTIME - in the machine with systemd: a container under an AppArmor profile is confined by it, from its first
# instruction and in exec, and a profile that is not loaded is refused by name.
set -uo pipefail
source "$(dirname "$0")/parts.sh"
runtime=$1
if ! grep -q Y /sys/module/apparmor/parameters/enabled; then
	echo "FAIL  the machine has no AppArmor"
	echo "0 passed, 1 failed, 0 skipped"
	exit 1
fi
cat >/tmp/profile <<'PROFILE'
#include <tunables/global>
profile kelson-test flags=(attach_disconnected,mediate_deleted) {
  network,
  capability,
  file,
  mount,
  umount,
  pivot_root,
  signal,
  ptrace,
  deny /forbidden rw,
}
PROFILE
apparmor_parser --replace /tmp/profile || exit 1

bundle=/tmp/bundle id=kelson-apparmor
mkdir -p $bundle/rootfs/{bin,dev,proc,sys,tmp}
cp "$(command -v busybox)" $bundle/rootfs/bin/busybox
for program in sh cat sleep; do ln -sf busybox $bundle/rootfs/bin/$program; done
echo secret >$bundle/rootfs/forbidden
echo open >$bundle/rootfs/allowed

# config PROFILE COMMAND
config() {
	cat >$bundle/config.json <<-JSON
		{"ociVersion": "1.0.2",
		 "process": {"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["/bin/sh", "-c", "$2"], "env": ["PATH=/bin"],
		  "apparmorProfile": "$1", "noNewPrivileges": true},
		 "root": {"path": "rootfs"},
		 "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
		            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]}],
		 "linux": {"cgroupsPath": "/$id", "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}]}}
	JSON
}

config kelson-test "cat /proc/self/attr/current"
has "the container runs under its profile" "kelson-test (enforce)" "$("$runtime" run -b $bundle $id 2>&1)"
config kelson-test "cat /allowed; cat /forbidden"
output=$("$runtime" run -b $bundle $id 2>&1)
has "what the profile allows can be read" "open" "$output"
has "what the profile denies cannot" "Permission denied" "$output"
config kelson-not-loaded "cat /allowed"
has "a profile that is not loaded is refused by name" "kelson-not-loaded" "$("$runtime" run -b $bundle $id 2>&1)"
"$runtime" delete -f $id >/dev/null 2>&1
config "" "cat /proc/self/attr/current"
has "without a profile the container is unconfined" "unconfined" "$("$runtime" run -b $bundle $id 2>&1)"
config kelson-test "exec sleep 1000"
"$runtime" run -d -b $bundle $id </dev/null >/dev/null 2>&1
has "exec runs under the container's profile" "kelson-test (enforce)" "$("$runtime" exec $id cat /proc/self/attr/current 2>&1)"
has "exec --apparmor names another one" "unconfined" "$("$runtime" exec --apparmor unconfined $id cat /proc/self/attr/current 2>&1)"
"$runtime" delete -f $id >/dev/null 2>&1
totals
