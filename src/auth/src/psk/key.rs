//! A key's bytes.

use std::fmt::Write;
use std::ops::Deref;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Longest key in bytes.
pub(super) const MAX_KEY: usize = 64;

/// See the module. Wiped when it is dropped, and shown by its length alone.
#[derive(Clone)]
pub struct Key {
    bytes: Zeroizing<[u8; MAX_KEY]>,
    length: u8,
}

impl Key {
    /// At most the first [`MAX_KEY`] bytes are taken: of what the tables hold that is all.
    pub(crate) fn new(bytes: &[u8]) -> Key {
        let length = bytes.len().min(MAX_KEY);
        let mut key = Key { bytes: Zeroizing::new([0; MAX_KEY]), length: length as u8 };
        key.bytes[..length].copy_from_slice(&bytes[..length]);
        key
    }

    /// A key of 16 bytes (AES-128) that `random`, which nobody can guess, makes.
    pub fn generate(random: [u8; 16]) -> Key {
        Key::new(&random)
    }

    /// Reads hexadecimal digits. The error does not repeat them.
    pub fn decode(hex: &str) -> Result<Key, String> {
        let bytes: Option<Vec<u8>> = hex.as_bytes().chunks(2).take(MAX_KEY + 1).map(byte).collect();
        match bytes.map(Zeroizing::new) {
            Some(bytes) if (1..=MAX_KEY).contains(&bytes.len()) => Ok(Key::new(&bytes)),
            Some(_) => Err(format!("a key has 1 to {MAX_KEY} bytes")),
            None => Err("the key is not made of pairs of hexadecimal digits".to_owned()),
        }
    }

    /// Its hexadecimal digits.
    pub fn encode(&self) -> Zeroizing<String> {
        let mut hex = Zeroizing::new(String::with_capacity(2 * self.len()));
        for byte in self.iter() {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
        }
        hex
    }
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        bool::from(self[..].ct_eq(&other[..]))
    }
}

impl Eq for Key {}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({} bytes)", self.len())
    }
}

/// Two hexadecimal digits.
pub(crate) fn byte(digits: &[u8]) -> Option<u8> {
    let digit = |d: u8| char::from(d).to_digit(16);
    let &[high, low] = digits else { return None };
    Some((digit(high)? << 4 | digit(low)?) as u8)
}
