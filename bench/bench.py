#!/usr/bin/env python3
"""bench.py --runtime NAME=PATH... [options] - measures OCI runtimes side by side.

The first runtime is the one that is judged, the second the one that it is compared with. Every sample is taken from each in turn
(A B C A B C), so that what disturbs the machine disturbs all. --view shows one cgroup version alone, in a mount namespace of the
bench's own. --idle 100 lets the machine rest before each command: the waits for RCU grace periods, which commands back to back
hide, then show. With --markdown the tables are appended to a file, and the targets that a table decides are said to be met or not.
"""

import argparse
import ctypes
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import bundles

HERE = os.path.dirname(os.path.abspath(__file__))
SUITES = ["run", "podman", "life", "exec", "memory", "rate", "calls", "list"]
# What to reach: the figure, and the largest ratio to the second runtime (hot, cold on v1, cold on v2); None: no target.
TARGETS = {
    "run true: wall ms": (0.5, 0.35, 0.5),
    "run true: CPU ms": (0.5, 0.5, 0.5),
    "run true: peak RSS KiB": (0.7, 0.7, 0.7),
    "run podman: wall ms": (0.5, 0.35, 0.5),
    "run podman: CPU ms": (0.5, 0.5, 0.5),
    "run podman: peak RSS KiB": (0.7, 0.7, 0.7),
    "state: wall ms": (0.3, 0.3, 0.3),
    "list: wall ms": (0.3, 0.3, 0.3),
    "kill: wall ms": (0.3, 0.3, 0.3),
    "delete -f of a running one: wall ms": (0.5, 0.5, 0.5),
    "exec /true: wall ms": (0.5, 0.35, 0.5),
    "exec /true (podman): wall ms": (0.5, 0.35, 0.5),
    "list of 100: wall ms": (0.3, 0.3, 0.3),
    "waiting in created: RSS KiB": (0.7, 0.7, 0.7),
}
# Not ratios of "less is better".
RATE_TARGET = 1.8
CALLS_TARGET = 400


class Failure(Exception):
    pass


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtime", action="append", required=True, metavar="NAME=PATH")
    parser.add_argument("--view", default="v1", choices=["v1", "v2", "host"])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--suite", default=",".join(SUITES), help="comma-separated, of " + " ".join(SUITES))
    parser.add_argument("--idle", type=float, default=0, metavar="MS", help="rest before each timed command")
    parser.add_argument("--containers", type=int, default=100, help="how many list lists")
    parser.add_argument("--state", default="/dev/shm", metavar="DIR",
                        help="where the runtimes keep their state: on a tmpfs, as a host's /run is")
    parser.add_argument("--work", default="target/bench", help="directory for programs and bundles")
    parser.add_argument("--json", help="write all samples to this file")
    parser.add_argument("--markdown", help="append the table to this file")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


class Bench:
    def __init__(self, options):
        self.options = options
        self.work = os.path.abspath(options.work)
        self.runtimes = [tuple(r.split("=", 1)) for r in options.runtime]
        self.samples = {}  # metric -> runtime -> [value]
        self.failures = {}
        self.tag = f"kelson-bench-{os.getpid()}"
        self.scratch = tempfile.mkdtemp(prefix="kelson-bench-", dir="/tmp")
        self.state_roots = tempfile.mkdtemp(prefix="kelson-bench-", dir=options.state)
        self.roots = {name: f"{self.state_roots}/{name}" for name, _ in self.runtimes}
        self.serial = 0
        self.null = os.open("/dev/null", os.O_RDWR)
        unified = options.view == "v2" or (options.view == "host" and os.path.exists("/sys/fs/cgroup/cgroup.controllers"))
        self.version = "v2" if unified else "v1"
        self.configs = bundles.all_configs(self.work, self.version)
        for root in self.roots.values():
            os.mkdir(root)
        # Containers whose parent is gone come to us, and are waited for.
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER

    # ------------------------------------------------------------------------------------------------ one command

    def new(self, kind):
        """(id, bundle): a container's own directory and cgroup."""
        self.serial += 1
        identity = f"{self.tag}-{self.serial}"
        config = self.configs[kind]
        config["linux"]["cgroupsPath"] = f"/{self.tag}/{identity}"
        bundle = f"{self.scratch}/{identity}"
        os.mkdir(bundle)
        with open(f"{bundle}/config.json", "w") as file:
            json.dump(config, file)
        return identity, bundle

    def command(self, name, path, *rest):
        return [path, "--root", self.roots[name], *rest]

    def timed(self, command, output=None):
        """Runs the command after a rest, with its output to the descriptor `output`; its figures."""
        time.sleep(self.options.idle / 1000)
        read, write = os.pipe()
        os.set_inheritable(write, True)
        with tempfile.TemporaryFile() as errors:
            pid = os.posix_spawn(
                f"{self.work}/timed", ["timed", str(write), *command], os.environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, self.null, 0), (os.POSIX_SPAWN_DUP2, output or self.null, 1),
                              (os.POSIX_SPAWN_DUP2, errors.fileno(), 2)],
            )
            os.close(write)
            os.waitpid(pid, 0)
            with os.fdopen(read) as pipe:
                wall, status, cpu, own, largest, faults, began = map(int, pipe.readline().split())
            if status != 0:
                errors.seek(0)
                raise Failure(f"{' '.join(command)}: exit status {status}: {errors.read()[-300:].decode(errors='replace')}")
        return {"wall": wall / 1e6, "cpu": cpu / 1e3, "own": own, "largest": largest, "faults": faults, "began": began}

    def record(self, metric, name, value):
        self.samples.setdefault(metric, {}).setdefault(name, []).append(value)

    def record_command(self, what, name, figures, memory=True):
        self.record(f"{what}: wall ms", name, figures["wall"])
        self.record(f"{what}: CPU ms", name, figures["cpu"])
        if memory:
            self.record(f"{what}: peak RSS KiB", name, figures["largest"])

    def guarded(self, name, what, work):
        """A runtime that fails once is left out of that measurement."""
        if (name, what) in self.failures:
            return
        try:
            work()
        except (Failure, OSError, ValueError, subprocess.CalledProcessError) as error:
            self.failures[name, what] = str(error)[:400]

    def state(self, name, path, identity):
        return json.loads(subprocess.run(
            self.command(name, path, "state", identity), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
        ).stdout)

    def delete(self, name, path, identity):
        subprocess.run(self.command(name, path, "delete", "-f", identity),
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.reap()

    @staticmethod
    def reap():
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass

    # ------------------------------------------------------------------------------------------------ the suites

    def rounds(self):
        """Round 0 warms up and is not recorded."""
        for number in range(self.options.rounds + 1):
            for name, path in self.runtimes:
                yield number > 0, name, path

    def suite_run(self, kind="true"):
        what = f"run {kind}"

        def floor():
            self.record_command(what, "floor", self.timed(
                [f"{self.work}/floor", self.version, f"{self.work}/rootfs", "/true"]))

        for counts, name, path in self.rounds():
            def once():
                identity, bundle = self.new(kind)
                figures = self.timed(self.command(name, path, "run", "-b", bundle, identity))
                shutil.rmtree(bundle)
                if counts:
                    self.record_command(what, name, figures)
                    self.record(f"{what}: page faults", name, figures["faults"])
            self.guarded(name, what, once)
            if kind == "true" and name == self.runtimes[-1][0] and counts:
                self.guarded("floor", what, floor)

    def suite_podman(self):
        self.suite_run("podman")

    def wait_for(self, name, path, identity, status):
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            self.reap()
            state = self.state(name, path, identity)
            if state["status"] == status:
                return state
            time.sleep(0.002)
        raise Failure(f"{identity} is not {status} after 10 s")

    def suite_life(self):
        for counts, name, path in self.rounds():
            identity, bundle = self.new("sleep")

            def once():
                steps = {}
                steps["create"] = self.timed(self.command(name, path, "create", "-b", bundle, identity))
                steps["start"] = self.timed(self.command(name, path, "start", identity))
                steps["state"] = self.timed(self.command(name, path, "state", identity))
                steps["list"] = self.timed(self.command(name, path, "list"))
                steps["kill"] = self.timed(self.command(name, path, "kill", identity, "KILL"))
                self.wait_for(name, path, identity, "stopped")
                steps["delete"] = self.timed(self.command(name, path, "delete", identity))
                self.timed(self.command(name, path, "create", "-b", bundle, identity))
                self.timed(self.command(name, path, "start", identity))
                steps["delete -f of a running one"] = self.timed(self.command(name, path, "delete", "-f", identity))
                self.reap()
                if counts:
                    for what, figures in steps.items():
                        self.record_command(what, name, figures, memory=what in ("create", "state"))
            self.guarded(name, "life", once)
            self.delete(name, path, identity)
            shutil.rmtree(bundle, ignore_errors=True)

    def suite_exec(self):
        for kind, what in (("sleep", "exec /true"), ("podman-sleep", "exec /true (podman)")):
            running = {}
            for name, path in self.runtimes:
                running[name], bundle = self.new(kind)
                self.guarded(name, what, lambda: self.timed(
                    self.command(name, path, "run", "-d", "-b", bundle, running[name])))
            for counts, name, path in self.rounds():
                def once():
                    figures = self.timed(self.command(name, path, "exec", running[name], "/true"))
                    if counts:
                        self.record_command(what, name, figures)
                self.guarded(name, what, once)
            for name, path in self.runtimes:
                self.delete(name, path, running[name])

    def suite_memory(self):
        """What stays resident: of a container that waits to be started, and of the runtime beside a running one."""
        for _ in range(5):
            for name, path in self.runtimes:
                identity, bundle = self.new("sleep")

                def waiting():
                    self.timed(self.command(name, path, "create", "-b", bundle, identity))
                    self.record("waiting in created: RSS KiB", name, resident(self.state(name, path, identity)["pid"]))
                    before = children(os.getpid())
                    self.timed(self.command(name, path, "start", identity))
                    init = self.state(name, path, identity)["pid"]
                    left = [p for p in children(os.getpid()) if p != init and p not in before]
                    self.record("processes of the runtime left after start", name, len(left))
                self.guarded(name, "memory", waiting)
                self.delete(name, path, identity)

                identity, bundle = self.new("sleep")

                def foreground():
                    run = subprocess.Popen(self.command(name, path, "run", "-b", bundle, identity),
                                           stdin=self.null, stdout=self.null, stderr=self.null)
                    deadline = time.monotonic() + 10
                    while time.monotonic() < deadline:
                        try:
                            if self.state(name, path, identity)["status"] == "running":
                                break
                        except subprocess.CalledProcessError:
                            pass
                        time.sleep(0.01)
                    init = self.state(name, path, identity)["pid"]
                    family = [p for p in [run.pid, *children(run.pid)] if p != init]
                    self.record("beside a foreground run: RSS KiB", name, sum(map(resident, family)))
                    self.delete(name, path, identity)
                    run.wait()
                self.guarded(name, "memory of a foreground run", foreground)

    def suite_rate(self, runs=40, workers=2):
        what = f"{runs} runs by {workers} workers: runs/s"
        floor = [f"{self.work}/floor", self.version, f"{self.work}/rootfs", "/true"]
        for _ in range(5):
            for name, path in [*self.runtimes, ("floor", None)]:
                def once():
                    command = floor
                    if path:
                        identity = f"{self.tag}-{name}"
                        for job in range(runs):
                            self.configs["true"]["linux"]["cgroupsPath"] = f"/{self.tag}/{identity}-{job}"
                            os.makedirs(f"{self.scratch}/{identity}-{job}", exist_ok=True)
                            with open(f"{self.scratch}/{identity}-{job}/config.json", "w") as file:
                                json.dump(self.configs["true"], file)
                        command = self.command(name, path, "run", "-b", f"{self.scratch}/{identity}-@", f"{identity}-@")
                    done = subprocess.run([f"{self.work}/rate", str(workers), str(runs), *command],
                                          stdin=self.null, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                    if done.returncode:
                        raise Failure(f"exit status {done.returncode}: {done.stderr[-300:]}")
                    self.record(what, name, runs / (int(done.stdout.split()[-1]) / 1e9))
                self.guarded(name, what, once)

    def suite_calls(self):
        strace = shutil.which("strace")
        if not strace:
            self.failures["strace", "calls"] = "strace is not installed: system calls are not counted"
            return
        floor = [f"{self.work}/floor", self.version, f"{self.work}/rootfs", "/true"]
        for kind in ("true", "podman"):
            for name, path in [*self.runtimes, *([("floor", None)] if kind == "true" else [])]:
                def once():
                    identity, bundle = self.new(kind)
                    command = self.command(name, path, "run", "-b", bundle, identity) if path else floor
                    subprocess.run([strace, "-f", "-qq", "-o", f"{self.scratch}/trace", *command],
                                   stdin=self.null, stdout=self.null, stderr=subprocess.PIPE, check=True)
                    with open(f"{self.scratch}/trace", errors="replace") as trace:
                        calls = sum(1 for line in trace if re.match(r"\d+ +\w+\(", line))
                    self.record(f"run {kind}: system calls", name, calls)
                self.guarded(name, f"calls of run {kind}", once)

    def suite_list(self):
        count = self.options.containers
        made = {name: [] for name, _ in self.runtimes}
        for name, path in self.runtimes:
            def start():
                begin = time.perf_counter()
                for _ in range(count):
                    identity, bundle = self.new("sleep")
                    made[name].append(identity)
                    self.timed(self.command(name, path, "run", "-d", "-b", bundle, identity))
                self.record(f"start of {count}: s", name, time.perf_counter() - begin)
            self.guarded(name, "list", start)
        for metric, command in [(f"list of {count}", ["list"]), (f"state beside {count}", ["state"])]:
            for counts, name, path in self.rounds():
                def once():
                    one = made[name][:1] if command == ["state"] else []
                    # Back to back: after one of its own.
                    for _ in range(2):
                        wall = self.timed(self.command(name, path, *command, *one))["wall"]
                    if counts:
                        self.record(f"{metric}: wall ms", name, wall)
                self.guarded(name, "list", once)
        for name, path in self.runtimes:
            for identity in made[name]:
                self.delete(name, path, identity)

    # ------------------------------------------------------------------------------------------------ the report

    def run(self):
        def stop(*_):
            raise KeyboardInterrupt
        signal.signal(signal.SIGTERM, stop)
        try:
            for suite in self.options.suite.split(","):
                getattr(self, f"suite_{suite}")()
        except KeyboardInterrupt:
            self.failures["bench", "all of it"] = "stopped early: the table is not complete"
        finally:
            self.clean()

    def clean(self):
        for name, path in self.runtimes:
            for entry in os.listdir(self.roots[name]):
                if entry.startswith(self.tag):
                    self.delete(name, path, entry)
        shutil.rmtree(self.scratch, ignore_errors=True)
        shutil.rmtree(self.state_roots, ignore_errors=True)
        for directory in [".", *os.listdir("/sys/fs/cgroup")]:
            try:
                os.rmdir(f"/sys/fs/cgroup/{directory}/{self.tag}")
            except OSError:
                pass

    def target(self, metric, ours, theirs):
        """'' or what was to be reached, and whether it was."""
        if metric.endswith("runs/s"):
            met, said = ours >= RATE_TARGET * theirs, f"≥ {RATE_TARGET} ×"
        elif metric == "run true: system calls":
            met, said = ours <= CALLS_TARGET, f"≤ {CALLS_TARGET}"
        elif metric == "processes of the runtime left after start":
            met, said = ours == 0, "0"
        elif metric in TARGETS:
            which = 0 if not self.options.idle else 1 if self.version == "v1" else 2
            largest = TARGETS[metric][which]
            met, said = ours <= largest * theirs, f"≤ {largest} ×"
        else:
            return ""
        return f"{said} {'met' if met else 'MISSED'}"

    def table(self):
        names = [name for name, _ in self.runtimes]
        present = [n for n in [*names, "floor"] if any(n in values for values in self.samples.values())]
        first, second = names[0], names[1] if len(names) > 1 else names[0]
        yield ["median", *present, f"{first} / {second}", "target"]
        for metric, values in self.samples.items():
            medians = {n: statistics.median(values[n]) for n in values}
            row = [metric] + [f"{medians[n]:.1f}" if n in medians else "–" for n in present]
            ratio = first in medians and medians.get(second)
            row.append(f"{medians[first] / medians[second]:.2f}" if ratio else "–")
            row.append(self.target(metric, medians[first], medians[second]) if first in medians and second in medians else "")
            yield row

    def title(self):
        rest = f"{self.options.idle:.0f} ms of rest" if self.options.idle else "back to back"
        return f"cgroup {self.version}, {rest}, {self.options.rounds} rounds, load {load()}"

    def report(self):
        title = self.title()
        rows = list(self.table())
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        print(f"\n{title}")
        for row in rows:
            print("  ".join(cell.ljust(width) if not i else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))))
        for (name, what), why in self.failures.items():
            print(f"FAILED {name}, {what}: {why}")
        if self.options.markdown:
            with open(self.options.markdown, "a") as file:
                file.write(f"\n### {title}\n\n")
                for number, row in enumerate(rows):
                    file.write("| " + " | ".join(row) + " |\n")
                    if number == 0:
                        file.write("|---" * len(row) + "|\n")
                for (name, what), why in self.failures.items():
                    file.write(f"\nFailed: {name}, {what}: {why}\n")
        if self.options.json:
            with open(self.options.json, "w") as file:
                json.dump({"options": vars(self.options), "samples": self.samples,
                           "failures": {f"{n}, {w}": why for (n, w), why in self.failures.items()}}, file)
        missed = sum("MISSED" in row[-1] for row in rows)
        print(f"{missed} targets missed" if missed else "every target met")


def load():
    with open("/proc/loadavg") as file:
        return file.read().split()[0]


def resident(pid):
    """KiB."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Rss:"))


def children(pid):
    """All descendants."""
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/children") as file:
                direct = [int(p) for p in file.read().split()]
        except OSError:
            continue
        for child in direct:
            found += [child, *children(child)]
    return found


def main():
    options = arguments()
    if not options.inside:
        os.makedirs(options.work, exist_ok=True)
        bundles.compile_programs(os.path.abspath(options.work))
        os.execv(f"{HERE}/cgroup-view.sh",
                 ["cgroup-view.sh", options.view, sys.executable, os.path.abspath(__file__), "--inside", *sys.argv[1:]])
    bench = Bench(options)
    bench.run()
    bench.report()


if __name__ == "__main__":
    main()
