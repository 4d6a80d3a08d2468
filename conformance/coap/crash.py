"""The gateway is killed a hundred times under devices with DTLS associations, awake and asleep. No record number is ever used
twice with the same key, and no device has to shake hands again. `KILLS=500` for more, `SEED=…` for the same again."""

import os
import random
import signal
import threading
import time
import unittest

import harness
from coap.kit import dtls
from coap.kit.backend import Backend, Life, credential, secure_gateway
from coap.kit.links import Hopping, Moving, Udp
from coap.kit.wire import Peer

KILLS = int(os.environ.get("KILLS", "100"))
SEED = os.environ.get("SEED") or str(random.randrange(10**6))
# Names of devices, and whether they sleep for longer than an association stays in memory.
DEVICES = {"awake-1": False, "awake-2": False, "awake-3": False, "sleeper-1": True, "sleeper-2": True, "sleeper-3": True}


class Device(threading.Thread):
    """Reports, and takes what it is told, until it is asked to end."""

    def __init__(self, server, backend, name, secret, is_sleeper):
        super().__init__(name=name)
        # One has its own port, one another one after each sleep, one another one at each datagram.
        self.link = (Udp, Moving, Hopping)[int(name[-1]) - 1](server.port("dtls"))
        self.link.stays = True
        self.client = dtls.Client(self.link, *secret, own_id=name.encode()).connect()
        self.link.stays = False
        self.life = Life(Peer(self.client), backend, name, is_killed=True)
        self.is_sleeper, self.random = is_sleeper, random.Random(f"{SEED} {name}")
        self.ends, self.failure = threading.Event(), None
        self.life.observe()
        self.life.report()

    def run(self):
        try:
            while not self.ends.is_set():
                self._turn()
        except BaseException as failure:
            self.failure = failure

    def _turn(self):
        if self.is_sleeper and self.random.random() < 0.7:
            # The gateway parks it meanwhile.
            self.ends.wait(self.random.uniform(1.5, 3))
        if hasattr(self.link, "move"):
            self.link.move()
        self.life.report()
        end = time.monotonic() + self.random.uniform(0, 0.2)
        while time.monotonic() < end:
            self.life.hear()

    def check(self):
        """All orders come, and what was never true is not."""
        self.ends.set()
        self.join(60)
        if self.failure:
            raise self.failure
        self.life.report()
        self.life.takes(60)
        self.life.check()
        assert self.client.handshakes == 1, "a handshake is not needed again"
        assert not self.client.repeated(), f"record numbers used twice: {self.client.repeated()[:5]}"


class Crash(unittest.TestCase):
    def test_devices_go_on_through_kills_and_no_record_number_is_used_twice(self):
        print(f"seed {SEED}")
        chance = random.Random(SEED)
        server = secure_gateway()
        self.addCleanup(server.kill)
        secrets = {name: credential(server, name) for name in DEVICES}
        server.__enter__()
        backend = Backend(server)
        self.addCleanup(backend.__exit__)
        devices = [Device(server, backend, name, secrets[name], is_sleeper) for name, is_sleeper in DEVICES.items()]
        for device in devices:
            self.addCleanup(device.link.close)
            self.addCleanup(device.ends.set)
        harness.until(lambda: server.metric("tidegate_dtls_associations", state="parked") == len(devices), "all sleep")
        for device in devices:
            device.start()
        killed = {"active": 0, "parked": 0}
        for _ in range(KILLS):
            for device in chance.sample(devices, 3):
                device.life.orders += 1
                backend.tell(f"down/{device.name}", b"%d" % device.life.orders)
            time.sleep(chance.choice((0.0, 0.05, 0.3, chance.uniform(0, 1.5))))
            for state in killed:
                killed[state] += int(server.metric("tidegate_dtls_associations", state=state))
            server.crash()
            server.spawn()
            if chance.random() < 0.1:
                time.sleep(chance.uniform(0.005, 0.3))
                server.crash()
                server.spawn()
            server.ready()
            for device in devices:
                if device.failure:
                    raise device.failure
        for device in devices:
            device.check()
        records = sum(len(device.client.seen) for device in devices)
        reports = sum(device.life.reports for device in devices)
        print(f"{KILLS} kills of {killed} associations, {reports} reports, {records} records of the gateway, none of them twice")
        self.assertTrue(all(killed.values()), killed)
        self.assertEqual([d.name for d in devices if d.life.reports <= KILLS // 10], [])
        server.process.send_signal(signal.SIGTERM)
        self.assertEqual(server.process.wait(30), 0, server.said()[-3000:])
        self.assertNotIn("panicked", server.said())


if __name__ == "__main__":
    unittest.main()
