#!/usr/bin/env python3
"""MQTT-SN: as coap.py does it, a fresh Tidegate on core 0 for each run, the load generator on core 1. Each result is one
line of JSON in --results; the table is made from all lines."""

import argparse
import datetime
import json
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

from coap import cell
from run import HERE, enter_namespace, pinned

ADDRESS = ("127.0.0.1", 18860)
AT = f"{ADDRESS[0]}:{ADDRESS[1]}"
RUNS = {
    "qos0": "200 clients publish QoS 0 to an MQTT subscriber",
    "qos1": "200 clients publish QoS 1, the subscriber has QoS 0",
    "qos1-qos1": "200 clients publish QoS 1, the subscriber has QoS 1",
    "connected-10000": "10,000 connected clients, one subscription each",
    "asleep-10000": "10,000 sleeping clients, one subscription each",
    "connected-100000": "100,000 connected clients, one subscription each",
    "asleep-100000": "100,000 sleeping clients, one subscription each",
    "woken-10000": "10,000 sleepers with 10 messages each, woken at 1,000/s",
    "woken-100000": "100,000 sleepers with 10 messages each, woken at 1,000/s",
}
USUAL_RUNS = list(RUNS)[:5]
DURABILITY = {"tidegate": "memory", "tidegate-sync": "sync"}
TIDEGATE = """\
[node]
sys_interval = "0 s"
[log]
level = "error"
[http]
bind = "off"
[admin]
socket = "off"
[store]
durability = "{durability}"
[mqtt.listeners.tcp]
bind = "{at}"
anonymous = "always"
[mqtt.listeners.ws]
enabled = false
[coap.listeners.udp]
enabled = false
[mqtt_sn.listeners.udp]
bind = "{at}"
anonymous = "always"
"""
FIGURES = [
    ("cpu_s_per_million", "CPU s per million", 2),
    ("per_second", "messages/s", 0),
    ("bytes_each", "resident bytes each", 0),
    ("bytes_a_message", "resident bytes a waiting message", 0),
    ("publish_cpu_s_per_million", "CPU s per million published to sleepers", 2),
    ("wakes_per_second", "woken a second", 0),
    ("wake_cpu_s_per_million", "CPU s per million delivered to the woken", 2),
    ("cpu_share", "share of a core while they are woken", 3),
    ("p50_ms", "PINGREQ to PINGRESP p50, ms", 3),
    ("p99_ms", "PINGREQ to PINGRESP p99, ms", 3),
    ("p999_ms", "PINGREQ to PINGRESP p99.9, ms", 3),
]


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--servers", nargs="+", choices=list(DURABILITY), default=["tidegate"])
    p.add_argument("--runs", nargs="+", choices=list(RUNS), default=USUAL_RUNS)
    p.add_argument("--times", nargs=2, default=["1", "3"], metavar=("WARM_UP", "MEASURED"), help="seconds")
    p.add_argument("--results", type=pathlib.Path, default=HERE / "target" / "mqtt_sn.jsonl")
    p.add_argument("--only-table", action="store_true", help="make no runs")
    p.add_argument("--bin", type=pathlib.Path, default=HERE / "target" / "release", help="folder of mqtt_sn")
    p.add_argument("--tidegate", default=str(HERE.parent / "target" / "release" / "tidegate"))
    return p.parse_args()


def wait_until_answered(process):
    """SEARCHGW is answered with GWINFO."""
    end = time.monotonic() + 20
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(0.1)
        s.connect(ADDRESS)
        while time.monotonic() < end:
            if process.poll() is not None:
                raise RuntimeError(f"the server ended with {process.returncode}")
            try:
                s.send(b"\x03\x01\x00")
                if s.recv(100)[1:2] == b"\x02":
                    return
            except OSError:
                time.sleep(0.02)
    raise RuntimeError("the server does not answer")


def one_run(server, run, options):
    """Starts a fresh server, makes one run, ends the server. Returns what the generator printed."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        folder = pathlib.Path(folder)
        config = folder / "tidegate.toml"
        config.write_text(TIDEGATE.format(at=AT, durability=DURABILITY[server]))
        command = [options.tidegate, "--config", str(config), "--data", str(folder)]
        with open(folder / "log", "w") as log:
            process = subprocess.Popen(pinned(0, command), stdout=log, stderr=log, cwd=folder)
        try:
            wait_until_answered(process)
            load = [str(options.bin / "mqtt_sn"), run, AT, str(process.pid), *options.times]
            done = subprocess.run(pinned(1, load), capture_output=True, text=True, timeout=900)
            if done.returncode != 0:
                raise RuntimeError(done.stderr.strip())
            return json.loads(done.stdout)
        except (RuntimeError, subprocess.TimeoutExpired) as e:
            tail = (folder / "log").read_text(errors="replace")[-2000:]
            print(f"{server} {run}: {e}\n{tail}", file=sys.stderr)
            return None
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def make_runs(options):
    options.results.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(options.rounds):
        for run in options.runs:
            for server in options.servers:
                result = one_run(server, run, options)
                if result is None:
                    continue
                at = datetime.datetime.now().isoformat(timespec="seconds")
                line = json.dumps({"server": server, "at": at, **result})
                print(line, flush=True)
                with open(options.results, "a") as f:
                    f.write(line + "\n")


def table(results):
    servers = [s for s in DURABILITY if any(r["server"] == s for r in results)]
    lines = [f"| run | figure | {' | '.join(servers)} |", "|---|---|" + "---|" * len(servers)]
    for run, title in RUNS.items():
        for field, what, digits in FIGURES:
            of = {s: [r for r in results if (r["server"], r["run"]) == (s, run) and r.get(field)] for s in servers}
            if any(of.values()):
                lines.append(f"| {title} | {what} | {' | '.join(cell(of[s], field, digits) for s in servers)} |")
    repeated = sum(r.get("repeated", 0) for r in results)
    missing = sum(r["wanted"] - r["messages"] for r in results if "wanted" in r)
    lines.append(f"\nSent again: {repeated}. Messages that sleepers did not get: {missing}.")
    return "\n".join(lines) + "\n"


def main():
    options = arguments()
    enter_namespace()
    if not options.only_table:
        make_runs(options)
    print(table([json.loads(line) for line in options.results.read_text().splitlines()]))


if __name__ == "__main__":
    main()
