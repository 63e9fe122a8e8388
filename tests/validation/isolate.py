#!/usr/bin/env python3
"""isolate.py COMMAND [ARG...] - runs COMMAND where what it leaves behind does not matter.

COMMAND gets mount, PID and cgroup namespaces of its own, an empty /run, and below /sys/fs/cgroup a sub-cgroup of each
mounted hierarchy that it sees as the root. At its end, or at SIGTERM, all its processes are killed and the sub-cgroups
removed. The machine's own mounts and cgroups stay as they were. The exit status is COMMAND's.
"""

import os
import signal
import subprocess
import sys
import time

BASE = "/sys/fs/cgroup"
# Flags of the mount; what else the superblock shows selects the hierarchy.
FLAGS = {"rw", "ro", "relatime", "xattr", "noexec", "nsdelegate", "memory_recursiveprot"}


def hierarchies():
    """(mount point, file system type, controllers) of every cgroup mount."""
    found = []
    for line in open("/proc/self/mountinfo"):
        before, after = line.rstrip("\n").split(" - ", 1)
        point, (kind, _, options) = before.split(" ")[4], after.split(" ", 2)
        if kind in ("cgroup", "cgroup2") and (point == BASE or point.startswith(BASE + "/")):
            found.append((point, kind, [o for o in options.split(",") if o not in FLAGS]))
    return found


def own_cgroup(point, controllers):
    """The directory of this process in the hierarchy."""
    for line in open("/proc/self/cgroup"):
        _, names, path = line.rstrip("\n").split(":", 2)
        if set(names.split(",")) & set(controllers) or (not names and not controllers):
            return point + path.rstrip("/")
    return point


def read(path):
    with open(path) as file:
        return file.read().strip()


def write(path, value):
    with open(path, "w") as file:
        file.write(value)


def make(point, controllers, name):
    directory = f"{own_cgroup(point, controllers)}/{name}"
    os.mkdir(directory)
    if "cpuset" in controllers:
        for file in ("cpuset.cpus", "cpuset.mems"):
            write(f"{directory}/{file}", read(f"{os.path.dirname(directory)}/{file}"))
    return directory


def empty(directory):
    """Kills what is left below the directory, and removes it."""
    deadline = time.monotonic() + 10
    while os.path.exists(directory):
        for below, _, files in os.walk(directory, topdown=False):
            try:
                # What is frozen cannot die.
                if "freezer.state" in files and below != directory:
                    write(f"{below}/freezer.state", "THAWED")
                for pid in read(f"{below}/cgroup.procs").split():
                    os.kill(int(pid), signal.SIGKILL)
            except (OSError, ValueError):
                pass
            try:
                os.rmdir(below)
            except OSError:
                pass
        if time.monotonic() > deadline:
            print(f"isolate: {directory} is left behind", file=sys.stderr)
            return
        # A cgroup whose last process was just killed empties without telling anybody on v1.
        time.sleep(0.02)


def shell(mounts):
    lines = ["set -e", "mount -t tmpfs -o mode=755 tmpfs /run", "mkdir -p /run/lock"]
    if all(point != BASE for point, _, _ in mounts):
        lines.append(f"mount -t tmpfs -o mode=755 tmpfs {BASE}")
    for point, kind, controllers in mounts:
        options = f"-o {','.join(controllers)}" if controllers else ""
        lines.append(f"mkdir -p {point}; mount -t {kind} {options} cgroup {point}")
    return "\n".join([*lines, 'exec "$@"'])


def main():
    mounts, made, child = hierarchies(), [], 0
    name = f"kelson-validation-{os.getpid()}"
    try:
        for point, _, controllers in mounts:
            made.append(make(point, controllers, name))
        child = os.fork()
        if child == 0:
            for directory in made:
                write(f"{directory}/cgroup.procs", "0")
            unshare = ["unshare", "--cgroup", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
            os.execvp("unshare", [*unshare, "--propagation", "private", "sh", "-c", shell(mounts), "sh", *sys.argv[1:]])
        for number in (signal.SIGTERM, signal.SIGINT):
            # unshare ignores SIGTERM; killed, it takes the whole PID namespace with it.
            signal.signal(number, lambda *_: os.kill(child, signal.SIGKILL))
        _, status = os.waitpid(child, 0)
        status = os.waitstatus_to_exitcode(status)
    finally:
        for directory in made:
            empty(directory)
    sys.exit(status if status >= 0 else 128 - status)


if __name__ == "__main__":
    main()
