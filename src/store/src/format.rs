//! The folder of a store: its format's version, its lock, and how older formats become the present one.
//!
//! ```text
//! store/format   the version as text
//! store/lock     locked by the process that has the store open
//! store/run      how often it was opened, as text
//! store/db/      the engine's files
//! ```

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The version this program writes. Everything under [`crate::Table`], and how the router encodes it, belongs to it.
pub const FORMAT: u32 = 1;

/// Why a store does not open, in words for the operator.
#[derive(Debug)]
pub struct OpenError(pub(crate) String);

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OpenError {}

/// Makes a folder that is its owner's alone: in it lie messages, and keys of devices' associations.
pub(crate) fn private_folder(path: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// A store's folder, locked.
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder if it is not there, locks it, and brings it to the present format.
    pub(crate) fn open(path: &Path) -> Result<Folder, OpenError> {
        let cannot = |what: &str, e: &dyn fmt::Display| OpenError(format!("{what} {}: {e}", path.display()));
        private_folder(path).map_err(|e| cannot("cannot make the folder", &e))?;
        if let Some(parent) = path.parent() {
            File::open(parent)
                .and_then(|f| f.sync_all())
                .map_err(|e| cannot("cannot sync the folder of", &e))?;
        }
        let lock = lock(path)?;
        let folder = Folder { path: path.to_owned(), _lock: lock };
        match folder.version()? {
            Some(FORMAT) => {}
            Some(newer) if newer > FORMAT => {
                let text = format!(
                    "the store in {} has format {newer}, written by a newer tidegate; this one reads up to format {FORMAT}",
                    path.display()
                );
                return Err(OpenError(text));
            }
            Some(older) => folder.migrate(older)?,
            None if folder.engine().exists() => {
                return Err(OpenError(format!(
                    "{} has a database and no file `format`: it is not a store, or not a whole one",
                    path.display()
                )));
            }
            None => folder.write_version().map_err(|e| cannot("cannot write to", &e))?,
        }
        Ok(folder)
    }

    /// Where the engine's files are.
    pub(crate) fn engine(&self) -> PathBuf {
        self.path.join("db")
    }

    /// The number of the last run; zero if it is not known here.
    pub(crate) fn run(&self) -> u64 {
        let text = fs::read_to_string(self.path.join("run")).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }

    /// Writes the number of the run down, for good.
    pub(crate) fn write_run(&self, run: u64) -> std::io::Result<()> {
        write_line(&self.path, "run", run)
    }

    fn version(&self) -> Result<Option<u32>, OpenError> {
        let path = self.path.join("format");
        match fs::read_to_string(&path) {
            Ok(text) => match text.trim().parse() {
                Ok(version) => Ok(Some(version)),
                Err(_) => Err(OpenError(format!("{}: {text:?} is no format version", path.display()))),
            },
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(OpenError(format!("cannot read {}: {e}", path.display()))),
        }
    }

    /// Each format is brought to the next by a step of its own; there is none before the first.
    fn migrate(&self, from: u32) -> Result<(), OpenError> {
        Err(OpenError(format!("the store in {} has format {from}, which never was", self.path.display())))
    }

    fn write_version(&self) -> std::io::Result<()> {
        write_version(&self.path)
    }
}

/// Marks a folder as a store of the present format.
pub(crate) fn write_version(folder: &Path) -> std::io::Result<()> {
    write_line(folder, "format", FORMAT.into())
}

/// Writes a file of one number, for good: under another name first, so that there is always a whole one.
fn write_line(folder: &Path, name: &str, number: u64) -> std::io::Result<()> {
    let unfinished = folder.join(name).with_extension("new");
    let mut file = File::create(&unfinished)?;
    file.write_all(format!("{number}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, folder.join(name))?;
    File::open(folder)?.sync_all()
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let name = path.join("lock");
    let file = File::options().create(true).truncate(false).read(true).write(true).open(&name);
    let mut file = file.map_err(|e| OpenError(format!("cannot open {}: {e}", name.display())))?;
    match file.try_lock() {
        Ok(()) => {
            // The number is for people; the lock is what counts, and it goes with the process.
            let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let by = fs::read_to_string(&name).unwrap_or_default();
            Err(OpenError(format!(
                "another tidegate is running (process {}) and has the store in {} open",
                by.trim(),
                path.display()
            )))
        }
        Err(TryLockError::Error(e)) => Err(OpenError(format!("cannot lock {}: {e}", name.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_folder_has_the_present_format_and_one_user() {
        let dir = tempfile::tempdir().unwrap();
        let first = Folder::open(dir.path()).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("format")).unwrap(), "1\n");
        let second = Folder::open(dir.path()).err().unwrap().to_string();
        assert!(second.contains("another tidegate is running"), "{second}");
        drop(first);
        Folder::open(dir.path()).unwrap();
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("format"), "99\n").unwrap();
        let text = Folder::open(dir.path()).err().unwrap().to_string();
        assert!(text.contains("format 99") && text.contains("up to format 1"), "{text}");
        fs::write(dir.path().join("format"), "x").unwrap();
        assert!(Folder::open(dir.path()).err().unwrap().to_string().contains("is no format version"));
    }
}
