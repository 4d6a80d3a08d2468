"""Frames that scapy makes, right ones and spoilt ones: the gateway answers the first, and outlives the others."""

import os
import random
import socket
import unittest

from scapy.contrib import mqttsn as sn
from scapy.packet import Raw, fuzz

import harness
from coap.kit import links
from mqtt_sn.kit import gateway, wire

SEED = int(os.environ.get("SEED", random.randrange(1 << 32)))
ROUNDS = int(os.environ.get("ROUNDS", 4000))
LAYERS = {
    sn.ADVERTISE: sn.MQTTSNAdvertise, sn.SEARCHGW: sn.MQTTSNSearchGW, sn.GWINFO: sn.MQTTSNGwInfo,
    sn.CONNECT: sn.MQTTSNConnect, sn.CONNACK: sn.MQTTSNConnack, sn.WILLTOPIC: sn.MQTTSNWillTopic,
    sn.WILLMSG: sn.MQTTSNWillMsg, sn.REGISTER: sn.MQTTSNRegister, sn.REGACK: sn.MQTTSNRegack,
    sn.PUBLISH: sn.MQTTSNPublish, sn.PUBACK: sn.MQTTSNPuback, sn.PUBCOMP: sn.MQTTSNPubcomp,
    sn.PUBREC: sn.MQTTSNPubrec, sn.PUBREL: sn.MQTTSNPubrel, sn.SUBSCRIBE: sn.MQTTSNSubscribe,
    sn.SUBACK: sn.MQTTSNSuback, sn.UNSUBSCRIBE: sn.MQTTSNUnsubscribe, sn.UNSUBACK: sn.MQTTSNUnsuback,
    sn.PINGREQ: sn.MQTTSNPingReq, sn.WILLTOPICUPD: sn.MQTTSNWillTopicUpd, sn.WILLMSGUPD: sn.MQTTSNWillMsgUpd,
}


def frame(kind, **fields):
    """Octets of a frame as scapy has it."""
    layer = LAYERS.get(kind)
    return bytes(sn.MQTTSN(type=kind) / layer(**fields) if layer else sn.MQTTSN(type=kind))


class Scapy(unittest.TestCase):
    def setUp(self):
        self.server = gateway.start()
        self.addCleanup(self.server.__exit__, None, None, None)
        self.link = links.Udp(self.server.port("mqtt_sn"))
        self.addCleanup(self.link.close)

    def ask(self, datagram):
        """The answer as scapy reads it; it has to be one that is right too."""
        self.link.send(datagram)
        came = self.link.receive(5)
        self.assertIsNotNone(came, f"no answer to {datagram.hex(' ')}")
        wire.decode(came)
        return sn.MQTTSN(came)

    def test_what_scapy_makes_is_answered_and_what_the_gateway_says_scapy_reads(self):
        answer = self.ask(frame(sn.CONNECT, cleansess=1, prot_id=1, duration=60, client_id=b"scapy"))
        self.assertEqual((answer.type, answer.return_code), (sn.CONNACK, sn.ACCEPTED))
        answer = self.ask(frame(sn.REGISTER, mid=1, topic_name=b"from/scapy"))
        self.assertEqual((answer.type, answer.mid, answer.return_code), (sn.REGACK, 1, sn.ACCEPTED))
        topic = answer.tid
        answer = self.ask(frame(sn.SUBSCRIBE, qos=sn.QOS_1, mid=2, topic_name=b"from/scapy"))
        self.assertEqual((answer.type, answer.tid, answer.qos), (sn.SUBACK, topic, sn.QOS_1))
        answer = self.ask(frame(sn.PUBLISH, qos=sn.QOS_0, tid=topic, data=b"hello"))
        self.assertEqual((answer.type, answer.tid, answer.data), (sn.PUBLISH, topic, b"hello"))
        answer = self.ask(frame(sn.PINGREQ, client_id=b""))
        self.assertEqual(answer.type, sn.PINGRESP)
        answer = self.ask(frame(sn.UNSUBSCRIBE, mid=3, topic_name=b"from/scapy"))
        self.assertEqual((answer.type, answer.mid), (sn.UNSUBACK, 3))
        inner = frame(sn.SEARCHGW, radius=0)
        self.link.send(bytes(sn.MQTTSN(type=sn.ENCAPS_MSG) / sn.MQTTSNEncaps(w_node_id=b"node") / Raw(inner)))
        node, came = wire.unwrap(self.link.receive(5))
        self.assertEqual((node, sn.MQTTSN(came).type), (b"node", sn.GWINFO))

    def test_spoilt_frames_end_nobody_elses_session_and_answers_stay_right(self):
        print(f"SEED={SEED}", flush=True)
        dice, server = random.Random(SEED), self.server
        random.seed(SEED)
        bystander = links.Udp(server.port("mqtt_sn"))
        self.addCleanup(bystander.close)
        bystander.send(frame(sn.CONNECT, cleansess=1, prot_id=1, duration=600, client_id=b"bystander"))
        self.assertEqual(bystander.receive(5), b"\x03\x05\x00")
        answers, before = 0, server.memory()
        for number in range(ROUNDS):
            self.link.send(self.spoilt(dice))
            if number % 20 == 0:
                answers += self.read_all()
            if number % 200 == 0:
                self.link.close()
                self.link = links.Udp(server.port("mqtt_sn"))
                self.ask(frame(sn.CONNECT, cleansess=1, prot_id=1, duration=600, client_id=b"spoiler"))
        answers += self.read_all(0.5)
        self.assertGreater(answers, ROUNDS // 20, f"SEED={SEED}: hardly an answer: nothing is tested")
        bystander.send(frame(sn.PINGREQ, client_id=b""))
        self.assertEqual(bystander.receive(5), b"\x02\x17", f"SEED={SEED}")
        self.assertLess(server.memory() - before, 64 << 20, f"SEED={SEED}")

    def read_all(self, seconds=0.01):
        count = 0
        while (came := self.link.receive(seconds)) is not None:
            if came[1:2] == b"\xfe":
                came = wire.unwrap(came)[1]
            try:
                wire.decode(came)
            except AssertionError as wrong:
                raise AssertionError(f"SEED={SEED}: {wrong}") from None
            count += 1
        return count

    def spoilt(self, dice):
        """A frame with fields by chance, cut, lengthened, with octets changed, or right after all."""
        kind = dice.choice(list(LAYERS))
        # A client id by chance would be a session each; DISCONNECT and its like are made below.
        if kind == sn.CONNECT:
            octets = frame(kind, cleansess=dice.randrange(2), will=dice.randrange(2), prot_id=1, duration=600,
                           client_id=dice.choice([b"spoiler", b"other"]))
        else:
            octets = bytes(sn.MQTTSN(type=kind) / fuzz(LAYERS[kind]()))
        octets = bytearray(octets)
        how = dice.randrange(6)
        if how == 0:
            del octets[dice.randrange(1, len(octets)):]
        elif how == 1:
            octets += dice.randbytes(dice.randrange(1, 40))
        elif how == 2:
            for _ in range(dice.randrange(1, 4)):
                octets[dice.randrange(len(octets))] = dice.randrange(256)
        elif how == 3:
            octets[0] = len(octets) & 0xFF
        elif how == 4:
            octets = bytearray(wire.wrap(dice.randbytes(dice.randrange(1, 5)), bytes(octets), dice.randrange(4)))
        return bytes(octets[:1400]) or b"\0"
