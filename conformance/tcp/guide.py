"""The guide to codecs, `codecs/README.md`: every command in it is run, in its order, and brings what stands there.

A block `console` is a terminal: lines that begin with `$ ` are commands, those that follow are what is seen, also of what was
started before and runs on. `…` in them is anything. The blocks of a section share a terminal and a folder.
"""

import os
import pathlib
import queue
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest

import harness

GUIDE = harness.HOUSE / "codecs" / "README.md"
WAIT = 30


def sections():
    """Heading and the terminal's lines of each section that has some."""
    heading, found, lines = "", {}, iter(GUIDE.read_text().splitlines())
    for line in lines:
        if line.startswith("## ") or line.startswith("### "):
            heading = line.lstrip("# ")
        elif line == "```console":
            block = found.setdefault(heading, [])
            for inner in lines:
                if inner == "```":
                    break
                block.append(inner)
    return found


def commands(lines):
    """Each command with the lines that are seen after it."""
    found = []
    lines = iter(lines)
    for line in lines:
        if not line.startswith("$ "):
            found[-1][1].append(line)
            continue
        text = line[2:]
        while text.endswith("\\"):
            text += "\n" + next(lines)
        if here := re.search(r"<<'(\w+)'", text):
            for inner in lines:
                text += "\n" + inner
                if inner == here[1]:
                    break
        found.append((text, []))
    return found


class Terminal:
    """A shell in a folder of its own, at other ports than the guide's."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="tidegate-guide-"))
        (self.folder / "bin").mkdir()
        (self.folder / "bin" / "tidegate").symlink_to(harness.binary())
        self.home = self.folder / "home"
        self.ports = {"1883": str(harness.free_port()), "7000": str(harness.free_port())}
        environment = dict(os.environ, PATH=f"{self.folder / 'bin'}:{os.environ['PATH']}",
                           TIDEGATE__HTTP__BIND=f'"127.0.0.1:{harness.free_port()}"')
        self.home.mkdir()
        self.shell = subprocess.Popen(["bash"], cwd=self.home, env=environment, text=True, stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        self.seen = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.number = 0

    def _read(self):
        for line in self.shell.stdout:
            self.seen.put(line.rstrip())

    def run(self, text, expected):
        """Runs a command; what is not as expected, and all that was seen."""
        for guide, here in self.ports.items():
            text = re.sub(rf"\b{guide}\b", here, text)
        self.number += 1
        mark = f"-- end of command {self.number}"
        self.shell.stdin.write(f"{text}\necho '{mark}'\n")
        self.shell.stdin.flush()
        wanted, seen, until = [*expected, mark], [], time.monotonic() + WAIT
        while wanted and time.monotonic() < until:
            try:
                line = self.seen.get(timeout=0.1)
            except queue.Empty:
                continue
            seen.append(line)
            # What was started before may say something after the command has ended, but all in its order.
            if line == mark:
                wanted.remove(mark)
            elif wanted[0] != mark and matches(wanted[0], line):
                wanted.pop(0)
            else:
                wanted.insert(0, f"nothing like {line!r}")
                break
        if text.startswith("tidegate") and text.endswith("&"):
            for port in self.ports.values():
                harness.until(lambda p=int(port): reachable(p), f"something listens at {port}", WAIT)
        elif text.endswith("&"):
            time.sleep(1)
        return wanted, seen

    def close(self):
        """Ends the shell and all that it has started."""
        os.killpg(self.shell.pid, signal.SIGKILL)
        self.shell.wait()
        self.shell.stdin.close()
        shutil.rmtree(self.folder)


def matches(expected, line):
    """Whether the line is what the guide says."""
    pattern = ".*".join(re.escape(part) for part in expected.split("…"))
    return re.fullmatch(pattern, line) is not None


def reachable(port):
    """Whether something listens."""
    with socket.socket() as tcp:
        return tcp.connect_ex((harness.HOST, port)) == 0


class Guide(unittest.TestCase):
    """What a reader sees."""

    def test_every_command_of_the_guide_brings_what_it_says(self):
        for heading, lines in sections().items():
            with self.subTest(heading):
                self._follow(lines, is_empty=heading == "In ten minutes")

    def _follow(self, lines, is_empty):
        terminal = Terminal()
        self.addCleanup(terminal.close)
        if not is_empty:
            shutil.copytree(harness.HOUSE / "etc", terminal.home / "etc")
        for text, expected in commands(lines):
            missing, seen = terminal.run(text, expected)
            self.assertEqual(missing, [], f"\n$ {text}\n" + "\n".join(seen))

    def test_the_guide_has_commands_for_what_it_is_about(self):
        found = sections()
        for heading in ["In ten minutes", "Framing", "WebAssembly"]:
            self.assertIn(heading, found)
        ten = "\n".join(found["In ten minutes"])
        for word in ["codec try", "codec reload", "codec rollback", "mosquitto_sub", "mosquitto_pub"]:
            self.assertIn(word, ten)


if __name__ == "__main__":
    unittest.main()
