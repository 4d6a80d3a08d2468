"""The power fails, at any moment of what the gateway does to its disk.

The gateway runs for a while over the shim, whose log says what was written and synced when. Of many positions in it the
disk is made as a power failure would have left it, everything that was not synced gone, or a part of it by lot; a gateway
is started there, and clients that have lost power at the same moment go on. `IMAGES` says how many, `SEED` repeats them.
"""

import errno
import os
import random
import shutil
import subprocess
import unittest

from durable.kit import image, shim
from durable.kit.past import Company

IMAGES = int(os.environ.get("IMAGES", 24))
SEED = os.environ.get("SEED") or str(random.randrange(1 << 32))
LIVES = 3


class Life:
    """From a start of the gateway on a disk to its end."""

    def __init__(self, server, company):
        self.server, self.company = server, company
        self.before = server.folder / "before"
        shutil.rmtree(self.before, ignore_errors=True)
        if server.data.exists():
            subprocess.run(["cp", "-a", server.data, self.before], check=True)
        server.shim.renew()
        company.begin()
        server.start()

    def end(self, messages, failures=0):
        """Traffic until so many more messages are acknowledged, then everything stops at once. Some syncs fail meanwhile."""
        self.company.subscribe()
        self.company.come(*Company.PUBLISHERS, "there-1", "there-2")
        for number in range(failures + 1):
            enough = sum(self.company.acknowledged().values()) + messages // (failures + 1)
            self.company.wait(lambda: sum(self.company.acknowledged().values()) >= enough, "traffic", 60)
            if number < failures:
                self.server.shim.fail({shim.SYNC}, errno.EIO, first=1 + 3 * number, every=0)
        self.server.crash()
        self.company.go()

    def disk(self):
        """As it was when the gateway started."""
        return image.Disk(self.server.data, self.before)


class Power(unittest.TestCase):
    def setUp(self):
        self.chance = random.Random(SEED)
        print(f"  seed {SEED}, {IMAGES} images", flush=True)
        self.images = 0

    def cuts(self, life, count):
        """Positions of the log, in order: one half anywhere, the other next to what happens seldom, such as a rename."""
        records = life.disk().replay(life.server.shim.log)
        rare = [i for i, (_, kind) in enumerate(records) if kind not in (shim.WRITE, shim.SYNC)]
        chosen = [self.chance.randrange(len(records)) for _ in range(count // 2)]
        chosen += [self.chance.choice(rare) + self.chance.choice((-1, 0, 0, 1)) for _ in range(count - len(chosen))]
        return sorted(records[max(0, min(at, len(records) - 1))][0] for at in chosen)

    def try_image(self, disk, company, after, seed, is_refusing):
        """A gateway on what is left of the disk now; what is wrong with it."""
        shutil.rmtree(after.data, ignore_errors=True)
        disk.leave(after.data, seed)
        self.images += 1
        company = company.at(after, disk.position)
        try:
            after.start()
            wrong = company.finish(is_refusing)
        except AssertionError as error:
            wrong = [str(error)]
        after.crash()
        return wrong

    def live(self, server, after, messages, images, failures=0, **words):
        """Lives of the gateway, each on what a power failure has left of the one before."""
        company, seen = Company(server, **words), 0
        for number in range(LIVES):
            before = sum(company.acknowledged().values())
            life = Life(server, company)
            life.end(messages, failures)
            disk, cuts = life.disk(), self.cuts(life, images // LIVES)
            for cut in cuts:
                disk.replay(server.shim.log, cut)
                seed = self.chance.choice((None, self.chance.randrange(1 << 32), self.chance.randrange(1 << 32)))
                wrong = self.try_image(disk, company, after, seed, failures > 0)
                if wrong:
                    kept = self.keep(life, cut, seed)
                    self.fail("\n".join([f"life {number}, log up to {cut} of {cuts[-1]}, lottery {seed}; kept in {kept}",
                                         *wrong, after.said()[-3000:]]))
            seen += sum(company.acknowledged().values()) - before
            shutil.rmtree(server.data)
            disk.leave(server.data, self.chance.randrange(1 << 32))
            company = company.at(server, disk.position)
        print(f"  {self.images} images, {seen} messages acknowledged, "
              + ", ".join(f"{count} {name}" for name, count in server.shim.counts().items() if count), flush=True)

    def keep(self, life, cut, seed):
        """What is needed to make the image again."""
        folder = life.server.folder.parent / f"tidegate-power-{SEED}-{cut}-{seed}"
        subprocess.run(["cp", "-a", life.server.folder, folder], check=True)
        return folder

    def servers(self):
        """The one whose power fails, and the one that finds what it has left."""
        servers = shim.Server(), shim.Server(log=False)
        for server in servers:
            self.addCleanup(server.kill)
        return servers

    def test_what_was_acknowledged_survives_a_power_failure(self):
        server, after = self.servers()
        self.live(server, after, 3000, IMAGES)

    def test_so_it_does_when_syncs_had_failed_before(self):
        server, after = self.servers()
        self.live(server, after, 3000, IMAGES // 2, failures=3)

    def test_so_it_does_while_journals_and_tables_come_and_go(self):
        server, after = self.servers()
        self.live(server, after, 1300, IMAGES // 2, size=60_000, window=20)
        self.assertGreater(server.shim.counts()["unlink"], 10)


if __name__ == "__main__":
    unittest.main()
