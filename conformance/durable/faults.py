"""The disk says no: full, broken, read-only, at every kind of call, below the gateway's engine.

What is acknowledged is on the disk, whatever the disk says; who cannot be served is told so, the others are; and when the
disk is well again so is the gateway, without help. The first cases try the shim itself.
"""

import errno
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import unittest

from durable.kit import image, shim

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
