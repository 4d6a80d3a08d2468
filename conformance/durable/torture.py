"""The store alone, of which `src/store/examples/torture.rs` makes the same history for the same seed, over the shim.

Calls fail, tear or kill it; then what is on the disk, and what power failures at many moments would have left there, must
be what a simple model had after one of the batches, and after none that is older than the last one it called durable.
`ROUNDS` says how many histories, `SEED` repeats them.
"""

import errno
import os
import pathlib
import random
import shutil
import subprocess
import tempfile
import unittest

import harness
from durable.kit import image, shim

ROUNDS = int(os.environ.get("ROUNDS", 24))
SEED = os.environ.get("SEED") or str(random.randrange(1 << 32))
IMAGES = 6
STEPS = 50


def program():
    """The example, built where the gateway was."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", harness.HOUSE / "target"))
    subprocess.run(["cargo", "build", "-q", "-p", "store", "--example", "torture", "--locked"], cwd=harness.HOUSE, check=True,
                   env=os.environ | {"CARGO_TARGET_DIR": str(target)})
    return target / "debug/examples/torture"


class Torture(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="tidegate-torture-")
        self.addCleanup(folder.cleanup)
        self.where = pathlib.Path(folder.name).resolve()
        # The machine's own disk is not what is tried.
        self.quiet = os.environ | shim.Shim(self.where, self.where).environment(log=False)
        self.program, self.images, self.figures = program(), 0, dict.fromkeys(("batches", "durable", "faults", "kills"), 0)

    def run_history(self, control, seed, largest):
        """Position of the log after each batch that was called durable."""
        process = subprocess.Popen([self.program, "run", control.folder, str(seed), str(STEPS), str(largest)], text=True,
                                   env=os.environ | control.environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        durable = []
        with harness.Alarm(process, 60) as alarm:
            for line in process.stdout:
                if line.startswith("cannot open"):
                    continue
                step, is_durable = map(int, line.split())
                self.figures["batches"] += 1
                if is_durable:
                    durable.append((step, control.position()))
            code = process.wait()
        process.stdout.close()
        self.assertFalse(alarm.rang, f"history {seed} does not end")
        self.assertIn(code, (0, 3, -9))
        self.figures["kills"] += code == -9
        self.figures["durable"] += len(durable)
        return durable

    def check(self, folder, seed, largest, least, what):
        """The store in this folder is at batch `least` or a later one."""
        done = subprocess.run([self.program, "check", folder, str(seed), str(STEPS), str(largest)], text=True,
                              env=self.quiet, capture_output=True, timeout=60)
        self.assertEqual(done.returncode, 0, f"{what}: {done.stdout}{done.stderr[-2000:]}")
        matches = [int(word) for word in done.stdout.split()]
        self.assertTrue(matches and max(matches) >= least,
                        f"{what}: it is as after {matches or 'no batch at all'}, {least} was durable\n{done.stderr[-2000:]}")

    def trouble(self, chance, control):
        """Something that goes wrong, or nothing; in words."""
        if chance.random() < 0.15:
            return "nothing fails"
        often = [{shim.WRITE}, {shim.SYNC}, shim.NO_SPACE, shim.EVERYTHING] * 3
        kinds = chance.choice([{kind} for kind in shim.EVERYTHING] + often)
        words = {
            "error": chance.choice((errno.EIO, errno.ENOSPC, errno.EROFS)),
            "first": chance.randrange(1, 60) * chance.choice((1, 1, 3)),
            "every": chance.choice((0, 1, 2, 7)),
            "limit": chance.choice((1, 2, 10, 0)),
            "action": chance.choice((shim.FAIL, shim.FAIL, shim.TEAR, shim.SHORT, shim.DIE, shim.TEAR_AND_DIE, shim.DIE_AFTER)),
        }
        control.fail(kinds, **words)
        return f"{sorted(kinds)} {words}"

    def play(self, number):
        """One history."""
        chance = random.Random(f"{SEED} {number}")
        folder = self.where / f"round-{number}"
        data = folder / "data"
        folder.mkdir()
        control = shim.Shim(data, folder)
        seed, largest = chance.randrange(1, 1 << 32), chance.choice((50, 50, 3000, 60_000))
        trouble = self.trouble(chance, control)
        durable = self.run_history(control, seed, largest)
        self.figures["faults"] += control.fired()
        what = f"SEED {SEED}, round {number}, history {seed}, largest {largest}, {trouble}"
        disk = image.Disk(data, folder / "nothing")
        if control.log.exists():
            records = image.Disk(data, folder / "nothing").replay(control.log)
            cuts = sorted(chance.choice(records)[0] for _ in range(IMAGES)) if records else []
            for cut in cuts:
                disk.replay(control.log, cut)
                lottery = chance.choice((None, chance.randrange(1 << 32)))
                disk.leave(folder / "left", lottery)
                least = max((step for step, position in durable if position <= cut), default=0)
                self.check(folder / "left", seed, largest, least, f"{what}; power fails at {cut}, lottery {lottery}")
                shutil.rmtree(folder / "left")
                self.images += 1
        self.check(data, seed, largest, durable[-1][0] if durable else 0, f"{what}; killed")
        shutil.rmtree(folder)

    def test_a_store_is_always_at_the_end_of_a_batch(self):
        for number in range(ROUNDS):
            self.play(number)
        print(f"  seed {SEED}: {ROUNDS} histories, {self.images} power failures, "
              + ", ".join(f"{count} {name}" for name, count in self.figures.items() if count), flush=True)
        self.assertGreater(self.figures["durable"], 10 * ROUNDS)
        self.assertGreater(self.figures["faults"], ROUNDS // 4)


if __name__ == "__main__":
    unittest.main()
