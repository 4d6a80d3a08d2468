#!/usr/bin/env python3
"""CoAP servers side by side, as rounds.py says it.

libcoap's `coap-server-notls` keeps the last value of each path and tells observers; it remembers no message ids and
knows no access rules. `echo` sends each datagram back, `echo-16` up to 16 with one call: no server over UDP can be
cheaper.
"""

import shutil

import rounds

ADDRESS = ("127.0.0.1", 18840)
AT = f"{ADDRESS[0]}:{ADDRESS[1]}"
# libcoap's servers take the port after that of UDP for DTLS.
DTLS_AT = f"{ADDRESS[0]}:{ADDRESS[1] + 1}"
SERVERS = ["libcoap", "echo", "echo-16", "tidegate", "tidegate-sync"]
PLAIN = SERVERS[:4]
DEVICES = 106_000
# name: (title, servers)
RUNS = {
    "con-put": ("CON PUT", PLAIN),
    "con-put-observed": ("CON PUT, each topic observed (NON)", ["libcoap", "tidegate"]),
    "con-put-mqtt": ("CON PUT to an MQTT subscriber", ["tidegate"]),
    "non-put": ("NON PUT", PLAIN),
    "con-get": ("CON GET of a kept value", ["libcoap", "tidegate"]),
    "dtls-con-put": ("CON PUT over DTLS, PSK, AES-128-CCM-8", ["libcoap", "tidegate", "tidegate-sync"]),
    "dtls-handshakes": ("DTLS handshakes, PSK, AES-128-CCM-8", ["libcoap", "tidegate", "tidegate-sync"]),
}
# Not among the usual ones: resident bytes of associations.
MEMORY_RUNS = {
    f"dtls-{what}-{count}": (f"{count:,} associations, {title}", servers)
    for what, title, servers in [
        ("layer-active", "the DTLS layer alone", ["tidegate"]),
        ("layer-parked", "the DTLS layer alone, parked", ["tidegate"]),
        ("active", "with session", ["libcoap", "tidegate"]),
        ("parked", "with session, parked", ["tidegate"]),
    ]
    for count in (1_000, 10_000, 100_000)
}

# Message ids are remembered for 247 s. The usual bounds stand for 2,000 requests a second; here come 100,000.
TIDEGATE = """\
[node]
sys_interval = "0 s"
[log]
level = "error"
[http]
bind = "off"
[admin]
socket = "off"
[auth]
psk = "psk"
[store]
durability = "{durability}"
[mqtt.listeners.tcp]
bind = "{at}"
anonymous = "always"
[mqtt.listeners.ws]
enabled = false
[coap]
max_exchanges = 65536
max_exchanges_total = 20000000
idle_timeout = "{idle}"
[coap.listeners.udp]
bind = "{at}"
anonymous = "always"
"""
DTLS = """\
[coap.listeners.dtls]
bind = "{at}"
[coap.listeners.dtls.dtls]
psk = true
park_after = "{park_after}"
"""


def arguments():
    p = rounds.parser(__doc__, rounds=7, results="coap.jsonl")
    p.add_argument("--servers", nargs="+", choices=SERVERS, default=SERVERS)
    p.add_argument("--runs", nargs="+", choices=[*RUNS, *MEMORY_RUNS], default=list(RUNS))
    p.add_argument("--times", nargs=2, default=["1", "3"], metavar=("WARM_UP", "MEASURED"), help="seconds")
    p.add_argument("--libcoap", default=shutil.which("coap-server-notls") or "coap-server-notls")
    p.add_argument("--libcoap-dtls", default=shutil.which("coap-server-openssl") or "coap-server-openssl")
    return p.parse_args()


def server_command(name, run, options, folder):
    """What starts a server with its files in `folder`."""
    is_dtls = run.startswith("dtls-")
    if name == "libcoap":
        command = [options.libcoap_dtls if is_dtls else options.libcoap]
        command += ["-A", ADDRESS[0], "-p", str(ADDRESS[1]), "-d", "1000", "-v", "0"]
        if is_dtls:
            # It looks through the file from its beginning for every handshake.
            (folder / "psk").write_text("".join(f"h,dev{i},{i:016}\n" for i in range(10_100)))
            command += ["-k", "unused", "-h", "h", "-i", "psk"]
        return command
    if name.startswith("echo"):
        return [str(options.bin / "echo"), AT, *name.split("-")[1:]]
    is_parked = run.startswith("dtls-parked")
    durability, idle = "sync" if name.endswith("-sync") else "memory", "1 s" if is_parked else "5 min"
    text = TIDEGATE.format(at=AT, durability=durability, idle=idle)
    if is_dtls:
        text += DTLS.format(at=DTLS_AT, park_after="1 s" if is_parked else "1 h")
        devices = ((f"dev{i}", f"{i:016}".encode().hex()) for i in range(DEVICES))
        (folder / "psk").write_text("".join(f"{name} {name} - {key}\n" for name, key in devices))
        (folder / "psk").chmod(0o600)
    config = folder / "tidegate.toml"
    config.write_text(text)
    return [options.tidegate, "--config", str(config), "--data", str(folder)]


def is_answered():
    """A ping (empty CON) is answered by RST, by an echo with itself."""
    return rounds.datagram(ADDRESS, b"\x40\x00\x12\x34")[2:4] == b"\x12\x34"


def one_run(server, run, options):
    at = DTLS_AT if run.startswith("dtls-") else AT
    return rounds.one_run(
        f"{server} {run}",
        lambda folder: server_command(server, run, options, folder),
        is_answered,
        lambda pid: [options.bin / "coap", run, at, pid, *options.times],
    )


def servers_of(run, options):
    return [s for s in options.servers if s in (RUNS | MEMORY_RUNS)[run][1]]


FIGURES = [
    ("cpu_s_per_million", "CPU s per million", 2),
    ("per_second", "requests/s", 0),
    ("notified_each", "deliveries a request", 2),
    ("bytes_each", "bytes each", 0),
]


def table(results):
    servers = [s for s in SERVERS if any(r["server"] == s for r in results)]
    for r in results:
        if r.get("notified"):
            r["notified_each"] = r["notified"] / r["answered"]
    lines = rounds.head(servers)
    for figure in FIGURES:
        for run, (title, _) in (RUNS | MEMORY_RUNS).items():
            lines += rounds.row(results, servers, run, title, figure)
    for server in servers:
        of = [r for r in results if r["server"] == server]
        refused, repeated = (sum(r.get(field, 0) for r in of) for field in ("refused", "repeated"))
        if refused or repeated:
            lines.append(f"\n{server}: {refused} requests refused, {repeated} sent again.")
    return "\n".join(lines) + "\n"


def main():
    options = arguments()
    rounds.enter_namespace()
    if not options.only_table:
        rounds.make_runs(options, lambda run: servers_of(run, options), lambda *run: one_run(*run, options))
    rounds.show(options, table)


if __name__ == "__main__":
    main()
