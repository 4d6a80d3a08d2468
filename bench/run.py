#!/usr/bin/env python3
"""Servers side by side: each round makes every run once against every server, so that drift hits all alike.

Server on core 0, load generator on core 1, as root in a network namespace with only `lo` and under SCHED_RR where that
is permitted. A fresh server for each run. Each result is one line of JSON in --results, and the table is made from all
lines of that file: a long bench may be stopped, continued and looked at in between.
"""

import argparse
import datetime
import json
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ADDRESS = ("127.0.0.1", 18830)
RUNS = {
    "pairs-qos0": "50→50, 20 in flight, QoS 0",
    "pairs-qos1": "50→50, 20 in flight, QoS 1",
    "pairs-qos2": "50→50, 20 in flight, QoS 2",
    "fan-in": "fan-in 200→1, 20 in flight, QoS 0",
    "fan-out": "fan-out 1→500, 7 in flight, QoS 0",
    "fan-out-20": "fan-out 1→500, 20 in flight, QoS 0",
    "share-qos1": "`$share` 50→50, 20 in flight, QoS 1",
    "one-qos0": "one in flight, 50→50, QoS 0",
    "one-qos1": "one in flight, 50→50, QoS 1",
    "rate-qos0": "20,000 msg/s, QoS 0",
    "rate-qos1": "20,000 msg/s, QoS 1",
    "idle": "19,500 idle connections",
    "idle-subscribed": "19,500 idle connections, one subscription each",
    "subscriptions": "1,000,000 wildcard subscriptions",
}
USUAL_RUNS = [r for r in RUNS if r != "subscriptions"]
SERVERS = ["mosquitto", "rumqttd", "forwarder", "tidegate"]

MOSQUITTO = """\
listener {port} 127.0.0.1
allow_anonymous true
log_dest none
persistence false
set_tcp_nodelay true
max_queued_messages 100000
max_inflight_messages 0
user {user}
"""

RUMQTTD = """\
id = 0

[router]
id = 0
max_connections = 300000
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10

[v4.1]
name = "v4-1"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 0
[v4.1.connections]
connection_timeout_ms = 60000
max_payload_size = 20480
max_inflight_count = 100
dynamic_filters = true
"""


TIDEGATE = """\
[node]
name = "bench"
sys_interval = "0 s"
[log]
level = "error"
[http]
bind = "off"
[admin]
socket = "off"
[mqtt.listeners.tcp]
bind = "127.0.0.1:{port}"
anonymous = "always"
"""


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--servers", nargs="+", choices=SERVERS, default=SERVERS)
    p.add_argument("--runs", nargs="+", choices=list(RUNS), default=USUAL_RUNS)
    p.add_argument("--times", nargs=2, default=["1", "3"], metavar=("WARM_UP", "MEASURED"), help="seconds")
    p.add_argument("--minutes", type=float, help="begin no run after this time")
    p.add_argument("--results", type=pathlib.Path, default=HERE / "target" / "results.jsonl")
    p.add_argument("--table", type=pathlib.Path, help="write the Markdown table here too")
    p.add_argument("--only-table", action="store_true", help="make no runs")
    p.add_argument("--bin", type=pathlib.Path, default=HERE / "target" / "release", help="folder of load and forwarder")
    p.add_argument("--tidegate", default=str(HERE.parent / "target" / "release" / "tidegate"))
    p.add_argument("--mosquitto", default=shutil.which("mosquitto") or "/usr/sbin/mosquitto")
    p.add_argument("--rumqttd", default=shutil.which("rumqttd") or "rumqttd")
    return p.parse_args()


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


def server_command(name, options, folder):
    """What starts a server with its files in `folder`, and its environment."""
    port = ADDRESS[1]
    environment = dict(os.environ)
    if name == "mosquitto":
        config = folder / "mosquitto.conf"
        config.write_text(MOSQUITTO.format(port=port, user="root" if os.geteuid() == 0 else "mosquitto"))
        return [options.mosquitto, "-c", str(config)], environment
    if name == "rumqttd":
        config = folder / "rumqttd.toml"
        config.write_text(RUMQTTD.format(port=port))
        return [options.rumqttd, "-c", str(config)], environment
    if name == "forwarder":
        return [str(options.bin / "forwarder"), f"{ADDRESS[0]}:{port}"], environment
    config = folder / "tidegate.toml"
    config.write_text(TIDEGATE.format(port=port))
    return [options.tidegate, "--config", str(config), "--data", str(folder)], environment


def wait_for_port(process):
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        try:
            socket.create_connection(ADDRESS, timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("the server does not listen")


def one_run(server, run, options):
    """Starts a fresh server, makes one run, ends the server. Returns what the generator printed."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        folder = pathlib.Path(folder)
        command, environment = server_command(server, options, folder)
        with open(folder / "log", "w") as log:
            process = subprocess.Popen(pinned(0, command), env=environment, stdout=log, stderr=log, cwd=folder)
        try:
            wait_for_port(process)
            load = [str(options.bin / "load"), run, f"{ADDRESS[0]}:{ADDRESS[1]}", str(process.pid), *options.times]
            done = subprocess.run(pinned(1, load), capture_output=True, text=True, timeout=300)
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
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def make_runs(options):
    end = time.monotonic() + options.minutes * 60 if options.minutes else None
    options.results.parent.mkdir(parents=True, exist_ok=True)
    for number in range(options.rounds):
        for run in options.runs:
            # Another server begins in each round, so that none always follows the same neighbour.
            turn = number % len(options.servers)
            for server in options.servers[turn:] + options.servers[:turn]:
                if end and time.monotonic() > end:
                    return
                result = one_run(server, run, options)
                if result is None:
                    continue
                result = {"server": server, "at": datetime.datetime.now().isoformat(timespec="seconds"), **result}
                line = json.dumps(result)
                print(line, flush=True)
                with open(options.results, "a") as f:
                    f.write(line + "\n")


ROWS = [
    # run, field, what it is, digits
    *[(r, "cpu_s_per_million", "CPU s per million", 2) for r in USUAL_RUNS[:11]],
    ("rate-qos0", "p50_ms", "p50, ms", 3),
    ("rate-qos0", "p99_ms", "p99, ms", 3),
    ("rate-qos1", "p50_ms", "p50, ms", 3),
    ("rate-qos1", "p99_ms", "p99, ms", 3),
    ("idle", "bytes_per_connection", "resident bytes per connection", 0),
    ("idle-subscribed", "bytes_per_connection", "resident bytes per connection", 0),
    ("idle", "us_per_connect", "CPU µs per connect", 1),
    *[(r, "per_second", "messages/s", 0) for r in USUAL_RUNS[:9]],
    ("subscriptions", "bytes_per_subscription", "resident bytes per subscription", 0),
    ("subscriptions", "us_before", "CPU µs per delivery before", 2),
    ("subscriptions", "us_among", "CPU µs per delivery among them", 2),
]


def table(results):
    """Median with lowest and highest of each figure, servers in columns."""
    servers = [s for s in SERVERS if any(r["server"] == s for r in results)]
    lines = [f"| run | figure | {' | '.join(servers)} |", "|---|---|" + "---|" * len(servers)]
    for run, field, what, digits in ROWS:
        cells = []
        for server in servers:
            values = [r[field] for r in results if (r["server"], r["run"]) == (server, run) and r.get(field) is not None]
            if values:
                middle, low, high = (f"{v:,.{digits}f}" for v in (statistics.median(values), min(values), max(values)))
                cells.append(f"**{middle}** ({low}–{high}; {len(values)})")
            else:
                cells.append("–")
        if any(c != "–" for c in cells):
            lines.append(f"| {RUNS[run]} | {what} | {' | '.join(cells)} |")
    bad = [r for r in results if r.get("lost") or r.get("disordered")]
    for server in servers:
        those = [f"{r['run']}: {r['lost']} lost, {r['disordered']} out of order" for r in bad if r["server"] == server]
        if those:
            lines.append(f"\n{server}: {'; '.join(those)}.")
    return "\n".join(lines) + "\n"


def main():
    options = arguments()
    enter_namespace()
    if not options.only_table:
        make_runs(options)
    results = [json.loads(line) for line in options.results.read_text().splitlines()]
    text = table(results)
    print(text)
    if options.table:
        options.table.write_text(text)


if __name__ == "__main__":
    main()
