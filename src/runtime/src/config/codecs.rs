//! `[codecs]`.

use std::path::PathBuf;
use std::time::Duration;

use gateway::config::Section;
use scripts::pipe::Limits;

/// Codecs that an operator brings: where they are, and what they may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodecsSetup {
    /// Folder of `NAME.js` and `NAME.wasm`.
    pub folder: PathBuf,
    /// Time between two looks at it; zero is at the start and when asked alone.
    pub watch: Duration,
    /// How many of a hundred devices try a new version first; zero is none: it is for all.
    pub canary: u8,
    /// Processes that scripts run in, beside the one for scripts that had to be stopped.
    pub workers: usize,
    /// Longest time of one call of a script.
    pub time: Duration,
    /// Most bytes of a script's values.
    pub memory: usize,
}

impl Default for CodecsSetup {
    fn default() -> CodecsSetup {
        CodecsSetup {
            folder: PathBuf::from("etc/codecs"),
            watch: Duration::from_secs(1),
            canary: 0,
            workers: 2,
            time: Duration::from_millis(100),
            memory: 8 << 20,
        }
    }
}

impl CodecsSetup {
    /// What a worker is told about a script.
    pub fn limits(&self) -> Limits {
        Limits { memory: self.memory, time: self.time, ..Limits::default() }
    }

    pub(super) fn read(mut s: Section<'_>) -> CodecsSetup {
        let d = CodecsSetup::default();
        let ms = Duration::from_millis;
        let setup = CodecsSetup {
            folder: s.text("folder").map_or(d.folder, PathBuf::from),
            watch: s.duration("watch", d.watch, Duration::ZERO..=ms(3_600_000)),
            canary: s.number("canary", d.canary, 0..=100),
            workers: s.number("workers", 2, 1..=64) as usize,
            time: s.duration("time", d.time, ms(1)..=ms(10_000)),
            memory: s.size("memory", d.memory, 1 << 20..=128 << 20),
        };
        s.finish();
        setup
    }
}
