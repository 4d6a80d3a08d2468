//! Topic filters and the router that matches them. Each line is a step: `+filter` subscribes, `-filter` unsubscribes,
//! `=topic` publishes a retained message, `~topic` removes it, any other line publishes to what it says.
//!
//! Filters are taken apart and put together again; who gets a message is what the contract's naive matcher says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gateway::topic::{check_filter, check_name, matches};
use gateway::{Connect, Deliver, Filter, Message, Now, Peer, Qos, Subscribe};
use router::{Attachment, Matches, Open, Options, Post, Router, Session};

const NOW: Now = Now::from_micros(1_000_000);
/// Lines of one input that are played.
const MOST: usize = 64;

struct Bench {
    router: Router,
    session: Arc<Session>,
    at: Attachment,
    /// A driver's memory of routes: it must notice every change.
    found: Matches,
    /// Identifier by filter.
    subscribed: BTreeMap<String, u32>,
    retained: BTreeSet<String>,
    last: u32,
}

/// Plays `data`.
pub fn play(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut bench = Bench::new();
    for line in text.split('\n').take(MOST) {
        if let Some(filter) = line.strip_prefix('+') {
            bench.subscribe(filter);
        } else if let Some(filter) = line.strip_prefix('-') {
            bench.unsubscribe(filter);
        } else if let Some(topic) = line.strip_prefix('=') {
            bench.retain(topic, b"x");
        } else if let Some(topic) = line.strip_prefix('~') {
            bench.retain(topic, b"");
        } else {
            bench.publish(line);
        }
    }
}

impl Bench {
    fn new() -> Bench {
        let router = Router::new(Options::default());
        let mut connect = Connect::new("c", "MQTT 5.0", 10);
        let at = Attachment { driver: 0, peer: Peer { slot: 0, generation: 0 } };
        let open =
            Open { connect: &mut connect, namespace: "", principal: None, username: None, mount: "".into() };
        let mut found = Matches::default();
        let opened = router.connect(NOW, at, open, &mut found, &mut Post::default());
        let Ok(opened) = opened else { panic!("an empty router takes a session") };
        let (subscribed, retained) = (BTreeMap::new(), BTreeSet::new());
        Bench { router, session: opened.session, at, found, subscribed, retained, last: 0 }
    }

    fn subscribe(&mut self, text: &str) {
        let Some(filter) = parse(text) else { return };
        let kept = self.router.retained(NOW, &filter, usize::MAX);
        let kept: BTreeSet<String> = kept.iter().map(|m| m.topic().to_owned()).collect();
        let wanted = self.retained.iter().filter(|t| matches(filter.plain(), t)).cloned().collect();
        assert_eq!(kept, wanted, "{text:?}");
        // Shared, exclusive and fastlane subscriptions go other ways than the session's queue, or to one of several.
        if filter.group().is_some() || filter.is_exclusive() || filter.is_fastlane() || filter.is_local() {
            return;
        }
        self.last += 1;
        let subscribe = Subscribe {
            filter,
            qos: Qos::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: 0,
            identifier: self.last,
        };
        let granted =
            self.router.subscribe(NOW, &self.session, subscribe, &mut self.found, &mut Post::default());
        assert_eq!(granted, Ok(Qos::AtMostOnce));
        self.subscribed.insert(text.to_owned(), self.last);
        let sent: BTreeSet<String> = self.drain().into_iter().map(|(topic, _)| topic).collect();
        assert_eq!(sent, wanted, "{text:?}");
    }

    fn unsubscribe(&mut self, text: &str) {
        let Some(filter) = parse(text) else { return };
        let was_there = self.subscribed.remove(text).is_some();
        assert_eq!(
            self.router.unsubscribe(&self.session, &filter, &mut Post::default()),
            Ok(was_there),
            "{text:?}"
        );
    }

    fn retain(&mut self, topic: &str, payload: &[u8]) {
        if !is_published(topic) {
            return;
        }
        if payload.is_empty() {
            self.retained.remove(topic);
        } else {
            self.retained.insert(topic.to_owned());
        }
        self.give(Message::new(NOW, topic, payload).with_retain(true));
    }

    fn publish(&mut self, topic: &str) {
        if is_published(topic) {
            self.give(Message::new(NOW, topic, b"y"));
        }
    }

    /// Publishes, as the session's own client since only its topics are remembered by the driver.
    fn give(&mut self, message: Message) {
        let topic = message.topic().to_owned();
        let wanted: Vec<u32> = {
            let all = self.subscribed.iter().filter(|(filter, _)| matches(filter, &topic));
            let all: BTreeSet<u32> = all.map(|(_, id)| *id).collect();
            all.into_iter().collect()
        };
        let published = self.router.publish(
            NOW,
            Some(&self.session),
            message,
            None,
            &mut self.found,
            &mut Post::default(),
        );
        assert!(published.is_ok_and(|to| (to > 0) != wanted.is_empty()), "{topic:?}");
        let got = self.drain();
        let expected = if wanted.is_empty() { Vec::new() } else { vec![(topic, wanted)] };
        assert_eq!(got, expected);
    }

    /// Topics with identifiers, in order of the identifiers.
    fn drain(&mut self) -> Vec<(String, Vec<u32>)> {
        let mut got = Vec::new();
        self.router.drain(NOW, &self.session, self.at, &mut Post::default(), |deliver| {
            if let Deliver::Message(delivery) = deliver {
                let mut ids = delivery.subscriptions.to_vec();
                ids.sort_unstable();
                got.push((delivery.topic.to_owned(), ids));
            }
            true
        });
        got
    }
}

/// Names that are published as they stand; the house delays those under `$delayed/`.
fn is_published(topic: &str) -> bool {
    if check_name(topic).is_err() {
        return false;
    }
    // A name is a filter without wildcards.
    assert_eq!(check_filter(topic), Ok(()));
    assert!(matches(topic, topic));
    assert_eq!(matches("#", topic), !topic.starts_with('$'));
    !topic.starts_with("$delayed/")
}

fn parse(text: &str) -> Option<Filter> {
    let filter = Filter::parse(text).ok()?;
    let plain = filter.plain();
    assert!(filter.as_str() == text && text.ends_with(plain));
    assert_eq!(check_filter(plain), Ok(()));
    assert_eq!(filter.has_wildcard(), check_name(plain).is_err());
    let is_plain =
        filter.group().is_none() && !(filter.is_fastlane() || filter.is_local() || filter.is_exclusive());
    assert_eq!(is_plain, plain.len() == text.len());
    if let Ok(mounted) = filter.mounted("t/") {
        assert_eq!(mounted.plain(), format!("t/{plain}"));
        assert_eq!(mounted.group(), filter.group());
    }
    Some(filter)
}
