//! Where log lines go: standard error for people or as JSON, or the local syslog socket. The level changes on reload.
//! Colours are never used, so a line looks the same in a file.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::config::{Log, LogFormat};

mod syslog;

use syslog::Syslog;

/// The socket that syslogd and journald listen on.
const SYSLOG: &str = "/dev/log";

/// Changes what is logged.
#[derive(Clone, Debug)]
pub struct LogHandle(reload::Handle<Targets, Registry>);

/// Why logging is not as asked for, in the operator's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogError(String);

impl std::fmt::Display for LogError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LogError {}

/// Begins to log, once in a process.
pub fn init(setup: &Log) -> Result<LogHandle, LogError> {
    let (filter, handle) = reload::Layer::new(targets(&setup.level)?);
    let format = fmt::layer().with_ansi(false);
    let output: Box<dyn Layer<_> + Send + Sync> = match setup.format {
        LogFormat::Human => Box::new(format.with_writer(std::io::stderr)),
        LogFormat::Json => Box::new(format.json().flatten_event(true).with_writer(std::io::stderr)),
        LogFormat::Syslog => {
            let syslog = Syslog::open(SYSLOG, "tidegate")
                .map_err(|e| LogError(format!("syslog: cannot open {SYSLOG}: {e}")))?;
            // Who receives the line adds the time, and has the level in the line's priority.
            Box::new(format.without_time().with_level(false).with_writer(syslog))
        }
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(output)
        .try_init()
        .map_err(|e| LogError(format!("logging has begun already: {e}")))?;
    Ok(LogHandle(handle))
}

/// Whether `level` can be logged by.
pub fn check(level: &str) -> Result<(), LogError> {
    targets(level).map(drop)
}

impl LogHandle {
    /// Logs by `level` from now on; a mistake in it changes nothing.
    pub fn set_level(&self, level: &str) -> Result<(), LogError> {
        self.0.reload(targets(level)?).map_err(|e| LogError(e.to_string()))
    }
}

/// A level for everything, or levels of parts, such as `info,runtime=debug`.
fn targets(level: &str) -> Result<Targets, LogError> {
    let mistake = || {
        LogError(format!(
            "\"{level}\" is neither off, error, warn, info, debug or trace, nor a list such as \"info,runtime=debug\""
        ))
    };
    let mut targets = Targets::new().with_default(LevelFilter::INFO);
    for part in level.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        match part.split_once('=') {
            Some((target, level)) => targets = targets.with_target(target, word(level).ok_or_else(mistake)?),
            None => targets = targets.with_default(word(part).ok_or_else(mistake)?),
        }
    }
    Ok(targets)
}

fn word(word: &str) -> Option<LevelFilter> {
    // Numbers, which the library would take too, say nothing to a reader.
    if !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphabetic()) { word.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_hold_for_all_or_for_parts() {
        let t = targets("warn, runtime::stream=trace").unwrap();
        assert!(t.would_enable("runtime::stream", &tracing::Level::TRACE));
        assert!(!t.would_enable("runtime", &tracing::Level::INFO));
        assert!(targets("").unwrap().would_enable("router", &tracing::Level::INFO));
        assert!(!targets("off").unwrap().would_enable("router", &tracing::Level::ERROR));
    }

    #[test]
    fn a_level_that_is_none_is_a_mistake_that_names_it() {
        for level in ["loud", "info,runtime=loud", "3", "runtime=", "runtime=1"] {
            assert!(targets(level).unwrap_err().to_string().contains(level));
        }
    }

    #[test]
    fn a_reload_changes_what_is_logged_and_a_mistake_does_not() {
        let (filter, handle) = reload::Layer::new(targets("warn").unwrap());
        let handle = LogHandle(handle);
        let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(filter));
        assert!(!tracing::enabled!(tracing::Level::DEBUG));
        handle.set_level("debug").unwrap();
        assert!(tracing::enabled!(tracing::Level::DEBUG));
        assert!(handle.set_level("nonsense").is_err());
        assert!(tracing::enabled!(tracing::Level::DEBUG));
    }
}
