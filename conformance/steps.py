"""The steps of `make test`. Each prints what it does; at the end all their tests are counted in one line.

A step that runs no test of its own counts as one. A step whose command fails without a test that failed counts as one
failure.
"""

import os
import pathlib
import re
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
HOUSE = HERE.parent
TARGET = pathlib.Path(os.environ["CARGO_TARGET_DIR"])
TOOLS = pathlib.Path(os.environ["TIDEGATE_TOOLS"])
BINARY = TARGET / "debug" / "tidegate"
SUITE = [sys.executable, str(HERE / "suite.py")]
COUNTS = (re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed", re.M),
          re.compile(r"^(\d+) passed, (\d+) failed$", re.M))

# Name, longest time in minutes, command.
STEPS = [
    ("format", 2, ["cargo", "fmt", "--all", "--check"]),
    ("lint", 20, ["cargo", "clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]),
    ("licences", 3, [str(TOOLS / "bin" / "cargo-deny"), "--offline", "check", "bans", "licenses", "sources"]),
    ("build", 20, ["cargo", "build", "-p", "tidegate", "--locked"]),
    # Unit, property, simulation and tidy tests, the dialogues against the binary and mosquitto, and the fuzz corpora.
    ("cargo", 40, ["cargo", "test", "--workspace", "--locked", "--no-fail-fast"]),
    ("mqtt", 15, [*SUITE, "mqtt"]),
    ("coap", 25, [*SUITE, "coap"]),
    ("mqtt_sn", 15, [*SUITE, "mqtt_sn"]),
    ("tcp", 15, [*SUITE, "tcp"]),
    ("bad", 15, [*SUITE, "bad"]),
    ("durable", 20, [*SUITE, "durable"]),
]
# Steps that run when they are named alone.
LONG = [
    ("soak", 120, [*SUITE, "durable", "crash"]),
    ("soak-coap", 120, [*SUITE, "coap", "crash"]),
]


def counted(text):
    """Passed and failed tests that the output tells of."""
    found = [match.groups() for pattern in COUNTS for match in pattern.finditer(text)]
    return sum(int(passed) for passed, _ in found), sum(int(failed) for _, failed in found)


def run(name, minutes, command):
    """Runs a step; passed and failed tests."""
    print(f"\n== {name}: {' '.join(pathlib.Path(command[0]).name if i == 0 else word for i, word in enumerate(command))}",
          flush=True)
    began, lines = time.monotonic(), []
    environment = dict(os.environ, TIDEGATE_BIN=str(BINARY), PYTHONDONTWRITEBYTECODE="1")
    # Properties are tried with the same cases each time: what fails on one machine fails on all.
    environment.setdefault("PROPTEST_RNG_SEED", "1")
    # A group of its own: nothing that it started outlives it.
    process = subprocess.Popen(command, cwd=HOUSE, env=environment, text=True, errors="replace", stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    timer = threading.Timer(minutes * 60, lambda: os.killpg(process.pid, 9))
    timer.start()
    for line in process.stdout:
        lines.append(line)
        print(line, end="", flush=True)
    code = process.wait()
    timer.cancel()
    passed, failed = counted("".join(lines))
    if code != 0 and failed == 0:
        failed = 1
    if code == 0 and failed:
        code = 1
    if passed + failed == 0:
        passed = 1
    print(f"-- {name}: {'ok' if code == 0 else f'FAILED ({code})'} in {time.monotonic() - began:.0f} s", flush=True)
    return passed, failed


def main():
    """All steps, or those that are named. A failed build ends it: the rest would test something else."""
    names = sys.argv[1:]
    if unknown := set(names) - {name for name, _, _ in STEPS + LONG}:
        raise SystemExit(f"there is no step {', '.join(sorted(unknown))}; steps: {' '.join(s[0] for s in STEPS + LONG)}")
    passed, failed, wrong = 0, 0, []
    for name, minutes, command in STEPS + LONG if names else STEPS:
        if names and name not in names:
            continue
        more, bad = run(name, minutes, command)
        passed, failed = passed + more, failed + bad
        if bad:
            wrong.append(name)
        if name == "build" and bad:
            break
    if wrong:
        print(f"\nfailed: {', '.join(wrong)}")
    print(f"\n{passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
