//! The file as it is edited: comments and the order of lines stay.

use std::io;
use std::path::Path;

use gateway::config::Mistake;
use zeroize::Zeroizing;

use super::{Credential, Key, Keys, is_comment};
use crate::passwd::{read_bounded, replace};

/// What a file that is made begins with.
const HEADER: &str =
    "# Pre-shared keys of Tidegate, written by `tidegate psk`: IDENTITY CLIENT_ID USER KEY [OLDER_KEY UNTIL]";

/// The lines of a file.
#[derive(Default)]
pub struct File {
    lines: Vec<Zeroizing<String>>,
}

impl File {
    /// Reads the file at `path`; one that does not exist is empty. With mistakes it must not be written.
    pub fn read(path: &Path) -> io::Result<(File, Vec<Mistake>)> {
        let text = match read_bounded(path, super::MAX_FILE).map(Zeroizing::new) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Zeroizing::new(format!("{HEADER}\n")),
            Err(e) => return Err(e),
        };
        let (_, mistakes) = Keys::decode(&path.display().to_string(), &text);
        Ok((File { lines: text.lines().map(|l| Zeroizing::new(l.to_owned())).collect() }, mistakes))
    }

    /// Writes the file at `path` with permission 0600: a new file takes the old one's place at once, or nothing changes.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = Zeroizing::new(String::with_capacity(self.lines.iter().map(|l| l.len() + 1).sum()));
        for line in &self.lines {
            text.push_str(line);
            text.push('\n');
        }
        replace(path, text.as_bytes())
    }

    /// The credentials, in the order of their lines.
    pub fn credentials(&self) -> impl Iterator<Item = Credential> {
        self.lines.iter().filter(|l| !is_comment(l)).filter_map(|l| Credential::decode(l).ok())
    }

    /// Adds a credential. The error says why it cannot be.
    pub fn add(&mut self, credential: Credential) -> Result<(), String> {
        let credential = credential.checked()?;
        for other in self.credentials() {
            if other.identity == credential.identity {
                return Err(format!("identity `{}` exists already", other.identity));
            }
            if other.client_id == credential.client_id {
                return Err(format!(
                    "client id `{}` is that of identity `{}`",
                    other.client_id, other.identity
                ));
            }
        }
        self.lines.push(credential.encode());
        Ok(())
    }

    /// Gives an identity a new key; the one it had is valid until `until` (milliseconds since 1970), or no more.
    pub fn rotate(&mut self, identity: &str, key: Key, until: Option<u64>) -> Result<(), String> {
        let (at, old) = self.find(identity)?;
        if old.key == key {
            return Err(format!("identity `{identity}` has this key already"));
        }
        let older = until.map(|until| (old.key.clone(), Some(until)));
        self.lines[at] = Credential { key, older, ..old }.encode();
        Ok(())
    }

    /// Removes an identity.
    pub fn remove(&mut self, identity: &str) -> Result<(), String> {
        let (at, _) = self.find(identity)?;
        self.lines.remove(at);
        Ok(())
    }

    fn find(&self, identity: &str) -> Result<(usize, Credential), String> {
        let credentials = self.lines.iter().enumerate().filter(|(_, l)| !is_comment(l));
        let mut found = credentials.filter_map(|(at, l)| Some((at, Credential::decode(l).ok()?)));
        found
            .find(|(_, c)| c.identity == identity)
            .ok_or_else(|| format!("there is no identity `{identity}`"))
    }
}
