"""What the engines' tests share: cases and their report, commands, terminals, waiting, cgroups, the image, leaks."""

import contextlib
import fcntl
import hashlib
import io
import json
import os
import select
import shutil
import signal
import struct
import subprocess
import tarfile
import termios
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# Only Debian's own programs: what else a machine has in /usr/local is not under test.
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
CGROUP = Path("/sys/fs/cgroup")
IS_CGROUP_V2 = (CGROUP / "cgroup.controllers").exists()
# How long a single command or condition may take; a loaded CI machine is 20 times slower than an idle one.
DEADLINE = 30.0
# After so many commands that did not end, the rest of an engine's cases would only wait.
HANGS = 3
MIB = 1024 * 1024


class Failure(Exception):
    """A case did not see what it expected; the text says what."""


class Hang(Failure):
    """A command did not end."""


class Skip(Exception):
    """A case cannot be tried here; the text says why."""


def case(title: str) -> Callable:
    """Makes a method of an Engine a case; the title is the fact that it pins."""

    def mark(function: Callable) -> Callable:
        function.title = title
        return function

    return mark


class Report:
    def __init__(self, only: str) -> None:
        self.only = only
        self.passed = self.failed = self.skipped = 0

    def wants(self, engine: str, title: str) -> bool:
        return self.only in f"{engine}: {title}"

    def add(self, engine: str, title: str, problem: Exception | None, seconds: float = 0.0) -> None:
        name = f"{engine}: {title}"
        if problem is None:
            self.passed += 1
            print(f"ok   {name} ({seconds:.1f} s)", flush=True)
        elif isinstance(problem, Skip):
            self.skipped += 1
            print(f"skip {name}: {problem}", flush=True)
        else:
            self.failed += 1
            text = str(problem) if isinstance(problem, Failure) else f"{type(problem).__name__}: {problem}"
            print(f"FAIL {name}\n" + "".join(f"     {line}\n" for line in text.splitlines()), end="", flush=True)

    def totals(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


@dataclass
class Outcome:
    argv: list[str]
    code: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        return self.out.decode(errors="replace")

    def describe(self, expected: str) -> str:
        """The failure of this command: what was expected, and all that was seen, shortened."""

        def short(data: bytes) -> str:
            text = data.decode(errors="replace")
            return text if len(text) <= 2000 else f"{text[:1000]} […{len(text)} characters…] {text[-500:]}"

        return (
            f"expected: {expected}\ncommand:  {' '.join(self.argv)}\nexit:     {self.code}\n"
            f"stdout:   {short(self.out)!r}\nstderr:   {short(self.err)}"
        )


def expect(
    done: Outcome, code: int = 0, out: str | bytes | None = None, has: str | None = None, error: str | None = None
) -> Outcome:
    """Fails unless the command ended with `code`, printed exactly `out` or at least `has`, and `error` to stderr."""
    wanted = out.encode() if isinstance(out, str) else out
    if done.code != code:
        raise Failure(done.describe(f"exit code {code}"))
    if wanted is not None and done.out != wanted:
        raise Failure(
            done.describe(f"stdout {wanted if len(wanted) < 200 else f'of {len(wanted)} bytes, unchanged'!r}")
        )
    if has is not None and has not in done.text:
        raise Failure(done.describe(f"{has!r} in stdout"))
    if error is not None and error not in done.err.decode(errors="replace"):
        raise Failure(done.describe(f"{error!r} in stderr"))
    return done


def check(is_so: bool, what: str) -> None:
    if not is_so:
        raise Failure(what)


def wait_until(condition: Callable[[], object], what: str, seconds: float = DEADLINE) -> object:
    """Asks until the condition gives something true, and gives that."""
    deadline = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            raise Failure(f"after {seconds:.0f} s still not: {what}")
        time.sleep(0.02)


class Running:
    """A command that is still going on."""

    def __init__(self, argv: list[str], env: dict[str, str], stdin: bytes = b"") -> None:
        self.argv = argv
        self.stdin = stdin
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
        )

    def finish(self, seconds: float = DEADLINE) -> Outcome:
        try:
            out, err = self.process.communicate(self.stdin, timeout=seconds)
        except subprocess.TimeoutExpired as hang:
            others = waiting()
            self.process.kill()
            done = Outcome(self.argv, self.process.wait(), hang.stdout or b"", hang.stderr or b"")
            raise Hang(f"{done.describe(f'an end within {seconds:.0f} s')}\nrunning:\n{others}") from None
        return Outcome(self.argv, self.process.returncode, out, err)


def echoed(argv: list[str], env: dict[str, str], data: bytes) -> Outcome:
    """Gives `data` to a command that prints what it reads, and ends its stdin only when as much has come back."""
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    killer = threading.Timer(DEADLINE, process.kill)
    killer.start()
    writer = threading.Thread(target=lambda: (process.stdin.write(data), process.stdin.flush()))
    writer.start()
    out = process.stdout.read(len(data))
    writer.join()
    rest, err = process.communicate()
    killer.cancel()
    return Outcome(argv, process.returncode, out + rest, err)


class Daemon:
    """An engine's daemon; what it says goes to a file, as a pipe that nobody reads would stop it."""

    def __init__(self, argv: list[str], rig: "Rig") -> None:
        self.log = rig.dir / "daemon.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=rig.env)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(DEADLINE)


def on_terminal(
    argv: list[str], env: dict[str, str], talk: list[tuple[bytes, bytes]], rows: int = 40, columns: int = 100
) -> Outcome:
    """Runs a command on a terminal of its own; for each pair of `talk` waits for the first and types the second."""
    leader, follower = os.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = subprocess.Popen(
        argv,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=env,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(follower)
    seen, searched, talk = b"", 0, list(talk)
    deadline = time.monotonic() + DEADLINE
    try:
        while True:
            if talk and (at := seen.find(talk[0][0], searched)) >= 0:
                awaited, reply = talk.pop(0)
                searched = at + len(awaited)
                os.write(leader, reply)
                continue
            readable, _, _ = select.select([leader], [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                others = waiting()
                process.kill()
                waited_for = f"{talk[0][0]!r} on the terminal" if talk else "the command to end"
                raise Hang(f"{Outcome(argv, process.wait(), seen, b'').describe(waited_for)}\nrunning:\n{others}")
            try:
                data = os.read(leader, 65536)
            except OSError:  # EIO: the last descriptor of the terminal is closed.
                data = b""
            if not data:
                break
            seen += data
        process.wait(timeout=DEADLINE)
    finally:
        os.close(leader)
    return Outcome(argv, process.returncode, seen, b"")


class Rig:
    """What one engine works in: a directory below the private /run, the runtime, the name of its cgroups, the image."""

    IMAGE = "localhost/engines:latest"

    def __init__(self, name: str, runtime: Path, cgroup: str) -> None:
        self.dir = Path("/run/engines") / name
        self.dir.mkdir(parents=True)
        self.runtime = runtime
        self.runtime_name = runtime.name
        self.cgroup = f"{cgroup}-{name}"
        self.env = {
            "PATH": PATH,
            "HOME": str(self.dir),
            "TMPDIR": str(self.directory("tmp")),
            "LANG": "C",
            "TERM": "xterm",
        }

    def directory(self, name: str) -> Path:
        path = self.dir / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def file(self, name: str, text: str) -> Path:
        path = self.dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def image_archive(self) -> Path:
        """A docker-archive with one layer: Debian's busybox, its applets, a user "user" also in group "extra"."""
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as tar:

            def add(
                name: str, kind: bytes = tarfile.REGTYPE, mode: int = 0o755, data: bytes = b"", link: str = ""
            ) -> None:
                entry = tarfile.TarInfo(name)
                entry.type, entry.mode, entry.size, entry.linkname = kind, mode, len(data), link
                tar.addfile(entry, io.BytesIO(data))

            for directory in ("bin", "dev", "etc", "home", "proc", "root", "run", "sys", "var", "var/data"):
                add(directory, tarfile.DIRTYPE)
            add("tmp", tarfile.DIRTYPE, 0o1777)
            busybox = Path("/bin/busybox")
            add("bin/busybox", data=busybox.read_bytes())
            for applet in subprocess.run(
                [busybox, "--list"], capture_output=True, check=True, text=True
            ).stdout.split():
                if applet != "busybox":
                    add(f"bin/{applet}", tarfile.SYMTYPE, link="busybox")
            add("etc/passwd", mode=0o644, data=b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home:/bin/sh\n")
            add("etc/group", mode=0o644, data=b"root:x:0:\nuser:x:1000:\nextra:x:2000:user\n")
        diff_id = hashlib.sha256(layer.getvalue()).hexdigest()
        architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
        config = json.dumps(
            {
                "architecture": architecture,
                "os": "linux",
                "config": {"Env": [f"PATH={PATH}"], "Cmd": ["sh"]},
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]},
                "history": [{"created_by": "tests/engines"}],
            }
        ).encode()
        config_name = f"{hashlib.sha256(config).hexdigest()}.json"
        manifest = json.dumps(
            [{"Config": config_name, "RepoTags": [self.IMAGE], "Layers": [f"{diff_id}/layer.tar"]}]
        ).encode()
        archive = self.dir / "image.tar"
        with tarfile.open(archive, "w") as tar:
            for name, data in (
                (config_name, config),
                (f"{diff_id}/layer.tar", layer.getvalue()),
                ("manifest.json", manifest),
            ):
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
        return archive

    def cgroups(self) -> list[Path]:
        """Every directory of this engine's cgroups, in all hierarchies."""
        return sorted(Path(path) for parent in self.cgroup_parents() for path, _, _ in os.walk(parent))

    def cgroup_parents(self) -> list[Path]:
        """Where the parent of all of this engine's cgroups is: v2, or one for each hierarchy of v1."""
        return [
            CGROUP / self.cgroup,
            *(directory / self.cgroup for directory in CGROUP.iterdir() if not directory.is_symlink()),
        ]


def inside_limits(
    memory: int | None = None, pids: int | None = None, cpu_percent: int | None = None
) -> list[tuple[str, str]]:
    """Which file in the container's own /sys/fs/cgroup shows a limit, and what it must say."""
    period = 100_000
    wanted = []
    if memory is not None:
        wanted.append(("memory.max" if IS_CGROUP_V2 else "memory/memory.limit_in_bytes", str(memory)))
    if pids is not None:
        wanted.append(("pids.max" if IS_CGROUP_V2 else "pids/pids.max", str(pids)))
    if cpu_percent is not None:
        quota = period * cpu_percent // 100
        wanted += (
            [("cpu.max", f"{quota} {period}")]
            if IS_CGROUP_V2
            else [("cpu/cpu.cfs_quota_us", str(quota)), ("cpu/cpu.cfs_period_us", str(period))]
        )
    return [(f"/sys/fs/cgroup/{file}", value) for file, value in wanted]


class Engine:
    """An engine under test; its methods marked with @case run in the order in which they are written."""

    name: str
    # The programs without which it cannot be tested.
    programs: tuple[str, ...]

    def __init__(self, rig: Rig) -> None:
        self.rig = rig

    @classmethod
    def missing(cls) -> list[str]:
        return [program for program in ("busybox", *cls.programs) if not shutil.which(program, path=PATH)]

    def start(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError

    def remove_all(self) -> None:
        """Removes every container, also after a case that failed half-way."""
        raise NotImplementedError

    def runtime_state(self) -> Path:
        """The runtime's state directory as this engine makes it use it."""
        raise NotImplementedError

    def is_container_cgroup(self, path: Path) -> bool:
        """Whether this is a container's own cgroup, rather than one above it."""
        return path not in self.rig.cgroup_parents()

    def keeps_cgroup(self, path: Path) -> bool:
        """Whether the engine itself made this cgroup and does not remove it."""
        return False

    def keeps_mount(self, target: str) -> bool:
        """Whether the engine itself made this mount and keeps it."""
        return False

    def cases(self) -> list[Callable]:
        return [
            getattr(self, name)
            for name, value in vars(type(self)).items()
            if callable(value) and hasattr(value, "title")
        ]


def mount_targets() -> list[str]:
    return [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def processes() -> dict[int, str]:
    """Every process of this PID namespace but its first, ourselves and kernel leftovers that are being reaped."""
    found = {}
    for directory in Path("/proc").iterdir():
        if not directory.name.isdigit() or int(directory.name) in (1, os.getpid()):
            continue
        try:
            command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            state = (directory / "stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z":
            found[int(directory.name)] = command
    return found


def waiting() -> str:
    """Every process and what it waits for in the kernel: tells who hangs."""
    lines = []
    for pid, command in processes().items():
        try:
            lines.append(f"  {pid} {Path(f'/proc/{pid}/wchan').read_text()} {command[:150]}")
        except OSError:
            continue
    return "\n".join(lines)


def end_runtime(runtime: Path) -> None:
    """Kills the runtime's own processes that hang, so that what they lock can be cleaned up."""
    for pid, command in processes().items():
        if command.startswith(str(runtime)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def settled(left: Callable[[], list]) -> None:
    """Fails if something is still left after the time that an engine needs to clean up behind itself."""
    try:
        wait_until(lambda: not left(), "nothing is left", seconds=10)
    except Failure:
        found = left()
        raise Failure("\n".join([f"{len(found)} left:", *map(str, found[:5]), *(["…"] if found[5:] else [])])) from None


def run_engine(engine: Engine, report: Report) -> None:
    """Starts the engine, runs its cases, removes all and stops it, and looks at what is left."""

    hangs = 0

    def attempt(title: str, function: Callable[[], object]) -> bool:
        nonlocal hangs
        begun = time.monotonic()
        problem = None
        try:
            function()
        except Exception as raised:  # A broken case is a failure of that case only.
            problem = raised
        if isinstance(problem, Hang):
            hangs += 1
            end_runtime(engine.rig.runtime)
        report.add(engine.name, title, problem, time.monotonic() - begun)
        return problem is None

    def clean_up() -> None:
        try:
            engine.remove_all()
        except Hang:
            end_runtime(engine.rig.runtime)
            engine.remove_all()

    mounts_before, processes_before = mount_targets(), set(processes())
    if attempt("starts", engine.start):
        for function in engine.cases():
            if hangs >= HANGS:
                report.add(
                    engine.name, "all cases are run", Failure(f"given up after {hangs} commands that did not end")
                )
                break
            if report.wants(engine.name, function.title) and not attempt(function.title, function):
                attempt("what a failed case left is removed", clean_up)
        attempt("every container is removed", clean_up)

    def state_left() -> list[str]:
        directory = engine.runtime_state()
        # A name with a leading dot is the runtime's own (a lock, a store), not a container.
        return [str(path) for path in directory.glob("[!.]*")] if directory.exists() else []

    def cgroups_left() -> list[Path]:
        return [path for path in engine.rig.cgroups() if not engine.keeps_cgroup(path)]

    attempt("no state of the runtime is left", lambda: settled(state_left))
    attempt(
        "no cgroup of a container is left",
        lambda: settled(lambda: [path for path in cgroups_left() if engine.is_container_cgroup(path)]),
    )

    def no_parent_left() -> None:
        if engine.rig.runtime_name in ("runc", "crun"):
            raise Skip(f"{engine.rig.runtime_name} leaves the parent cgroups that it made")
        settled(cgroups_left)

    attempt("no parent cgroup that the runtime made is left", no_parent_left)
    attempt("stops", engine.stop)
    attempt(
        "no mount is left",
        lambda: settled(
            lambda: [target for target in set(mount_targets()) - set(mounts_before) if not engine.keeps_mount(target)]
        ),
    )
    attempt(
        "no process is left",
        lambda: settled(lambda: [f"{pid}: {text}" for pid, text in processes().items() if pid not in processes_before]),
    )
    for pid in processes():
        if pid not in processes_before:
            os.kill(pid, signal.SIGKILL)
