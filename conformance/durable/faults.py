"""The disk says no: full, broken, read-only, at every kind of call, below the gateway's engine.

What is acknowledged is on the disk, whatever the disk says; who cannot be served is told so, the others are; and when the
disk is well again so is the gateway, without help. The first cases try the shim itself.
"""

import concurrent.futures
import dataclasses
import errno
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

import harness
import packets
from durable.kit import image, shim
from durable.kit.past import Company

PROGRAM = """
import errno, os, sys
def put(name, data, at=0, sync=False, flags=os.O_CREAT | os.O_WRONLY):
    fd = os.open(name, flags)
    os.lseek(fd, at, 0)
    assert os.write(fd, data) == len(data)
    if sync: os.fsync(fd)
    os.close(fd)
def dirsync(name="."):
    fd = os.open(name, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
def error(call, *words):
    try: call(*words)
    except OSError as e: return errno.errorcode[e.errno]
os.chdir(sys.argv[1])
"""


class TheShim(unittest.TestCase):
    """Small programs under it."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.where = pathlib.Path(folder.name).resolve()
        self.data = self.where / "data"
        self.data.mkdir()
        self.shim = shim.Shim(self.data, self.where)

    def run_program(self, text):
        """Its output; the exit status is kept."""
        done = subprocess.run([sys.executable, "-c", PROGRAM + text, self.data], env=os.environ | self.shim.environment(),
                              capture_output=True, text=True, timeout=30)
        self.status = done.returncode
        return done.stdout + done.stderr

    def left(self, text, seed=None):
        """The names and contents that a power failure after this program leaves."""
        disk = image.Disk(self.data)
        self.assertEqual((self.run_program(text), self.status), ("", 0))
        disk.replay(self.shim.log)
        self.assertEqual(disk.differences(), [])
        to = self.where / f"image-{seed}"
        disk.leave(to, seed)
        return {str(path.relative_to(to)): path.read_bytes() for path in to.rglob("*") if path.is_file()}

    def test_only_what_was_synced_is_left(self):
        self.assertEqual(self.left("""
put("nothing", b"1")
put("content alone", b"1", sync=True)
dirsync()
put("later", b"1", sync=True)
put("changed", b"1111", sync=True)
put("name alone", b"1")
put("cut", b"123456", sync=True)
dirsync()
put("changed", b"2", at=2)
put("cut", b"", flags=os.O_WRONLY | os.O_TRUNC)
put("grown", b"1", sync=True)
"""), {"nothing": b"", "content alone": b"1", "later": b"1", "changed": b"1111", "name alone": b"", "cut": b"123456"})

    def test_a_rename_is_there_when_its_folder_was_synced(self):
        text = """
put("old", b"1", sync=True)
os.mkdir("folder")
put("folder/inside", b"2", sync=True)
dirsync("folder")
dirsync()
os.rename("old", "new")
os.rename("folder", "elsewhere")
put("elsewhere/second", b"3", sync=True)
"""
        self.assertEqual(self.left(text), {"old": b"1", "folder/inside": b"2"})
        subprocess.run(["rm", "-r", self.data / "elsewhere", self.data / "new"], check=True)
        self.shim.renew()
        self.where = self.where / "again"
        self.where.mkdir()
        self.assertEqual(self.left(text + "dirsync()\nos.unlink('new')"), {"new": b"1", "elsewhere/inside": b"2"})

    def test_what_a_failed_sync_should_have_written_is_lost(self):
        self.shim.fail({shim.SYNC}, first=2, every=0)
        self.assertEqual(self.left("""
put("file", b"1111", sync=True)
dirsync()
fd = os.open("file", os.O_WRONLY)
os.write(fd, b"2")
assert error(os.fsync, fd) == "EIO"
os.fsync(fd)
os.lseek(fd, 2, 0)
os.write(fd, b"3")
os.fdatasync(fd)
"""), {"file": b"1131"})

    def test_the_lottery_leaves_some_of_what_was_not_synced(self):
        text = """
put("file", b"1" * 16384, sync=True)
dirsync()
put("file", b"2" * 16384)
put("a", b""); put("b", b""); put("c", b"")
"""
        found = set()
        for seed in range(30):
            left = self.left(text, seed)
            for path in self.data.iterdir():
                path.unlink()
            self.shim.renew()
            found.add(tuple(sorted(left)))
            pages = {left["file"][at:at + 512] for at in range(0, 16384, 512)}
            self.assertLessEqual(pages, {b"1" * 512, b"2" * 512})
        self.assertEqual(found, {("file",), ("a", "file"), ("a", "b", "file"), ("a", "b", "c", "file")})

    def test_each_kind_of_call_fails_as_it_is_told(self):
        self.shim.fail(shim.EVERYTHING, errno.EROFS)
        told = self.run_program("""
print(error(os.open, "x", os.O_CREAT | os.O_WRONLY), error(os.mkdir, "x"), error(os.rename, "a", "b"),
      error(os.unlink, "a"), error(os.rmdir, "a"), error(os.link, "a", "b"), error(os.replace, "a", "b"))
""")
        self.assertEqual(told.split(), ["EROFS"] * 7, told)
        self.assertEqual(self.shim.fired(), 7)
        counts = self.shim.counts()
        self.assertEqual([counts[name] for name in ("open", "mkdir", "rename", "unlink", "link", "write")], [1, 1, 2, 2, 1, 0])
        (self.data / "file").write_bytes(b"123456")
        self.shim.fail({shim.WRITE, shim.SYNC, shim.TRUNCATE, shim.DIRSYNC}, errno.ENOSPC)
        told = self.run_program("""
fd = os.open("file", os.O_RDWR)
print(error(os.write, fd, b"12"), error(os.pwrite, fd, b"12", 0), error(os.writev, fd, [b"1", b"2"]), error(os.fsync, fd),
      error(os.fdatasync, fd), error(os.ftruncate, fd, 1), error(dirsync))
""")
        self.assertEqual(told.split(), ["ENOSPC"] * 7, told)
        self.assertEqual((self.data / "file").read_bytes(), b"123456")

    def test_faults_come_when_they_are_told_to(self):
        (self.data / "file").write_bytes(b"")
        text = """
fd = os.open("file", os.O_RDWR)
print(*(error(os.pwrite, fd, b"1", 0) for _ in range(8)))
"""
        for words, expected in (({"first": 3}, "11EEEEEE"), ({"first": 3, "every": 0}, "11E11111"),
                                ({"first": 2, "every": 3}, "1E11E11E"), ({"first": 2, "every": 3, "limit": 2}, "1E11E111"),
                                ({"match": "fil"}, "EEEEEEEE"), ({"match": "other"}, "11111111")):
            self.shim.fail({shim.WRITE}, **words)
            told = self.run_program(text).split()
            self.assertEqual("".join("1" if word == "None" else "E" for word in told), expected, words)

    def test_writes_tear_and_the_process_dies(self):
        for action, status, text in ((shim.TEAR, 0, b"123"), (shim.SHORT, 0, b"123"), (shim.TEAR_AND_DIE, -9, b"123"),
                                     (shim.DIE, -9, b""), (shim.DIE_AFTER, -9, b"123456")):
            file = self.data / "file"
            file.write_bytes(b"")
            self.shim.fail({shim.WRITE}, errno.EIO, action=action)
            self.run_program('fd = os.open("file", os.O_RDWR)\ntry: os.write(fd, b"123456")\nexcept OSError: pass')
            self.assertEqual((self.status, file.read_bytes()), (status, text), action)

    def test_the_log_has_everything(self):
        for seed in range(5):
            self.left(f"""
import random, shutil
chance = random.Random({seed})
names = ["a", "b", "d/a", "d/b", "e/a"]
for _ in range(400):
    name, other = chance.choice(names), chance.choice(names)
    for folder in ("d", "e"):
        if not os.path.exists(folder): os.mkdir(folder)
    what = chance.randrange(7)
    if what < 3: put(name, bytes([chance.randrange(256)]) * chance.randrange(9000), chance.randrange(9000), chance.random() < 0.5)
    elif what == 3: error(os.rename, name, other)
    elif what == 4: error(os.unlink, name)
    elif what == 5: dirsync(chance.choice([".", "d", "e"]))
    elif chance.random() < 0.3: shutil.rmtree("d")
    else: shutil.copyfile(__import__("sys").executable, name) if chance.random() < 0.05 else error(os.link, name, other)
""", None)
            subprocess.run(f"rm -r {self.data}/* {self.where}/image-*", shell=True, check=True)
            self.shim.renew()


@dataclasses.dataclass
class Trouble:
    """Calls that fail, and whether the store can go on all the same."""

    name: str
    kinds: frozenset
    error: int
    words: dict
    lasts: bool = True

    def __str__(self):
        return f"{self.name} {self.words}"


def troubles():
    """Each at several calls."""
    found = []
    for first in (1, 2, 5, 11):
        found += [
            Trouble("disk full", shim.NO_SPACE, errno.ENOSPC, {"first": first}),
            Trouble("write error", frozenset({shim.WRITE}), errno.EIO, {"first": first}),
            Trouble("sync error", frozenset({shim.SYNC}), errno.EIO, {"first": first}),
            Trouble("read-only", shim.READ_ONLY, errno.EROFS, {"first": first}),
            Trouble("torn writes", frozenset({shim.WRITE}), errno.ENOSPC, {"first": first, "action": shim.TEAR}),
            Trouble("one sync error", frozenset({shim.SYNC}), errno.EIO, {"first": first, "every": 0}, False),
            Trouble("one torn write", frozenset({shim.WRITE}), errno.EIO, {"first": first, "every": 0, "action": shim.TEAR},
                    False),
            Trouble("one error at anything", shim.EVERYTHING, errno.EIO, {"first": first, "every": 0}, False),
            Trouble("errors at anything", shim.EVERYTHING, errno.EIO, {"first": first, "every": 3, "limit": 8}, False),
            Trouble("short writes", frozenset({shim.WRITE}), 0, {"first": first, "every": 2, "action": shim.SHORT}, False),
            Trouble("killed in a write", frozenset({shim.WRITE}), 0, {"first": first, "action": shim.TEAR_AND_DIE}, False),
            Trouble("killed at a sync", frozenset({shim.SYNC}), 0, {"first": first, "action": shim.DIE}, False),
        ]
    return found


class House:
    """One gateway and its company, who go through troubles one after the other."""

    def __init__(self, seed):
        self.server, self.chance = shim.Server(log=False), random.Random(seed)
        acl = self.server.folder / "etc/acl.conf"
        acl.write_text("allow everyone subscribe $SYS/#\n" + acl.read_text())
        self.company = Company(self.server, pace=0.01)
        self.names = (*Company.PUBLISHERS, "there-1", "there-2")
        self.figures = {"troubles": 0, "kills": 0, "refused": 0, "connections of 3.1.1": 0}

    def __enter__(self):
        self.server.start()
        self.company.subscribe()
        self.company.come(*self.names)
        self.flows("at first")
        return self

    def __exit__(self, *_):
        for client in self.company.clients.values():
            client.stopping = True
        self.server.kill()

    def flows(self, what, seconds=10.0):
        """Waits until some more messages of each publisher are acknowledged."""
        enough = {name: count + 3 for name, count in self.company.acknowledged().items()}
        self.company.wait(lambda: all(self.company.acknowledged()[name] >= count for name, count in enough.items()),
                          lambda: f"{what}: messages are acknowledged, {self.company.acknowledged()} for {enough}\n"
                                  f"{self.server.said()[-2000:]}", seconds)

    def go_through(self, trouble):
        """One trouble, from the first failing call to the first acknowledgement after it."""
        self.figures["troubles"] += 1
        control = self.server.shim
        control.fail(trouble.kinds, trouble.error, **trouble.words)
        is_killing = trouble.words.get("action") in (shim.DIE, shim.TEAR_AND_DIE)
        if is_killing:
            self.server.process.wait(10)
        else:
            self.company.wait(control.fired, f"{trouble}: a call fails")
        if trouble.lasts:
            self.look_at(trouble)
        if is_killing or self.chance.random() < 0.3:
            # What was acknowledged before and during it is on the disk.
            self.figures["kills"] += 1
            self.server.crash()
            control.heal()
            self.server.start()
        control.heal()
        self.flows(f"after {trouble}", 5.0)

    def look_at(self, trouble):
        """What the operator and the clients see as long as it lasts."""
        server = self.server
        harness.until(lambda: server.metric("tidegate_store_up") == 0, f"{trouble}: the metric says it", 5)
        # What was answered before is on its way, and on a busy machine for long; if answers go on, that is seen below.
        before, end = None, time.monotonic() + 4
        while before != self.company.acknowledged() and time.monotonic() < end:
            before = self.company.acknowledged()
            time.sleep(0.6)
        with packets.Client(server.port("tcp"), 5) as client:
            assert client.connect(f"passing-{self.figures['troubles']}") == 0
            assert client.subscribe("n/#", "$SYS/brokers/+/store/state", qos=1) == [1, 1]
            topic, payload, _ = client.message()
            assert topic.endswith("store/state"), topic
            assert payload == b"failing", f"{trouble}: $SYS says {payload}"
            for qos in (0, 1):
                client.send(packets.publish("n/1", b"for now", qos, 7, 5))
                answers = [client.receive() for _ in range(1 + qos)]
                assert {kind for kind, _, _ in answers} == ({packets.PUBLISH, packets.PUBACK} if qos else {packets.PUBLISH})
            client.send(packets.publish("p/none", b"nobody -1 ", 0, 0, 5))
            client.send(packets.publish("r/kept", b"to be kept", 1, 8, 5, retain=True))
            while True:
                kind, _, body = client.receive()
                if kind == packets.PUBACK and body[:2] == b"\0\x08":
                    assert body[2] == 0x97, f"{trouble}: a retained message is answered {body!r}"
                    break
        assert "the store cannot write" in server.said()
        now = self.company.acknowledged()
        assert now == before, f"{trouble}: acknowledged while nothing can be written: {now} after {before}"

    def end(self):
        """Nothing that was acknowledged is missing, nothing of QoS 2 came twice."""
        for name, (version, _) in Company.PUBLISHERS.items():
            self.figures["refused"] += len(self.company.states[name].refused)
            self.figures["connections of 3.1.1"] += self.company.clients[name].joins if version == 4 else 0
        self.figures["acknowledged"] = sum(self.company.acknowledged().values())
        wrong = self.company.finish(is_refusing=True)
        self.server.cli("store", "check")
        self.server.process.terminate()
        code = self.server.process.wait(20)
        # The engine asserts what a torn journal makes untrue; that is caught.
        panics = [line for line in self.server.said().splitlines() if "panicked at" in line and "/fjall-" not in line]
        return wrong + panics + ([f"it ended with {code}"] if code else [])


class Faults(unittest.TestCase):
    """The gateway over it."""

    SEED = os.environ.get("SEED") or str(random.randrange(1 << 32))

    def live(self, number, share):
        """One gateway's part of the troubles."""
        with House(f"{self.SEED} {number}") as house:
            for trouble in share:
                house.go_through(trouble)
            wrong = house.end()
            words = [f"seed {self.SEED}, gateway {number}", *wrong, *map(str, share), house.server.said()[-3000:]]
            assert not wrong, "\n".join(words)
            return house.figures

    def test_nothing_acknowledged_is_lost_whatever_fails(self):
        all_of_them, gateways = troubles(), 4
        random.Random(self.SEED).shuffle(all_of_them)
        with concurrent.futures.ThreadPoolExecutor(gateways) as pool:
            figures = list(pool.map(self.live, range(gateways), [all_of_them[i::gateways] for i in range(gateways)]))
        total = {name: sum(f[name] for f in figures) for name in figures[0]}
        print(f"  seed {self.SEED}: " + ", ".join(f"{count} {name}" for name, count in total.items()), flush=True)
        self.assertGreaterEqual(total["troubles"], 40)
        self.assertGreater(total["refused"], 40)
        self.assertGreater(total["connections of 3.1.1"], 2 * (total["kills"] + 4))


class Starting(unittest.TestCase):
    """Something goes wrong while the gateway starts."""

    def setUp(self):
        self.server = shim.Server(log=False)
        self.addCleanup(self.server.kill)

    def goes_wrong(self, first, **words):
        """A start whose `first` call fails; whether it was so many calls."""
        server = self.server
        server.shim.fail(shim.EVERYTHING, first=first, every=0, **words)
        server.spawn()
        end = time.monotonic() + 10
        while server.process.poll() is None and server.get("/health")[0] == 0:
            self.assertLess(time.monotonic(), end, server.said()[-2000:])
            time.sleep(0.01)
        code, is_fired = server.process.poll(), server.shim.fired() > 0
        server.crash()
        server.shim.heal()
        if code is not None and words.get("action", shim.FAIL) == shim.FAIL:
            self.assertTrue(is_fired, server.said()[-2000:])
            last = server.said().strip().splitlines()[-1]
            self.assertEqual(code, 1, f"call {first}: {server.said()[-2000:]}")
            self.assertIn("Input/output error", last, f"call {first}")
        return is_fired

    def works(self, company):
        """It starts, and everything is there."""
        self.server.start()
        wrong = company.finish()
        self.assertEqual(wrong, [], self.server.said()[-2000:])

    def test_a_first_start_that_is_cut_off_anywhere(self):
        for action in (shim.FAIL, shim.DIE, shim.TEAR_AND_DIE):
            first, tried = 1, 0
            while True:
                shutil.rmtree(self.server.data, ignore_errors=True)
                if not self.goes_wrong(first, action=action):
                    break
                tried += 1
                if tried % 4 == 0:
                    company = Company(self.server)
                    self.server.start()
                    company.subscribe()
                    company.go()
                    self.server.crash()
                first += 7
            self.assertGreater(tried, 10)

    def test_a_start_on_what_there_is_that_is_cut_off_anywhere(self):
        self.server.start()
        company = Company(self.server)
        company.subscribe()
        company.come(*Company.PUBLISHERS)
        company.wait(lambda: min(company.acknowledged().values()) > 50, "traffic")
        company.go()
        self.server.crash()
        for action in (shim.FAIL, shim.DIE, shim.TEAR_AND_DIE):
            first = 1
            while self.goes_wrong(first, action=action):
                first += 2
            self.assertGreater(first, 10)
        self.works(company)
