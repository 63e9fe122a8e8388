#!/bin/bash
# run.sh RUNTIME ROUNDS [CRUN] [RUNC] - the whole bench: cgroup v1 and v2, back to back and after rest, and images.
#
# The peers are those given, or crun and runc of Debian's next release. The tables are left in target/bench/tables.md.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/.."
runtime=$(realpath "$1") rounds=$2 crun=${3-} runc=${4-}
peers=${KELSON_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kelson}/peers
[[ -n $crun && -n $runc ]] || "$here/newer-peers.sh" "$peers"
crun=${crun:-$peers/bin/crun} runc=${runc:-$peers/bin/runc}
out=target/bench
mkdir -p "$out/bin"
# As it is installed: a linker leaves its file in the page cache page by page; a copy is there in large folios, as what is read
# from a disk is.
install -m 755 "$runtime" "$runtime-image" "$runtime-init" "$out/bin/"
runtime=$(realpath "$out/bin")/${runtime##*/}
{
	echo "kelson: $("$runtime" --version | head -n 1), $(stat -c %s "$runtime") bytes"
	echo "crun: $("$crun" --version | head -n 1)"
	echo "runc: $("$runc" --version | head -n 1)"
	echo "host: Linux $(uname -r), $(nproc) processors"
} | sed 's/^/- /' | tee "$out/tables.md"
views=(v2)
! grep -q '^cgroup /sys/fs/cgroup/' /proc/mounts || views=(v1 v2)
for view in "${views[@]}"; do
	for idle in 0 100; do
		# After rest, only what takes a person's or an engine's time.
		suite=run,podman,life,exec,memory,rate,calls,list
		((idle == 0)) || suite=run,podman,life,exec
		"$here/bench.py" --runtime "kelson=$runtime" --runtime "crun=$crun" --runtime "runc=$runc" --view "$view" \
			--idle "$idle" --rounds "$rounds" --suite "$suite" --work "$out" --json "$out/$view-$idle.json" \
			--markdown "$out/tables.md"
	done
done
# podman, skopeo and umoci beside it, each with stores of its own.
"$here/image.py" --kelson "$runtime" --view "${views[0]}" --rounds "$rounds" --work "$out" --json "$out/images.json" \
	--markdown "$out/tables.md"
limit=2621440
size=$(stat -c %s "$runtime")
echo "size of the binary: $size bytes, at most $limit: $( ((size <= limit)) && echo met || echo MISSED)" | tee -a "$out/tables.md"
