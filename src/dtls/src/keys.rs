//! Pre-shared keys, as the endpoint asks for them.

use std::fmt;

use zeroize::Zeroize;

/// A pre-shared key of 1 to 64 bytes (RFC 4279, 5.3). Overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    bytes: [u8; 64],
    len: u8,
}

impl Key {
    /// `None` if the key is empty or longer than 64 bytes.
    pub fn new(key: &[u8]) -> Option<Key> {
        let mut bytes = [0; 64];
        bytes.get_mut(..key.len())?.copy_from_slice(key);
        let len = u8::try_from(key.len()).ok().filter(|&n| n > 0)?;
        Some(Key { bytes, len })
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} bytes)", self.len)
    }
}

/// The keys of an identity. While a key is rotated there are two; either is good.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The newest. None: the identity is not known.
    pub newest: Option<Key>,
    /// The one before it, as long as it is still good.
    pub older: Option<Key>,
}

impl Found {
    pub(crate) fn has(&self, key: &Key) -> bool {
        [&self.newest, &self.older].into_iter().flatten().any(|other| other == key)
    }
}

/// Where keys are looked up. Called in the middle of a handshake: it must not block.
pub trait Keys: Send + Sync {
    /// The keys of `identity`.
    fn key(&self, identity: &[u8]) -> Found;
}
