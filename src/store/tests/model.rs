//! The store against a model that is a map: whatever is done in whatever order, after a write, a crash or a restart there is
//! what the model says.
#![expect(clippy::unwrap_used, reason = "all of this file is a test, its helpers too")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use store::{Body, Key, Limits, Shared, Store, Stored, Table};

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    /// A message for a session.
    Push(u8),
    /// One message for several sessions.
    Share(Vec<u8>),
    /// One of those that wait is taken.
    Take(usize),
    Write,
    /// What was not written is lost.
    Crash,
    /// Counts of messages from before the start are found out.
    Learn,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..8u8, any::<u8>()).prop_map(|(k, v)| Step::Put(k, v)),
        2 => (0..8u8).prop_map(Step::Delete),
        4 => (0..4u8).prop_map(Step::Push),
        3 => proptest::collection::vec(0..4u8, 1..5).prop_map(Step::Share),
        6 => any::<usize>().prop_map(Step::Take),
        4 => Just(Step::Write),
        1 => Just(Step::Crash),
        1 => Just(Step::Learn),
    ];
    proptest::collection::vec(step, 1..60)
}

/// What the store should have, and who waits for what.
#[derive(Clone, Default)]
struct Model {
    values: BTreeMap<u8, u8>,
    waiting: Vec<(u64, Stored)>,
    /// How many wait for each shared message.
    shared: BTreeMap<u64, usize>,
}

fn count(store: &Store, table: Table) -> usize {
    let mut n = 0;
    let view = store.view().unwrap();
    view.scan(&Key::new(table), &Key::end(table), &mut |_, _| {
        n += 1;
        true
    })
    .unwrap();
    n
}

fn compare(store: &Store, model: &Model, knows_counts: bool) {
    let mut values = BTreeMap::new();
    let view = store.view().unwrap();
    let (from, to) = (Key::new(Table::Retained), Key::end(Table::Retained));
    view.scan(&from, &to, &mut |key, value| {
        values.insert(key[0], value[0]);
        true
    })
    .unwrap();
    assert_eq!(values, model.values);
    assert_eq!(count(store, Table::Queue), model.waiting.len());
    for (session, stored) in &model.waiting {
        let key = Key::new(Table::Queue).number(*session).number(stored.sequence);
        let value = view.value(&key).unwrap().unwrap();
        let (shared, rest) = store::split_body(&value).unwrap();
        assert_eq!(shared, stored.shared);
        let body = match shared {
            Some(Shared(n)) => view.value(&Key::new(Table::Shared).number(n)).unwrap().unwrap(),
            None => rest.to_vec(),
        };
        assert_eq!(body, b"message");
    }
    let left = count(store, Table::Shared);
    assert!(left >= model.shared.len(), "{left} of {} shared messages are left", model.shared.len());
    if knows_counts {
        assert_eq!(left, model.shared.len(), "shared messages that nobody waits for");
        assert_eq!(store.figures().messages as usize, model.waiting.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn the_store_has_what_the_model_says(steps in steps()) {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path(), Limits::default()).unwrap();
        // What waits for a session that is not there is removed.
        for session in 0..4 {
            store.put(Key::new(Table::Sessions).number(session), Vec::new());
        }
        assert!(store.write(&|| 0, &|| {}));
        let (mut model, mut written) = (Model::default(), Model::default());
        let mut knows_counts = true;
        for step in steps {
            match step {
                Step::Put(k, v) => {
                    store.put(Key::new(Table::Retained).text(&[k]), vec![v]);
                    model.values.insert(k, v);
                }
                Step::Delete(k) => {
                    store.delete(Key::new(Table::Retained).text(&[k]));
                    model.values.remove(&k);
                }
                Step::Push(session) => {
                    let stored = store.push(session.into(), &[], Body::Inline(b"message"));
                    model.waiting.push((session.into(), stored));
                }
                Step::Share(sessions) => {
                    let shared = store.share(b"message");
                    for &session in &sessions {
                        let stored = store.push(session.into(), &[7], Body::Shared(shared));
                        model.waiting.push((session.into(), stored));
                    }
                    store.release(shared);
                    model.shared.insert(shared.0, sessions.len());
                }
                Step::Take(n) if !model.waiting.is_empty() => {
                    let (session, stored) = model.waiting.remove(n % model.waiting.len());
                    store.remove(session, &stored);
                    if let Some(Shared(n)) = stored.shared {
                        let count = model.shared.get_mut(&n).unwrap();
                        *count -= 1;
                        if *count == 0 {
                            model.shared.remove(&n);
                        }
                    }
                }
                Step::Take(_) => {}
                Step::Write => {
                    assert!(store.write(&|| 0, &|| {}));
                    written = model.clone();
                    compare(&store, &model, knows_counts);
                }
                Step::Crash => {
                    drop(store);
                    store = Store::open(folder.path(), Limits::default()).unwrap();
                    model = written.clone();
                    knows_counts = false;
                    compare(&store, &model, false);
                }
                Step::Learn => {
                    store.learn();
                    knows_counts = true;
                }
            }
        }
        drop(store);
        let store = Store::open(folder.path(), Limits::default()).unwrap();
        store.learn();
        assert!(store.write(&|| 0, &|| {}));
        compare(&store, &written, true);
    }
}
