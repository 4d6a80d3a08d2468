"""What a terminal of JT/T 808 meets at the gateway: codes, wrong codes, take-over, silence, commands."""

import time
import unittest

from tcp.kit import jt808
from tcp.kit.gateway import Gateway
from tcp.kit.peer import Heard, Terminal
from tcp.kit.watch import Watch

LOGIN_TIMEOUT, KEEP_ALIVE = 2, 3


class Jt808(unittest.TestCase):
    phones = iter(range(13_800_000_000, 13_900_000_000))

    @classmethod
    def setUpClass(cls):
        more = {"login_timeout": f"{LOGIN_TIMEOUT} s", "keep_alive": f"{KEEP_ALIVE} s", "command_timeout": "1 s",
                "command_retries": 1}
        cls.server = Gateway(("jt808",), more).__enter__()
        cls.addClassCleanup(cls.server.__exit__, None, None, None)
        cls.heard = Heard()
        cls.watch = Watch(cls.server.port("tcp"), cls.heard)
        cls.addClassCleanup(cls.watch.close)

    def setUp(self):
        self.phone = str(next(self.phones))

    def terminal(self, is_2019=False):
        peer = Terminal(self.server.port("jt808"), self.phone, is_2019)
        self.addCleanup(peer.__exit__)
        return peer

    def locates(self, peer, number):
        """What the terminal says now is published and answered."""
        self.assertEqual(peer.ask(peer.speaker.locations([number])), jt808.DONE)
        self.assertEqual(jt808.number_of(self.heard.next(self.phone, "location")), number)

    def test_a_terminal_of_2013_and_one_of_2019_register_authenticate_and_say_where_they_are(self):
        for is_2019 in (False, True):
            peer = self.terminal(is_2019)
            peer.log_in()
            self.assertEqual(self.heard.next(self.phone, "register")["plate"], "粤B12345")
            peer.ask(peer.speaker.locations([7]))
            value = self.heard.next(self.phone, "location")
            self.assertEqual((value["lat"], value["lon"], value["speed"]), (22.500007, 113.9, 60.0))
            self.assertEqual(value["time"], "2026-11-21T12:00:00+08:00")
            self.phone = str(next(self.phones))

    def test_a_wrong_code_is_refused_with_1_and_the_line_ends(self):
        self.terminal().log_in()
        peer = self.terminal()
        self.assertEqual(peer.ask(peer.speaker.authenticate(b"not it")), jt808.FAILED)
        self.assertTrue(peer.is_closed())

    def test_a_code_that_was_never_issued_is_refused(self):
        peer = self.terminal()
        self.assertEqual(peer.ask(peer.speaker.authenticate(b"1234")), jt808.FAILED)
        self.assertTrue(peer.is_closed())

    def test_the_code_lets_it_in_again_and_again_also_after_the_gateway_was_killed(self):
        peer = self.terminal()
        code = peer.log_in()
        self.locates(peer, 1)
        self.terminal().log_in(code)
        self.server.killed()
        peer = self.terminal()
        peer.log_in(code)
        self.assertEqual(peer.ask(peer.speaker.locations([2])), jt808.DONE)
        # MQTT may say again what was said before the kill.
        while (number := jt808.number_of(self.heard.next(self.phone, "location"))) != 2:
            self.assertEqual(number, 1)

    def test_who_registers_again_gets_another_code_and_the_first_one_is_void(self):
        peer = self.terminal()
        first = peer.log_in()
        second = peer.register()
        self.assertNotEqual(first, second)
        self.terminal().log_in(second)
        peer = self.terminal()
        self.assertEqual(peer.ask(peer.speaker.authenticate(first)), jt808.FAILED)

    def test_who_authenticates_twice_is_answered_twice_and_goes_on(self):
        peer = self.terminal()
        code = peer.log_in()
        self.assertEqual(peer.ask(peer.speaker.authenticate(code)), jt808.DONE)
        self.locates(peer, 1)

    def test_a_second_line_takes_over_from_the_first(self):
        first = self.terminal()
        code = first.log_in()
        second = self.terminal()
        second.log_in(code)
        self.assertTrue(first.is_closed())
        self.locates(second, 1)

    def test_who_never_says_who_it_is_and_who_falls_silent_are_closed(self):
        stranger, device = self.terminal(), self.terminal()
        device.log_in()
        began = time.monotonic()
        self.assertTrue(stranger.is_closed())
        self.assertGreater(time.monotonic() - began, LOGIN_TIMEOUT - 1)
        # A heartbeat is a sign of life.
        self.assertEqual(device.ask(device.speaker.message(jt808.HEARTBEAT)), jt808.DONE)
        began = time.monotonic()
        self.assertTrue(device.is_closed())
        self.assertGreater(time.monotonic() - began, KEEP_ALIVE - 1)

    def test_a_frame_with_a_bit_turned_over_is_not_answered_and_the_next_one_is(self):
        peer = self.terminal()
        peer.log_in()
        _, frame = peer.speaker.locations([1])
        spoilt = bytearray(frame)
        spoilt[20] ^= 1
        peer.say(bytes(spoilt))
        self.assertTrue(peer.is_silent())
        self.locates(peer, 2)

    def test_what_a_command_comes_to_is_on_up_reply_with_its_id(self):
        peer = self.terminal()
        peer.log_in()
        for result in (jt808.DONE, jt808.FAILED):
            self.watch.tell(self.phone, "text", {"id": result, "text": "粤B"})
            message = peer.next()
            self.assertEqual((message.kind, peer.speaker.text_of(message)), (jt808.TEXT, "粤B"))
            peer.say(peer.speaker.reply(message, result)[1])
            outcome = self.heard.next(self.phone, "reply")
            self.assertEqual((outcome["id"], outcome["ok"]), (result, result == jt808.DONE))

    def test_a_command_that_is_not_answered_is_said_again_and_then_given_up(self):
        peer = self.terminal()
        peer.log_in()
        self.watch.tell(self.phone, "text", {"id": "x", "text": "hello"})
        self.assertEqual(peer.next(), peer.next())
        outcome = self.heard.next(self.phone, "reply")
        self.assertEqual((outcome["id"], outcome["ok"], outcome["error"]), ("x", False, "timeout"))

    def test_a_command_waits_for_a_terminal_that_is_away(self):
        peer = self.terminal()
        code = peer.log_in()
        peer.__exit__()
        self.watch.tell(self.phone, "text", {"id": 1, "text": "later"}).wait_for_publish(5)
        peer = self.terminal()
        peer.log_in(code)
        message = peer.next()
        self.assertEqual(peer.speaker.text_of(message), "later")
        peer.say(peer.speaker.reply(message)[1])
        outcome = self.heard.next(self.phone, "reply")
        self.assertEqual((outcome["id"], outcome["ok"]), (1, True))


if __name__ == "__main__":
    unittest.main()
