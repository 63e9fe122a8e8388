"""podman with --runtime: what it asks of a runtime through conmon and by itself."""

import json
import os
import re
from pathlib import Path

from harness import (
    CGROUP,
    IS_CGROUP_V2,
    MIB,
    Engine,
    Outcome,
    Rig,
    Running,
    Skip,
    case,
    check,
    expect,
    inside_limits,
    on_terminal,
    wait_until,
)

# podman's default capabilities as the kernel prints them in /proc/PID/status.
DEFAULT_CAPABILITIES = "00000000a80425fb"


class Podman(Engine):
    name = "podman"
    programs = ("podman", "conmon")

    def __init__(self, rig: Rig) -> None:
        super().__init__(rig)
        self.argv = ["podman", "--runtime", str(rig.runtime)]

    def start(self) -> None:
        rig = self.rig
        # default_ulimits: podman asks for more open files than an unprivileged CI machine may have.
        # The two lists are what podman needs for a runtime that it does not know: json errors, --cgroups=disabled.
        rig.file(
            "containers.conf",
            f"""
            [containers]
            default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
            log_driver = "k8s-file"
            [engine]
            cgroup_manager = "cgroupfs"
            events_logger = "file"
            infra_image = "{rig.IMAGE}"
            tmp_dir = "{rig.directory("podman-tmp")}"
            runtime_supports_json = ["{rig.runtime_name}"]
            runtime_supports_nocgroup = ["{rig.runtime_name}"]
            [network]
            network_backend = "cni"
            cni_plugin_dirs = ["/usr/lib/cni"]
            network_config_dir = "{rig.directory("networks")}"
            default_network = "engines"
            """,
        )
        rig.file(
            "storage.conf",
            f"""
            [storage]
            driver = "overlay"
            graphroot = "{rig.dir}/graph"
            runroot = "{rig.dir}/run"
            """,
        )
        # Without ipMasq and firewall: no kernel module is needed, and nothing of the host's tables is touched.
        rig.file(
            "networks/engines.conflist",
            json.dumps(
                {
                    "cniVersion": "0.4.0",
                    "name": "engines",
                    "plugins": [
                        {
                            "type": "bridge",
                            "bridge": "engines0",
                            "isGateway": True,
                            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.99.0.0/24"}]]},
                        }
                    ],
                }
            ),
        )
        rig.env |= {
            "CONTAINERS_CONF": f"{rig.dir}/containers.conf",
            "CONTAINERS_STORAGE_CONF": f"{rig.dir}/storage.conf",
            "CONTAINERS_REGISTRIES_CONF": str(rig.file("registries.conf", "")),
        }
        rig.file(".config/containers/policy.json", '{"default": [{"type": "insecureAcceptAnything"}]}')
        expect(self.podman("load", "--input", str(rig.image_archive())))

    def stop(self) -> None:
        pass

    def remove_all(self) -> None:
        self.podman("pod", "rm", "--all", "--force", "--time=0")
        self.podman("rm", "--all", "--force", "--time=0")

    def runtime_state(self) -> Path:
        return Path("/run") / self.rig.runtime_name

    def is_container_cgroup(self, path: Path) -> bool:
        return path.name.startswith("libpod-")

    def keeps_cgroup(self, path: Path) -> bool:
        # podman makes conmon's cgroup, and with it the parent, and never removes them.
        return path.name == "conmon" or path in self.rig.cgroup_parents()

    def keeps_mount(self, target: str) -> bool:
        return target == f"{self.rig.dir}/graph/overlay" or target.startswith("/run/netns")

    # Commands.

    def background(self, *arguments: str, stdin: bytes = b"") -> Running:
        return Running([*self.argv, *arguments], self.rig.env, stdin)

    def podman(self, *arguments: str, stdin: bytes = b"") -> Outcome:
        return self.background(*arguments, stdin=stdin).finish()

    def run_argv(self, *options: str) -> list[str]:
        """`run` with what every case wants; a network is made only where it is the point."""
        network = [] if any(option.startswith(("--network", "--pod")) for option in options) else ["--network=none"]
        return ["run", f"--cgroup-parent=/{self.rig.cgroup}", *network, *options, self.rig.IMAGE]

    def run(self, *command: str, options: tuple[str, ...] = (), stdin: bytes = b"") -> Outcome:
        return self.podman(*self.run_argv("--rm", *options), *command, stdin=stdin)

    def sh(self, script: str, *options: str) -> Outcome:
        return self.run("sh", "-c", script, options=options)

    def detached(self, name: str, *options: str, command: tuple[str, ...] = ("sleep", "1000")) -> str:
        expect(self.podman(*self.run_argv("--detach", f"--name={name}", *options), *command))
        return name

    def inspect(self, name: str, template: str) -> str:
        return expect(self.podman("container", "inspect", "--format", template, name)).text.strip()

    def remove(self, *names: str) -> None:
        expect(self.podman("rm", "--force", "--time=0", *names))

    # The first process: its exit code, its streams, its terminal.

    @case("run ends with the process's exit code 0 and prints its output")
    def run_zero(self) -> None:
        expect(self.run("echo", "hello"), code=0, out="hello\n")

    @case("run ends with the process's exit codes 3, 126, 127 and 137")
    def run_codes(self) -> None:
        for code in (3, 126, 127, 137):
            expect(self.sh(f"exit {code}"), code=code)

    @case("run of a file that is not executable ends with 126")
    def run_not_executable(self) -> None:
        expect(self.run("/etc/passwd"), code=126, error="permission denied")

    @case("run of a program that does not exist ends with 127 and names it")
    def run_missing(self) -> None:
        expect(self.run("no-such-program"), code=127, error="no-such-program")
        expect(self.run("/no/such/program"), code=127, error="/no/such/program")

    @case("run of a container that is killed ends with 137")
    def run_killed(self) -> None:
        running = self.background(*self.run_argv("--rm", "--name=killed"), "sleep", "1000")
        wait_until(lambda: self.podman("ps", "--quiet", "--filter=name=killed").text, "the container runs")
        expect(self.podman("kill", "killed"))
        expect(running.finish(), code=137)

    @case("2 MB go in by stdin and come out by stdout unchanged")
    def run_two_megabytes(self) -> None:
        data = os.urandom(2 * MIB)
        expect(self.run("cat", options=("--interactive",), stdin=data), out=data)

    @case("stdout and stderr stay apart")
    def run_streams(self) -> None:
        done = expect(self.sh("echo out; echo err >&2"), out="out\n")
        check(done.err == b"err\n", done.describe("stderr 'err\\n'"))

    @case("run -d, logs and wait")
    def run_detached(self) -> None:
        self.detached("logs", command=("sh", "-c", "echo out; echo err >&2; exit 7"))
        expect(self.podman("wait", "logs"), out="7\n")
        done = expect(self.podman("logs", "logs"), out="out\n")
        check(b"err\n" in done.err, done.describe("'err' in stderr"))
        check(
            self.inspect("logs", "{{.State.Status}} {{.State.ExitCode}}") == "exited 7", "inspect does not say exited 7"
        )
        self.remove("logs")

    @case("run -it has a controlling terminal of the caller's size that can be typed on")
    def run_on_terminal(self) -> None:
        argv = [
            *self.argv,
            *self.run_argv("--rm", "-it"),
            "sh",
            "-c",
            "tty; stty size; read line </dev/tty; echo got-$line; exit 5",
        ]
        done = expect(on_terminal(argv, self.rig.env, [(b"40 100", b"typed\n")]), code=5, has="/dev/pts/0")
        check("got-typed" in done.text, done.describe("'got-typed'"))

    @case("ctrl-c on the terminal of run -it interrupts the process")
    def run_interrupted(self) -> None:
        argv = [
            *self.argv,
            *self.run_argv("--rm", "-it"),
            "sh",
            "-c",
            "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.1; done",
        ]
        expect(on_terminal(argv, self.rig.env, [(b"ready", b"\x03")]), code=9, has="caught")

    @case("only stdio and --preserve-fds reach the process")
    def run_descriptors(self) -> None:
        # ls itself holds the directory open: one number more than what it inherited.
        expect(self.run("ls", "/proc/self/fd"), out="0\n1\n2\n3\n")
        kept = self.rig.file("kept", "")
        argv = [
            "sh",
            "-c",
            f'exec "$@" 3>{kept}',
            "sh",
            *self.argv,
            *self.run_argv("--rm", "--preserve-fds=1"),
            "sh",
            "-c",
            "echo kept >&3",
        ]
        expect(Running(argv, self.rig.env).finish())
        check(kept.read_text() == "kept\n", "nothing came through descriptor 3")

    @case("none of conmon's variables reaches the process")
    def run_environment(self) -> None:
        done = expect(self.run("env", options=("--env=A=b c", "--workdir=/var/data")))
        names = {line.partition("=")[0] for line in done.text.splitlines()}
        check("A=b c" in done.text.splitlines() and "HOME" in names, done.describe("A=b c and HOME"))
        check(
            names <= {"PATH", "TERM", "container", "HOME", "HOSTNAME", "A"},
            done.describe("no variable that was not asked for"),
        )
        expect(self.run("pwd", options=("--workdir=/var/data",)), out="/var/data\n")

    # exec.

    @case("exec ends with the process's exit code, and with 126 and 127")
    def exec_codes(self) -> None:
        name = self.detached("exec")
        for code in (0, 3, 137):
            expect(self.podman("exec", name, "sh", "-c", f"exit {code}"), code=code)
        expect(self.podman("exec", name, "/etc/passwd"), code=126)
        expect(self.podman("exec", name, "no-such-program"), code=127, error="no-such-program")
        self.remove(name)

    @case("exec -i carries 2 MB")
    def exec_two_megabytes(self) -> None:
        name, data = self.detached("exec"), os.urandom(2 * MIB)
        expect(self.podman("exec", "-i", name, "cat", stdin=data), out=data)
        self.remove(name)

    @case("exec takes environment, directory and user, and joins every namespace and cgroup")
    def exec_options(self) -> None:
        name = self.detached("exec", "--memory=64m")
        expect(
            self.podman(
                "exec", "--env=A=b", "--user=user", "--workdir=/tmp", name, "sh", "-c", "id -u; id -G; pwd; echo $A"
            ),
            out="1000\n1000 2000\n/tmp\nb\n",
        )
        of = "for n in cgroup ipc mnt net pid uts; do readlink /proc/%s/ns/$n; done; cat /proc/%s/cgroup"
        init = expect(self.podman("exec", name, "sh", "-c", of % (1, 1)))
        expect(self.podman("exec", name, "sh", "-c", of % ("self", "self")), out=init.out)
        self.remove(name)

    @case("exec -it has a terminal of its own")
    def exec_on_terminal(self) -> None:
        name = self.detached("exec")
        argv = [
            *self.argv,
            "exec",
            "-it",
            name,
            "sh",
            "-c",
            "tty; stty size; read line </dev/tty; echo got-$line; exit 5",
        ]
        done = expect(on_terminal(argv, self.rig.env, [(b"40 100", b"typed\n")]), code=5, has="/dev/pts/0")
        check("got-typed" in done.text, done.describe("'got-typed'"))
        self.remove(name)

    @case("exec -d goes on by itself")
    def exec_detached(self) -> None:
        name = self.detached("exec")
        expect(self.podman("exec", "--detach", name, "sh", "-c", "echo done >/tmp/file"))
        wait_until(lambda: self.podman("exec", name, "cat", "/tmp/file").out == b"done\n", "/tmp/file is written")
        self.remove(name)

    @case("exec in a container that has ended is refused")
    def exec_ended(self) -> None:
        self.detached("ended", command=("true",))
        expect(self.podman("wait", "ended"), out="0\n")
        check(self.podman("exec", "ended", "true").code != 0, "exec succeeded in a container that has ended")
        self.remove("ended")

    # Ending.

    @case("stop lets a process that handles SIGTERM end by itself")
    def stop_gracefully(self) -> None:
        self.detached("stop", command=("sh", "-c", "trap 'exit 4' TERM; echo ready; while :; do sleep 0.1; done"))
        wait_until(lambda: b"ready" in self.podman("logs", "stop").out, "the process is ready")
        expect(self.podman("stop", "--time=30", "stop"))
        check(self.inspect("stop", "{{.State.ExitCode}}") == "4", "the exit code is not the handler's")
        self.remove("stop")

    @case("stop kills a process that ignores SIGTERM")
    def stop_by_force(self) -> None:
        self.detached("stop")
        expect(self.podman("stop", "--time=1", "stop"))
        check(
            self.inspect("stop", "{{.State.Status}} {{.State.ExitCode}}") == "exited 137",
            "inspect does not say exited 137",
        )
        self.remove("stop")

    @case("kill sends the signal that is named")
    def kill_signal(self) -> None:
        self.detached("kill", command=("sh", "-c", "trap 'echo usr1' USR1; echo ready; while :; do sleep 0.1; done"))
        wait_until(lambda: b"ready" in self.podman("logs", "kill").out, "the process is ready")
        expect(self.podman("kill", "--signal=USR1", "kill"))
        wait_until(lambda: b"usr1" in self.podman("logs", "kill").out, "the handler ran")
        expect(self.podman("kill", "kill"))
        expect(self.podman("wait", "kill"), out="137\n")
        self.remove("kill")

    @case("rm -f removes a running container with all its processes")
    def remove_running(self) -> None:
        self.detached("remove", command=("sh", "-c", "sleep 1000 & sleep 1000 & wait"))
        pid = self.inspect("remove", "{{.State.Pid}}")
        self.remove("remove")
        check(not Path(f"/proc/{pid}").exists(), "the container's init is still there")

    @case("start runs a container again")
    def start_again(self) -> None:
        self.detached("again", command=("sh", "-c", "echo $(hostname) >>/tmp/file; wc -l </tmp/file"))
        expect(self.podman("wait", "again"), out="0\n")
        expect(self.podman("start", "--attach", "again"), out="2\n")
        expect(self.podman("restart", "--time=0", "again"))
        expect(self.podman("wait", "again"), out="0\n")
        self.remove("again")

    @case("pause freezes every process and unpause lets them go on")
    def pause(self) -> None:
        self.detached("pause", command=("sh", "-c", "while :; do echo tick; sleep 0.05; done"))
        wait_until(lambda: b"tick" in self.podman("logs", "pause").out, "the process ticks")
        expect(self.podman("pause", "pause"))
        check(self.inspect("pause", "{{.State.Status}}") == "paused", "inspect does not say paused")
        before = self.podman("logs", "pause").out
        check(self.podman("exec", "pause", "true").code != 0, "exec succeeded in a paused container")
        check(self.podman("logs", "pause").out == before, "the paused process went on")
        expect(self.podman("unpause", "pause"))
        wait_until(lambda: self.podman("logs", "pause").out != before, "the process goes on")
        self.remove("pause")

    @case("rm -f removes a paused container")
    def remove_paused(self) -> None:
        self.detached("paused")
        expect(self.podman("pause", "paused"))
        self.remove("paused")

    # Limits.

    @case("-m, --pids-limit and --cpus are what the container's own cgroup says")
    def limits(self) -> None:
        files = inside_limits(memory=64 * MIB, pids=50, cpu_percent=50)
        done = self.run("cat", *(file for file, _ in files), options=("--memory=64m", "--pids-limit=50", "--cpus=0.5"))
        expect(done, out="".join(f"{value}\n" for _, value in files))

    @case("update changes the limits of a running container")
    def update(self) -> None:
        self.detached("update", "--memory=64m", "--pids-limit=50", "--cpus=0.5")
        expect(self.podman("update", "--memory=128m", "--cpus=0.2", "update"))
        files = inside_limits(memory=128 * MIB, pids=50, cpu_percent=20)
        done = self.podman("exec", "update", "cat", *(file for file, _ in files))
        expect(done, out="".join(f"{value}\n" for _, value in files))
        self.remove("update")

    @case("a process over -m is killed")
    def limit_memory(self) -> None:
        expect(self.run("dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1", options=("--memory=16m",)), code=137)

    @case("a process over --pids-limit cannot fork")
    def limit_pids(self) -> None:
        done = self.sh("for i in 1 2 3 4 5 6 7 8 9 10; do sleep 5 & done; kill $(jobs -p)", "--pids-limit=5")
        check(b"fork" in done.err, done.describe("an error of fork"))

    @case("--ulimit and --sysctl are applied")
    def rlimit_and_sysctl(self) -> None:
        expect(
            self.sh(
                "ulimit -n; cat /proc/sys/kernel/msgmax",
                "--ulimit=nofile=100:200",
                "--ulimit=nproc=99:99",
                "--sysctl=kernel.msgmax=9999",
            ),
            out="100\n9999\n",
        )

    @case("--cgroups=disabled makes no cgroup")
    def cgroups_disabled(self) -> None:
        if self.rig.runtime_name == "runc":
            raise Skip("runc does not know --cgroup-manager")
        before = self.rig.cgroups()
        expect(
            self.podman(
                "run",
                "--detach",
                "--name=nocgroup",
                "--network=none",
                "--cgroups=disabled",
                self.rig.IMAGE,
                "sleep",
                "1000",
            )
        )
        pid = self.inspect("nocgroup", "{{.State.Pid}}")
        check("libpod" not in Path(f"/proc/{pid}/cgroup").read_text(), "the container is in a cgroup of its own")
        check(self.rig.cgroups() == before, "a cgroup was made")
        expect(self.podman("exec", "nocgroup", "true"))
        self.remove("nocgroup")

    # The file system.

    @case("-v mounts a directory writable, and with ro read-only")
    def volumes(self) -> None:
        directory = self.rig.directory("volume")
        expect(self.sh("echo written >/data/file && cat /data/file", f"--volume={directory}:/data"), out="written\n")
        check((directory / "file").read_text() == "written\n", "the file did not reach the host")
        done = self.sh("cat /data/file; echo again >/data/file", f"--volume={directory}:/data:ro")
        check(
            done.code != 0 and b"Read-only file system" in done.err and done.out == b"written\n",
            done.describe("a read-only /data"),
        )

    @case("-v of a single file, and of a path that the image has not")
    def volume_of_a_file(self) -> None:
        file = self.rig.file("volume-file", "from the host\n")
        expect(self.run("cat", "/a/new/path", options=(f"--volume={file}:/a/new/path:ro",)), out="from the host\n")

    @case("--read-only leaves only /tmp and the like writable")
    def read_only(self) -> None:
        done = self.sh("echo x >/tmp/file && echo x >/dev/shm/file && echo tmp; echo x >/etc/file", "--read-only")
        check(
            done.code != 0 and done.out == b"tmp\n" and b"Read-only file system" in done.err,
            done.describe("a read-only root"),
        )

    @case("--tmpfs mounts with its options")
    def tmpfs(self) -> None:
        done = expect(
            self.run("grep", " /var/data ", "/proc/mounts", options=("--tmpfs=/var/data:size=1m,mode=1700,noexec",))
        )
        check(
            all(text in done.text for text in ("tmpfs", "size=1024k", "mode=1700", "noexec", "nosuid", "nodev")),
            done.describe("all options"),
        )

    @case("masked and read-only paths are masked and read-only")
    def masked(self) -> None:
        files = "cat /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug 2>/dev/null | wc -c; "
        directories = "find /proc/acpi /proc/scsi /sys/firmware /sys/dev/block -mindepth 1 2>/dev/null | wc -l"
        expect(self.sh(files + directories), out="0\n0\n")
        check(self.sh("echo 1 >/proc/sys/kernel/panic").code != 0, "/proc/sys is writable")

    @case("/dev has the default devices and links, and --device adds one")
    def devices(self) -> None:
        listing = (
            "for f in null zero full random urandom tty; do test -c /dev/$f || echo no $f; done; "
            "for f in fd stdin stdout stderr ptmx; do readlink /dev/$f; done; "
        )
        links = "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n"
        expect(
            self.sh(listing + "head -c 3 /dev/zero | wc -c; echo x >/dev/null", "--device=/dev/fuse:/dev/other"),
            out=links + "3\n",
        )
        expect(self.sh("test -c /dev/other && : </dev/other", "--device=/dev/null:/dev/other"))
        # A device that is not allowed can be made, with CAP_MKNOD, but not opened.
        done = self.sh("mknod /tmp/kmsg c 1 11 && cat /tmp/kmsg")
        check(
            done.code != 0 and b"not permitted" in done.err, done.describe("no access to a device that is not allowed")
        )

    # Identity and privilege.

    @case("--user by name, by number and with a group")
    def user(self) -> None:
        ids = "id -u; id -g; id -G; grep CapEff /proc/self/status"
        none = "CapEff:\t0000000000000000\n"
        expect(self.sh(ids, "--user=user"), out=f"1000\n1000\n1000 2000\n{none}")
        expect(self.sh(ids, "--user=1234"), out=f"1234\n0\n0\n{none}")
        expect(self.sh(ids, "--user=1234:5678", "--group-add=99"), out=f"1234\n5678\n5678 99\n{none}")

    @case("--cap-drop and --cap-add")
    def capabilities(self) -> None:
        sets = "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status | cut -f2"
        zero = "0" * 16
        default = DEFAULT_CAPABILITIES
        expect(self.sh(sets), out=f"{zero}\n{default}\n{default}\n{default}\n{zero}\n")
        expect(self.sh(sets, "--cap-drop=ALL"), out=f"{zero}\n" * 5)
        chown = "0000000000000001"
        expect(self.sh(sets, "--cap-drop=ALL", "--cap-add=CHOWN"), out=f"{zero}\n{chown}\n{chown}\n{chown}\n{zero}\n")

    @case("no-new-privileges and the seccomp filter are on")
    def privileges(self) -> None:
        status = "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status | cut -f2"
        expect(self.sh(status), out="0\n2\n")
        expect(self.sh(status, "--security-opt=no-new-privileges"), out="1\n2\n")
        expect(self.sh(status, "--security-opt=seccomp=unconfined"), out="0\n0\n")
        # exec gets the same.
        self.detached("exec", "--security-opt=no-new-privileges", "--cap-drop=ALL")
        expect(
            self.podman("exec", "exec", "sh", "-c", status + "; grep CapBnd /proc/self/status | cut -f2"),
            out="1\n2\n0000000000000000\n",
        )
        self.remove("exec")

    @case("--privileged has the host's devices and all capabilities that can be had")
    def privileged(self) -> None:
        bounding = next(
            line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd")
        )
        expect(
            self.sh(
                "grep CapEff /proc/self/status | cut -f2; test -c /dev/kmsg && test -w /proc/sys/kernel/hostname",
                "--privileged",
            ),
            out=f"{bounding}\n",
        )

    @case("--uidmap maps the container's root to another user")
    def user_namespace(self) -> None:
        script = (
            "tr -s ' ' </proc/self/uid_map; id -u; touch /tmp/file && stat -c %u /tmp/file; "
            "ls -n /proc/1/comm | tr -s ' ' | cut -d' ' -f3"
        )
        expect(self.sh(script, "--uidmap=0:100000:65536", "--gidmap=0:100000:65536"), out=" 0 100000 65536\n0\n0\n0\n")

    # Namespaces and networks.

    @case("--hostname, and namespaces that are not the host's")
    def namespaces(self) -> None:
        done = expect(
            self.sh(
                "hostname; for n in ipc mnt net pid uts; do readlink /proc/self/ns/$n; done; echo $$", "--hostname=web"
            )
        )
        host, *mine, pid = done.text.splitlines()
        check(host == "web" and pid == "1", done.describe("hostname web and PID 1"))
        ours = [os.readlink(f"/proc/self/ns/{name}") for name in ("ipc", "mnt", "net", "pid", "uts")]
        check(not set(mine) & set(ours), done.describe("namespaces of its own"))

    @case("--network none has only loopback, which is up")
    def network_none(self) -> None:
        expect(self.sh("ls /sys/class/net; ping -c 1 -W 5 127.0.0.1 >/dev/null && echo up"), out="lo\nup\n")

    @case("--network host is the host's")
    def network_host(self) -> None:
        expect(
            self.run("readlink", "/proc/self/ns/net", options=("--network=host",)),
            out=os.readlink("/proc/self/ns/net") + "\n",
        )

    @case("--pid, --ipc and --uts host are the host's")
    def other_namespaces_of_host(self) -> None:
        options = ("--network=host", "--pid=host", "--ipc=host", "--uts=host")
        ours = "".join(os.readlink(f"/proc/self/ns/{name}") + "\n" for name in ("ipc", "pid", "uts"))
        expect(self.sh("for n in ipc pid uts; do readlink /proc/self/ns/$n; done", *options), out=ours)
        self.detached("hostpid", *options, command=("sh", "-c", "sleep 1000 & wait"))
        self.remove("hostpid")

    @case("a network namespace that CNI made is joined")
    def network_bridge(self) -> None:
        done = expect(
            self.sh(
                "cat /sys/class/net/eth0/operstate; ping -c 1 -W 5 10.99.0.1 >/dev/null && echo reached",
                "--network=engines",
            )
        )
        check(done.text.endswith("reached\n"), done.describe("the gateway answers"))

    @case("containers of a pod share network, IPC, UTS and PID namespaces")
    def pod(self) -> None:
        expect(
            self.podman(
                "pod",
                "create",
                "--name=pod",
                "--network=none",
                "--share=net,ipc,uts,pid",
                "--infra-command=sleep 1000",
                f"--cgroup-parent=/{self.rig.cgroup}",
            )
        )
        expect(self.podman("run", "--detach", "--pod=pod", "--name=first", self.rig.IMAGE, "sleep", "1000"))
        names = "for n in ipc net pid uts; do readlink /proc/self/ns/$n; done"
        first = expect(self.podman("exec", "first", "sh", "-c", names))
        expect(self.podman("run", "--rm", "--pod=pod", self.rig.IMAGE, "sh", "-c", names), out=first.out)
        expect(self.podman("run", "--rm", "--pod=pod", self.rig.IMAGE, "ps", "-o", "args"), has="sleep 1000")
        # Init of a joined PID namespace is not ours: what is left must be found through the cgroup.
        expect(
            self.podman("run", "--pod=pod", "--name=second", self.rig.IMAGE, "sh", "-c", "sleep 2000 & exit 3"), code=3
        )
        expect(self.podman("rm", "--force", "second"))
        check(
            "sleep 2000" not in expect(self.podman("exec", "first", "ps", "-o", "args")).text,
            "a process of the removed container goes on",
        )
        expect(self.podman("pod", "stop", "--time=1", "pod"))
        expect(self.podman("pod", "start", "pod"))
        expect(self.podman("pod", "rm", "--force", "--time=0", "pod"))

    @case("--network and --pid of another container")
    def namespaces_of_another(self) -> None:
        self.detached("other", command=("sleep", "1234"))
        expect(
            self.run("ps", "-o", "args", options=("--network=container:other", "--pid=container:other")),
            has="sleep 1234",
        )
        self.remove("other")

    # What podman says about the runtime.

    @case("info shows the runtime and its version")
    def info(self) -> None:
        runtime = json.loads(expect(self.podman("info", "--format=json")).text)["host"]["ociRuntime"]
        check(runtime["path"] == str(self.rig.runtime), f"path is {runtime['path']}")
        check(re.search(r"version \S+", runtime["version"]) is not None, f"version is {runtime['version']!r}")

    @case("inspect shows the container's PID and runtime; top and stats work")
    def inspect_running(self) -> None:
        self.detached("inspect", command=("sleep", "1234"))
        status, pid, runtime = self.inspect("inspect", "{{.State.Status}} {{.State.Pid}} {{.OCIRuntime}}").split()
        check(status == "running" and runtime == str(self.rig.runtime), f"{status}, {runtime}")
        check(
            Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x001234\x00", f"{pid} is not the container's process"
        )
        expect(self.podman("top", "inspect", "args"), has="sleep 1234")
        stats = json.loads(expect(self.podman("stats", "--no-stream", "--format=json", "inspect")).text)[0]
        check(stats["pids"] == "1", f"stats count {stats['pids']} processes")
        self.remove("inspect")

    @case("the container's cgroup is where podman says, with limits in place")
    def cgroup_on_host(self) -> None:
        self.detached("cgroup", "--pids-limit=33")
        identity = self.inspect("cgroup", "{{.Id}}")
        path = (CGROUP if IS_CGROUP_V2 else CGROUP / "pids") / self.rig.cgroup / f"libpod-{identity}"
        check((path / "pids.max").read_text() == "33\n", f"{path}/pids.max")
        pid = self.inspect("cgroup", "{{.State.Pid}}")
        # Read as the kernel shows it to us; with cgroup v2 conmon's engine may have put a leaf below it.
        check(
            pid in (path / "cgroup.procs").read_text().split() or (path / "container").exists(),
            "init is not in the cgroup",
        )
        self.remove("cgroup")
        wait_until(lambda: not path.exists(), f"{path} is removed")

    @case("build runs its steps")
    def build(self) -> None:
        # buildah calls create, start, state, kill and delete itself, and reads what state prints.
        context = self.rig.directory("context")
        lines = [
            f"FROM {self.rig.IMAGE}",
            "RUN echo built >/file && id -u >>/file",
            "USER user",
            "RUN id -un >/tmp/user",
        ]
        (context / "Containerfile").write_text("\n".join(lines))
        # What buildah calls the parent is the step's own cgroup.
        options = ["--isolation=oci", "--network=none", f"--cgroup-parent=/{self.rig.cgroup}/build", "--tag=built"]
        expect(self.podman("build", *options, str(context)))
        argv = ["run", "--rm", f"--cgroup-parent=/{self.rig.cgroup}", "--network=none", "localhost/built"]
        expect(self.podman(*argv, "cat", "/file", "/tmp/user"), out="built\n0\nuser\n")
        expect(self.podman("rmi", "localhost/built"))
        (context / "Containerfile").write_text(f"FROM {self.rig.IMAGE}\nRUN exit 3")
        done = self.podman("build", *options, str(context))
        check(done.code != 0 and b"exit status 3" in done.err, done.describe("exit status 3"))

    @case("eight runs at once")
    def at_once(self) -> None:
        started = [self.background(*self.run_argv("--rm"), "echo", str(number)) for number in range(8)]
        for number, running in enumerate(started):
            expect(running.finish(), out=f"{number}\n")

    @case("a create that fails leaves nothing")
    def failed_create(self) -> None:
        before = self.rig.cgroups()
        expect(self.run("no-such-program"), code=127)
        check(self.rig.cgroups() == before, "a cgroup is left")
        check(expect(self.podman("ps", "--all", "--quiet")).out == b"", "a container is left")
