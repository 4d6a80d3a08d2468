//! Several drivers at once.

use std::sync::atomic::{AtomicBool, Ordering};

use gateway::{Deliver, Message, Now, Peer, Qos, Settle, Subscribe};
use router::{Attachment, Matches, Open, Options, Post, Router};

use super::world::{ENDS, NEVER, asks, connect};

const NOW: Now = Now::from_micros(1_000_000);

/// A driver's part of a test: its number, its match cache and its post, which nobody reads.
#[derive(Default)]
struct Driver {
    number: u16,
    slot: u32,
    matches: Matches,
    post: Post,
}

impl Driver {
    fn at(&mut self) -> Attachment {
        self.slot += 1;
        Attachment { driver: self.number, peer: Peer { slot: self.slot, generation: 0 } }
    }

    fn open(
        &mut self,
        router: &Router,
        id: &str,
        clean_start: bool,
        expiry: std::time::Duration,
    ) -> (std::sync::Arc<router::Session>, Attachment) {
        let (at, mut connect) = (self.at(), connect(id, clean_start, expiry));
        let open =
            Open { connect: &mut connect, namespace: "", principal: None, username: None, mount: "".into() };
        (router.connect(NOW, at, open, &mut self.matches, &mut self.post).unwrap().session, at)
    }

    fn close(&mut self, router: &Router, session: &std::sync::Arc<router::Session>, at: Attachment) {
        router.disconnect(NOW, session, at, false, None, &mut self.matches, &mut self.post);
        self.post.signals.clear();
    }

    fn publish(&mut self, router: &Router, topic: &str, payload: &[u8]) {
        let message = Message::new(NOW, topic, payload).with_qos(Qos::AtLeastOnce);
        router.publish(NOW, None, message, None, &mut self.matches, &mut self.post).unwrap();
        self.post.signals.clear();
    }

    fn subscribe(
        &mut self,
        router: &Router,
        session: &std::sync::Arc<router::Session>,
        subscribe: Subscribe,
    ) {
        router.subscribe(NOW, session, subscribe, &mut self.matches, &mut self.post).unwrap();
    }
}

#[test]
fn a_publishers_order_is_kept_while_the_subscriber_comes_and_goes() {
    const EACH: u32 = 5_000;
    let router = Router::new(Options::default());
    let mut home = Driver::default();
    let (session, at) = home.open(&router, "s", false, NEVER);
    home.subscribe(&router, &session, asks("t/+", Qos::AtLeastOnce));
    home.close(&router, &session, at);
    let mut next = [0u32; 2];
    std::thread::scope(|scope| {
        for publisher in 0..2u8 {
            let router = &router;
            scope.spawn(move || {
                let mut driver = Driver { number: 1 + u16::from(publisher), ..Driver::default() };
                for n in 0..EACH {
                    let mut payload = vec![publisher];
                    payload.extend(n.to_be_bytes());
                    driver.publish(router, &format!("t/{publisher}"), &payload);
                }
            });
        }
        while next != [EACH; 2] {
            // Each time by another driver, and each time away with something unacknowledged.
            home.number = home.number % 7 + 3;
            let (session, at) = home.open(&router, "s", false, NEVER);
            let mut ids = Vec::new();
            router.drain(NOW, &session, at, &mut Post::default(), |deliver| {
                let Deliver::Message(d) = deliver else { panic!("QoS 1 only") };
                let payload = d.message.payload();
                let n = u32::from_be_bytes(payload[1..5].try_into().unwrap());
                let seen = &mut next[usize::from(payload[0])];
                // What is sent again was seen before; what is new is the next.
                assert!(n == *seen || (d.duplicate && n < *seen), "{n} after {seen}");
                *seen = (*seen).max(n + 1);
                ids.extend(d.id);
                true
            });
            let most = ids.len() - ids.len() / 3;
            for id in &ids[..most] {
                router.settle(NOW, &session, *id, Settle::Done, &mut home.post);
            }
            home.close(&router, &session, at);
        }
    });
}

#[test]
fn sessions_that_end_while_they_are_taken_over_are_left_by_nobody() {
    let router = Router::new(Options::default());
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut driver = Driver { number: 9, ..Driver::default() };
            while !is_over.load(Ordering::Relaxed) {
                driver.publish(&router, "t/1", b"x");
            }
        });
        let workers: Vec<_> = (0..3u16)
            .map(|number| {
                let router = &router;
                scope.spawn(move || {
                    let mut driver = Driver { number, ..Driver::default() };
                    for n in 0..2_000 {
                        let id = format!("c{}", n % 3);
                        let expiry = if n % 4 == 0 { NEVER } else { ENDS };
                        let (session, at) = driver.open(router, &id, n % 5 == 0, expiry);
                        for filter in ["t/+", "t/1", "$share/g/t/#"] {
                            let subscribe = asks(filter, Qos::AtLeastOnce);
                            // Refused if another has taken the session over and ended it by now.
                            let _ = router.subscribe(
                                NOW,
                                &session,
                                subscribe,
                                &mut driver.matches,
                                &mut driver.post,
                            );
                        }
                        router.drain(NOW, &session, at, &mut Post::default(), |_| true);
                        driver.close(router, &session, at);
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let mut driver = Driver::default();
    for id in ["c0", "c1", "c2"] {
        let (session, at) = driver.open(&router, id, true, ENDS);
        driver.close(&router, &session, at);
    }
    let stats = router.stats();
    assert_eq!((stats.sessions, stats.subscriptions, stats.shared, stats.filters), (0, 0, 0, 0));
}

#[test]
fn who_connects_while_an_earlier_connection_ends_has_a_session_that_works() {
    let router = Router::new(Options::default());
    for _ in 0..2_000 {
        let (mut old, mut new) = (Driver::default(), Driver { number: 1, ..Driver::default() });
        let (session, at) = old.open(&router, "c", false, ENDS);
        std::thread::scope(|scope| {
            scope.spawn(|| old.close(&router, &session, at));
            let (session, at) = new.open(&router, "c", false, ENDS);
            new.subscribe(&router, &session, asks("t", Qos::AtMostOnce));
            new.publish(&router, "t", b"x");
            let mut count = 0;
            router.drain(NOW, &session, at, &mut Post::default(), |_| {
                count += 1;
                true
            });
            assert_eq!(count, 1);
        });
    }
    assert_eq!(router.stats().sessions, 1);
}
