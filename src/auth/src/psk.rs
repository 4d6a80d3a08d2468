//! Pre-shared keys (RFC 4279): the file that says which identity has which key, and whose it is.
//!
//! ```text
//! IDENTITY CLIENT_ID USER KEY [OLDER_KEY UNTIL]
//!
//! urn:imei:490154203237518 meter-17 meters 8f3c…e1
//! gate\x207 gate-7 - 00aa…17 5d01…9c 2026-12-01T00:00:00Z
//! ```
//!
//! - One credential a line, fields between blanks. A device that has proven IDENTITY comes in as CLIENT_ID, with the rights
//!   of USER; `-` is none. A client id stands here once.
//! - Keys are hexadecimal, 1 to 64 bytes. While a key is changed the one before is valid too, until UNTIL (RFC 3339 in UTC)
//!   or, with `-`, until it is taken out.
//! - In the first three fields `\xNN` stands for one byte: blanks, control characters, the backslash, a `#` at the beginning
//!   and a `-` alone are written so. Lines that begin with `#` are comments.
//!
//! A million of them lie in some 100 MB: one piece of memory, and a table of where each begins. It is wiped when it is
//! dropped.

use std::io;
use std::path::Path;
use std::sync::Arc;

use gateway::config::{Mistake, Place};
use gateway::time;
use hashbrown::{DefaultHashBuilder, HashTable};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::hash::BuildHasher;
use zeroize::Zeroizing;

use crate::passwd::{is_name, read_bounded};

mod file;
mod key;
mod tries;

pub use file::File;
pub use key::Key;
pub(crate) use tries::Tries;

/// Longest identity in bytes; RFC 4279, 5.3 demands 128.
pub const MAX_IDENTITY: usize = 255;
/// Longest client id in bytes.
pub const MAX_CLIENT_ID: usize = 512;
/// Longest file in bytes: some two million credentials.
const MAX_FILE: u64 = 512 << 20;
/// Older keys that have no end.
const NEVER: u64 = u64::MAX;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// What the device says (RFC 4279, 2).
    pub identity: String,
    /// The client id that it stands for.
    pub client_id: String,
    /// The user whose rights it has.
    pub user: Option<String>,
    /// Its key.
    pub key: Key,
    /// The key before, and when it ends in milliseconds since 1970, if it does.
    pub older: Option<(Key, Option<u64>)>,
}

impl Credential {
    /// Reads one line. The error says what is wrong.
    pub fn decode(line: &str) -> Result<Credential, String> {
        let mut fields = line.split_ascii_whitespace();
        let mut field = |what: &str| fields.next().ok_or_else(|| format!("{what} is missing"));
        let identity = unescape(field("the identity")?)?;
        let client_id = unescape(field("the client id")?)?;
        let user = match field("the user (`-` is none)")? {
            "-" => None,
            user => Some(unescape(user)?),
        };
        let key = Key::decode(field("the key")?)?;
        let older = match (fields.next(), fields.next()) {
            (None, _) => None,
            (Some(_), None) => return Err("the end of the older key is missing (`-` is none)".to_owned()),
            (Some(key), Some("-")) => Some((Key::decode(key)?, None)),
            (Some(key), Some(until)) => {
                let until = time::parse_datetime(until)
                    .ok_or_else(|| format!("`{until}` is not a time such as 2026-12-01T00:00:00Z"))?;
                Some((Key::decode(key)?, Some(until)))
            }
        };
        if fields.next().is_some() {
            return Err("more than six fields; a blank in a name is written \\x20".to_owned());
        }
        Credential { identity, client_id, user, key, older }.checked()
    }

    /// Whether the names can be used.
    pub(crate) fn checked(self) -> Result<Credential, String> {
        if self.identity.is_empty() || self.identity.len() > MAX_IDENTITY {
            return Err(format!("an identity has 1 to {MAX_IDENTITY} bytes"));
        }
        let is_client_id = !self.client_id.is_empty()
            && self.client_id.len() <= MAX_CLIENT_ID
            && !has_control(&self.client_id);
        if !is_client_id {
            return Err(format!("a client id has 1 to {MAX_CLIENT_ID} bytes and no control characters"));
        }
        match &self.user {
            Some(user) if !is_name(user) => Err(format!("`{user}` cannot be a user name")),
            _ => Ok(self),
        }
    }

    /// The line, without its end.
    pub fn encode(&self) -> Zeroizing<String> {
        let (identity, client_id) = (escape(&self.identity), escape(&self.client_id));
        let user = self.user.as_deref().map_or_else(|| "-".to_owned(), escape);
        let mut line = Zeroizing::new(format!("{identity} {client_id} {user} "));
        line.push_str(&self.key.encode());
        if let Some((older, until)) = &self.older {
            line.push(' ');
            line.push_str(&older.encode());
            line.push(' ');
            line.push_str(&until.map_or_else(|| "-".to_owned(), time::datetime));
        }
        line
    }
}

fn has_control(text: &str) -> bool {
    text.contains(char::is_control)
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        let is_marked = c.is_whitespace()
            || c.is_control()
            || c == '\\'
            || (c == '#' && at == 0)
            || (c == '-' && text.len() == 1);
        if is_marked {
            let mut bytes = [0; 4];
            c.encode_utf8(&mut bytes).bytes().for_each(|b| out.push_str(&format!("\\x{b:02x}")));
        } else {
            out.push(c);
        }
    }
    out
}

fn unescape(text: &str) -> Result<String, String> {
    if !text.contains('\\') {
        return Ok(text.to_owned());
    }
    let wrong = || format!("`{text}`: `\\` is followed by `x` and two hexadecimal digits");
    let mut parts = text.split('\\');
    let mut out = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.strip_prefix('x').and_then(|p| p.split_at_checked(2)).ok_or_else(wrong)?;
        out.push(key::byte(digits.as_bytes()).ok_or_else(wrong)?);
        out.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(out).map_err(|_| format!("`{text}` is not UTF-8"))
}

/// What to shake hands with.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The key to try: of an unknown identity one that nobody has.
    pub key: Key,
    /// The other key that is valid at this time.
    pub other: Option<Key>,
    /// Whether there is such an identity.
    pub is_known: bool,
}

/// A credential as the tables hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// See [`Credential::identity`].
    pub identity: &'a str,
    /// See [`Credential::client_id`].
    pub client_id: &'a str,
    /// See [`Credential::user`].
    pub user: Option<&'a str>,
    key: &'a [u8],
    older: Option<(&'a [u8], u64)>,
}

impl<'a> Entry<'a> {
    fn keys(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        [Some(self.key), self.older.map(|(key, _)| key)].into_iter().flatten()
    }

    pub(crate) fn has_two_keys(&self, wall_ms: u64) -> bool {
        self.older.is_some_and(|(_, until)| until > wall_ms)
    }
}

/// The credentials of a file.
#[derive(Default)]
pub struct Keys {
    /// Entries one after the other; see [`Keys::push`].
    bytes: Zeroizing<Vec<u8>>,
    /// Where they begin, by identity.
    places: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", self.places.len())
    }
}

impl Keys {
    /// Reads a file's text; `source` names it in the mistakes, of which all are found.
    pub fn decode(source: &str, text: &str) -> (Keys, Vec<Mistake>) {
        let (mut keys, mut mistakes) = (Keys::default(), Vec::new());
        // Two hexadecimal digits are one byte, which pays for lengths and times: nothing is moved and left behind.
        keys.bytes.reserve_exact(text.len() + text.lines().count() * HEAD);
        let mut clients = HashTable::new();
        let source: Arc<str> = source.into();
        for (line, entry) in (1u32..).zip(text.lines()) {
            if is_comment(entry) {
                continue;
            }
            let added = Credential::decode(entry).and_then(|c| keys.add(&c, &mut clients));
            if let Err(text) = added {
                let place = Place { source: source.clone(), line };
                mistakes.push(Mistake { place, key: "psk".to_owned(), text });
            }
        }
        keys.bytes.shrink_to_fit();
        (keys, mistakes)
    }

    /// Reads the file at `path`; one that does not exist holds nobody.
    pub fn read(path: &Path) -> io::Result<(Keys, Vec<Mistake>)> {
        match read_bounded(path, MAX_FILE).map(Zeroizing::new) {
            Ok(text) => Ok(Keys::decode(&path.display().to_string(), &text)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok((Keys::default(), Vec::new())),
            Err(e) => Err(e),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The credential of an identity.
    pub fn find(&self, identity: &[u8]) -> Option<Entry<'_>> {
        let hash = self.hasher.hash_one(identity);
        let is = |at: &u32| self.entry(*at).is_some_and(|e| e.identity.as_bytes() == identity);
        self.places.find(hash, is).and_then(|at| self.entry(*at))
    }

    /// The identities that are here and there, and have no key in common.
    pub(crate) fn exchanged<'a>(&'a self, now: &'a Keys) -> impl Iterator<Item = &'a str> {
        self.places.iter().filter_map(|at| {
            let before = self.entry(*at)?;
            let now = now.find(before.identity.as_bytes())?;
            let has_one = before.keys().any(|key| now.keys().any(|other| other == key));
            (!has_one).then_some(before.identity)
        })
    }

    /// What to shake hands with whoever says `identity`. The work is the same for identities that do not exist: `secret`,
    /// which nobody knows, makes a key for each of them, the same each time.
    pub fn offer(&self, wall_ms: u64, secret: &[u8; 32], identity: &[u8]) -> Offer {
        let decoy = self.decoy(secret, identity);
        let Some(entry) = self.find(identity) else {
            return Offer { key: decoy, other: None, is_known: false };
        };
        let other = entry.older.filter(|(_, until)| *until > wall_ms).map(|(key, _)| Key::new(key));
        Offer { key: Key::new(entry.key), other, is_known: true }
    }

    /// As long as the file's first key, so that its length tells nothing where all are alike.
    fn decoy(&self, secret: &[u8; 32], identity: &[u8]) -> Key {
        let length = self.entry(0).map_or(16, |e| e.key.len());
        let mut bytes = Zeroizing::new([0; 64]);
        for (number, half) in (0u8..).zip(bytes.chunks_mut(32)) {
            // HMAC takes keys of every length; the error type is that of ciphers.
            let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { continue };
            mac.update(&[number]);
            mac.update(identity);
            half.copy_from_slice(&mac.finalize().into_bytes());
        }
        Key::new(&bytes[..length])
    }

    fn add(&mut self, c: &Credential, clients: &mut HashTable<u32>) -> Result<(), String> {
        if self.find(c.identity.as_bytes()).is_some() {
            return Err(format!("identity `{}` stands here twice", c.identity));
        }
        let hash = self.hasher.hash_one(&c.client_id);
        let is = |at: &u32| self.entry(*at).is_some_and(|e| e.client_id == c.client_id);
        if let Some(other) = clients.find(hash, is).and_then(|at| self.entry(*at)) {
            return Err(format!(
                "client id `{}` is that of identity `{}` already",
                c.client_id, other.identity
            ));
        }
        let at = u32::try_from(self.bytes.len()).map_err(|_| "too many credentials".to_owned())?;
        self.push(c);
        let Keys { places, hasher, .. } = self;
        let bytes = &self.bytes;
        places.insert_unique(hasher.hash_one(c.identity.as_bytes()), at, |at| {
            hasher.hash_one(entry(bytes, *at).map_or(&[][..], |e| e.identity.as_bytes()))
        });
        clients.insert_unique(hash, at, |at| hasher.hash_one(entry(bytes, *at).map_or("", |e| e.client_id)));
        Ok(())
    }

    /// `identity:u8 client:u16 user:u16 key:u8 older:u8 until:u64`, these being lengths and a time, then the bytes.
    fn push(&mut self, c: &Credential) {
        let (user, older) = (c.user.as_deref().unwrap_or_default(), c.older.as_ref());
        let (key, until) = older.map_or((&[][..], None), |(key, until)| (&**key, *until));
        let out = &mut *self.bytes;
        out.push(c.identity.len() as u8);
        out.extend_from_slice(&(c.client_id.len() as u16).to_be_bytes());
        out.extend_from_slice(&(user.len() as u16).to_be_bytes());
        out.extend_from_slice(&[c.key.len() as u8, key.len() as u8]);
        out.extend_from_slice(&until.unwrap_or(NEVER).to_be_bytes());
        for part in [c.identity.as_bytes(), c.client_id.as_bytes(), user.as_bytes(), &c.key, key] {
            out.extend_from_slice(part);
        }
    }

    fn entry(&self, at: u32) -> Option<Entry<'_>> {
        entry(&self.bytes, at)
    }
}

/// Bytes before the names of an entry.
const HEAD: usize = 15;

fn entry(bytes: &[u8], at: u32) -> Option<Entry<'_>> {
    let rest = bytes.get(at as usize..)?;
    let (head, mut rest) = rest.split_first_chunk::<HEAD>()?;
    let [i, c1, c2, u1, u2, k, o, until @ ..] = *head;
    let mut take = |length: usize| {
        let (part, after) = rest.split_at_checked(length)?;
        rest = after;
        Some(part)
    };
    let identity = std::str::from_utf8(take(i.into())?).ok()?;
    let client_id = std::str::from_utf8(take(u16::from_be_bytes([c1, c2]).into())?).ok()?;
    let user = std::str::from_utf8(take(u16::from_be_bytes([u1, u2]).into())?).ok()?;
    let (key, older) = (take(k.into())?, take(o.into())?);
    let older = (!older.is_empty()).then_some((older, u64::from_be_bytes(until)));
    Some(Entry { identity, client_id, user: Some(user).filter(|u| !u.is_empty()), key, older })
}

fn is_comment(line: &str) -> bool {
    line.trim().is_empty() || line.starts_with('#')
}

#[cfg(test)]
mod tests;
