//! What a storage engine must do for a [`crate::Store`]: few things, so that another one can take its place.

use std::fmt;
use std::path::Path;

use crate::Key;

/// One change: the value that a key has from now on, or that it has none.
pub type Change<'a> = (&'a Key, Option<&'a [u8]>);

/// A storage engine. All its methods may be called from any thread; `commit` and `reopen` are called by one at a time.
pub trait Engine: Send + Sync {
    /// Makes all changes or none, and returns when they are on stable storage. After an error it is not known which of the two
    /// happened, and nothing more is committed until [`reopen`](Self::reopen) has succeeded.
    fn commit(&self, changes: &mut dyn Iterator<Item = Change<'_>>) -> Result<(), Error>;

    /// What is stored at this moment, unmoved by later commits. While a view is alive the engine may be unable to reopen.
    fn view(&self) -> Result<Box<dyn View>, Error>;

    /// Begins anew with what is on the disk, after an error.
    fn reopen(&self) -> Result<(), Error>;

    /// Bytes on the disk.
    fn disk_bytes(&self) -> u64;

    /// What was found damaged when the engine was opened, in words for the operator.
    fn damage(&self) -> Vec<String>;
}

/// The stored keys and values of one moment.
pub trait View: Send {
    /// The value of a key.
    fn value(&self, key: &Key) -> Result<Option<Vec<u8>>, Error>;

    /// Visits keys from `from` on, below `to`, in their order, until `visit` says that it is enough. Keys come without the
    /// byte of their table.
    fn scan(&self, from: &Key, to: &Key, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), Error>;

    /// The same downwards from `to`, which is not visited.
    fn scan_back(
        &self,
        from: &Key,
        to: &Key,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Error>;

    /// Copies everything into a new store in the empty or missing folder `to`; returns how many records there were.
    fn copy_to(&self, to: &Path) -> Result<u64, Error>;
}

/// Why the engine could not do it, in words for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(String);

impl Error {
    /// With these words.
    pub fn new(text: impl fmt::Display) -> Error {
        Error(text.to_string())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Error {
        Error::new(e)
    }
}
