//! What a codec makes of one device's bytes, written down frame by frame.

use std::fmt::Write;

use bytes::BytesMut;
use codecs::{Codec, Context, Costs, Down, Expect, Fault, Frame, Up, hex};
use serde_json::{Value, json};

use super::dump;

/// One device, or one direction of a capture.
pub(super) struct Reading {
    codec: Box<dyn Codec>,
    /// Empty, or which of several devices this is.
    label: String,
    is_json: bool,
    device: Option<String>,
    token: String,
    buf: BytesMut,
    /// Bytes of the stream before `buf`.
    taken: usize,
    /// Frames that were whole and right, and those that were not.
    pub(super) count: Count,
}

/// See [`Reading::count`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) good: usize,
    pub(super) bad: usize,
}

/// What a device is to be told, and whether its connection is over.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) answer: Vec<u8>,
    pub(super) is_over: bool,
}

impl Reading {
    pub(super) fn new(
        codec: Box<dyn Codec>,
        device: Option<String>,
        token: String,
        is_json: bool,
    ) -> Reading {
        let (label, buf) = (String::new(), BytesMut::new());
        Reading { codec, label, is_json, device, token, buf, taken: 0, count: Count::default() }
    }

    /// The same, of one of several devices.
    pub(super) fn of(self, label: String) -> Reading {
        Reading { label, ..self }
    }

    /// Takes bytes in their order and writes down what they mean.
    pub(super) fn read(&mut self, wall_ms: u64, bytes: &[u8], out: &mut String) -> Heard {
        self.buf.extend_from_slice(bytes);
        let mut heard = Heard::default();
        while !heard.is_over {
            let before = self.buf.clone();
            let cx = Context { wall_ms, device: self.device.as_deref(), token: &self.token };
            let decoded = self.codec.decode(&cx, &mut self.buf);
            let len = before.len() - self.buf.len();
            match decoded {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    self.learn(&frame);
                    self.count.good += 1;
                    self.frame(&before[..len], &frame, out);
                    heard.answer.extend_from_slice(&frame.answer);
                }
                Err(fault) => {
                    self.count.bad += 1;
                    heard.is_over = fault.costs == Costs::Stream;
                    self.fault(&before, len, &fault, out);
                }
            }
            self.taken += len;
            if len == 0 && !heard.is_over {
                let _ = writeln!(out, "the codec takes nothing and does not wait: that is its mistake");
                self.count.bad += 1;
                heard.is_over = true;
            }
        }
        heard
    }

    /// The end of a datagram: what is left is dropped.
    pub(super) fn end_datagram(&mut self, out: &mut String) {
        if !self.buf.is_empty() {
            let fault = Fault::frame(0, "the datagram ends within a frame");
            self.count.bad += 1;
            let rest = self.buf.split();
            self.fault(&rest, rest.len(), &fault, out);
            self.taken += rest.len();
        }
    }

    /// The end of it all.
    pub(super) fn end(&mut self, out: &mut String) {
        if self.buf.is_empty() {
            return;
        }
        if self.is_json {
            self.line(out, json!({"offset": self.taken, "waits": hex::encode(&self.buf)}));
            return;
        }
        self.head(out);
        let _ = writeln!(out, "{} bytes wait for the rest of their frame", self.buf.len());
        dump::rows(out, self.taken, &self.buf, None);
    }

    /// Writes down the frame of a command.
    pub(super) fn down(&mut self, wall_ms: u64, kind: &str, value: &str, out: &mut String) {
        let cx = Context { wall_ms, device: self.device.as_deref(), token: &self.token };
        let mut frame = Vec::new();
        let encoded = self.codec.encode(&cx, &Down { kind, value: value.as_bytes() }, &mut frame);
        if self.is_json {
            let said = match &encoded {
                Ok(expect) => json!({"down": kind, "bytes": hex::encode(&frame), "key": key(*expect)}),
                Err(fault) => json!({"down": kind, "at": fault.at, "error": fault.why}),
            };
            self.line(out, said);
        }
        match encoded {
            Ok(_) => self.count.good += 1,
            Err(_) => self.count.bad += 1,
        }
        match encoded {
            _ if self.is_json => {}
            Ok(expect) => {
                let awaits = key(expect).map_or(String::new(), |key| format!("; the answer's key is {key}"));
                let _ = writeln!(out, "command {kind}  {} bytes{awaits}", frame.len());
                dump::rows(out, 0, &frame, None);
            }
            Err(fault) => {
                let _ = writeln!(out, "command {kind} cannot be sent");
                dump::rows(out, 0, value.as_bytes(), Some((fault.at, &fault.why)));
            }
        }
    }

    /// Writes down what the server itself has sent in a capture.
    pub(super) fn sent(&self, bytes: &[u8], out: &mut String) {
        if self.is_json {
            self.line(out, json!({"sent": hex::encode(bytes)}));
            return;
        }
        self.head(out);
        let _ = writeln!(out, "the server sent {} bytes", bytes.len());
        dump::rows(out, 0, bytes, None);
    }

    fn learn(&mut self, frame: &Frame) {
        for up in &frame.up {
            if let Up::Login(login) = up {
                self.device = Some(login.device.to_string());
            }
        }
    }

    fn frame(&self, bytes: &[u8], frame: &Frame, out: &mut String) {
        let (from, to) = (self.taken, self.taken + bytes.len());
        if self.is_json {
            let up: Vec<Value> =
                frame.up.iter().filter_map(|up| serde_json::from_str(&up.to_json()).ok()).collect();
            let (answer, refusal) = (hex::encode(&frame.answer), hex::encode(&frame.refusal));
            let said = json!({"offset": from, "bytes": hex::encode(bytes), "up": up, "answer": answer, "refusal": refusal});
            self.line(out, said);
            return;
        }
        self.head(out);
        let _ = writeln!(out, "frame {}  bytes {from}..{to}", self.count.good);
        dump::rows(out, from, bytes, None);
        for up in &frame.up {
            let _ = writeln!(out, "  up       {}", up.to_json());
        }
        for (name, answer) in [("answer ", &frame.answer), ("refusal", &frame.refusal)] {
            if !answer.is_empty() {
                let _ = writeln!(out, "  {name}  {}", hex::encode(answer));
            }
        }
    }

    /// `len` of the bytes were cut off.
    fn fault(&self, before: &[u8], len: usize, fault: &Fault, out: &mut String) {
        let is_stream = fault.costs == Costs::Stream;
        let (from, to) = (self.taken, self.taken + len);
        let at = fault.at.min(before.len());
        if self.is_json {
            let costs = if is_stream { "stream" } else { "frame" };
            let bytes = hex::encode(if is_stream { before } else { &before[..len] });
            let said =
                json!({"offset": from, "bytes": bytes, "at": from + at, "error": fault.why, "costs": costs});
            self.line(out, said);
            return;
        }
        self.head(out);
        let _ = if is_stream {
            writeln!(out, "bad from byte {} on: where the next frame begins cannot be told", from + at)
        } else {
            writeln!(out, "bad frame  bytes {from}..{to}, wrong at byte {}", from + at)
        };
        // Where only the stream ends nothing was cut off: some bytes more say more.
        let shown = if at < len { len } else { (at + 16).min(before.len()) };
        dump::rows(out, from, &before[..shown], Some((at, &fault.why)));
    }

    fn head(&self, out: &mut String) {
        if !self.label.is_empty() {
            let _ = write!(out, "{}  ", self.label);
        }
    }

    fn line(&self, out: &mut String, mut said: Value) {
        if let (false, Some(members)) = (self.label.is_empty(), said.as_object_mut()) {
            members.insert("from".to_owned(), self.label.clone().into());
        }
        let _ = writeln!(out, "{said}");
    }
}

fn key(expect: Expect) -> Option<u64> {
    match expect {
        Expect::Nothing => None,
        Expect::Reply(key) => Some(key),
    }
}
