//! What devices say, carried out: the frames one after the other, and of each what it says in its order.

use bytes::{Bytes, BytesMut};
use codecs::{Credential, Data, Frame, Up};
use gateway::topic::check_name;
use gateway::{Action, Answer, Close, Direction, Drop, Message, Publish};

use crate::Turn;
use crate::answers::{Seq, Verdict};
use crate::conversation::{Conversation, Phase};
use crate::login::{is_secret, unsaid, verdict};
use crate::naming::Naming;
use crate::read::Next;
use crate::ticket::{Asked, ticket};

/// What is done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// What comes next.
    GoOn,
    /// Nothing before the driver has answered.
    Wait,
}

impl Conversation {
    /// Does all that can be done, and says whether more bytes are of use.
    pub(crate) fn pump(&mut self, t: &mut Turn<'_>, bytes: &mut BytesMut) -> Result<Step, Close> {
        loop {
            if self.phase == Phase::Closing {
                bytes.clear();
                return Ok(Step::GoOn);
            }
            if self.is_waiting() {
                return Ok(Step::Wait);
            }
            if let Some((seq, ups)) = &mut self.current {
                let seq = *seq;
                match ups.pop_front() {
                    Some(up) => self.up(t, seq, up)?,
                    None => {
                        self.current = None;
                        self.answers.end(seq);
                        self.answer(t);
                    }
                }
            } else if let Some(frame) = self.frames.pop_front() {
                self.begin(t, frame);
            } else {
                match self.next(t, bytes)? {
                    Next::Frame(frame) => self.begin(t, frame),
                    Next::Again => {}
                    Next::Wait => return Ok(Step::Wait),
                    Next::Nothing => return Ok(Step::GoOn),
                }
            }
        }
    }

    fn begin(&mut self, t: &mut Turn<'_>, frame: Frame) {
        t.out.trace(t.peer, Direction::In, || describe(&frame));
        let is_secret = is_secret(&frame);
        let asks = |up: &Up| matches!(up, Up::Login(login) if login.credential == Credential::Issue);
        if frame.up.iter().any(asks) {
            // The answer has it already: nobody else may get it.
            self.issued = t.take_token();
        }
        let seq = self.answers.begin(frame.answer, frame.refusal, is_secret);
        self.current = Some((seq, frame.up.into()));
    }

    fn up(&mut self, t: &mut Turn<'_>, seq: Seq, up: Up) -> Result<(), Close> {
        match up {
            Up::Login(login) => {
                if !self.log_in(t, login, seq) {
                    self.bad = 0;
                }
                Ok(())
            }
            Up::Data(data) => self.data(t, seq, data),
            Up::Reply(reply) => self.replied(t, seq, &reply),
            Up::Heartbeat => {
                if self.device.is_some() {
                    self.bad = 0;
                }
                Ok(())
            }
            Up::Logout => {
                self.log_out(t);
                Ok(())
            }
        }
    }

    /// A value, under the name of its device.
    fn data(&mut self, t: &mut Turn<'_>, seq: Seq, data: Data) -> Result<(), Close> {
        let named = match &t.config().device {
            Naming::FirstFrame if self.device.is_none() => {
                let name = String::from_utf8_lossy(&data.value);
                self.open(t, unsaid(name.trim().into()), Some(seq));
                return Ok(());
            }
            naming @ Naming::Json(_) if data.is_json => naming.in_json(&data.value),
            naming if self.device.is_none() => naming.known(&self.facts),
            _ => None,
        };
        if let Some(name) = named.filter(|name| self.name() != Some(name)) {
            // It is published when the session is open.
            self.put_back(Up::Data(data));
            if self.answers.len() > 1 {
                self.drains = true;
            } else {
                self.open(t, unsaid(name), Some(seq));
            }
            return Ok(());
        }
        self.publish(t, seq, &data.kind, data.value)
    }

    /// Publishes a value of this kind on behalf of the frame.
    pub(crate) fn publish(
        &mut self,
        t: &mut Turn<'_>,
        seq: Seq,
        kind: &str,
        value: Bytes,
    ) -> Result<(), Close> {
        let Some(device) = &self.device else {
            self.answers.judge(seq, Verdict::Refused);
            return self.reject(t, Drop::NoLogin);
        };
        let topic = t.config().topics.up.name(&device.login.device, kind);
        if check_name(&topic).is_err() {
            self.answers.judge(seq, Verdict::Refused);
            return self.reject(t, Drop::CodecFrame);
        }
        self.bad = 0;
        let message = Message::from_slice(t.now, &topic, value).with_qos(t.config().qos);
        let ticket = Some(ticket(Asked::Publish, seq));
        self.answers.ask(seq);
        t.out.act(Action::Publish(t.peer, Publish { message, ticket, once: None }));
        Ok(())
    }

    /// A value of the frame was published, or not.
    pub(crate) fn published(&mut self, t: &mut Turn<'_>, seq: Seq, answer: &Answer) {
        let how = match answer {
            Answer::Published(_) => Verdict::Accepted,
            Answer::Refused(why) => verdict(*why),
            _ => Verdict::Unsure,
        };
        self.answers.done(seq, how);
        self.answer(t);
    }
}

/// For traces; nobody is shown what a device proves itself with.
fn describe(frame: &Frame) -> String {
    let mut ups = frame.up.clone();
    for up in &mut ups {
        if let Up::Login(login) = up
            && login.credential != Credential::Issue
        {
            login.credential = Credential::None;
        }
    }
    let ups: Vec<String> = ups.iter().map(Up::to_json).collect();
    ups.join(" ")
}
