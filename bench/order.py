#!/usr/bin/env python3
"""order.py [--work DIR] - finds out which functions the everyday commands execute, and writes link/order.ld.

The linker puts those functions beside each other, so that a command touches few pages of the program (docs/performance.md).
Each command runs instruction by instruction (step.c), on cgroup v1 and v2: ten minutes. The list names functions without
the hashes of a compilation; a function that is renamed is only placed like all others. Needs root.
"""

import argparse
import bisect
import json
import os
import re
import subprocess
import sys
import tempfile

import bundles

HERE = os.path.dirname(os.path.abspath(__file__))
TREE = os.path.dirname(HERE)
TARGET = "x86_64-unknown-linux-musl"
# Commands that make a container; the others but exec are short.
LONG = {"run", "run-podman", "create"}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", default=f"{TREE}/target/order", help="directory for the program with symbols, bundles and traces")
    parser.add_argument("--inside", choices=["v1", "v2"], help=argparse.SUPPRESS)
    return parser.parse_args()


def build(work):
    """The release program, with symbols."""
    subprocess.run(["cargo", "build", "--release", "--target", TARGET, "--package", "kelson", "--target-dir", work], cwd=TREE,
                   env=os.environ | {"CARGO_PROFILE_RELEASE_STRIP": "false"}, check=True)
    return f"{work}/{TARGET}/release/kelson"


def functions(program):
    """Address, size and name of each, by address."""
    lines = subprocess.run(["nm", "--print-size", program], capture_output=True, text=True, check=True).stdout.splitlines()
    fields = (line.split() for line in lines)
    return sorted((int(f[0], 16), int(f[1], 16), f[3]) for f in fields if len(f) == 4 and f[2] in "tTwW")


def trace(work, view):
    """Runs the commands; a file of `step` for each."""
    found = functions(f"{work}/{TARGET}/release/kelson")
    low, high = f"{found[0][0]:x}", f"{found[-1][0] + found[-1][1]:x}"
    configs = bundles.all_configs(work, view)
    with tempfile.TemporaryDirectory(prefix="kelson-order-") as scratch:
        def bundle(kind):
            directory = f"{scratch}/{kind}"
            os.makedirs(directory, exist_ok=True)
            configs[kind]["linux"]["cgroupsPath"] = f"/kelson-order-{os.getpid()}/{kind}"
            with open(f"{directory}/config.json", "w") as file:
                json.dump(configs[kind], file)
            return directory

        def step(name, *command):
            out = f"{work}/{view}-{name}"
            if os.path.exists(out):
                os.remove(out)
            subprocess.run([f"{work}/step", out, low, high, f"{work}/{TARGET}/release/kelson", "--root", f"{scratch}/root", *command],
                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)

        step("run", "run", "--bundle", bundle("true"), "a")
        step("run-podman", "run", "--bundle", bundle("podman"), "a")
        step("create", "create", "--bundle", bundle("podman-sleep"), "a")
        step("start", "start", "a")
        step("state", "state", "a")
        step("list", "list")
        step("exec", "exec", "a", "/true")
        step("kill", "kill", "a", "KILL")
        step("delete", "delete", "--force", "a")


def name_of(symbol):
    """The symbol as a pattern, without what stands for the compilation of a crate (rustc book, v0 symbols: crate-root);
    None where the compiler made no section of that name."""
    return re.sub(r"Cs[0-9A-Za-z]*_(?=\d)", "Cs*_", symbol) if symbol.startswith(("_R", "main")) else None


def users(work):
    """Name to who is seen in it: (command, process)."""
    found = functions(f"{work}/{TARGET}/release/kelson")
    starts = [start for start, _, _ in found]
    seen = {}
    for name in os.listdir(work):
        if not name.startswith(("v1-", "v2-")):
            continue
        with open(f"{work}/{name}") as file:
            for line in file:
                process, address = line.split()
                start, size, symbol = found[bisect.bisect_right(starts, int(address, 16)) - 1]
                pattern = name_of(symbol)
                if pattern and int(address, 16) < start + size:
                    seen.setdefault(pattern, set()).add((name[3:], process))
    return seen


def place(who):
    """Where to put a function that is executed by these: who starts a container, the container's process and the short
    commands have each their own part, and between two of them is what both execute."""
    starts = any(command in LONG and process == "0" for command, process in who)
    inside = any(command in LONG and process != "0" for command, process in who)
    short = sum(command not in LONG and command != "exec" for command, _ in who)
    execs = any(command == "exec" for command, _ in who)
    if starts and not inside:
        return (0, execs) if not short else (1, short, execs)
    if inside:
        return (2, -short, execs) if short else (3 if starts else 4, execs)
    return (5, -short, execs) if short else (6,)


def write(seen, path):
    order = sorted(seen, key=lambda name: (place(seen[name]), sorted(seen[name]), name))
    with open(path, "w") as file:
        file.write("/* Written by bench/order.py: what everyday commands execute comes first, so that they touch few pages. */\n")
        file.write("SECTIONS\n{\n\t.text.first :\n\t{\n")
        file.writelines(f"\t\t*(.text.{name})\n" for name in order)
        file.write("\t}\n}\nINSERT BEFORE .text;\n")
    print(f"{len(order)} functions of {path}")


def main():
    options = arguments()
    if options.inside:
        return trace(options.work, options.inside)
    os.makedirs(options.work, exist_ok=True)
    build(options.work)
    bundles.compile_programs(options.work)
    subprocess.run(["gcc", "-O2", "-Wall", "-o", f"{options.work}/step", f"{HERE}/step.c"], check=True)
    views = ["v2"] if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else ["v1", "v2"]
    runs = [subprocess.Popen([f"{HERE}/cgroup-view.sh", view, sys.executable, __file__, "--work", options.work, "--inside", view])
            for view in views]
    if any([run.wait() for run in runs]):
        sys.exit("a command failed")
    write(users(options.work), f"{TREE}/link/order.ld")


if __name__ == "__main__":
    main()
