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

/// Visits all keys from `from` on, below `to`, around what is damaged; true if anything is. What lies between two damaged
/// places is not found.
pub fn scan_around(
    view: &dyn View,
    from: &Key,
    to: &Key,
    visit: &mut dyn FnMut(&[u8], &[u8]),
) -> Result<bool, Error> {
    let table = from.as_bytes().first().copied().unwrap_or_default();
    let (mut from, mut is_damaged) = (from.clone(), false);
    loop {
        let mut last: Option<Vec<u8>> = None;
        let forwards = view.scan(&from, to, &mut |key, value| {
            visit(key, value);
            last = Some(key.to_vec());
            true
        });
        match forwards {
            Ok(()) => return Ok(is_damaged),
            Err(error) if !error.is_damage() => return Err(error),
            Err(error) => tracing::error!(%error, "some records cannot be read; the others are"),
        }
        is_damaged = true;
        if let Some(key) = last {
            from = Key::behind(table, &key);
        }
        // From the other end to where the damage ends.
        let mut first = None;
        let backwards = view.scan_back(&from, to, &mut |key, _| {
            first = Some(key.to_vec());
            true
        });
        if let Err(error) = backwards
            && !error.is_damage()
        {
            return Err(error);
        }
        match first.map(|key| Key::at(table, &key)) {
            Some(next) if next > from => from = next,
            _ => return Ok(true),
        }
    }
}

/// Why the engine could not do it, in words for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    text: String,
    is_damage: bool,
}

impl Error {
    /// With these words.
    pub fn new(text: impl fmt::Display) -> Error {
        Error { text: text.to_string(), is_damage: false }
    }

    /// What was read is not what was written.
    pub fn damage(text: impl fmt::Display) -> Error {
        Error { text: text.to_string(), is_damage: true }
    }

    /// Whether what was read is not what was written, which trying again does not change.
    pub fn is_damage(&self) -> bool {
        self.is_damage
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Error {
        Error::new(e)
    }
}
