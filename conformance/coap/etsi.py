"""The cases of the ETSI CoAP plugtests that a broker can serve, byte by byte over a socket.

A test's name begins with the number of its case: `test_core_01_…` is TD_COAP_CORE_01. `README.md` lists all cases; those
that do not apply are there with the reason, and what the gateway does in their place is tested all the same.
"""

import pathlib
import re
import unittest

import harness
from coap.kit.wire import (ACCEPT, ACK, BLOCK1, BLOCK2, CON, CONTENT_FORMAT, DELETE, ETAG, GET, IF_MATCH, IF_NONE_MATCH,
                           LOCATION_PATH, LOCATION_QUERY, NON, OBSERVE, POST, PUT, RST, Message, Peer, block)

CASES = [f"{area}_{number:02}" for area, last in (("core", 23), ("link", 9), ("block", 6), ("obs", 10))
         for number in range(1, last + 1)]
TEXT, XML, LINKS, JSON = 0, 41, 40, 50


class Case(unittest.TestCase):
    """A gateway, a device, and a topic that no other test uses."""

    overrides = {}

    @classmethod
    def setUpClass(cls):
        cls.server = harness.Tidegate({"coap.listeners.udp.anonymous": "always"} | cls.overrides)
        cls.server.__enter__()
        cls.addClassCleanup(lambda: cls.server.__exit__(None))

    def setUp(self):
        self.device = self.peer()
        self.topic = self.id().rsplit(".", 1)[1][:60]
        self.uri = f"/ps/{self.topic}"

    def peer(self):
        peer = Peer(self.server.port("coap"))
        self.addCleanup(peer.link.close)
        return peer

    def put(self, payload, uri=None, form=TEXT, **words):
        """Puts a value by another client."""
        response = self.peer().ask(PUT, (uri or self.uri) + "?retain=true", payload, options=[(CONTENT_FORMAT, form)],
                                   **words)
        self.assertEqual(response.says, "2.04", response)

    def is_answer(self, request, response, says):
        """A piggybacked response to a Confirmable request, one of its own to another."""
        self.assertEqual((response.says, response.token), (says, request.token), response)
        if request.kind == CON:
            self.assertEqual((response.kind, response.id), (ACK, request.id), response)
        else:
            self.assertEqual(response.kind, NON, response)

    def does(self, method, says, kind, payload=b"", form=None):
        options = [] if form is None else [(CONTENT_FORMAT, form)]
        request = self.device.request(method, self.uri, payload, kind=kind, options=options)
        response = self.device.exchange(request)
        self.is_answer(request, response, says)
        return response

    def value(self):
        """What is kept at the topic: payload and format."""
        response = self.peer().ask(GET, self.uri)
        return (response.payload, response.uint(CONTENT_FORMAT)) if response.says == "2.05" else None


class Table(unittest.TestCase):
    def test_every_case_is_played_or_stands_in_the_table_with_the_reason(self):
        tests = {match.group(1) for suite in (Core, Separate, Links, Blocks, Observing, Repeated)
                 for name in dir(suite) if (match := re.match(r"test_([a-z]+_\d\d)_", name))}
        self.assertEqual(sorted(tests), sorted(CASES))
        text = (pathlib.Path(__file__).parent / "README.md").read_text()
        rows = re.findall(r"^\| ([A-Z]+_\d\d) \| (yes|no|in part) \| .{10,} \|$", text, re.M)
        self.assertEqual([name.lower() for name, _ in rows], CASES)


class Core(Case):
    def test_core_01_a_get_is_answered_in_its_acknowledgement(self):
        self.put(b"value")
        response = self.does(GET, "2.05", CON)
        self.assertEqual((response.payload, response.uint(CONTENT_FORMAT)), (b"value", TEXT))

    def test_core_02_a_delete_is_answered_in_its_acknowledgement(self):
        self.put(b"value")
        self.assertEqual(self.does(DELETE, "2.02", CON).payload, b"")
        self.assertIsNone(self.value())

    def test_core_03_a_put_is_answered_in_its_acknowledgement(self):
        self.uri += "?retain=true"
        self.does(PUT, "2.04", CON, b"new", JSON)
        self.assertEqual(self.value_of(), (b"new", JSON))

    def test_core_04_a_post_is_answered_in_its_acknowledgement(self):
        self.uri += "?retain=true"
        self.does(POST, "2.04", CON, b"new", JSON)
        self.assertEqual(self.value_of(), (b"new", JSON))

    def test_core_05_a_non_confirmable_get_is_answered_with_a_non_confirmable_response(self):
        self.put(b"value")
        response = self.does(GET, "2.05", NON)
        self.assertEqual((response.payload, response.uint(CONTENT_FORMAT)), (b"value", TEXT))

    def test_core_06_a_non_confirmable_delete_is_answered_with_a_non_confirmable_response(self):
        self.put(b"value")
        self.does(DELETE, "2.02", NON)
        self.assertIsNone(self.value())

    def test_core_07_a_non_confirmable_put_is_answered_with_a_non_confirmable_response(self):
        self.uri += "?retain=true"
        self.does(PUT, "2.04", NON, b"new", TEXT)
        self.assertEqual(self.value_of(), (b"new", TEXT))

    def test_core_08_a_non_confirmable_post_is_answered_with_a_non_confirmable_response(self):
        self.uri += "?retain=true"
        self.does(POST, "2.04", NON, b"new", TEXT)
        self.assertEqual(self.value_of(), (b"new", TEXT))

    def value_of(self):
        self.uri = self.uri.partition("?")[0]
        return self.value()

    def test_core_10_a_token_of_one_to_eight_bytes_comes_back(self):
        self.put(b"value")
        for length in range(1, 9):
            request = self.device.request(GET, self.uri, token=bytes(range(length)))
            self.is_answer(request, self.device.exchange(request), "2.05")

    def test_core_12_an_empty_token_comes_back_empty(self):
        self.put(b"value")
        request = self.device.request(GET, self.uri, token=b"")
        response = self.device.exchange(request)
        self.is_answer(request, response, "2.05")
        self.assertEqual(response.payload, b"value")

    def test_core_13_each_uri_path_option_is_a_level(self):
        self.put(b"deep", self.uri + "/seg1/seg2/seg3")
        self.put(b"not so deep", self.uri + "/seg1/seg2")
        request = self.device.request(GET, self.uri + "/seg1/seg2/seg3")
        response = self.device.exchange(request)
        self.is_answer(request, response, "2.05")
        self.assertEqual(response.payload, b"deep")

    def test_core_14_each_uri_query_option_is_heard(self):
        request = self.device.request(PUT, self.uri + "?qos=1&retain=true&expiry=60", b"value")
        self.is_answer(request, self.device.exchange(request), "2.04")
        response = self.does(GET, "2.05", CON)
        self.assertEqual(response.payload, b"value")
        self.assertLessEqual(response.uint(14), 60)

    def test_core_15_a_request_that_comes_again_is_answered_again_and_done_once(self):
        observer = self.peer()
        token = observer.observe(self.uri).token
        request = self.device.request(PUT, self.uri, b"once")
        answers = [self.device.exchange(request) for _ in range(3)]
        self.assertEqual(answers[1:], answers[:1] * 2)
        self.is_answer(request, answers[0], "2.04")
        self.assertEqual(observer.notification(token).payload, b"once")
        observer.silence()

    def test_core_18_a_created_resource_has_no_place_of_its_own(self):
        response = self.does(POST, "2.04", CON, b"new", TEXT)
        self.assertEqual(response.all(LOCATION_PATH), [])

    def test_core_19_a_created_resource_has_no_query_of_its_own(self):
        response = self.does(POST, "2.04", CON, b"new", TEXT)
        self.assertEqual(response.all(LOCATION_QUERY), [])

    def test_core_20_accept_is_heard(self):
        for form, payload in ((TEXT, b"text"), (XML, b"<xml/>")):
            self.put(payload, form=form)
            for accept in (TEXT, XML):
                request = self.device.request(GET, self.uri, options=[(ACCEPT, accept)])
                response = self.device.exchange(request)
                self.is_answer(request, response, "2.05" if accept == form else "4.06")
                if accept == form:
                    self.assertEqual((response.payload, response.uint(CONTENT_FORMAT)), (payload, form))

    def test_core_21_an_etag_is_heard_when_it_is_that_of_the_value(self):
        self.put(b"value")
        request = self.device.request(GET, self.uri, options=[(ETAG, b"\x0e")])
        response = self.device.exchange(request)
        self.is_answer(request, response, "2.05")
        self.assertEqual(response.payload, b"value")
        [tag] = response.all(ETAG)
        request = self.device.request(GET, self.uri, options=[(ETAG, b"\x0e"), (ETAG, tag)])
        response = self.device.exchange(request)
        self.is_answer(request, response, "2.03")
        self.assertEqual((response.payload, [*response.all(ETAG)]), (b"", [tag]))
        self.put(b"another")
        request = self.device.request(GET, self.uri, options=[(ETAG, tag)])
        self.is_answer(request, self.device.exchange(request), "2.05")

    def conditional(self, number, value):
        self.put(b"value")
        request = self.device.request(PUT, self.uri + "?retain=true", b"other", options=[(number, value)])
        self.is_answer(request, self.device.exchange(request), "4.02")
        self.assertEqual(self.value(), (b"value", TEXT))

    def test_core_22_if_match_is_refused_and_changes_nothing(self):
        self.conditional(IF_MATCH, b"\x0e")

    def test_core_23_if_none_match_is_refused_and_changes_nothing(self):
        self.conditional(IF_NONE_MATCH, b"")

    def test_a_ping_is_answered_with_a_reset(self):
        self.device.send(Message(CON, 0, 4711))
        self.assertEqual(self.device.receive(), Message(RST, 0, 4711))

    def test_what_is_malformed_is_reset_when_it_is_confirmable_and_ignored_otherwise(self):
        for kind, name in ((CON, "con"), (NON, "non")):
            for rest in (b"\xff", b"\xf0\x01", b"\x0f", b"\x5bx"):
                self.device.send(bytes([0x40 | kind << 4, GET, 9, kind]) + rest)
                if kind == CON:
                    self.assertEqual(self.device.receive(), Message(RST, 0, 9 << 8 | kind), (name, rest))
        self.device.silence()


class Separate(Case):
    """A password that is checked behind many others takes longer than `processing_delay`: such a response comes by itself."""

    overrides = {"coap.processing_delay": "100 ms", "coap.ack_timeout": "500 ms", "coap.max_retransmit": 3}

    def setUp(self):
        super().setUp()
        self.put(b"slow")
        self.slow_uri = f"{self.uri}?c={self.topic}&u=alice&p=secret%20of%20alice".replace("%20", " ")

    def slow(self, kind=CON, token=None):
        """A request that waits for its turn; it was acknowledged if it asks for that. Where the machine was faster than the
        gateway's patience, the next one has to wait longer."""
        for others in (12, 24, 48, 96):
            for number in range(others):
                other = self.peer()
                other.send(other.request(GET, f"/ps/x?c=other{number}&u=alice&p=wrong{number}"))
            request = self.device.request(GET, self.slow_uri, kind=kind, token=token)
            self.device.send(request)
            if kind != CON:
                return request
            first = self.device.receive(10)
            if first == Message(ACK, 0, request.id):
                return request
            self.is_answer(request, first, "2.05")
            self.device = self.peer()
        raise AssertionError("no response is late")

    def response(self, request, kind=CON):
        response = self.device.receive(20)
        self.is_late(response, request, kind)
        return response

    def is_late(self, response, request, kind=CON):
        self.assertEqual((response.kind, response.says, response.token, response.payload),
                         (kind, "2.05", request.token, b"slow"))
        self.assertEqual(response.uint(CONTENT_FORMAT), TEXT)

    def test_core_09_a_late_response_comes_by_itself(self):
        request = self.slow(token=b"")
        self.device.acknowledge(self.response(request))
        self.device.silence(1.5)

    def test_core_11_a_late_response_has_the_token(self):
        request = self.slow(token=b"8 bytes.")
        self.device.acknowledge(self.response(request))
        self.device.silence(1.5)

    def test_core_16_a_late_response_survives_loss(self):
        request = self.slow()
        # The acknowledgement of the request is lost: the request comes again. The response is lost, then its acknowledgement.
        self.device.send(request)
        came = []
        while sum(message.code != 0 for message in came) < 3:
            came.append(self.device.receive(20))
            self.assertIsNotNone(came[-1], came)
        acknowledgements = [message for message in came if message.code == 0]
        self.assertLessEqual(len(acknowledgements), 1)
        self.assertEqual(acknowledgements, [Message(ACK, 0, request.id)] * len(acknowledgements))
        first, *others = [message for message in came if message.code != 0]
        self.is_late(first, request)
        self.assertEqual(others, [first, first])
        self.device.acknowledge(first)
        self.device.silence(2.5)

    def test_core_17_a_late_response_to_a_non_confirmable_request_is_not_announced(self):
        request = self.slow(kind=NON)
        self.response(request, NON)
        self.device.silence(1.5)


class Links(Case):
    def setUp(self):
        super().setUp()
        for name, form in (("link1", TEXT), ("link2", JSON), ("other", TEXT)):
            self.put(b"value", f"{self.uri}/{name}", form)

    def links(self, query=""):
        """Target and attributes of each link."""
        request = self.device.request(GET, "/.well-known/core" + query)
        response = self.device.exchange(request)
        self.is_answer(request, response, "2.05")
        self.assertEqual(response.uint(CONTENT_FORMAT), LINKS)
        found = {}
        for link in response.payload.decode().split(",") if response.payload else []:
            target, *attributes = link.split(";")
            self.assertRegex(target, r"^<[^<>]*>$")
            self.assertNotIn(target[1:-1], found)
            found[target[1:-1]] = dict((word.split("=", 1) + [""])[:2] for word in attributes)
        return found

    def test_link_01_what_is_served_is_listed(self):
        links = self.links()
        self.assertLessEqual({"/ps", "/mqtt/connection", f"{self.uri}/link1", f"{self.uri}/link2"}, set(links))
        self.assertEqual(links[f"{self.uri}/link2"], {"ct": str(JSON), "rt": '"tidegate.topic"', "obs": ""})

    def test_link_02_a_type_is_filtered_by(self):
        self.assertEqual(set(self.links("?rt=core.ps")), {"/ps"})
        topics = self.links("?rt=tidegate.topic")
        self.assertEqual({links["rt"] for links in topics.values()}, {'"tidegate.topic"'})
        self.assertIn(f"{self.uri}/other", topics)

    def test_link_03_an_empty_prefix_finds_what_has_the_attribute(self):
        self.assertEqual(self.links("?rt=*"), self.links())
        self.assertNotIn("/mqtt/connection", self.links("?ct=*"))

    def test_link_04_a_type_that_nothing_has_finds_nothing(self):
        self.assertEqual(self.links("?rt=Type2"), {})

    def test_link_05_a_prefix_is_filtered_by(self):
        self.assertEqual(set(self.links("?rt=core*")), {"/ps"})
        self.assertEqual(self.links("?if=If*"), {})

    def test_link_06_an_attribute_that_nothing_has_finds_nothing(self):
        self.assertEqual(self.links("?sz=*"), {})

    def test_link_07_a_target_is_filtered_by(self):
        self.assertEqual(set(self.links(f"?href={self.uri}/link1")), {f"{self.uri}/link1"})

    def test_link_08_a_prefix_of_a_target_is_filtered_by(self):
        self.assertEqual(set(self.links(f"?href={self.uri}/link*")), {f"{self.uri}/link1", f"{self.uri}/link2"})

    def test_link_09_what_is_listed_can_be_read(self):
        self.assertEqual(self.links("?href=/ps")["/ps"]["ct"], str(LINKS))
        for target, attributes in self.links(f"?href={self.uri}*").items():
            response = self.device.ask(GET, target)
            self.assertEqual((response.says, response.payload), ("2.05", b"value"))
            self.assertEqual(response.uint(CONTENT_FORMAT), int(attributes["ct"]))


class Blocks(Case):
    def setUp(self):
        super().setUp()
        self.large = bytes(number * 7 & 255 for number in range(5000))

    def upload(self, method, size, at_most=64, uri=None, options=()):
        """Sends the large value in blocks; the last response."""
        number = 0
        while True:
            part = self.large[number * size:(number + 1) * size]
            more = (number + 1) * size < len(self.large)
            request = self.device.request(method, uri or self.uri, part, options=[
                (CONTENT_FORMAT, JSON), (BLOCK1, block(number, more, size)), *(options if not more else ())])
            response = self.device.exchange(request)
            self.is_answer(request, response, "2.31" if more else "2.04")
            said = response.block(BLOCK1)
            self.assertEqual(said[:2], (number, more))
            self.assertLessEqual(said[2], size)
            if not more:
                return response
            # The gateway may want smaller blocks from the first answer on.
            number, size = ((number + 1) * size // said[2], said[2])

    def download(self, uri, size=None, late=None):
        """Reads a value in blocks: `size` asked for at once, or `late` after the first response."""
        got, number = b"", 0
        while True:
            options = [] if size is None else [(BLOCK2, block(number, False, size))]
            request = self.device.request(GET, uri, options=options)
            response = self.device.exchange(request)
            self.is_answer(request, response, "2.05")
            said = response.block(BLOCK2)
            self.assertEqual(said[0], number)
            if size is not None:
                self.assertLessEqual(said[2], size)
            if said[1]:
                self.assertEqual(len(response.payload), said[2])
            self.assertLessEqual(len(response.payload), said[2])
            got += response.payload
            if not said[1]:
                return got
            size = min(said[2], late or said[2])
            number = len(got) // size

    def test_block_01_a_large_value_is_read_in_the_blocks_that_were_asked_for(self):
        self.upload(PUT, 1024, uri=self.uri + "?retain=true")
        for size in (64, 256, 1024):
            self.assertEqual(self.download(self.uri, size), self.large)

    def test_block_02_a_large_value_comes_in_blocks_and_smaller_ones_if_they_are_asked_for_then(self):
        self.upload(PUT, 1024, uri=self.uri + "?retain=true")
        self.assertEqual(self.download(self.uri), self.large)
        self.assertEqual(self.download(self.uri, late=128), self.large)

    def test_block_03_a_large_value_is_put_in_blocks_and_published_once(self):
        observer = self.peer()
        token = observer.observe(self.uri).token
        for size in (64, 1024):
            self.upload(PUT, size, uri=self.uri + "?retain=true")
            told = observer.notification(token)
            self.assertEqual(told.payload, self.large[:len(told.payload)])
            observer.silence()
            self.assertEqual(self.download(self.uri), self.large)

    def test_block_04_a_large_value_is_posted_in_blocks(self):
        self.upload(POST, 512, uri=self.uri + "?retain=true")
        self.assertEqual(self.download(self.uri), self.large)

    def test_block_05_a_post_in_blocks_has_an_answer_that_fits(self):
        response = self.upload(POST, 256, options=[(BLOCK2, block(0, False, 64))])
        self.assertEqual(response.payload, b"")

    def test_block_06_a_large_value_is_read_in_blocks_of_16_bytes(self):
        self.upload(PUT, 1024, uri=self.uri + "?retain=true")
        self.assertEqual(self.download(self.uri, 16), self.large)


class Observers(Case):
    def setUp(self):
        super().setUp()
        self.sequence = -1

    def begin(self, uri=None, **words):
        self.put(b"0")
        response = self.device.observe(uri or self.uri, **words)
        self.assertEqual((response.kind, response.says, response.uint(CONTENT_FORMAT)), (ACK, "2.05", TEXT))
        self.sequence = response.uint(OBSERVE)
        return response.token

    def told(self, token, payload, kind=CON, answer=True):
        told = self.device.notification(token, answer=answer)
        self.assertEqual((told.kind, told.says, told.payload), (kind, "2.05", payload))
        self.assertEqual(told.uint(CONTENT_FORMAT), TEXT)
        # Serial numbers modulo 2**24 (RFC 7641, 3.4).
        self.assertLess((told.uint(OBSERVE) - self.sequence - 1) % 2**24, 2**23)
        self.sequence = told.uint(OBSERVE)
        return told

    def is_observed(self):
        return any(s["filter"] == self.topic for s in self.server.items("subscriptions"))

    def ends(self):
        harness.until(lambda: not self.is_observed(), "the observation ended")
        self.put(b"after the end")
        self.device.silence()


class Observing(Observers):
    """A client that answers: it has the time of RFC 7252, 4.8.2 for that, and nothing comes twice."""

    def test_obs_01_confirmable_notifications_come_in_order(self):
        token = self.begin()
        for number in range(1, 8):
            self.put(b"%d" % number)
            self.told(token, b"%d" % number)

    def test_obs_02_non_confirmable_notifications_come_in_order(self):
        token = self.begin(self.uri + "?qos=0")
        for number in range(1, 5):
            self.put(b"%d" % number)
            self.told(token, b"%d" % number, NON)
        # Who has not authenticated confirms every fifth (RFC 7641, 7).
        self.put(b"5")
        self.told(token, b"5", CON)

    def test_obs_03_a_reset_of_a_non_confirmable_notification_ends_it(self):
        token = self.begin(self.uri + "?qos=0")
        self.put(b"1")
        self.device.reset(self.told(token, b"1", NON))
        self.ends()

    def test_obs_04_a_client_may_register_again_with_the_same_token(self):
        token = self.begin()
        self.assertEqual(self.device.observe(self.uri, token=token).payload, b"0")
        self.put(b"1")
        self.sequence = -1
        self.told(token, b"1")
        self.device.silence()

    def test_obs_06_a_reset_of_a_confirmable_notification_ends_it(self):
        token = self.begin()
        self.put(b"1")
        self.device.reset(self.told(token, b"1", answer=False))
        self.ends()

    def test_obs_07_the_observers_of_a_deleted_value_hear_of_it_and_stay(self):
        token = self.begin()
        self.assertEqual(self.peer().ask(DELETE, self.uri).says, "2.02")
        gone = self.device.notification(token)
        self.assertEqual((gone.says, gone.payload), ("2.05", b""))
        self.sequence = gone.uint(OBSERVE)
        self.put(b"1")
        self.told(token, b"1")

    def test_obs_08_a_change_of_the_format_ends_the_observation(self):
        # RFC 7641, 4.2: all notifications are of the format of the first one.
        token = self.begin()
        self.put(b"{}", form=JSON)
        told = self.device.notification(token)
        self.assertEqual((told.says, told.payload, told.uint(OBSERVE)), ("4.06", b"", None))
        self.put(b"1")
        self.device.silence()

    def test_obs_09_an_update_is_the_next_notification(self):
        token = self.begin()
        request = self.device.request(PUT, self.uri, b"mine", options=[(CONTENT_FORMAT, TEXT)])
        self.is_answer(request, self.device.exchange(request), "2.04")
        self.told(token, b"mine")

    def test_obs_10_a_get_does_not_end_it(self):
        token = self.begin()
        response = self.device.ask(GET, self.uri)
        self.assertEqual((response.says, response.payload, response.uint(OBSERVE)), ("2.05", b"0", None))
        self.put(b"1")
        self.told(token, b"1")

    def test_a_get_with_observe_1_ends_it(self):
        token = self.begin()
        response = self.device.ask(GET, self.uri, token=token, options=[(OBSERVE, 1)])
        self.assertEqual((response.says, response.payload, response.uint(OBSERVE)), ("2.05", b"0", None))
        self.ends()


class Repeated(Observers):
    """What a client that does not answer is sent again: soon here, and twice."""

    overrides = {"coap.ack_timeout": "500 ms", "coap.max_retransmit": 2}

    def test_obs_05_a_client_that_is_off_is_given_up_after_all_retries(self):
        token = self.begin()
        self.put(b"1")
        first = self.told(token, b"1", answer=False)
        self.assertEqual([self.device.receive(), self.device.receive()], [first, first])
        self.ends()

    def test_two_confirmable_notifications_are_never_on_their_way(self):
        token = self.begin()
        for number in range(1, 4):
            self.put(b"%d" % number)
        for number in range(1, 4):
            first = self.told(token, b"%d" % number, answer=False)
            # Nothing but the same one, until it is acknowledged.
            self.assertEqual(self.device.receive(), first)
            self.device.acknowledge(first)


if __name__ == "__main__":
    unittest.main()
