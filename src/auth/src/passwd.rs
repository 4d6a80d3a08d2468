//! The password file: one user a line, `name:argon2id:scram`.
//!
//! - `argon2id` is a PHC string (`$argon2id$v=19$m=…,t=…,p=…$salt$hash`) that passwords are checked against.
//! - `scram` is `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey` (RFC 5803 in PostgreSQL's spelling), or nothing:
//!   then this user has no enhanced authentication.
//!
//! The line with an empty name holds a random key: from it comes the salt that an unknown user is shown, the same each
//! time (RFC 5802, 9: what is answered must not tell which users exist). Lines that begin with `#` are comments.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use gateway::config::{Mistake, Place};

use crate::scram::Verifier;

/// Longest user name in bytes.
pub const MAX_NAME: usize = 256;
/// Longest password file in bytes.
const MAX_FILE: u64 = 64 << 20;
/// Most memory that a hash of the file may ask for, in KiB: a mistyped `m` must not end the process.
const MAX_MEMORY: u32 = 1 << 20;

/// Whether `name` may be a user's: not empty, at most [`MAX_NAME`] bytes, without `:` and control characters, and it
/// does not look like a comment.
pub fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && !name.starts_with('#')
        && name.trim() == name
        && !name.contains(|c: char| c == ':' || c.is_control())
}

/// One user's proofs.
#[derive(Clone, Debug)]
pub struct User {
    /// PHC string.
    argon2id: Box<str>,
    scram: Option<Verifier>,
}

/// The users of a file.
#[derive(Clone, Debug, Default)]
pub struct Users {
    by_name: BTreeMap<Box<str>, User>,
    key: Option<[u8; 32]>,
}

impl Users {
    /// Reads a password file's text; `source` names it in the mistakes, of which all are found.
    pub fn decode(source: &str, text: &str) -> (Users, Vec<Mistake>) {
        let (mut users, mut mistakes) = (Users::default(), Vec::new());
        let source: Arc<str> = source.into();
        for (line, entry) in (1u32..).zip(text.lines()) {
            if entry.trim().is_empty() || entry.starts_with('#') {
                continue;
            }
            if let Err(text) = users.decode_line(entry) {
                let place = Place { source: source.clone(), line };
                mistakes.push(Mistake { place, key: "passwords".to_owned(), text });
            }
        }
        (users, mistakes)
    }

    fn decode_line(&mut self, line: &str) -> Result<(), String> {
        let mut parts = line.trim_end().splitn(3, ':');
        let (name, argon2id) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if name.is_empty() {
            let key = BASE64.decode(argon2id).ok().and_then(|k| k.try_into().ok());
            self.key = Some(key.ok_or("the line without a name must hold 32 bytes in base64")?);
            return Ok(());
        }
        if !is_name(name) {
            return Err("is not a user name".to_owned());
        }
        check_phc(argon2id)
            .map_err(|e| format!("user `{name}`: {e}; make the line with `tidegate passwd`"))?;
        let scram = match parts.next().unwrap_or_default() {
            "" => None,
            text => Some(
                Verifier::decode(text)
                    .ok_or_else(|| format!("user `{name}`: malformed SCRAM-SHA-256 part"))?,
            ),
        };
        let user = User { argon2id: argon2id.into(), scram };
        match self.by_name.insert(name.into(), user) {
            Some(_) => Err(format!("user `{name}` stands here twice")),
            None => Ok(()),
        }
    }

    /// The file's text.
    pub fn encode(&self) -> String {
        let mut text =
            String::from("# Users of Tidegate, written by `tidegate passwd`: name:argon2id:SCRAM-SHA-256\n");
        if let Some(key) = &self.key {
            text += &format!(":{}\n", BASE64.encode(key));
        }
        for (name, user) in &self.by_name {
            let scram = user.scram.as_ref().map(Verifier::encode).unwrap_or_default();
            text += &format!("{name}:{}:{scram}\n", user.argon2id);
        }
        text
    }

    /// Reads the file at `path`; one that does not exist holds nobody.
    pub fn read(path: &Path) -> Result<(Users, Vec<Mistake>), io::Error> {
        match read_bounded(path, MAX_FILE) {
            Ok(text) => Ok(Users::decode(&path.display().to_string(), &text)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok((Users::default(), Vec::new())),
            Err(e) => Err(e),
        }
    }

    /// Writes the file at `path` with permission 0600: a new file takes the old one's place at once, or nothing changes.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        replace(path, self.encode().as_bytes())
    }

    /// Adds a user or changes its password. `random`: 64 bytes nobody can guess. `with_scram`: enhanced authentication
    /// too. The error says what is wrong with name or password.
    pub fn set(
        &mut self,
        name: &str,
        password: &str,
        random: &[u8; 64],
        with_scram: bool,
    ) -> Result<(), String> {
        if !is_name(name) {
            return Err(format!(
                "`{name}` cannot be a user name: no `:`, control characters or blanks at its ends"
            ));
        }
        if password.is_empty() {
            return Err("the password is empty".to_owned());
        }
        let scram = if with_scram { Some(Verifier::new(password, &random[16..32])?) } else { None };
        let argon2id = hash(password.as_bytes(), &random[..16])?.into();
        if self.key.is_none() {
            self.key = random[32..].try_into().ok();
        }
        self.by_name.insert(name.into(), User { argon2id, scram });
        Ok(())
    }

    /// Removes a user; false if there is none of that name.
    pub fn remove(&mut self, name: &str) -> bool {
        self.by_name.remove(name).is_some()
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// The name as the file has it, shared by nobody.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(AsRef::as_ref)
    }

    /// What passwords for `name` are checked against. For an unknown one it is a hash of the same cost that no password
    /// has, so that both take the same time.
    pub(crate) fn argon2id(&self, name: &str) -> Box<str> {
        if let Some(user) = self.by_name.get(name) {
            return user.argon2id.clone();
        }
        let like = self.by_name.values().next().map_or(NOBODY, |u| &*u.argon2id);
        nobody_like(like)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    pub(crate) fn scram(&self, name: &str) -> Option<&Verifier> {
        self.by_name.get(name)?.scram.as_ref()
    }

    pub(crate) fn key(&self) -> Option<[u8; 32]> {
        self.key
    }
}

/// Whether the password has this hash. Takes some 20 ms of one core and 19 MiB.
pub(crate) fn verify(argon2id: &str, password: &[u8]) -> bool {
    PasswordHash::new(argon2id).is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
}

/// Argon2's recommended cost; its hash is the text "nobody" in base64, which no password is known to have.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5bm9ib2R5bm9ib2R5$bm9ib2R5bm9ib2R5bm9ib2R5bm9ib2R5bm9ib2R5bm8";

/// [`NOBODY`] at the cost of `like`: its head with the salt and hash of nobody.
fn nobody_like(like: &str) -> Box<str> {
    let tail = |text: &'static str| text.match_indices('$').nth(3).map_or("", |(at, _)| &text[at..]);
    let head = like.match_indices('$').nth(3).map_or(like, |(at, _)| &like[..at]);
    format!("{head}{}", tail(NOBODY)).into()
}

fn hash(password: &[u8], salt: &[u8]) -> Result<String, String> {
    let salt = SaltString::encode_b64(salt).map_err(|e| format!("salt: {e}"))?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::default());
    argon2.hash_password(password, &salt).map(|h| h.to_string()).map_err(|e| format!("argon2id: {e}"))
}

fn check_phc(text: &str) -> Result<(), String> {
    let hash = PasswordHash::new(text).map_err(|_| "has no argon2id hash".to_owned())?;
    if hash.algorithm.as_str() != "argon2id" || hash.salt.is_none() || hash.hash.is_none() {
        return Err("the hash is not a whole argon2id one".to_owned());
    }
    let params = Params::try_from(&hash).map_err(|e| format!("argon2id: {e}"))?;
    if params.m_cost() > MAX_MEMORY || params.t_cost() > 100 || params.p_cost() > 16 {
        return Err("argon2id asks for too much: at most m=1048576, t=100, p=16".to_owned());
    }
    Ok(())
}

/// The text of a file of at most `most` bytes.
pub(crate) fn read_bounded(path: &Path, most: u64) -> io::Result<String> {
    if fs::metadata(path)?.len() > most {
        return Err(io::Error::other(format!("is larger than {most} bytes")));
    }
    fs::read_to_string(path)
}

/// Puts a file of these bytes, with permission 0600, in the place of the one at `path`, or changes nothing. It belongs to
/// who the old one belonged to, where that can be: root must not lock the gateway out.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    let written = (|| {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        if let Ok(old) = fs::metadata(path) {
            let _ = fchown(&file, Some(old.uid()), Some(old.gid()));
        }
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)
    })();
    if written.is_err() {
        // What could not be written may not be there.
        let _ = fs::remove_file(&new);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random() -> [u8; 64] {
        std::array::from_fn(|i| i as u8)
    }

    #[test]
    fn a_user_survives_the_file() {
        let mut users = Users::default();
        users.set("alice", "secret", &random(), true).unwrap();
        users.set("bob", "hush", &random(), false).unwrap();
        let (again, mistakes) = Users::decode("passwd", &users.encode());
        assert_eq!(mistakes, []);
        assert_eq!(again.encode(), users.encode());
        assert!(verify(&again.argon2id("alice"), b"secret"));
        assert!(!verify(&again.argon2id("alice"), b"Secret"));
        assert!(again.scram("alice").is_some() && again.scram("bob").is_none());
        assert_eq!(again.key().unwrap(), random()[32..]);
    }

    #[test]
    fn an_unknown_user_costs_a_whole_hash_of_the_same_parameters() {
        let mut users = Users::default();
        assert!(check_phc(&users.argon2id("nobody")).is_ok());
        users
            .decode_line("a:$argon2id$v=19$m=64,t=3,p=1$c2FsdHNhbHQ$bm9ib2R5bm9ib2R5bm9ib2R5bm9ib2R5:")
            .unwrap();
        let fake = users.argon2id("nobody");
        assert!(fake.starts_with("$argon2id$v=19$m=64,t=3,p=1$"));
        assert!(check_phc(&fake).is_ok());
        assert!(!verify(&fake, b"nobody"));
    }

    #[test]
    fn every_mistake_is_reported_with_its_line() {
        let text = format!(
            "# head\nalice\nbob:plain:\ncarol:$argon2i$v=19$m=64,t=3,p=1$c2FsdHNhbHQ$bm9ib2R5bm9ib2R5:\n\
             dan:{NOBODY}:SCRAM-SHA-256$x\nerin:{NOBODY}\nerin:{NOBODY}:\n:short\n\
             fay:$argon2id$v=19$m=4000000,t=2,p=1$c2FsdHNhbHQ$bm9ib2R5bm9ib2R5:\n"
        );
        let (users, mistakes) = Users::decode("passwd", &text);
        let lines: Vec<u32> = mistakes.iter().map(|m| m.place.line).collect();
        assert_eq!(lines, [2, 3, 4, 5, 7, 8, 9]);
        assert_eq!(users.names().collect::<Vec<_>>(), ["erin"]);
    }

    #[test]
    fn the_file_is_replaced_whole_and_readable_by_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = std::env::temp_dir().join(format!("tidegate-passwd-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("passwd");
        assert!(Users::read(&path).unwrap().0.is_empty());
        let mut users = Users::default();
        users.set("alice", "secret", &random(), true).unwrap();
        users.write(&path).unwrap();
        assert!(users.remove("alice") && !users.remove("alice"));
        users.set("bob", "hush", &random(), false).unwrap();
        users.write(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Users::read(&path).unwrap().0.names().collect::<Vec<_>>(), ["bob"]);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn names_that_the_file_cannot_hold_are_refused() {
        let mut users = Users::default();
        for bad in ["", "a:b", "a\nb", " a", "#a"] {
            assert!(users.set(bad, "p", &random(), false).is_err(), "{bad:?}");
        }
        assert!(users.set("a", "", &random(), false).is_err());
    }
}
