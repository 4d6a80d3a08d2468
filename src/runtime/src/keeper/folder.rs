//! The folder where an operator puts codecs: `NAME.js` or `NAME.wasm`, and beside it their examples, `NAME.yaml` or
//! `NAME-codec.yaml`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Largest file in bytes.
const MOST: u64 = 4 << 20;
/// Longest name; it is a file's name, a label of metrics and a word in the configuration.
const LONGEST: usize = 64;
const EXAMPLES: [&str; 2] = [".yaml", "-codec.yaml"];

/// A codec's files as they look from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Files {
    /// The codec.
    pub(super) source: PathBuf,
    /// Its examples, if there are any.
    pub(super) examples: Option<PathBuf>,
    /// Another file of the same name and the other kind: nobody can tell which is meant.
    pub(super) rival: Option<PathBuf>,
    /// What changes when one of them is written: time, size and number of each.
    pub(super) stamp: Vec<(i64, i64, u64, u64)>,
}

/// A codec's files as they are.
pub(super) struct Contents {
    pub(super) source: Vec<u8>,
    pub(super) examples: Option<Vec<u8>>,
}

/// What is in the folder.
#[derive(Default)]
pub(super) struct Listed {
    /// Codecs.
    pub(super) codecs: BTreeMap<Box<str>, Files>,
    /// What would be one, if its name could be a codec's.
    pub(super) misnamed: Vec<PathBuf>,
}

/// Names of codecs in the folder; none where it is not there.
pub fn names(folder: &Path) -> Vec<Box<str>> {
    list(folder).unwrap_or_default().codecs.into_keys().collect()
}

/// Whether the folder can be looked at.
pub fn check_folder(folder: &Path) -> io::Result<()> {
    list(folder).map(drop)
}

/// The codecs in the folder. That there is no such folder is nothing wrong.
pub(super) fn list(folder: &Path) -> io::Result<Listed> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Listed::default()),
        other => other?,
    };
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in entries {
        paths.push(entry?.path());
    }
    paths.sort();
    let Listed { codecs: mut found, mut misnamed } = Listed::default();
    for path in &paths {
        let Some("js" | "wasm") = path.extension().and_then(|e| e.to_str()) else { continue };
        let stem = path.file_stem().unwrap_or_default();
        let Some(name) = stem.to_str().filter(|s| is_name(s)) else {
            // Hidden files are those of editors.
            if !stem.as_encoded_bytes().starts_with(b".") {
                misnamed.push(path.clone());
            }
            continue;
        };
        if let Some(other) = found.get_mut(name) {
            other.rival = Some(path.clone());
            continue;
        }
        let examples = EXAMPLES.iter().map(|e| path.with_file_name(format!("{name}{e}")));
        let examples = examples.into_iter().find(|e| paths.contains(e));
        let stamp = [Some(path), examples.as_ref()].into_iter().flatten().filter_map(|p| stamp(p)).collect();
        found.insert(name.into(), Files { source: path.clone(), examples, rival: None, stamp });
    }
    Ok(Listed { codecs: found, misnamed })
}

impl Files {
    /// Reads them. An error for files that change meanwhile, or are too large.
    pub(super) fn read(&self) -> Result<Contents, String> {
        let contents = Contents {
            source: read(&self.source)?,
            examples: self.examples.as_deref().map(read).transpose()?,
        };
        let now: Vec<_> = [Some(&self.source), self.examples.as_ref()]
            .into_iter()
            .flatten()
            .filter_map(|p| stamp(p))
            .collect();
        if now == self.stamp {
            Ok(contents)
        } else {
            Err(format!("{} is being written", self.source.display()))
        }
    }
}

/// Whether a codec can have this name.
pub(super) fn is_name(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !text.is_empty() && !text.starts_with('.') && text.len() <= LONGEST && text.chars().all(is_plain)
}

fn stamp(path: &Path) -> Option<(i64, i64, u64, u64)> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.mtime(), meta.mtime_nsec(), meta.size(), meta.ino()))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let cannot = |e: io::Error| format!("cannot read {}: {e}", path.display());
    // Of a pipe nobody may write a word, and a device has no end.
    if !fs::metadata(path).map_err(cannot)?.is_file() {
        return Err(format!("{} is no file", path.display()));
    }
    let mut bytes = Vec::new();
    fs::File::open(path).map_err(cannot)?.take(MOST + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > MOST {
        return Err(format!("{} has more bytes than the {MOST} that are allowed", path.display()));
    }
    Ok(bytes)
}
