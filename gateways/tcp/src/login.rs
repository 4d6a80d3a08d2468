//! How a device comes in: it says who it is, or the listener does (see [`crate::naming`]).
//!
//! ```text
//! Login  -> Connect -> Connected -> Subscribe, [Save token -> Saved] -> answer
//!                      Refused   -> refusal, closed
//! ```

use bytes::Bytes;
use codecs::{Credential, Frame, Login, Up};
use gateway::{Action, Answer, Close, Connect, Drop, Filter, Refusal, Subscribe, TOKEN};
use sha2::{Digest, Sha256};

use crate::Turn;
use crate::answers::{Seq, Verdict};
use crate::conversation::{Conversation, Device, Phase};
use crate::naming::is_name;
use crate::ticket::{Asked, ticket};

/// A session that is being opened.
pub(crate) struct Opening {
    login: Login,
    /// The frame that is answered then.
    seq: Option<Seq>,
    /// What it is issued.
    token: Option<Box<str>>,
    /// It has the session, and its token is being kept.
    pub(crate) is_in: bool,
}

/// What is kept of a token: nobody who reads the store can show it.
fn proof(token: &[u8]) -> Bytes {
    Bytes::copy_from_slice(&Sha256::digest(token))
}

/// What a refused login ends the connection with.
fn close(why: Refusal) -> Close {
    match why {
        Refusal::BadCredentials | Refusal::BadMethod => Close::BadCredentials,
        Refusal::NotAuthorised | Refusal::NotOwner => Close::NotAuthorised,
        Refusal::Banned => Close::Banned,
        Refusal::ClientId => Close::ClientId,
        _ => Close::QuotaExceeded,
    }
}

/// What a refusal means to the device: of what may be so later it is told nothing, and tries again.
pub(crate) fn verdict(why: Refusal) -> Verdict {
    match why {
        Refusal::QuotaExceeded
        | Refusal::ServerBusy
        | Refusal::NotKept
        | Refusal::Uncertain
        | Refusal::NoSession
        | Refusal::Internal => Verdict::Unsure,
        _ => Verdict::Refused,
    }
}

/// Whether a frame says what a device proves itself with: nobody is shown that.
pub(crate) fn is_secret(frame: &Frame) -> bool {
    let is_secret = |up: &Up| matches!(up, Up::Login(login) if login.credential != Credential::None);
    frame.up.iter().any(is_secret)
}

/// A device that is known without having said who it is.
pub(crate) fn unsaid(device: Box<str>) -> Login {
    Login { device, username: None, credential: Credential::None }
}

impl Conversation {
    /// The device says who it is, in this frame. True if that is answered later.
    pub(crate) fn log_in(&mut self, t: &mut Turn<'_>, mut login: Login, seq: Seq) -> bool {
        if let Some(name) = t.config().device.known(&self.facts) {
            let said = std::mem::replace(&mut login.device, name);
            login.username.get_or_insert(said);
        }
        let is_known = |d: &Device| {
            let is_same = d.login.username == login.username && d.login.credential == login.credential;
            let is_proven = is_same && login.credential != Credential::Issue;
            // Who proves nothing this time is who it has proven to be.
            d.login.device == login.device && (is_proven || login.credential == Credential::None)
        };
        if self.device.as_deref().is_some_and(is_known) {
            return false;
        }
        if self.answers.len() > 1 {
            // Answers that were waited for are about the session before.
            self.drains = true;
            self.put_back(Up::Login(login));
            return true;
        }
        self.open(t, login, Some(seq));
        true
    }

    /// The current frame goes on with this, later.
    pub(crate) fn put_back(&mut self, up: Up) {
        if let Some((_, ups)) = &mut self.current {
            ups.push_front(up);
        }
    }

    /// Opens the session.
    pub(crate) fn open(&mut self, t: &mut Turn<'_>, mut login: Login, seq: Option<Seq>) {
        self.drains = false;
        if let Some(seq) = seq {
            self.answers.ask(seq);
        }
        let mut issued = None;
        if login.credential == Credential::Issue {
            let Some(token) = self.issued.take() else {
                self.opening = Some(Box::new(Opening { login, seq, token: None, is_in: false }));
                return self.refused(t, Refusal::ServerBusy);
            };
            issued = Some(token);
        }
        let config = t.config();
        let device = &*login.device;
        if !is_name(device) {
            self.opening = Some(Box::new(Opening { login, seq, token: None, is_in: false }));
            return self.refused(t, Refusal::ClientId);
        }
        let of = |text: &String| text.replace("%c", device);
        let (mut username, mut password, mut token) = (None, None, None);
        match &login.credential {
            Credential::Password(own) => {
                username = Some(login.username.clone().unwrap_or_else(|| device.into()));
                password = Some(own.clone());
            }
            Credential::Token(own) => token = Some(proof(own)),
            Credential::None | Credential::Issue => {
                username = config.credentials.username.as_ref().map(|name| of(name).into());
                password = config.credentials.password.as_ref().map(|word| Bytes::from(of(word)));
            }
        }
        let is_durable = !config.session_expiry.is_zero();
        let connect = Connect {
            username,
            password,
            clean_start: !is_durable,
            expiry: config.session_expiry,
            keep_alive: u16::try_from(config.keep_alive.as_secs()).unwrap_or(u16::MAX),
            token,
            ..Connect::new(
                device,
                codecs::find(&config.codec).map_or("script", |def| def.name),
                config.max_commands,
            )
        };
        if let Some(token) = &issued {
            // What it will show.
            login.credential = Credential::Token(Bytes::copy_from_slice(token.as_bytes()));
        }
        self.phase = Phase::Opening;
        self.opening = Some(Box::new(Opening { login, seq, token: issued, is_in: false }));
        t.out.act(Action::Connect(t.peer, ticket(Asked::Session, 0), Box::new(connect)));
    }

    /// The driver has said whether it is let in.
    pub(crate) fn opened(&mut self, t: &mut Turn<'_>, answer: &Answer) {
        match answer {
            Answer::Connected(_) => {}
            Answer::Refused(why) => return self.refused(t, *why),
            _ => return,
        }
        let Some(opening) = self.opening.as_deref_mut() else { return };
        opening.is_in = true;
        let down = t.config().topics.down.prefix(&opening.login.device);
        // What was under way comes again with the session that it belongs to. What this one has may come at once.
        self.commands.clear();
        self.device = Some(Box::new(Device { login: opening.login.clone(), down: down.as_str().into() }));
        self.greeting = opening.seq;
        if let Ok(filter) = Filter::parse(&format!("{down}#")) {
            let subscribe = Subscribe {
                filter,
                qos: t.config().command_qos,
                no_local: true,
                retain_as_published: false,
                // What was retained is a command once.
                retain_handling: 1,
                identifier: 0,
            };
            t.out.act(Action::Subscribe(t.peer, ticket(Asked::Commands, 0), vec![subscribe]));
        }
        if let Some(token) = &opening.token {
            let kept = Some(proof(token.as_bytes()));
            return t.out.act(Action::Save(t.peer, ticket(Asked::Token, 0), TOKEN.into(), kept));
        }
        self.begin_session(t);
    }

    /// Whether the token that it was issued is kept.
    pub(crate) fn kept_token(&mut self, t: &mut Turn<'_>, answer: &Answer) {
        match answer {
            Answer::Saved => self.begin_session(t),
            Answer::Refused(why) => self.refused(t, *why),
            _ => {}
        }
    }

    fn begin_session(&mut self, t: &mut Turn<'_>) {
        let Some(opening) = self.opening.take() else { return };
        (self.phase, self.seen, self.bad) = (Phase::Open, t.now.instant, 0);
        if let Some(seq) = opening.seq {
            self.answers.done(seq, Verdict::Accepted);
        }
    }

    fn refused(&mut self, t: &mut Turn<'_>, why: Refusal) {
        let seq = self.opening.take().and_then(|opening| opening.seq);
        if let Some(seq) = seq {
            self.answers.done(seq, verdict(why));
            // Nothing more of the frame is looked at.
            self.current = None;
            self.answers.end(seq);
            self.answers.send(t);
        }
        self.close(t, close(why));
    }

    /// The device goes, and may come again.
    pub(crate) fn log_out(&mut self, t: &mut Turn<'_>) {
        if self.device.take().is_none() {
            return t.out.act(Action::Drop(t.peer, Drop::Unexpected));
        }
        self.commands.clear();
        (self.phase, self.begun) = (Phase::Stranger, t.now.instant);
        let how = gateway::Disconnect { with_will: false, expiry: None };
        t.out.act(Action::Disconnect(t.peer, how));
    }
}
