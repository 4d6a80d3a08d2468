#!/usr/bin/env python3
"""Sessions that outlive their connections, side by side: Tidegate with `durability` sync, batched and memory, and mosquitto
with `persistence true`. Both cores for all and no real-time priorities: the disk is part of the run. Each
result is one line of JSON in --results; the table is made from all lines of that file.

mosquitto acknowledges when a message is in memory, and writes everything to its database every `autosave_interval` and at its
end: what came since is lost with the process. Tidegate with "sync" acknowledges when the message is on the disk.
"""

import json
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time

import rounds

ADDRESS = ("127.0.0.1", 18831)
AT = f"{ADDRESS[0]}:{ADDRESS[1]}"
SERVERS = ["sync", "batched", "memory", "mosquitto", "mosquitto-1s"]
# name: (title, servers)
RUNS = {
    "store-1": ("the store alone, batches of 1", ["sync"]),
    "store-10": ("the store alone, batches of 10", ["sync"]),
    "store-100": ("the store alone, batches of 100", ["sync"]),
    "store-1000": ("the store alone, batches of 1,000", ["sync"]),
    "online": ("50→50 durable, connected, QoS 1, 1,000 in flight", SERVERS),
    "online-qos2": ("50→50 durable, connected, QoS 2, 1,000 in flight", SERVERS),
    "online-50000": ("50→50 durable, connected, QoS 1, 1,000 in flight each", SERVERS),
    "offline": ("50→50 durable, away, QoS 1, 1,000 in flight", SERVERS),
    "offline-50000": ("50→50 durable, away, QoS 1, 1,000 in flight each", SERVERS),
    "fan-out": ("1→50 durable, away, QoS 1, 1,000 in flight", ["sync", "batched", "mosquitto"]),
    "fan-out-disk": ("the same, 200,000 messages", ["sync", "mosquitto"]),
    "rate": ("5,000 msg/s to 50 durable, away: PUBLISH to PUBACK", SERVERS),
    "million": ("1,000,000 messages for 50 sessions", ["sync", "mosquitto"]),
    "sessions": ("1,000,000 sessions with one subscription", ["sync", "mosquitto"]),
}
USUAL_RUNS = [r for r in RUNS if r != "sessions"]

TIDEGATE = """\
[node]
sys_interval = "0 s"
[log]
level = "warn"
[http]
bind = "off"
[router]
max_sessions = 2000000
max_queued = 100000000
max_queued_bytes = "64 GiB"
[store]
durability = "{durability}"
max_messages = 1000000000
max_bytes = "64 GiB"
[mqtt.listeners.tcp]
bind = "127.0.0.1:{port}"
"""

MOSQUITTO = """\
listener {port} 127.0.0.1
allow_anonymous true
log_dest none
persistence true
persistence_location {folder}/
autosave_interval {interval}
set_tcp_nodelay true
max_queued_messages 0
max_queued_bytes 0
max_inflight_messages 0
user {user}
"""


class Server:
    """A server with a data folder, which may be started again."""

    def __init__(self, name, options, folder):
        self.name, self.options, self.folder = name, options, folder
        self.start()

    def start(self):
        if self.name.startswith("mosquitto"):
            config = self.folder / "mosquitto.conf"
            interval = 1 if self.name.endswith("1s") else 1800
            user = "root" if os.geteuid() == 0 else "mosquitto"
            config.write_text(MOSQUITTO.format(port=ADDRESS[1], folder=self.folder, interval=interval, user=user))
            command = [self.options.mosquitto, "-c", str(config)]
        else:
            config = self.folder / "tidegate.toml"
            config.write_text(TIDEGATE.format(port=ADDRESS[1], durability=self.name))
            command = [self.options.tidegate, "--config", str(config), "--data", str(self.folder)]
        command = [*self.options.priority, *command]
        begin = time.monotonic()
        with open(self.folder / "log", "a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        while True:
            if self.process.poll() is not None:
                raise RuntimeError("the server ended: " + (self.folder / "log").read_text()[-2000:])
            try:
                # A port may be open before the server serves it: ready is who answers CONNECT with CONNACK.
                with socket.create_connection(ADDRESS, timeout=60) as probe:
                    probe.sendall(b"\x10\x11\0\4MQTT\4\2\0\0\0\5ready")
                    if probe.recv(4) == b"\x20\2\0\0":
                        break
            except OSError:
                time.sleep(0.002)
            if time.monotonic() - begin > 120:
                raise RuntimeError("the server does not listen")
        self.start_s = time.monotonic() - begin

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def memory(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) * 1024

    def disk(self):
        files = [p for p in self.folder.rglob("*") if p.is_file() and p.name not in ("log", "tidegate.toml", "mosquitto.conf")]
        return sum(p.stat().st_blocks * 512 for p in files)

    def load(self, *words):
        words = [str(w) for w in words]
        command = [*self.options.priority, str(self.options.bin / "durable"), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip())
        return json.loads(done.stdout)


def measure(run, server, seconds):
    """What a run says."""
    pid = server.process.pid
    window = 1000 if run.endswith("-50000") else 20
    if run.startswith("online"):
        return server.load("online", AT, pid, 50, window, seconds, 2 if run.endswith("-qos2") else 1)
    if run.startswith("offline"):
        server.load("sleepers", AT, 50)
        return server.load("window", AT, pid, 50, 50, window, seconds)
    if run == "fan-out":
        server.load("sleepers", AT, 50, "common")
        return server.load("window", AT, pid, 1, 1, 1000, seconds)
    if run == "fan-out-disk":
        # Journals stay beside the tables for a while, and mosquitto writes at its end: so many messages, then stopped.
        server.load("sleepers", AT, 50, "common")
        server.load("window", AT, pid, 1, 1, 1000, 600, 200_000)
        server.stop()
        return {"disk_bytes_per_message": server.disk() / 200_000}
    if run == "rate":
        server.load("sleepers", AT, 50)
        return server.load("rate", AT, pid, 50, 50, 5000, seconds)
    before = server.memory()
    n = 1_000_000
    if run == "sessions":
        server.load("sleepers", AT, n)
        found = start_again(server, before, n, "session")
    else:
        assert run == "million"
        server.load("sleepers", AT, 50)
        server.load("window", AT, pid, 50, 50, 20, 600, n)
        found = start_again(server, before, n, "message")
        found.update(server.load("wake", AT, 7, 20_000))
    server.stop()
    server.start()
    return {**found, "start_after_sigterm_s": server.start_s}


def start_again(server, before, n, what):
    """Kills a server that holds `n` of something and starts it; mosquitto, whose database is written at its end, is stopped."""
    time.sleep(2)
    found = {"memory_mb": (server.memory() - before) / 1e6}
    is_killed = not server.name.startswith("mosquitto")
    server.stop(signal.SIGKILL if is_killed else signal.SIGTERM)
    found[f"disk_bytes_per_{what}"] = server.disk() / n
    server.start()
    if is_killed:
        found["start_after_sigkill_s"] = server.start_s
    found["memory_after_start_mb"] = server.memory() / 1e6
    return found


def servers_of(run, options):
    return [s for s in RUNS[run][1] if s in options.servers]


def one_run(name, run, options):
    """What a run says, or that it failed."""
    try:
        return {"run": run, **one_try(name, run, options)}
    except (RuntimeError, subprocess.SubprocessError) as e:
        return {"run": run, "failed": str(e)}


def one_try(name, run, options):
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.disk) as folder:
        folder = pathlib.Path(folder)
        if run.startswith("store-"):
            batch = run.removeprefix("store-")
            words = [str(options.bin / "durable"), "store", str(folder / "store"), batch, options.seconds]
            return json.loads(subprocess.run([*options.priority, *words], capture_output=True, text=True, check=True).stdout)
        server = Server(name, options, folder)
        try:
            return measure(run, server, options.seconds)
        finally:
            server.stop()


def table(results):
    """A row for each figure of each run, a column for each server: median (lowest–highest; runs)."""
    def number(v):
        return f"{v:,.0f}" if abs(v) >= 1000 else f"{v:.3g}"

    lines = ["| run | figure | " + " | ".join(SERVERS) + " |", "|---|---|" + "---|" * len(SERVERS)]
    for run, (title, _) in RUNS.items():
        mine = [r for r in results if r["run"] == run]
        skipped = ("at", "run", "server", "batch", "all", "acknowledged", "seconds", "lost", "disordered", "first_s", "failed")
        for figure in dict.fromkeys(k for r in mine for k in r if k not in skipped):
            cells = []
            for server in SERVERS:
                values = [r[figure] for r in mine if r["server"] == server and figure in r]
                cells.append("–" if not values else f"**{number(statistics.median(values))}** "
                             f"({number(min(values))}–{number(max(values))}; {len(values)})")
            lines.append(f"| {title} | {figure.replace('_', ' ')} | " + " | ".join(cells) + " |")
    bad = [f"{r['server']} {r['run']}: {r['lost']} lost, {r['disordered']} out of order"
           for r in results if r.get("lost") or r.get("disordered")]
    bad += [f"{r['server']} {r['run']}: no figure, {r['failed']}" for r in results if "failed" in r]
    return "\n".join(lines + (["", "; ".join(bad)] if bad else [])) + "\n"


def main():
    p = rounds.parser(__doc__, rounds=3, results="durable.jsonl")
    p.add_argument("--servers", nargs="+", choices=SERVERS, default=SERVERS)
    p.add_argument("--runs", nargs="+", choices=list(RUNS), default=USUAL_RUNS)
    p.add_argument("--seconds", default="4", help="measured, of each run")
    p.add_argument("--disk", default="/var/tmp", help="folder on the disk that is measured")
    p.add_argument("--nice", type=int, help="of servers and generator, against others on the machine; below 0 as root")
    p.add_argument("--mosquitto", default=shutil.which("mosquitto") or "/usr/sbin/mosquitto")
    options = p.parse_args()
    options.priority = ["nice", "-n", str(options.nice)] if options.nice else []
    if not options.only_table:
        rounds.make_runs(options, lambda run: servers_of(run, options), lambda *run: one_run(*run, options))
    rounds.show(options, table)


if __name__ == "__main__":
    main()
