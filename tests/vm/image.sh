#!/bin/bash
# image.sh RUNTIME [OPTION...] - in the machine with systemd: a container of an image, by root or an ordinary user, without an
# engine. OPTIONs are the runtime's own: --systemd-cgroup.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source "$here/parts.sh"
runtime=$1
shift

directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
export KELSON_STORE=$directory/store
kelson() { "$runtime" --root "$directory/state" "$@"; }
run() { kelson "${options[@]}" run --network none "$@"; }
options=("$@")

# The archive that docker save writes, of busybox alone and with owners of its own.
mkdir -p "$directory"/root/{bin,etc,tmp}
cp "$(command -v busybox)" "$directory/root/bin/busybox"
for applet in sh cat id mount sleep stat touch; do ln -s busybox "$directory/root/bin/$applet"; done
echo 'sailor:x:77:78::/:/bin/sh' >"$directory/root/etc/passwd"
tar -C "$directory/root" --owner=0 --group=0 -cf "$directory/layer.tar" .
sum=$(sha256sum <"$directory/layer.tar")
echo '{"architecture":"amd64","os":"linux","config":{"User":"sailor","Env":["PATH=/bin"],"Cmd":["id"]},
"rootfs":{"type":"layers","diff_ids":["sha256:'"${sum%% *}"'"]}}' >"$directory/config.json"
echo '[{"Config":"config.json","RepoTags":["sailor:1"],"Layers":["layer.tar"]}]' >"$directory/manifest.json"
tar -C "$directory" -cf "$directory/sailor.tar" manifest.json config.json layer.tar
image=$directory/sailor.tar

has "it runs as the image's user" "uid=77(sailor) gid=78" "$(run --image "$image" 2>&1)"
is "its files are the image's owners'" "0 0" "$(run --image "$image" stat -c '%u %g' /bin/busybox 2>&1)"
has "its root is an overlay" "overlay on / type overlay" "$(run --image "$image" mount 2>&1)"
run -u 0 --image "$image" touch /new
is "it can be written" 0 $?
run --image "$image" sh -c 'exit 42'
is "it gives the exit code" 42 $?
if ((${#options[@]})); then
	output=$(run --memory 64m --pids-limit 33 --image "$image" cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max 2>&1)
	is "it has its limits" $'67108864\n33' "$output"
fi
run --detach --name life --image "$image" sleep 1000
is "it goes on by itself" running "$(kelson state life | grep -o '"status": *"[a-z]*"' | grep -o 'running\|created\|stopped')"
has "exec enters it" "uid=77(sailor) gid=78" "$(kelson exec life id 2>&1)"
if ((${#options[@]})); then
	output=$(kelson update --memory 96m --pids-limit 44 life 2>&1 &&
		kelson exec life cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max 2>&1)
	is "update changes its limits" $'100663296\n44' "$output"
fi
kelson delete --force life
is "it is deleted" 0 $?
is "no container is left" "" "$(kelson list --quiet 2>&1)"
is "the store knows of none" "" "$(ls "$KELSON_STORE/roots")"
# The image has no name. An ordinary user could not remove files of other owners by hand.
"$runtime" image prune >/dev/null
is "prune leaves no layer" "0 " "$? $(ls "$KELSON_STORE/layers")"
totals
