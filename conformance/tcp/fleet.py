"""Two hundred terminals of JT/T 808 and two hundred trackers of Teltonika, written from the public descriptions, on
lines that are cut: nothing that was answered is lost, and nothing comes twice but what was sent twice, because its line
was cut before the answer. Commands reach their devices, and their outcomes who gave them. Smaller fleets of GB/T 32960,
GT06 and EMQX's protocol the same.

`SEED` repeats what chance decided, as far as time lets it; `DEVICES` and `RECORDS` make it larger.
"""

import asyncio
import os
import random
import time
import unittest

from tcp.kit import teltonika
from tcp.kit.emqx import Emqx
from tcp.kit.gateway import Gateway
from tcp.kit.gt06 import Gt06
from tcp.kit.ledger import Ledger
from tcp.kit.terminal import Terminal
from tcp.kit.tracker import Tracker
from tcp.kit.vehicle import Vehicle
from tcp.kit.watch import Watch

SEED = os.environ.get("SEED") or str(random.randrange(1 << 32))
DEVICES = int(os.environ.get("DEVICES", 200))
RECORDS = int(os.environ.get("RECORDS", 12))
LONGEST = 120


class Fleet:
    """Devices of a gateway, and who uses them."""

    def __init__(self, server, records):
        self.server, self.ledger, self.chance = server, Ledger(), random.Random(SEED)
        self.parameters, self.devices, self.records = {}, {}, records
        self.watch = Watch(server.port("tcp"), self.heard)

    def add(self, language, listener, name, **more):
        """One device."""
        chance = random.Random(f"{SEED} {name}")
        self.devices[name] = language(name, self.server.port(listener), self.ledger, chance, **more)
        self.ledger.has(name, self.records)

    def terminals(self, count):
        for i in range(count):
            self.add(Terminal, "jt808", f"1390000{i:04}", is_2019=i % 2 == 1)

    def trackers(self, count):
        codecs = (teltonika.CODEC_8, teltonika.CODEC_8E, teltonika.CODEC_16)
        for i in range(count):
            self.add(Tracker, "teltonika", teltonika.luhn(f"3520930864{i:04}"), codec=codecs[i % 3])

    def others(self, count):
        for i in range(count):
            self.add(Vehicle, "gbt32960", f"LTEST0000000{i:05}")
            self.add(Gt06, "gt06", teltonika.luhn(f"8647170032{i:04}"))
            self.add(Emqx, "emqx-tcp", f"client-{i}")

    def heard(self, name, kind, value, _message):
        """Something came at MQTT."""
        device = self.devices[name]
        if kind == device.kind:
            self.ledger.came[name, device.number_of(value)] += 1
        elif kind == "reply" and "id" in value:
            order = value["id"]
            if order in self.parameters:
                self.parameters[order].append(value)
            else:
                self.ledger.outcomes[order].append(value)
        elif kind not in (*device.asides, "reply"):
            self.ledger.fail(f"{name} is said to have said {kind}: {value}")

    async def give_orders(self):
        """Two commands for each device, at any time of its life; to terminals a question too."""
        for device in self.chance.sample(list(self.devices.values()), len(self.devices)) * 2:
            await device.known.wait()
            order = f"{device.name}-{len(self.ledger.ordered)}"
            if told := device.order(order):
                self.ledger.ordered[order] = device.name
                self.watch.tell(device.name, *told)
            if isinstance(device, Terminal) and self.chance.random() < 0.2:
                self.parameters[f"?{order}"] = []
                self.watch.tell(device.name, "query_params", {"id": f"?{order}"})
            await asyncio.sleep(0.01)

    async def live(self, kill_after=None):
        """Until all is said and done."""
        end = asyncio.Event()
        lives = [asyncio.create_task(device.live(end)) for device in self.devices.values()]
        orders = asyncio.create_task(self.give_orders())
        try:
            if kill_after:
                await asyncio.sleep(kill_after)
                await asyncio.to_thread(self.server.killed)
            await orders
            began = time.monotonic()
            while not self.is_over() and time.monotonic() < began + LONGEST:
                await asyncio.sleep(0.1)
                if broken := [life for life in lives if life.done()]:
                    broken[0].result()
            end.set()
            await asyncio.wait(lives, timeout=30)
            # What comes too often comes late.
            await asyncio.sleep(1)
        finally:
            for life in lives:
                life.cancel()
            await asyncio.gather(*lives, return_exceptions=True)
            self.watch.close()

    def is_over(self):
        return self.ledger.is_quiet() and all(self.parameters.values())


class Ledgers(unittest.TestCase):
    """That what is wrong is seen."""

    def test_what_is_lost_comes_twice_or_was_never_said_is_found(self):
        ledger = Ledger()
        ledger.has("d", 4)
        for number in (1, 2, 3):
            ledger.tried("d", [number])
            ledger.answered("d", [number])
        ledger.came.update({("d", 1): 1, ("d", 2): 2, ("d", 4): 1})
        ledger.ordered["o"] = "d"
        ledger.obeyed["o"] = 1
        ledger.outcomes["o"] = [{"ok": True}, {"ok": False}]
        self.assertFalse(ledger.is_quiet())
        found = ["d 3 is lost", "d 2 came 2 times and was sent 1 times", "d 4 was never sent, and came",
                 "the command o of d: {'ok': False}", "the command o of d has 2 outcomes and was heard 1 times"]
        self.assertEqual(ledger.audit(), found)
        # Sent again after a cut: it may come again.
        ledger.tried("d", [2])
        self.assertNotIn("d 2 came 2 times and was sent 1 times", ledger.audit())


class Fleets(unittest.TestCase):
    def play(self, fleet, kill_after=None):
        asyncio.run(fleet.live(kill_after))
        print(f"  seed {SEED}: {fleet.ledger.summary()}", flush=True)
        wrong = fleet.ledger.audit(may_repeat=1 if kill_after else 0)
        wrong += [f"the question {order} has no outcome" for order, told in fleet.parameters.items() if not told]
        wrong += [f"the question {order}: {value}" for order, told in fleet.parameters.items() for value in told
                  if not value["ok"] or not value.get("data")]
        if wrong:
            self.fail("\n".join([f"{len(wrong)} with the seed {SEED}", *wrong[:50]]))

    def test_nothing_is_lost_and_nothing_comes_twice_without_a_reason(self):
        with Gateway() as server:
            fleet = Fleet(server, RECORDS)
            fleet.terminals(DEVICES)
            fleet.trackers(DEVICES)
            self.play(fleet)
            for figure in ("cuts", "parameters asked for"):
                self.assertGreater(fleet.ledger.figures[figure], 0, f"nothing was tried of: {figure}")
            self.assertEqual(fleet.ledger.figures["ends from elsewhere"], 0, "the gateway has closed lines")

    def test_vehicles_gt06_trackers_and_clients_of_emqx_lose_nothing_either(self):
        with Gateway(("gbt32960", "gt06", "emqx-tcp")) as server:
            fleet = Fleet(server, RECORDS)
            fleet.others(max(DEVICES // 10, 1))
            self.play(fleet)
            self.assertEqual(fleet.ledger.figures["ends from elsewhere"], 0, "the gateway has closed lines")

    def test_nothing_that_was_answered_is_lost_when_the_gateway_is_killed(self):
        with Gateway() as server:
            fleet = Fleet(server, RECORDS)
            fleet.terminals(max(DEVICES // 5, 1))
            fleet.trackers(max(DEVICES // 5, 1))
            self.play(fleet, kill_after=3)
            self.assertGreater(fleet.ledger.figures["ends from elsewhere"], 0, "nobody was there when it was killed")


if __name__ == "__main__":
    unittest.main()
