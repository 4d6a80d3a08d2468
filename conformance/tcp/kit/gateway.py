"""The gateway that devices come to: one listener for each language, open to all."""

from tcp.kit import place

# Long enough for an answer on a busy machine, short enough to be waited for.
COMMAND_TIMEOUT = 3


class Gateway(place.Gateway):
    """Tidegate with listeners of `codecs`, named as these; `more` are further keys of all of them."""

    def __init__(self, codecs=("jt808", "teltonika"), more=None):
        keys = {"command_timeout": f"{COMMAND_TIMEOUT} s", "command_retries": 10} | (more or {})
        super().__init__(**{codec: {"codec": codec} | keys for codec in codecs})
