#!/bin/bash
# Drives Debian 12's engines with a runtime: tests/engines/run.sh RUNTIME [podman|containerd|docker …] [--only TEXT]
#
# Installs what is missing, then runs everything as root inside mount, network and PID namespaces of its own, with a
# private /run and the like: no state, socket, mount, network device or process can outlive it. Offline: the image is
# made from busybox-static. With CI=true an engine that cannot be had is a failure, otherwise it is skipped.
# Exit code: 0 all passed, 1 a case failed, 2 wrong use.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# What each engine needs beside busybox-static, as package:file.
packages_of() {
    case $1 in
        podman)
            echo podman:/usr/bin/podman conmon:/usr/bin/conmon containernetworking-plugins:/usr/lib/cni/bridge \
                golang-github-containers-common:/usr/share/containers/seccomp.json
            ;;
        containerd)
            echo containerd:/usr/bin/containerd containerd:/usr/bin/containerd-shim-runc-v2
            ;;
        docker)
            # dockerd does not start without a runc, whichever runtime is the default, nor without iptables.
            echo docker.io:/usr/sbin/dockerd docker.io:/usr/bin/docker containerd:/usr/bin/containerd \
                runc:/usr/sbin/runc iptables:/usr/sbin/iptables
            ;;
    esac
}

install_missing() {
    local missing=() item policy=/usr/sbin/policy-rc.d
    for item in busybox-static:/bin/busybox python3:"$(command -v python3 || echo /usr/bin/python3)" "$@"; do
        [[ -e ${item#*:} ]] || missing+=("${item%%:*}")
    done
    [[ ${#missing[@]} -gt 0 ]] || return 0
    command -v apt-get >/dev/null || return 0
    echo "installing: ${missing[*]}" >&2
    # The packages' own daemons stay off: the tests start theirs.
    local made_policy=
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && made_policy=yes
    fi
    apt-get update -qq >&2 &&
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2 ||
        echo "apt-get failed; engines that are missing are reported below" >&2
    [[ -z $made_policy ]] || rm -f "$policy"
}

usage() {
    sed -n '2s/^# //p' "${BASH_SOURCE[0]}" >&2
    exit 2
}

refuse() {
    echo "run.sh: $1" >&2
    exit 2
}

[[ $# -ge 1 ]] || usage
[[ $(id -u) -eq 0 ]] || refuse "the engines are driven as root"
runtime=$(realpath -e -- "$1") || exit 2
[[ -x $runtime ]] || refuse "$runtime is not executable"
[[ $runtime != /run/* && $runtime != /dev/shm/* ]] || refuse "$runtime is hidden by the private /run"
shift

engines=() only=
while [[ $# -gt 0 ]]; do
    case $1 in
        podman | containerd | docker) engines+=("$1") ;;
        --only)
            [[ $# -ge 2 ]] || usage
            only=$2
            shift
            ;;
        *) usage ;;
    esac
    shift
done
[[ ${#engines[@]} -gt 0 ]] || engines=(podman containerd docker)

needed=()
for engine in "${engines[@]}"; do
    for item in $(packages_of "$engine"); do needed+=("$item"); done
done
install_missing "${needed[@]}"

# Every cgroup of this run is below this name; what the engines themselves never remove goes at the end.
cgroup=kelson-engines-$$
clean_up() {
    find /sys/fs/cgroup -depth -type d -path "*/$cgroup*" -exec rmdir {} + 2>/dev/null || true
    # Only what is empty: made below to have something to mount on.
    rmdir "${fixed[@]}" 2>/dev/null || true
}
# Where CNI keeps addresses and podman a cache, whatever their options say.
fixed=(/var/lib/cni /var/lib/containers)
trap clean_up EXIT

# The shell stays as PID 1: it reaps the conmons and shims that daemonize. Killing unshare kills all.
unshare --mount --net --pid --fork --kill-child --mount-proc --propagation private \
    bash -c '
        for directory in /run /dev/shm /var/lib/cni /var/lib/containers; do
            mkdir -p "$directory" && mount -t tmpfs -o mode=755 tmpfs "$directory" || exit 2
        done
        busybox ip link set lo up || exit 2
        "$@"
        exit $?' engines \
    python3 -B "$here/main.py" --runtime "$runtime" --cgroup "$cgroup" --only "$only" "${engines[@]}"
