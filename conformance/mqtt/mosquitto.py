"""mosquitto_pub and mosquitto_sub, the clients that most scripts use."""

import contextlib
import subprocess
import unittest

import harness


class Mosquitto(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = harness.server()
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__, None, None, None)

    def words(self, words, listener):
        words = list(words) if "-V" in words else ["-V", "5", *words]
        return ["-h", "localhost" if listener in ("tls", "wss") else harness.HOST,
                "-p", str(self.server.port(listener)), *words]

    def pub(self, *words, listener="tcp", text=None, check=True):
        done = subprocess.run(["mosquitto_pub", *self.words(words, listener)], input=text, capture_output=True,
                              text=True, timeout=20)
        if check:
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(done.stderr, "")
        return done

    @contextlib.contextmanager
    def sub(self, *words, listener="tcp"):
        """A subscriber that is subscribed; `.lines(n)` reads what it printed."""
        process = subprocess.Popen(["stdbuf", "-oL", "mosquitto_sub", "-d", *self.words(words, listener)], text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            for line in process.stdout:
                if line.startswith("Subscribed"):
                    break
            else:
                raise AssertionError(f"mosquitto_sub {words} did not subscribe")
            yield Lines(process)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    def test_every_version_publishes_and_subscribes_at_every_quality_of_service(self):
        for version in ("31", "311", "5"):
            for qos in ("0", "1", "2"):
                with self.subTest(version=version, qos=qos):
                    topic = f"every/{version}/{qos}"
                    with self.sub("-V", version, "-q", qos, "-t", topic, "-F", "%t %q %p", "-W", "10") as sub:
                        self.pub("-V", version, "-q", qos, "-t", topic, "-m", "hello")
                        self.assertEqual(sub.lines(1), [f"{topic} {qos} hello"])

    def test_each_version_hears_the_others(self):
        with self.sub("-V", "31", "-t", "mixed", "-q", "2") as a, self.sub("-V", "311", "-t", "mixed", "-q", "2") as b, \
                self.sub("-V", "5", "-t", "mixed", "-q", "2") as c:
            for version in ("31", "311", "5"):
                self.pub("-V", version, "-q", "2", "-t", "mixed", "-m", f"from {version}")
            for sub in (a, b, c):
                self.assertEqual(sub.lines(3), ["from 31", "from 311", "from 5"])

    def test_a_thousand_lines_of_one_publisher_arrive_in_order(self):
        lines = [f"line {number}" for number in range(1000)]
        for qos in ("0", "1", "2"):
            with self.subTest(qos=qos), self.sub("-q", qos, "-t", f"order/{qos}") as sub:
                self.pub("-q", qos, "-t", f"order/{qos}", "-l", text="\n".join(lines) + "\n")
                self.assertEqual(sub.lines(1000), lines)

    def test_wildcards_match_by_level_and_not_what_begins_with_a_dollar(self):
        with self.sub("-t", "wild/+/x", "-t", "wild/deep/#", "-v") as sub, self.sub("-t", "#", "-v") as all_:
            for topic in ("wild/a/x", "wild/a/y", "wild/deep", "wild/deep/b/c", "$wild/a"):
                self.pub("-t", topic, "-m", "1")
            self.pub("-t", "wild/end/x", "-m", "1")
            self.assertEqual(sub.lines(4), ["wild/a/x 1", "wild/deep 1", "wild/deep/b/c 1", "wild/end/x 1"])
            seen = [line for line in all_.until("wild/end/x 1")]
            self.assertNotIn("$wild/a 1", seen)

    def test_a_retained_message_is_given_to_later_subscribers_until_an_empty_one_clears_it(self):
        self.pub("-t", "kept/a", "-m", "first", "-r")
        self.pub("-t", "kept/a", "-m", "second", "-r", "-q", "1")
        with self.sub("-t", "kept/+", "-q", "1", "-F", "%r %p") as sub:
            self.assertEqual(sub.lines(1), ["1 second"])
            self.pub("-t", "kept/a", "-m", "third", "-r")
            self.assertEqual(sub.lines(1), ["0 third"])
        self.pub("-t", "kept/a", "-n", "-r")
        with self.sub("-t", "kept/+", "-v") as sub:
            self.pub("-t", "kept/end", "-m", "1")
            self.assertEqual(sub.lines(1), ["kept/end 1"])

    def test_a_will_is_sent_for_who_is_cut_off_and_not_for_who_says_goodbye(self):
        for version in ("31", "311", "5"):
            will = ["--will-topic", f"will/{version}", "--will-payload", "gone", "--will-qos", "1"]
            with self.subTest(version=version), self.sub("-t", f"will/{version}") as sub:
                with self.sub("-V", version, "-t", "x", *will) as cut:
                    cut.process.kill()
                    self.assertEqual(sub.lines(1), ["gone"])
                self.pub("-V", version, *will, "-t", "x", "-m", "1")
                self.pub("-t", f"will/{version}", "-m", "end")
                self.assertEqual(sub.lines(1), ["end"])

    def test_a_shared_subscription_gives_each_message_to_one_member(self):
        with self.sub("-t", "$share/group/work", "-q", "1") as a, self.sub("-t", "$share/group/work", "-q", "1") as b, \
                self.sub("-t", "work") as all_:
            for number in range(20):
                self.pub("-t", "work", "-m", str(number), "-q", "1")
            self.assertEqual(all_.lines(20), [str(number) for number in range(20)])
            got = a.waiting() + b.waiting()
            self.assertEqual(sorted(map(int, got)), list(range(20)))
            self.assertTrue(a.waiting.seen and b.waiting.seen, "both work")

    def test_messages_of_a_kept_session_wait_for_it(self):
        for version in ("311", "5"):
            with self.subTest(version=version):
                kept = ["-V", version, "-i", f"kept-{version}", "-c", "-q", "1", "-t", f"wait/{version}"]
                kept += ["-x", "60"] if version == "5" else []
                with self.sub(*kept):
                    pass
                for number in range(3):
                    self.pub("-t", f"wait/{version}", "-q", "1", "-m", str(number))
                done = subprocess.run(["mosquitto_sub", *self.words([*kept, "-C", "3", "-W", "10"], "tcp")],
                                      capture_output=True, text=True, timeout=20)
                self.assertEqual(done.stdout.split(), ["0", "1", "2"])

    def test_properties_of_5_reach_the_subscriber(self):
        with self.sub("-t", "props", "-F", "%C|%D|%R|%P|%E|%p") as sub:
            self.pub("-t", "props", "-m", "body", "-D", "publish", "content-type", "text/plain",
                     "-D", "publish", "correlation-data", "c1", "-D", "publish", "response-topic", "answer/here",
                     "-D", "publish", "user-property", "k", "v", "-D", "publish", "message-expiry-interval", "60")
            line = sub.lines(1)[0]
        self.assertRegex(line, r"^text/plain\|c1\|answer/here\|k:v\|(60|59)\|body$")

    def test_over_tls_the_server_and_the_client_prove_who_they_are(self):
        ca = self.server.authority
        tls = ["--cafile", str(ca.ca)]
        device = [*tls, "--cert", str(ca.client), "--key", str(ca.client_key)]
        for version in ("tlsv1.2", "tlsv1.3"):
            with self.subTest(version=version), \
                    self.sub(*device, "--tls-version", version, "-t", "secret/#", listener="tls") as sub:
                self.pub(*(device if harness.is_mosquitto() else tls), "--tls-version", version, "-t", "secret/a", "-m", version, "-q", "1", listener="tls")
                self.assertEqual(sub.lines(1), [version])
                if not harness.is_mosquitto():
                    users = {client["user"] for client in self.server.items("clients", "list")}
                    self.assertIn("device-1", users, "the certificate's common name is the user")

    def test_a_certificate_of_another_authority_is_refused(self):
        folder = self.server.folder / "strangers"
        folder.mkdir(exist_ok=True)
        strange = harness.Authority(folder)
        done = self.pub("--cafile", str(self.server.authority.ca), "--cert", str(strange.client), "--key",
                        str(strange.client_key), "-t", "x", "-m", "1", "-q", "1", listener="tls", check=False)
        self.assertNotEqual(done.returncode, 0)
        done = self.pub("--cafile", str(strange.ca), "-t", "x", "-m", "1", "-q", "1", listener="tls", check=False)
        self.assertNotEqual(done.returncode, 0, "nor does a client accept a server it does not know")

    def test_a_wrong_password_is_refused_with_the_code_of_the_version(self):
        right = ["-u", "alice", "-P", harness.USERS["alice"]]
        self.pub(*right, "-t", "x", "-m", "1", listener="login")
        wrong = ["-u", "alice", "-P", "wrong"]
        refusals = {("5", *wrong): ("bad user name or password", "not authorized"), ("5",): ("not authorized",),
                    ("311", *wrong): ("connection refused: bad user name or password", "connection refused: not authorised"),
                    ("31",): ("connection refused: not authorised",)}
        for (version, *words), texts in refusals.items():
            done = self.pub("-V", version, *words, "-t", "x", "-m", "1", listener="login", check=False)
            self.assertNotEqual(done.returncode, 0)
            self.assertTrue(any(text in done.stderr.lower() for text in texts), (version, words, done.stderr))

    def test_a_message_of_a_mebibyte_arrives_as_it_was(self):
        body = "0123456789abcdef" * 60_000
        with self.sub("-t", "big", "-q", "1") as sub:
            file = self.server.folder / "big"
            file.write_text(body)
            self.pub("-t", "big", "-q", "1", "-f", str(file))
            self.assertEqual(sub.lines(1), [body])


class Lines:
    """What a mosquitto_sub prints, without its own remarks."""

    def __init__(self, process):
        self.process = process
        self.waiting = Waiting(self)

    def next(self):
        """The next line of the format, or None at the end."""
        for line in self.process.stdout:
            if not line.startswith(("Client ", "Subscribed ")):
                return line.rstrip("\n")
        return None

    def lines(self, count):
        """So many lines."""
        alarm = harness.Alarm(self.process, 20)
        with alarm:
            found = [self.next() for _ in range(count)]
        assert not alarm.rang, f"not within 20 s: {[line for line in found if line is not None]}"
        return found

    def until(self, last):
        """Lines up to this one."""
        found = []
        while not found or found[-1] != last:
            found += self.lines(1)
        return found


class Waiting:
    """Reads all lines that a subscriber has got, by waiting until none came for a while and then ending it."""

    def __init__(self, lines):
        self.lines = lines
        self.seen = []

    def __call__(self):
        with harness.Alarm(self.lines.process, 1):
            while (line := self.lines.next()) is not None:
                self.seen.append(line)
        return self.seen


if __name__ == "__main__":
    unittest.main()
