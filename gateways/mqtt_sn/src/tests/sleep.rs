//! Sleeping clients.

use super::*;

fn asleep(b: &mut Bench) {
    b.join(1, "a", false);
    b.say(1, "06 12 20 00 01 \"#\"");
    assert_eq!(b.say(1, "04 18 00 3c"), ["1: 02 18"]);
}

#[test]
fn section_6_14_pingresp_comes_after_everything_was_delivered_and_acknowledged() {
    let mut b = bench();
    asleep(&mut b);
    for n in 1..=2 {
        assert!(b.queue("a", "t", &n.to_string(), 1).is_empty(), "it sleeps");
    }
    assert_eq!(b.say(1, "03 16 \"a\""), ["1: 07 0a 00 01 00 01 74"]);
    assert_eq!(b.say(1, "07 0b 00 01 00 01 00"), ["1: 08 0c 20 00 01 00 01 31"]);
    assert_eq!(b.say(1, "07 0d 00 01 00 01 00"), ["1: 08 0c 20 00 01 00 02 32"]);
    assert_eq!(b.say(1, "07 0d 00 01 00 02 00"), ["1: 02 17"]);
    assert!(b.queue("a", "t", "3", 1).is_empty(), "after PINGRESP it sleeps again");
    assert_eq!(b.say(1, "03 16 \"a\""), ["1: 08 0c 20 00 01 00 03 33"]);
}

#[test]
fn section_6_14_a_topic_that_was_never_registered_is_registered_for_qos_0_too() {
    let mut b = bench();
    asleep(&mut b);
    b.queue("a", "new", "m", 0);
    b.queue("a", "new", "n", 0);
    assert_eq!(b.say(1, "03 16 \"a\""), ["1: 09 0a 00 01 00 01 6e 65 77"]);
    assert_eq!(
        b.say(1, "07 0b 00 01 00 01 00"),
        ["1: 08 0c 00 00 01 00 00 6d", "1: 08 0c 00 00 01 00 00 6e", "1: 02 17"]
    );
}

#[test]
fn section_6_14_what_waits_comes_with_connect_too_and_once() {
    let mut b = bench();
    asleep(&mut b);
    b.queue("a", "ab", "m", 1);
    assert_eq!(
        b.say(1, "07 04 00 01 00 3c \"a\""),
        ["1: 03 05 00", "1: 08 0c 22 61 62 00 01 6d"],
        "a short name needs no REGISTER"
    );
    assert!(b.say(1, "07 0d \"ab\" 00 01 00").is_empty());
    assert_eq!(b.say(1, "02 16"), ["1: 02 17"], "active");
    assert_eq!(b.queue("a", "ab", "n", 0), ["1: 08 0c 02 61 62 00 00 6e"]);
}

#[test]
fn section_7_2_the_sleep_duration_replaces_the_keep_alive_with_tolerance() {
    for (seconds, ms) in [("00 3c", 90_000), ("00 3d", 67_100), ("00 0a", 15_000)] {
        let mut b = bench();
        b.join(1, "a", false);
        b.say(1, "04 1a 00 \"w\"");
        b.say(1, &format!("04 18 {seconds}"));
        b.wait(ms - 1);
        b.say(1, "03 16 \"a\"");
        b.wait(ms - 1);
        assert!(b.wills.is_empty(), "{seconds}");
        b.wait(1);
        assert_eq!((b.wills.len(), b.closed.pop()), (1, Some(Close::KeepAlive)), "{seconds}");
        assert_eq!(b.say(1, "03 16 \"a\""), ["1: 02 18"], "lost: it has to connect");
        assert!(b.sessions.contains_key("a"), "and its session waits for it");
    }
}

#[test]
fn section_6_14_the_will_of_a_sleeper_waits_where_nobody_sees_to_it() {
    let mut b = bench();
    b.join(1, "a", false);
    b.say(1, "04 1a 00 \"w\"");
    b.say(1, "04 18 00 3c");
    assert_eq!(b.sessions["a"].will.as_ref().unwrap().delay, Duration::from_secs(90));
    b.join(1, "a", false);
    assert_eq!(b.sessions["a"].will.as_ref().unwrap().delay, Duration::ZERO);
}

#[test]
fn section_6_14_a_pingreq_from_another_port_is_the_same_sleeper() {
    let mut b = bench();
    asleep(&mut b);
    b.queue("a", "ab", "0", 0);
    b.queue("a", "ab", "1", 1);
    let first = b.say(2, "03 16 \"a\"");
    assert_eq!(
        first,
        ["2: 08 0a 00 01 00 01 61 62"],
        "one message that has to be answered, before anything else"
    );
    assert_eq!(
        b.say(2, "07 0b 00 01 00 01 00"),
        ["2: 08 0c 00 00 01 00 00 30", "2: 08 0c 20 00 01 00 01 31"]
    );
    assert_eq!(b.say(2, "07 0d 00 01 00 01 00"), ["2: 02 17"]);
    assert_eq!(b.closed, [Close::Moved]);
    assert_eq!(b.say(1, "02 16"), ["1: 02 18"], "nobody is there any more");
    assert!(b.wills.is_empty());
}

#[test]
fn section_6_14_a_sleeper_with_clean_session_moves_with_what_waits_for_it() {
    let mut b = bench();
    b.join(1, "a", true);
    b.say(1, "04 18 00 3c");
    b.queue("a", "ab", "m", 1);
    assert_eq!(b.say(2, "03 16 \"a\""), ["2: 08 0c 22 61 62 00 01 6d"]);
    assert_eq!(b.say(2, "07 0d \"ab\" 00 01 00"), ["2: 02 17"]);
    b.say(2, "02 18");
    assert!(b.sessions.is_empty());
}

#[test]
fn section_6_14_a_sleeper_is_known_after_a_restart_and_nobody_else() {
    let mut b = bench();
    asleep(&mut b);
    b.join(3, "awake", false);
    b.queue("a", "ab", "m", 1);
    b.restart(Config::default());
    assert_eq!(b.say(3, "07 16 \"awake\""), ["3: 02 18"], "it has to connect");
    assert_eq!(b.say(4, "04 16 \"no\""), ["4: 02 18"]);
    assert_eq!(b.say(1, "03 16 \"a\""), ["1: 08 0c 22 61 62 00 01 6d"]);
    assert_eq!(b.say(1, "07 0d \"ab\" 00 01 00"), ["1: 02 17"]);
    assert_eq!(b.sessions.keys().collect::<Vec<_>>(), ["a", "awake"], "nothing was left behind");
}

#[test]
fn section_6_14_an_outstanding_message_comes_again_when_the_sleeper_wakes() {
    let mut b = bench();
    b.join(1, "a", false);
    b.queue("a", "ab", "m", 1);
    b.say(1, "04 18 00 3c");
    assert!(b.wait(30_000).is_empty(), "nothing is sent to a sleeper");
    assert_eq!(b.say(1, "03 16 \"a\""), ["1: 08 0c a2 61 62 00 01 6d"]);
    assert_eq!(b.say(1, "07 0d \"ab\" 00 01 00"), ["1: 02 17"]);
}

#[test]
fn section_6_14_who_may_take_a_sleeper_along_is_the_same_after_a_restart() {
    // Ports 1 and 2 are on one host, 1001 is on another one.
    let (pingreq, delivered) = ("03 16 \"a\"", "08 0c 22 61 62 00 01 6d");
    for (rebind, port, from_2) in [(Rebind::SameIp, 2, delivered), (Rebind::Dtls, 1, "02 18")] {
        for is_restarted in [false, true] {
            let config = Config { rebind, ..Config::default() };
            let mut b = bench_with(config.clone());
            asleep(&mut b);
            if is_restarted {
                b.restart(config);
                b.now = Now::from_micros(2_000_000);
            }
            b.queue("a", "ab", "m", 1);
            assert_eq!(b.say(1001, pingreq), ["1001: 02 18"], "{rebind:?} {is_restarted}");
            for flags in ["00", "04"] {
                let connect = format!("07 04 {flags} 01 00 3c \"a\"");
                assert_eq!(b.say(1001, &connect), ["1001: 03 05 01"], "{rebind:?} {is_restarted}");
            }
            assert_eq!(b.say(2, pingreq), [format!("2: {from_2}")], "{rebind:?} {is_restarted}");
            if port == 1 {
                assert_eq!(b.say(1, pingreq), [format!("1: {delivered}")], "{is_restarted}");
            }
            assert_eq!(b.say(port, "07 0d \"ab\" 00 01 00"), [format!("{port}: 02 17")]);
        }
    }
}

#[test]
fn section_6_14_a_sleeper_that_is_overdue_after_a_restart_may_connect_from_anywhere() {
    let config = Config { rebind: Rebind::SameIp, ..Config::default() };
    let mut b = bench_with(config.clone());
    asleep(&mut b);
    b.restart(config);
    b.now = Now::from_micros(89_000_000);
    assert_eq!(b.say(1001, "07 04 00 01 00 3c \"a\""), ["1001: 03 05 01"]);
    b.wait(2_000);
    assert_eq!(b.say(1001, "07 04 00 01 00 3c \"a\""), ["1001: 03 05 00"]);
}
