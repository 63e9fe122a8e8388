#!/usr/bin/env python3
"""image.py --kelson PATH [options] - measures what a container of an image costs beside podman, umoci and skopeo.

The image is that of make_image.py, 100 MB in ten layers, as docker save's archive and as an OCI layout with gzip. Every sample is
taken from each in turn, each with a store of its own; of podman and skopeo it is containers-storage with its overlay driver.
Nothing has a network. What no other program does like this is measured beside what comes next to it: umoci unpacks and runs nothing,
`skopeo copy` to a directory copies and unpacks nothing.
"""

import argparse
import ctypes
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile

import bench
import bundles
import make_image

HERE = os.path.dirname(os.path.abspath(__file__))
SUITES = ["first", "second", "memory"]
FORMS = {"docker-archive": "docker.tar", "OCI layout": "layout"}
FIRST_TARGET = 0.6
BUNDLE_TARGET = 1.3
PODMAN_TARGET = 0.1
MEMORY_TARGET = 64 * 1024
# Who leaves a tree that a container could run in.
UNPACKERS = ["podman", "skopeo", "umoci"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kelson", required=True, metavar="PATH", help="kelson-image is beside it")
    parser.add_argument("--view", default="v1", choices=["v1", "v2", "host"])
    parser.add_argument("--rounds", type=int, default=20, help="of second runs; a fourth as many first runs")
    parser.add_argument("--suite", default=",".join(SUITES), help="comma-separated, of " + " ".join(SUITES))
    parser.add_argument("--scale", type=int, default=1, help="the image has so many times 100 MB")
    parser.add_argument("--large", type=int, default=10, help="the same of the larger image whose unpacking is weighed; 0: none")
    parser.add_argument("--work", default="target/bench", help="directory for programs and images")
    parser.add_argument("--scratch", default="/tmp", help="directory for the stores")
    parser.add_argument("--json", help="write all samples to this file")
    parser.add_argument("--markdown", help="append the table to this file")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


class ImageBench(bench.Bench):
    """Columns of the table are programs; the first is Kelson."""

    def __init__(self, options):
        self.options = options
        options.idle = 0
        self.version = options.view
        self.work = os.path.abspath(options.work)
        self.kelson = os.path.abspath(options.kelson)
        self.samples, self.failures, self.serial = {}, {}, 0
        self.tag = f"kelson-bench-{os.getpid()}"
        self.scratch = tempfile.mkdtemp(prefix="kelson-bench-", dir=options.scratch)
        self.null = os.open("/dev/null", os.O_RDWR)
        self.peers = {name: shutil.which(name) or name for name in ("podman", "skopeo", "umoci")}
        self.place = f"{self.work}/image-{options.scale}"
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER

    # ------------------------------------------------------------------------------------------------ commands

    def directory(self):
        """A new one, which stays until all is measured: ext4 looks for a minute or more at each inode that was freed before it
        makes another one (recently_deleted() of fs/ext4/ialloc.c), which takes ten times as long as the rest."""
        self.serial += 1
        path = f"{self.scratch}/{self.serial}"
        os.mkdir(path)
        return path

    def run_image(self, store, image, *words):
        return [self.kelson, "--root", f"{self.scratch}/root", "run", "--network", "none", "--cgroup-parent", f"/{self.tag}",
                "--store", store, "--image", image, *words]

    def podman(self, store, *words):
        return [self.peers["podman"], "--root", f"{store}/root", "--runroot", f"{store}/run", "--tmpdir", f"{store}/tmp",
                "--storage-driver", "overlay", "--cgroup-manager", "cgroupfs", *words]

    def podman_run(self, store, *words):
        # Without CAP_SYS_RESOURCE its own limits would be refused.
        return self.podman(store, "run", "--rm", "--network", "none", "--pull", "never", "--ulimit", "nofile=1024:1024",
                           "--ulimit", "nproc=1024:1024", *words)

    def alone(self, command, output=None):
        """The command's figures; whatever it leaves behind has ended when this returns, as podman's cleanup that conmon starts."""
        try:
            return self.timed(command, output)
        finally:
            try:
                while True:
                    os.waitpid(-1, 0)
            except ChildProcessError:
                pass

    @staticmethod
    def podman_end(store):
        """Its directory of layers is a mount."""
        subprocess.run(["umount", "-qR", f"{store}/root/overlay"], stderr=subprocess.DEVNULL)

    # ------------------------------------------------------------------------------------------------ the suites

    def first_runs(self, form):
        """Name to what it does with an empty store, as lists of commands."""
        file = f"{self.place}/{FORMS[form]}"
        name, transport = f"{make_image.NAME}:1", "docker-archive" if form == "docker-archive" else "oci"
        reference = file if transport == "docker-archive" else f"{file}:1"

        def podman(store):
            # The layout's own name for the image is only a tag.
            load = ["load", "-q", "-i", file] if transport == "docker-archive" else ["pull", "-q", f"oci:{reference}"]
            found = self.podman(store, "images", "-q")
            yield self.podman(store, *load)
            yield self.podman_run(store, subprocess.run(found, stdout=subprocess.PIPE, check=True, text=True).stdout.strip(), "/true")

        copy = [self.peers["skopeo"], "copy", "-q", "--insecure-policy", f"{transport}:{reference}"]
        programs = {
            "kelson": lambda store: [self.run_image(store, file if transport == "docker-archive" else f"oci:{reference}", "/true")],
            "podman": podman,
            "skopeo": lambda store: [[*copy, f"containers-storage:[overlay@{store}/root+{store}/run]{name}"]],
            "skopeo to a directory": lambda store: [[*copy, f"dir:{store}/copy"]],
        }
        if transport == "oci":
            programs["umoci"] = lambda store: [[self.peers["umoci"], "unpack", "--image", reference, f"{store}/bundle"]]
        return programs

    def suite_first(self):
        for form in FORMS:
            what = f"first run, {form}"
            for number in range(max(self.options.rounds // 4, 1) + 1):
                for name, commands in self.first_runs(form).items():
                    def once():
                        store = self.directory()
                        try:
                            # What others have to write is not what is measured.
                            os.sync()
                            wall = cpu = 0
                            for command in commands(store):
                                figures = self.alone(command)
                                wall, cpu = wall + figures["wall"], cpu + figures["cpu"]
                        finally:
                            self.podman_end(store)
                        if number > 0:
                            self.record(f"{what}: wall ms", name, wall)
                            self.record(f"{what}: CPU ms", name, cpu)
                    self.guarded(name, what, once)

    def suite_second(self):
        file = f"{self.place}/docker.tar"
        ours, theirs, bundle = self.directory(), self.directory(), f"{self.scratch}/bundle"
        # What changed a moment ago is read again: it could change once more in the same instant.
        subprocess.run(self.run_image(ours, file, "/true"), check=True)
        subprocess.run([self.kelson, "bundle", "--network", "none", "--store", ours, "--cgroup-parent", f"/{self.tag}", file,
                        bundle, "/stamp"], check=True)
        commands = {
            "kelson": lambda: self.run_image(ours, file, "/stamp"),
            "kelson's bundle": lambda: [self.kelson, "--root", f"{self.scratch}/root", "run", "-b", bundle,
                                        f"{self.tag}-{self.serial}"],
        }

        def load():
            done = subprocess.run(self.podman(theirs, "load", "-q", "-i", file), stdout=self.null, stderr=subprocess.PIPE, text=True)
            if done.returncode:
                raise bench.Failure(done.stderr[-300:])
            commands["podman"] = lambda: self.podman_run(theirs, f"{make_image.NAME}:1", "/stamp")
        self.guarded("podman", "second run", load)
        for number in range(self.options.rounds + 1):
            for name, command in commands.items():
                def once():
                    self.serial += 1
                    read, write = os.pipe()
                    try:
                        figures = self.alone(command(), write)
                        seconds, nanoseconds = struct.unpack("qq", os.read(read, 16))
                    finally:
                        os.close(read)
                        os.close(write)
                    if number > 0:
                        began = seconds * 1_000_000_000 + nanoseconds - figures["began"]
                        self.record("second run, to the first instruction: ms", name, began / 1e6)
                        self.record("second run: wall ms", name, figures["wall"])
                        self.record("second run: CPU ms", name, figures["cpu"])
                self.guarded(name, "second run", once)
        self.podman_end(theirs)

    def suite_memory(self):
        for scale in filter(None, (self.options.scale, self.options.large)):
            for form, file in FORMS.items():
                what = f"unpacking {100 * scale} MB, {form}: peak RSS KiB"

                def once():
                    make(self.work, scale)
                    store = self.directory()
                    figures = self.alone([f"{self.kelson}-image", "--store", store, "import", f"{self.work}/image-{scale}/{file}"])
                    self.record(what, "kelson", figures["largest"])
                for _ in range(3 if scale == self.options.scale else 1):
                    self.guarded("kelson", what, once)

    # ------------------------------------------------------------------------------------------------ the report

    def clean(self):
        shutil.rmtree(self.scratch, ignore_errors=True)
        for directory in [".", *os.listdir("/sys/fs/cgroup")]:
            try:
                os.rmdir(f"/sys/fs/cgroup/{directory}/{self.tag}")
            except OSError:
                pass

    @staticmethod
    def verdict(metric, medians):
        """What it is compared with, the ratio, and the target with whether it is met; '' where there is none."""
        ours, ratios = medians["kelson"], []
        if metric.startswith("first run") and metric.endswith("wall ms"):
            fastest = min((name for name in UNPACKERS if name in medians), key=medians.get, default=None)
            ratios = [(fastest, FIRST_TARGET)]
        elif metric.startswith("second run, to"):
            ratios = [("kelson's bundle", BUNDLE_TARGET), ("podman", PODMAN_TARGET)]
        elif metric.startswith("unpacking"):
            return "", f"< {MEMORY_TARGET} {'met' if ours < MEMORY_TARGET else 'MISSED'}"
        ratios = [(name, ours / medians[name], largest) for name, largest in ratios if name in medians]
        return (", ".join(f"{ratio:.2f} of {name}" for name, ratio, _ in ratios),
                ", ".join(f"≤ {largest} {'met' if ratio <= largest else 'MISSED'}" for _, ratio, largest in ratios))

    def title(self):
        return f"images: cgroup {self.version}, {self.options.rounds} rounds, load {bench.load()}"

    def table(self):
        names = ["kelson", "kelson's bundle", "podman", "skopeo", "umoci", "skopeo to a directory"]
        present = [n for n in names if any(n in values for values in self.samples.values())]
        yield ["median", *present, "ratio", "target"]
        for metric, values in self.samples.items():
            medians = {n: statistics.median(values[n]) for n in values}
            row = [metric] + [f"{medians[n]:.1f}" if n in medians else "–" for n in present]
            row += self.verdict(metric, medians) if "kelson" in medians else ("", "")
            yield row


def make(work, scale):
    programs = {"true": f"{work}/rootfs/true", "stamp": f"{work}/stamp"}
    make_image.make(f"{work}/image-{scale}", scale, programs)


def main():
    options = arguments()
    if not options.inside:
        work = os.path.abspath(options.work)
        os.makedirs(work, exist_ok=True)
        bundles.compile_programs(work)
        make(work, options.scale)
        os.execv(f"{HERE}/cgroup-view.sh",
                 ["cgroup-view.sh", options.view, sys.executable, os.path.abspath(__file__), "--inside", *sys.argv[1:]])
    images = ImageBench(options)
    images.run()
    images.report()


if __name__ == "__main__":
    main()
