"""containerd's shim io.containerd.runc.v2 with our BinaryName, driven by ctr."""

import os
import re
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
    case,
    check,
    echoed,
    expect,
    inside_limits,
    on_terminal,
    wait_until,
)


class Containerd(Engine):
    name = "containerd"
    programs = ("containerd", "containerd-shim-runc-v2", "ctr")

    def __init__(self, rig: Rig) -> None:
        super().__init__(rig)
        # ctr's namespace is also the parent of the containers' cgroups.
        self.argv = ["ctr", f"--address={rig.dir}/containerd.sock", f"--namespace={rig.cgroup}"]

    def start(self) -> None:
        rig = self.rig
        config = rig.file(
            "config.toml",
            f"""
            version = 2
            root = "{rig.dir}/root"
            state = "{rig.dir}/state"
            disabled_plugins = ["io.containerd.grpc.v1.cri"]
            [grpc]
            address = "{rig.dir}/containerd.sock"
            """,
        )
        self.daemon = Daemon(["containerd", f"--config={config}", "--log-level=warn"], rig)
        wait_until(lambda: self.ctr("version").code == 0, "containerd answers")
        expect(self.ctr("image", "import", str(rig.image_archive())))

    def stop(self) -> None:
        self.daemon.stop()

    def remove_all(self) -> None:
        for name in self.ctr("task", "list", "--quiet").text.split():
            self.ctr("task", "resume", name)
            self.ctr("task", "delete", "--force", name)
        for name in self.ctr("container", "list", "--quiet").text.split():
            self.ctr("container", "delete", name)

    def runtime_state(self) -> Path:
        return Path("/run/containerd/runc") / self.rig.cgroup

    # Commands.

    def ctr(self, *arguments: str, stdin: bytes = b"") -> Outcome:
        return Running([*self.argv, *arguments], self.rig.env, stdin).finish()

    def run_argv(self, name: str, *options: str) -> list[str]:
        return ["run", f"--runc-binary={self.rig.runtime}", *options, self.rig.IMAGE, name]

    def run(self, *command: str, options: tuple[str, ...] = (), stdin: bytes = b"") -> Outcome:
        return self.ctr(*self.run_argv("run", "--rm", *options), *command, stdin=stdin)

    def sh(self, script: str, *options: str) -> Outcome:
        return self.run("sh", "-c", script, options=options)

    def detached(self, name: str, *options: str, command: tuple[str, ...] = ("sleep", "1000")) -> str:
        expect(self.ctr(*self.run_argv(name, "--detach", *options), *command))
        return name

    def task(self, name: str) -> tuple[int, str]:
        """PID and status as `ctr task list` prints them."""
        for line in expect(self.ctr("task", "list")).text.splitlines():
            task, pid, status = line.split()
            if task == name:
                return int(pid), status
        return 0, "none"

    def ended(self, name: str) -> None:
        wait_until(lambda: self.task(name)[1] == "STOPPED", f"{name} has ended")

    def remove(self, name: str, code: int) -> None:
        """Deletes an ended task and its container; ctr warns of an exit code that is not 0."""
        done = expect(self.ctr("task", "delete", name))
        said = re.search(rb"exit with non-zero exit code (\d+)", done.err)
        check((int(said[1]) if said else 0) == code, done.describe(f"exit code {code} of the task"))
        expect(self.ctr("container", "delete", name))

    def kill_and_remove(self, name: str) -> None:
        expect(self.ctr("task", "kill", "--signal=KILL", name))
        self.ended(name)
        self.remove(name, 137)

    # run.

    @case("run ends with the process's exit codes 0, 3, 126, 127 and 137")
    def run_codes(self) -> None:
        expect(self.run("echo", "hello"), out="hello\n")
        for code in (3, 126, 127, 137):
            expect(self.sh(f"exit {code}"), code=code)

    @case("run of what cannot be executed says which and why")
    def run_missing(self) -> None:
        expect(self.run("no-such-program"), code=1, error="no-such-program")
        expect(self.run("/etc/passwd"), code=1, error="permission denied")
        check(self.ctr("task", "list", "--quiet").out == b"", "a task is left")

    @case("2 MB go in by stdin and come out by stdout unchanged")
    def run_two_megabytes(self) -> None:
        # ctr does not print what it has not yet read when the process ends, with any runtime: the process has to wait.
        data = os.urandom(2 * MIB)
        expect(echoed([*self.argv, *self.run_argv("run", "--rm"), "cat"], self.rig.env, data), out=data)

    @case("run --tty has a terminal that can be typed on")
    def run_on_terminal(self) -> None:
        argv = [
            *self.argv,
            *self.run_argv("tty", "--rm", "--tty"),
            "sh",
            "-c",
            "tty; read line </dev/tty; echo got-$line; exit 5",
        ]
        done = expect(on_terminal(argv, self.rig.env, [(b"/dev/pts/0", b"typed\n")]), code=5)
        check("got-typed" in done.text, done.describe("'got-typed'"))

    @case("only stdio reaches the process, and none of the shim's variables")
    def run_descriptors(self) -> None:
        expect(self.run("ls", "/proc/self/fd"), out="0\n1\n2\n3\n")
        expect(self.run("env"), out=f"PATH={self.rig.env['PATH']}\nHOME=/root\n")

    @case("mounts, working directory, environment and read-only root are applied")
    def run_options(self) -> None:
        directory = self.rig.directory("volume")
        (directory / "file").write_text("from the host\n")
        options = (
            "--read-only",
            "--cwd=/data",
            "--env=A=b",
            f"--mount=type=bind,src={directory},dst=/data,options=rbind:ro",
        )
        done = self.sh("pwd; echo $A; cat file; echo x >file; echo x >/tmp/file", *options)
        check(
            done.out == b"/data\nb\nfrom the host\n" and done.err.count(b"Read-only file system") == 2,
            done.describe("all options"),
        )

    @case("capabilities, no_new_privs and seccomp are applied")
    def run_privileges(self) -> None:
        status = "grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status | cut -f2"
        expect(self.sh(status), out="00000000a80425fb\n1\n0\n")
        expect(self.sh(status, "--seccomp", "--cap-drop=CAP_CHOWN"), out="00000000a80425fa\n1\n2\n")

    @case("--net-host joins the host's network")
    def run_host_network(self) -> None:
        expect(
            self.run("readlink", "/proc/self/ns/net", options=("--net-host",)),
            out=os.readlink("/proc/self/ns/net") + "\n",
        )

    @case("memory and CPU limits are in the container's cgroup")
    def limits(self) -> None:
        self.detached("limits", f"--memory-limit={64 * MIB}", "--cpus=0.5")
        for file, value in inside_limits(memory=64 * MIB, cpu_percent=50):
            relative = Path(file).relative_to(CGROUP)
            controller = Path() if IS_CGROUP_V2 else relative.parent
            path = CGROUP / controller / self.rig.cgroup / "limits" / relative.name
            check(path.read_text().strip() == value, f"{path} does not say {value}")
        self.kill_and_remove("limits")

    # Tasks.

    @case("a detached task is listed as running with its PID, and its exit code is kept")
    def detached_task(self) -> None:
        pid_file, shared = self.rig.dir / "pid", self.rig.directory("shared")
        script = "trap 'exit 7' TERM; touch /shared/ready; while :; do sleep 0.1; done"
        self.detached(
            "task",
            f"--pid-file={pid_file}",
            f"--mount=type=bind,src={shared},dst=/shared,options=rbind:rw",
            command=("sh", "-c", script),
        )
        pid, status = self.task("task")
        check(
            status == "RUNNING" and int(pid_file.read_text()) == pid,
            f"status {status}, pid file {pid_file.read_text()}, pid {pid}",
        )
        check(Path(f"/proc/{pid}/comm").read_text() == "sh\n", "the PID is not the container's process")
        wait_until((shared / "ready").exists, "the handler is set")
        expect(self.ctr("task", "kill", "task"))
        self.ended("task")
        self.remove("task", 7)

    @case("a task is started again in the same container")
    def start_again(self) -> None:
        self.detached("again", command=("sh", "-c", "echo started >>/tmp/file; cat /tmp/file; exit 3"))
        self.ended("again")
        expect(self.ctr("task", "delete", "again"))
        expect(self.ctr("task", "start", "again"), code=3, out="started\nstarted\n")
        expect(self.ctr("container", "delete", "again"))

    @case("exec ends with the process's exit code and carries 2 MB")
    def exec_codes(self) -> None:
        name, data = self.detached("exec"), os.urandom(2 * MIB)
        for code in (0, 3, 137):
            expect(self.ctr("task", "exec", f"--exec-id=e{code}", name, "sh", "-c", f"exit {code}"), code=code)
        expect(echoed([*self.argv, "task", "exec", "--exec-id=cat", name, "cat"], self.rig.env, data), out=data)
        expect(
            self.ctr(
                "task", "exec", "--exec-id=user", "--user=1000:1000", "--cwd=/tmp", name, "sh", "-c", "id -u; pwd"
            ),
            out="1000\n/tmp\n",
        )
        expect(self.ctr("task", "exec", "--exec-id=missing", name, "no-such-program"), code=1, error="no-such-program")
        self.kill_and_remove(name)

    @case("exec --tty has a terminal of its own")
    def exec_on_terminal(self) -> None:
        name = self.detached("exec")
        argv = [
            *self.argv,
            "task",
            "exec",
            "--tty",
            "--exec-id=tty",
            name,
            "sh",
            "-c",
            "tty; read line </dev/tty; echo got-$line; exit 5",
        ]
        done = expect(on_terminal(argv, self.rig.env, [(b"/dev/pts/0", b"typed\n")]), code=5)
        check("got-typed" in done.text, done.describe("'got-typed'"))
        self.kill_and_remove(name)

    @case("kill sends the signal that is named, kill --all to every process")
    def kill(self) -> None:
        name = self.detached("kill", command=("sh", "-c", "sleep 1000 & sleep 1000 & wait"))
        wait_until(lambda: len(self.pids(name)) == 3, "three processes run")
        expect(self.ctr("task", "kill", "--signal=USR1", "--all", name))
        self.ended(name)
        # Its children end by the signal; the shell, PID 1 without a handler, does not and ends after them.
        self.remove(name, 0)

    def pids(self, name: str) -> list[int]:
        return [int(line.split()[0]) for line in expect(self.ctr("task", "ps", name)).text.splitlines()[1:]]

    @case("ps lists the PIDs of every process")
    def ps(self) -> None:
        name = self.detached("ps", command=("sh", "-c", "sleep 1000 & wait"))
        wait_until(lambda: len(self.pids(name)) == 2, "two processes run")
        check(self.task(name)[0] in self.pids(name), "init is not listed")
        self.kill_and_remove(name)

    @case("pause and resume")
    def pause(self) -> None:
        name = self.detached("pause")
        expect(self.ctr("task", "pause", name))
        check(self.task(name)[1] == "PAUSED", f"status is {self.task(name)[1]}")
        check(
            self.ctr("task", "exec", "--exec-id=paused", name, "true").code != 0, "exec succeeded in a paused container"
        )
        expect(self.ctr("task", "resume", name))
        check(self.task(name)[1] == "RUNNING", f"status is {self.task(name)[1]}")
        expect(self.ctr("task", "exec", "--exec-id=resumed", name, "true"))
        self.kill_and_remove(name)

    @case("metrics read the container's cgroup")
    def metrics(self) -> None:
        name = self.detached("metrics", f"--memory-limit={64 * MIB}")
        text = expect(self.ctr("task", "metrics", name)).text
        check(re.search(r"pids.current +1 *\n", text) is not None, f"no pids.current 1 in\n{text}")
        check(re.search(rf"(limit_in_bytes|usage_limit) +{64 * MIB} *\n", text) is not None, f"no limit in\n{text}")
        self.kill_and_remove(name)

    @case("delete --force ends a running task")
    def delete_running(self) -> None:
        name = self.detached("delete", command=("sh", "-c", "sleep 1000 & wait"))
        pid = self.task(name)[0]
        expect(self.ctr("task", "delete", "--force", name))
        check(not Path(f"/proc/{pid}").exists(), "init is still there")
        expect(self.ctr("container", "delete", name))
