"""The gateway that the tests of MQTT-SN are played against."""

import harness

# Long enough for an answer on a busy machine, short enough to be waited for.
RETRY, RETRIES = 2, 2
PREDEFINED = {"1": "fixed/one", "2": "fixed/two"}


class Gateway(harness.Tidegate):
    """Tidegate with MQTT-SN at a port of its own; `more` are further keys of its listener, `keys` of anything."""

    def __init__(self, more=None, keys=None):
        super().__init__()
        self.ports["mqtt_sn"] = harness.free_port()
        listener = "mqtt_sn.listeners.udp"
        self.keys |= {f"{listener}.bind": f"{harness.HOST}:{self.port('mqtt_sn')}", f"{listener}.anonymous": "always"}
        self.keys |= {f"mqtt_sn.{key}": value for key, value in (more or {}).items()}
        self.keys |= keys or {}


def start(more=None, keys=None):
    """One that answers retransmissions soon, with topics that are predefined."""
    return Gateway({"retry_interval": f"{RETRY} s", "max_retries": RETRIES} | (more or {}), keys).__enter__()
