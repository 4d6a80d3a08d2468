//! Commands: what is published for a device is encoded and sent, and what comes of it is published.
//!
//! ```text
//! dn/interval {"id": 7, ...}  -> encode -> sent -> Reply of its key -> up/reply {"id": 7, "ok": true, ...}
//!                                          sent again, `command_retries` times
//!                                               -> nothing in time  -> up/reply {"id": 7, "ok": false, ...}
//! ```
//!
//! A command is settled when it is over: one whose connection ends before that is sent again to the device when it
//! comes back.

use std::collections::VecDeque;

use bytes::Bytes;
use codecs::called::Encoded;
use codecs::{Context, Down, Expect, Reply, Shape, hex};
use gateway::topic::check_name;
use gateway::{Action, Close, Delivery, DeliveryId, Drop, Instant, Message, Properties, Publish, Settle};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::Turn;
use crate::answers::{Seq, Verdict};
use crate::conversation::Conversation;
use crate::language::Kind;
use crate::ticket::{Asked, ticket};

/// Most commands of one call of a script.
const MOST_INPUTS: usize = 16;
/// What comes of a command that has waited too long for its turn.
const EXPIRED: &str = "expired";

/// One command.
pub(crate) struct Command {
    kind: Box<str>,
    message: Message,
    delivery: Option<DeliveryId>,
}

/// A command that the device answers.
struct Sent {
    command: Command,
    key: u64,
    bytes: Vec<u8>,
    due: Instant,
    tries: u32,
}

/// The commands of a device that are not over.
#[derive(Default)]
pub(crate) struct Commands {
    /// A script has to encode them, or the answer to the login has to go out first.
    waiting: VecDeque<Command>,
    /// Another one with the same key has to be answered first.
    held: VecDeque<Sent>,
    sent: Vec<Sent>,
}

impl Commands {
    /// Forgets them: they are delivered again.
    pub(crate) fn clear(&mut self) {
        *self = Commands::default();
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len() + self.held.len() + self.sent.len()
    }

    /// When one has not been answered.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.sent.iter().map(|sent| sent.due).min()
    }

    /// What a script is called with; None if there is nothing for it.
    pub(crate) fn inputs(&self) -> Option<Vec<Bytes>> {
        let inputs: Vec<Bytes> = self.waiting.iter().take(MOST_INPUTS).map(Command::input).collect();
        (!inputs.is_empty()).then_some(inputs)
    }
}

/// The part of a payload that names the command.
#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct Input<'a> {
    kind: &'a str,
    value: &'a RawValue,
}

/// What comes of a command.
#[derive(Serialize)]
struct Outcome<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// Bytes as JSON: as they are, or as text.
fn json(bytes: &[u8]) -> Option<Box<RawValue>> {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(value) = serde_json::from_str::<&RawValue>(&text) {
        return Some(value.to_owned());
    }
    serde_json::value::to_raw_value(&*text).ok()
}

impl Command {
    fn id(&self) -> Option<&RawValue> {
        let named: Named<'_> = serde_json::from_slice(self.message.payload()).ok()?;
        named.id
    }

    fn correlation(&self) -> Option<&Bytes> {
        self.message.properties()?.correlation_data.as_ref()
    }

    fn input(&self) -> Bytes {
        let value = json(self.message.payload());
        let input =
            value.and_then(|value| serde_json::to_vec(&Input { kind: &self.kind, value: &value }).ok());
        input.unwrap_or_default().into()
    }
}

impl Conversation {
    /// Something was published for the device.
    pub(crate) fn deliver(&mut self, t: &mut Turn<'_>, d: &Delivery<'_>) {
        // While another device comes in here, what is for the one before waits for it.
        let is_anothers = self.opening.as_deref().is_some_and(|opening| !opening.is_in);
        let Some(device) = self.device.as_deref().filter(|_| !is_anothers) else { return };
        let Some(kind) = d.topic.strip_prefix(&*device.down) else {
            t.out.act(Action::Drop(t.peer, Drop::Unexpected));
            return settle(t, d.id);
        };
        if d.id.is_none() && self.commands.len() >= usize::from(t.config().max_commands) {
            return t.out.act(Action::Drop(t.peer, Drop::SlowPeer));
        }
        let command = Command { kind: kind.into(), message: d.message.clone(), delivery: d.id };
        self.commands.waiting.push_back(command);
        self.say_waiting(t);
    }

    /// Encodes what waits, if that is done here.
    pub(crate) fn say_waiting(&mut self, t: &mut Turn<'_>) {
        if !self.is_greeted() {
            return;
        }
        while let Kind::Inline(codec, _) = &mut self.language.kind
            && let Some(device) = self.device.as_deref()
            && let Some(command) = self.commands.waiting.pop_front()
        {
            let mut bytes = Vec::new();
            let cx = Context { wall_ms: t.now.wall_ms, device: Some(&device.login.device), token: t.token() };
            let down = Down { kind: &command.kind, value: command.message.payload() };
            match codec.encode(&cx, &down, &mut bytes) {
                Ok(expect) => self.say(t, command, bytes, expect),
                Err(fault) => self.fail(t, &command, &fault.why),
            }
        }
    }

    /// A script has encoded the command that waits longest.
    pub(crate) fn encoded(&mut self, t: &mut Turn<'_>, value: &[u8]) {
        let Some(command) = self.commands.waiting.pop_front() else { return };
        match Encoded::read(value).and_then(|(bytes, expect)| Ok((self.wrap(t, bytes)?, expect))) {
            Ok((bytes, expect)) => self.say(t, command, bytes, expect),
            Err(why) => self.fail(t, &command, &why),
        }
    }

    /// A script has failed on the command that waits longest.
    pub(crate) fn unsaid(&mut self, t: &mut Turn<'_>, why: &str) {
        if let Some(command) = self.commands.waiting.pop_front() {
            self.fail(t, &command, why);
        }
    }

    /// Bytes of a script as the listener's framing wants them.
    fn wrap(&self, t: &Turn<'_>, bytes: Vec<u8>) -> Result<Vec<u8>, String> {
        let framing = t.config().options.framing.as_ref();
        let Some(framing) = framing.filter(|_| matches!(self.language.kind, Kind::Script(_, Shape::Payload)))
        else {
            return Ok(bytes);
        };
        let mut frame = Vec::new();
        framing.wrap(&bytes, &mut frame).map(|()| frame).map_err(|fault| fault.why.into_owned())
    }

    fn say(&mut self, t: &mut Turn<'_>, command: Command, bytes: Vec<u8>, expect: Expect) {
        if command.message.is_expired(t.now.instant) {
            return self.fail(t, &command, EXPIRED);
        }
        let Expect::Reply(key) = expect else {
            t.send(&bytes, || format!("command {} {}", command.kind, hex::encode(&bytes)));
            if command.id().is_some() || command.correlation().is_some() {
                self.tell(t, Some(&command), true, None, None, None);
            }
            return settle(t, command.delivery);
        };
        let sent = Sent { command, key, bytes, due: Instant::NEVER, tries: 0 };
        if self.commands.sent.iter().any(|other| other.key == key) {
            self.commands.held.push_back(sent);
        } else {
            self.transmit(t, sent);
        }
    }

    fn transmit(&mut self, t: &mut Turn<'_>, mut sent: Sent) {
        t.send(&sent.bytes, || format!("command {} {}", sent.command.kind, hex::encode(&sent.bytes)));
        sent.due = t.now.instant + t.config().command_timeout;
        self.commands.sent.push(sent);
    }

    /// Sends what has waited for the end of another one with this key.
    fn release(&mut self, t: &mut Turn<'_>, key: u64) {
        while let Some(at) = self.commands.held.iter().position(|held| held.key == key)
            && let Some(sent) = self.commands.held.remove(at)
        {
            if !sent.command.message.is_expired(t.now.instant) {
                return self.transmit(t, sent);
            }
            self.fail(t, &sent.command, EXPIRED);
        }
    }

    /// It cannot be said to the device.
    fn fail(&mut self, t: &mut Turn<'_>, command: &Command, why: &str) {
        t.out.act(Action::Drop(t.peer, Drop::CommandFailed));
        self.tell(t, Some(command), false, None, Some(why), None);
        settle(t, command.delivery);
    }

    /// The device has answered a command.
    pub(crate) fn replied(&mut self, t: &mut Turn<'_>, seq: Seq, reply: &Reply) -> Result<(), Close> {
        if self.device.is_none() {
            self.answers.judge(seq, Verdict::Refused);
            return self.reject(t, Drop::NoLogin);
        }
        self.bad = 0;
        let at = self.commands.sent.iter().position(|sent| sent.key == reply.key);
        let sent = at.map(|at| self.commands.sent.remove(at));
        if sent.is_none() {
            t.out.act(Action::Drop(t.peer, Drop::Unexpected));
        }
        // One that comes too late may still say something.
        if sent.is_some() || !reply.value.is_empty() {
            let command = sent.as_ref().map(|sent| &sent.command);
            let data = json(&reply.value).filter(|_| !reply.value.is_empty());
            self.tell(t, command, reply.is_ok, data.as_deref(), None, Some(seq));
        }
        if let Some(sent) = sent {
            settle(t, sent.command.delivery);
            self.release(t, sent.key);
        }
        Ok(())
    }

    /// Sends again, or gives up, what was not answered in time.
    pub(crate) fn repeat_commands(&mut self, t: &mut Turn<'_>) {
        let now = t.now.instant;
        while let Some(at) = self.commands.sent.iter().position(|sent| sent.due <= now) {
            let mut sent = self.commands.sent.remove(at);
            // What has expired meanwhile is not said once more (MQTT 5.0, 3.3.2.3.3).
            if sent.tries < t.config().command_retries && !sent.command.message.is_expired(now) {
                sent.tries += 1;
                self.transmit(t, sent);
                continue;
            }
            t.out.act(Action::Drop(t.peer, Drop::CommandTimeout));
            self.tell(t, Some(&sent.command), false, None, Some("timeout"), None);
            settle(t, sent.command.delivery);
            self.release(t, sent.key);
        }
    }

    /// Publishes what came of a command, on behalf of a frame if one says so.
    fn tell(
        &mut self,
        t: &mut Turn<'_>,
        command: Option<&Command>,
        ok: bool,
        data: Option<&RawValue>,
        error: Option<&str>,
        seq: Option<Seq>,
    ) {
        let Some(device) = self.device.as_deref() else { return };
        let outcome =
            Outcome { id: command.and_then(Command::id), kind: command.map(|c| &*c.kind), ok, data, error };
        let Ok(payload) = serde_json::to_vec(&outcome) else { return };
        let topic = t.config().topics.up.name(&device.login.device, "reply");
        if check_name(&topic).is_err() {
            return;
        }
        let correlation_data = command.and_then(Command::correlation).cloned();
        let message = Message::from_slice(t.now, &topic, payload.into())
            .with_qos(t.config().qos)
            .with_properties(Properties { correlation_data, ..Properties::default() });
        let ticket = seq.map(|seq| {
            self.answers.ask(seq);
            ticket(Asked::Publish, seq)
        });
        t.out.act(Action::Publish(t.peer, Publish { message, ticket, once: None }));
    }
}

/// The command is over.
fn settle(t: &mut Turn<'_>, delivery: Option<DeliveryId>) {
    if let Some(id) = delivery {
        t.out.act(Action::Settle(t.peer, id, Settle::Done));
    }
}
