//! The embedded engine: fjall, a log-structured merge tree with one journal for all tables.
//!
//! A commit is one batch of fjall's, which its journal holds with a checksum, and one `fdatasync`. fjall refuses all
//! commits after one has failed, since nobody knows what of it the disk has; then everything is opened anew from the disk.
//! A journal that does not open because of a damaged batch is mended by [`crate::journal`] before.
//!
//! fjall asserts in places what a damaged disk can make untrue, so its panics are caught and are errors here.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot};
use parking_lot::{Mutex, RwLock};

use crate::engine::{Change, Engine, Error, View};
use crate::{Key, Table, journal};

/// Memory for blocks that were read.
const CACHE: u64 = 16 << 20;
/// Journals may take so much of the disk before tables are written out on their account.
const JOURNALS: u64 = 64 << 20;
/// What is gathered in memory before a table is written: of what comes and goes, and of the rest.
const MEMTABLE: (u64, u64) = (32 << 20, 8 << 20);
/// How often it is looked whether nobody looks at the store any more, before it is opened anew.
const LOOKS: usize = 10_000;
/// Records a backup commits at a time.
const COPY: usize = 4096;

/// See the module.
pub struct Disk {
    path: PathBuf,
    open: RwLock<Option<Opened>>,
    damage: Mutex<Vec<String>>,
    /// Nothing may be committed before it was opened anew.
    must_reopen: AtomicBool,
}

#[derive(Clone)]
struct Opened {
    db: Database,
    calm: Keyspace,
    busy: Keyspace,
    /// Who looks at it holds a reference.
    lookers: Arc<()>,
}

impl Opened {
    fn keyspace(&self, first: u8) -> &Keyspace {
        if Table::is_busy(first) { &self.busy } else { &self.calm }
    }
}

impl Disk {
    /// Opens the engine in the folder `path`, which is made if it does not exist.
    pub fn open(path: &Path) -> Result<Disk, Error> {
        let disk = Disk {
            path: path.to_owned(),
            open: RwLock::new(None),
            damage: Mutex::default(),
            must_reopen: AtomicBool::new(false),
        };
        create(path)?;
        // A sync may have failed before the process ended. If nothing can be written now, it can at least be read.
        if let Err(error) = disk.renew() {
            tracing::error!(%error, "the store can only be read at present");
            disk.must_reopen.store(true, Ordering::Relaxed);
        }
        *disk.open.write() = Some(guarded(|| open(path))?);
        Ok(disk)
    }

    /// Writes the journals anew and mends them.
    fn renew(&self) -> Result<(), Error> {
        let damage = journal::renew(&self.path)?;
        self.damage.lock().extend(damage);
        Ok(())
    }
}

impl Engine for Disk {
    fn commit(&self, changes: &mut dyn Iterator<Item = Change<'_>>) -> Result<(), Error> {
        let Some(Opened { db, calm, busy, .. }) = self.open.read().clone() else {
            return Err(Error::new("the store is closed"));
        };
        if self.must_reopen.load(Ordering::Relaxed) {
            return Err(Error::new("its journals could not be written when it was opened"));
        }
        guarded(|| {
            let mut batch = db.batch().durability(Some(PersistMode::SyncData));
            for (key, value) in &mut *changes {
                let key = key.as_bytes();
                if key.len() > usize::from(u16::MAX) {
                    // The engine would refuse the batch, and with it whatever else is in it.
                    tracing::error!(length = key.len(), "a record whose key is too long is left out");
                    continue;
                }
                let keyspace = if key.first().is_some_and(|&f| Table::is_busy(f)) { &busy } else { &calm };
                match value {
                    Some(value) => batch.insert(keyspace, key, value),
                    None => batch.remove(keyspace, key),
                }
            }
            batch.commit()
        })
    }

    fn view(&self) -> Result<Box<dyn View>, Error> {
        match self.open.read().clone() {
            Some(opened) => {
                let looker = opened.lookers.clone();
                Ok(Box::new(Seen { snapshot: opened.db.snapshot(), opened, _looker: looker }))
            }
            None => Err(Error::new("the store is closed")),
        }
    }

    fn reopen(&self) -> Result<(), Error> {
        // Its locks go with the last user of the old one; while somebody looks at it, a backup say, all others can too.
        let mut held = self.open.write();
        // Nobody can begin to look now; who only looks at a few records is soon done.
        for _ in 0..LOOKS {
            if held.as_ref().is_none_or(|o| Arc::strong_count(&o.lookers) == 1) {
                break;
            }
            std::thread::yield_now();
        }
        if held.as_ref().is_some_and(|o| Arc::strong_count(&o.lookers) > 1) {
            return Err(Error::new("somebody is reading it, and it can be opened anew only after that"));
        }
        let old = held.take();
        drop(held);
        drop(old);
        self.renew()?;
        let opened = guarded(|| open(&self.path))?;
        *self.open.write() = Some(opened);
        self.must_reopen.store(false, Ordering::Relaxed);
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        size_of_folder(&self.path)
    }

    fn damage(&self) -> Vec<String> {
        self.damage.lock().clone()
    }
}

fn open(path: &Path) -> fjall::Result<Opened> {
    let db = Database::builder(path)
        .cache_size(CACHE)
        .max_journaling_size(JOURNALS)
        .worker_threads(1)
        .max_cached_files(Some(128))
        .open()?;
    let calm = db.keyspace("calm", || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE.1))?;
    let busy = db.keyspace("busy", || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE.0))?;
    Ok(Opened { db, calm, busy, lookers: Arc::new(()) })
}

/// Makes a new database under another name first: fjall does not open one whose making was interrupted.
fn create(path: &Path) -> Result<(), Error> {
    if path.exists() {
        return Ok(());
    }
    let unfinished = path.with_extension("creating");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    guarded(|| open(&unfinished).map(drop))?;
    sync_folders(&unfinished)?;
    fs::rename(&unfinished, path)?;
    if let Some(folder) = path.parent() {
        fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// fjall leaves the names of new folders unsynced.
fn sync_folders(path: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_folders(&entry.path())?;
        }
    }
    Ok(fs::File::open(path)?.sync_all()?)
}

fn guarded<T>(run: impl FnOnce() -> fjall::Result<T>) -> Result<T, Error> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(explain),
        Err(_) => Err(Error::damage("the engine met what it did not expect; the log has more")),
    }
}

fn explain(e: fjall::Error) -> Error {
    match e {
        fjall::Error::Io(e) => Error::new(e),
        fjall::Error::Storage(e) => match e {
            fjall::LsmError::Io(e) => Error::new(e),
            other => Error::damage(format!("damaged table: {other:?}")),
        },
        fjall::Error::Locked => Error::new("another process has the store open"),
        fjall::Error::Poisoned => Error::new("an earlier write failed"),
        other => Error::damage(format!("{other:?}")),
    }
}

/// A snapshot.
struct Seen {
    snapshot: Snapshot,
    opened: Opened,
    _looker: Arc<()>,
}

impl View for Seen {
    fn value(&self, key: &Key) -> Result<Option<Vec<u8>>, Error> {
        let key = key.as_bytes();
        let keyspace = self.opened.keyspace(key.first().copied().unwrap_or_default());
        guarded(|| Ok(self.snapshot.get(keyspace, key)?.map(|v| v.to_vec())))
    }

    fn scan(&self, from: &Key, to: &Key, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), Error> {
        let (from, to) = (from.as_bytes(), to.as_bytes());
        if from >= to {
            return Ok(());
        }
        let keyspace = self.opened.keyspace(from.first().copied().unwrap_or_default());
        guarded(|| {
            for record in self.snapshot.range(keyspace, from..to) {
                let (key, value) = record.into_inner()?;
                if !visit(key.get(1..).unwrap_or_default(), &value) {
                    break;
                }
            }
            Ok(())
        })
    }

    fn scan_back(
        &self,
        from: &Key,
        to: &Key,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Error> {
        let (from, to) = (from.as_bytes(), to.as_bytes());
        if from >= to {
            return Ok(());
        }
        let keyspace = self.opened.keyspace(from.first().copied().unwrap_or_default());
        guarded(|| {
            for record in self.snapshot.range(keyspace, from..to).rev() {
                let (key, value) = record.into_inner()?;
                if !visit(key.get(1..).unwrap_or_default(), &value) {
                    break;
                }
            }
            Ok(())
        })
    }

    fn copy_to(&self, to: &Path) -> Result<u64, Error> {
        create(to)?;
        let copy = guarded(|| open(to))?;
        let mut copied = 0;
        for (from, into) in [(&self.opened.calm, &copy.calm), (&self.opened.busy, &copy.busy)] {
            let mut batch = copy.db.batch();
            for record in self.snapshot.iter(from) {
                let (key, value) = guarded(|| record.into_inner())?;
                batch.insert(into, key, value);
                copied += 1;
                if batch.len() >= COPY {
                    guarded(|| std::mem::replace(&mut batch, copy.db.batch()).commit())?;
                }
            }
            guarded(|| batch.commit())?;
        }
        guarded(|| copy.db.persist(PersistMode::SyncAll))?;
        Ok(copied)
    }
}

/// Bytes that the files take on the disk; a journal is made larger than what is in it.
fn size_of_folder(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(files) = fs::read_dir(path) else { return 0 };
    files
        .flatten()
        .map(|file| match file.metadata() {
            Ok(m) if m.is_dir() => size_of_folder(&file.path()),
            Ok(m) => m.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}
