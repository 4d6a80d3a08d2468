//! The store: the batch being gathered, the writer, and what is known of both.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use parking_lot::{Condvar, Mutex, RwLock, RwLockReadGuard};

use crate::disk::Disk;
use crate::engine::{Engine, Error, View, scan_around};
use crate::format::{self, Folder, OpenError};
use crate::memory::Memory;
use crate::pending::Changes;
use crate::shared::{Counts, Held};
use crate::{Key, Table, split_number};

/// Most bytes of changes that may wait for the writer: then nothing more that is to be kept is accepted.
const MOST_PENDING: usize = 64 << 20;
/// How long after a failure the writer tries again.
const RETRY: Duration = Duration::from_secs(1);
/// What a probe writes before a failed store is opened anew.
const PROBE: usize = 1 << 20;
/// Numbers of one run begin here, times its number; no run makes as many.
const RUN: u32 = 40;

/// Bounds of all that waits in queues, and how changes are gathered.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Messages waiting, counted once for each session.
    pub max_messages: u64,
    /// Their bytes on the disk; a shared message counts once.
    pub max_bytes: u64,
    /// The writer waits so long for a batch to gather; zero begins at once.
    pub interval: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { max_messages: 10_000_000, max_bytes: 8 << 30, interval: Duration::ZERO }
    }
}

/// What the store has done and has, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Batches on the disk.
    pub commits: u64,
    /// Records in them.
    pub records: u64,
    /// Time they took, in microseconds.
    pub micros: u64,
    /// The longest of them.
    pub longest_micros: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Messages waiting, once for each session; those from before the start are counted a while after it.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Messages that more than one session waits, or waited, for.
    pub shared: u64,
    /// Bytes of changes that wait for the writer.
    pub pending_bytes: u64,
}

/// A message stored once for several sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared(pub u64);

/// Where a waiting message is.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// With its place in the queue.
    Inline(&'a [u8]),
    /// Once for all.
    Shared(Shared),
}

/// A place in a session's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its number; later places have larger ones.
    pub sequence: u64,
    /// The batch it is in.
    pub batch: u64,
    /// Bytes of its record.
    pub size: u32,
    /// The shared message it refers to.
    pub shared: Option<Shared>,
}

/// First byte of a place's value: the message follows, or the number of a shared one does.
pub const SHARED: u8 = 1;

/// The shared message that a place's value refers to.
pub fn is_shared(value: &[u8]) -> Option<Shared> {
    let (&SHARED, rest) = value.split_first()? else { return None };
    split_number(rest).map(|(number, _)| Shared(number))
}

/// What was pushed: the shared message or None for an inline one, and the bytes behind.
pub fn split_body(value: &[u8]) -> Option<(Option<Shared>, &[u8])> {
    match value.split_first()? {
        (&SHARED, rest) => split_number(rest).map(|(n, rest)| (Some(Shared(n)), rest)),
        (0, rest) => Some((None, rest)),
        _ => None,
    }
}

/// The number of the last run, as far as the engine knows: what it wrote down, and what has numbers of it.
fn last_run(engine: &dyn Engine) -> Result<u64, Error> {
    let view = engine.view()?;
    let run = match view.value(&Key::new(Table::Meta).text(b"run")) {
        Err(error) if !error.is_damage() => return Err(error),
        value => value.unwrap_or_default(),
    };
    let mut last = run.as_deref().and_then(split_number).map_or(0, |(n, _)| n);
    for table in [Table::Sessions, Table::Delayed, Table::Ended, Table::Shared] {
        let read = view.scan_back(&Key::new(table), &Key::end(table), &mut |key, _| {
            last = last.max(split_number(key).map_or(0, |(n, _)| n >> RUN));
            false
        });
        match read {
            Err(error) if !error.is_damage() => return Err(error),
            _ => {}
        }
    }
    Ok(last)
}

struct Gathering {
    changes: Changes,
    /// The batch these will be.
    number: u64,
    counts: Counts,
    /// Something changed, even if nothing is left of it: somebody may wait for this batch.
    is_touched: bool,
    /// Sessions that ended in this batch.
    ended: Vec<u64>,
    is_stopped: bool,
}

/// See the module.
pub struct Store {
    engine: Box<dyn Engine>,
    folder: Option<(Folder, PathBuf)>,
    limits: Limits,
    gathering: Mutex<Gathering>,
    /// What could not be written when it was tried; the writer's alone.
    stuck: Mutex<Option<Changes>>,
    /// Held while changes that belong together are made; the writer takes a batch when nobody holds it.
    seal: RwLock<()>,
    work: Condvar,
    durable: AtomicU64,
    failed: AtomicU64,
    is_failing: AtomicBool,
    failure: Mutex<Option<String>>,
    /// The next number for places, shared messages and whatever else must never have one twice.
    next: AtomicU64,
    messages: AtomicI64,
    bytes: AtomicI64,
    pending_bytes: AtomicU64,
    figures: Mutex<Figures>,
    /// What there was at the start, until it is learnt.
    before: Mutex<Option<Box<dyn View>>>,
}

/// Changes made while one of these is held are in one batch. Not to be taken twice by one thread.
pub struct Together<'a>(#[expect(dead_code, reason = "held, not looked at")] RwLockReadGuard<'a, ()>);

impl Store {
    /// Opens the store in the folder `path`, or makes it.
    pub fn open(path: &Path, limits: Limits) -> Result<Store, OpenError> {
        let folder = Folder::open(path)?;
        let cannot = |e: Error| OpenError(format!("cannot open the store in {}: {e}", path.display()));
        let disk = Disk::open(&folder.engine()).map_err(cannot)?;
        for text in disk.damage() {
            tracing::error!(damage = text, "the store was damaged and has been mended");
        }
        // The number of the run is kept twice: one given out again would mix what is new with what is old.
        let run = folder.run().max(last_run(&disk).map_err(cannot)?) + 1;
        if let Err(error) = folder.write_run(run) {
            tracing::warn!(%error, "cannot write the number of this run beside the store");
        }
        let mut store = Store::begin(Box::new(disk), limits, run).map_err(cannot)?;
        store.folder = Some((folder, path.to_owned()));
        Ok(store)
    }

    /// A store on an engine that was opened.
    pub fn on(engine: Box<dyn Engine>, limits: Limits) -> Result<Store, Error> {
        let run = last_run(&*engine)? + 1;
        Store::begin(engine, limits, run)
    }

    fn begin(engine: Box<dyn Engine>, limits: Limits, run: u64) -> Result<Store, Error> {
        let before = engine.view()?;
        let mut store = Store::new(engine, limits, run << RUN);
        store.before = Mutex::new(Some(before));
        // In one batch with the first of its numbers: a start needs not write.
        store.put(Key::new(Table::Meta).text(b"run"), run.to_be_bytes().to_vec());
        Ok(store)
    }

    /// A store that forgets everything when it is dropped.
    pub fn memory(limits: Limits) -> Store {
        Store::new(Box::new(Memory::default()), limits, 0)
    }

    fn new(engine: Box<dyn Engine>, limits: Limits, first: u64) -> Store {
        Store {
            engine,
            folder: None,
            limits,
            gathering: Mutex::new(Gathering {
                changes: Changes::default(),
                number: 1,
                counts: Counts::new(first),
                is_touched: false,
                ended: Vec::new(),
                is_stopped: false,
            }),
            stuck: Mutex::new(None),
            seal: RwLock::new(()),
            work: Condvar::new(),
            durable: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            is_failing: AtomicBool::new(false),
            failure: Mutex::new(None),
            next: AtomicU64::new(first + 1),
            messages: AtomicI64::new(0),
            bytes: AtomicI64::new(0),
            pending_bytes: AtomicU64::new(0),
            figures: Mutex::default(),
            before: Mutex::new(None),
        }
    }

    /// A number that nothing in this store has or had.
    pub fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// What is made while the result is held goes into one batch.
    pub fn together(&self) -> Together<'_> {
        Together(self.seal.read())
    }

    fn change<T>(&self, change: impl FnOnce(&mut Gathering) -> T) -> (T, u64) {
        let mut gathering = self.gathering.lock();
        let result = change(&mut gathering);
        let number = gathering.number;
        self.pending_bytes.store(gathering.changes.bytes as u64, Ordering::Relaxed);
        let was_touched = std::mem::replace(&mut gathering.is_touched, true);
        drop(gathering);
        if !was_touched {
            self.work.notify_one();
        }
        (result, number)
    }

    /// Gives a key a value; the number of the batch comes back.
    pub fn put(&self, key: Key, value: Vec<u8>) -> u64 {
        self.change(|g| g.changes.put(key, value, false)).1
    }

    /// The same without hurry: it is written with the next batch that something else is in, or at the end. What is put later
    /// is never on the disk without it.
    pub fn put_quietly(&self, key: Key, value: Vec<u8>) -> u64 {
        let mut gathering = self.gathering.lock();
        gathering.changes.put(key, value, false);
        self.pending_bytes.store(gathering.changes.bytes as u64, Ordering::Relaxed);
        gathering.number
    }

    /// The same for a key that the store is known not to have.
    pub fn put_new(&self, key: Key, value: Vec<u8>) -> u64 {
        self.change(|g| g.changes.put(key, value, true)).1
    }

    /// Has everything written that was put quietly.
    pub fn nudge(&self) {
        self.change(|_| ());
    }

    /// Removes a key.
    pub fn delete(&self, key: Key) -> u64 {
        self.change(|g| g.changes.delete(key)).1
    }

    /// Stores a message for several sessions; its maker holds it until [`release`](Self::release).
    pub fn share(&self, message: &[u8]) -> Shared {
        let number = self.number();
        let key = Key::new(Table::Shared).number(number);
        let size = (key.as_bytes().len() + message.len()) as u32;
        self.bytes.fetch_add(size.into(), Ordering::Relaxed);
        let value = message.to_vec();
        self.change(|g| {
            g.counts.make(number, size);
            g.changes.put(key, value, true);
        });
        Shared(number)
    }

    /// Whoever held it does no more.
    pub fn release(&self, shared: Shared) {
        self.change(|g| self.let_go(g, shared));
    }

    fn let_go(&self, g: &mut Gathering, shared: Shared) {
        if let Some(size) = g.counts.release(shared.0) {
            self.bytes.fetch_sub(size.into(), Ordering::Relaxed);
            g.changes.delete(Key::new(Table::Shared).number(shared.0));
        }
    }

    /// Puts a message at the end of a session's queue. `head` is what is the session's own about it.
    pub fn push(&self, session: u64, head: &[u8], body: Body<'_>) -> Stored {
        let sequence = self.number();
        let key = Key::new(Table::Queue).number(session).number(sequence);
        let (value, shared) = match body {
            Body::Inline(message) => ([&[0], head, message].concat(), None),
            Body::Shared(shared) => {
                ([&[SHARED], shared.0.to_be_bytes().as_slice(), head].concat(), Some(shared))
            }
        };
        let size = (key.as_bytes().len() + value.len()) as u32;
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(size.into(), Ordering::Relaxed);
        let ((), batch) = self.change(|g| {
            if let Some(shared) = shared {
                g.counts.hold(shared.0);
            }
            g.changes.put(key, value, true);
        });
        Stored { sequence, batch, size, shared }
    }

    /// Removes a message from a session's queue.
    pub fn remove(&self, session: u64, stored: &Stored) -> u64 {
        self.messages.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(stored.size.into(), Ordering::Relaxed);
        self.change(|g| {
            g.changes.delete(Key::new(Table::Queue).number(session).number(stored.sequence));
            if let Some(shared) = stored.shared {
                self.let_go(g, shared);
            }
        })
        .1
    }

    /// Removes a session and, a while later, all its records. Nothing of it may be changed any more.
    pub fn end(&self, session: u64) -> u64 {
        self.change(|g| {
            g.changes.delete(Key::new(Table::Sessions).number(session));
            g.changes.put(Key::new(Table::Ended).number(session), Vec::new(), true);
            g.ended.push(session);
        })
        .1
    }

    /// The last batch that anything has gone into.
    pub fn latest(&self) -> u64 {
        let g = self.gathering.lock();
        if g.is_touched { g.number } else { g.number - 1 }
    }

    /// Batches up to this one are on stable storage.
    pub fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Batches up to this one that are not durable could not be written when it was tried.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Acquire)
    }

    /// Why nothing can be written at present.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    /// Whether more can be kept at present: the disk takes it, and the bounds are not reached.
    pub fn has_room(&self) -> bool {
        let within =
            |n: &AtomicI64, most: u64| n.load(Ordering::Relaxed) < i64::try_from(most).unwrap_or(i64::MAX);
        self.is_working()
            && within(&self.messages, self.limits.max_messages)
            && within(&self.bytes, self.limits.max_bytes)
    }

    /// Whether the disk takes what is written.
    pub fn is_working(&self) -> bool {
        !self.is_failing.load(Ordering::Acquire)
            && self.pending_bytes.load(Ordering::Relaxed) < MOST_PENDING as u64
    }

    /// Whether so much waits for the writer that those who need not wait for it had better do.
    pub fn is_behind(&self) -> bool {
        self.pending_bytes.load(Ordering::Relaxed) > MOST_PENDING as u64 / 4
    }

    /// What is on the disk now.
    pub fn view(&self) -> Result<Box<dyn View>, Error> {
        self.engine.view()
    }

    /// For metrics.
    pub fn figures(&self) -> Figures {
        let (shared, pending) = {
            let g = self.gathering.lock();
            (g.counts.len() as u64, g.changes.bytes as u64)
        };
        let positive = |n: &AtomicI64| u64::try_from(n.load(Ordering::Relaxed)).unwrap_or(0);
        Figures {
            messages: positive(&self.messages),
            bytes: positive(&self.bytes),
            shared,
            pending_bytes: pending,
            ..*self.figures.lock()
        }
    }

    /// Bytes on the disk; looks at every file.
    pub fn disk_bytes(&self) -> u64 {
        self.engine.disk_bytes()
    }

    /// What was damaged when the store was opened.
    pub fn damage(&self) -> Vec<String> {
        self.engine.damage()
    }

    /// Copies what is on the disk now into `to`, which becomes a data folder of its own: `to/store`. Returns the number of
    /// records.
    pub fn backup(&self, to: &Path) -> Result<u64, Error> {
        let folder = to.join("store");
        if folder.exists() {
            return Err(Error::new(format!("{} exists", folder.display())));
        }
        let unfinished = to.join("store.unfinished");
        if unfinished.exists() {
            std::fs::remove_dir_all(&unfinished)?;
        }
        format::private_folder(&unfinished)?;
        let copied = self.view()?.copy_to(&unfinished.join("db"))?;
        format::write_version(&unfinished)?;
        std::fs::rename(&unfinished, &folder)?;
        std::fs::File::open(to)?.sync_all()?;
        Ok(copied)
    }

    /// Writes batches until [`stop`](Self::stop) and everything is written. `micros` is a clock; `done` is called after each
    /// attempt, when [`durable`](Self::durable) or [`failed`](Self::failed) has changed.
    pub fn run(&self, micros: &dyn Fn() -> u64, done: &dyn Fn()) {
        loop {
            let is_stopped = self.wait();
            if is_stopped && self.gathering.lock().changes.map.is_empty() && self.stuck.lock().is_none() {
                return;
            }
            let is_written = self.write(micros, done);
            if is_stopped && !is_written {
                tracing::error!("what could not be written is lost");
                return;
            }
        }
    }

    /// Writes what has been gathered, one batch; true if that succeeded. Called by one thread at a time, usually
    /// [`run`](Self::run)'s.
    pub fn write(&self, micros: &dyn Fn() -> u64, done: &dyn Fn()) -> bool {
        let mut stuck = self.stuck.lock();
        let (newer, number, ended) = {
            let _alone = self.seal.write();
            let mut g = self.gathering.lock();
            let number = g.number;
            g.number += 1;
            g.is_touched = false;
            self.pending_bytes.store(0, Ordering::Relaxed);
            (std::mem::take(&mut g.changes), number, std::mem::take(&mut g.ended))
        };
        let changes = match stuck.take() {
            None => newer,
            Some(mut older) => {
                older.follow(newer);
                older
            }
        };
        let began = micros();
        match self.try_write(&changes) {
            Ok(()) => {
                self.succeeded(number, changes.map.len(), micros().saturating_sub(began));
                done();
                for session in ended {
                    self.sweep(session);
                }
                true
            }
            Err(error) => {
                self.pending_bytes.store(changes.bytes as u64, Ordering::Relaxed);
                *stuck = Some(changes);
                self.gathering.lock().ended.extend(ended);
                self.fail(number, &error);
                done();
                false
            }
        }
    }

    /// Until there is something to write; true if it is the end.
    fn wait(&self) -> bool {
        let is_stuck = self.stuck.lock().is_some();
        let mut g = self.gathering.lock();
        if is_stuck {
            if !g.is_stopped {
                let until_stopped = |g: &mut Gathering| !g.is_stopped;
                self.work.wait_while_for(&mut g, until_stopped, RETRY);
            }
            return g.is_stopped;
        }
        self.work.wait_while(&mut g, |g| !g.is_touched && !g.is_stopped);
        if !self.limits.interval.is_zero() && !g.is_stopped {
            let until_stopped = |g: &mut Gathering| !g.is_stopped;
            self.work.wait_while_for(&mut g, until_stopped, self.limits.interval);
        }
        g.is_stopped
    }

    fn try_write(&self, changes: &Changes) -> Result<(), Error> {
        if self.is_failing.load(Ordering::Acquire) {
            // As long as the disk takes nothing, what is open can at least be read.
            self.probe()?;
            self.engine.reopen()?;
        }
        if changes.map.is_empty() {
            return Ok(());
        }
        self.engine.commit(&mut changes.map.iter().map(|(key, slot)| (key, slot.value.as_deref())))
    }

    fn probe(&self) -> Result<(), Error> {
        let Some((_, path)) = &self.folder else { return Ok(()) };
        let path = path.join("probe");
        let write = || {
            use std::io::Write;
            let mut file = std::fs::File::create(&path)?;
            file.write_all(&vec![0x55; PROBE])?;
            file.sync_all()
        };
        let result = write();
        // One that is left behind is written over by the next.
        let _ = std::fs::remove_file(&path);
        result.map_err(Error::from)
    }

    fn succeeded(&self, number: u64, records: usize, took: u64) {
        let mut figures = self.figures.lock();
        figures.commits += u64::from(records > 0);
        figures.records += records as u64;
        figures.micros += took;
        figures.longest_micros = figures.longest_micros.max(took);
        drop(figures);
        self.durable.store(number, Ordering::Release);
        if self.is_failing.swap(false, Ordering::AcqRel) {
            *self.failure.lock() = None;
            tracing::info!("the store writes again; nothing that was acknowledged is lost");
        }
    }

    fn fail(&self, number: u64, error: &Error) {
        self.figures.lock().failures += 1;
        let text = error.to_string();
        if !self.is_failing.swap(true, Ordering::AcqRel) {
            tracing::error!(
                error = text,
                "the store cannot write: messages that would have to be kept are refused until it can"
            );
        } else {
            tracing::debug!(error = text, "the store still cannot write");
        }
        *self.failure.lock() = Some(text);
        self.failed.store(number, Ordering::Release);
    }

    /// Ends [`run`](Self::run) when all that was gathered is written.
    pub fn stop(&self) {
        self.gathering.lock().is_stopped = true;
        self.work.notify_all();
    }

    /// Removes the records of a session that has ended.
    fn sweep(&self, session: u64) {
        // If it cannot be read now, the next start finds the session among those that have ended.
        if let Err(error) = self.try_sweep(session) {
            tracing::warn!(%error, "cannot remove the records of a session that has ended; the next start tries again");
        }
    }

    fn try_sweep(&self, session: u64) -> Result<(), Error> {
        let view = self.view()?;
        for table in Table::OF_SESSIONS {
            let (from, to) = (Key::new(table).number(session), Key::new(table).number(session + 1));
            let mut found: Vec<(Key, Option<Stored>)> = Vec::new();
            scan_around(&*view, &from, &to, &mut |key, value| {
                let stored = (table == Table::Queue).then(|| Stored {
                    sequence: split_number(key)
                        .and_then(|(_, rest)| split_number(rest))
                        .map_or(0, |(n, _)| n),
                    batch: 0,
                    size: (1 + key.len() + value.len()) as u32,
                    shared: is_shared(value),
                });
                found.push((Key::of(table, key), stored));
            })?;
            for (key, stored) in found {
                match stored {
                    Some(stored) => self.remove(session, &stored),
                    None => self.delete(key),
                };
            }
        }
        self.delete(Key::new(Table::Ended).number(session));
        Ok(())
    }

    /// Finds out what of the time before the start is still waited for, and removes the rest. Takes as long as it takes to
    /// read all queues once; traffic goes on meanwhile.
    pub fn learn(&self) {
        let Some(before) = self.before.lock().take() else { return };
        let mut held: HashMap<u64, Held> = HashMap::new();
        let (mut messages, mut bytes) = (0, 0);
        let mut sessions = HashSet::new();
        let all = (Key::new(Table::Sessions), Key::end(Table::Sessions));
        let read = scan_around(&*before, &all.0, &all.1, &mut |key, _| {
            sessions.extend(split_number(key).map(|(n, _)| n));
        });
        // Of a session that cannot be read it is not known whether it is there.
        let knows_all = match read {
            Ok(is_damaged) => !is_damaged,
            Err(error) => {
                tracing::error!(%error, "cannot read all sessions: what ended ones have left stays");
                return;
            }
        };
        let mut ended: Vec<u64> = Vec::new();
        let queue = (Key::new(Table::Queue), Key::end(Table::Queue));
        // A place that is damaged is never taken, so nobody waits for what it refers to.
        let read = scan_around(&*before, &queue.0, &queue.1, &mut |key, value| {
            messages += 1;
            bytes += (1 + key.len() + value.len()) as i64;
            // Their session's record was damaged.
            if let Some((session, _)) = split_number(key).filter(|_| knows_all)
                && !sessions.contains(&session)
                && ended.last() != Some(&session)
            {
                ended.push(session);
            }
            if let Some(Shared(number)) = is_shared(value) {
                held.entry(number).or_default().count += 1;
            }
        });
        if let Err(error) = read {
            // Who still waits is not known: nothing is removed.
            tracing::error!(%error, "cannot read all queues: the space of shared messages from before the start stays taken");
            return;
        }
        let shared = (Key::new(Table::Shared), Key::end(Table::Shared));
        let read = scan_around(&*before, &shared.0, &shared.1, &mut |key, value| {
            if let Some((number, _)) = split_number(key) {
                let size = (1 + key.len() + value.len()) as u32;
                bytes += i64::from(size);
                held.entry(number).or_default().size = size;
            }
        });
        if let Err(error) = read {
            tracing::error!(%error, "cannot read all shared messages");
        }
        let marks = (Key::new(Table::Ended), Key::end(Table::Ended));
        // What cannot be read now is tried at the next start.
        let _ = before.scan(&marks.0, &marks.1, &mut |key, _| {
            ended.extend(split_number(key).map(|(n, _)| n));
            true
        });
        ended.sort_unstable();
        ended.dedup();
        drop(before);
        self.messages.fetch_add(messages, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.change(|g| {
            for (number, size) in g.counts.learn(held) {
                self.bytes.fetch_sub(size.into(), Ordering::Relaxed);
                g.changes.delete(Key::new(Table::Shared).number(number));
            }
        });
        for session in ended {
            self.sweep(session);
        }
    }
}
