//! The codecs that an operator brings: found in a folder, tried, put into the library, replaced when their files change.
//!
//! A changed file is read when it has not changed for one look. Its source is loaded and its examples are played in a
//! process of their own; when all is well it is a new version, for all devices or for a share of them first
//! (`canary`), and in use with the next frame. If not, everything stays as it was and the error is kept for the operator.
//!
//! A file that is removed leaves its codec in use until the next start. Versions are kept below the data folder
//! ([`disk`]): a restart goes on with the version that was in use, even when a newer one was rolled back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use codecs::library::{Canary, Shelf, Version};
use codecs::{Found, Library};
use gateway::ProgramId;
use parking_lot::Mutex;
use scripts::pipe::Limits;
use sha2::{Digest, Sha256};

use crate::clock::Clock;
use crate::config::CodecsSetup;
use crate::scripts::{Program, Scripts};

mod check;
mod disk;
mod folder;
mod show;

use disk::{Disk, Kept, State};
use folder::{Files, Listed};

pub use folder::{check_folder, names};

const MISNAMED: &str = "not read: a codec's name is of letters, digits, `-`, `_` and `.`, 64 at most";

/// See the module.
pub struct Keeper {
    setup: CodecsSetup,
    library: Arc<Library>,
    scripts: Arc<Scripts>,
    clock: Clock,
    disk: Disk,
    check: Check,
    /// The folder could not be looked at.
    is_blind: AtomicBool,
    /// Files in it whose names are those of no codec; they were told.
    misnamed: Mutex<Vec<PathBuf>>,
    /// One change at a time.
    codecs: Mutex<BTreeMap<Box<str>, Codec>>,
}

/// See [`check::check`].
type Check = fn(&str, &Files, &folder::Contents, Limits) -> Result<check::Checked, String>;

/// What is known of a codec beside what the library knows.
#[derive(Default)]
struct Codec {
    state: State,
    /// How its files looked at the last look, and whether they were read since.
    stamp: Option<Files>,
    is_read: bool,
    /// What was wrong with them then.
    error: Option<String>,
}

/// What came of reading a codec's files.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    /// They are as they were.
    Same,
    /// This version is used now, by all.
    Current(u32),
    /// This version is tried by so many of a hundred devices.
    Canary(u32, u8),
}

impl Keeper {
    /// Brings back what was in use, and reads what is new in the folder.
    pub fn open(
        setup: CodecsSetup,
        data: &Path,
        library: Arc<Library>,
        scripts: Arc<Scripts>,
        clock: Clock,
    ) -> Keeper {
        Keeper::open_with(setup, data, library, scripts, clock, check::check)
    }

    fn open_with(
        setup: CodecsSetup,
        data: &Path,
        library: Arc<Library>,
        scripts: Arc<Scripts>,
        clock: Clock,
        check: Check,
    ) -> Keeper {
        let disk = Disk::new(data);
        let (is_blind, misnamed, codecs) = (AtomicBool::new(false), Mutex::default(), Mutex::default());
        let keeper = Keeper { setup, library, scripts, clock, disk, check, is_blind, misnamed, codecs };
        for (name, files) in keeper.list() {
            let mut codecs = keeper.codecs.lock();
            let codec = codecs.entry(name.clone()).or_default();
            if let Err(error) = keeper.restore(&name, codec) {
                tracing::error!(codec = %name, error, "what was kept of a codec is not used");
            }
            // What is wrong has been told.
            let _ = keeper.read_and_tell(&name, codec, &files);
        }
        keeper
    }

    /// Looks at the folder; reads what has changed and then rested for one look.
    pub fn look(&self) {
        let found = self.list();
        self.forget_gone(&found);
        for (name, files) in found {
            let mut codecs = self.codecs.lock();
            let codec = codecs.entry(name.clone()).or_default();
            if codec.stamp.as_ref() != Some(&files) {
                codec.stamp = Some(files);
                codec.is_read = false;
            } else if !codec.is_read {
                // What is wrong has been told.
                let _ = self.read_and_tell(&name, codec, &files);
            }
        }
    }

    /// Reads one codec's files now, or all of them; a line about each.
    pub fn reload(&self, only: Option<&str>) -> Result<Vec<String>, String> {
        let mut found = self.list();
        self.forget_gone(&found);
        let (mut lines, mut errors) = (Vec::new(), Vec::new());
        if let Some(name) = only {
            found.retain(|n, _| **n == *name);
            if found.is_empty() {
                return Err(format!(
                    "there is no {name}.js and no {name}.wasm in {}",
                    self.setup.folder.display()
                ));
            }
        } else {
            errors.extend(self.misnamed.lock().iter().map(|path| format!("{}: {MISNAMED}", path.display())));
        }
        for (name, files) in found {
            let mut codecs = self.codecs.lock();
            let codec = codecs.entry(name.clone()).or_default();
            match self.read_and_tell(&name, codec, &files) {
                Ok(Read::Same) => lines.push(format!("{name}: unchanged, {}", self.in_use(&name))),
                Ok(_) => lines.push(format!("{name}: {}", self.in_use(&name))),
                Err(error) => errors.push(format!("{name}: {error}")),
            }
        }
        if errors.is_empty() { Ok(lines) } else { Err(errors.join("\n")) }
    }

    /// From now on new versions are tried by so many of a hundred devices first; zero is by none. With a version, or while
    /// one is tried, that one is.
    pub fn canary(&self, name: &str, share: u8, version: Option<u32>) -> Result<String, String> {
        self.change(name, |shelf, state| {
            state.share = Some(share);
            let tried = version.or(shelf.canary.map(|c| c.version));
            match tried {
                Some(number) if shelf.current == Some(number) => {
                    Err(format!("version {number} is what all devices use"))
                }
                Some(_) if share == 0 => {
                    shelf.canary = None;
                    Ok(())
                }
                Some(number) if !shelf.choose(number, Some(share)) => {
                    Err(format!("version {number} is not kept"))
                }
                _ => Ok(()),
            }
        })?;
        let next = match share {
            0 => "a new version is for all devices at once".to_owned(),
            _ => format!("a new version is tried by {share} of 100 devices first"),
        };
        Ok(format!("{name}: {}; {next}", self.in_use(name)))
    }

    /// What some devices try is for all from now on.
    pub fn promote(&self, name: &str) -> Result<String, String> {
        self.change(name, |shelf, _| shelf.promote().ok_or_else(|| "no version is being tried".to_owned()))?;
        Ok(format!("{name}: {}", self.in_use(name)))
    }

    /// One step back.
    pub fn roll_back(&self, name: &str) -> Result<String, String> {
        self.change(name, |shelf, _| {
            shelf.roll_back().ok_or_else(|| "there is no version before this one".to_owned())
        })?;
        Ok(format!("{name}: {}", self.in_use(name)))
    }

    fn list(&self) -> BTreeMap<Box<str>, Files> {
        let listed = folder::list(&self.setup.folder);
        let was_blind = self.is_blind.swap(listed.is_err(), Ordering::Relaxed);
        let Listed { codecs: found, misnamed } = listed.unwrap_or_else(|error| {
            if !was_blind {
                tracing::error!(folder = %self.setup.folder.display(), %error, "cannot look for codecs");
            }
            Listed::default()
        });
        let mut told = self.misnamed.lock();
        for path in misnamed.iter().filter(|path| !told.contains(path)) {
            tracing::error!(file = %path.display(), "{MISNAMED}");
        }
        *told = misnamed;
        self.library.expect(found.keys().cloned());
        found
    }

    /// Of a codec whose files have gone stays what is in use, and not what was wrong with them.
    fn forget_gone(&self, found: &BTreeMap<Box<str>, Files>) {
        let mut codecs = self.codecs.lock();
        codecs.retain(|name, codec| codec.state.current.is_some() || found.contains_key(name));
        for (_, codec) in codecs.iter_mut().filter(|(name, _)| !found.contains_key(*name)) {
            (codec.stamp, codec.error) = (None, None);
        }
    }

    fn in_use(&self, name: &str) -> String {
        let shelf = self.library.shelf(name).unwrap_or_default();
        match (shelf.current, shelf.canary) {
            (None, _) => "no version".to_owned(),
            (Some(current), None) => format!("version {current} is used"),
            (Some(current), Some(Canary { version, share })) => {
                format!("version {current} is used, version {version} by {share} of 100 devices")
            }
        }
    }

    fn read_and_tell(&self, name: &str, codec: &mut Codec, files: &Files) -> Result<Read, String> {
        let result = self.read(name, codec, files);
        codec.stamp = Some(files.clone());
        codec.is_read = true;
        codec.error = result.as_ref().err().cloned();
        match &result {
            Ok(Read::Same) => {}
            Ok(Read::Current(version)) => {
                tracing::info!(codec = name, version, "a codec is used by all devices")
            }
            Ok(Read::Canary(version, share)) => {
                tracing::info!(codec = name, version, share, "a codec is tried by some devices");
            }
            Err(error) => {
                let in_use = self.in_use(name);
                tracing::error!(codec = name, error, in_use, "a changed codec is not taken");
            }
        }
        result
    }

    fn read(&self, name: &str, codec: &mut Codec, files: &Files) -> Result<Read, String> {
        if codecs::find(name).is_some() {
            return Err("a codec of this name is built in".to_owned());
        }
        if let Some(rival) = &files.rival {
            let (one, other) = (files.source.display(), rival.display());
            return Err(format!("{one} and {other}: one of them has to go"));
        }
        let contents = files.read()?;
        let hash = hash(&[&contents.source]);
        let seen = self::hash(&[&contents.source, contents.examples.as_deref().unwrap_or_default()]);
        if codec.state.seen == seen && codec.state.error.is_none() {
            return Ok(Read::Same);
        }
        let checked = (self.check)(name, files, &contents, self.setup.limits());
        codec.state.error = checked.as_ref().err().cloned();
        codec.state.seen = seen;
        let taken = match checked {
            Err(error) => self.disk.save(name, &codec.state).and(Err(error)),
            Ok(checked) => self.take(name, codec, files, (contents.source, hash), checked),
        };
        if taken.is_err() && codec.state.error.is_none() {
            // It could not be kept; what can be read can be tried again.
            codec.state.seen.clear();
        }
        taken
    }

    /// Uses what was found good.
    fn take(
        &self,
        name: &str,
        codec: &mut Codec,
        files: &Files,
        (source, hash): (Vec<u8>, String),
        checked: check::Checked,
    ) -> Result<Read, String> {
        let share = Some(codec.state.share.unwrap_or(self.setup.canary)).filter(|s| *s > 0);
        let shelf = self.library.shelf(name).unwrap_or_default();
        if let Some(number) = shelf.by_hash(&hash).map(|v| v.number) {
            if shelf.canary.map_or(shelf.current, |c| Some(c.version)) == Some(number) {
                return self.disk.save(name, &codec.state).map(|()| Read::Same);
            }
            self.store(name, codec, |shelf, _| {
                shelf.choose(number, share);
                Ok(())
            })?;
        } else {
            let (number, kind) = (shelf.last + 1, checked.kind());
            let (from, loaded_ms) = (files.source.display().to_string(), self.clock.now().wall_ms);
            let kept = Kept { number, kind, hash: hash.clone(), loaded_ms, from: from.clone() };
            self.disk.keep(name, &kept, &source)?;
            let found = self.found(name, number, checked, source);
            let version = Version { number, hash: hash.into(), loaded_ms, from: from.into(), found };
            self.store(name, codec, |shelf, state| {
                state.versions.push(kept);
                shelf.add(version, share);
                Ok(())
            })?;
        }
        let shelf = self.library.shelf(name).unwrap_or_default();
        Ok(match shelf.canary {
            Some(Canary { version, share }) => Read::Canary(version, share),
            None => Read::Current(shelf.current.unwrap_or_default()),
        })
    }

    /// What a gateway finds under the version's number.
    fn found(&self, name: &str, version: u32, checked: check::Checked, source: Vec<u8>) -> Found {
        checked
            .found(|| self.scripts.bring(Program { name: name.into(), version, source: Bytes::from(source) }))
    }

    /// Puts back what the disk has.
    fn restore(&self, name: &str, codec: &mut Codec) -> Result<(), String> {
        let mut state = self.disk.state(name)?;
        let mut shelf = Shelf {
            last: state.last,
            current: state.current,
            canary: state.canary.map(|(version, share)| Canary { version, share }),
            before: state.before.clone(),
            versions: Vec::new(),
        };
        for kept in std::mem::take(&mut state.versions) {
            let source = self.disk.source(name, &kept);
            let again = |source: Vec<u8>| Ok((check::again(kept.kind, &source)?, source));
            let (checked, source) = match source.and_then(again) {
                Ok(both) => both,
                Err(error) if shelf.is_used(kept.number) => return Err(error),
                Err(error) => {
                    // What nobody uses is no reason to go on with another version than before.
                    tracing::error!(codec = name, version = kept.number, error, "a version is lost");
                    shelf.before.retain(|number| *number != kept.number);
                    continue;
                }
            };
            let found = self.found(name, kept.number, checked, source);
            let (hash, from) = (kept.hash.as_str().into(), kept.from.as_str().into());
            shelf.versions.push(Version {
                number: kept.number,
                hash,
                loaded_ms: kept.loaded_ms,
                from,
                found,
            });
            state.versions.push(kept);
        }
        state.before.clone_from(&shelf.before);
        let has = |number: u32| state.versions.iter().any(|v| v.number == number);
        if !state.current.is_none_or(has) || !state.canary.is_none_or(|(v, _)| has(v)) {
            return Err("the version that was in use is not there".to_owned());
        }
        codec.state = state;
        if shelf.current.is_some() {
            self.put(name, &shelf);
            self.tell_scripts(name);
        }
        Ok(())
    }

    /// Changes a codec that there is.
    fn change<T>(
        &self,
        name: &str,
        change: impl FnOnce(&mut Shelf, &mut State) -> Result<T, String>,
    ) -> Result<T, String> {
        let mut codecs = self.codecs.lock();
        let codec = codecs.get_mut(name).filter(|c| c.state.current.is_some());
        let codec = codec.ok_or_else(|| format!("no codec `{name}` has been brought"))?;
        let result = self.store(name, codec, change)?;
        tracing::info!(
            codec = name,
            in_use = self.in_use(name),
            "the operator has changed which version is used"
        );
        Ok(result)
    }

    /// Changes a codec in the library, when the change is on the disk.
    fn store<T>(
        &self,
        name: &str,
        codec: &mut Codec,
        change: impl FnOnce(&mut Shelf, &mut State) -> Result<T, String>,
    ) -> Result<T, String> {
        let before = self.library.shelf(name).unwrap_or_default();
        let (mut after, mut state) = (before.clone(), codec.state.clone());
        let result = change(&mut after, &mut state)?;
        state.last = after.last;
        state.current = after.current;
        state.canary = after.canary.map(|c| (c.version, c.share));
        state.before = after.before.clone();
        state.versions.retain(|kept| after.version(kept.number).is_some());
        self.disk.save(name, &state)?;
        codec.state = state;
        self.put(name, &after);
        for gone in before.versions.iter().filter(|v| after.version(v.number).is_none()) {
            if let Found::Script(id, _) = gone.found {
                self.scripts.forget(ProgramId(id));
            }
        }
        self.tell_scripts(name);
        Ok(result)
    }

    fn put(&self, name: &str, shelf: &Shelf) {
        // What is put as a whole is always taken.
        let _: Result<(), String> = self.library.change(name, |s| {
            *s = shelf.clone();
            Ok(())
        });
    }

    /// Workers need not keep versions that nobody uses.
    fn tell_scripts(&self, name: &str) {
        let shelf = self.library.shelf(name).unwrap_or_default();
        for version in &shelf.versions {
            if let Found::Script(id, _) = version.found {
                self.scripts.want(ProgramId(id), shelf.is_used(version.number));
            }
        }
    }
}

fn hash(parts: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    codecs::hex::encode(&hasher.finalize())
}

#[cfg(test)]
mod tests;
