#!/usr/bin/env python3
"""run.py --suite DIR --runtime PATH [--all] [--out DIR] [PROGRAM...] - runs the validation suite against a runtime.

Each program runs by itself in DIR (which build.sh made), inside isolate.py, and prints TAP. expected.txt says what is expected
of which: those that cannot pass are skipped, unless they are named or --all is given. The last line is the totals.
"""

import argparse
import concurrent.futures
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
# These print no assertion at all: a YAML "error" is how they fail.
WITHOUT_ASSERTIONS = {"poststart", "poststart_fail", "poststop", "poststop_fail", "prestart", "prestart_fail", "hooks"}
# These exit 0 and print nothing when create failed as it should.
SILENT = {"process_rlimits_fail", "process_capabilities_fail"}


def expectations():
    expected = {}
    for line in open(f"{HERE}/expected.txt"):
        if line.strip() and not line.startswith("#"):
            verb, program, *reason = line.split(maxsplit=2)
            expected[program] = (verb, reason[0].strip() if reason else "")
    return expected


def judge(program, output, status):
    """What TAP says: '' for a pass, or why not."""
    planned, seen, failures, skipped = None, 0, [], 0
    for line in output.splitlines():
        if line.startswith("Bail out!"):
            failures.append(line)
        if point := re.match(r"(not )?ok\b\s*\d*\s*-?\s*(.*)", line):
            seen += 1
            if re.search(r"#\s*(SKIP|TODO)", point[2], re.I):
                skipped += 1
            elif point[1]:
                failures.append(point[2].strip())
        if plan := re.match(r"1\.\.(\d+)(\s*#\s*skip)?", line, re.I):
            # linux_cgroups_cpus prints two TAP documents.
            planned = (planned or 0) + int(plan[1])
            skipped += bool(plan[2])
    if status != 0:
        return f"exit status {status}" + "".join(f"; {f}" for f in failures[:3])
    if failures:
        return "; ".join(failures[:5])
    if planned is not None and planned != seen and not (skipped and planned == 0):
        return f"{planned} assertions were announced, {seen} made"
    if program in WITHOUT_ASSERTIONS:
        error = re.search(r'"error": "(.*?)(\\nRefer|"\n)', output)
        return error[1] if error else ""
    if seen == 0 and program in SILENT:
        return ""
    if seen == skipped:
        return "everything in it was skipped" if skipped else "it asserted nothing"
    return ""


def run(program, arguments):
    """(seconds, '' or why it failed)."""
    begin = time.monotonic()
    environment = {k: v for k, v in os.environ.items() if k not in ("XDG_RUNTIME_DIR", "NOTIFY_SOCKET")}
    with tempfile.TemporaryDirectory(prefix="kelson-validation-") as scratch:
        # The container's root may be an ordinary user of the host.
        os.chmod(scratch, 0o755)
        environment |= {"RUNTIME": arguments.runtime, "TMPDIR": scratch}
        command = [sys.executable, f"{HERE}/isolate.py", f"{arguments.suite}/validation/{program}/{program}.t"]
        with open(f"{arguments.out}/{program}.out", "w+b") as out, open(f"{arguments.out}/{program}.err", "w+b") as err:
            child = subprocess.Popen(
                command, cwd=arguments.suite, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )
            try:
                status = child.wait(arguments.timeout)
            except subprocess.TimeoutExpired:
                child.send_signal(signal.SIGTERM)
                child.wait()
                status = None
            except BaseException:
                child.send_signal(signal.SIGTERM)
                child.wait()
                raise
            out.seek(0)
            output = out.read().decode(errors="replace")
            err.seek(0)
            complaint = err.read().decode(errors="replace").strip().splitlines()
        # The suite makes its bundles here; a mount that it left went with its namespace.
        why = f"no end after {arguments.timeout} s" if status is None else judge(program, output, status)
        if why and complaint:
            why += f" ({complaint[-1][:300]})"
        return time.monotonic() - begin, why


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", required=True)
    parser.add_argument("--runtime", required=True)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--out", default="target/validation")
    parser.add_argument("--timeout", type=float, default=60)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("programs", nargs="*")
    arguments = parser.parse_args()
    arguments.runtime = os.path.abspath(arguments.runtime)
    arguments.out = os.path.abspath(arguments.out)
    os.makedirs(arguments.out, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    expected = expectations()
    built = sorted(p for p in os.listdir(f"{arguments.suite}/validation")
                   if os.path.exists(f"{arguments.suite}/validation/{p}/{p}.t"))
    programs = arguments.programs or built
    left_out = set()
    if not arguments.all and not arguments.programs:
        left_out = {p for p in programs if expected.get(p, ("unknown", ""))[0] == "cannot"}
    passed = failed = skipped = 0
    # Most of them wait more than they work.
    pool = concurrent.futures.ThreadPoolExecutor(arguments.jobs)
    results = {p: pool.submit(run, p, arguments) for p in programs if p not in left_out}
    for program in programs:
        verb, reason = expected.get(program, ("unknown", ""))
        if program in left_out:
            print(f"skip  {program}: {reason}")
            skipped += 1
            continue
        try:
            seconds, why = results[program].result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        if not why:
            passed += 1
            print(f"ok    {program} ({seconds:.1f} s)" + (" though it was said that it cannot" if verb == "cannot" else ""))
        elif verb == "cannot":
            skipped += 1
            print(f"skip  {program} ({seconds:.1f} s): {reason}: {why}")
        else:
            failed += 1
            print(f"FAIL  {program} ({seconds:.1f} s): {why}")
        sys.stdout.flush()
    pool.shutdown()
    for program in sorted(set(expected) - set(built)):
        failed += 1
        print(f"FAIL  {program}: expected.txt names it, the suite does not have it")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
