//! What outlives the process of the codecs that an operator has brought: `{data}/codecs/NAME/state.json`, and each kept
//! version's source beside it, `NUMBER.js` or `NUMBER.wasm`. A file is whole or not there.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What is in `state.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// The last number given.
    pub(super) last: u32,
    /// What devices use.
    pub(super) current: Option<u32>,
    /// What some of them use: version, and how many of a hundred.
    pub(super) canary: Option<(u32, u8)>,
    /// What was current before, the latest at the end.
    pub(super) before: Vec<u32>,
    /// How many of a hundred devices try a new version first; nothing is what the configuration says.
    pub(super) share: Option<u8>,
    /// Of the files in the folder when they were last read.
    pub(super) seen: String,
    /// What was wrong with them then.
    pub(super) error: Option<String>,
    /// Oldest first.
    pub(super) versions: Vec<Kept>,
}

/// A version that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) number: u32,
    pub(super) kind: Kind,
    pub(super) hash: String,
    pub(super) loaded_ms: u64,
    pub(super) from: String,
}

/// What a codec was written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// JavaScript: payloads.
    Payload,
    /// JavaScript: streams.
    Stream,
    /// WebAssembly.
    Wasm,
}

impl Kind {
    pub(super) fn extension(self) -> &'static str {
        if self == Kind::Wasm { "wasm" } else { "js" }
    }

    pub(super) fn label(self) -> &'static str {
        match self {
            Kind::Payload => "script, payloads",
            Kind::Stream => "script, streams",
            Kind::Wasm => "wasm",
        }
    }
}

/// A folder for each codec.
#[derive(Debug)]
pub(super) struct Disk(PathBuf);

impl Disk {
    pub(super) fn new(data: &Path) -> Disk {
        Disk(data.join("codecs"))
    }

    /// What is kept of this codec; nothing if it was never there.
    pub(super) fn state(&self, name: &str) -> Result<State, String> {
        let path = self.0.join(name).join("state.json");
        let text = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(State::default()),
            other => other.map_err(|e| format!("cannot read {}: {e}", path.display()))?,
        };
        serde_json::from_slice(&text).map_err(|e| format!("{} is damaged: {e}", path.display()))
    }

    /// The source of a kept version, as it was when it was kept.
    pub(super) fn source(&self, name: &str, version: &Kept) -> Result<Vec<u8>, String> {
        let path = self.path(name, version);
        let source = fs::read(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        match super::hash(&[&source]) == version.hash {
            true => Ok(source),
            false => Err(format!("{} is damaged", path.display())),
        }
    }

    /// Keeps a new version's source; it counts when the state names it.
    pub(super) fn keep(&self, name: &str, version: &Kept, source: &[u8]) -> Result<(), String> {
        write(&self.path(name, version), source)
    }

    /// Keeps the state, and nothing of versions that it does not name.
    pub(super) fn save(&self, name: &str, state: &State) -> Result<(), String> {
        let folder = self.0.join(name);
        let text = serde_json::to_vec_pretty(state).map_err(|e| e.to_string())?;
        write(&folder.join("state.json"), &text)?;
        let kept: Vec<PathBuf> = state.versions.iter().map(|v| self.path(name, v)).collect();
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_source = path.extension().is_some_and(|e| e == "js" || e == "wasm");
            if is_source && !kept.contains(&path) {
                // It is looked for again with the next change.
                let _ = fs::remove_file(path);
            }
        }
        Ok(())
    }

    fn path(&self, name: &str, version: &Kept) -> PathBuf {
        self.0.join(name).join(format!("{}.{}", version.number, version.kind.extension()))
    }
}

/// Writes under another name first, and is done when both the bytes and the name are on the disk.
fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let attempt = || -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let hidden = path.with_extension("new");
        let mut file = File::create(&hidden)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&hidden, path)?;
        File::open(folder)?.sync_all()
    };
    attempt().map_err(|e| format!("cannot write {}: {e}", path.display()))
}
