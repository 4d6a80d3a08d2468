//! Messages both ways, acknowledged, repeated, refused.

use super::*;

#[test]
fn section_6_6_qos_0_1_and_2_are_published_and_acknowledged() {
    let mut b = bench();
    b.join(1, "a", true);
    b.say(1, "07 0a 00 00 00 01 \"x\"");
    assert!(b.say(1, "08 0c 10 00 01 00 00 \"0\"").is_empty());
    assert_eq!(b.say(1, "08 0c 20 00 01 00 02 \"1\""), ["1: 07 0d 00 01 00 02 00"]);
    assert_eq!(b.say(1, "08 0c 40 00 01 00 03 \"2\""), ["1: 04 0f 00 03"]);
    assert_eq!(b.say(1, "08 0c c0 00 01 00 03 \"2\""), ["1: 04 0f 00 03"]);
    assert_eq!(b.say(1, "04 10 00 03"), ["1: 04 0e 00 03"]);
    assert_eq!(b.say(1, "04 10 00 03"), ["1: 04 0e 00 03"], "PUBCOMP was lost");
    let got: Vec<_> = b.published.iter().map(|(_, p, qos, retain)| (p[0], *qos as u8, *retain)).collect();
    assert_eq!(got, [(b'0', 0, true), (b'1', 1, false), (b'2', 2, false)]);
}

#[test]
fn section_6_13_a_repeated_qos_1_message_is_acknowledged_and_not_published_again() {
    let mut b = bench();
    b.join(1, "a", true);
    b.say(1, "07 0a 00 00 00 01 \"x\"");
    for _ in 0..2 {
        assert_eq!(b.say(1, "08 0c a0 00 01 00 02 \"1\""), ["1: 07 0d 00 01 00 02 00"]);
    }
    assert_eq!((b.published.len(), b.drops.len()), (1, 1));
    b.say(1, "08 0c 20 00 01 00 02 \"1\"");
    assert_eq!(b.published.len(), 2, "without DUP it is another one");
}

#[test]
fn section_6_6_what_may_not_be_published_is_refused() {
    let mut b = bench();
    b.join(1, "a", true);
    b.say(1, "07 0a 00 00 00 01 \"x\"");
    for (why, code) in [(Refusal::NotAuthorised, "03"), (Refusal::NotKept, "01"), (Refusal::TopicName, "02")]
    {
        b.refusal = Some(why);
        assert_eq!(b.say(1, "08 0c 20 00 01 00 02 \"1\""), [format!("1: 07 0d 00 01 00 02 {code}")]);
        assert_eq!(b.say(1, "08 0c 40 00 01 00 03 \"1\""), [format!("1: 07 0d 00 01 00 03 {code}")]);
    }
    b.refusal = Some(Refusal::Uncertain);
    assert!(b.say(1, "08 0c 20 00 01 00 02 \"1\"").is_empty(), "it is to ask again");
}

#[test]
fn section_6_10_one_message_is_outstanding_at_a_time() {
    let mut b = bench();
    b.join(1, "a", true);
    assert_eq!(b.queue("a", "x", "1", 0), ["1: 07 0a 00 01 00 01 78"]);
    assert!(b.queue("a", "x", "2", 1).is_empty() && b.queue("a", "ab", "3", 0).is_empty());
    assert_eq!(
        b.say(1, "07 0b 00 01 00 01 00"),
        ["1: 08 0c 00 00 01 00 00 31", "1: 08 0c 20 00 01 00 01 32"]
    );
    assert_eq!(b.say(1, "07 0d 00 01 00 01 00"), ["1: 08 0c 02 61 62 00 00 33"]);
}

#[test]
fn section_6_10_a_topic_id_that_the_client_does_not_know_is_registered_again() {
    let mut b = bench();
    b.join(1, "a", true);
    b.queue("a", "x", "1", 1);
    b.say(1, "07 0b 00 01 00 01 00");
    assert_eq!(b.say(1, "07 0d 00 01 00 01 02"), ["1: 07 0a 00 01 00 02 78"]);
    assert_eq!(b.say(1, "07 0b 00 01 00 02 00"), ["1: 08 0c 20 00 01 00 01 31"]);
    b.say(1, "07 0d 00 01 00 01 00");
    assert_eq!(b.queue("a", "x", "2", 0), ["1: 08 0c 00 00 01 00 00 32"]);
    b.say(1, "07 0d 00 01 00 00 02");
    assert_eq!(b.queue("a", "x", "3", 0), ["1: 07 0a 00 01 00 03 78"], "QoS 0 too");
    assert_eq!(b.say(1, "07 0b 00 01 00 03 03").len(), 0, "refused");
    assert_eq!(b.queue("a", "ab", "4", 0), ["1: 08 0c 02 61 62 00 00 34"], "the next one");
}

#[test]
fn section_6_13_what_is_not_answered_is_sent_again_and_then_the_client_is_lost() {
    let mut b = bench();
    b.join(1, "a", false);
    b.say(1, "04 1a 00 \"w\"");
    assert_eq!(b.queue("a", "ab", "m", 1), ["1: 08 0c 22 61 62 00 01 6d"]);
    for _ in 0..3 {
        assert_eq!(b.wait(10_000), ["1: 08 0c a2 61 62 00 01 6d"]);
    }
    assert_eq!(b.wait(10_000), ["1: 02 18"]);
    assert_eq!((b.wills.len(), b.closed.pop()), (1, Some(Close::AckTimeout)));
    assert_eq!(
        b.say(2, "07 04 00 01 00 3c \"a\""),
        ["2: 03 05 00", "2: 08 0c a2 61 62 00 01 6d"],
        "it was kept"
    );
}

#[test]
fn section_6_10_qos_2_is_delivered_once() {
    let mut b = bench();
    b.join(1, "a", false);
    assert_eq!(b.queue("a", "ab", "m", 2), ["1: 08 0c 42 61 62 00 01 6d"]);
    assert_eq!(b.say(1, "04 0f 00 01"), ["1: 04 10 00 01"]);
    assert_eq!(b.say(1, "04 0f 00 01"), ["1: 04 10 00 01"], "PUBREL was lost");
    assert_eq!(b.wait(10_000), ["1: 04 10 00 01"]);
    b.restart(Config::default());
    assert_eq!(b.say(1, "07 04 00 01 00 3c \"a\""), ["1: 03 05 00", "1: 04 10 00 01"]);
    assert!(b.say(1, "04 0e 00 01").is_empty());
    assert_eq!(b.queue("a", "ab", "n", 0), ["1: 08 0c 02 61 62 00 00 6e"]);
}

#[test]
fn section_5_4_13_a_client_that_is_congested_is_asked_again() {
    let mut b = bench();
    b.join(1, "a", true);
    b.queue("a", "ab", "m", 1);
    assert!(b.say(1, "07 0d \"ab\" 00 01 01").is_empty());
    assert_eq!(b.wait(10_000), ["1: 08 0c a2 61 62 00 01 6d"]);
    assert!(b.say(1, "07 0d \"ab\" 00 01 03").is_empty(), "not supported: the next one");
    assert!(b.sessions["a"].in_flight.is_none());
}

#[test]
fn section_6_10_pubrec_of_a_message_from_before_the_restart_is_noted_before_it_is_released() {
    let mut b = bench();
    b.credential = Some("a");
    b.join(1, "a", false);
    assert_eq!(b.queue("a", "ab", "m", 2), ["1: 08 0c 42 61 62 00 01 6d"]);
    b.restart(Config::default());
    b.credential = Some("a");
    // Over DTLS it goes on as if nothing had happened.
    let heard = b.say(1, "04 0f 00 01");
    assert!(
        heard.iter().all(|sent| sent == "1: 04 10 00 01") && !heard.is_empty(),
        "never the PUBLISH again: {heard:?}"
    );
    b.say(1, "04 0e 00 01");
    b.say(1, "04 0e 00 01");
    assert_eq!((b.sessions["a"].in_flight.is_some(), b.sessions["a"].received), (false, None));
}
