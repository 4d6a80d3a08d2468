"""Clients of all kinds with durable sessions while the gateway is killed, again and again, at any moment.

What was acknowledged comes, in order, of QoS 2 once; retained and delayed messages, wills and the sessions themselves
are what they were. `KILLS` says how often it is killed, `SEED` repeats what chance decided (as far as time lets it).
"""

import asyncio
import os
import pathlib
import random
import shutil
import tempfile
import unittest

from durable.kit import image, shim
from durable.kit.world import Gateway, World

KILLS = int(os.environ.get("KILLS", 50))
SEED = os.environ.get("SEED") or str(random.randrange(1 << 32))


class Outage:
    """Puts what a power failure leaves in the place of the data folder of a server that was killed."""

    def __init__(self, server):
        self.server, self.before = server, server.folder / "before"
        self.chance = random.Random(SEED)

    def __call__(self, data):
        disk = image.Disk(data, self.before)
        disk.replay(self.server.shim.log)
        shutil.rmtree(data, ignore_errors=True)
        # Everything that was not synced is gone, or some of it.
        disk.leave(data, self.chance.choice((None, self.chance.randrange(1 << 32))))
        shutil.rmtree(self.before, ignore_errors=True)
        shutil.copytree(data, self.before)
        self.server.shim.renew()


class Crash(unittest.TestCase):
    def play(self, server, world, kills):
        """Lets the world live; on failures the folder of the server is kept."""
        print(f"  seed {world.seed}, {kills} kills", flush=True)
        asyncio.run(world.live(kills))
        print("  " + world.summary(), flush=True)
        if world.failures:
            kept = pathlib.Path(tempfile.mkdtemp(prefix="tidegate-crash-")) / "server"
            shutil.copytree(server.folder, kept, ignore=shutil.ignore_patterns("*.sock"))
            self.fail("\n".join([f"seed {world.seed}; the server's folder is kept in {kept}", *world.failures]))

    def look(self, server):
        """Nothing waits, nothing is damaged or left over; the running gateway and the one that does not run agree."""
        stats, tables = server.items("store", "stats"), server.items("store", "check")
        self.assertEqual([(row["messages"], row["state"]) for row in stats], [(0, "ok")])
        server.crash()
        at_rest = server.items("store", "check")
        for name, found in (("running", tables), ("at rest", at_rest)):
            print(f"  {name}: " + ", ".join(f"{row['records']} {row['table']}" for row in found))
            self.assertEqual([row for row in found if row["damaged"] or row["left_over"]], [], name)
        self.assertEqual(server.items("store", "stats")[0]["messages"], 0)
        server.spawn()
        server.ready()

    def test_what_was_acknowledged_survives_kill_9(self):
        with Gateway() as server:
            world = World(server, SEED)
            self.play(server, world, KILLS)
            self.look(server)
            for figure in ("acknowledged", "delivered", "QoS 1 again", "delayed", "expiring", "expired", "retained seen",
                           "short sessions kept", "short sessions gone", "wills due", "subscriptions changed"):
                self.assertGreater(world.ledger.figures[figure], 0, f"nothing was tried of: {figure}")

    def test_it_survives_when_every_kill_is_a_power_failure(self):
        with shim.Server() as server:
            world = World(server, SEED, image=Outage(server))
            self.play(server, world, KILLS // 3)
            self.look(server)


if __name__ == "__main__":
    unittest.main()
