#!/bin/bash
# vm.sh - runs a command in a throwaway virtual machine with pure cgroup v2 (a newer Debian's kernel, qemu without KVM).
#
#   vm.sh [--minimal|--systemd] [options] -- COMMAND [ARG...]
#   vm.sh [--minimal|--systemd] --build         fill the cache only
#
#   --minimal     (default) a tiny init; the root is the host's own file system, read-only below a tmpfs overlay, so that the
#                 host's programs just work
#   --systemd     an image of Debian 13 with systemd, AppArmor, podman, containerd, crun, runc
#   --user        --systemd only: run as user "tester" (uid 1000) in a unit of its own systemd instance, with the controllers
#                 that Debian delegates to it (cpu, memory, pids) and subordinate IDs
#   --timeout S   end the machine after S seconds (default 600); exit status 124
#   --cpus N --mem MIB      default 1 and 4096
#   --env NAME[=VALUE]      set in the guest; may be repeated
#   --cold        boot from nothing rather than from the saved, booted state
#   --append ARG  an argument for the kernel (implies --cold)
#   --console F   keep what the kernel says on its serial console in F
#   -v            say what takes how long
#
# The current directory is mounted read-write at the same path (9p); everything else that is written in the guest is lost.
# stdout and stderr come back apart, the exit status is the command's, stdin is empty. Emulation is 4 to 60 times slower than
# the host: put many tests into one run.
#
# The cache is $KELSON_CACHE (default ~/.cache/kelson)/vm-KEY, where KEY follows from this directory's files: it is built anew
# when they change, and goes when nobody has used it for a week. What is fetched comes from the archive that apt is configured
# with. Exit status 125: the machine itself failed, and the end of its console is shown. An oops is a panic, a panic ends the
# machine, and nothing starts it again.
#
# One processor, because of qemu before 8.1 (Debian 12 has 7.2): it reads the code that it translates before it protects the
# page which that code is on (mended by its commit deba78709ae8). A kernel that patches itself writes int3 there for a moment:
# static keys are turned by the first and the last cgroup with a cpuset or a cpu.max. Another processor that translates just
# then keeps the int3, comes upon it when the patch is over, and dies of "Oops: int3". With --cpus 2 one thread emulates both in
# turn, so that none translates while the other writes.
set -euo pipefail

mode=minimal timeout=600 cpus=1 mem=4096 cold= append= user= build= console= verbose=
env_names=()
self=$(readlink -f "$0")
here=${self%/*}
started=$EPOCHREALTIME

die() {
	echo "vm: $*" >&2
	exit 125
}
say() {
	[[ -z $verbose ]] || awk -v a="$started" -v b="$EPOCHREALTIME" -v s="$*" 'BEGIN { printf "vm: [%.2fs] %s\n", b - a, s }' >&2
}

while (($#)); do
	case $1 in
	--minimal) mode=minimal ;;
	--systemd) mode=systemd ;;
	--user) user=1 mode=systemd ;;
	--build) build=1 ;;
	--cold) cold=1 ;;
	--console) console=$2; shift ;;
	--append) append=$2 cold=1; shift ;;
	--timeout) timeout=$2; shift ;;
	--cpus) cpus=$2; shift ;;
	--mem) mem=$2; shift ;;
	--env) env_names+=("$2"); shift ;;
	-v) verbose=1 ;;
	--) shift; break ;;
	-h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$self"; exit 0 ;;
	*) die "unknown option $1 (COMMAND goes after --)" ;;
	esac
	shift
done
[[ $build || $# -gt 0 ]] || die "no command; see --help"

# ------------------------------------------------------------------------------------------------------------ the cache

# What the machine is made from; the running of a command is no part of it.
recipe() {
	cat "$here"/guest/*
	sed -n '/^# -* the cache$/,/^# -* running$/p' "$self"
}
cache=${KELSON_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kelson}/vm-$(recipe | cksum | cut -d' ' -f1)
suite=trixie
qemu=qemu-system-x86_64
# With la57 on, the saved state of an emulated processor does not start again.
cpu_model=max,la57=off

# once PRODUCT FUNCTION: makes a part of the cache where it is missing; who comes meanwhile waits for it.
once() {
	[[ ! -e $cache/$1 ]] || return 0
	exec 6>"$cache/lock-${1//\//-}"
	flock 6
	[[ -e $cache/$1 ]] || $2
	flock -u 6
	exec 6>&-
}

mirror() { # the archive that this machine already uses
	apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m 1 '/debian/*$' ||
		die "apt's sources name no archive of Debian (…/debian)"
}

retry() {
	"$@" || { sleep 2; "$@"; } || { sleep 10; "$@"; }
}

# A private configuration of apt for the newer suite: the host's stays as it is.
private_apt() {
	local directory=$1 archive
	archive=$(mirror)
	mkdir -p "$directory/lists/partial" "$directory/archives/partial"
	: >"$directory/status"
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive $suite main" >"$directory/sources.list"
	cat >"$directory/apt.conf" <<-CONF
		Dir::Etc::SourceList "$directory/sources.list";
		Dir::Etc::SourceParts "/dev/null";
		Dir::State::Lists "$directory/lists";
		Dir::State::status "$directory/status";
		Dir::Cache "$directory";
		Dir::Cache::archives "$directory/archives";
		APT::Sandbox::User "root";
	CONF
	export APT_CONFIG=$directory/apt.conf
}

build_kernel() {
	say "fetching the kernel"
	# In the background, as `set -e` does not hold on the left of ||.
	fetch_kernel >&2 &
	wait "$!" || die "could not fetch the kernel"
	touch "$cache/kernel/ok"
}

fetch_kernel() {
	rm -rf "$cache/kernel"
	mkdir -p "$cache/kernel"
	cd "$cache/kernel"
	private_apt "$cache/kernel/apt"
	retry apt-get -qq update
	package=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image-/ { print $2; exit }')
	retry apt-get -qq download "$package"
	dpkg-deb -x ./*.deb x
	rm -rf apt ./*.deb
	mv x/boot/vmlinuz-* vmlinuz
	mkdir lib
	mv x/usr/lib/modules lib/ 2>/dev/null || mv x/lib/modules lib/
	rm -rf x
	ls lib/modules >version
	cd "lib/modules/$(cat version)/kernel"
	# Drivers of hardware, file systems and protocols that the machine does not have.
	rm -rf sound arch/x86/kvm lib/test_* drivers/net/{ethernet,wireless,usb,can,phy,wan,fddi,arcnet,hamradio,plip,slip} \
		drivers/net/{wwan,dsa,pcs,mdio} drivers/{gpu,media,infiniband,iio,staging,usb,scsi,ata,isdn,hwmon,input,hid,mmc} \
		drivers/{bluetooth,video,platform,power,rtc,w1,nfc,leds,i2c,mtd,firewire,accel,edac,spi,comedi,thunderbolt} \
		drivers/{soundwire,parport,pcmcia,message,memstick,md,target,nvme,crypto,watchdog,xen,ufs} \
		fs/{xfs,ocfs2,nfs,nfsd,lockd,btrfs,bcachefs,smb,ubifs,jffs2,gfs2,dlm,f2fs,ceph,afs,orangefs,nilfs2,reiserfs,jfs,ntfs3} \
		net/{bluetooth,wireless,mac80211,mac802154,sunrpc,tipc,sctp,ceph,rxrpc,rds,smc,can,nfc,atm,batman-adv,openvswitch}
	find . -name '*.ko.xz' -exec xz -d {} +
	cd "$cache/kernel"
	PATH=$PATH:/usr/sbin:/sbin depmod -b . "$(cat version)"
}

build_initramfs() {
	local directory module
	directory=$(mktemp -d)
	mkdir -p "$directory"/{bin,dev,proc,sys,run,tmp,mod,host,rw,new,root}
	cp "$(command -v busybox)" "$directory/bin/busybox"
	for module in virtio_pci virtio_blk virtio_console virtio_rng ext4 9p 9pnet_virtio overlay; do
		PATH=$PATH:/usr/sbin:/sbin modprobe -d "$cache/kernel" -S "$(cat "$cache/kernel/version")" --show-depends "$module" |
			awk '$1 == "insmod" { print $2 }'
	done | awk '!seen[$0]++' | while read -r module; do
		cp "$module" "$directory/mod/"
		echo "/mod/${module##*/}" >>"$directory/mod/order"
	done
	install -m 755 "$here"/guest/{init,agent,minimal} "$directory"
	(cd "$directory" && find . | cpio --quiet -o -H newc | gzip -1) >"$cache/initramfs.new"
	rm -rf "$directory"
	mv "$cache/initramfs.new" "$cache/initramfs"
}

packages=systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,udev,kmod,iproute2,iptables,nftables,procps,mount,jq,strace,python3-minimal,uidmap,podman,crun,runc,conmon,netavark,aardvark-dns,passt,containerd,apparmor,attr,libcap2-bin,busybox-static,e2fsprogs

build_image() {
	say "building the root image"
	local root=$cache/root.tmp image=$cache/root.img log=$cache/root.log archive
	archive=$(mirror)
	rm -rf "$root" "$image.new"
	if ! mmdebstrap --mode=root --variant=minbase --aptopt='Acquire::Retries "5"' \
		--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' \
		--include="$packages" "$suite" "$root" "$archive" >"$log" 2>&1; then
		rm -rf "$root"
		tail -n 30 "$log" >&2
		die "could not install Debian's packages (mmdebstrap's last words are above, all in $log)"
	fi
	configure_image "$root"
	truncate --size=8G "$image.new"
	PATH=$PATH:/usr/sbin:/sbin mke2fs -q -t ext4 -L root -d "$root" "$image.new" >&2 || die "mke2fs failed"
	rm -rf "$root"
	mv "$image.new" "$image"
}

configure_image() {
	local root=$1 units=$1/etc/systemd/system unit
	mkdir -p "$root/lib/modules"
	cp -a "$cache/kernel/lib/modules/." "$root/lib/modules/"
	echo kelson-vm >"$root/etc/hostname"
	echo "127.0.0.1 localhost kelson-vm" >"$root/etc/hosts"
	echo "nameserver 127.0.0.1" >"$root/etc/resolv.conf"
	: >"$root/etc/machine-id"
	mkdir -p "$root/etc/systemd/journald.conf.d" "$root/var/lib/systemd/linger"
	printf '[Journal]\nStorage=volatile\nRuntimeMaxUse=32M\n' >"$root/etc/systemd/journald.conf.d/kelson.conf"
	# With subordinate IDs, as useradd gives them.
	chroot "$root" useradd -m -u 1000 -s /bin/bash tester
	grep -q ^tester: "$root/etc/subuid" && grep -q ^tester: "$root/etc/subgid" || die "useradd gave no subordinate IDs"
	: >"$root/var/lib/systemd/linger/tester"
	install -m 755 "$here/guest/agent" "$root/usr/local/sbin/kelson-agent"
	install -m 755 "$here/guest/as-tester" "$root/usr/local/bin/as-tester"
	cat >"$units/kelson-agent.service" <<-UNIT
		[Unit]
		Description=Runs the command that the host sends
		After=multi-user.target user@1000.service systemd-user-sessions.service
		[Service]
		Type=simple
		ExecStart=/usr/local/sbin/kelson-agent systemd
		StandardInput=null
		TasksMax=infinity
		OOMPolicy=continue
		Delegate=yes
	UNIT
	mkdir -p "$units/multi-user.target.wants"
	ln -s ../kelson-agent.service "$units/multi-user.target.wants/"
	# What would run when the saved state goes on at a later date, or waits for somebody to log in.
	for unit in {apt-daily,apt-daily-upgrade,dpkg-db-backup,e2scrub_all,fstrim,podman-auto-update}.timer \
		{podman-restart,systemd-random-seed,systemd-timesyncd,getty@tty1,serial-getty@ttyS0}.service; do
		ln -sf /dev/null "$units/$unit"
	done
}

# start_qemu [ARG...]: starts the machine; descriptor 7 is what the agent says, 8 what it hears, 9 qemu's monitor.
start_qemu() {
	run_dir=$(mktemp -d "${TMPDIR:-/tmp}/kelson-vm.XXXXXX")
	mkfifo "$run_dir"/{ctl.in,ctl.out,out,err,mon}
	exec 7<>"$run_dir/ctl.out" 8<>"$run_dir/ctl.in" 9<>"$run_dir/mon"
	cat <"$run_dir/out" 7>&- 8>&- 9>&- &
	out_pid=$!
	cat <"$run_dir/err" >&2 7>&- 8>&- 9>&- &
	err_pid=$!
	local arguments=(
		-nodefaults -no-user-config -no-reboot -display none
		-machine q35,hpet=off,vmport=off -m "$mem" -smp "$cpus"
		-accel tcg,thread=single,tb-size=512 -cpu "$cpu_model"
		-kernel "$cache/kernel/vmlinuz" -initrd "$cache/initramfs"
		-append "console=ttyS0 quiet oops=panic panic=-1 reboot=t tsc=unstable clocksource=acpi_pm mitigations=off audit=0 apparmor=1 kelson.mode=$mode systemd.unified_cgroup_hierarchy=1 systemd.show_status=0 $append"
		-serial "file:$run_dir/serial" -monitor stdio
		-object rng-random,id=rng,filename=/dev/urandom -device virtio-rng-pci,rng=rng
		-device virtio-serial-pci
		-chardev "pipe,id=ctl,path=$run_dir/ctl" -device virtserialport,chardev=ctl,name=kelson.ctl
		-chardev "file,id=out,path=$run_dir/out" -device virtserialport,chardev=out,name=kelson.out
		-chardev "file,id=err,path=$run_dir/err" -device virtserialport,chardev=err,name=kelson.err
		-fsdev "local,id=root,path=/,security_model=passthrough,multidevs=remap,readonly=on"
		-device virtio-9p-pci,fsdev=root,mount_tag=kelson.root
		-fsdev "local,id=cwd,path=$PWD,security_model=passthrough,multidevs=remap"
		-device virtio-9p-pci,fsdev=cwd,mount_tag=kelson.cwd
	)
	TMPDIR=$cache "$qemu" "${arguments[@]}" "$@" <"$run_dir/mon" >"$run_dir/qemu" 2>&1 7>&- 8>&- 9>&- &
	qemu_pid=$!
}

# Boots once and saves the booted machine; later runs start from there.
build_state() {
	local disk=()
	say "booting once, to save the state"
	rm -f "$overlay"
	if [[ $mode == systemd ]]; then
		qemu-img create -q -f qcow2 -F raw -b "$cache/root.img" "$overlay"
		disk=(-drive "file=$overlay,if=virtio,cache=unsafe")
	fi
	start_qemu "${disk[@]}"
	listen 600 READY || failed "the machine did not boot"
	say "booted; the guest's uptime is $value s"
	echo "migrate_set_parameter max-bandwidth 10G" >&9
	echo "migrate \"exec:zstd -q -1 >$cache/$state.new\"" >&9
	echo quit >&9
	wait "$qemu_pid" || failed "could not save the state"
	qemu_pid=
	rm -rf "$run_dir"
	mv "$cache/$state.new" "$cache/$state"
	say "state saved: $(du -m "$cache/$state" | cut -f1) MiB"
}

# ------------------------------------------------------------------------------------------------------------ running

run_dir= qemu_pid=
cleanup() {
	[[ -z $console || ! -e $run_dir/serial ]] || cp "$run_dir/serial" "$console" || :
	[[ -z $qemu_pid ]] || { kill -9 "$qemu_pid"; wait "$qemu_pid"; } 2>/dev/null || :
	[[ -z $run_dir ]] || rm -rf "$run_dir"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

failed() {
	echo "vm: $1" >&2
	grep -v '^QEMU\|^(qemu)' "$run_dir/qemu" | tail -n 20 >&2 || :
	echo "vm: the end of its console:" >&2
	tail -n 120 "$run_dir/serial" | tr -d '\r' >&2
	exit "${2:-125}"
}

# listen SECONDS WORD: waits for a line "WORD value" from the agent; sets $value.
listen() {
	local end=$((SECONDS + $1)) line
	while ((SECONDS < end)); do
		if read -r -t 1 line <&7; then
			[[ $line == "$2 "* ]] && value=${line#* } && return
		fi
		kill -0 "$qemu_pid" 2>/dev/null || failed "the machine died"
	done
	return 1
}

# What the agent is given: mounts the shared directory and runs the command in it.
script() {
	local name path=$PATH:/usr/sbin:/sbin
	[[ $mode == minimal ]] || path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
	echo "KELSON_VM_MODULES=$(printf %q "$cache/kernel/lib/modules")"
	echo "export PATH=$(printf %q "$path") HOME=/root KELSON_VM=$mode"
	for name in "${env_names[@]}"; do
		[[ $name == *=* ]] || name="$name=${!name-}"
		printf 'export %s=%q\n' "${name%%=*}" "${name#*=}"
	done
	printf 'mkdir -p %q\n' "$PWD"
	printf 'mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=mmap kelson.cwd %q || exit 125\n' "$PWD"
	printf 'cd %q\n' "$PWD"
	[[ -z $user ]] || set -- as-tester "${env_names[@]/#/--setenv=}" -- "$@"
	printf '%q ' "$@"
	printf '; status=$?\ncd /; umount %q 2>/dev/null; exit $status\n' "$PWD"
}

need=(qemu-system-x86_64=qemu-system-x86 depmod=kmod cpio xz=xz-utils zstd=zstd busybox-static)
[[ $mode == minimal ]] || need+=(mmdebstrap mke2fs=e2fsprogs qemu-img=qemu-utils)
mkdir -p "$cache"
touch "$cache"
# Another machine may be started beside this one, and apt lets one in at a time.
exec 6>"$cache/lock-need"
flock 6
"$here/../../scripts/need" "${need[@]}" || die "packages are missing"
flock -u 6
exec 6>&-
find "${cache%/*}" -maxdepth 1 -name 'vm-*' -mtime +7 -exec rm -rf {} +
# The saved state fits only the same machine and the same qemu.
state=$mode-$cpus-$mem-$("$qemu" --version | cksum | cut -d' ' -f1).state
overlay=$cache/$state.qcow2
once kernel/ok build_kernel
once initramfs build_initramfs
[[ $mode == minimal ]] || once root.img build_image
[[ $cold ]] || once "$state" build_state
[[ -z $build ]] || { say "the cache is ready"; exit 0; }

disk=()
if [[ $mode == systemd && $cold ]]; then
	disk=(-drive "file=$cache/root.img,if=virtio,format=raw,snapshot=on,cache=unsafe")
elif [[ $mode == systemd ]]; then
	disk=(-drive "file=$overlay,if=virtio,snapshot=on,cache=unsafe")
fi
if [[ $cold ]]; then
	start_qemu "${disk[@]}"
	listen "$timeout" READY || failed "the machine did not boot in $timeout s" 124
else
	start_qemu "${disk[@]}" -incoming "exec:zstd -q -dc $cache/$state"
fi
echo "$EPOCHSECONDS $(head -c 32 /dev/urandom | base64 -w0) $(script "$@" | base64 -w0)" >&8
say "command sent"
listen "$timeout" EXIT || failed "stopped after $timeout s" 124
kill -9 "$qemu_pid"
wait "$qemu_pid" 2>/dev/null || :
qemu_pid=
wait "$out_pid" "$err_pid" 2>/dev/null || :
say "exit status $value"
exit "$value"
