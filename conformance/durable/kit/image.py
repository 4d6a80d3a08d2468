"""What a disk has after a power failure, from the shim's log of what a program did.

A file's content is on the disk when the file was synced after it was written, a name when its folder was. Everything else
is gone, or as `lottery` has it: any of the sectors or pages that were not synced, in any order, and any first part of what was
changed in a folder. What a failed sync should have written is gone even if a later one succeeds, for the kernel takes it
for written.
"""

import os
import pathlib
import random
import struct

from durable.kit import shim

RECORD = struct.Struct("<IIQqQII")
MARK = 0x74667366
SYNC_FAILED, DIRSYNC_FAILED = 32, 33


class Content:
    """Bytes with zeros behind them."""

    def __init__(self, data=b"", size=0):
        self.data, self.size = bytearray(data), max(size, len(data))

    def copy(self):
        """Another one of the same."""
        return Content(self.data, self.size)

    def write(self, offset, data):
        """Puts `data` at `offset`."""
        if len(self.data) < offset:
            self.data += bytes(offset - len(self.data))
        self.data[offset:offset + len(data)] = data
        self.size = max(self.size, len(self.data))

    def truncate(self, size):
        """Cuts or extends."""
        del self.data[size:]
        self.size = size

    def __eq__(self, other):
        return self.size == other.size and self.data.rstrip(b"\0") == other.data.rstrip(b"\0")

    __hash__ = None


class File:
    """What the program sees, what is durable, and the changes that lead from this to that: (log position, change)."""

    def __init__(self, content=None):
        self.durable, self.current, self.pending = content or Content(), (content or Content()).copy(), []

    def change(self, position, offset, data):
        """A write, or with `data` None a truncation."""
        _apply(self.current, offset, data)
        self.pending.append((position, offset, data))

    def sync(self, before, succeeded):
        """What was changed before that position of the log is durable, or lost."""
        for position, offset, data in self.pending:
            if position <= before and succeeded:
                _apply(self.durable, offset, data)
        self.pending = [change for change in self.pending if change[0] > before]

    def left(self, chance):
        """Its content after a power failure."""
        if chance is None or not self.pending:
            return self.durable
        content, unit, odds = self.durable.copy(), chance.choice((512, 4096)), chance.choice((0.1, 0.5, 0.9))
        for _, offset, data in self.pending:
            if data is None:
                if chance.random() < odds:
                    content.truncate(offset)
                continue
            start = offset
            while start < offset + len(data):
                end = min((start // unit + 1) * unit, offset + len(data))
                if chance.random() < odds:
                    content.write(start, data[start - offset:end - offset])
                start = end
        return content


def _apply(content, offset, data):
    if data is None:
        content.truncate(offset)
    else:
        content.write(offset, data)


class Folder:
    """Names, as the program sees them and as they are durable; a change is a dictionary of names and what they become."""

    def __init__(self):
        self.durable, self.current, self.pending = {}, {}, []

    def change(self, position, names):
        """Some names at once; None removes one."""
        _rename(self.current, names)
        self.pending.append((position, names))

    def sync(self, before, succeeded):
        """As with files."""
        for position, names in self.pending:
            if position <= before and succeeded:
                _rename(self.durable, names)
        if succeeded:
            self.pending = [change for change in self.pending if change[0] > before]

    def left(self, chance):
        """Its names after a power failure."""
        names = dict(self.durable)
        if chance is not None:
            for _, change in self.pending[:chance.randint(0, len(self.pending))]:
                _rename(names, change)
        return names


def _rename(names, changes):
    for name, value in changes.items():
        if value is None:
            names.pop(name, None)
        else:
            names[name] = value


class Disk:
    """The folder `path` as it is now, or as its copy `start` is, and then as the log goes on from there."""

    def __init__(self, path, start=None):
        self.path, self.root, self.inodes, self.position = pathlib.Path(path), Folder(), {}, 0
        start = pathlib.Path(start or path)
        if start.exists():
            self._load(start, self.root)

    def _load(self, path, folder):
        for entry in os.scandir(path):
            if entry.is_dir(follow_symlinks=False):
                found = Folder()
                self._load(entry.path, found)
            elif entry.is_file(follow_symlinks=False):
                found = File(read(entry.path))
            else:
                continue
            folder.durable[entry.name] = folder.current[entry.name] = found

    def _at(self, path):
        """The folder that a path is in, and its name there."""
        parts, folder = path.relative_to(self.path).parts, self.root
        for part in parts[:-1]:
            folder = folder.current[part]
        return folder, parts[-1]

    def _object(self, path):
        if path == self.path:
            return self.root
        folder, name = self._at(path)
        return folder.current.get(name)

    def replay(self, log, upto=None):
        """Goes on with the log, to the last record that ends at `upto` or before. Where each record ends, and its kind."""
        records = []
        with open(log, "rb") as file:
            file.seek(self.position)
            while head := file.read(RECORD.size):
                if len(head) < RECORD.size:
                    break
                mark, kind, inode, offset, before, first, second = RECORD.unpack(head)
                assert mark == MARK, f"{log} is damaged at {self.position}"
                end = self.position + RECORD.size + first + second
                body = file.read(first + second)
                if len(body) < first + second or upto is not None and end > upto:
                    break
                self.position = end
                self._do(kind, inode, offset, before, pathlib.Path(os.fsdecode(body[:first])), body[first:])
                records.append((end, kind))
        return records

    def _do(self, kind, inode, offset, before, path, more):
        at = self.position
        if kind == shim.WRITE:
            self.inodes[inode].change(at, offset, more)
        elif kind == shim.TRUNCATE:
            self.inodes[inode].change(at, offset, None)
        elif kind in (shim.SYNC, SYNC_FAILED):
            if inode in self.inodes:
                self.inodes[inode].sync(before, kind == shim.SYNC)
        elif kind in (shim.DIRSYNC, DIRSYNC_FAILED):
            self._object(path).sync(before, kind == shim.DIRSYNC)
        elif kind == shim.OPEN:
            self._open(path, inode, offset == 0)
        elif kind == shim.MKDIR:
            if path != self.path:
                folder, name = self._at(path)
                folder.change(at, {name: Folder()})
        elif kind == shim.UNLINK:
            folder, name = self._at(path)
            folder.change(at, {name: None})
        elif kind in (shim.RENAME, shim.LINK):
            self._rename(path, pathlib.Path(os.fsdecode(more)), kind == shim.RENAME)
        else:
            raise AssertionError(f"record of kind {kind}")

    def _open(self, path, inode, is_truncating):
        folder, name = self._at(path)
        found = folder.current.get(name)
        if found is None:
            found = File()
            folder.change(self.position, {name: found})
        elif is_truncating:
            found.change(self.position, 0, None)
        self.inodes[inode] = found

    def _rename(self, path, to, is_moved):
        (source, old), (target, new) = self._at(path), self._at(to)
        found = source.current.get(old)
        if found is None or target.current.get(new) is found:
            # A socket, or two names of one file, of which a rename changes nothing.
            return
        if not is_moved:
            target.change(self.position, {new: found})
        elif source is target:
            source.change(self.position, {old: None, new: found})
        else:
            target.change(self.position, {new: found})
            source.change(self.position, {old: None})

    def leave(self, path, seed=None):
        """Writes what a power failure at this moment leaves into the new folder `path`."""
        chance = None if seed is None else random.Random(seed)
        _write(pathlib.Path(path), self.root, chance)

    def differences(self):
        """Where the program's folder is not what the log says: the shim has missed something."""
        found = []
        _compare(self.path, self.root, found)
        return found


def read(path):
    """A file's content; holes are not read."""
    content = Content(size=os.stat(path).st_size)
    with open(path, "rb") as file:
        at = 0
        while at < content.size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            content.write(at, os.pread(file.fileno(), end - at, at))
            at = end
    return content


def _write(path, folder, chance):
    path.mkdir()
    for name, what in folder.left(chance).items():
        if isinstance(what, Folder):
            _write(path / name, what, chance)
            continue
        content = what.left(chance)
        with open(path / name, "wb") as file:
            file.write(content.data.rstrip(b"\0"))
            file.truncate(content.size)


def _compare(path, folder, found):
    names = {entry.name for entry in os.scandir(path) if not entry.is_symlink() and (entry.is_file() or entry.is_dir())}
    if names != set(folder.current):
        found.append(f"{path}: {sorted(names)} in place of {sorted(folder.current)}")
    for name in names & set(folder.current):
        what = folder.current[name]
        if isinstance(what, Folder):
            _compare(path / name, what, found)
        elif read(path / name) != what.current:
            found.append(f"{path / name}: other content")
