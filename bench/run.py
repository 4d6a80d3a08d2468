#!/usr/bin/env python3
"""MQTT servers side by side, as rounds.py says it."""

import os
import shutil
import socket

import rounds

ADDRESS = ("127.0.0.1", 18830)
AT = f"{ADDRESS[0]}:{ADDRESS[1]}"
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
    p = rounds.parser(__doc__, rounds=7, results="results.jsonl")
    p.add_argument("--servers", nargs="+", choices=SERVERS, default=SERVERS)
    p.add_argument("--runs", nargs="+", choices=list(RUNS), default=USUAL_RUNS)
    p.add_argument("--times", nargs=2, default=["1", "3"], metavar=("WARM_UP", "MEASURED"), help="seconds")
    p.add_argument("--minutes", type=float, help="begin no run after this time")
    p.add_argument("--mosquitto", default=shutil.which("mosquitto") or "/usr/sbin/mosquitto")
    p.add_argument("--rumqttd", default=shutil.which("rumqttd") or "rumqttd")
    return p.parse_args()


def server_command(name, options, folder):
    """What starts a server with its files in `folder`."""
    port = ADDRESS[1]
    if name == "mosquitto":
        config = folder / "mosquitto.conf"
        config.write_text(MOSQUITTO.format(port=port, user="root" if os.geteuid() == 0 else "mosquitto"))
        return [options.mosquitto, "-c", str(config)]
    if name == "rumqttd":
        config = folder / "rumqttd.toml"
        config.write_text(RUMQTTD.format(port=port))
        return [options.rumqttd, "-c", str(config)]
    if name == "forwarder":
        return [str(options.bin / "forwarder"), AT]
    config = folder / "tidegate.toml"
    config.write_text(TIDEGATE.format(port=port))
    return [options.tidegate, "--config", str(config), "--data", str(folder)]


def is_answered():
    """The port is open."""
    socket.create_connection(ADDRESS, timeout=1).close()
    return True


def one_run(server, run, options):
    return rounds.one_run(
        f"{server} {run}",
        lambda folder: server_command(server, options, folder),
        is_answered,
        lambda pid: [options.bin / "load", run, AT, pid, *options.times],
    )


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
    lines = rounds.head(servers)
    for run, *figure in ROWS:
        lines += rounds.row(results, servers, run, RUNS[run], figure)
    bad = [r for r in results if r.get("lost") or r.get("disordered")]
    for server in servers:
        those = [f"{r['run']}: {r['lost']} lost, {r['disordered']} out of order" for r in bad if r["server"] == server]
        if those:
            lines.append(f"\n{server}: {'; '.join(those)}.")
    return "\n".join(lines) + "\n"


def main():
    options = arguments()
    rounds.enter_namespace()
    if not options.only_table:
        rounds.make_runs(options, lambda _: options.servers, lambda *run: one_run(*run, options), minutes=options.minutes)
    rounds.show(options, table)


if __name__ == "__main__":
    main()
