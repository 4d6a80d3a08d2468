//! From CONNECT to CONNACK, or to the refusal (MQTT 5.0, 3.1.4).

use gateway::{Action, Answer, Close, Connected, Flow, Now, Outbox};

use crate::connect::{self, Accepted, Refused, Version};
use crate::frame::Fault;
use crate::publish::Aliases;
use crate::{Mqtt, Phase, reason, ticket};

impl Mqtt {
    pub(crate) fn connect(
        &mut self,
        now: Now,
        flags: u8,
        body: &[u8],
        out: &mut Outbox,
    ) -> Result<Flow, Fault> {
        let config = self.config.clone();
        let request = match connect::decode(now, flags, body, &config) {
            Ok(request) => request,
            Err(refused) => {
                let fault = self.refuse_connect(refused, out);
                return Err(fault);
            }
        };
        self.version = request.version;
        if let Some(server) = &config.redirect {
            let code = match (self.is_5(), config.is_moved) {
                (true, true) => 0x9D,
                (true, false) => 0x9C,
                (false, _) => 3,
            };
            self.send(out, |wire| connect::refuse(wire, request.version, code, None, Some(server)));
            self.phase = Phase::Closed;
            return Err(Fault { reason: 0, close: Close::Goodbye });
        }
        self.phase = Phase::Connecting;
        let most = config.max_keep_alive;
        let is_too_long = most > 0 && (request.keep_alive == 0 || request.keep_alive > most);
        // Only MQTT 5.0 can be told of another keep-alive; others keep theirs.
        self.keep_alive = if is_too_long && self.is_5() { most } else { request.keep_alive };
        if self.is_5() {
            let longest = config.max_session_expiry;
            let granted = if connect::expiry(request.session_expiry) > longest {
                u32::try_from(longest.as_secs()).unwrap_or(u32::MAX)
            } else {
                request.session_expiry
            };
            let told_keep_alive = is_too_long.then_some(most);
            let extra = self.extra();
            extra.session_expiry = granted;
            extra.told_expiry = (granted != request.session_expiry).then_some(granted);
            extra.told_keep_alive = told_keep_alive;
            extra.max_packet = request.max_packet as usize;
            extra.wants_problems = request.wants_problems;
            extra.wants_response = request.wants_response;
            extra.incoming = Aliases::new(config.topic_alias_maximum);
            extra.alias_maximum = request.alias_maximum.min(config.topic_alias_maximum);
            extra.was_assigned = request.connect.client_id.is_empty();
            extra.method = request.connect.method.as_ref().map(|(m, _)| m.clone());
        }
        let ticket = ticket::new(ticket::CONNECT, 0);
        self.ask(out, Action::Connect(self.peer, ticket, request.connect));
        Ok(Flow::Pause)
    }

    pub(crate) fn refuse_connect(&mut self, refused: Refused, out: &mut Outbox) -> Fault {
        let (version, code, fault) = match refused {
            Refused::Silent(fault) => {
                self.phase = Phase::Closed;
                return fault;
            }
            Refused::Version(level) => {
                let fault = Fault { reason: 0x84, close: Close::UnsupportedVersion };
                if (5..0x80).contains(&level) {
                    (Version::V5, 0x84, fault)
                } else {
                    (Version::V311, 1, fault)
                }
            }
            Refused::Code(code, fault) => (Version::V311, code, fault),
            Refused::Reason(fault) => (Version::V5, fault.reason, fault),
        };
        self.send(out, |wire| connect::refuse(wire, version, code, None, None));
        self.phase = Phase::Closed;
        fault
    }

    pub(crate) fn answer_connect(&mut self, answer: Answer, out: &mut Outbox) {
        match answer {
            Answer::Connected(connected) => self.connected(&connected, out),
            Answer::Challenge(data) => self.send_auth(out, 0x18, &data),
            Answer::Refused(why) => {
                let (version, words) = (self.version, self.words(why));
                let code = if self.is_5() { reason::reason(why) } else { reason::return_code(why) };
                self.send(out, |wire| connect::refuse(wire, version, code, words, None));
                self.phase = Phase::Closed;
                out.act(Action::Close(self.peer, reason::close(why)));
            }
            _ => {}
        }
    }

    pub(crate) fn connected(&mut self, connected: &Connected, out: &mut Outbox) {
        let extra = self.extra.as_deref();
        let method = extra.and_then(|e| e.method.as_deref());
        let accepted = Accepted {
            session_present: connected.session_present,
            assigned: extra.filter(|e| e.was_assigned).map(|_| &*connected.client_id),
            session_expiry: extra.and_then(|e| e.told_expiry),
            keep_alive: extra.and_then(|e| e.told_keep_alive),
            wants_response: extra.is_some_and(|e| e.wants_response),
            authentication: method.map(|m| (m, connected.data.as_deref().unwrap_or_default())),
        };
        if self.send(out, |wire| connect::accept(wire, self.version, &self.config, &accepted)) {
            self.phase = Phase::Open;
        } else {
            // Without what CONNACK has to say nothing of the session can be relied upon.
            self.phase = Phase::Closed;
            out.act(Action::Close(self.peer, Close::TooLarge));
        }
    }
}
