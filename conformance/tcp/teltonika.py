"""What a tracker of Teltonika meets at the gateway: refusal, take-over, silence, commands, and UDP."""

import socket
import struct
import unittest

import harness
from tcp.kit import teltonika
from tcp.kit.gateway import Gateway
from tcp.kit.peer import PATIENCE, Heard, Tracker
from tcp.kit.watch import Watch

LOGIN_TIMEOUT, KEEP_ALIVE = 2, 3


class Teltonika(unittest.TestCase):
    numbers = iter(range(10_000))

    @classmethod
    def setUpClass(cls):
        more = {"login_timeout": f"{LOGIN_TIMEOUT} s", "keep_alive": f"{KEEP_ALIVE} s", "command_timeout": "1 s",
                "command_retries": 1}
        cls.server = Gateway(("teltonika",), more)
        cls.server.listener("udp", codec="teltonika", transport="udp")
        cls.server.listener("closed", codec="teltonika", anonymous="never")
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__, None, None, None)
        cls.heard = Heard()
        cls.watch = Watch(cls.server.port("tcp"), cls.heard)
        cls.addClassCleanup(cls.watch.close)

    def setUp(self):
        self.imei = teltonika.luhn(f"3520930864{next(self.numbers):04}")

    def tracker(self, listener="teltonika"):
        peer = Tracker(self.server.port(listener), self.imei)
        self.addCleanup(peer.__exit__)
        return peer

    def records(self, peer, numbers, codec=teltonika.CODEC_8):
        """What the tracker says now is published and counted."""
        self.assertEqual(peer.ask(numbers, codec), len(numbers))
        for number in numbers:
            value = self.heard.next(self.imei, "location")
            self.assertEqual(teltonika.number_of(value), number)
        return value

    def test_records_of_every_codec_are_published_each_and_counted(self):
        peer = self.tracker()
        peer.log_in()
        for codec in (teltonika.CODEC_8, teltonika.CODEC_8E, teltonika.CODEC_16):
            value = self.records(peer, [5, 6, 7], codec)
            self.assertEqual(value["timestamp"], "2025-11-21T12:00:07.000Z")
            self.assertEqual(value["gps"], {"lat": 54.69, "lon": 25.2700007, "altitude": 120, "angle": 90, "satellites": 9,
                                            "speed": 60, "valid": True})
            self.assertEqual(value["io"], {"199": 7, "239": 1})

    def test_who_may_not_come_in_is_told_0_and_the_line_ends(self):
        peer = self.tracker("closed")
        peer.say(teltonika.login(self.imei))
        self.assertEqual(peer.read(1), b"\0")
        self.assertTrue(peer.is_closed())

    def test_records_before_the_login_are_neither_published_nor_counted(self):
        peer = self.tracker()
        peer.say(teltonika.records(teltonika.CODEC_8, [1]))
        self.assertTrue(peer.is_silent())
        peer.log_in()
        self.records(peer, [2])

    def test_a_wrong_crc_is_not_counted_and_the_packet_after_it_is(self):
        peer = self.tracker()
        peer.log_in()
        spoilt = bytearray(teltonika.records(teltonika.CODEC_8, [1]))
        spoilt[30] ^= 1
        peer.say(bytes(spoilt))
        self.assertTrue(peer.is_silent())
        self.records(peer, [2])

    def test_who_says_its_imei_twice_goes_on(self):
        peer = self.tracker()
        peer.log_in()
        peer.log_in()
        self.records(peer, [1])

    def test_a_second_line_takes_over_from_the_first(self):
        first, second = self.tracker(), self.tracker()
        first.log_in()
        second.log_in()
        self.assertTrue(first.is_closed())
        self.records(second, [1])

    def test_who_never_says_its_imei_and_who_falls_silent_are_closed(self):
        half, device = self.tracker(), self.tracker()
        half.say(teltonika.login(self.imei)[:9])
        device.log_in()
        self.assertTrue(half.is_closed())
        # A byte that keeps the line open.
        device.say(b"\xff")
        self.assertTrue(device.is_silent(KEEP_ALIVE - 1))
        self.assertTrue(device.is_closed())

    def test_what_is_no_packet_ends_the_line(self):
        peer = self.tracker()
        peer.log_in()
        peer.say(b"GET / HTTP/1.1\r\n\r\n")
        self.assertTrue(peer.is_closed())

    def test_commands_are_said_one_at_a_time_and_their_answers_come_with_their_ids(self):
        peer = self.tracker()
        peer.log_in()
        for order in (1, 2):
            self.watch.tell(self.imei, "command", {"id": order, "command": f"getparam {order}"})
        for order in (1, 2):
            self.assertEqual(peer.command(), f"getparam {order}")
            self.assertTrue(peer.is_silent(0.3))
            peer.say(teltonika.response(f"value {order}"))
            outcome = {"id": order, "kind": "command", "ok": True, "data": {"text": f"value {order}"}}
            self.assertEqual(self.heard.next(self.imei, "reply"), outcome)

    def test_a_command_is_plain_text_too_and_what_it_does_not_answer_is_given_up(self):
        peer = self.tracker()
        peer.log_in()
        self.watch.tell(self.imei, "command", "getinfo")
        self.assertEqual([peer.command(), peer.command()], ["getinfo", "getinfo"])
        outcome = {"kind": "command", "ok": False, "error": "timeout"}
        self.assertEqual(self.heard.next(self.imei, "reply"), outcome)

    def test_what_is_said_without_a_command_is_a_message(self):
        peer = self.tracker()
        peer.log_in()
        peer.say(teltonika.response("FUEL=12"))
        self.assertEqual(self.heard.next(self.imei, "message"), {"codec": 12, "type": 6, "text": "FUEL=12"})

    def test_over_udp_every_datagram_is_answered_with_its_ids(self):
        with socket.socket(type=socket.SOCK_DGRAM) as udp:
            udp.settimeout(PATIENCE)
            udp.connect((harness.HOST, self.server.port("udp")))
            for number in (1, 2, 2):
                udp.send(teltonika.datagram(0xcafe + number, number, self.imei, teltonika.CODEC_8E, [number, 9]))
                answer = struct.pack(">HHBBB", 5, 0xcafe + number, 1, number, 2)
                self.assertEqual(udp.recv(100), answer)
                for said in (number, 9):
                    self.assertEqual(teltonika.number_of(self.heard.next(self.imei, "location")), said)


if __name__ == "__main__":
    unittest.main()
