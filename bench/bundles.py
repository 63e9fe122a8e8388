"""Bundles for the bench: `true` and `sleep` have what `runc spec` writes, `podman` and `podman-sleep` what podman does.

Needs gcc, busybox-static and Debian's golang-github-containers-common (podman's default seccomp profile).
"""

import copy
import json
import os
import shutil
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
PROFILE = "/usr/share/containers/seccomp.json"
PODMAN_CAPABILITIES = [
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SETFCAP",
    "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
]
ERRNO = {"EPERM": 1, "EINVAL": 22, "ENOSYS": 38}


def compile_programs(directory):
    """floor, timed, rate, stamp, and a root file system with /true and busybox."""
    def cc(source, out, *options):
        subprocess.run(["gcc", "-O2", "-static", "-w", *options, "-o", out, f"{HERE}/{source}"], check=True)

    root = f"{directory}/rootfs"
    for name in ("bin", "dev", "etc", "proc", "run", "sys", "tmp", "root"):
        os.makedirs(f"{root}/{name}", exist_ok=True)
    cc("floor.c", f"{directory}/floor")
    cc("timed.c", f"{directory}/timed")
    cc("rate.c", f"{directory}/rate")
    cc("true.c", f"{root}/true", "-nostdlib")
    cc("stamp.c", f"{directory}/stamp", "-nostdlib")
    shutil.copy(shutil.which("busybox"), f"{root}/bin/busybox")
    for name in ("hosts", "resolv.conf", "hostname"):
        for path in (f"{directory}/{name}", f"{root}/etc/{name}"):
            with open(path, "w") as file:
                file.write("127.0.0.1 localhost\n")


def spec(directory, version):
    """What `runc spec` writes, with /true for the shell."""
    capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
    safe = ["nosuid", "noexec", "nodev"]
    kinds = ["pid", "network", "ipc", "uts", "mount"] + (["cgroup"] if version == "v2" else [])
    return {
        # crun 1.8 refuses newer ones.
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": ["/true"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {name: capabilities for name in ("bounding", "effective", "permitted")},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": f"{directory}/rootfs", "readonly": True},
        "hostname": "bench",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": [*safe, "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": safe},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*safe, "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": [*safe, "relatime", "ro"]},
        ],
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": kind} for kind in kinds],
            "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                            "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }


def seccomp():
    """podman's default profile as podman resolves it on x86_64 for its default capabilities."""
    source = json.load(open(PROFILE))
    profile = {
        "defaultAction": source["defaultAction"],
        "defaultErrnoRet": source.get("defaultErrnoRet", ERRNO.get(source.get("defaultErrno", "EPERM"), 1)),
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [],
    }
    for rule in source["syscalls"]:
        includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
        if includes.get("arches") and not {"amd64", "x86", "x32"} & set(includes["arches"]):
            continue
        if "amd64" in (excludes.get("arches") or []):
            continue
        if not set(includes.get("caps") or []) <= set(PODMAN_CAPABILITIES):
            continue
        if set(excludes.get("caps") or []) & set(PODMAN_CAPABILITIES):
            continue
        entry = {"names": rule["names"], "action": rule["action"]}
        if rule.get("args"):
            entry["args"] = rule["args"]
        if rule.get("errnoRet") is not None:
            entry["errnoRet"] = rule["errnoRet"]
        elif rule["action"] == "SCMP_ACT_ERRNO" and rule.get("errno") in ERRNO:
            entry["errnoRet"] = ERRNO[rule["errno"]]
        profile["syscalls"].append(entry)
    return profile


def podman(directory, version):
    """What podman writes for `podman run` as root, with limits and its own files bound in."""
    config = spec(directory, version)
    process, linux = config["process"], config["linux"]
    process["noNewPrivileges"] = False
    process["capabilities"] = {name: PODMAN_CAPABILITIES for name in ("bounding", "effective", "permitted")}
    process["user"]["umask"] = 0o22
    process["oomScoreAdj"] = 0
    process["env"] += ["container=podman", "HOSTNAME=bench", "HOME=/root"]
    process["rlimits"] = [{"type": "RLIMIT_NOFILE", "hard": 20000, "soft": 20000},
                          {"type": "RLIMIT_NPROC", "hard": 30000, "soft": 30000}]
    config["root"]["readonly"] = False
    config["annotations"] = {"io.container.manager": "libpod", "org.opencontainers.image.stopSignal": "15"}
    linux["resources"]["devices"] += [{"allow": True, "type": "c", "major": 1, "minor": minor, "access": "rwm"}
                                      for minor in (5, 3)]
    linux["resources"] |= {
        "memory": {"limit": 268435456, "swap": 536870912},
        "cpu": {"shares": 512, "quota": 200000, "period": 100000},
        "pids": {"limit": 2048},
    }
    if not os.path.exists("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes"):
        del linux["resources"]["memory"]["swap"]
    linux["namespaces"] = [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")]
    linux["seccomp"] = seccomp()
    config["mounts"] += [{"destination": f"/etc/{name}", "type": "bind", "source": f"{directory}/{name}",
                          "options": ["bind", "rprivate"]} for name in ("hosts", "resolv.conf", "hostname")]
    return config


def all_configs(directory, version):
    """Name to config.json. On a v2 that has no memory, cpu and pids controllers, their limits are left out."""
    configs = {"true": spec(directory, version), "podman": podman(directory, version)}
    if version == "v2":
        controllers = open("/sys/fs/cgroup/cgroup.controllers").read().split()
        for name in ("memory", "cpu", "pids"):
            if name not in controllers:
                configs["podman"]["linux"]["resources"].pop(name)
    for name, sleeper in (("true", "sleep"), ("podman", "podman-sleep")):
        configs[sleeper] = copy.deepcopy(configs[name])
        configs[sleeper]["process"]["args"] = ["/bin/busybox", "sleep", "1d"]
    return configs
