//! An engine that keeps everything in memory: for tests. Clones are the same engine, so that one can outlive its store.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::Key;
use crate::engine::{Change, Engine, Error, View};

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// See the module.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<Arc<Records>>>);

impl Engine for Memory {
    fn commit(&self, changes: &mut dyn Iterator<Item = Change<'_>>) -> Result<(), Error> {
        let mut records = self.0.lock();
        let records = Arc::make_mut(&mut records);
        for (key, value) in changes {
            match value {
                Some(value) => records.insert(key.as_bytes().to_vec(), value.to_vec()),
                None => records.remove(key.as_bytes()),
            };
        }
        Ok(())
    }

    fn view(&self) -> Result<Box<dyn View>, Error> {
        Ok(Box::new(Still(self.0.lock().clone())))
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

struct Still(Arc<Records>);

impl View for Still {
    fn value(&self, key: &Key) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.0.get(key.as_bytes()).cloned())
    }

    fn scan(&self, from: &Key, to: &Key, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), Error> {
        if from < to {
            let all = self.0.range(from.as_bytes().to_vec()..to.as_bytes().to_vec());
            let _ = all.into_iter().all(|(k, v)| visit(&k[1..], v));
        }
        Ok(())
    }

    fn scan_back(
        &self,
        from: &Key,
        to: &Key,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Error> {
        if from < to {
            let all = self.0.range(from.as_bytes().to_vec()..to.as_bytes().to_vec());
            let _ = all.rev().all(|(k, v)| visit(&k[1..], v));
        }
        Ok(())
    }

    fn copy_to(&self, _: &Path) -> Result<u64, Error> {
        Err(Error::new("nothing is on a disk"))
    }
}
