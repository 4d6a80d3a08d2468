//! Durable sessions in trouble: a disk that is full when it matters, records and blocks that are damaged, time that passes in
//! the wrong moment.
#![expect(clippy::unwrap_used, reason = "all of this file is a test, its helpers too")]
#![allow(dead_code, reason = "of the world that it shares with other tests it needs a part")]

#[path = "sessions/world.rs"]
mod world;

#[path = "sessions/disk.rs"]
mod disk;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gateway::{DeliveryId, Message, Qos, Refusal, Settle};
use router::{Options, Router};
use store::{Change, Engine, Error, Key, Limits, Memory, Store, Table, View};

use disk::Disk;
use world::{Client, ENDS, NEVER, World, connect};

/// An engine whose disk can be full.
#[derive(Clone, Default)]
struct Full(Memory, Arc<AtomicBool>);

impl Engine for Full {
    fn commit(&self, changes: &mut dyn Iterator<Item = Change<'_>>) -> Result<(), Error> {
        if self.1.load(Ordering::SeqCst) { Err(Error::new("full")) } else { self.0.commit(changes) }
    }
    fn view(&self) -> Result<Box<dyn View>, Error> {
        self.0.view()
    }
    fn reopen(&self) -> Result<(), Error> {
        if self.1.load(Ordering::SeqCst) { Err(Error::new("full")) } else { Ok(()) }
    }
    fn disk_bytes(&self) -> u64 {
        0
    }
    fn damage(&self) -> Vec<String> {
        Vec::new()
    }
}

fn on(engine: &Full) -> World {
    let store = Arc::new(Store::on(Box::new(engine.clone()), Limits::default()).unwrap());
    let router = Router::new(Options::default()).with_store(store.clone(), true);
    let now = gateway::Now { wall_ms: 1_300_000_000_000, ..gateway::Now::from_micros(1_000_000) };
    router.restore(now).unwrap();
    let mut w = World::on(router, Some(store));
    w.now = now;
    w
}

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

fn once(w: &mut World, a: &Client, payload: &str) -> Result<usize, Refusal> {
    let message = Message::new(w.now, "t", payload.as_bytes()).with_qos(Qos::ExactlyOnce);
    let World { router, now, matches, post, .. } = w;
    router.publish(*now, Some(&a.session), message, Some(7), matches, post)
}

#[test]
fn a_delayed_message_that_is_due_while_the_disk_is_full_is_not_lost() {
    let engine = Full::default();
    let mut w = on(&engine);
    let b = subscriber(&mut w, "b", Qos::AtLeastOnce);
    let online = w.join("online", true, ENDS);
    w.subscribe(&online, "t", Qos::AtLeastOnce).unwrap();
    w.publish("$delayed/10/t", "due", Qos::AtLeastOnce).unwrap();
    w.write();
    engine.1.store(true, Ordering::SeqCst);
    w.join("x", false, NEVER);
    w.write();
    assert!(w.store.as_ref().unwrap().failure().is_some());
    w.wait(11);
    engine.1.store(false, Ordering::SeqCst);
    w.write();
    w.wait(60);
    assert_eq!(w.got(&b), ["due"]);
    assert_eq!(w.got(&online), ["due"]);
}

#[test]
fn a_qos_2_message_whose_batch_failed_is_not_published_twice() {
    let engine = Full::default();
    let mut w = on(&engine);
    let b = subscriber(&mut w, "b", Qos::ExactlyOnce);
    let a = w.join("a", false, NEVER);
    w.write();
    engine.1.store(true, Ordering::SeqCst);
    once(&mut w, &a, "x").unwrap();
    w.write();
    // The 3.1.1 machine closes the connection without PUBREC.
    w.lose(&a);
    engine.1.store(false, Ordering::SeqCst);
    w.write();
    // So the client comes back and sends the same packet again (MQTT-4.4.0-1).
    let a = w.join("a", false, NEVER);
    once(&mut w, &a, "x").unwrap();
    w.write();
    assert_eq!(w.got(&b), ["x"]);
}

#[test]
fn an_expiry_is_not_counted_twice_when_a_message_moves_on_after_a_start() {
    let mut disk = Disk::new();
    let mut w = disk.world();
    let short = w.open(connect("short", false, Duration::from_secs(100)), None).unwrap();
    w.subscribe(&short, "$share/g/t", Qos::AtLeastOnce).unwrap();
    w.leave(&short);
    let message =
        Message::new(w.now, "t", b"x").with_qos(Qos::AtLeastOnce).with_expiry(Some(Duration::from_secs(300)));
    let World { router, now, matches, post, .. } = &mut w;
    router.publish(*now, None, message, None, matches, post).unwrap();
    let long = w.join("long", false, NEVER);
    w.subscribe(&long, "$share/g/t", Qos::AtLeastOnce).unwrap();
    w.leave(&long);
    let mut w = disk.again(w, 110);
    w.wait(0);
    assert_eq!(w.router.session("long").unwrap().queued, 1);
    // 210 seconds of its 300.
    let mut w = disk.again(w, 100);
    let long = w.join("long", false, NEVER);
    assert_eq!(w.got(&long), ["x"]);
}

#[test]
fn the_longest_topic_can_be_retained() {
    let disk = Disk::new();
    let mut w = disk.world();
    w.store.as_ref().unwrap().learn();
    let topic = "t".repeat(65_535);
    let message = Message::new(w.now, &topic, b"x").with_qos(Qos::AtLeastOnce).with_retain(true);
    let World { router, now, matches, post, .. } = &mut w;
    router.publish(*now, None, message, None, matches, post).unwrap();
    w.write();
    w.write();
    assert_eq!(w.store.as_ref().unwrap().failure(), None);
}

/// After a start with a hundred messages for `b`, of which the first 64 are damaged.
fn damaged(disk: &mut Disk) -> World {
    let mut w = disk.world();
    let b = subscriber(&mut w, "b", Qos::AtLeastOnce);
    w.leave(&b);
    for n in 0..100 {
        w.publish("t", &n.to_string(), Qos::AtLeastOnce).unwrap();
    }
    w.write();
    let store = w.store.clone().unwrap();
    let mut keys = Vec::new();
    store
        .view()
        .unwrap()
        .scan(&Key::new(Table::Queue), &Key::end(Table::Queue), &mut |k, _| {
            keys.push(k.to_vec());
            keys.len() < 64
        })
        .unwrap();
    for k in keys {
        store.put(Key::new(Table::Queue).text(&k), vec![0xFF; 3]);
    }
    drop(store);
    disk.again(w, 0)
}

#[test]
fn damaged_messages_do_not_hold_up_those_behind_them() {
    let mut disk = Disk::new();
    let mut w = damaged(&mut disk);
    w.publish("t", "newest", Qos::AtLeastOnce).unwrap();
    let b = w.join("b", false, NEVER);
    let expected: Vec<String> = (64..100).map(|n| n.to_string()).chain(["newest".into()]).collect();
    assert_eq!(w.drain_once(&b, &mut Vec::new()), expected);
}

#[test]
fn damaged_messages_alone_do_not_hold_up_those_behind_them() {
    let mut disk = Disk::new();
    let mut w = damaged(&mut disk);
    let b = w.join("b", false, NEVER);
    let expected: Vec<String> = (64..100).map(|n| n.to_string()).collect();
    assert_eq!(w.drain_once(&b, &mut Vec::new()), expected);
}

#[test]
fn what_moved_to_another_member_is_not_read_back() {
    let options = Options { redispatch_on_disconnect: true, ..Options::default() };
    let disk = Disk::with(options);
    let mut w = disk.world();
    let a = subscriber(&mut w, "a", Qos::AtLeastOnce);
    w.subscribe(&a, "$share/g/s", Qos::AtLeastOnce).unwrap();
    // Others that wait for the same messages.
    let c = subscriber(&mut w, "c", Qos::AtLeastOnce);
    w.subscribe(&c, "s", Qos::AtLeastOnce).unwrap();
    w.leave(&c);
    for n in 0..20 {
        w.publish("t", &format!("t{n}"), Qos::AtLeastOnce).unwrap();
        w.publish("s", &format!("s{n}"), Qos::AtLeastOnce).unwrap();
    }
    let b = w.join("b", false, NEVER);
    w.subscribe(&b, "$share/g/s", Qos::AtLeastOnce).unwrap();
    w.write();
    // Its messages of the group move to b; the disk is not told yet.
    w.leave(&a);
    for n in 20..40 {
        w.publish("t", &format!("t{n}"), Qos::AtLeastOnce).unwrap();
    }
    let a = w.join("a", false, NEVER);
    let mut ids = Vec::new();
    let got = w.drain_once(&a, &mut ids);
    let extra: Vec<_> = got.iter().filter(|p| p.starts_with('s')).cloned().collect();
    ids.iter().for_each(|id| w.settle(&a, *id, Settle::Done));
    w.write();
    let got_c = {
        let c = w.join("c", false, NEVER);
        w.got(&c)
    };
    assert_eq!((extra.len(), got_c.iter().filter(|p| p.starts_with('s')).count()), (0, 20));
}

#[test]
fn a_retained_message_cleared_twice_is_gone_when_the_second_is_told() {
    let disk = Disk::new();
    let mut w = disk.world();
    let retain = |w: &mut World, payload: &str| {
        let m = Message::new(w.now, "r", payload.as_bytes()).with_qos(Qos::AtLeastOnce).with_retain(true);
        w.post.wait = 0;
        let World { router, now, matches, post, .. } = w;
        router.publish(*now, None, m, None, matches, post).unwrap();
    };
    retain(&mut w, "1");
    w.write();
    retain(&mut w, "");
    let first = w.post.wait;
    retain(&mut w, "");
    assert!(w.post.wait >= first, "told at once, while the removal is not on the disk");
}

#[test]
fn a_damaged_flight_does_not_cost_its_message() {
    let mut disk = Disk::new();
    let mut w = disk.world();
    let b = subscriber(&mut w, "b", Qos::AtLeastOnce);
    for n in 0..3 {
        w.publish("t", &n.to_string(), Qos::AtLeastOnce).unwrap();
    }
    assert_eq!(w.got(&b).len(), 3);
    w.write();
    let store = w.store.clone().unwrap();
    let mut first = None;
    store
        .view()
        .unwrap()
        .scan(&Key::new(Table::Flights), &Key::end(Table::Flights), &mut |k, _| {
            first = Some(k.to_vec());
            false
        })
        .unwrap();
    store.put(Key::new(Table::Flights).text(&first.unwrap()), vec![0xFF; 3]);
    drop(store);
    let mut w = disk.again(w, 0);
    let b = w.join("b", false, NEVER);
    let mut ids: Vec<DeliveryId> = Vec::new();
    let got: Vec<String> = w.drain(&b, &mut ids).iter().map(|s| s.trim_end_matches('!').to_owned()).collect();
    assert_eq!(got.len(), 3, "{got:?}");
}

#[test]
fn what_a_damaged_session_leaves_is_removed() {
    let mut disk = Disk::new();
    let mut w = disk.world();
    let b = subscriber(&mut w, "b", Qos::AtLeastOnce);
    w.leave(&b);
    for n in 0..50 {
        w.publish("t", &n.to_string(), Qos::AtLeastOnce).unwrap();
    }
    w.write();
    let store = w.store.clone().unwrap();
    let mut first = None;
    store
        .view()
        .unwrap()
        .scan(&Key::new(Table::Sessions), &Key::end(Table::Sessions), &mut |k, _| {
            first = Some(k.to_vec());
            false
        })
        .unwrap();
    store.put(Key::new(Table::Sessions).text(&first.unwrap()), vec![0xFF; 3]);
    drop(store);
    for _ in 0..3 {
        w = disk.again(w, 0);
        w.store.as_ref().unwrap().learn();
        w.write();
        w.write();
    }
    let figures = w.store.as_ref().unwrap().figures();
    assert_eq!((count(&w, Table::Queue), figures.messages), (0, 0));
}

#[test]
fn a_damaged_first_batch_of_a_run_does_not_give_numbers_twice() {
    let disk = Disk::new();
    let path: &Path = disk.folder.path();
    drop(Store::open(path, Limits::default()).unwrap());
    let s = Store::open(path, Limits::default()).unwrap();
    s.write(&|| 0, &|| {});
    let before = s.number();
    s.put(Key::new(Table::Sessions).number(before), vec![1; 100]);
    s.write(&|| 0, &|| {});
    drop(s);
    // One byte of the value of `run` in the last run's first batch.
    let db = path.join("db");
    for file in std::fs::read_dir(&db).unwrap().flatten() {
        if file.path().extension().is_some_and(|e| e == "jnl") {
            let mut bytes = std::fs::read(file.path()).unwrap();
            let name = b"\x01run";
            let at =
                bytes.windows(4).enumerate().filter(|(_, w)| w == name).map(|(i, _)| i).next_back().unwrap();
            bytes[at + 8] ^= 0x80;
            std::fs::write(file.path(), bytes).unwrap();
        }
    }
    let s = Store::open(path, Limits::default()).unwrap();
    let has = s.view().unwrap().value(&Key::new(Table::Sessions).number(before)).unwrap().is_some();
    assert!(has, "later batches are there");
    let again = s.number();
    assert!(again > before, "{again:#x} was given before ({before:#x})");
}

#[test]
fn a_release_is_not_sent_before_the_disk_has_that_the_client_has_the_message() {
    let engine = Full::default();
    let mut w = on(&engine);
    let b = subscriber(&mut w, "b", Qos::ExactlyOnce);
    w.publish("t", "x", Qos::ExactlyOnce).unwrap();
    let mut ids = Vec::new();
    assert_eq!(w.drain(&b, &mut ids), ["x"]);
    engine.1.store(true, Ordering::SeqCst);
    assert!(w.router.receive(&b.session, ids[0], &mut w.post));
    w.write();
    // The machine ends the connection, since its answer became a refusal. The client comes back, which it may.
    w.lose(&b);
    let b = w.join("b", false, NEVER);
    let got = w.drain_once(&b, &mut ids);
    // With the release it has forgotten the packet id ...
    got.iter().for_each(|_| w.settle(&b, ids[0], Settle::Done));
    // ... and the process is killed.
    drop(w);
    engine.1.store(false, Ordering::SeqCst);
    let mut w = on(&engine);
    let b = w.join("b", false, NEVER);
    let again = w.got(&b);
    assert!(got.is_empty() || !again.contains(&"x!".to_owned()), "first {got:?}, then {again:?}: twice");
}

#[test]
fn a_packet_id_that_is_said_to_be_free_is_free_after_a_kill() {
    let engine = Full::default();
    let mut w = on(&engine);
    let b = subscriber(&mut w, "b", Qos::AtLeastOnce);
    w.leave(&b);
    let a = w.join("a", false, NEVER);
    once(&mut w, &a, "first").unwrap();
    w.write();
    engine.1.store(true, Ordering::SeqCst);
    assert!(w.router.release(&a.session, 7, &mut w.post));
    w.write();
    // The answer became a refusal; the client comes back and sends PUBREL again.
    w.lose(&a);
    let a = w.join("a", false, NEVER);
    w.post.wait = 0;
    assert!(!w.router.release(&a.session, 7, &mut w.post));
    let durable = w.store.as_ref().unwrap().durable();
    let is_told = w.post.wait <= durable;
    // It uses the id for the next message, which is refused, and sends that again after the process was killed.
    assert_eq!(once(&mut w, &a, "second"), Err(Refusal::NotKept));
    drop(w);
    engine.1.store(false, Ordering::SeqCst);
    let mut w = on(&engine);
    let a = w.join("a", false, NEVER);
    once(&mut w, &a, "second").unwrap();
    w.write();
    let b = w.join("b", false, NEVER);
    let got = w.got(&b);
    assert!(!is_told || got == ["first", "second"], "PUBCOMP was sent at once; got {got:?}");
}

/// An engine some of whose queue's records are in a damaged block, for all scans but not for looks at one.
#[derive(Clone, Default)]
struct Holed(Memory, Arc<parking_lot_free::Cell>);

mod parking_lot_free {
    /// Sequence numbers of the queue that cannot be read: from, to.
    #[derive(Default)]
    pub(crate) struct Cell(pub(crate) std::sync::Mutex<Option<(Vec<u8>, Vec<u8>)>>);
}

struct HoledView(Box<dyn View>, Option<(Vec<u8>, Vec<u8>)>);

impl HoledView {
    fn is_hole(&self, table: u8, key: &[u8]) -> bool {
        let is_table = match self.1.as_ref().map(|(a, _)| a.len()) {
            Some(8) => table == Table::Sessions as u8,
            _ => table == Table::Queue as u8,
        };
        is_table && self.1.as_ref().is_some_and(|(a, b)| key >= &a[..] && key <= &b[..])
    }
}

impl View for HoledView {
    fn value(&self, key: &Key) -> Result<Option<Vec<u8>>, Error> {
        self.0.value(key)
    }
    fn scan(&self, from: &Key, to: &Key, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), Error> {
        let table = from.as_bytes()[0];
        let mut holed = false;
        self.0.scan(from, to, &mut |k, v| {
            holed = self.is_hole(table, k);
            !holed && visit(k, v)
        })?;
        if holed { Err(Error::damage("hole")) } else { Ok(()) }
    }
    fn scan_back(
        &self,
        from: &Key,
        to: &Key,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Error> {
        let table = from.as_bytes()[0];
        let mut holed = false;
        self.0.scan_back(from, to, &mut |k, v| {
            holed = self.is_hole(table, k);
            !holed && visit(k, v)
        })?;
        if holed { Err(Error::damage("hole")) } else { Ok(()) }
    }
    fn copy_to(&self, _: &Path) -> Result<u64, Error> {
        Err(Error::new("no"))
    }
}

impl Engine for Holed {
    fn commit(&self, changes: &mut dyn Iterator<Item = Change<'_>>) -> Result<(), Error> {
        self.0.commit(changes)
    }
    fn view(&self) -> Result<Box<dyn View>, Error> {
        Ok(Box::new(HoledView(self.0.view()?, self.1.0.lock().unwrap().clone())))
    }
    fn reopen(&self) -> Result<(), Error> {
        Ok(())
    }
    fn disk_bytes(&self) -> u64 {
        0
    }
    fn damage(&self) -> Vec<String> {
        Vec::new()
    }
}

fn holed(options: Options, from: usize, to: usize) -> (Holed, World) {
    let engine = Holed::default();
    let start = |options: &Options| {
        let store = Arc::new(Store::on(Box::new(engine.clone()), Limits::default()).unwrap());
        let router = Router::new(options.clone()).with_store(store.clone(), true);
        let now = gateway::Now { wall_ms: 1_300_000_000_000, ..gateway::Now::from_micros(1_000_000) };
        router.restore(now).unwrap();
        let mut w = World::on(router, Some(store));
        w.now = now;
        w
    };
    let mut w = start(&options);
    let b = subscriber(&mut w, "b", Qos::AtLeastOnce);
    w.leave(&b);
    for n in 0..100 {
        w.publish("t", &n.to_string(), Qos::AtLeastOnce).unwrap();
    }
    w.write();
    let mut keys = Vec::new();
    engine
        .0
        .view()
        .unwrap()
        .scan(&Key::new(Table::Queue), &Key::end(Table::Queue), &mut |k, _| {
            keys.push(k.to_vec());
            true
        })
        .unwrap();
    *engine.1.0.lock().unwrap() = Some((keys[from].clone(), keys[to].clone()));
    drop(w);
    let w = start(&options);
    (engine, w)
}

#[test]
fn a_full_queue_with_a_damaged_block_in_front_drops_that_alone() {
    let (_, mut w) = holed(Options { max_queued: 100, ..Options::default() }, 0, 9);
    // 90 can be read, 10 more make it full, and two must go.
    for n in 100..112 {
        w.publish("t", &n.to_string(), Qos::AtLeastOnce).unwrap();
    }
    w.write();
    let b = w.join("b", false, NEVER);
    let mut got = Vec::new();
    for _ in 0..5 {
        let mut ids = Vec::new();
        got.extend(w.drain(&b, &mut ids));
        ids.iter().for_each(|id| w.settle(&b, *id, Settle::Done));
    }
    assert!(got.len() >= 99, "{} of 100: {got:?}", got.len());
}

#[test]
fn a_damaged_block_in_the_middle_costs_its_records_alone() {
    let (_, mut w) = holed(Options::default(), 40, 49);
    let b = w.join("b", false, NEVER);
    let mut got = Vec::new();
    let mut ids = Vec::new();
    got.extend(w.drain_once(&b, &mut ids));
    let expected: Vec<_> = (0..40).chain(50..100).map(|n| n.to_string()).collect();
    assert_eq!(got, expected);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "another driver's thread")]
fn a_delayed_message_that_is_due_at_once_leaves_nothing_on_the_disk() {
    let store = Arc::new(Store::on(Box::new(Memory::default()), Limits::default()).unwrap());
    let router = Arc::new(Router::new(Options::default()).with_store(store.clone(), true));
    let stop = Arc::new(AtomicBool::new(false));
    let other = {
        let (router, stop) = (router.clone(), stop.clone());
        std::thread::spawn(move || {
            let (mut matches, mut post) = (router::Matches::default(), router::Post::default());
            while !stop.load(Ordering::Relaxed) || router.stats().delayed > 0 {
                router.timeout(gateway::Now::from_micros(1_000_000), &mut matches, &mut post);
            }
        })
    };
    let (mut matches, mut post) = (router::Matches::default(), router::Post::default());
    let now = gateway::Now::from_micros(1_000_000);
    for _ in 0..50_000 {
        let message = Message::new(now, "$delayed/0/t", &[7; 200]).with_qos(Qos::AtLeastOnce);
        let _ = router.publish(now, None, message, None, &mut matches, &mut post);
    }
    stop.store(true, Ordering::Relaxed);
    other.join().unwrap();
    store.write(&|| 0, &|| {});
    let mut n = 0;
    let view = store.view().unwrap();
    view.scan(&Key::new(Table::Delayed), &Key::end(Table::Delayed), &mut |_, _| {
        n += 1;
        true
    })
    .unwrap();
    assert_eq!(n, 0, "published, and will be published again after a restart");
}

#[test]
fn a_backup_does_not_keep_the_store_closed() {
    let disk = Disk::new();
    let mut w = disk.world();
    let store = w.store.clone().unwrap();
    store.learn();
    let b = subscriber(&mut w, "b", Qos::AtLeastOnce);
    w.leave(&b);
    w.write();
    // Somebody looks while a commit fails (here by a key that the engine does not take).
    let backup = store.view().unwrap();
    store.put(Key::new(Table::Meta).text(&[b'x'; 70_000]), Vec::new());
    w.write();
    w.write();
    assert!(store.view().is_ok(), "nothing can be read either");
    drop(backup);
}

#[test]
fn deliveries_in_flight_are_not_read_back_because_of_a_damaged_one_before_them() {
    let mut disk = Disk::new();
    let mut w = disk.world();
    let b = subscriber(&mut w, "b", Qos::AtLeastOnce);
    for n in 0..3 {
        w.publish("t", &n.to_string(), Qos::AtLeastOnce).unwrap();
    }
    assert_eq!(w.got(&b).len(), 3);
    w.write();
    let store = w.store.clone().unwrap();
    let mut first = None;
    store
        .view()
        .unwrap()
        .scan(&Key::new(Table::Flights), &Key::end(Table::Flights), &mut |k, _| {
            first = Some(k.to_vec());
            false
        })
        .unwrap();
    store.put(Key::new(Table::Flights).text(&first.unwrap()), vec![0xFF; 3]);
    drop(store);
    let mut w = disk.again(w, 0);
    for n in 3..80 {
        w.publish("t", &n.to_string(), Qos::AtLeastOnce).unwrap();
        w.write();
    }
    let b = w.join("b", false, NEVER);
    let mut ids: Vec<DeliveryId> = Vec::new();
    let mut got: Vec<u32> =
        w.drain(&b, &mut ids).iter().map(|s| s.trim_end_matches('!').parse().unwrap()).collect();
    got.sort_unstable();
    assert_eq!(got, (0..80).collect::<Vec<_>>());
}

#[test]
fn a_delayed_will_that_could_not_be_kept_is_delayed_all_the_same() {
    let engine = Full::default();
    let mut w = on(&engine);
    let b = w.join("b", false, NEVER);
    w.subscribe(&b, "#", Qos::AtLeastOnce).unwrap();
    let message = Message::new(w.now, "$delayed/20/t", b"will").with_qos(Qos::AtLeastOnce);
    let will = gateway::Will { message, delay: Duration::ZERO };
    let a =
        w.open(gateway::Connect { will: Some(Box::new(will)), ..connect("a", true, ENDS) }, None).unwrap();
    w.write();
    engine.1.store(true, Ordering::SeqCst);
    w.join("x", false, NEVER);
    w.write();
    w.lose(&a);
    engine.1.store(false, Ordering::SeqCst);
    w.write();
    w.wait(2);
    let early = w.got(&b);
    w.wait(30);
    assert_eq!((early, w.got(&b)), (vec![], vec!["will".to_owned()]));
}

#[test]
fn messages_put_back_while_the_store_fails_keep_their_order() {
    let engine = Full::default();
    let mut w = on(&engine);
    let b = subscriber(&mut w, "b", Qos::AtLeastOnce);
    w.publish("$delayed/10/t", "1", Qos::AtLeastOnce).unwrap();
    w.now = w.now.after(Duration::from_millis(500));
    w.publish("$delayed/10/t", "2", Qos::AtLeastOnce).unwrap();
    w.write();
    engine.1.store(true, Ordering::SeqCst);
    w.join("x", false, NEVER);
    w.write();
    w.wait(9);
    w.now = w.now.after(Duration::from_millis(600));
    w.wait(0);
    engine.1.store(false, Ordering::SeqCst);
    w.write();
    w.now = w.now.after(Duration::from_millis(600));
    w.wait(0);
    w.wait(5);
    assert_eq!(w.got(&b), ["1", "2"]);
}

#[test]
fn a_session_that_ended_before_a_kill_is_swept_once() {
    let mut disk = Disk::new();
    let mut w = disk.world();
    let keep = subscriber(&mut w, "keep", Qos::AtLeastOnce);
    let other = subscriber(&mut w, "other", Qos::AtLeastOnce);
    let gone = subscriber(&mut w, "gone", Qos::AtLeastOnce);
    w.leave(&keep);
    w.leave(&other);
    for n in 0..50 {
        w.publish("t", &n.to_string(), Qos::AtLeastOnce).unwrap();
    }
    w.write();
    // What `end` writes; killed before the sweep.
    let store = w.store.clone().unwrap();
    let number = gone.session.publisher().0;
    store.delete(Key::new(Table::Sessions).number(number));
    store.put(Key::new(Table::Ended).number(number), Vec::new());
    drop(store);
    let mut w = disk.again(w, 0);
    let store = w.store.clone().unwrap();
    // One of the two has taken all its messages already, so two wait for each.
    store.learn();
    w.write();
    w.write();
    eprintln!("{:?}", store.figures());
    drop(store);
    let other = w.join("other", false, NEVER);
    let mut ids = Vec::new();
    w.drain(&other, &mut ids);
    ids.iter().for_each(|id| w.settle(&other, *id, Settle::Done));
    w.write();
    let keep = w.join("keep", false, NEVER);
    assert_eq!(w.got(&keep).len(), 50);
}

#[test]
fn learn_does_not_sweep_sessions_that_it_cannot_read() {
    let (engine, mut w) = holed(Options::default(), 0, 0);
    *engine.1.0.lock().unwrap() = None;
    let number = w.join("b", false, NEVER).session.publisher().0;
    let key = number.to_be_bytes().to_vec();
    *engine.1.0.lock().unwrap() = Some((key.clone(), key));
    // The view from before the start.
    let store = Arc::new(Store::on(Box::new(engine.clone()), Limits::default()).unwrap());
    *engine.1.0.lock().unwrap() = None;
    let router = Router::new(Options::default()).with_store(store.clone(), true);
    router.restore(w.now).unwrap();
    let now = w.now;
    w = World::on(router, Some(store.clone()));
    w.now = now;
    assert_eq!(count(&w, Table::Queue), 100);
    store.learn();
    w.write();
    w.write();
    assert_eq!(count(&w, Table::Queue), 100);
    let b = w.join("b", false, NEVER);
    assert!(b.present && w.got(&b).len() == 100);
}
