//! What the clients in the field send and bear: RIOT's emcute and asymcute, Zephyr's library, Paho's client.

use super::*;

const WILL: [(&str, &str); 3] = [
    ("07 04 0c 01 00 3c \"a\"", "1: 02 06"),
    ("04 07 20 \"w\"", "1: 02 08"),
    ("05 09 \"bye\"", "1: 03 05 00"),
];

fn with_will(b: &mut Bench) {
    for (said, heard) in WILL {
        assert_eq!(b.say(1, said), [heard]);
    }
}

#[test]
fn section_6_2_willmsg_that_comes_again_is_answered_again_for_connack_was_lost() {
    // emcute and Paho repeat the last of the handshake, not CONNECT.
    let mut b = bench();
    with_will(&mut b);
    assert_eq!(b.say(1, "05 09 \"bye\""), ["1: 03 05 00"]);
    assert_eq!(b.connects.len(), 1, "it goes on as it was");
    assert!(b.say(1, "05 09 \"new\"").is_empty(), "that is not what was asked for");
    assert_eq!(b.sessions["a"].will.as_ref().unwrap().message.payload(), b"bye");
    b.join(2, "b", true);
    assert!(b.say(2, "05 09 \"bye\"").is_empty(), "who has no will was not asked");
}

#[test]
fn section_6_2_an_empty_willtopic_that_comes_again_is_answered_again() {
    let mut b = bench();
    b.say(1, "07 04 0c 01 00 3c \"a\"");
    assert_eq!(b.say(1, "02 07"), ["1: 03 05 00"]);
    assert_eq!(b.say(1, "02 07"), ["1: 03 05 00"], "CONNACK was lost");
}

#[test]
fn section_6_12_disconnect_ends_the_will_handshake_too() {
    for (goodbye, is_there) in [("02 18", false), ("04 18 00 3c", true)] {
        let mut b = bench();
        b.join(1, "a", false);
        assert_eq!(b.say(1, "07 04 08 01 00 3c \"a\""), ["1: 02 06"]);
        assert_eq!(b.say(1, goodbye), ["1: 02 18"]);
        assert!(b.wait(60_000).is_empty(), "it is not asked for its will any more");
        assert_eq!(b.sessions["a"].at.is_some(), is_there, "{goodbye}");
    }
    let mut b = bench();
    b.say(1, "07 04 08 01 00 3c \"a\"");
    assert_eq!((b.say(1, "02 18"), b.at.len()), (vec!["1: 02 18".to_owned()], 0));
}

#[test]
fn section_6_10_who_never_knows_the_id_that_it_accepts_is_not_asked_for_ever() {
    let mut b = bench();
    b.join(1, "a", true);
    assert_eq!(b.queue("a", "x", "1", 1), ["1: 07 0a 00 01 00 01 78"]);
    assert_eq!(b.say(1, "07 0b 00 01 00 01 00"), ["1: 08 0c 20 00 01 00 01 31"]);
    assert_eq!(b.say(1, "07 0d 00 01 00 01 02"), ["1: 07 0a 00 01 00 02 78"]);
    assert_eq!(b.say(1, "07 0b 00 01 00 02 00"), ["1: 08 0c 20 00 01 00 01 31"]);
    assert!(b.say(1, "07 0d 00 01 00 01 02").is_empty(), "once is enough");
    assert!(b.sessions["a"].in_flight.is_none());
    assert_eq!(b.queue("a", "ab", "2", 1), ["1: 08 0c 22 61 62 00 02 32"], "the next one");
}

#[test]
fn who_answers_0x02_and_does_not_know_register_is_not_lost_for_it() {
    // emcute and asymcute: what comes right behind SUBACK may come before the subscription is in their list.
    for qos in [0, 1] {
        let mut b = bench();
        b.say(1, "07 04 04 01 01 68 \"a\"");
        b.say(1, "06 12 20 00 01 \"x\"");
        b.say(1, "04 1a 00 \"w\"");
        b.queue("a", "x", "1", qos);
        b.say(1, if qos == 1 { "07 0d 00 01 00 01 02" } else { "07 0d 00 01 00 00 02" });
        b.queue("a", "x", "2", qos);
        let registers: usize = (0..3).map(|_| b.wait(10_000).len()).sum();
        assert_eq!((registers, b.closed.len()), (3, 0));
        let then = b.wait(10_000);
        assert_eq!((b.closed.len(), b.wills.len()), (0, 0), "it was heard, and is there");
        if qos == 1 {
            assert_eq!(then, ["1: 08 0c 20 00 01 00 02 32"], "the next one, with the id that it has");
        } else {
            assert!(then.is_empty());
            assert_eq!(b.queue("a", "x", "3", 0), ["1: 08 0c 00 00 01 00 00 33"]);
        }
    }
}

#[test]
fn section_5_4_11_a_regack_that_refuses_need_not_say_what() {
    let mut b = bench();
    b.join(1, "a", true);
    b.queue("a", "x", "1", 1);
    assert!(b.say(1, "07 0b 00 00 00 01 02").is_empty());
    assert!(b.sessions["a"].in_flight.is_none(), "refused");
    b.queue("a", "y", "2", 1);
    b.say(1, "07 0b 00 00 00 02 00");
    assert!(b.sessions["a"].in_flight.is_some(), "what is accepted is the id that was sent");
}

#[test]
fn a_message_of_exactly_max_packet_size_is_sent() {
    for (most, around) in [(100, 7), (255, 7), (300, 9)] {
        for more in [0, 1] {
            let mut b = bench_with(Config { max_packet_size: most, ..Config::default() });
            b.join(1, "a", true);
            let heard = b.queue("a", "ab", &"x".repeat(most - around + more), 0);
            assert_eq!(heard.len(), 1 - more, "{most}");
            assert_eq!(heard.iter().map(|h| (h.len() - 2) / 3).sum::<usize>(), most * (1 - more));
            assert_eq!(b.drops.len(), more);
        }
    }
}

#[test]
fn section_6_14_a_sleeper_that_gives_up_waiting_for_pingresp_sleeps_on() {
    let mut b = bench();
    for (said, heard) in WILL {
        assert_eq!(b.say(1, said), [heard]);
    }
    b.say(1, "04 18 0e 10");
    b.queue("a", "ab", "m", 1);
    assert_eq!(b.say(1, "03 16 \"a\""), ["1: 08 0c 22 61 62 00 01 6d"]);
    for _ in 0..3 {
        assert_eq!(b.wait(10_000), ["1: 08 0c a2 61 62 00 01 6d"]);
    }
    assert!(b.wait(600_000).is_empty(), "it has gone back to sleep");
    assert!(b.wills.is_empty() && b.sessions.contains_key("a"), "for as long as it said");
    assert_eq!(b.say(1, "03 16 \"a\""), ["1: 08 0c a2 61 62 00 01 6d"]);
    assert_eq!(b.say(1, "07 0d \"ab\" 00 01 00"), ["1: 02 17"]);
    b.wait(3_959_999);
    assert!(b.wills.is_empty());
    b.wait(1);
    assert_eq!(b.wills.len(), 1);
}

#[test]
fn section_6_14_regack_of_who_has_gone_to_sleep_meanwhile_does_not_bring_the_message() {
    let mut b = bench();
    b.join(1, "a", true);
    assert_eq!(b.queue("a", "x", "0", 0), ["1: 07 0a 00 01 00 01 78"]);
    assert_eq!(b.say(1, "04 18 00 3c"), ["1: 02 18"]);
    assert!(b.say(1, "07 0b 00 01 00 01 00").is_empty(), "nobody would hear it");
    assert_eq!(b.say(1, "03 16 \"a\""), ["1: 08 0c 00 00 01 00 00 30", "1: 02 17"]);
    // QoS 1: it is the first copy.
    assert!(b.queue("a", "y", "1", 1).is_empty());
    assert_eq!(b.say(1, "03 16 \"a\""), ["1: 07 0a 00 02 00 02 79"]);
    assert_eq!(b.say(1, "04 18 00 3c"), ["1: 02 18"]);
    assert!(b.say(1, "07 0b 00 02 00 02 00").is_empty());
    assert_eq!(b.say(1, "03 16 \"a\""), ["1: 08 0c 20 00 02 00 01 31"]);
}

#[test]
fn puback_of_a_qos_2_message_ends_it() {
    let mut b = bench();
    b.join(1, "a", true);
    b.queue("a", "ab", "1", 2);
    assert!(b.say(1, "07 0d \"ab\" 00 01 00").is_empty());
    assert_eq!(b.queue("a", "ab", "2", 2), ["1: 08 0c 42 61 62 00 02 32"], "the next one");
}

#[test]
fn section_6_3_who_connects_again_is_not_asked_to_register_what_it_knows() {
    // A device that knows no REGISTER, or only predefined topics, would be lost for it.
    for is_restarted in [false, true] {
        let mut b = bench();
        b.join(1, "a", false);
        b.say(1, "06 12 00 00 01 \"x\"");
        if is_restarted {
            b.restart(Config::default());
        } else {
            b.say(1, "02 18");
        }
        b.join(2, "a", false);
        assert_eq!(b.queue("a", "x", "0", 0), ["2: 08 0c 00 00 01 00 00 30"], "restarted: {is_restarted}");
    }
}

#[test]
fn who_is_taken_along_has_to_answer_something_before_it_gets_what_needs_no_answer() {
    for is_restarted in [false, true] {
        for wakes in ["07 04 00 01 00 3c \"a\"", "03 16 \"a\""] {
            let mut b = bench();
            b.join(1, "a", false);
            b.say(1, "06 12 00 00 01 \"x\"");
            b.say(1, "04 18 00 3c");
            if is_restarted {
                b.restart(Config::default());
            }
            b.queue("a", "x", "0", 0);
            let heard = b.say(2, wakes);
            assert_eq!(heard.last().unwrap(), "2: 07 0a 00 01 00 01 78", "{wakes}, {is_restarted}");
            assert_eq!(b.say(2, "07 0b 00 01 00 01 00")[0], "2: 08 0c 00 00 01 00 00 30");
        }
    }
    let mut b = bench();
    b.join(1, "a", false);
    b.say(1, "06 12 00 00 01 \"x\"");
    b.join(2, "a", false);
    assert_eq!(b.queue("a", "x", "0", 0), ["2: 07 0a 00 01 00 01 78"], "where it was connected");
}

#[test]
fn a_sleeper_that_has_moved_and_knows_no_register_gets_what_it_can_acknowledge() {
    let mut b = bench();
    b.join(1, "a", false);
    b.say(1, "04 18 0e 10");
    b.queue("a", "ab", "0", 0);
    b.queue("a", "ab", "1", 1);
    assert_eq!(b.say(2, "03 16 \"a\""), ["2: 08 0a 00 01 00 01 61 62"]);
    for _ in 0..3 {
        assert_eq!(b.wait(10_000).len(), 1);
    }
    assert!(b.wait(10_000).is_empty());
    assert_eq!(b.say(2, "03 16 \"a\"").len(), 1);
    assert_eq!(b.say(2, "07 0d \"ab\" 00 01 00"), ["2: 02 17"]);
    assert_eq!(b.drops, [Drop::Refused]);
}

#[test]
fn section_6_14_a_sleeper_that_asks_again_because_nothing_came_is_sent_it_again() {
    let mut b = bench();
    b.join(1, "a", false);
    b.say(1, "04 18 00 3c");
    b.queue("a", "ab", "m", 1);
    assert_eq!(b.say(1, "03 16 \"a\""), ["1: 08 0c 22 61 62 00 01 6d"]);
    b.wait(4_000);
    assert!(b.say(1, "03 16 \"a\"").is_empty(), "a copy of the network: it is under way");
    b.wait(2_000);
    assert_eq!(
        b.say(1, "03 16 \"a\""),
        ["1: 08 0c a2 61 62 00 01 6d"],
        "it waits no longer than that itself"
    );
    assert!(b.wait(9_999).is_empty());
    assert_eq!(b.wait(1), ["1: 08 0c a2 61 62 00 01 6d"]);
    assert_eq!(b.say(1, "07 0d \"ab\" 00 01 00"), ["1: 02 17"]);
}

#[test]
fn section_6_3_willmsg_again_after_a_will_that_was_refused_is_not_answered_as_if_it_were_not() {
    let mut b = bench();
    b.say(1, "07 04 08 01 00 3c \"a\"");
    b.say(1, "04 07 00 \"w\"");
    assert_eq!(b.say(1, "05 09 \"bye\""), ["1: 03 05 00"]);
    b.refused_will = Some(Refusal::NotAuthorised);
    b.say(1, "07 04 08 01 00 3c \"a\"");
    b.say(1, "04 07 00 \"x\"");
    assert_eq!(b.say(1, "05 09 \"bye\""), ["1: 03 05 03"]);
    assert!(b.say(1, "05 09 \"bye\"").is_empty());
}

#[test]
fn section_6_13_a_qos_2_message_that_comes_again_after_its_release_is_not_published_again() {
    // Zephyr repeats PUBLISH, not PUBREL, where PUBCOMP was lost; and a network may deliver PUBREL before a copy of PUBLISH.
    let mut b = bench();
    b.join(1, "a", true);
    assert_eq!(b.say(1, "08 0c 42 \"ab\" 00 03 \"2\""), ["1: 04 0f 00 03"]);
    for _ in 0..2 {
        assert_eq!(b.say(1, "04 10 00 03"), ["1: 04 0e 00 03"]);
        assert_eq!(b.say(1, "08 0c c2 \"ab\" 00 03 \"2\""), ["1: 04 0f 00 03"]);
    }
    assert_eq!(b.published.len(), 1);
    b.say(1, "04 10 00 03");
    assert_eq!(b.say(1, "08 0c 42 \"ab\" 00 03 \"3\""), ["1: 04 0f 00 03"]);
    assert_eq!(b.published.len(), 2, "without DUP it is another one");
}
