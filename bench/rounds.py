"""What the benches share: a fresh server on core 0 for each run, the load generator on core 1, as root in a network namespace
with only `lo` and under SCHED_RR where that is permitted.

Each round makes every run once against every server, so that drift hits all alike. Each result is one line of JSON in
`--results`, and the table is made from all lines of that file: a long bench may be stopped, continued and looked at in between.
"""

import argparse
import datetime
import json
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent


def parser(text, *, rounds, results):
    """The arguments of every bench."""
    p = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=rounds)
    p.add_argument("--results", type=pathlib.Path, default=HERE / "target" / results)
    p.add_argument("--table", type=pathlib.Path, help="write the Markdown table here too")
    p.add_argument("--only-table", action="store_true", help="make no runs")
    p.add_argument("--bin", type=pathlib.Path, default=HERE / "target" / "release", help="folder of the generators")
    p.add_argument("--tidegate", default=str(HERE.parent / "target" / "release" / "tidegate"))
    return p


def enter_namespace():
    """Starts this program again where nothing else is on the network. Needs root; without it the host's `lo` serves."""
    if os.geteuid() != 0 or os.environ.get("BENCH_NAMESPACE"):
        return
    inner = 'ip link set lo up && exec "$@"'
    command = ["unshare", "-n", "sh", "-c", inner, "sh", sys.executable, *sys.argv]
    os.environ["BENCH_NAMESPACE"] = "1"
    if subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode == 0:
        os.execvp("unshare", command)


def pinned(core, command):
    """`command` on one core and, where permitted, ahead of all ordinary processes."""
    realtime = ["chrt", "-r", "1"]
    if subprocess.run([*realtime, "true"], capture_output=True).returncode != 0:
        realtime = []
    return ["taskset", "-c", str(core), *realtime, *command]


def wait_until(process, is_answered):
    """Until `is_answered()`, or for 20 s. It may fail with OSError as often as it likes."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        try:
            if is_answered():
                return
        except OSError:
            pass
        time.sleep(0.02)
    raise RuntimeError("the server does not answer")


def datagram(address, request):
    """What is answered to a datagram within 0.1 s."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(0.1)
        s.connect(address)
        s.send(request)
        return s.recv(100)


def one_run(name, server, is_answered, load, *, seconds=300):
    """Starts a fresh server, makes one run, ends the server. Returns what the generator printed.

    `server(folder)` gives the command that starts it with its files in the folder, `load(pid)` that of the generator, which
    has so many seconds. What fails is said and gives no result.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        folder = pathlib.Path(folder)
        command = pinned(0, server(folder))
        with open(folder / "log", "w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        try:
            wait_until(process, is_answered)
            command = pinned(1, [str(word) for word in load(process.pid)])
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
            if done.returncode != 0:
                raise RuntimeError(done.stderr.strip())
            return json.loads(done.stdout)
        except (RuntimeError, subprocess.TimeoutExpired) as e:
            tail = (folder / "log").read_text(errors="replace")[-2000:]
            print(f"{name}: {e}\n{tail}", file=sys.stderr)
            return None
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def make_runs(options, servers_of, run_once, *, minutes=None):
    """All rounds: `servers_of(run)` are the servers of a run, `run_once(server, run)` gives its result or None."""
    end = time.monotonic() + minutes * 60 if minutes else None
    for number in range(options.rounds):
        for run in options.runs:
            servers = servers_of(run)
            # Another server begins in each round, so that none always follows the same neighbour.
            turn = number % max(len(servers), 1)
            for server in servers[turn:] + servers[:turn]:
                if end and time.monotonic() > end:
                    return
                result = run_once(server, run)
                if result is not None:
                    keep(options, {"server": server, **result})


def keep(options, result):
    """Prints a result and adds it to the file."""
    line = json.dumps({"at": datetime.datetime.now().isoformat(timespec="seconds"), **result})
    print(line, flush=True)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    with open(options.results, "a") as f:
        f.write(line + "\n")


def cell(values, digits):
    """Median with lowest and highest, and of how many."""
    if not values:
        return "–"
    middle, low, high = (f"{v:,.{digits}f}" for v in (statistics.median(values), min(values), max(values)))
    return f"**{middle}** ({low}–{high}; {len(values)})"


def head(servers):
    """The first lines of a table."""
    return [f"| run | figure | {' | '.join(servers)} |", "|---|---|" + "---|" * len(servers)]


def row(results, servers, run, title, figure):
    """The line of one figure of a run, `figure` being field, words and digits; no line where nobody has it, and 0 is not having it."""
    field, what, digits = figure
    of = [[r[field] for r in results if (r["server"], r["run"]) == (s, run) and r.get(field)] for s in servers]
    return [f"| {title} | {what} | {' | '.join(cell(values, digits) for values in of)} |"] if any(of) else []


def show(options, table):
    """Makes the table of all results there are."""
    text = table([json.loads(line) for line in options.results.read_text().splitlines()])
    print(text)
    if options.table:
        options.table.write_text(text)
