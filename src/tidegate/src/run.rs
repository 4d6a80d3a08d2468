//! `tidegate run`: from settings to a running gateway, and what SIGHUP changes of it.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use auth::{Anonymous, Auth, Random};
use codecs::Library;
use gateway::config::Mistake;
use router::Router;
use runtime::Plan;
use runtime::house::House;
use runtime::log::LogHandle;

use crate::settings::{self, Settings};

/// Runs until a stop was asked for. The error is for the operator.
pub(crate) fn run(config: PathBuf, data: Option<PathBuf>) -> Result<(), String> {
    let mut mistakes = Vec::new();
    let library: Arc<Library> = Arc::default();
    let settings = settings::read(&config, data.as_deref(), &library, &mut mistakes);
    settings.check(&mut mistakes);
    if !mistakes.is_empty() {
        return Err(tell(&mistakes));
    }
    let log = runtime::log::init(&settings.setup.log).map_err(|e| format!("log: {e}"))?;
    let (auth, mistakes) = Auth::open(&settings.auth, random());
    if !mistakes.is_empty() {
        return Err(tell(&mistakes));
    }
    welcome(&settings, &auth);
    let router = Router::new(settings.router.clone());
    let setup = settings.setup.clone();
    let gates = settings.gates.iter().map(copy).collect();
    let running = Mutex::new(settings);
    let brought = library.clone();
    let reload = Box::new(move |house: &House| {
        let mut mistakes = Vec::new();
        let new = settings::read(&config, data.as_deref(), &library, &mut mistakes);
        new.check(&mut mistakes);
        if mistakes.is_empty() {
            let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
            apply(&running, &new, house, &log);
            *running = new;
        } else {
            for mistake in &mistakes {
                tracing::error!(%mistake, "configuration kept as it was");
            }
        }
    });
    runtime::run(Plan { setup, router, auth, library: brought, gates, reload }).map_err(|e| e.to_string())
}

fn copy(gate: &runtime::Gate) -> runtime::Gate {
    runtime::Gate { setup: gate.setup.clone(), factory: gate.factory.clone() }
}

/// Applies what can be applied live.
fn apply(old: &Settings, new: &Settings, house: &House, log: &LogHandle) {
    let exchanged = house.auth.reload(&new.auth).unwrap_or_else(|mistakes| {
        for mistake in mistakes {
            tracing::error!(%mistake, "users and access list kept as they were");
        }
        HashSet::new()
    });
    house.regrant(exchanged);
    house.router.reload(new.router.clone());
    *house.limits.write() = new.setup.limits;
    if let Err(e) = log.set_level(&new.setup.log.level) {
        tracing::error!(error = %e, "log level kept as it was");
    }
    for key in new.needs_restart(old) {
        tracing::warn!(key, "changed in the configuration; takes effect at the next start");
    }
    tracing::info!("configuration read again");
}

/// Says who can come in while there are no users or no ports, and what to do about it.
fn welcome(settings: &Settings, auth: &Auth) {
    if settings.gates.is_empty() {
        tracing::warn!(
            "no listener is configured: nobody can connect; one is [mqtt.listeners.tcp] with bind = \"[::]:1883\""
        );
    }
    if auth.has_users() {
        return;
    }
    let waits = |a: Anonymous| a == Anonymous::LoopbackUntilUsers;
    if settings.gates.iter().any(|g| waits(g.setup.rules.anonymous)) {
        let what = match &settings.auth.passwords {
            Some(file) => {
                format!("make a user with `tidegate passwd {} alice` and send SIGHUP", file.display())
            }
            None => {
                "name a password file in auth.passwords and make a user with `tidegate passwd FILE alice`"
                    .to_owned()
            }
        };
        tracing::warn!("no users exist: only clients on this machine can connect, without a name; {what}");
    }
}

fn tell(mistakes: &[Mistake]) -> String {
    let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// The system's source of randomness.
pub(crate) fn random() -> Random {
    Arc::new(|buffer| getrandom::fill(buffer).is_ok())
}
