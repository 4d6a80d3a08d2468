//! `[auth]`.

use std::path::PathBuf;

use gateway::config::Section;

use crate::ban::BanOptions;

/// Where users and rules stand, and when somebody is kept out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `passwords`: the password file; one that does not exist holds nobody.
    pub passwords: Option<PathBuf>,
    /// `psk`: the pre-shared keys; a file that does not exist holds nobody.
    pub psk: Option<PathBuf>,
    /// `acl`: the access list; empty text or none allows everything but reading `$SYS`.
    pub acl: Option<PathBuf>,
    /// `[auth.bans]`.
    pub bans: BanOptions,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            passwords: Some("etc/passwd".into()),
            psk: Some("etc/psk".into()),
            acl: None,
            bans: BanOptions::default(),
        }
    }
}

impl Options {
    /// Reads `[auth]`.
    pub fn read(mut s: Section<'_>) -> Options {
        let d = Options::default();
        let mut path = |key, default| match s.text(key) {
            Some(text) => (!text.is_empty()).then(|| PathBuf::from(text)),
            None => default,
        };
        let (passwords, psk, acl) = (path("passwords", d.passwords), path("psk", d.psk), path("acl", d.acl));
        let bans = BanOptions::read(s.section("bans"));
        s.finish();
        Options { passwords, psk, acl, bans }
    }
}
