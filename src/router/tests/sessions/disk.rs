//! A world that outlives its process.

use std::path::Path;
use std::sync::Arc;

use router::{Options, Restored, Router};
use store::{Limits, Store};

use super::World;

/// A world on a disk, which can be left as a killed process leaves it.
pub(crate) struct Disk {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) options: Options,
    pub(crate) now: gateway::Now,
}

impl Disk {
    pub(crate) fn new() -> Disk {
        Disk::with(Options::default())
    }

    pub(crate) fn with(options: Options) -> Disk {
        let now = gateway::Now { wall_ms: 1_700_000_000_000, ..gateway::Now::from_micros(1_000_000) };
        Disk { folder: tempfile::tempdir().unwrap(), options, now }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Starts; what was not written before is lost.
    pub(crate) fn start(&self) -> (World, Restored) {
        let store = Arc::new(Store::open(self.path(), Limits::default()).unwrap());
        let router = Router::new(self.options.clone()).with_store(store.clone(), true);
        let restored = router.restore(self.now).unwrap();
        let mut world = World::on(router, Some(store));
        world.now = self.now;
        (world, restored)
    }

    pub(crate) fn world(&self) -> World {
        self.start().0
    }

    /// The process is killed after all was written, and starts again `seconds` later, with a monotonic clock that knows
    /// nothing of before.
    pub(crate) fn again(&mut self, mut world: World, seconds: u64) -> World {
        world.write();
        drop(world);
        self.now.wall_ms += seconds * 1000;
        self.world()
    }
}
