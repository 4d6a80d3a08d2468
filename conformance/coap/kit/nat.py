"""A device behind a router of its own that does network address translation, in network namespaces of Linux.

    device 198.18.x.2 -- 198.18.x.1 router 198.19.x.2 -- 198.19.x.1 gateway (the test's own namespace)

A namespace lives as long as the process that holds it; nothing has a name on the machine. It takes root, or the root of a
user namespace.
"""

import ctypes
import os
import random
import socket
import subprocess
import threading

CLONE_NEWNET = 0x40000000
RULES = """
table ip nat {
    chain after {
        type nat hook postrouting priority srcnat
        oifname "outer" masquerade fully-random
    }
}
"""


def run(*words, text=None):
    done = subprocess.run(words, input=text, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


class Namespace:
    """A network of its own."""

    def __init__(self):
        self.holder = subprocess.Popen(["unshare", "-n", "sh", "-c", "echo; exec sleep infinity"], stdout=subprocess.PIPE)
        assert self.holder.stdout.readline(), "a network namespace: this test needs root"
        self.run("ip", "link", "set", "lo", "up")

    def run(self, *words, text=None):
        return run("nsenter", "-t", str(self.holder.pid), "-n", *words, text=text)

    def socket(self, *words):
        """A socket that is in there; this process stays where it is."""
        made = []

        def work():
            with open(f"/proc/{self.holder.pid}/ns/net") as place:
                assert ctypes.CDLL(None, use_errno=True).setns(place.fileno(), CLONE_NEWNET) == 0, \
                    os.strerror(ctypes.get_errno())
            made.append(socket.socket(*words))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return made[0]

    def close(self):
        self.holder.kill()
        self.holder.wait()
        self.holder.stdout.close()


class Nat:
    """The whole; `gateway` is the address to serve at."""

    def __init__(self):
        self.device, self.router = Namespace(), Namespace()
        number, self.link = random.randrange(1, 255), f"tg{os.getpid() % 10**6}"
        self.gateway = f"198.19.{number}.1"
        run("ip", "link", "add", self.link, "type", "veth", "peer", "name", "outer", "netns", str(self.router.holder.pid))
        run("ip", "address", "add", f"{self.gateway}/24", "dev", self.link)
        run("ip", "link", "set", self.link, "up")
        self.router.run("ip", "address", "add", f"198.19.{number}.2/24", "dev", "outer")
        self.router.run("ip", "link", "set", "outer", "up")
        self.router.run("ip", "link", "add", "inner", "type", "veth", "peer", "name", "own", "netns",
                        str(self.device.holder.pid))
        self.router.run("ip", "address", "add", f"198.18.{number}.1/24", "dev", "inner")
        self.router.run("ip", "link", "set", "inner", "up")
        self.device.run("ip", "address", "add", f"198.18.{number}.2/24", "dev", "own")
        self.device.run("ip", "link", "set", "own", "up")
        self.device.run("ip", "route", "add", "default", "via", f"198.18.{number}.1")
        self.router.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        self.router.run("nft", "-f", "-", text=RULES)

    def forget(self):
        """The router forgets its bindings: the device has another port from now on."""
        self.router.run("conntrack", "-F")

    def ports(self):
        """The ports that the device has at this moment, seen from outside."""
        found = self.router.run("conntrack", "-L", "-p", "udp")
        return [int(line.rsplit("dport=", 1)[1].split()[0]) for line in found.splitlines() if "dport=" in line]

    def close(self):
        self.device.close()
        self.router.close()
        # It goes with its other end; where that lingers it is told to.
        subprocess.run(["ip", "link", "del", self.link], capture_output=True)
