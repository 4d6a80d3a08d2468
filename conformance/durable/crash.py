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

from durable.kit.world import Gateway, World

KILLS = int(os.environ.get("KILLS", 50))
SEED = os.environ.get("SEED") or str(random.randrange(1 << 32))


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
            figures = world.ledger.figures
            for figure in ("acknowledged", "delivered", "QoS 1 again", "delayed", "expiring", "expired", "retained seen",
                           "short sessions kept", "short sessions gone", "wills due", "subscriptions changed"):
                self.assertGreater(figures[figure], 0, f"nothing was tried of: {figure}")


if __name__ == "__main__":
    unittest.main()
