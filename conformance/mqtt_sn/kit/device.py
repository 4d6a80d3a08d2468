"""A client of MQTT-SN that does one thing at a time and tells what came."""

import time

from coap.kit import links
from mqtt_sn.kit import wire

PATIENCE = 5


class Device:
    """A client behind a link (`coap.kit.links`), or with `node` one behind a forwarder."""

    def __init__(self, port, client_id, link=None, node=None):
        self.client_id, self.node = client_id.encode(), node
        self.link = link or links.Udp(port)
        self.last_id = 0
        # What the gateway or the client has registered, by kind and id.
        self.topics = {}
        # Ids of what came with QoS 1 or 2 and was acknowledged.
        self.acknowledged = set()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.link.close()

    def send(self, kind, **fields):
        self.send_raw(wire.encode(kind, **fields))

    def send_raw(self, datagram):
        self.link.send(wire.wrap(self.node, datagram) if self.node is not None else datagram)

    def receive(self, seconds=PATIENCE):
        """The next frame, or None."""
        datagram = self.link.receive(seconds)
        if datagram is None:
            return None
        if self.node is not None:
            node, datagram = wire.unwrap(datagram)
            assert node == self.node, f"for another node: {node.hex()}"
        return wire.decode(datagram)

    def takes(self, kind, seconds=PATIENCE, **fields):
        """The next frame has to be this one, but for copies of what was acknowledged too late for the gateway (6.13)."""
        end = time.monotonic() + seconds
        frame = self.receive(seconds)
        while frame is not None and kind != "PUBLISH" and self.is_copy(frame):
            self.answer(frame)
            frame = self.receive(max(end - time.monotonic(), 0.001))
        assert frame is not None, f"{self.client_id}: no {kind} within {seconds} s"
        assert frame.name == kind, f"{self.client_id}: {frame} and no {kind}"
        for field, value in fields.items():
            assert getattr(frame, field) == value, f"{self.client_id}: {field} is not {value}: {frame}"
        return frame

    def is_copy(self, frame):
        """Whether the gateway repeats what this client has acknowledged."""
        return frame.name == "PUBLISH" and bool(frame.flags & wire.DUP) and frame.id in self.acknowledged

    def takes_nothing(self, seconds=0.5):
        frame = self.receive(seconds)
        assert frame is None, f"{self.client_id}: {frame}"

    def new_id(self):
        self.last_id = self.last_id % 0xFFFF + 1
        return self.last_id

    def connect(self, clean=True, duration=60, will=None, code=0):
        """CONNECT until CONNACK; `will` is topic, message, QoS and retain."""
        flags = wire.CLEAN * clean | wire.WILL * (will is not None)
        self.send("CONNECT", flags=flags, protocol=1, duration=duration, client_id=self.client_id)
        if will:
            topic, message, qos, retain = will
            self.takes("WILLTOPICREQ")
            self.send("WILLTOPIC", flags=wire.qos_flag(qos) | wire.RETAIN * retain, topic=topic.encode())
            self.takes("WILLMSGREQ")
            self.send("WILLMSG", data=message)
        self.takes("CONNACK", code=code)
        return self

    def register(self, topic):
        """The id of a topic's name."""
        number = self.new_id()
        self.send("REGISTER", topic_id=0, id=number, topic=topic.encode())
        found = self.takes("REGACK", id=number, code=0).topic_id
        assert found not in (0, 0xFFFF), found
        self.topics[wire.NORMAL, found] = topic
        return found

    def subscribe(self, topic, qos=1, kind=wire.NORMAL, code=0):
        """The id that was granted. A predefined topic is given by its number."""
        number = self.new_id()
        name = topic.to_bytes(2, "big") if kind == wire.PREDEFINED else topic.encode()
        self.send("SUBSCRIBE", flags=wire.qos_flag(qos) | kind, id=number, topic=name)
        answer = self.takes("SUBACK", id=number, code=code)
        if kind == wire.NORMAL and answer.topic_id:
            self.topics[wire.NORMAL, answer.topic_id] = topic
        return answer.topic_id

    def publish(self, topic_id, data, qos=1, kind=wire.NORMAL, retain=False, code=0):
        """PUBLISH until all its acknowledgements came. A short topic is given by its name."""
        if isinstance(topic_id, str):
            kind, topic_id = wire.SHORT, int.from_bytes(topic_id.encode(), "big")
        number = self.new_id() if qos > 0 else 0
        flags = wire.qos_flag(qos) | wire.RETAIN * retain | kind
        self.send("PUBLISH", flags=flags, topic_id=topic_id, id=number, data=data)
        if qos == 1 or qos == 2 and code:
            self.takes("PUBACK", id=number, topic_id=topic_id, code=code)
        elif qos == 2:
            self.takes("PUBREC", id=number)
            self.send("PUBREL", id=number)
            self.takes("PUBCOMP", id=number)

    def answer(self, frame):
        """What a client owes for a REGISTER, PUBLISH or PUBREL; (topic, payload, QoS) when a PUBLISH has come."""
        if frame.name == "REGISTER":
            self.topics[wire.NORMAL, frame.topic_id] = frame.topic.decode()
            self.send("REGACK", topic_id=frame.topic_id, id=frame.id, code=0)
        elif frame.name == "PUBREL":
            self.send("PUBCOMP", id=frame.id)
        elif frame.name == "PUBLISH":
            if frame.qos > 0:
                self.acknowledged.add(frame.id)
            if frame.qos == 1:
                self.send("PUBACK", topic_id=frame.topic_id, id=frame.id, code=0)
            elif frame.qos == 2:
                self.send("PUBREC", id=frame.id)
            return self.topic(frame), frame.data, frame.qos
        else:
            raise AssertionError(f"{self.client_id}: unexpected {frame}")
        return None

    def topic(self, frame):
        """The name of a PUBLISH's topic: one that nobody has registered is an error."""
        if frame.kind_of_topic == wire.SHORT:
            return frame.topic_id.to_bytes(2, "big").decode()
        if frame.kind_of_topic == wire.PREDEFINED:
            return frame.topic_id
        assert (wire.NORMAL, frame.topic_id) in self.topics, f"{self.client_id}: nobody registered this id: {frame}"
        return self.topics[wire.NORMAL, frame.topic_id]

    def hears(self, count=1, seconds=PATIENCE):
        """So many messages, acknowledged."""
        heard, end = [], time.monotonic() + seconds
        while len(heard) < count:
            frame = self.receive(max(end - time.monotonic(), 0.001))
            assert frame is not None, f"{self.client_id}: {len(heard)} of {count} messages within {seconds} s: {heard}"
            came = self.answer(frame)
            if came:
                heard.append(came)
                # A message of QoS 2 is over with its PUBCOMP.
                if came[2] == 2:
                    self.answer(self.takes("PUBREL"))
        return heard

    def sleep(self, duration):
        """Sleeps that many seconds (6.14)."""
        self.send("DISCONNECT", duration=duration)
        self.takes("DISCONNECT", duration=None)

    def wake(self, seconds=PATIENCE):
        """PINGREQ until PINGRESP: all that was kept meanwhile."""
        self.send("PINGREQ", client_id=self.client_id)
        heard, end = [], time.monotonic() + seconds
        while True:
            frame = self.receive(max(end - time.monotonic(), 0.001))
            assert frame is not None, f"{self.client_id}: no PINGRESP within {seconds} s, after {heard}"
            if frame.name == "PINGRESP":
                return heard
            came = self.answer(frame)
            if came:
                heard.append(came)

    def disconnect(self):
        self.send("DISCONNECT")
        self.takes("DISCONNECT", duration=None)
