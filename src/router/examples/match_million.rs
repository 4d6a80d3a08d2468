//! What a million subscriptions with wildcards cost in memory, and what a match costs among them.
//!
//! `cargo run --release -p router --example match_million`
//!
//! Filters are `site/{site}/+/{device}/#`, 1,000 sites, all different, by 1,000 sessions. Each topic matches one of them
//! and is another one each time, so that no driver's memory of topics helps. Measured are the match alone, and a message
//! from its making through the match and the subscriber's queue to its end, in nanoseconds of processor time.

use std::sync::Arc;

use gateway::{Connect, Filter, Message, Now, Peer, Qos, Subscribe};
use router::{Attachment, Matches, Open, Options, Post, Router, Session};

const NOW: Now = Now::from_micros(1_000_000);
const SESSIONS: u32 = 1_000;
const MATCHES: u32 = 200_000;

fn main() {
    println!("subscriptions  bytes each  ns match  ns publish and deliver");
    for subscriptions in [1_000, 100_000, 1_000_000] {
        run(subscriptions);
    }
}

fn run(subscriptions: u32) {
    let router = Router::new(Options::default());
    let (mut matches, mut post) = (Matches::default(), Post::default());
    let sessions: Vec<_> = (0..SESSIONS).filter_map(|n| join(&router, n, &mut matches, &mut post)).collect();
    let before = resident();
    for n in 0..subscriptions {
        let Ok(filter) = Filter::parse(&format!("site/{}/+/{}/#", n % 1_000, n / 1_000)) else { return };
        let subscribe = Subscribe {
            filter,
            qos: Qos::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: 0,
            identifier: 0,
        };
        let (session, _) = &sessions[n as usize % sessions.len()];
        if let Err(why) = router.subscribe(NOW, session, subscribe, &mut matches, &mut post) {
            println!("refused: {why:?}");
            return;
        }
    }
    let bytes = resident().saturating_sub(before) / u64::from(subscriptions);
    // Spread over all filters; the last level makes each topic a new one.
    let topics: Vec<String> = (0..MATCHES)
        .map(|n| n.wrapping_mul(2_654_435_761) % subscriptions)
        .zip(0..)
        .map(|(f, n): (u32, u32)| format!("site/{}/x/{}/{n}", f % 1_000, f / 1_000))
        .collect();
    // Twice: the first pass brings the processor's caches, and the queues, to where they stay.
    let mut figures = [(0, 0); 2];
    for figure in &mut figures {
        let mut reached = 0;
        let began = cpu();
        for topic in &topics {
            reached += usize::from(router.has_subscribers(topic, &mut matches));
        }
        let matched = cpu();
        for topics in topics.chunks(1_000) {
            for topic in topics {
                let message = Message::new(NOW, topic, b"x");
                reached += router.publish(NOW, None, message, None, &mut matches, &mut post).unwrap_or(0);
            }
            for (at, _) in post.signals.drain(..) {
                if let Some((session, at)) = sessions.get(at.peer.slot as usize) {
                    router.drain(NOW, session, *at, &mut Post::default(), |_| true);
                }
            }
        }
        let published = cpu();
        assert_eq!(reached, 2 * MATCHES as usize);
        let each = |from: u64, to: u64| (to - from) / u64::from(MATCHES);
        *figure = (each(began, matched), each(matched, published));
    }
    let (matched, published) = figures[1];
    println!("{subscriptions:>13}  {bytes:>10}  {matched:>8}  {published:>21}");
}

/// Bytes of this process in memory. What earlier runs gave back is used again, which makes later ones a little smaller.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

/// Nanoseconds that this thread has run, whoever else used the machine meanwhile.
fn cpu() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn join(
    router: &Router,
    n: u32,
    matches: &mut Matches,
    post: &mut Post,
) -> Option<(Arc<Session>, Attachment)> {
    let mut connect = Connect::new(format!("client-{n}"), "MQTT 5.0", 100);
    let at = Attachment { driver: 0, peer: Peer { slot: n, generation: 0 } };
    let open =
        Open { connect: &mut connect, namespace: "", principal: None, username: None, mount: "".into() };
    Some((router.connect(NOW, at, open, matches, post).ok()?.session, at))
}
