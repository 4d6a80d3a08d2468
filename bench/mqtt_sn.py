#!/usr/bin/env python3
"""MQTT-SN over UDP, as rounds.py says it."""

import rounds

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
    p = rounds.parser(__doc__, rounds=5, results="mqtt_sn.jsonl")
    p.add_argument("--servers", nargs="+", choices=list(DURABILITY), default=["tidegate"])
    p.add_argument("--runs", nargs="+", choices=list(RUNS), default=USUAL_RUNS)
    p.add_argument("--times", nargs=2, default=["1", "3"], metavar=("WARM_UP", "MEASURED"), help="seconds")
    return p.parse_args()


def server_command(name, options, folder):
    """What starts a server with its files in `folder`."""
    config = folder / "tidegate.toml"
    config.write_text(TIDEGATE.format(at=AT, durability=DURABILITY[name]))
    return [options.tidegate, "--config", str(config), "--data", str(folder)]


def is_answered():
    """SEARCHGW is answered with GWINFO."""
    return rounds.datagram(ADDRESS, b"\x03\x01\x00")[1:2] == b"\x02"


def one_run(server, run, options):
    return rounds.one_run(
        f"{server} {run}",
        lambda folder: server_command(server, options, folder),
        is_answered,
        lambda pid: [options.bin / "mqtt_sn", run, AT, pid, *options.times],
        seconds=900,
    )


def table(results):
    servers = [s for s in DURABILITY if any(r["server"] == s for r in results)]
    lines = rounds.head(servers)
    for run, title in RUNS.items():
        for figure in FIGURES:
            lines += rounds.row(results, servers, run, title, figure)
    repeated = sum(r.get("repeated", 0) for r in results)
    missing = sum(r["wanted"] - r["messages"] for r in results if "wanted" in r)
    lines.append(f"\nSent again: {repeated}. Messages that sleepers did not get: {missing}.")
    return "\n".join(lines) + "\n"


def main():
    options = arguments()
    rounds.enter_namespace()
    if not options.only_table:
        rounds.make_runs(options, lambda _: options.servers, lambda *run: one_run(*run, options))
    rounds.show(options, table)


if __name__ == "__main__":
    main()
