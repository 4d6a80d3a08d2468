//! Sessions that the store keeps: all that holds for sessions without one, and that they outlive the process.
#![expect(clippy::unwrap_used, reason = "all of this file is a test, its helpers too")]

#[path = "sessions/main.rs"]
mod sessions;

#[path = "sessions/disk.rs"]
mod disk;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gateway::{Connect, DeliveryId, Message, Peer, Qos, Refusal, Settle, Will};
use router::{Attachment, Matches, OnFull, Open, Options, Post, Router};
use store::{Key, Table};

use disk::Disk;
use sessions::world::{Client, ENDS, NEVER, World, connect};

fn count(world: &World, table: Table) -> usize {
    let mut n = 0;
    let view = world.store.as_ref().unwrap().view().unwrap();
    view.scan(&Key::new(table), &Key::end(table), &mut |_, _| {
        n += 1;
        true
    })
    .unwrap();
    n
}

fn subscriber(w: &mut World, id: &str, qos: Qos) -> Client {
    let b = w.join(id, false, NEVER);
    if !b.present {
        w.subscribe(&b, "t", qos).unwrap();
    }
    b
}

#[test]
fn a_session_its_subscriptions_and_its_queue_outlive_the_process() {
    let mut disk = Disk::new();
    let mut w = disk.world();
    let b = subscriber(&mut w, "b", Qos::AtLeastOnce);
    w.leave(&b);
    w.publish("t", "1", Qos::AtLeastOnce).unwrap();
    w.publish("t", "0", Qos::AtMostOnce).unwrap();
    let mut w = disk.again(w, 5);
    w.publish("t", "2", Qos::AtLeastOnce).unwrap();
    w.write();
    let b = w.join("b", false, NEVER);
    assert!(b.present);
    assert_eq!(w.got(&b), ["1", "2"]);
    assert!(w.got(&b).is_empty());
}

#[test]
fn what_was_not_written_is_lost_and_the_rest_is_whole() {
    let disk = Disk::new();
    let mut w = disk.world();
    let b = subscriber(&mut w, "b", Qos::AtLeastOnce);
    w.leave(&b);
    w.write();
    w.publish("t", "lost", Qos::AtLeastOnce).unwrap();
    assert!(w.post.wait > w.store.as_ref().unwrap().durable(), "nobody was told that it is kept");
    drop(w);
    let mut w = disk.world();
    let b = w.join("b", false, NEVER);
    assert!(b.present && w.got(&b).is_empty());
}

#[test]
fn a_session_that_ends_with_its_connection_leaves_nothing_on_the_disk() {
    let disk = Disk::new();
    let mut w = disk.world();
    let b = w.join("b", true, ENDS);
    w.subscribe(&b, "t", Qos::ExactlyOnce).unwrap();
    w.publish("t", "x", Qos::ExactlyOnce).unwrap();
    assert_eq!((w.post.wait, w.got(&b)), (0, vec!["x".to_owned()]));
    w.write();
    for table in Table::ALL.into_iter().filter(|t| *t != Table::Meta) {
        assert_eq!(count(&w, table), 0, "{table:?}");
    }
}

#[test]
fn deliveries_in_flight_come_again_with_their_packet_ids_and_in_order() {
    let mut disk = Disk::new();
    let mut w = disk.world();
    let b = subscriber(&mut w, "b", Qos::ExactlyOnce);
    for (n, qos) in
        [Qos::AtLeastOnce, Qos::ExactlyOnce, Qos::ExactlyOnce, Qos::AtLeastOnce].iter().enumerate()
    {
        w.publish("t", &n.to_string(), *qos).unwrap();
    }
    let mut ids = Vec::new();
    assert_eq!(w.drain(&b, &mut ids), ["0", "1", "2", "3"]);
    assert!(w.router.receive(&b.session, ids[1], &mut w.post));
    w.settle(&b, ids[3], Settle::Done);
    let mut w = disk.again(w, 0);
    w.publish("t", "4", Qos::AtLeastOnce).unwrap();
    let b = w.join("b", false, NEVER);
    let mut again = Vec::new();
    assert_eq!(w.drain(&b, &mut again), ["0!", "release", "2!", "4"]);
    assert_eq!(again[..3], ids[..3]);
    assert!(!ids[..3].contains(&again[3]));
    again.iter().for_each(|id| w.settle(&b, *id, Settle::Done));
    let mut w = disk.again(w, 0);
    let b = w.join("b", false, NEVER);
    assert!(w.got(&b).is_empty());
    assert_eq!((count(&w, Table::Queue), count(&w, Table::Flights)), (0, 0));
}

#[test]
fn a_qos_2_delivery_waits_until_its_packet_id_is_on_the_disk() {
    let disk = Disk::new();
    let mut w = disk.world();
    let b = subscriber(&mut w, "b", Qos::ExactlyOnce);
    w.publish("t", "1", Qos::ExactlyOnce).unwrap();
    w.publish("t", "2", Qos::AtLeastOnce).unwrap();
    assert!(w.drain_once(&b, &mut Vec::new()).is_empty(), "nor may a later one overtake it");
    w.post.signals.clear();
    w.write();
    assert_eq!(w.post.signals.len(), 1, "the driver is told");
    let mut ids: Vec<DeliveryId> = Vec::new();
    assert_eq!(w.drain_once(&b, &mut ids), ["1", "2"]);
    assert_eq!(ids.len(), 2);
}

#[test]
fn a_qos_1_delivery_does_not_wait() {
    let disk = Disk::new();
    let mut w = disk.world();
    let b = subscriber(&mut w, "b", Qos::AtLeastOnce);
    w.publish("t", "1", Qos::AtLeastOnce).unwrap();
    assert_eq!(w.drain_once(&b, &mut Vec::new()), ["1"]);
}

#[test]
fn a_qos_2_message_is_published_once_over_a_restart_and_its_id_is_free_after_its_release() {
    let mut disk = Disk::new();
    let mut w = disk.world();
    let b = subscriber(&mut w, "b", Qos::AtLeastOnce);
    w.leave(&b);
    let publish = |w: &mut World, a: &Client, payload: &str| {
        let message = Message::new(w.now, "t", payload.as_bytes()).with_qos(Qos::ExactlyOnce);
        let World { router, now, matches, post, .. } = w;
        router.publish(*now, Some(&a.session), message, Some(7), matches, post).unwrap();
    };
    let a = w.join("a", false, NEVER);
    publish(&mut w, &a, "first");
    let mut w = disk.again(w, 0);
    let a = w.join("a", false, NEVER);
    publish(&mut w, &a, "first");
    assert!(w.router.release(&a.session, 7, &mut w.post));
    let mut w = disk.again(w, 0);
    let a = w.join("a", false, NEVER);
    assert!(!w.router.release(&a.session, 7, &mut w.post));
    publish(&mut w, &a, "second");
    let b = w.join("b", false, NEVER);
    assert_eq!(w.got(&b), ["first", "second"]);
}

#[test]
fn one_message_to_many_sleepers_is_written_once_and_its_space_comes_back() {
    let mut disk = Disk::new();
    let mut w = disk.world();
    for n in 0..20 {
        let b = subscriber(&mut w, &n.to_string(), Qos::AtLeastOnce);
        w.leave(&b);
    }
    let payload = "x".repeat(2000);
    for _ in 0..5 {
        w.publish("t", &payload, Qos::AtLeastOnce).unwrap();
    }
    w.write();
    assert_eq!((count(&w, Table::Shared), count(&w, Table::Queue)), (5, 100));
    let mut w = disk.again(w, 0);
    w.store.as_ref().unwrap().learn();
    for n in 0..20 {
        assert_eq!(count(&w, Table::Shared), 5);
        let b = w.join(&n.to_string(), false, NEVER);
        let mut ids = Vec::new();
        assert_eq!(w.drain(&b, &mut ids).len(), 5);
        ids.iter().for_each(|id| w.settle(&b, *id, Settle::Done));
        w.write();
    }
    assert_eq!((count(&w, Table::Shared), count(&w, Table::Queue)), (0, 0));
    let figures = w.store.as_ref().unwrap().figures();
    assert_eq!((figures.messages, figures.bytes), (0, 0));
}

#[test]
fn a_long_queue_lies_on_the_disk_and_comes_back_in_order_while_more_comes() {
    let disk = Disk::new();
    let mut w = disk.world();
    let b = subscriber(&mut w, "b", Qos::AtLeastOnce);
    w.leave(&b);
    for n in 0..1000 {
        w.publish("t", &n.to_string(), Qos::AtLeastOnce).unwrap();
        if n % 7 == 0 {
            w.write();
        }
    }
    assert_eq!(w.router.session("b").unwrap().queued, 1000);
    let b = w.join("b", false, NEVER);
    let mut got = Vec::new();
    for n in 1000..1300 {
        w.publish("t", &n.to_string(), Qos::AtLeastOnce).unwrap();
        let mut ids = Vec::new();
        got.extend(w.drain(&b, &mut ids));
        ids.iter().for_each(|id| w.settle(&b, *id, Settle::Done));
    }
    assert_eq!(got, (0..1300).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn the_bound_of_a_queue_holds_over_a_restart_and_the_oldest_goes() {
    let options = Options { max_queued: 100, ..Options::default() };
    let mut disk = Disk::with(options);
    let mut w = disk.world();
    let b = subscriber(&mut w, "b", Qos::AtLeastOnce);
    w.leave(&b);
    for n in 0..90 {
        w.publish("t", &n.to_string(), Qos::AtLeastOnce).unwrap();
    }
    let mut w = disk.again(w, 0);
    for n in 90..150 {
        w.publish("t", &n.to_string(), Qos::AtLeastOnce).unwrap();
    }
    assert_eq!(w.router.drops().of(gateway::Drop::QueueFull), 50);
    let mut w = disk.again(w, 0);
    let b = w.join("b", false, NEVER);
    assert_eq!(w.got(&b), (50..150).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_full_queue_that_refuses_does_so_after_a_restart_too() {
    let options = Options { max_queued: 2, on_full: OnFull::Refuse, ..Options::default() };
    let mut disk = Disk::with(options);
    let mut w = disk.world();
    let b = subscriber(&mut w, "b", Qos::AtLeastOnce);
    w.leave(&b);
    w.publish("t", "1", Qos::AtLeastOnce).unwrap();
    w.publish("t", "2", Qos::AtLeastOnce).unwrap();
    let mut w = disk.again(w, 0);
    assert_eq!(w.publish("t", "3", Qos::AtLeastOnce), Err(Refusal::QuotaExceeded));
}

#[test]
fn message_and_session_expiry_go_on_while_the_gateway_is_down() {
    let mut disk = Disk::new();
    let mut w = disk.world();
    for (id, seconds) in [("short", 60), ("long", 600)] {
        let b = w.open(connect(id, false, Duration::from_secs(seconds)), None).unwrap();
        w.subscribe(&b, "t", Qos::AtLeastOnce).unwrap();
        w.leave(&b);
    }
    for (payload, seconds) in [("soon", 30), ("later", 500)] {
        let message = Message::new(w.now, "t", payload.as_bytes())
            .with_qos(Qos::AtLeastOnce)
            .with_expiry(Some(Duration::from_secs(seconds)));
        let World { router, now, matches, post, .. } = &mut w;
        router.publish(*now, None, message, None, matches, post).unwrap();
    }
    let mut w = disk.again(w, 100);
    w.wait(0);
    assert!(!w.join("short", false, NEVER).present);
    let b = w.join("long", false, NEVER);
    assert!(b.present);
    assert_eq!(w.got(&b), ["later"]);
    w.write();
    w.write();
    assert_eq!(count(&w, Table::Ended), 0);
}

#[test]
fn a_session_that_was_connected_when_the_process_died_has_lost_its_connection_then() {
    let mut disk = Disk::new();
    let mut w = disk.world();
    let watcher = w.join("watcher", false, NEVER);
    w.subscribe(&watcher, "will", Qos::AtLeastOnce).unwrap();
    w.leave(&watcher);
    let with_will = |w: &mut World, id: &str, delay: u64| {
        let message = Message::new(w.now, "will", id.as_bytes()).with_qos(Qos::AtLeastOnce);
        let will = Will { message, delay: Duration::from_secs(delay) };
        w.open(Connect { will: Some(Box::new(will)), ..connect(id, false, NEVER) }, None).unwrap()
    };
    with_will(&mut w, "now", 0);
    with_will(&mut w, "delayed", 30);
    let gone = with_will(&mut w, "gone", 0);
    w.leave(&gone);
    // A day later: the delay counts from the start.
    let mut w = disk.again(w, 86_400);
    w.wait(0);
    assert_eq!(w.router.session("watcher").unwrap().queued, 1);
    w.wait(31);
    assert_eq!(w.router.session("watcher").unwrap().queued, 2);
    let mut w = disk.again(w, 0);
    w.wait(100);
    assert_eq!(w.router.session("watcher").unwrap().queued, 2, "once");
}

#[test]
fn retained_and_delayed_messages_outlive_the_process() {
    let mut disk = Disk::new();
    let mut w = disk.world();
    w.retain("a", "1");
    w.retain("a", "2");
    w.retain("b", "gone");
    w.retain("b", "");
    w.retain("$SYS/x", "own");
    w.publish("$delayed/60/t", "due", Qos::AtLeastOnce).unwrap();
    let b = subscriber(&mut w, "b", Qos::AtLeastOnce);
    w.leave(&b);
    let mut w = disk.again(w, 20);
    assert_eq!(w.router.stats().retained, 1);
    let b = w.join("b", false, NEVER);
    w.subscribe(&b, "#", Qos::AtMostOnce).unwrap();
    assert_eq!(w.got(&b), ["2"]);
    w.wait(39);
    assert!(w.got(&b).is_empty());
    w.wait(2);
    assert_eq!(w.got(&b), ["due"]);
    w.write();
    assert_eq!((count(&w, Table::Delayed), w.router.stats().delayed), (0, 0));
}

#[test]
fn a_clean_start_forgets_on_the_disk_too() {
    let mut disk = Disk::new();
    let mut w = disk.world();
    let b = subscriber(&mut w, "b", Qos::AtLeastOnce);
    w.leave(&b);
    w.publish("t", "x", Qos::AtLeastOnce).unwrap();
    w.write();
    let b = w.join("b", true, NEVER);
    assert!(!b.present && w.post.wait > 0, "the client is told when it is so");
    let mut w = disk.again(w, 0);
    w.store.as_ref().unwrap().learn();
    w.write();
    w.write();
    assert_eq!((count(&w, Table::Sessions), count(&w, Table::Filters), count(&w, Table::Queue)), (1, 0, 0));
    let b = w.join("b", false, NEVER);
    assert!(b.present && w.got(&b).is_empty());
}

#[test]
fn an_unsubscription_outlives_the_process() {
    let mut disk = Disk::new();
    let mut w = disk.world();
    let b = subscriber(&mut w, "b", Qos::AtLeastOnce);
    w.subscribe(&b, "u", Qos::AtLeastOnce).unwrap();
    assert!(w.unsubscribe(&b, "t"));
    w.leave(&b);
    let mut w = disk.again(w, 0);
    w.publish("t", "no", Qos::AtLeastOnce).unwrap();
    w.publish("u", "yes", Qos::AtLeastOnce).unwrap();
    let b = w.join("b", false, NEVER);
    assert_eq!(w.got(&b), ["yes"]);
}

#[test]
fn a_shared_subscription_outlives_the_process_and_its_messages_move_on_when_a_member_ends() {
    let mut disk = Disk::new();
    let mut w = disk.world();
    let short = w.open(connect("short", false, Duration::from_secs(60)), None).unwrap();
    w.subscribe(&short, "$share/g/t", Qos::AtLeastOnce).unwrap();
    w.leave(&short);
    for n in 0..100 {
        w.publish("t", &n.to_string(), Qos::AtLeastOnce).unwrap();
    }
    let long = w.join("long", false, NEVER);
    w.subscribe(&long, "$share/g/t", Qos::AtLeastOnce).unwrap();
    w.leave(&long);
    let mut w = disk.again(w, 100);
    w.wait(0);
    w.write();
    let mut w = disk.again(w, 0);
    let long = w.join("long", false, NEVER);
    assert_eq!(w.got(&long), (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn facts_of_a_gateway_live_and_end_with_the_session() {
    let mut disk = Disk::new();
    let mut w = disk.world();
    let b = w.join("b", false, NEVER);
    let save = |w: &mut World, c: &Client, name: &str, value: Option<&'static str>| {
        w.router.save(&c.session, name, value.map(Bytes::from), &mut w.post)
    };
    for (name, value) in [("topic/1", "a"), ("topic/2", "b"), ("topic/3", "c"), ("sleep", "60")] {
        save(&mut w, &b, name, Some(value)).unwrap();
    }
    save(&mut w, &b, "topic/2", None).unwrap();
    save(&mut w, &b, "topic/3", Some("C")).unwrap();
    let big = Bytes::from(vec![0; 1 << 20]);
    assert_eq!(w.router.save(&b.session, "big", Some(big), &mut w.post), Err(Refusal::QuotaExceeded));
    let names = |w: &World, c: &Client, prefix: &str| -> Vec<String> {
        let found = w.router.load(&c.session, prefix).unwrap();
        found.iter().map(|(n, v)| format!("{n}={}", String::from_utf8_lossy(v))).collect()
    };
    assert_eq!(names(&w, &b, "topic/"), ["topic/1=a", "topic/3=C"]);
    let mut w = disk.again(w, 0);
    let b = w.join("b", false, NEVER);
    assert_eq!(names(&w, &b, ""), ["sleep=60", "topic/1=a", "topic/3=C"]);
    let b = w.join("b", true, NEVER);
    assert!(names(&w, &b, "").is_empty());
    w.write();
    w.write();
    assert_eq!(count(&w, Table::Facts), 0);
    let short = w.join("short", false, ENDS);
    save(&mut w, &short, "x", Some("1")).unwrap();
    assert_eq!(names(&w, &short, ""), ["x=1"]);
    w.write();
    assert_eq!(count(&w, Table::Facts), 0);
}

#[test]
fn an_owner_is_remembered() {
    let mut disk = Disk::new();
    let mut w = disk.world();
    let b = w.open(connect("b", false, NEVER), Some("user:alice")).unwrap();
    w.leave(&b);
    let mut w = disk.again(w, 0);
    assert!(matches!(w.open(connect("b", false, NEVER), Some("user:eve")), Err(Refusal::NotOwner)));
    assert!(w.open(connect("b", false, NEVER), Some("user:alice")).unwrap().present);
}

#[test]
fn a_damaged_record_costs_itself() {
    let disk = Disk::new();
    let mut w = disk.world();
    for id in ["a", "b", "c"] {
        let c = subscriber(&mut w, id, Qos::AtLeastOnce);
        w.leave(&c);
    }
    w.publish("t", "1", Qos::AtLeastOnce).unwrap();
    w.write();
    let store = w.store.clone().unwrap();
    let mut keys: Vec<(Table, Vec<u8>)> = Vec::new();
    for table in [Table::Sessions, Table::Queue] {
        let mut first = None;
        let view = store.view().unwrap();
        view.scan(&Key::new(table), &Key::end(table), &mut |key, _| {
            first = Some(key.to_vec());
            false
        })
        .unwrap();
        keys.push((table, first.unwrap()));
    }
    for (table, key) in keys {
        store.put(Key::new(table).text(&key), vec![0xFF; 3]);
    }
    w.publish("t", "2", Qos::AtLeastOnce).unwrap();
    w.write();
    drop((w, store));
    let (mut w, restored) = disk.start();
    assert_eq!((restored.sessions, restored.damaged), (2, 1));
    for id in ["b", "c"] {
        let c = w.join(id, false, NEVER);
        assert_eq!(w.got(&c), ["1", "2"]);
    }
}

#[test]
fn a_delivery_whose_packet_id_was_written_while_others_got_theirs_is_not_forgotten() {
    use std::sync::mpsc;
    let disk = Disk::new();
    let mut w = disk.world();
    let store = w.store.take().unwrap();
    let router = Arc::new(std::mem::replace(&mut w.router, Router::new(Options::default())));
    let (tell, told) = mpsc::channel();
    let (writer, theirs) = (store.clone(), router.clone());
    #[expect(clippy::disallowed_methods, reason = "a test stands in for the runtime")]
    let thread = std::thread::spawn(move || {
        writer.run(&|| 0, &|| {
            let mut post = Post::default();
            theirs.committed(&mut post);
            let _ = post.signals.into_iter().try_for_each(|_| tell.send(()));
        });
    });
    let at = Attachment { driver: 0, peer: Peer { slot: 1, generation: 0 } };
    let mut connect = connect("b", false, NEVER);
    let open =
        Open { connect: &mut connect, namespace: "", principal: None, username: None, mount: "".into() };
    let (mut matches, mut post) = (Matches::default(), Post::default());
    let session = router.connect(w.now, at, open, &mut matches, &mut post).unwrap().session;
    let subscribe = sessions::world::asks("t", Qos::ExactlyOnce);
    router.subscribe(w.now, &session, subscribe, &mut matches, &mut post).unwrap();
    for round in 0..300 {
        for n in 0..20 {
            let message = Message::new(w.now, "t", &[n]).with_qos(Qos::ExactlyOnce);
            router.publish(w.now, None, message, None, &mut matches, &mut post).unwrap();
        }
        let mut got = Vec::new();
        loop {
            post.signals.clear();
            router.drain(w.now, &session, at, &mut post, |deliver| {
                if let gateway::Deliver::Message(d) = deliver {
                    got.extend(d.id);
                }
                true
            });
            if got.len() == 20 {
                break;
            }
            if post.signals.is_empty() {
                let signal = told.recv_timeout(Duration::from_secs(5));
                assert!(
                    signal.is_ok(),
                    "round {round}: {} of 20, and nobody says that there is more",
                    got.len()
                );
            }
        }
        for id in got {
            assert!(router.settle(w.now, &session, id, Settle::Done, &mut post));
        }
        // A signal of this round may still be on its way.
        while told.try_recv().is_ok() {}
    }
    store.stop();
    thread.join().unwrap();
}
