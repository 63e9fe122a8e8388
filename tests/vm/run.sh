#!/bin/bash
# run.sh RUNTIME - what needs another host than this one: cgroup v2 alone, systemd, AppArmor, a newer podman.
#
# RUNTIME and runtime-tests are static and below the current directory or on the host's own file system.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source "$here/parts.sh"
cd "$here/../.."
runtime=$(realpath "$1")
tests=$(realpath target/x86_64-unknown-linux-gnu/release/runtime-tests)
parts=target/vm
mkdir -p $parts

# machine NAME OPTION... -- COMMAND... - what its kernel says is kept in target/vm. A machine that dies has no totals.
machine() { "$here/vm.sh" --console "$parts/$1.console" "${@:2}"; }

# The minimal machine has the host's programs.
scripts/need newuidmap=uidmap mkswap=util-linux swapon=mount

# An emulated machine is one thread: the one with systemd runs beside the others, and is shown after them.
"$here/vm.sh" --console $parts/systemd.console --systemd --timeout 2400 -- \
	"$here/systemd.sh" "$runtime" "$tests" >$parts/systemd.log 2>&1 </dev/null &
systemd=$!
trap 'kill $systemd 2>/dev/null' EXIT

# Emulation is slow: deadlines are stretched; chaos, which takes long everywhere, is left out, and so is what the kind of cgroup does
# not touch (image:: runs in the machine with systemd). The kernel does not find modules by itself there.
part v2 machine v2 --minimal --timeout 1500 -- sh -c 'modprobe -a veth bfq && modprobe loop max_loop=8 && exec "$@"' sh \
	"$tests" --runtime "$runtime" --slow 10 --quiet --skip chaos:: --skip image:: --skip network:: --skip diff:: --skip commit:: --skip kept:: \
	--skip userns:: --skip volumes:: --skip fuse::
# What one processor cannot show, and what needs swap: a compressed block device in memory.
part two-cpus-and-swap machine two-cpus-and-swap --minimal --cpus 2 --timeout 240 -- sh -c 'modprobe zram &&
	echo 512M >/sys/block/zram0/disksize && mkswap /dev/zram0 && swapon /dev/zram0 && exec "$@"' sh \
	"$tests" --runtime "$runtime" --slow 10 --quiet cpu_affinity cpuset wait::
# What the controllers of cgroup v1 limit that this host has in no hierarchy.
part v1 machine v1 --minimal --timeout 240 -- "$here/v1.sh" \
	"$tests" --runtime "$runtime" --slow 10 --quiet cgroups::network cgroups::hugepage cgroups::block cgroups::removed_by_delete
# The walk of docs/tour.md, for cgroup v2; what iptables(8) asks of the kernel is for its bridge.
bundles/assemble tool
part tour machine tour --minimal --timeout 300 -- sh -c 'modprobe -a veth bridge tun nf_tables nft_compat nft_chain_nat \
	nf_conntrack nft_ct xt_conntrack xt_MASQUERADE xt_comment xt_addrtype xt_mark xt_nat xt_tcpudp && exec "$@"' sh \
	scripts/test-tour "$runtime"
echo "--- systemd"
wait $systemd
count systemd $? $SECONDS
trap - EXIT
totals
