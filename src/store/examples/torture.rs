//! Changes a store as a seed tells, and says after reopening which moments of that history it could be in.
//!
//! ```text
//! torture run   FOLDER SEED STEPS LARGEST    a line a batch: its number, and whether it is durable
//! torture check FOLDER SEED STEPS LARGEST    one line: the batches after which the model was as the store is now
//! ```
//! The process is killed, its disk fails or loses power meanwhile: see `conformance/durable/torture.py`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test's other half")]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use store::{Body, Key, Limits, Memory, SHARED, Shared, Store, Stored, Table};

/// Tables that are compared; the others are the store's own.
const TABLES: [Table; 6] =
    [Table::Sessions, Table::Filters, Table::Queue, Table::Shared, Table::Flights, Table::Incoming];
const SESSIONS: u64 = 6;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// xorshift64*: the same history every time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n
    }

    fn bytes(&mut self, most: u64) -> Vec<u8> {
        let (len, fill) = (self.below(most + 1), self.below(256) as u8);
        vec![fill; len as usize]
    }
}

/// A store and what it should hold.
struct World {
    store: Store,
    model: Model,
    chance: Chance,
    largest: u64,
    queued: Vec<(u64, Stored)>,
    counts: BTreeMap<u64, usize>,
}

impl World {
    fn new(store: Store, seed: u64, largest: u64) -> World {
        let chance = Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        World { store, model: Model::new(), chance, largest, queued: Vec::new(), counts: BTreeMap::new() }
    }

    /// What goes into one batch.
    fn step(&mut self) {
        for _ in 0..=self.chance.below(12) {
            match self.chance.below(10) {
                0..=2 => self.put(),
                3..=4 => self.delete(),
                5..=6 => self.push(),
                7 => self.share(),
                _ => self.take(),
            }
        }
    }

    fn key(&mut self) -> Key {
        let n = self.chance.below(SESSIONS);
        match self.chance.below(4) {
            0 => Key::new(Table::Sessions).number(n),
            1 => Key::new(Table::Filters).number(n).text(&[b'a' + self.chance.below(8) as u8]),
            2 => Key::new(Table::Flights).number(n).number(self.chance.below(8)),
            _ => Key::new(Table::Incoming).number(n).id(self.chance.below(8) as u16),
        }
    }

    fn put(&mut self) {
        let (key, value) = (self.key(), self.chance.bytes(self.largest));
        self.model.insert(key.as_bytes().to_vec(), value.clone());
        self.store.put(key, value);
    }

    fn delete(&mut self) {
        let key = self.key();
        self.model.remove(key.as_bytes());
        self.store.delete(key);
    }

    fn place(&mut self, session: u64, stored: Stored, value: Vec<u8>) {
        let key = Key::new(Table::Queue).number(session).number(stored.sequence);
        self.model.insert(key.as_bytes().to_vec(), value);
        self.queued.push((session, stored));
    }

    fn push(&mut self) {
        let (session, message) = (self.chance.below(SESSIONS), self.chance.bytes(self.largest));
        let stored = self.store.push(session, &[7, 8], Body::Inline(&message));
        self.place(session, stored, [&[0, 7, 8], message.as_slice()].concat());
    }

    fn share(&mut self) {
        let message = self.chance.bytes(self.largest);
        let shared = self.store.share(&message);
        let key = Key::new(Table::Shared).number(shared.0);
        self.model.insert(key.as_bytes().to_vec(), message);
        let sessions = 2 + self.chance.below(SESSIONS - 1);
        for session in 0..sessions {
            let stored = self.store.push(session, &[9], Body::Shared(shared));
            self.place(session, stored, [&[SHARED], shared.0.to_be_bytes().as_slice(), &[9]].concat());
        }
        self.counts.insert(shared.0, sessions as usize);
        self.store.release(shared);
    }

    fn take(&mut self) {
        if self.queued.is_empty() {
            return;
        }
        let at = self.chance.below(self.queued.len() as u64) as usize;
        let (session, stored) = self.queued.swap_remove(at);
        self.model.remove(Key::new(Table::Queue).number(session).number(stored.sequence).as_bytes());
        if let Some(Shared(number)) = stored.shared {
            let left = self.counts.get_mut(&number).unwrap();
            *left -= 1;
            if *left == 0 {
                self.model.remove(Key::new(Table::Shared).number(number).as_bytes());
            }
        }
        self.store.remove(session, &stored);
    }
}

/// What a store holds.
fn found(store: &Store) -> Model {
    let view = store.view().unwrap();
    let mut model = Model::new();
    for table in TABLES {
        view.scan(&Key::new(table), &Key::end(table), &mut |key, value| {
            model.insert([&[table as u8], key].concat(), value.to_vec());
            true
        })
        .unwrap();
    }
    model
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let [_, what, folder, seed, steps, largest] = words.as_slice() else {
        println!("see the head of the file");
        std::process::exit(2);
    };
    let (seed, steps, largest) = (seed.parse().unwrap(), steps.parse().unwrap(), largest.parse().unwrap());
    let store = match Store::open(Path::new(folder), Limits::default()) {
        Ok(store) => store,
        Err(error) => {
            println!("cannot open: {error}");
            std::process::exit(3);
        }
    };
    if what == "run" { run(store, seed, steps, largest) } else { check(&store, seed, steps, largest) }
}

fn run(store: Store, seed: u64, steps: u64, largest: u64) {
    let mut world = World::new(store, seed, largest);
    let mut out = std::io::stdout();
    for step in 1..=steps {
        world.step();
        let is_durable = world.store.write(&|| 0, &|| {});
        writeln!(out, "{step} {}", u8::from(is_durable)).unwrap();
        out.flush().unwrap();
    }
}

fn check(store: &Store, seed: u64, steps: u64, largest: u64) {
    let found = found(store);
    // It gives out the numbers of a first run.
    let memory = Store::on(Box::new(Memory::default()), Limits::default()).unwrap();
    let mut world = World::new(memory, seed, largest);
    let mut equal = Vec::new();
    if found.is_empty() {
        equal.push(0);
    }
    for step in 1..=steps {
        world.step();
        world.store.write(&|| 0, &|| {});
        if found == world.model {
            equal.push(step);
        }
    }
    println!("{}", equal.iter().map(u64::to_string).collect::<Vec<_>>().join(" "));
}
