//! What a listener asks of those who come in.

use gateway::config::Section;
use gateway::{Facts, Refusal};

/// Who needs no credentials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Anonymous {
    /// Nobody.
    Never,
    /// Direct peers from this machine, until the first user exists.
    #[default]
    LoopbackUntilUsers,
    /// Direct peers from this machine.
    Loopback,
    /// Everybody.
    Always,
}

impl Anonymous {
    /// Whether a client without credentials may come in. `has_users`: the password file has at least one.
    pub fn admits(self, facts: &Facts, has_users: bool) -> bool {
        let is_local = facts.is_direct && facts.address.ip().to_canonical().is_loopback();
        match self {
            Anonymous::Never => false,
            Anonymous::LoopbackUntilUsers => is_local && !has_users,
            Anonymous::Loopback => is_local,
            Anonymous::Always => true,
        }
    }
}

/// The keys of a listener that concern who may come in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerRules {
    /// `anonymous`.
    pub anonymous: Anonymous,
    /// `certificate_user`: the common name of a verified client certificate is the user name, and no password is asked.
    pub certificate_user: bool,
}

impl ListenerRules {
    /// Takes its keys from a listener's section.
    pub fn read(s: &mut Section<'_>) -> ListenerRules {
        let words = [
            ("never", Anonymous::Never),
            ("loopback_until_users", Anonymous::LoopbackUntilUsers),
            ("loopback", Anonymous::Loopback),
            ("always", Anonymous::Always),
        ];
        let anonymous = s.choice("anonymous", Anonymous::default(), &words);
        let certificate_user = s.flag("certificate_user", false);
        ListenerRules { anonymous, certificate_user }
    }

    /// The user that the peer's certificate names, where certificates name users.
    pub(crate) fn certified<'a>(&self, facts: &'a Facts) -> Result<Option<&'a str>, Refusal> {
        let Some(certificate) = facts.certificate.as_deref().filter(|_| self.certificate_user) else {
            return Ok(None);
        };
        match certificate.common_name.as_deref() {
            Some(name) if crate::passwd::is_name(name) => Ok(Some(name)),
            _ => Err(Refusal::BadCredentials),
        }
    }
}
