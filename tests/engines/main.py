"""Runs the cases of the engines that are named and prints a line for each; the last line has the totals."""

import argparse
import os
import sys
import time
from pathlib import Path

import harness
from containerd import Containerd
from docker import Docker
from podman import Podman

ENGINES = {"podman": Podman, "containerd": Containerd, "docker": Docker}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runtime", type=Path, required=True)
    parser.add_argument("--cgroup", required=True, help="name below which every cgroup of this run is made")
    parser.add_argument("--only", default="", help="run the cases whose line contains this text")
    parser.add_argument("engines", nargs="+", choices=ENGINES)
    arguments = parser.parse_args()

    started = time.monotonic()
    report = harness.Report(arguments.only)
    for name in arguments.engines:
        rig = harness.Rig(name, arguments.runtime, arguments.cgroup)
        # conmon writes a file "oom" into its working directory.
        os.chdir(rig.dir)
        missing = ENGINES[name].missing()
        if missing:
            reason = f"not installed: {', '.join(missing)}"
            # In CI a driver that is missing would silently test nothing.
            report.add(
                name,
                "is installed",
                harness.Skip(reason) if os.environ.get("CI") != "true" else harness.Failure(reason),
            )
            continue
        harness.run_engine(ENGINES[name](rig), report)
    print(f"engines: {arguments.runtime}: {time.monotonic() - started:.0f} s")
    print(report.totals())
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
