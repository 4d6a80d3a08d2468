//! One client's attempt to come in: from what it has shown to what it may do.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use gateway::config::{Mistake, Place};
use gateway::{Facts, Now, Refusal, Transport};
use parking_lot::RwLock;

use crate::acl::{Acl, Identity};
use crate::ban::{Bans, Suspect};
use crate::config::Options;
use crate::grant::{Device, Grant};
use crate::listener::ListenerRules;
use crate::passwd::{self, Users};
use crate::psk::{Entry, Key, Keys, Offer, Tries};
use crate::scram::{Exchange, METHOD};

/// Fills a buffer with bytes that nobody can guess; false if there are none.
pub type Random = Arc<dyn Fn(&mut [u8]) -> bool + Send + Sync>;

/// What a client shows.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// Client id; if it sent none, [`Auth::client_id`] or an assigned one.
    pub client_id: &'a str,
    /// User name.
    pub username: Option<&'a str>,
    /// Password.
    pub password: Option<&'a [u8]>,
    /// Address, certificate.
    pub facts: &'a Facts,
    /// What the listener asks for.
    pub rules: &'a ListenerRules,
}

/// The answer to an attempt.
pub enum Verdict {
    /// Come in.
    Allow(Grant),
    /// Stay out.
    Deny(Refusal),
    /// A password must be hashed: some 20 ms of one core. To be run where it holds up no traffic.
    Work(Box<dyn FnOnce() -> Result<Grant, Refusal> + Send>),
}

/// Users, rules and bans, shared by all drivers.
pub struct Auth {
    state: RwLock<Arc<State>>,
    bans: Arc<Bans>,
    random: Random,
    /// Salts of unknown users come from it where the password file has no key, and keys of unknown identities.
    fallback: [u8; 32],
    tries: Tries,
}

struct State {
    users: Users,
    psk: Keys,
    acl: Acl,
    anonymous: Grant,
}

impl Auth {
    /// Reads the files that `options` name. All their mistakes are found; one that has any is left out.
    pub fn open(options: &Options, random: Random) -> (Auth, Vec<Mistake>) {
        let (state, mistakes) = State::read(options);
        let mut fallback = [0; 32];
        // Without randomness no exchange is begun, and so this is not used either.
        let _ = random(&mut fallback);
        let bans = Arc::new(Bans::new(options.bans.clone()));
        let state = RwLock::new(Arc::new(state));
        (Auth { state, bans, random, fallback, tries: Tries::default() }, mistakes)
    }

    /// Reads the files again. With mistakes everything stays as it was. Clients that are connected keep their grants until
    /// [`Auth::regrant`] is asked for them. Returns the identities whose pre-shared keys are all others than before: who has
    /// shown one until now may not stay.
    pub fn reload(&self, options: &Options) -> Result<HashSet<Box<str>>, Vec<Mistake>> {
        let (state, mistakes) = State::read(options);
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        self.bans.reload(options.bans.clone());
        let state = Arc::new(state);
        let before = std::mem::replace(&mut *self.state.write(), state.clone());
        Ok(before.psk.exchanged(&state.psk).map(Into::into).collect())
    }

    /// The grant of a connected client by the access list as it is now. Its name stays proven. None if its pre-shared key is
    /// gone, or is no longer this client's: it may not stay.
    pub fn regrant(&self, grant: &Grant, client_id: &str, address: IpAddr) -> Option<Grant> {
        let state = self.state.read().clone();
        let address = address.to_canonical();
        let Some(device) = grant.device() else {
            return Some(state.grant(Identity::new(client_id, grant.username(), address)));
        };
        let entry = state.psk.find(device.identity.as_bytes())?;
        let is_same = entry.client_id == client_id && entry.user == grant.username();
        is_same.then(|| state.device(&entry, address))
    }

    /// The client id that a proven credential stands for. One that names its client comes in as that and no other; who sends
    /// no client id gets it.
    pub fn client_id(&self, facts: &Facts, rules: &ListenerRules) -> Option<Arc<str>> {
        if let Some(identity) = &facts.psk {
            return self.device(identity);
        }
        // Elsewhere a certificate is a user's, who may have many clients.
        let name = rules.certified(facts).ok()?.filter(|_| facts.transport == Transport::Dtls)?;
        Some(name.into())
    }

    /// The keys of an identity, the newest first; None if it is not known. For who tries both.
    pub fn psk_keys(&self, now: Now, identity: &[u8]) -> Option<(Key, Option<Key>)> {
        let offer = self.state.read().psk.offer(now.wall_ms, &self.fallback, identity);
        offer.is_known.then_some((offer.key, offer.other))
    }

    /// The client id that a pre-shared key's identity stands for.
    pub fn device(&self, identity: &str) -> Option<Arc<str>> {
        self.state.read().psk.find(identity.as_bytes()).map(|e| e.client_id.into())
    }

    /// Whether the identity has a pre-shared key.
    pub fn has_psk(&self, identity: &str) -> bool {
        self.state.read().psk.find(identity.as_bytes()).is_some()
    }

    /// What to shake hands with whoever says `identity` there. Where two keys are valid, the one that failed from this address
    /// last comes second.
    pub fn psk(&self, now: Now, identity: &[u8], address: IpAddr) -> Offer {
        let offer = self.state.read().psk.offer(now.wall_ms, &self.fallback, identity);
        match (self.tries.is_turned(identity, address), offer.other) {
            (true, Some(other)) => Offer { key: other, other: Some(offer.key), ..offer },
            (_, other) => Offer { other, ..offer },
        }
    }

    /// A handshake from there has failed, whoever it was.
    pub fn handshake_failed(&self, now: Now, address: IpAddr) {
        let address = address.to_canonical();
        self.bans.failed(now, &Suspect { client_id: "", username: None, address });
    }

    /// A handshake with this identity has failed: there is no such one, or the key is another.
    pub fn psk_failed(&self, now: Now, identity: &[u8], address: IpAddr) {
        let state = self.state.read().clone();
        let address = address.to_canonical();
        let entry = state.psk.find(identity);
        if entry.is_some_and(|e| e.has_two_keys(now.wall_ms)) {
            self.tries.turn(identity, address);
        }
        let claimed = std::str::from_utf8(identity).unwrap_or_default();
        let client_id = entry.map_or(claimed, |e| e.client_id);
        self.bans.failed(now, &Suspect { client_id, username: entry.and_then(|e| e.user), address });
    }

    /// Whether the password file holds anybody.
    pub fn has_users(&self) -> bool {
        !self.state.read().users.is_empty()
    }

    /// Who is kept out.
    pub fn bans(&self) -> &Bans {
        &self.bans
    }

    /// Decides on credentials.
    pub fn check(&self, now: Now, attempt: &Attempt<'_>) -> Verdict {
        let state = self.state.read().clone();
        if let Some(identity) = &attempt.facts.psk {
            return self.by_psk(now, attempt, identity, &state).map_or_else(Verdict::Deny, Verdict::Allow);
        }
        let certified = match attempt.rules.certified(attempt.facts) {
            Ok(name) => name,
            Err(why) => return Verdict::Deny(why),
        };
        let username = certified.or(attempt.username);
        if self.bans.has(now, &Suspect::new(attempt.client_id, username, attempt.facts)) {
            return Verdict::Deny(Refusal::Banned);
        }
        let outcome = self.outcome(now, attempt, state);
        if let Some(name) = certified {
            return outcome.user(name).map_or_else(Verdict::Deny, Verdict::Allow);
        }
        let has_users = !outcome.state.users.is_empty();
        // DTLS is for those who have something to prove.
        let is_open = attempt.facts.transport != Transport::Dtls
            && attempt.rules.anonymous.admits(attempt.facts, has_users);
        match (username, attempt.password) {
            // Names are not believed where there is nobody to prove to be: the client comes in without one.
            (Some(_), _) | (_, Some(_)) if is_open && !has_users => Verdict::Allow(outcome.anonymous()),
            (None, None) if is_open => Verdict::Allow(outcome.anonymous()),
            (Some(name), Some(password)) => {
                let (name, password) = (Box::<str>::from(name), Box::<[u8]>::from(password));
                let hash = outcome.state.users.argon2id(&name);
                Verdict::Work(Box::new(move || {
                    if passwd::verify(&hash, &password) {
                        return outcome.user(&name);
                    }
                    outcome.failed(Some(&name));
                    Err(Refusal::BadCredentials)
                }))
            }
            (None, None) => Verdict::Deny(Refusal::NotAuthorised),
            _ => {
                outcome.failed(username);
                Verdict::Deny(Refusal::BadCredentials)
            }
        }
    }

    /// Lets in who has proven a pre-shared key, as the client that it is of. Nothing else is asked.
    fn by_psk(
        &self,
        now: Now,
        attempt: &Attempt<'_>,
        identity: &str,
        state: &State,
    ) -> Result<Grant, Refusal> {
        let entry = state.psk.find(identity.as_bytes());
        let username = entry.and_then(|e| e.user);
        if self.bans.has(now, &Suspect::new(attempt.client_id, username, attempt.facts)) {
            return Err(Refusal::Banned);
        }
        // It may have been removed since the handshake.
        let entry = entry.ok_or(Refusal::BadCredentials)?;
        if entry.client_id != attempt.client_id {
            return Err(Refusal::ClientId);
        }
        Ok(state.device(&entry, attempt.facts.address.ip().to_canonical()))
    }

    /// Lets a client go on with its session that shows what was kept with it (`known`: that, and the name that owns the
    /// session). A name that has left the password file does not come in any more.
    pub fn resume(
        &self,
        now: Now,
        attempt: &Attempt<'_>,
        token: &[u8],
        known: Option<(impl AsRef<[u8]>, Option<Arc<str>>)>,
    ) -> Result<Grant, Refusal> {
        let state = self.state.read().clone();
        if let Some(identity) = &attempt.facts.psk {
            return self.by_psk(now, attempt, identity, &state);
        }
        let (kept, owner) = known.map_or((None, None), |(kept, owner)| (Some(kept), owner));
        if self.bans.has(now, &Suspect::new(attempt.client_id, owner.as_deref(), attempt.facts)) {
            return Err(Refusal::Banned);
        }
        let outcome = self.outcome(now, attempt, state);
        if !kept.is_some_and(|kept| is_same(kept.as_ref(), token)) {
            // Anybody can write the address of a datagram: it is nobody's failure.
            if attempt.facts.transport != Transport::Udp {
                outcome.failed(None);
            }
            return Err(Refusal::BadCredentials);
        }
        let users = &outcome.state.users;
        match owner.as_deref() {
            Some(name) if users.has(name) => outcome.user(name),
            Some(_) => Err(Refusal::BadCredentials),
            None if attempt.facts.transport != Transport::Dtls
                && attempt.rules.anonymous.admits(attempt.facts, !users.is_empty()) =>
            {
                Ok(outcome.anonymous())
            }
            None => Err(Refusal::NotAuthorised),
        }
    }

    /// Begins an enhanced authentication. A name in the attempt, and one in a certificate that counts, must be the one
    /// that is proven.
    pub fn exchange(&self, now: Now, method: &str, attempt: &Attempt<'_>) -> Result<Exchange, Refusal> {
        if self.bans.has(now, &Suspect::new(attempt.client_id, attempt.username, attempt.facts)) {
            return Err(Refusal::Banned);
        }
        // Who has proven a pre-shared key is asked for nothing else.
        if method != METHOD || attempt.facts.psk.is_some() {
            return Err(Refusal::BadMethod);
        }
        let certified = attempt.rules.certified(attempt.facts)?;
        let mut nonce = [0; 18];
        if !(self.random)(&mut nonce) {
            return Err(Refusal::ServerBusy);
        }
        let mut outcome = self.outcome(now, attempt, self.state.read().clone());
        outcome.must_be = certified.or(attempt.username).map(Box::from);
        Ok(Exchange::new(nonce, self.fallback, outcome))
    }

    fn outcome(&self, now: Now, attempt: &Attempt<'_>, state: Arc<State>) -> Outcome {
        let address = attempt.facts.address.ip().to_canonical();
        let bans = self.bans.clone();
        Outcome { now, client_id: attempt.client_id.into(), address, must_be: None, state, bans }
    }
}

/// Compares without telling by the time it takes how much was right.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |d, (x, y)| d | (x ^ y)) == 0
}

impl State {
    /// Clients without a name share one grant where no rule tells them apart.
    fn grant(&self, who: Identity<'_>) -> Grant {
        if who.username.is_none() && self.acl.is_open() {
            self.anonymous.clone()
        } else {
            self.acl.grant(who)
        }
    }

    /// What the device of a credential may do.
    fn device(&self, entry: &Entry<'_>, address: IpAddr) -> Grant {
        let Entry { client_id, user: username, .. } = *entry;
        let who = Identity { client_id, username, is_proven: true, address };
        let principal = format!("psk:{client_id}").into();
        self.acl.grant(who).of(Device { identity: entry.identity.into(), principal })
    }

    fn read(options: &Options) -> (State, Vec<Mistake>) {
        let mut mistakes = Vec::new();
        let users = options.passwords.as_deref().map(|path| {
            let read = Users::read(path).map_err(|e| unreadable(path, "passwords", &e));
            read.unwrap_or_else(|mistake| (Users::default(), vec![mistake]))
        });
        let (users, wrong) = users.unwrap_or_default();
        mistakes.extend(wrong);
        let psk = options.psk.as_deref().map(|path| {
            let read = Keys::read(path).map_err(|e| unreadable(path, "psk", &e));
            read.unwrap_or_else(|mistake| (Keys::default(), vec![mistake]))
        });
        let (psk, wrong) = psk.unwrap_or_default();
        mistakes.extend(wrong);
        let acl = options.acl.as_deref().map(|path| match passwd::read_bounded(path, MAX_ACL) {
            Ok(text) => Acl::decode(&path.display().to_string(), &text),
            Err(e) => (Acl::default(), vec![unreadable(path, "acl", &e)]),
        });
        let (acl, wrong) = acl.unwrap_or_default();
        mistakes.extend(wrong);
        (State { users, psk, acl, anonymous: Grant::anonymous() }, mistakes)
    }
}

/// Longest access list in bytes.
const MAX_ACL: u64 = 16 << 20;

fn unreadable(path: &Path, key: &str, e: &std::io::Error) -> Mistake {
    let place = Place { source: path.display().to_string().into(), line: 0 };
    Mistake { place, key: key.to_owned(), text: format!("cannot be read: {e}") }
}

/// What follows from an attempt, once it is clear who made it.
pub(crate) struct Outcome {
    now: Now,
    client_id: Box<str>,
    address: IpAddr,
    must_be: Option<Box<str>>,
    state: Arc<State>,
    bans: Arc<Bans>,
}

impl Outcome {
    pub(crate) fn users(&self) -> &Users {
        &self.state.users
    }

    /// Whether the client may prove to be `name`.
    pub(crate) fn may_be(&self, name: &str) -> bool {
        self.must_be.as_deref().is_none_or(|n| n == name)
    }

    /// The client has proven its name.
    pub(crate) fn user(&self, name: &str) -> Result<Grant, Refusal> {
        if self.bans.has(self.now, &self.suspect(Some(name))) {
            return Err(Refusal::Banned);
        }
        Ok(self.grant(Some(name)))
    }

    /// The client has no name and needs none.
    fn anonymous(&self) -> Grant {
        self.grant(None)
    }

    fn grant(&self, username: Option<&str>) -> Grant {
        self.state.grant(Identity::new(&self.client_id, username, self.address))
    }

    /// The client could not prove its name.
    pub(crate) fn failed(&self, username: Option<&str>) {
        self.bans.failed(self.now, &self.suspect(username));
    }

    fn suspect<'a>(&'a self, username: Option<&'a str>) -> Suspect<'a> {
        Suspect { client_id: &self.client_id, username, address: self.address }
    }
}
