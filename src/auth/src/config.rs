//! `[auth]`.

use std::path::PathBuf;

use gateway::config::Section;

use crate::ban::BanOptions;

/// Where users and rules stand, and when somebody is kept out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `passwords`: the password file; one that does not exist holds nobody.
    pub passwords: Option<PathBuf>,
    /// `acl`: the access list; none allows everything but reading `$SYS`.
    pub acl: Option<PathBuf>,
    /// `[auth.bans]`.
    pub bans: BanOptions,
}

impl Options {
    /// Reads `[auth]`.
    pub fn read(mut s: Section<'_>) -> Options {
        let mut path = |key| s.text(key).filter(|t| !t.is_empty()).map(PathBuf::from);
        let (passwords, acl) = (path("passwords"), path("acl"));
        let bans = BanOptions::read(s.section("bans"));
        s.finish();
        Options { passwords, acl, bans }
    }
}
