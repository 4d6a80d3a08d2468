"""The gateway that the tests of MQTT-SN are played against."""

import harness

# Long enough for an answer on a busy machine, short enough to be waited for.
RETRY, RETRIES = 2, 2
PREDEFINED = {1: "fixed/one", 2: "fixed/two"}


class Gateway(harness.Tidegate):
    """Tidegate whose clients need no credentials. `more` are further keys of `[mqtt_sn]`, `keys` of anything."""

    def __init__(self, more=None, keys=None):
        super().__init__()
        listener = "mqtt_sn.listeners.udp"
        self.keys |= {f"{listener}.anonymous": "always", "coap.listeners.udp.anonymous": "always",
                      "mqtt_sn.retry_interval": f"{RETRY} s", "mqtt_sn.max_retries": RETRIES}
        self.keys |= {f"mqtt_sn.{key}": value for key, value in (more or {}).items()}
        self.keys |= keys or {}
        with open(self.folder / "etc" / "tidegate.toml", "a", encoding="utf-8") as file:
            for number, topic in PREDEFINED.items():
                file.write(f'\n[[mqtt_sn.predefined]]\nid = {number}\ntopic = "{topic}"\n')


def start(more=None, keys=None):
    """One that runs."""
    return Gateway(more, keys).__enter__()
