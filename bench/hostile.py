"""How late messages are while a hostile script runs: `hostile.py [--seconds 10] [--binary FILE]`.

For each script of conformance/tcp/hostile.py a server of its own, with a device of a good script and one of a codec in
Rust that say the time a hundred times a second each, a subscriber that looks at its clock, and a device of the hostile
script that sends thirty frames a second. The first row is without it. Prints a table for RESULTS.md.
"""

import argparse
import os
import pathlib
import sys
import time

HOUSE = pathlib.Path(__file__).resolve().parent.parent
# In place of this folder, which has modules of the same names.
sys.path[0] = str(HOUSE / "conformance")


def measure(hostile, name, seconds):
    """Sorted times of the good devices, and how the hostile calls ended."""
    from tcp.kit.place import Device

    place = hostile.Hostile
    place.setUpClass()
    try:
        watch = hostile.Watch(place.server, ["good", "rust"])
        device = Device(place.server.port(name)) if name else None
        if device:
            device.say("evil\n")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if device:
                device.say("aaaa\n" * 3)
            time.sleep(0.1)
        late = watch.stop()
        calls = {}
        for reason in ("program", "limit", "suspended") if name else ():
            count = place.server.metric("tidegate_script_failures_total", codec=f"evil-{name}", reason=reason)
            if count:
                calls[reason] = int(count)
        kills = int(place.server.metric("tidegate_script_worker_kills_total"))
        return late, calls, kills
    finally:
        place.tearDownClass()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--binary")
    words = parser.parse_args()
    if words.binary:
        os.environ["TIDEGATE_BIN"] = words.binary
    from tcp import hostile

    every = dict(hostile.HOSTILE)
    print("| script | Rust codec, p50 / p99 / longest, ms | good script, p50 / p99 / longest, ms | its calls ended by | kills |")
    print("|---|---|---|---|---|")
    for name in [None, *every]:
        hostile.HOSTILE = {name: every[name]} if name else {}
        late, calls, kills = measure(hostile, name, words.seconds)

        def row(times):
            return " / ".join(f"{t * 1e3:.1f}" for t in (times[len(times) // 2], hostile.p99(times), times[-1]))

        ends = ", ".join(f"{reason} {n}" for reason, n in calls.items())
        print(f"| {name or 'none'} | {row(late['rust'])} | {row(late['good'])} | {ends} | {kills} |", flush=True)


if __name__ == "__main__":
    main()
