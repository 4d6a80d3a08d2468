//! Who gets what: the kinds of subscription, retained and delayed messages, bounds, names that configuration changes.

use std::collections::BTreeMap;
use std::time::Duration;

use gateway::config::{Kind, Mistake, Place, Section, Value};
use gateway::{Deliver, Drop, Message, Qos, Refusal, Subscribe};
use router::{OnFull, Options, Signal, Strategy};

use super::world::{Client, ENDS, NEVER, World, asks, connect};

const SENT: [Qos; 3] = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];

/// What one delivery carries besides its payload.
fn flags(w: &mut World, client: &Client) -> Vec<(Qos, bool, Vec<u32>)> {
    let mut got = Vec::new();
    w.router.drain(w.now, &client.session, client.at, &mut w.post, |deliver| {
        if let Deliver::Message(d) = deliver {
            got.push((d.qos, d.retain, d.subscriptions.to_vec()));
        }
        true
    });
    got
}

/// `[router]` of a file with these lists of tables.
fn options(lists: &[(&str, &[(&str, &str)])]) -> Options {
    let value = |kind| Value { kind, place: Place::default() };
    let table = |keys: &[(&str, &str)]| {
        let text = |&(k, v): &(&str, &str)| (k.to_owned(), value(Kind::Text(v.to_owned())));
        value(Kind::Table(keys.iter().map(text).collect()))
    };
    let mut all = BTreeMap::new();
    for (name, keys) in lists {
        all.insert((*name).to_owned(), value(Kind::List(vec![table(keys)])));
    }
    let mut mistakes: Vec<Mistake> = Vec::new();
    let mut section = Section::new("router", value(Kind::Table(all)), &mut mistakes);
    let options = Options::read(&mut section);
    section.finish();
    assert_eq!(mistakes, []);
    options
}

#[test]
fn a_delivery_has_the_lower_of_the_two_levels() {
    let mut w = World::new();
    for granted in SENT {
        let b = w.join("b", true, ENDS);
        w.subscribe(&b, "t", granted).unwrap();
        for published in SENT {
            w.publish("t", "x", published).unwrap();
            assert_eq!(flags(&mut w, &b), [(granted.min(published), false, vec![])]);
        }
    }
}

#[test]
fn overlapping_subscriptions_deliver_once_with_the_highest_level_and_all_identifiers() {
    // MQTT-3.3.4-2, 3.3.4-4.
    let mut w = World::new();
    let b = w.join("b", true, ENDS);
    w.ask(&b, Subscribe { identifier: 7, ..asks("a/+", Qos::AtMostOnce) }).unwrap();
    w.ask(&b, Subscribe { identifier: 9, ..asks("a/#", Qos::ExactlyOnce) }).unwrap();
    w.ask(&b, asks("a/b", Qos::AtLeastOnce)).unwrap();
    w.publish("a/b", "x", Qos::ExactlyOnce).unwrap();
    let mut got = flags(&mut w, &b);
    got[0].2.sort_unstable();
    assert_eq!(got, [(Qos::ExactlyOnce, false, vec![7, 9])]);
}

#[test]
fn no_local_keeps_a_clients_own_messages_from_it() {
    // MQTT-3.8.3-3.
    let mut w = World::new();
    let (a, b) = (w.join("a", true, ENDS), w.join("b", true, ENDS));
    w.ask(&b, Subscribe { no_local: true, ..asks("t", Qos::AtMostOnce) }).unwrap();
    w.publish_from(&b, "t", "own").unwrap();
    w.publish_from(&a, "t", "other").unwrap();
    assert_eq!(w.got(&b), ["other"]);
}

#[test]
fn the_retain_flag_is_kept_only_for_who_asks() {
    // MQTT-3.3.1-12, 3.3.1-13; what was retained before comes with the flag in any case (3.3.1-8).
    let mut w = World::new();
    w.retain("t", "x");
    for retain_as_published in [false, true] {
        let b = w.join("b", true, ENDS);
        w.ask(&b, Subscribe { retain_as_published, ..asks("t", Qos::AtMostOnce) }).unwrap();
        w.retain("t", "y");
        let got: Vec<bool> = flags(&mut w, &b).into_iter().map(|f| f.1).collect();
        assert_eq!(got, [true, retain_as_published]);
    }
}

#[test]
fn retain_handling_says_when_retained_messages_are_sent() {
    // MQTT-3.3.1-9, -10, -11.
    let mut w = World::new();
    w.retain("t", "x");
    let b = w.join("b", true, ENDS);
    for (retain_handling, filter, wanted) in
        [(0, "t", 1), (0, "t", 1), (1, "t", 0), (1, "+", 1), (1, "+", 0), (2, "#", 0), (0, "$share/g/t", 0)]
    {
        w.ask(&b, Subscribe { retain_handling, ..asks(filter, Qos::AtMostOnce) }).unwrap();
        assert_eq!(w.got(&b).len(), wanted, "{filter} with {retain_handling}");
    }
}

#[test]
fn retained_messages_that_find_no_room_are_counted() {
    let mut w = World::with(Options { max_queued: 10, ..Options::default() });
    (0..15).for_each(|n| w.retain(&format!("t/{n}"), "x"));
    let b = w.join("b", true, ENDS);
    w.subscribe(&b, "t/#", Qos::AtMostOnce).unwrap();
    assert_eq!(w.got(&b).len(), 10);
    assert_eq!(w.router.drops().of(Drop::QueueFull), 5);
}

#[test]
fn a_retained_message_expires() {
    let mut w = World::new();
    let message = Message::new(w.now, "t", b"x").with_retain(true).with_expiry(Some(Duration::from_secs(5)));
    w.router.publish(w.now, None, message, None, &mut w.matches, &mut w.post).unwrap();
    w.wait(4);
    assert_eq!(w.router.stats().retained, 1);
    w.wait(2);
    assert_eq!((w.router.stats().retained, w.router.stats().retained_bytes), (0, 0));
}

#[test]
fn an_expired_message_is_not_delivered_and_is_counted() {
    // MQTT-3.3.2-5.
    let mut w = World::new();
    let b = w.join("b", false, NEVER);
    w.subscribe(&b, "t", Qos::AtLeastOnce).unwrap();
    w.leave(&b);
    for seconds in [5, 50] {
        let message = Message::new(w.now, "t", seconds.to_string().as_bytes())
            .with_qos(Qos::AtLeastOnce)
            .with_expiry(Some(Duration::from_secs(seconds)));
        w.router.publish(w.now, None, message, None, &mut w.matches, &mut w.post).unwrap();
    }
    w.wait(10);
    let b = w.join("b", false, NEVER);
    assert_eq!(w.got(&b), ["50"]);
    assert_eq!(w.router.drops().of(Drop::Expired), 1);
}

#[test]
fn a_delayed_message_comes_when_its_time_has_and_is_published_then() {
    let mut w = World::new();
    let b = w.join("b", true, ENDS);
    w.subscribe(&b, "a/b", Qos::AtMostOnce).unwrap();
    w.publish("$delayed/10/a/b", "x", Qos::AtMostOnce).unwrap();
    w.wait(9);
    assert!(w.got(&b).is_empty());
    assert_eq!(w.router.stats().delayed, 1);
    w.wait(1);
    assert_eq!(w.got(&b), ["x"]);
    assert_eq!((w.router.stats().delayed, w.router.next_timeout()), (0, None));
}

#[test]
fn a_malformed_delay_is_refused_and_too_many_are_counted() {
    let mut w = World::with(Options { max_delayed: 1, ..Options::default() });
    for topic in ["$delayed/5", "$delayed/x/t", "$delayed/-1/t", "$delayed/5/", "$delayed/1/$delayed/1/t"] {
        assert_eq!(w.publish(topic, "x", Qos::AtMostOnce), Err(Refusal::TopicName), "{topic}");
    }
    let far = format!("$delayed/{}/t", u64::MAX);
    assert_eq!(w.publish(&far, "x", Qos::AtMostOnce), Err(Refusal::TopicName));
    assert_eq!(w.publish("$delayed/5/t", "x", Qos::AtMostOnce), Ok(1));
    assert_eq!(w.publish("$delayed/5/t", "x", Qos::AtMostOnce), Err(Refusal::QuotaExceeded));
    assert_eq!(w.router.drops().of(Drop::DelayedFull), 1);
}

#[test]
fn more_deadlines_than_fit_into_one_turn_are_left_for_the_next() {
    let mut w = World::new();
    for _ in 0..1500 {
        w.publish("$delayed/1/t", "x", Qos::AtMostOnce).unwrap();
    }
    w.wait(1);
    assert!(w.router.next_timeout().is_some_and(|at| at <= w.now.instant));
    w.wait(0);
    assert_eq!(w.router.next_timeout(), None);
}

#[test]
fn a_delayed_will_under_a_mountpoint_finds_its_topic() {
    let mut w = World::new();
    w.mount = "t1/";
    let s = w.join("s", true, ENDS);
    w.subscribe(&s, "will", Qos::AtMostOnce).unwrap();
    let message = Message::new(w.now, "$delayed/5/will", b"late");
    let will = gateway::Will { message, delay: Duration::ZERO };
    let a =
        w.open(gateway::Connect { will: Some(Box::new(will)), ..connect("a", true, ENDS) }, None).unwrap();
    w.lose(&a);
    assert!(w.got(&s).is_empty());
    w.wait(5);
    assert_eq!(w.got(&s), ["late"]);
}

#[test]
fn mountpoints_keep_clients_apart_and_are_not_seen() {
    let mut w = World::new();
    w.mount = "t1/";
    let (a, b) = (w.join("a", true, ENDS), w.join("b", true, ENDS));
    w.mount = "t2/";
    let c = w.join("c", true, ENDS);
    for client in [&b, &c] {
        w.subscribe(client, "#", Qos::AtMostOnce).unwrap();
    }
    w.publish_from(&a, "x/y", "1").unwrap();
    let mut topics = Vec::new();
    w.router.drain(w.now, &b.session, b.at, &mut w.post, |deliver| {
        if let Deliver::Message(d) = deliver {
            topics.push(d.topic.to_owned());
        }
        true
    });
    assert_eq!(topics, ["x/y"]);
    assert!(w.got(&c).is_empty());
}

#[test]
fn fastlane_goes_past_the_session_and_needs_one_that_ends_with_its_connection() {
    let mut w = World::new();
    let kept = w.join("kept", false, NEVER);
    assert_eq!(w.subscribe(&kept, "$fastlane/t", Qos::AtMostOnce), Err(Refusal::TopicFilter));
    let b = w.join("b", true, ENDS);
    assert_eq!(w.subscribe(&b, "$fastlane/$queue/t", Qos::ExactlyOnce), Ok(Qos::AtMostOnce));
    w.post.signals.clear();
    w.publish("t", "x", Qos::ExactlyOnce).unwrap();
    let [(at, Signal::Fast(fast))] = w.post.signals.as_slice() else { panic!("{:?}", w.post.signals) };
    assert_eq!((*at, fast.topic(), fast.message.payload()), (b.at, "t", &b"x"[..]));
    assert!(w.got(&b).is_empty());
}

#[test]
fn queue_is_a_group_of_its_own_beside_those_with_names() {
    let mut w = World::new();
    let clients = ["a", "b"].map(|id| w.join(id, true, ENDS));
    for filter in ["$queue/t", "$share/g/t"] {
        for client in &clients {
            w.subscribe(client, filter, Qos::AtMostOnce).unwrap();
        }
    }
    for _ in 0..4 {
        assert_eq!(w.publish("t", "x", Qos::AtMostOnce), Ok(2));
    }
    let got: Vec<usize> = clients.iter().map(|c| w.got(c).len()).collect();
    assert_eq!(got, [4, 4]);
}

#[test]
fn local_and_plain_subscriptions_to_one_topic_go_one_by_one() {
    let mut w = World::new();
    let b = w.join("b", true, ENDS);
    for filter in ["t", "$local/t", "$exclusive/t"] {
        w.subscribe(&b, filter, Qos::AtMostOnce).unwrap();
    }
    assert_eq!(w.router.stats().subscriptions, 3);
    for (filter, left) in [("t", 1), ("$local/t", 1), ("$exclusive/t", 0)] {
        assert!(w.unsubscribe(&b, filter) && !w.unsubscribe(&b, filter));
        w.publish("t", "x", Qos::AtMostOnce).unwrap();
        assert_eq!(w.got(&b).len(), left, "without {filter}");
    }
    assert_eq!((w.router.stats().subscriptions, w.router.stats().filters), (0, 0));
}

#[test]
fn a_session_has_so_many_subscriptions_and_no_more() {
    let mut w = World::with(Options { max_subscriptions: 2, ..Options::default() });
    let b = w.join("b", true, ENDS);
    w.subscribe(&b, "1", Qos::AtMostOnce).unwrap();
    w.subscribe(&b, "2", Qos::AtMostOnce).unwrap();
    w.subscribe(&b, "2", Qos::AtLeastOnce).unwrap();
    assert_eq!(w.subscribe(&b, "3", Qos::AtMostOnce), Err(Refusal::QuotaExceeded));
    assert_eq!(w.publish("3", "x", Qos::AtMostOnce), Ok(0));
    assert_eq!(w.router.stats().filters, 2);
}

#[test]
fn the_house_has_so_many_sessions_and_no_more() {
    let mut w = World::with(Options { max_sessions: 1, ..Options::default() });
    w.join("a", true, ENDS);
    assert_eq!(w.open(connect("b", true, ENDS), None).err(), Some(Refusal::QuotaExceeded));
    assert!(w.open(connect("a", true, ENDS), None).is_ok());
}

#[test]
fn a_queue_that_refuses_tells_the_publisher() {
    let mut w = World::with(Options { max_queued: 2, on_full: OnFull::Refuse, ..Options::default() });
    let b = w.join("b", false, NEVER);
    w.subscribe(&b, "t", Qos::AtLeastOnce).unwrap();
    w.leave(&b);
    let sent: Vec<bool> = (0..3).map(|n| w.publish("t", &n.to_string(), Qos::AtLeastOnce).is_ok()).collect();
    assert_eq!(sent, [true, true, false]);
    let b = w.join("b", false, NEVER);
    assert_eq!(w.got(&b), ["0", "1"]);
}

#[test]
fn a_qos_2_message_that_was_refused_may_come_again() {
    let mut w = World::with(Options { max_queued: 1, on_full: OnFull::Refuse, ..Options::default() });
    let (a, b) = (w.join("a", true, ENDS), w.join("b", true, ENDS));
    w.subscribe(&b, "t", Qos::AtLeastOnce).unwrap();
    let send = |w: &mut World, id| {
        let message = Message::new(w.now, "t", b"x").with_qos(Qos::ExactlyOnce);
        w.router.publish(w.now, Some(&a.session), message, Some(id), &mut w.matches, &mut w.post).is_ok()
    };
    assert!(send(&mut w, 1) && !send(&mut w, 2) && !send(&mut w, 2));
    w.got(&b);
    assert!(send(&mut w, 2));
    assert_eq!(w.got(&b), ["x"]);
}

#[test]
fn a_member_whose_queue_is_full_is_passed_over() {
    let mut w = World::with(Options { max_queued: 2, ..Options::default() });
    let clients = ["a", "b"].map(|id| w.join(id, true, ENDS));
    for client in &clients {
        w.subscribe(client, "$share/g/t", Qos::AtLeastOnce).unwrap();
    }
    w.publish("t", "1", Qos::AtLeastOnce).unwrap();
    w.publish("t", "2", Qos::AtLeastOnce).unwrap();
    assert_eq!(w.got(&clients[0]).len(), 1);
    for _ in 0..2 {
        w.publish("t", "x", Qos::AtLeastOnce).unwrap();
    }
    assert_eq!(w.router.drops().of(Drop::QueueFull), 0);
    assert_eq!(w.got(&clients[0]).len() + w.got(&clients[1]).len(), 3);
}

#[test]
fn strategies_choose_as_they_say() {
    for (share_strategy, topics, members) in [
        (Strategy::Sticky, 40, 1..=1),
        (Strategy::HashTopic, 1, 1..=1),
        (Strategy::HashTopic, 40, 2..=4),
        (Strategy::HashClient, 40, 1..=1),
        (Strategy::Random, 40, 2..=4),
        (Strategy::RoundRobin, 40, 4..=4),
        (Strategy::LocalFirst, 40, 4..=4),
    ] {
        let mut w = World::with(Options { share_strategy, ..Options::default() });
        let clients = ["a", "b", "c", "d"].map(|id| w.join(id, true, ENDS));
        for client in &clients {
            w.subscribe(client, "$share/g/t/+", Qos::AtLeastOnce).unwrap();
        }
        for n in 0..40 {
            w.publish(&format!("t/{}", n % topics), "x", Qos::AtLeastOnce).unwrap();
        }
        let got: Vec<usize> = clients.iter().map(|c| w.got(c).len()).collect();
        assert_eq!(got.iter().sum::<usize>(), 40);
        let served = got.iter().filter(|&&n| n > 0).count();
        assert!(members.contains(&served), "{share_strategy:?} over {topics}: {got:?}");
    }
}

#[test]
fn shared_messages_move_at_disconnect_if_the_house_wants_it() {
    for redispatch_on_disconnect in [false, true] {
        let mut w = World::with(Options { redispatch_on_disconnect, ..Options::default() });
        let b = w.join("b", false, NEVER);
        w.subscribe(&b, "$share/g/t", Qos::ExactlyOnce).unwrap();
        w.publish("t", "one", Qos::AtLeastOnce).unwrap();
        w.publish("t", "two", Qos::ExactlyOnce).unwrap();
        assert_eq!(w.got(&b), ["one", "two"]);
        w.publish("t", "three", Qos::AtLeastOnce).unwrap();
        let c = w.join("c", true, ENDS);
        w.subscribe(&c, "$share/g/t", Qos::ExactlyOnce).unwrap();
        w.lose(&b);
        let moved: &[&str] = if redispatch_on_disconnect { &["one", "three"] } else { &[] };
        assert_eq!(w.got(&c), moved);
        let b = w.join("b", false, NEVER);
        let stayed: &[&str] = if redispatch_on_disconnect { &["two!"] } else { &["one!", "two!", "three"] };
        assert_eq!(w.got(&b), stayed);
    }
}

#[test]
fn a_rule_rewrites_what_is_published_and_what_is_subscribed() {
    let rule: &[(&str, &str)] = &[("source", "x/#"), ("pattern", "^x/(.+)$"), ("target", "z/%c/$1")];
    let mut w = World::with(options(&[("rewrite", rule)]));
    let (a, s) = (w.join("a", true, ENDS), w.join("s", true, ENDS));
    w.subscribe(&s, "z/#", Qos::AtMostOnce).unwrap();
    w.subscribe(&a, "x/y", Qos::AtMostOnce).unwrap();
    assert_eq!(w.publish_from(&a, "x/y", "1"), Ok(2));
    assert_eq!(w.publish_from(&a, "$delayed/1/x/y", "2"), Ok(1));
    w.wait(1);
    assert_eq!((w.got(&s), w.got(&a)), (vec!["1".into(), "2".into()], vec!["1".into(), "2".into()]));
    assert!(w.unsubscribe(&a, "x/y"));
    assert_eq!(w.publish_from(&a, "x/y", "3"), Ok(1));
}

#[test]
fn automatic_subscriptions_are_made_once_with_the_clients_names() {
    let auto: &[(&str, &str)] = &[("filter", "commands/%c")];
    let mut w = World::with(options(&[("auto_subscribe", auto)]));
    let b = w.join("b", false, NEVER);
    w.leave(&b);
    let b = w.join("b", false, NEVER);
    let strange = w.join("a/+", true, ENDS);
    assert_eq!(w.router.stats().subscriptions, 1, "a client id that would be a wildcard gets none");
    w.publish("commands/b", "x", Qos::AtMostOnce).unwrap();
    assert_eq!((w.got(&b), w.got(&strange)), (vec!["x".to_owned()], vec![]));
}
