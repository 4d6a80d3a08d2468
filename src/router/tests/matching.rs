//! Subscriptions and retained messages against the naive matcher of the contract, over random topics and filters.
#![expect(clippy::unwrap_used, reason = "all of this file is a test, its helpers too")]

use std::collections::BTreeSet;
use std::sync::Arc;

use gateway::topic::{check_filter, matches};
use gateway::{Connect, Deliver, Filter, Message, Now, Peer, Qos, Subscribe};
use proptest::prelude::*;
use router::{Attachment, Matches, Open, Options, Post, Router, Session};

const NOW: Now = Now::from_micros(1_000_000);

fn join(router: &Router, slot: u32) -> (Arc<Session>, Attachment) {
    let mut connect = Connect::new(format!("c{slot}"), "MQTT 5.0", 10);
    let at = Attachment { driver: 0, peer: Peer { slot, generation: 0 } };
    let open =
        Open { connect: &mut connect, namespace: "", principal: None, username: None, mount: "".into() };
    let (mut found, mut post) = (Matches::default(), Post::default());
    (router.connect(NOW, at, open, &mut found, &mut post).unwrap().session, at)
}

fn subscribe(router: &Router, session: &Arc<Session>, filter: &str) {
    let subscribe = Subscribe {
        filter: Filter::parse(filter).unwrap(),
        qos: Qos::AtMostOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: 0,
        identifier: 0,
    };
    let (mut found, mut post) = (Matches::default(), Post::default());
    router.subscribe(NOW, session, subscribe, &mut found, &mut post).unwrap();
}

fn publish(router: &Router, found: &mut Matches, topic: &str, retain: bool) {
    let message = Message::new(NOW, topic, topic.as_bytes()).with_retain(retain);
    router.publish(NOW, None, message, None, found, &mut Post::default()).unwrap();
}

/// Payloads that the session gets now.
fn drain(router: &Router, session: &Session, at: Attachment) -> Vec<String> {
    let mut got = Vec::new();
    router.drain(NOW, session, at, &mut Post::default(), |deliver| {
        if let Deliver::Message(delivery) = deliver {
            got.push(String::from_utf8_lossy(delivery.message.payload()).into_owned());
        }
        true
    });
    got
}

/// Few words, so that topics and filters meet; empty levels and a leading `$` among them.
fn topic() -> impl Strategy<Value = String> {
    let level = prop::sample::select(vec!["a", "b", "c", "", "$x"]);
    prop::collection::vec(level, 1..5)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("empty", |t| !t.is_empty())
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop::sample::select(vec!["a", "b", "c", "", "$x", "+", "+"]);
    let levels = (prop::collection::vec(level, 1..5), any::<bool>());
    let joined = levels.prop_map(|(levels, all)| levels.join("/") + if all { "/#" } else { "" });
    prop_oneof![joined, Just("#".to_owned())].prop_filter("no filter", |filter| check_filter(filter).is_ok())
}

proptest! {
    #[test]
    fn a_message_reaches_whom_the_naive_matcher_says(
        filters in prop::collection::vec(filter(), 1..12),
        topics in prop::collection::vec(topic(), 1..12),
        gone in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let router = Router::new(Options::default());
        let sessions: Vec<_> = (0..filters.len()).map(|n| join(&router, n as u32)).collect();
        // One cache for all of it, as a driver has: it must notice every change.
        let mut found = Matches::default();
        for ((session, _), filter) in sessions.iter().zip(&filters) {
            subscribe(&router, session, filter);
            publish(&router, &mut found, &topics[0], false);
        }
        sessions.iter().for_each(|(session, at)| drop(drain(&router, session, *at)));
        let gone: BTreeSet<usize> = gone.iter().map(|index| index.index(filters.len())).collect();
        for &n in &gone {
            prop_assert!(router.unsubscribe(&sessions[n].0, &Filter::parse(&filters[n]).unwrap(), &mut Post::default()).unwrap());
        }
        for topic in &topics {
            publish(&router, &mut found, topic, false);
            for (n, (session, at)) in sessions.iter().enumerate() {
                let wanted = !gone.contains(&n) && matches(&filters[n], topic);
                let got = drain(&router, session, *at);
                prop_assert_eq!(got.len(), usize::from(wanted), "{} and {}", &filters[n], topic);
            }
        }
    }

    #[test]
    fn overlapping_filters_of_one_session_deliver_once(
        filters in prop::collection::vec(filter(), 1..8),
        topic in topic(),
    ) {
        let router = Router::new(Options::default());
        let (session, at) = join(&router, 0);
        filters.iter().for_each(|filter| subscribe(&router, &session, filter));
        publish(&router, &mut Matches::default(), &topic, false);
        let wanted = filters.iter().any(|filter| matches(filter, &topic));
        prop_assert_eq!(drain(&router, &session, at).len(), usize::from(wanted));
    }

    #[test]
    fn retained_messages_are_found_as_the_naive_matcher_says(
        topics in prop::collection::btree_set(topic(), 0..16),
        cleared in prop::collection::vec(topic(), 0..8),
        filter in filter(),
    ) {
        let router = Router::new(Options::default());
        let mut found = Matches::default();
        topics.iter().for_each(|topic| publish(&router, &mut found, topic, true));
        for topic in &cleared {
            let message = Message::new(NOW, topic, b"").with_retain(true);
            router.publish(NOW, None, message, None, &mut found, &mut Post::default()).unwrap();
        }
        let kept = topics.iter().filter(|topic| !cleared.contains(topic));
        let wanted: BTreeSet<String> = kept.filter(|topic| matches(&filter, topic)).cloned().collect();
        let (session, at) = join(&router, 0);
        subscribe(&router, &session, &filter);
        let got: BTreeSet<String> = drain(&router, &session, at).into_iter().collect();
        prop_assert_eq!(&got, &wanted);
        let (limit, most) = (1 + wanted.len() / 2, 1 + wanted.len());
        let is_long = |m: &Message| m.topic().len() > 3;
        let some = router.retained_if(NOW, &Filter::parse(&filter).unwrap(), limit, most, is_long);
        let long = wanted.iter().filter(|topic| topic.len() > 3).count();
        prop_assert_eq!(some.len(), long.min(limit));
        prop_assert!(some.iter().all(|m| is_long(m) && wanted.contains(m.topic())));
        prop_assert!(router.retained_if(NOW, &Filter::parse(&filter).unwrap(), 9, 1, |_| true).len() <= 1);
        let all = router.retained(NOW, &Filter::parse(&filter).unwrap(), usize::MAX);
        prop_assert_eq!(all.len(), wanted.len());
        prop_assert_eq!(router.stats().retained, topics.iter().filter(|topic| !cleared.contains(topic)).count());
    }
}
