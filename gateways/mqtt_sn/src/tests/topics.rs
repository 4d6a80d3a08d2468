//! Ids, registration, subscriptions, lengths.

use super::*;
use proptest::prelude::*;

#[test]
fn section_6_5_ids_are_per_client_and_begin_at_1() {
    let mut b = bench();
    b.join(1, "a", true);
    b.join(2, "b", true);
    assert_eq!(b.say(1, "07 0a 00 00 00 01 \"x\""), ["1: 07 0b 00 01 00 01 00"]);
    assert_eq!(b.say(1, "07 0a 00 00 00 02 \"y\""), ["1: 07 0b 00 02 00 02 00"]);
    assert_eq!(b.say(1, "07 0a 00 00 00 03 \"x\""), ["1: 07 0b 00 01 00 03 00"], "the same name again");
    assert_eq!(b.say(2, "07 0a 00 00 00 01 \"y\""), ["2: 07 0b 00 01 00 01 00"]);
    assert_eq!(b.say(2, "07 0a 00 00 00 02 \"#\""), ["2: 07 0b 00 00 00 02 03"]);
}

#[test]
fn section_6_6_an_unknown_id_is_refused_even_at_qos_0() {
    let mut b = bench();
    b.join(1, "a", true);
    for id in ["00 00", "00 01", "ff ff"] {
        assert_eq!(b.say(1, &format!("08 0c 00 {id} 00 00 \"m\"")), [format!("1: 07 0d {id} 00 00 02")]);
    }
    assert_eq!(b.say(1, "08 0c 21 00 09 00 05 \"m\""), ["1: 07 0d 00 09 00 05 02"], "predefined");
    assert!(b.published.is_empty());
}

#[test]
fn section_6_5_the_most_ids_are_as_many_as_the_configuration_says() {
    let mut b = bench_with(Config { max_topics: 1, ..Config::default() });
    b.join(1, "a", true);
    assert_eq!(b.say(1, "07 0a 00 00 00 01 \"x\""), ["1: 07 0b 00 01 00 01 00"]);
    assert_eq!(b.say(1, "07 0a 00 00 00 02 \"y\""), ["1: 07 0b 00 00 00 02 01"]);
    assert_eq!(b.say(1, "06 12 00 00 03 \"y\""), ["1: 08 13 00 00 00 00 03 01"]);
}

#[test]
fn section_6_5_ids_survive_sleep_another_address_and_a_restart() {
    let mut b = bench();
    b.join(1, "a", false);
    b.say(1, "07 0a 00 00 00 01 \"x\"");
    b.say(1, "04 18 00 3c");
    b.say(2, "03 16 \"a\"");
    assert!(b.say(2, "08 0c 00 00 01 00 00 \"1\"").is_empty());
    b.restart(Config::default());
    b.join(3, "a", false);
    assert!(b.say(3, "08 0c 00 00 01 00 00 \"2\"").is_empty());
    assert_eq!(b.published.len(), 1, "{:?}", b.published);
    assert_eq!(b.say(3, "07 0a 00 00 00 01 \"y\""), ["3: 07 0b 00 02 00 01 00"], "the next one");
    b.join(3, "a", true);
    assert_eq!(b.say(3, "08 0c 00 00 01 00 00 \"m\""), ["3: 07 0d 00 01 00 00 02"], "CleanSession forgets");
}

#[test]
fn section_5_4_16_suback_tells_the_id_with_which_publish_comes_and_none_for_wildcards() {
    let mut config = Config::default();
    config.predefined.put("", 7, "pre/seven");
    config.predefined.put("a", 8, "only/a");
    let mut b = bench_with(config);
    b.join(1, "a", true);
    b.join(2, "b", true);
    assert_eq!(b.say(1, "08 12 20 00 01 \"x/y\""), ["1: 08 13 20 00 01 00 01 00"]);
    assert_eq!(b.say(1, "08 12 40 00 02 \"x/+\""), ["1: 08 13 40 00 00 00 02 00"]);
    assert_eq!(b.say(1, "07 12 02 00 03 \"ab\""), ["1: 08 13 00 61 62 00 03 00"]);
    assert_eq!(b.say(1, "07 12 21 00 04 00 07"), ["1: 08 13 20 00 07 00 04 00"]);
    assert_eq!(b.say(1, "07 12 21 00 05 00 08"), ["1: 08 13 20 00 08 00 05 00"]);
    assert_eq!(b.say(2, "07 12 21 00 05 00 08"), ["2: 08 13 00 00 08 00 05 02"], "another client's");
    assert_eq!(b.say(1, "08 12 60 00 06 \"x/y\""), ["1: 08 13 00 00 00 00 06 03"], "no QoS -1 here");
    assert_eq!(b.say(1, "08 12 00 00 07 \"#/y\""), ["1: 08 13 00 00 00 00 07 03"]);
    let filters: Vec<_> = b.sessions["a"].filters.iter().map(|(f, _)| f.as_str()).collect();
    assert_eq!(filters, ["x/y", "x/+", "ab", "pre/seven", "only/a"]);
    assert_eq!(b.say(1, "08 14 00 00 08 \"x/+\""), ["1: 04 15 00 08"]);
    assert_eq!(b.say(1, "07 14 02 00 09 \"ab\""), ["1: 04 15 00 09"]);
    assert_eq!(b.sessions["a"].filters.len(), 3);
}

#[test]
fn section_5_4_16_suback_tells_nothing_about_short_names_where_clients_want_it_so() {
    let mut b = bench_with(Config { short_topic_id: config::ShortTopicId::Zero, ..Config::default() });
    b.join(1, "a", true);
    assert_eq!(b.say(1, "07 12 02 00 03 \"ab\""), ["1: 08 13 00 00 00 00 03 00"]);
}

#[test]
fn section_6_8_qos_minus_1_is_for_predefined_and_short_topics_and_comes_in_by_its_own_rule() {
    let anonymous = config::Credentials { username: Some("beacon".into()), password: Some("p".into()) };
    let mut config = Config { anonymous, ..Config::default() };
    config.predefined.put("", 7, "pre");
    let mut b = bench_with(config.clone());
    assert!(b.say(1, "08 0c 62 \"ab\" 00 00 \"1\"").is_empty());
    assert!(b.say(1, "08 0c 61 00 07 00 00 \"2\"").is_empty());
    assert!(b.say(1, "08 0c 60 00 01 00 00 \"3\"").is_empty(), "no normal ids");
    let topics: Vec<_> = b.published.iter().map(|(t, p, ..)| (t.as_str(), &p[..])).collect();
    assert_eq!(topics, [("ab", &b"1"[..]), ("pre", b"2")]);
    assert_eq!(b.connects.len(), 1, "the second one goes into the same session");
    assert!(b.connects[0].is_transient && b.connects[0].username.as_deref() == Some("beacon"));
    b.wait(60_000);
    assert_eq!((b.closed.pop(), b.sessions.len()), (Some(Close::Idle), 0));
    b.refusal = Some(Refusal::BadCredentials);
    assert!(b.say(1, "08 0c 62 \"ab\" 00 00 \"4\"").is_empty());
    assert_eq!((b.published.len(), b.drops.pop()), (2, Some(Drop::Acl)));
    let mut b = bench_with(Config { qos_minus_one: false, ..config });
    b.say(1, "08 0c 62 \"ab\" 00 00 \"1\"");
    assert_eq!((b.published.len(), b.drops), (0, vec![Drop::Unsupported]));
}

#[test]
fn section_5_2_1_lengths_have_two_forms_and_count_themselves() {
    let mut b = bench();
    assert_eq!(b.say(1, "01 00 09 04 04 01 00 3c \"a\""), ["1: 03 05 00"]);
    assert!(b.say(1, "01 00 07 04 04 01 00 3c \"a\"").is_empty(), "does not count itself");
    assert!(b.say(1, "08 04 04 01 00 3c \"a\"").is_empty(), "longer than the datagram");
    assert!(b.say(1, "02 16 02 16").is_empty(), "two messages");
    assert_eq!(b.drops, [Drop::Malformed; 3]);
    b.say(1, "06 12 00 00 01 \"#\"");
    let long = "x".repeat(300);
    let heard = b.queue("a", "ab", &long, 0);
    assert!(heard[0].starts_with("1: 01 01 35 0c 02 61 62 00 00 78"), "{heard:?}");
    b.queue("a", "ab", &"x".repeat(2000), 1);
    assert_eq!((b.drops.pop(), b.sessions["a"].in_flight.is_some()), (Some(Drop::TooLarge), false));
}

#[test]
fn section_5_5_a_forwarders_nodes_are_clients_of_their_own_and_answered_encapsulated() {
    let mut b = bench();
    assert_eq!(b.say(1, "06 fe 00 \"n1\" 00").len(), 0, "a length longer than what is there");
    assert_eq!(b.say(1, "05 fe 01 \"n1\" 07 04 04 01 00 3c \"a\""), ["1: 05 fe 01 6e 31 03 05 00"]);
    assert_eq!(b.say(1, "05 fe 01 \"n2\" 07 04 04 01 00 3c \"b\""), ["1: 05 fe 01 6e 32 03 05 00"]);
    b.join(1, "c", true);
    assert_eq!(
        b.say(1, "05 fe 03 \"n1\" 02 16"),
        ["1: 05 fe 03 6e 31 02 17"],
        "another radius, the same node"
    );
    assert_eq!(
        b.say(1, "05 fe 01 \"n2\" 07 0a 00 00 00 01 \"x\""),
        ["1: 05 fe 01 6e 32 07 0b 00 01 00 01 00"]
    );
    assert_eq!(
        b.say(1, "08 0c 00 00 01 00 00 \"m\""),
        ["1: 07 0d 00 01 00 00 02"],
        "c has registered nothing"
    );
    assert_eq!(b.sessions.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
}

#[test]
fn section_5_4_1_advertise_says_its_duration_in_16_bits() {
    let mut b = bench_with(Config { advertise: Some(u16::MAX), gateway_id: 9, ..Config::default() });
    b.wait(0);
    b.wait(65_534_999);
    assert_eq!(b.announced, [bytes("05 00 09 ff ff")]);
    b.wait(1);
    assert_eq!(b.announced.len(), 2);
}

proptest! {
    #[test]
    fn whatever_comes_is_survived(datagrams in prop::collection::vec((1u16..3, prop::collection::vec(any::<u8>(), 0..40)), 0..40)) {
        let mut b = bench();
        for (port, mut datagram) in datagrams {
            // Mostly with a length and a type that let it in.
            if datagram.len() > 2 && datagram[0] < 200 {
                datagram[0] = datagram.len() as u8;
                datagram[1] %= 0x20;
            }
            b.raw(port, &datagram);
            b.wait(500);
        }
    }
}
