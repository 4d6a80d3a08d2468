"""Faults below a program: builds `faults.c` and tells it, while the program runs, what shall fail.

    shim = Shim(data)                       # the folder in which things go wrong
    subprocess.Popen(..., env=os.environ | shim.environment())
    shim.fail({WRITE, SYNC}, errno.ENOSPC)  # until shim.heal()
"""

import errno
import hashlib
import mmap
import os
import pathlib
import struct
import subprocess
import tempfile

from durable.kit.world import Gateway

SOURCE = pathlib.Path(__file__).resolve().parent.parent / "faults.c"
# Kinds of calls and what happens to them, as in faults.c.
WRITE, SYNC, RENAME, OPEN, UNLINK, TRUNCATE, MKDIR, DIRSYNC, LINK = range(9)
NAMES = ("write", "sync", "rename", "open", "unlink", "truncate", "mkdir", "dirsync", "link")
EVERYTHING = frozenset(range(9))
FAIL, TEAR, DIE, TEAR_AND_DIE, DIE_AFTER, SHORT = range(6)
# Kinds with which a device says what: what has no space needs some, what is read-only takes no change.
NO_SPACE = frozenset({WRITE, SYNC, OPEN, RENAME, TRUNCATE, MKDIR, LINK})
READ_ONLY = EVERYTHING - {SYNC, DIRSYNC}

_FIELDS = ("kinds", "error", "from", "every", "limit", "action", "calls", "fired")
_COUNTS = 8 * len(_FIELDS)
_MATCH = _COUNTS + 8 * 16


def build():
    """The library, built once for each state of its source."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    path = pathlib.Path(tempfile.gettempdir()) / f"tidegate-faults-{os.getuid()}-{digest}.so"
    if not path.exists():
        unfinished = path.with_suffix(f".{os.getpid()}")
        subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o", unfinished, SOURCE], check=True)
        unfinished.rename(path)
    return path


class Shim:
    """The control of one program and the log of what it changed."""

    def __init__(self, folder, where):
        self.folder, self.where = pathlib.Path(folder).resolve(), pathlib.Path(where)
        self.control, self.log = self.where / "control", self.where / "log.0"
        self.control.write_bytes(bytes(4096))
        with open(self.control, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 4096)
        self.logs = 0

    def environment(self, log=True, sync=False):
        """What the program is started with. Only with `sync` the machine's own disk is waited for."""
        words = {"LD_PRELOAD": str(build()), "FAULT_DIR": str(self.folder), "FAULT_CTL": str(self.control)}
        if log:
            words["FAULT_LOG"] = str(self.log)
        if not sync:
            words["FAULT_SKIP_SYNC"] = "1"
        return words

    def renew(self):
        """The next program writes a log of its own."""
        self.logs += 1
        self.log.unlink(missing_ok=True)
        self.log = self.where / f"log.{self.logs}"

    def position(self):
        """How long the log is."""
        try:
            return os.stat(self.log).st_size
        except FileNotFoundError:
            return 0

    def _set(self, **fields):
        for name, value in fields.items():
            struct.pack_into("<Q", self.memory, 8 * _FIELDS.index(name), value)

    def fail(self, kinds, error=errno.EIO, first=1, every=1, limit=0, action=FAIL, match=""):
        """From the `first` call of these kinds on every `every`-th, at most `limit` of them; with `every` 0 that one alone.
        `match` is a part of the path."""
        self.heal()
        self.memory[_MATCH:_MATCH + 128] = match.encode().ljust(128, b"\0")
        self._set(**{"error": error, "from": first, "every": every, "limit": limit, "action": action, "calls": 0, "fired": 0})
        self._set(kinds=sum(1 << kind for kind in kinds))

    def heal(self):
        """Nothing fails any more."""
        self._set(kinds=0)

    def fired(self):
        """How many calls have failed since `fail`."""
        return struct.unpack_from("<Q", self.memory, 8 * _FIELDS.index("fired"))[0]

    def counts(self):
        """How often each kind was called."""
        return dict(zip(NAMES, struct.unpack_from(f"<{len(NAMES)}Q", self.memory, _COUNTS)))


class Server(Gateway):
    """Tidegate whose data folder has a shim below it; commands of the operator go without."""

    def __init__(self, overrides=None, log=True, sync=False):
        super().__init__(overrides)
        self.keys["node.data"] = str(self.data)
        self.shim = Shim(self.data, self.folder)
        self.words = {"log": log, "sync": sync}

    def start(self):
        self.spawn()
        self.ready()
        return self

    def _spawn(self, command, environment):
        super()._spawn(command, environment | self.shim.environment(**self.words))
