"""Docker Engine with the runtime as its default: dockerd, its own containerd and shim, the docker client."""

import json
import os
from pathlib import Path

from harness import (
    CGROUP,
    IS_CGROUP_V2,
    MIB,
    Daemon,
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


class Docker(Engine):
    name = "docker"
    programs = ("dockerd", "docker", "containerd", "containerd-shim-runc-v2", "runc", "iptables")

    def __init__(self, rig: Rig) -> None:
        super().__init__(rig)
        self.argv = ["docker", f"--host=unix://{rig.dir}/docker.sock"]

    def start(self) -> None:
        rig = self.rig
        # oom-score-adjust 0: the default of -500 needs CAP_SYS_RESOURCE. No iptables: they would need kernel modules.
        config = rig.file(
            "daemon.json",
            json.dumps(
                {
                    "data-root": f"{rig.dir}/data",
                    "exec-root": f"{rig.dir}/exec",
                    "pidfile": f"{rig.dir}/pid",
                    "hosts": [f"unix://{rig.dir}/docker.sock"],
                    "runtimes": {"tested": {"path": str(rig.runtime)}},
                    "default-runtime": "tested",
                    "exec-opts": ["native.cgroupdriver=cgroupfs"],
                    "cgroup-parent": f"/{rig.cgroup}",
                    "oom-score-adjust": 0,
                    "iptables": False,
                    "ip6tables": False,
                    "ip-masq": False,
                    "userland-proxy": False,
                    "bip": "10.98.0.1/24",
                    "log-level": "warn",
                }
            ),
        )
        self.daemon = Daemon(["dockerd", f"--config-file={config}"], rig)
        wait_until(lambda: self.docker("version").code == 0, "dockerd answers")
        expect(self.docker("load", f"--input={rig.image_archive()}"))

    def stop(self) -> None:
        self.daemon.stop()

    def remove_all(self) -> None:
        if names := self.docker("ps", "--all", "--quiet").text.split():
            self.docker("rm", "--force", *names)

    def runtime_state(self) -> Path:
        return self.rig.dir / "exec/runtime-runc/moby"

    def keeps_mount(self, target: str) -> bool:
        return target in (f"{self.rig.dir}/exec/netns/default", f"{self.rig.dir}/data")

    # Commands.

    def background(self, *arguments: str, stdin: bytes = b"") -> Running:
        return Running([*self.argv, *arguments], self.rig.env, stdin)

    def docker(self, *arguments: str, stdin: bytes = b"") -> Outcome:
        return self.background(*arguments, stdin=stdin).finish()

    def run_argv(self, *options: str) -> list[str]:
        """`run` with what every case wants; a network is made only where it is the point."""
        network = [] if any(option.startswith("--network") for option in options) else ["--network=none"]
        return ["run", *network, *options, self.rig.IMAGE]

    def run(self, *command: str, options: tuple[str, ...] = (), stdin: bytes = b"") -> Outcome:
        return self.docker(*self.run_argv("--rm", *options), *command, stdin=stdin)

    def sh(self, script: str, *options: str) -> Outcome:
        return self.run("sh", "-c", script, options=options)

    def detached(self, name: str, *options: str, command: tuple[str, ...] = ("sleep", "1000")) -> str:
        expect(self.docker(*self.run_argv("--detach", f"--name={name}", *options), *command))
        return name

    def inspect(self, name: str, template: str) -> str:
        return expect(self.docker("container", "inspect", f"--format={template}", name)).text.strip()

    def remove(self, name: str) -> None:
        expect(self.docker("rm", "--force", name))

    # run.

    @case("info and run use the runtime")
    def info(self) -> None:
        info = json.loads(expect(self.docker("info", "--format={{json .}}")).text)
        check(
            info["DefaultRuntime"] == "tested" and info["Runtimes"]["tested"]["path"] == str(self.rig.runtime),
            f"runtimes: {info['Runtimes']}",
        )
        self.detached("info")
        check(
            self.inspect("info", "{{.HostConfig.Runtime}} {{.State.Status}}") == "tested running",
            "inspect does not say tested, running",
        )
        self.remove("info")
        expect(self.run("echo", "named", options=("--runtime=tested",)), out="named\n")

    @case("run ends with the process's exit codes 0, 3, 126, 127 and 137")
    def run_codes(self) -> None:
        expect(self.run("echo", "hello"), out="hello\n")
        for code in (3, 126, 127, 137):
            expect(self.sh(f"exit {code}"), code=code)

    @case("run of a file that is not executable ends with 126, of no file with 127")
    def run_missing(self) -> None:
        expect(self.run("/etc/passwd"), code=126, error="permission denied")
        expect(self.run("no-such-program"), code=127, error="no-such-program")
        expect(self.run("/no/such/program"), code=127, error="/no/such/program")

    @case("2 MB go in by stdin and come out by stdout unchanged")
    def run_two_megabytes(self) -> None:
        data = os.urandom(2 * MIB)
        expect(self.run("cat", options=("--interactive",), stdin=data), out=data)

    @case("run -d, logs and wait")
    def run_detached(self) -> None:
        self.detached("logs", command=("sh", "-c", "echo out; echo err >&2; exit 7"))
        expect(self.docker("wait", "logs"), out="7\n")
        done = expect(self.docker("logs", "logs"), out="out\n")
        check(done.err == b"err\n", done.describe("stderr 'err\\n'"))
        self.remove("logs")

    @case("run -it has a controlling terminal of the caller's size that can be typed on")
    def run_on_terminal(self) -> None:
        # The client sets the size just after the start.
        script = "tty; until stty size | grep 40; do sleep 0.05; done; read line </dev/tty; echo got-$line; exit 5"
        argv = [*self.argv, *self.run_argv("--rm", "-it"), "sh", "-c", script]
        done = expect(on_terminal(argv, self.rig.env, [(b"40 100", b"typed\n")]), code=5, has="/dev/pts/0")
        check("got-typed" in done.text, done.describe("'got-typed'"))

    @case("only stdio reaches the process")
    def run_descriptors(self) -> None:
        expect(self.run("ls", "/proc/self/fd"), out="0\n1\n2\n3\n")

    # exec.

    @case("exec ends with the process's exit code, or 126")
    def exec_codes(self) -> None:
        name = self.detached("exec")
        for code in (0, 3, 137):
            expect(self.docker("exec", name, "sh", "-c", f"exit {code}"), code=code)
        # dockerd 20.10 makes 126 of every failed exec, and the client prints the message to stdout.
        expect(self.docker("exec", name, "/etc/passwd"), code=126, has="permission denied")
        expect(self.docker("exec", name, "no-such-program"), code=126, has="no-such-program")
        self.remove(name)

    @case("exec takes stdin, environment, directory and user")
    def exec_options(self) -> None:
        name, data = self.detached("exec"), os.urandom(2 * MIB)
        expect(self.docker("exec", "-i", name, "cat", stdin=data), out=data)
        expect(
            self.docker(
                "exec", "--env=A=b", "--user=user", "--workdir=/tmp", name, "sh", "-c", "id -u; id -G; pwd; echo $A"
            ),
            out="1000\n1000 2000\n/tmp\nb\n",
        )
        self.remove(name)

    @case("exec -it has a terminal of its own")
    def exec_on_terminal(self) -> None:
        name = self.detached("exec")
        argv = [*self.argv, "exec", "-it", name, "sh", "-c", "tty; read line </dev/tty; echo got-$line; exit 5"]
        done = expect(on_terminal(argv, self.rig.env, [(b"/dev/pts/0", b"typed\n")]), code=5)
        check("got-typed" in done.text, done.describe("'got-typed'"))
        self.remove(name)

    # Ending and starting.

    @case("stop lets a process that handles SIGTERM end by itself, and kills one that does not")
    def stop_container(self) -> None:
        self.detached("stop", command=("sh", "-c", "trap 'exit 4' TERM; echo ready; while :; do sleep 0.1; done"))
        wait_until(lambda: b"ready" in self.docker("logs", "stop").out, "the process is ready")
        expect(self.docker("stop", "--time=30", "stop"))
        check(self.inspect("stop", "{{.State.ExitCode}}") == "4", "the exit code is not the handler's")
        self.remove("stop")
        self.detached("stop")
        expect(self.docker("stop", "--time=1", "stop"))
        check(self.inspect("stop", "{{.State.ExitCode}}") == "137", "the exit code is not 137")
        self.remove("stop")

    @case("kill sends the signal that is named")
    def kill_signal(self) -> None:
        self.detached("kill", command=("sh", "-c", "trap 'echo usr1' USR1; echo ready; while :; do sleep 0.1; done"))
        wait_until(lambda: b"ready" in self.docker("logs", "kill").out, "the process is ready")
        expect(self.docker("kill", "--signal=USR1", "kill"))
        wait_until(lambda: b"usr1" in self.docker("logs", "kill").out, "the handler ran")
        expect(self.docker("kill", "kill"))
        expect(self.docker("wait", "kill"), out="137\n")
        self.remove("kill")

    @case("restart and start run a container again")
    def restart(self) -> None:
        self.detached("again", command=("sh", "-c", "echo started >>/tmp/file; cat /tmp/file; exec sleep 1000"))

        # One that is killed before its shell has run leaves no line.
        def logged(starts: int, what: str) -> None:
            wait_until(lambda: self.docker("logs", "again").text.count("started") == starts, what)

        logged(1, "the first start is logged")
        expect(self.docker("restart", "--time=0", "again"))
        logged(1 + 2, "the second start is logged")
        expect(self.docker("stop", "--time=0", "again"))
        expect(self.docker("start", "again"))
        logged(1 + 2 + 3, "the third start is logged")
        self.remove("again")

    @case("--restart=on-failure starts a container that fails again")
    def restart_policy(self) -> None:
        self.detached("policy", "--restart=on-failure:2", command=("sh", "-c", "echo ran; exit 3"))
        wait_until(
            lambda: self.inspect("policy", "{{.RestartCount}} {{.State.Status}}") == "2 exited",
            "it was started again twice",
        )
        check(self.docker("logs", "policy").out == b"ran\n" * 3, "it did not run three times")
        self.remove("policy")

    @case("pause and unpause, top and stats")
    def pause(self) -> None:
        self.detached("pause", command=("sleep", "1234"))
        expect(self.docker("top", "pause", "-o", "pid,args"), has="sleep 1234")
        expect(self.docker("stats", "--no-stream", "--format={{.PIDs}}", "pause"), out="1\n")
        expect(self.docker("pause", "pause"))
        check(self.inspect("pause", "{{.State.Status}}") == "paused", "inspect does not say paused")
        check(self.docker("exec", "pause", "true").code != 0, "exec succeeded in a paused container")
        expect(self.docker("unpause", "pause"))
        expect(self.docker("exec", "pause", "true"))
        self.remove("pause")

    # What a container is given.

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

    @case("--read-only with a tmpfs")
    def read_only(self) -> None:
        done = self.sh("echo x >/var/data/file && echo tmpfs; echo x >/etc/file", "--read-only", "--tmpfs=/var/data")
        check(
            done.code != 0 and done.out == b"tmpfs\n" and b"Read-only file system" in done.err,
            done.describe("a read-only root"),
        )

    @case("--user by name, by number and with a group")
    def user(self) -> None:
        ids = "id -u; id -g; id -G; grep CapEff /proc/self/status"
        none = "CapEff:\t0000000000000000\n"
        expect(self.sh(ids, "--user=user"), out=f"1000\n1000\n1000 2000\n{none}")
        expect(self.sh(ids, "--user=1234:5678", "--group-add=99"), out=f"1234\n5678\n5678 99\n{none}")

    @case("-m, --pids-limit and --cpus are what the container's own cgroup says")
    def limits(self) -> None:
        files = inside_limits(memory=64 * MIB, pids=50, cpu_percent=50)
        done = self.run("cat", *(file for file, _ in files), options=("--memory=64m", "--pids-limit=50", "--cpus=0.5"))
        expect(done, out="".join(f"{value}\n" for _, value in files))

    @case("update changes the limits of a running container")
    def update(self) -> None:
        self.detached("update", "--memory=64m", "--pids-limit=50", "--cpus=0.5")
        options = ("--memory=128m", "--memory-swap=256m", "--pids-limit=60", "--cpus=0.2")
        expect(self.docker("update", *options, "update"))
        files = inside_limits(memory=128 * MIB, pids=60, cpu_percent=20)
        done = self.docker("exec", "update", "cat", *(file for file, _ in files))
        expect(done, out="".join(f"{value}\n" for _, value in files))
        self.remove("update")

    @case("a process over -m is killed, and inspect says so")
    def limit_memory(self) -> None:
        argv = self.run_argv("--name=oom", "--memory=16m", "--memory-swap=16m")
        expect(self.docker(*argv, "dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"), code=137)
        check(self.inspect("oom", "{{.State.OOMKilled}}") == "true", "inspect does not say OOMKilled")
        self.remove("oom")

    @case("the container's cgroup is where docker says, with limits in place")
    def cgroup_on_host(self) -> None:
        self.detached("cgroup", "--pids-limit=33")
        path = (CGROUP if IS_CGROUP_V2 else CGROUP / "pids") / self.rig.cgroup / self.inspect("cgroup", "{{.Id}}")
        check((path / "pids.max").read_text() == "33\n", f"{path}/pids.max")
        check(
            self.inspect("cgroup", "{{.State.Pid}}") in (path / "cgroup.procs").read_text().split(),
            "init is not in the cgroup",
        )
        self.remove("cgroup")
        wait_until(lambda: not path.exists(), f"{path} is removed")

    @case("capabilities, no_new_privs and the seccomp filter")
    def privileges(self) -> None:
        status = "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | cut -f2"
        default, zero = "00000000a80425fb", "0" * 16
        expect(self.sh(status), out=f"{default}\n{default}\n0\n2\n")
        expect(self.sh(status, "--cap-drop=ALL", "--security-opt=no-new-privileges"), out=f"{zero}\n{zero}\n1\n2\n")

    @case("--privileged has all capabilities that can be had")
    def privileged(self) -> None:
        bounding = next(
            line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd")
        )
        if self.rig.runtime_name == "runc" and not int(bounding, 16) & 1 << 24:
            raise Skip("root lacks CAP_SYS_RESOURCE here, and runc before 1.2 fails on capabilities that cannot be had")
        done = expect(self.sh("grep CapEff /proc/self/status | cut -f2; test -c /dev/kmsg", "--privileged"))
        # Docker asks for those that it knows.
        check(
            int(done.text, 16) != 0 and int(done.text, 16) & ~int(bounding, 16) == 0,
            done.describe(f"a part of {bounding}"),
        )

    @case("--init, --hostname, --sysctl and --device")
    def other_options(self) -> None:
        options = ("--init", "--hostname=web", "--sysctl=kernel.msgmax=9999", "--device=/dev/fuse:/dev/other")
        script = (
            "hostname; cat /proc/sys/kernel/msgmax; test -c /dev/other && : </dev/other && echo device; "
            "tr '\\0' ' ' </proc/1/cmdline"
        )
        expect(self.sh(script, *options), has="web\n9999\ndevice\n/sbin/docker-init")

    # Networks: dockerd moves an interface into the container by a prestart hook that binds init's network namespace.

    @case("the default bridge gives an interface that reaches the gateway")
    def network_bridge(self) -> None:
        done = expect(
            self.sh(
                "ping -c 1 -W 5 10.98.0.1 >/dev/null && echo reached; cat /etc/hosts",
                "--network=bridge",
                "--hostname=web",
            )
        )
        check(
            done.text.startswith("reached\n") and "web" in done.text,
            done.describe("an answer of the gateway, and web in /etc/hosts"),
        )

    @case("--network none and host, namespaces of the host and of another container")
    def namespaces(self) -> None:
        expect(self.run("ls", "/sys/class/net"), out="lo\n")
        ours = "".join(os.readlink(f"/proc/self/ns/{name}") + "\n" for name in ("ipc", "net", "pid", "uts"))
        script = "for n in ipc net pid uts; do readlink /proc/self/ns/$n; done"
        expect(self.sh(script, "--network=host", "--pid=host", "--ipc=host", "--uts=host"), out=ours)
        self.detached("other", "--ipc=shareable", command=("sleep", "1234"))
        expect(
            self.sh("ps -o args", "--network=container:other", "--pid=container:other", "--ipc=container:other"),
            has="sleep 1234",
        )
        self.remove("other")

    @case("four runs at once")
    def at_once(self) -> None:
        started = [self.background(*self.run_argv("--rm"), "echo", str(number)) for number in range(4)]
        for number, running in enumerate(started):
            expect(running.finish(), out=f"{number}\n")
