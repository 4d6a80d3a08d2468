//! What sessions cost, counted by the allocator: the router's part of the bytes of an idle connection.
#![expect(clippy::unwrap_used, reason = "all of this file is a test, its helpers too")]

mod counting;

use std::sync::Arc;

use gateway::{Connect, Filter, Message, Now, Peer, Qos, Subscribe};
use router::{Attachment, Matches, Open, Options, Post, Router, Session};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

const NOW: Now = Now::from_micros(1_000_000);
/// The registry's shards are between two of their sizes then.
const CLIENTS: u32 = 20_000;

fn join(router: &Router, n: u32) -> (Arc<Session>, Attachment) {
    let mut connect = Connect::new(format!("device-{n:06}"), "MQTT 5.0", 100);
    let at = Attachment { driver: 0, peer: Peer { slot: n, generation: 0 } };
    let open =
        Open { connect: &mut connect, namespace: "", principal: None, username: None, mount: "".into() };
    (router.connect(NOW, at, open, &mut Matches::default(), &mut Post::default()).unwrap().session, at)
}

/// One test, for the allocator counts what all threads do.
#[test]
fn an_idle_session_and_its_subscription_are_small_and_leave_nothing_behind() {
    let router = Router::new(Options::default());
    let (mut matches, mut post) = (Matches::default(), Post::default());
    let mut sessions = Vec::with_capacity(CLIENTS as usize);
    let before = counting::out();
    sessions.extend((0..CLIENTS).map(|n| join(&router, n)));
    let idle = (counting::out() - before) / CLIENTS as usize;
    println!("{idle} bytes a session with a client id of 13 bytes");
    assert!(idle <= 224, "{idle} bytes a session");

    let before = counting::out();
    for (n, (session, _)) in sessions.iter().enumerate() {
        let subscribe = Subscribe {
            filter: Filter::parse(&format!("devices/{n:06}/command")).unwrap(),
            qos: Qos::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: 0,
            identifier: 0,
        };
        router.subscribe(NOW, session, subscribe, &mut matches, &mut post).unwrap();
    }
    let exact = (counting::out() - before) / CLIENTS as usize;
    println!("{exact} bytes a subscription to a topic of 22 bytes");
    assert!(exact <= 240, "{exact} bytes a subscription");

    // What a message needed goes when it is delivered.
    let before = counting::out();
    for n in 0..CLIENTS {
        let message = Message::new(NOW, &format!("devices/{n:06}/command"), b"x");
        router.publish(NOW, None, message, None, &mut matches, &mut post).unwrap();
        let (session, at) = &sessions[n as usize];
        router.drain(NOW, session, *at, &mut Post::default(), |_| true);
        post.signals.clear();
    }
    let (grown, all) = (counting::out().saturating_sub(before), CLIENTS as usize);
    assert!(grown < all, "{grown} bytes stay of {all} messages");

    for (session, at) in &sessions {
        router.disconnect(NOW, session, *at, false, None, &mut matches, &mut post);
    }
    // A driver's memory of routes forgets them when it is asked next, or here.
    drop(matches);
    let stats = router.stats();
    assert_eq!((stats.sessions, stats.filters), (0, 0));
    assert!(sessions.iter().all(|(session, _)| Arc::strong_count(session) == 1), "somebody keeps a session");
}
