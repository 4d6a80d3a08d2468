//! The codecs that there are at the moment: those that are built in, and those that an operator has brought, which may be
//! replaced at any time, for all devices or for some of them first.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::{Codec, Options};

mod shelf;

pub use shelf::{Canary, KEPT, Shelf, Version};

/// Makes a codec for each new connection.
pub trait Build: Send + Sync {
    /// One that has read nothing yet.
    fn build(&self, options: &Options) -> Box<dyn Codec>;
}

/// What a script understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Payloads: `decodeUplink` and its like. Where they begin and end, framing says.
    Payload,
    /// Streams: `decode`, which says how much it has taken.
    Stream,
}

/// A codec as a gateway uses it.
#[derive(Clone)]
pub enum Found {
    /// It runs where it is called.
    Inline(Arc<dyn Build>),
    /// It is called outside the process, by this number of its version.
    Script(u64, Shape),
}

/// See the module. Shared by all who use codecs.
#[derive(Default)]
pub struct Library {
    generation: AtomicU64,
    brought: RwLock<HashMap<Box<str>, Shelf>>,
    expected: RwLock<BTreeSet<Box<str>>>,
}

impl Library {
    /// Changes whenever [`Library::find`] may have another answer than before; cheap to ask for.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The codec of this name, in the version that is meant for this device; empty is a device that is not known yet.
    pub fn find(&self, name: &str, device: &str) -> Option<Found> {
        let brought = self.brought.read().unwrap_or_else(PoisonError::into_inner);
        let version = brought.get(name).and_then(|shelf| shelf.version_for(name, device));
        let built_in = || crate::find(name).map(|def| Found::Inline(Arc::new(def.build)));
        version.map(|v| v.found.clone()).or_else(built_in)
    }

    /// Whether there is a codec of this name, or one is expected: its file is there and has not been read yet.
    pub fn knows(&self, name: &str) -> bool {
        self.names().iter().any(|n| **n == *name)
    }

    /// The names of all codecs that there are or that are expected, in alphabetical order.
    pub fn names(&self) -> Vec<Box<str>> {
        let brought = self.brought.read().unwrap_or_else(PoisonError::into_inner);
        let expected = self.expected.read().unwrap_or_else(PoisonError::into_inner);
        let built_in = crate::CODECS.iter().map(|def| def.name.into());
        let with_version = brought.iter().filter(|(_, shelf)| shelf.current.is_some());
        let all: BTreeSet<Box<str>> = built_in
            .chain(with_version.map(|(name, _)| name.clone()))
            .chain(expected.iter().cloned())
            .collect();
        all.into_iter().collect()
    }

    /// Says which codecs an operator has put where they will be read.
    pub fn expect(&self, names: impl IntoIterator<Item = Box<str>>) {
        let mut expected = self.expected.write().unwrap_or_else(PoisonError::into_inner);
        *expected = names.into_iter().collect();
    }

    /// Makes `name` mean this from now on.
    pub fn put(&self, name: &str, found: Found) {
        let version = Version { hash: "".into(), loaded_ms: 0, from: "".into(), number: 0, found };
        // What is put for everybody is always taken.
        let _: Result<(), ()> = self.change(name, |shelf| {
            shelf.add(version, None);
            Ok(())
        });
    }

    /// Changes what there is of `name`. Nobody sees it half changed.
    pub fn change<T, E>(&self, name: &str, change: impl FnOnce(&mut Shelf) -> Result<T, E>) -> Result<T, E> {
        let mut brought = self.brought.write().unwrap_or_else(PoisonError::into_inner);
        let mut shelf = brought.get(name).cloned().unwrap_or_default();
        let result = change(&mut shelf)?;
        brought.insert(name.into(), shelf);
        drop(brought);
        self.generation.fetch_add(1, Ordering::AcqRel);
        Ok(result)
    }

    /// What an operator has brought under this name.
    pub fn shelf(&self, name: &str) -> Option<Shelf> {
        self.brought.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Everything that an operator has brought.
    pub fn shelves(&self) -> BTreeMap<Box<str>, Shelf> {
        let brought = self.brought.read().unwrap_or_else(PoisonError::into_inner);
        brought.iter().map(|(name, shelf)| (name.clone(), shelf.clone())).collect()
    }
}

impl<F: Fn(&Options) -> Box<dyn Codec> + Send + Sync> Build for F {
    fn build(&self, options: &Options) -> Box<dyn Codec> {
        self(options)
    }
}
