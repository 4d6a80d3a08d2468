//! The store over the embedded engine, on a real folder.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use store::{Body, Key, Limits, Store, Stored, Table, split_number};

/// A store with its writer on a thread.
struct World {
    store: Arc<Store>,
    writer: Option<JoinHandle<()>>,
}

impl World {
    fn open(path: &Path) -> World {
        let store = Arc::new(Store::open(path, Limits::default()).unwrap());
        let writer = store.clone();
        #[expect(clippy::disallowed_methods, reason = "a test stands in for the runtime")]
        let writer = std::thread::spawn(move || writer.run(&|| 0, &|| {}));
        World { store, writer: Some(writer) }
    }

    fn until_durable(&self, batch: u64) {
        while self.store.durable() < batch {
            std::thread::yield_now();
        }
    }

    fn count(&self, table: Table) -> usize {
        let mut n = 0;
        let view = self.store.view().unwrap();
        view.scan(&Key::new(table), &Key::end(table), &mut |_, _| {
            n += 1;
            true
        })
        .unwrap();
        n
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.store.stop();
        self.writer.take().unwrap().join().unwrap();
    }
}

fn session(n: u64) -> Key {
    Key::new(Table::Sessions).number(n)
}

#[test]
fn what_is_put_quietly_waits_for_something_else_or_for_the_end() {
    let dir = tempfile::tempdir().unwrap();
    {
        let w = World::open(dir.path());
        w.until_durable(w.store.put(session(1), b"first".to_vec()));
        w.store.put_quietly(session(2), b"quiet".to_vec());
        // Long enough for a writer that was called.
        (0..50_000).for_each(|_| std::thread::yield_now());
        assert_eq!(w.count(Table::Sessions), 1);
        // With what comes behind it, never after it.
        w.until_durable(w.store.put(session(3), b"loud".to_vec()));
        assert_eq!(w.count(Table::Sessions), 3);
        w.store.put_quietly(session(4), b"quiet".to_vec());
    }
    assert_eq!(World::open(dir.path()).count(Table::Sessions), 4);
}

#[test]
fn what_is_durable_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    {
        let w = World::open(dir.path());
        w.store.put(session(1), b"one".to_vec());
        let batch = w.store.put(session(2), b"two".to_vec());
        w.until_durable(batch);
        let batch = w.store.delete(session(1));
        w.until_durable(batch);
    }
    let w = World::open(dir.path());
    let view = w.store.view().unwrap();
    assert_eq!(view.value(&session(1)).unwrap(), None);
    assert_eq!(view.value(&session(2)).unwrap().as_deref(), Some(&b"two"[..]));
}

#[test]
fn numbers_are_never_given_out_twice_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = 0;
    for _ in 0..3 {
        let w = World::open(dir.path());
        for _ in 0..3 {
            let n = w.store.number();
            assert!(n > last);
            last = n;
        }
    }
}

#[test]
fn numbers_are_not_given_out_twice_when_the_first_batch_of_a_run_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let number = {
        let w = World::open(dir.path());
        w.until_durable(w.store.put(session(1), b"first".to_vec()));
        let number = w.store.number();
        w.until_durable(w.store.put(session(number), b"value".to_vec()));
        number
    };
    let path = journal(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    let at = position(&bytes, b"run");
    bytes[at + 4] ^= 1;
    fs::write(&path, &bytes).unwrap();
    fs::remove_file(dir.path().join("run")).unwrap();
    let w = World::open(dir.path());
    assert_eq!(w.store.damage().len(), 1);
    assert!(w.store.number() > number);
}

#[test]
fn a_shared_message_is_stored_once_and_goes_with_the_last_place() {
    let dir = tempfile::tempdir().unwrap();
    let places: Vec<Stored> = {
        let w = World::open(dir.path());
        for n in 0..50 {
            w.store.put(session(n), Vec::new());
        }
        let shared = w.store.share(&[7; 1000]);
        let places: Vec<_> = (0..50).map(|n| w.store.push(n, &[1, 2], Body::Shared(shared))).collect();
        w.store.release(shared);
        w.until_durable(places[49].batch);
        assert_eq!((w.count(Table::Shared), w.count(Table::Queue)), (1, 50));
        for (n, place) in (0..).zip(&places).take(20) {
            w.store.remove(n, place);
        }
        assert!(w.store.figures().bytes < 1000 + 50 * 40, "{:?}", w.store.figures());
        places
    };
    // The other thirty after a restart, half of them before the store knows how many wait.
    let w = World::open(dir.path());
    for (n, place) in (0..).zip(&places).skip(20).take(15) {
        w.store.remove(n, place);
    }
    w.store.learn();
    for (n, place) in (0..).zip(&places).skip(35) {
        assert_eq!(w.count(Table::Shared), 1);
        w.store.remove(n, place);
    }
    w.until_durable(w.store.latest());
    assert_eq!((w.count(Table::Shared), w.count(Table::Queue)), (0, 0));
    let f = w.store.figures();
    assert_eq!((f.messages, f.bytes, f.shared), (0, 0, 0));
}

#[test]
fn a_message_that_is_taken_before_it_was_written_is_never_written() {
    let store = Store::memory(Limits::default());
    let place = store.push(1, &[], Body::Inline(&[1; 100]));
    store.remove(1, &place);
    assert_eq!(store.figures().pending_bytes, 0);
}

#[test]
fn the_longest_text_is_a_key_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let key = || Key::new(Table::Retained).text(&[b'x'; 65_535]);
    {
        let w = World::open(dir.path());
        w.until_durable(w.store.put(key(), b"value".to_vec()));
        assert_eq!(w.store.failure(), None);
    }
    let w = World::open(dir.path());
    assert_eq!(w.store.view().unwrap().value(&key()).unwrap().as_deref(), Some(&b"value"[..]));
}

#[test]
fn a_batch_of_which_nothing_is_left_is_done_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let w = World::open(dir.path());
    for _ in 0..100 {
        let place = w.store.push(1, &[], Body::Inline(&[1; 100]));
        w.store.remove(1, &place);
        w.until_durable(w.store.latest());
    }
}

#[test]
fn a_session_that_ends_takes_all_its_records_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let w = World::open(dir.path());
    let shared = w.store.share(b"for two");
    for n in [1, 2] {
        w.store.put(session(n), b"s".to_vec());
        w.store.put(Key::new(Table::Filters).number(n).text(b"a/#"), vec![1]);
        w.store.put(Key::new(Table::Flights).number(n).id(7), vec![1]);
        w.store.put(Key::new(Table::Incoming).number(n).id(7), vec![]);
        w.store.push(n, &[], Body::Inline(b"own"));
        w.store.push(n, &[], Body::Shared(shared));
    }
    w.store.release(shared);
    w.until_durable(w.store.end(1));
    while w.count(Table::Ended) > 0 {
        std::thread::yield_now();
    }
    for table in [Table::Sessions, Table::Filters, Table::Flights, Table::Incoming, Table::Shared] {
        assert_eq!(w.count(table), 1, "{table:?}");
    }
    assert_eq!((w.count(Table::Queue), w.store.figures().messages), (2, 2));
}

#[test]
fn a_session_that_ended_just_before_the_end_is_removed_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    {
        let w = World::open(dir.path());
        let batch = w.store.push(9, &[], Body::Inline(b"left behind")).batch;
        w.until_durable(batch);
        // What `end` writes, without the sweep that follows it.
        w.until_durable(w.store.put(Key::new(Table::Ended).number(9), Vec::new()));
    }
    let w = World::open(dir.path());
    assert_eq!(w.count(Table::Queue), 1);
    w.store.learn();
    w.until_durable(w.store.put(session(1), Vec::new()));
    assert_eq!((w.count(Table::Queue), w.count(Table::Ended), w.store.figures().messages), (0, 0, 0));
}

#[test]
fn changes_made_together_are_in_one_batch() {
    let dir = tempfile::tempdir().unwrap();
    let w = World::open(dir.path());
    for n in 0..2000 {
        let _together = w.store.together();
        let first = w.store.put(session(n), vec![1]);
        std::thread::yield_now();
        assert_eq!(w.store.put(session(n + 10_000), vec![1]), first);
    }
}

#[test]
fn a_backup_of_a_running_store_opens_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let w = World::open(&dir.path().join("store"));
    for n in 0..10_000 {
        w.store.put(session(n), n.to_be_bytes().to_vec());
    }
    w.until_durable(w.store.put(session(10_000), Vec::new()));
    let to = dir.path().join("copy");
    fs::create_dir(&to).unwrap();
    // The run's own number is a record too.
    assert_eq!(w.store.backup(&to).unwrap(), 10_002);
    assert!(w.store.backup(&to).unwrap_err().to_string().contains("exists"));
    let copy = World::open(&to.join("store"));
    assert_eq!(copy.count(Table::Sessions), 10_001);
    let value = copy.store.view().unwrap().value(&session(77)).unwrap().unwrap();
    assert_eq!(split_number(&value).unwrap().0, 77);
}

fn journal(dir: &Path) -> std::path::PathBuf {
    let mut found: Vec<_> = fs::read_dir(dir.join("db"))
        .unwrap()
        .map(|f| f.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "jnl"))
        .collect();
    found.sort();
    found.pop().unwrap()
}

/// Spoils the journal where `mark` stands, and how many of ten sessions are left afterwards.
fn sessions_left_after(spoil: impl Fn(&mut Vec<u8>)) -> (usize, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    {
        let w = World::open(dir.path());
        for n in 0..10 {
            let batch = w.store.put(session(n), format!("value of {n}").into_bytes());
            w.until_durable(batch);
        }
    }
    let path = journal(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    spoil(&mut bytes);
    fs::write(&path, &bytes).unwrap();
    let w = World::open(dir.path());
    (w.count(Table::Sessions), w.store.damage())
}

fn position(bytes: &[u8], mark: &[u8]) -> usize {
    bytes.windows(mark.len()).position(|w| w == mark).unwrap()
}

#[test]
fn a_bit_that_changed_in_the_journal_costs_its_batch_alone() {
    let (left, damage) = sessions_left_after(|bytes| {
        let at = position(bytes, b"value of 4");
        bytes[at] ^= 0x10;
    });
    assert_eq!((left, damage.len()), (9, 1), "{damage:?}");
    // In what frames a batch rather than in a value.
    let (left, damage) = sessions_left_after(|bytes| {
        let at = position(bytes, b"value of 4");
        bytes[at - 9 - 8] ^= 0x10;
    });
    assert_eq!((left, damage.len()), (9, 1), "{damage:?}");
}

#[test]
fn a_journal_that_ends_in_the_middle_of_a_batch_loses_that_batch() {
    for cut in 1..60 {
        let (left, _) = sessions_left_after(|bytes| {
            let end = bytes.len() - bytes.iter().rev().take_while(|&&b| b == 0).count();
            bytes.truncate(end - cut);
        });
        assert!(left >= 8, "cut {cut}: {left}");
    }
}

/// Files of tables, largest first.
fn tables(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for keyspace in fs::read_dir(dir.join("db/keyspaces")).unwrap() {
        let folder = keyspace.unwrap().path().join("tables");
        if folder.exists() {
            found.extend(fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()));
        }
    }
    found.sort_by_key(|p| std::cmp::Reverse(fs::metadata(p).unwrap().len()));
    found
}

#[test]
fn a_damaged_block_of_a_table_costs_its_records_alone() {
    const MANY: u64 = 20_000;
    let dir = tempfile::tempdir().unwrap();
    {
        let w = World::open(dir.path());
        for n in 0..MANY {
            let mut value = vec![n as u8; 1000];
            value[..8].copy_from_slice(&n.to_be_bytes());
            let batch = w.store.put(session(n), value);
            if n % 500 == 0 {
                w.until_durable(batch);
            }
        }
        w.until_durable(w.store.latest());
        // What was gathered in memory is written out beside.
        while tables(dir.path()).first().is_none_or(|t| fs::metadata(t).unwrap().len() < 4 << 20) {
            std::thread::yield_now();
        }
    }
    let path = tables(dir.path()).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x01;
    fs::write(&path, &bytes).unwrap();

    let w = World::open(dir.path());
    let view = w.store.view().unwrap();
    let (from, to) = (Key::new(Table::Sessions), Key::end(Table::Sessions));
    let (mut front, mut back) = (Vec::new(), Vec::new());
    let number = |key: &[u8]| split_number(key).unwrap().0;
    let forwards = view.scan(&from, &to, &mut |key, value| {
        assert_eq!(split_number(value).unwrap().0, number(key));
        front.push(number(key));
        true
    });
    let backwards = view.scan_back(&from, &to, &mut |key, _| {
        back.push(number(key));
        true
    });
    assert!(forwards.is_err() && backwards.is_err(), "{forwards:?} {backwards:?}");
    let lost = MANY as usize - front.len() - back.len();
    assert!((1..=100).contains(&lost), "{lost} lost");
    let mut around = Vec::new();
    assert!(store::scan_around(&*view, &from, &to, &mut |key, _| around.push(number(key))).unwrap());
    assert_eq!((around.len(), around.is_sorted()), (MANY as usize - lost, true));
    // The store goes on.
    let batch = w.store.put(session(MANY), Vec::new());
    w.until_durable(batch);
}
