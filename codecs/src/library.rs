//! The codecs that there are at the moment: those that are built in, and those that an operator has brought, which may be
//! replaced at any time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::{Codec, Options};

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
    brought: RwLock<HashMap<Box<str>, Found>>,
}

impl Library {
    /// Changes whenever [`Library::find`] may have another answer than before; cheap to ask for.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The codec of this name, in the version that is meant for this device.
    pub fn find(&self, name: &str, _device: &str) -> Option<Found> {
        let brought = self.brought.read().unwrap_or_else(PoisonError::into_inner);
        let built_in = || crate::find(name).map(|def| Found::Inline(Arc::new(def.build)));
        brought.get(name).cloned().or_else(built_in)
    }

    /// Makes `name` mean this from now on.
    pub fn put(&self, name: &str, found: Found) {
        self.brought.write().unwrap_or_else(PoisonError::into_inner).insert(name.into(), found);
        self.generation.fetch_add(1, Ordering::AcqRel);
    }
}

impl<F: Fn(&Options) -> Box<dyn Codec> + Send + Sync> Build for F {
    fn build(&self, options: &Options) -> Box<dyn Codec> {
        self(options)
    }
}
