//! CONNECT, will, keep alive, other addresses.

use super::*;

#[test]
fn who_has_no_keep_alive_is_lost_when_its_session_would_be() {
    let mut b = bench_with(Config { session_expiry: Duration::from_secs(3600), ..Config::default() });
    assert_eq!(b.say(1, "07 04 04 01 00 00 \"a\""), ["1: 03 05 00"]);
    b.wait(3_599_000);
    assert_eq!(b.say(1, "02 16"), ["1: 02 17"]);
    assert!(b.wait(3_599_999).is_empty());
    assert_eq!(b.wait(1), ["1: 02 18"], "it may listen all the time and never have to say anything");
    assert_eq!((b.closed.pop(), b.sessions.len()), (Some(Close::KeepAlive), 0));
}

#[test]
fn section_6_1_searchgw_is_answered_with_gwinfo() {
    let mut b = bench_with(Config { gateway_id: 7, ..Config::default() });
    assert_eq!(b.say(1, "03 01 01"), ["1: 03 02 07"]);
    assert_eq!(b.at.len(), 0, "who only asks takes no place");
}

#[test]
fn section_6_2_the_will_is_asked_for_and_published_when_the_client_is_lost() {
    let mut b = bench();
    assert_eq!(b.say(1, "07 04 0c 01 00 3c \"a\""), ["1: 02 06"]);
    assert_eq!(b.say(1, "05 09 \"bye\""), [""; 0], "WILLMSG before WILLTOPIC");
    assert_eq!(b.say(1, "04 07 20 \"w\""), ["1: 02 08"]);
    assert_eq!(b.say(1, "05 09 \"bye\""), ["1: 03 05 00"]);
    b.wait(89_999);
    assert!(b.wills.is_empty(), "half as much again at a minute or less (7.2)");
    b.wait(1);
    assert_eq!((b.wills.len(), b.closed.pop(), b.sessions.len()), (1, Some(Close::KeepAlive), 0));
}

#[test]
fn section_6_2_an_empty_willtopic_deletes_and_nothing_else_is_served_meanwhile() {
    let mut b = bench();
    b.say(1, "07 04 0c 01 00 3c \"a\"");
    assert_eq!(b.say(1, "08 0c 20 00 01 00 05 \"m\""), ["1: 07 0d 00 01 00 05 01"]);
    assert_eq!(b.say(1, "07 0a 00 00 00 06 \"x\""), ["1: 07 0b 00 00 00 06 01"]);
    assert_eq!(b.say(1, "06 12 00 00 07 \"x\""), ["1: 08 13 00 00 00 00 07 01"]);
    assert_eq!(b.say(1, "02 07"), ["1: 03 05 00"]);
    assert!(b.sessions["a"].will.is_none() && b.published.is_empty());
}

#[test]
fn section_6_2_willtopicreq_is_sent_again_and_then_no_more() {
    let mut b = bench();
    b.say(1, "07 04 0c 01 00 3c \"a\"");
    for _ in 0..3 {
        assert_eq!(b.wait(10_000), ["1: 02 06"]);
    }
    assert_eq!((b.wait(10_000).len(), b.closed.pop()), (0, Some(Close::ConnectTimeout)));
}

#[test]
fn section_6_3_without_clean_session_the_will_stays() {
    let mut b = bench();
    b.say(1, "07 04 08 01 00 3c \"a\"");
    b.say(1, "04 07 20 \"w\"");
    b.say(1, "05 09 \"bye\"");
    b.say(1, "02 18");
    assert!(b.wills.is_empty());
    b.join(1, "a", false);
    assert_eq!(b.sessions["a"].will.as_ref().map(|w| w.message.topic()), Some("w"));
    b.join(1, "a", true);
    assert!(b.sessions["a"].will.is_none());
}

#[test]
fn section_6_4_topic_and_message_of_the_will_are_updated() {
    let mut b = bench();
    b.join(1, "a", false);
    assert_eq!(b.say(1, "05 1c \"new\""), ["1: 03 1d 03"], "there is no topic for it");
    assert_eq!(b.say(1, "04 1a 30 \"w\""), ["1: 03 1b 00"]);
    assert_eq!(b.say(1, "05 1c \"new\""), ["1: 03 1d 00"]);
    let will = b.sessions["a"].will.clone().unwrap();
    assert_eq!(
        (will.message.topic(), will.message.payload(), will.message.retain()),
        ("w", &b"new"[..], true)
    );
    assert_eq!(b.say(1, "04 1a 00 \"#\""), ["1: 03 1b 03"]);
    assert_eq!(b.say(1, "02 1a"), ["1: 03 1b 00"]);
    assert!(b.sessions["a"].will.is_none());
}

#[test]
fn section_5_3_10_refusals_have_their_return_codes() {
    for (why, code) in [
        (Refusal::BadCredentials, "03"),
        (Refusal::QuotaExceeded, "01"),
        (Refusal::ServerBusy, "01"),
        (Refusal::NotOwner, "03"),
    ] {
        let mut b = bench();
        b.refusal = Some(why);
        assert_eq!(b.say(1, "07 04 04 01 00 3c \"a\""), [format!("1: 03 05 {code}")]);
        assert_eq!(b.at.len(), 0);
    }
    let mut b = bench();
    assert_eq!(b.say(1, "07 04 04 02 00 3c \"a\""), ["1: 03 05 03"], "another protocol");
    assert_eq!(b.say(1, "06 04 04 01 00 3c"), ["1: 03 05 03"], "no client id");
}

#[test]
fn section_6_12_strangers_are_told_to_connect_but_two_gateways_do_not_talk_forever() {
    let mut b = bench();
    assert_eq!(b.say(1, "08 0c 20 00 01 00 05 \"m\""), ["1: 02 18"]);
    assert_eq!(b.say(1, "02 16"), ["1: 02 18"]);
    assert_eq!(b.say(1, "07 0d 00 01 00 05 00"), ["1: 02 18"]);
    let answered = (0..1000).filter(|_| !b.say(1, "02 18").is_empty()).count();
    assert_eq!((answered, b.at.len()), (100, 0));
    b.wait(1000);
    assert_eq!(b.say(1, "02 18"), ["1: 02 18"]);
}

#[test]
fn section_6_2_another_client_at_the_old_port_is_another_client() {
    let mut b = bench();
    b.join(1, "a", false);
    b.say(1, "04 18 00 3c");
    b.join(1, "b", true);
    assert!(b.queue("a", "t", "m", 1).is_empty(), "b gets nothing of a");
    assert_eq!(b.say(2, "03 16 \"a\""), ["2: 07 0a 00 01 00 01 74"], "a is somewhere else");
    assert_eq!(b.say(1, "02 16"), ["1: 02 17"], "b goes on");
    assert!(b.wills.is_empty());
}

#[test]
fn section_6_2_who_may_move_is_what_rebind_says() {
    for (rebind, port, is_moved) in [
        (Rebind::Any, 1000, true),
        (Rebind::SameIp, 2, true),
        (Rebind::SameIp, 1000, false),
        (Rebind::Dtls, 2, false),
    ] {
        let mut b = bench_with(Config { rebind, ..Config::default() });
        b.join(1, "a", false);
        b.say(1, "04 18 00 3c");
        let (yes, no) = (format!("{port}: 02 17"), format!("{port}: 02 18"));
        assert_eq!(b.say(port, "03 16 \"a\""), [if is_moved { yes } else { no }], "{rebind:?}");
        let connack = if is_moved { "00" } else { "01" };
        assert_eq!(b.say(port, "07 04 00 01 00 3c \"a\""), [format!("{port}: 03 05 {connack}")]);
        let back = b.say(1, "03 16 \"a\"");
        assert_eq!(back.len(), 1);
    }
}

#[test]
fn credentials_are_filled_in_for_who_has_none() {
    let credentials = config::Credentials { username: Some("sn".into()), password: Some("%c-secret".into()) };
    let mut b = bench_with(Config { credentials, ..Config::default() });
    b.join(1, "a", true);
    assert_eq!(b.connects[0].username.as_deref(), Some("sn"));
    assert_eq!(b.connects[0].password.as_deref(), Some(&b"a-secret"[..]));
}

#[test]
fn over_dtls_every_message_brings_the_client_along_and_nobody_is_another() {
    let mut b = bench();
    b.credential = Some("a");
    b.join(1, "a", false);
    assert_eq!(b.say(1, "07 04 00 01 00 3c \"b\""), ["1: 03 05 03"], "another client's name");
    b.say(1, "07 0a 00 00 00 01 \"x\"");
    b.restart(Config::default());
    b.credential = Some("a");
    assert_eq!(b.say(2, "08 0c 20 00 01 00 02 \"m\""), ["2: 07 0d 00 01 00 02 00"], "without CONNECT");
    assert_eq!((b.published.len(), b.say(2, "03 16 \"b\"")), (1, vec!["2: 02 18".to_owned()]));
    assert_eq!(b.say(2, "05 fe 01 \"n1\" 02 16"), [""; 0], "a forwarder is no other one");
    b.credential = Some("new");
    assert_eq!(b.say(3, "02 16"), ["3: 02 18"], "there is no session to go on with");
}

#[test]
fn over_dtls_a_new_address_is_asked_for_an_answer_before_it_is_believed() {
    let mut b = bench();
    b.credential = Some("a");
    b.join(1, "a", false);
    let peer = b.at[&(1, Vec::new())];
    b.machine.moved(b.now, peer, address(9), &mut b.out);
    assert!(b.queue("a", "ab", "m", 1).is_empty(), "only the new address is asked");
    assert_eq!(b.probes, [bytes("08 0a 00 01 00 01 \"ab\"")]);
    assert!(b.reached.is_empty());
    assert_eq!(b.say(1, "07 0b 00 01 00 01 00"), ["1: 08 0c 20 00 01 00 01 6d"]);
    assert_eq!(b.reached, [address(9)]);
    // It was not there after all.
    b.machine.moved(b.now, peer, address(8), &mut b.out);
    b.machine.moved(b.now, peer, address(9), &mut b.out);
    b.say(1, "07 0d 00 01 00 01 00");
    assert_eq!((b.reached.len(), b.queue("a", "ab", "n", 0).len()), (1, 1));
}
