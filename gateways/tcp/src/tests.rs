mod commands;
mod config;
mod datagrams;
mod every_codec;
mod framing;
mod lifecycle;
mod properties;
mod scripts;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::*;
use bytes::{Buf, Bytes};
use codecs::{
    Build, Codec, Context, Credential, Data, Down, Expect, Fault, Found, Frame, Login, Options, Reply, Shape,
    Up, hex,
};
use gateway::{
    CallFailure, Calls, Connected, Delivery, DeliveryId, Drop, Function, Listener, Message, Qos, Refusal,
    TOKEN, Transport,
};

/// A language of lines for tests. `!` ends the stream, `X` is no frame.
///
/// ```text
/// L name [password]   I name   T name token      login, asking for a token, with it      + or -
/// D kind text...                                 data                                    + or -
/// W name text...                                 login with data                         + or -
/// M text text...                                 several values
/// R key text          H          Q               reply, heartbeat, logout                + or -, h, +
/// ```
struct Words {
    mark: &'static str,
}

/// Makes [`Words`] that answer `mark` to a heartbeat.
struct Make(&'static str);

impl Build for Make {
    fn build(&self, _: &Options) -> Box<dyn Codec> {
        Box::new(Words { mark: self.0 })
    }
}

impl Codec for Words {
    fn decode(&mut self, cx: &Context<'_>, buf: &mut BytesMut) -> Result<Option<Frame>, Fault> {
        let Some(end) = buf.iter().position(|b| *b == b'\n') else { return Ok(None) };
        let line = buf.split_to(end);
        buf.advance(1);
        let line = String::from_utf8_lossy(&line).into_owned();
        let words: Vec<&str> = line.split(' ').collect();
        let login = |credential| Up::Login(Login { device: words[1].into(), username: None, credential });
        let own = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let data = |kind: &str, text: &str| {
            let is_json = text.starts_with('{');
            Up::Data(Data { kind: kind.to_owned().into(), value: own(text), is_json })
        };
        let mut answer = own("+");
        let up = match words[0] {
            "L" => vec![login(words.get(2).map_or(Credential::None, |p| Credential::Password(own(p))))],
            "I" => {
                answer = own(&format!("+{}", cx.token));
                vec![login(Credential::Issue)]
            }
            "T" => vec![login(Credential::Token(own(words[2])))],
            "D" => vec![data(words[1], words[2])],
            "W" => vec![login(Credential::None), data("hello", words[2])],
            "M" => words[1..].iter().map(|text| data("many", text)).collect(),
            "R" => {
                let value = words.get(2).map_or(Bytes::new(), |text| own(text));
                vec![Up::Reply(Reply { key: words[1].parse().unwrap(), is_ok: true, value })]
            }
            "H" => {
                answer = own(self.mark);
                vec![Up::Heartbeat]
            }
            "Q" => vec![Up::Logout],
            "!" => return Err(Fault::stream(0, "the end")),
            _ => return Err(Fault::frame(0, "no word")),
        };
        Ok(Some(Frame { up, answer, refusal: own("-") }))
    }

    fn encode(&mut self, _: &Context<'_>, down: &Down<'_>, into: &mut Vec<u8>) -> Result<Expect, Fault> {
        let key = std::str::from_utf8(down.value).unwrap().trim_matches(|c: char| !c.is_ascii_digit());
        match down.kind {
            "say" => into.extend_from_slice(b"say;"),
            "ask" => {
                into.extend_from_slice(format!("ask {key};").as_bytes());
                return Ok(Expect::Reply(key.parse().unwrap_or_default()));
            }
            _ => return Err(Fault::frame(0, "it cannot be said")),
        }
        Ok(Expect::Nothing)
    }

    fn max_frame(&self) -> usize {
        64
    }
}

/// A machine, its driver and a router that say yes, and a clock.
struct Bench {
    machine: Tcp,
    library: Arc<Library>,
    now: Now,
    out: Outbox,
    transport: Transport,
    client_id: Option<&'static str>,
    /// Bytes that a stream's machine has left, and whether it wants no more of them.
    rest: BTreeMap<Peer, (BytesMut, bool)>,
    /// Those that are to be handed what was left.
    resumed: Vec<Peer>,
    /// What was sent to the first peer.
    wire: Vec<u8>,
    sessions: BTreeMap<Peer, String>,
    facts: BTreeMap<String, Bytes>,
    connects: Vec<gateway::Connect>,
    published: Vec<String>,
    subscribed: Vec<String>,
    settled: Vec<u16>,
    calls: VecDeque<(Peer, Ticket, Calls)>,
    drops: Vec<Drop>,
    closed: Vec<Close>,
    /// What logins and values are refused with.
    refusal: Option<Refusal>,
    refused_topic: Option<&'static str>,
    /// Any token lets in.
    knows_all_tokens: bool,
    /// Answers are not given before they are asked for.
    holds: bool,
    held: VecDeque<(Peer, Ticket, Answer)>,
}

const A: Peer = Peer { slot: 1, generation: 1 };
const B: Peer = Peer { slot: 2, generation: 1 };

fn config() -> Config {
    Config { codec: "words".into(), ..Config::default() }
}

fn bench() -> Bench {
    bench_with(config())
}

fn bench_with(config: Config) -> Bench {
    let library = Arc::new(Library::default());
    library.put("words", Found::Inline(Arc::new(Make("h"))));
    library.put("payloads", Found::Script(1, Shape::Payload));
    library.put("stream", Found::Script(1, Shape::Stream));
    let last = std::sync::atomic::AtomicU8::new(6);
    let next = move |b: &mut [u8]| {
        b.fill(1 + last.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        true
    };
    let site = Site { config, library: library.clone(), random: Arc::new(next) };
    Bench {
        machine: Tcp::new(Arc::new(site)),
        library,
        now: Now::from_micros(0),
        out: Outbox { is_framed: true, ..Outbox::default() },
        transport: Transport::Tcp,
        client_id: None,
        rest: BTreeMap::new(),
        resumed: Vec::new(),
        wire: Vec::new(),
        sessions: BTreeMap::new(),
        facts: BTreeMap::new(),
        connects: Vec::new(),
        published: Vec::new(),
        subscribed: Vec::new(),
        settled: Vec::new(),
        calls: VecDeque::new(),
        drops: Vec::new(),
        closed: Vec::new(),
        refusal: None,
        refused_topic: None,
        knows_all_tokens: false,
        holds: false,
        held: VecDeque::new(),
    }
}

impl Bench {
    fn open(&mut self, peer: Peer) -> String {
        let listener =
            Listener { name: "a".into(), protocol: "tcp", namespace: "".into(), mountpoint: "tcp/".into() };
        let facts = Facts {
            client_id: self.client_id.map(Into::into),
            ..Facts::new(
                Arc::new(listener),
                self.transport,
                std::net::SocketAddr::from(([192, 0, 2, peer.slot as u8], 4711)),
            )
        };
        self.rest.insert(peer, (BytesMut::new(), false));
        self.machine.opened(self.now, peer, &facts, &mut self.out);
        self.perform()
    }

    /// A stream that has logged in.
    fn device(&mut self, name: &str) {
        self.open(A);
        assert_eq!(self.say(&format!("L {name}\n")), "+");
    }

    fn say(&mut self, text: &str) -> String {
        self.hand(A, text.as_bytes())
    }

    /// Bytes from a peer; returns what goes to peers.
    fn hand(&mut self, peer: Peer, bytes: &[u8]) -> String {
        let Some((rest, _)) = self.rest.get_mut(&peer) else { return String::new() };
        rest.extend_from_slice(bytes);
        self.feed(peer) + &self.perform()
    }

    /// As a driver does: it is handed in again after an answer if it was left.
    fn feed(&mut self, peer: Peer) -> String {
        let Some((rest, _)) = self.rest.get_mut(&peer) else { return String::new() };
        let mut bytes = std::mem::take(rest);
        if bytes.is_empty() {
            return String::new();
        }
        let result = self.machine.input(self.now, peer, &mut bytes, &mut self.out);
        if self.transport.is_datagram() {
            assert!(bytes.is_empty(), "a datagram is taken whole");
        }
        if let Some((rest, is_paused)) = self.rest.get_mut(&peer) {
            (*rest, *is_paused) = (bytes, matches!(result, Ok(Flow::Pause)));
        }
        if let Err(why) = result {
            // Nothing more of it is read.
            self.rest.remove(&peer);
            let sent = self.perform();
            self.close(peer, why);
            return sent;
        }
        self.perform()
    }

    fn wait(&mut self, ms: u64) -> String {
        self.now = self.now.after(Duration::from_millis(ms));
        let mut sent = String::new();
        while self.machine.next_timeout().is_some_and(|(at, _)| at <= self.now.instant) {
            self.machine.timeout(self.now, &mut self.out);
            sent += &self.perform();
        }
        sent
    }

    fn command(&mut self, kind: &str, payload: &str, id: u16) -> String {
        self.command_for(kind, payload, id, None)
    }

    /// One that expires.
    fn command_for(&mut self, kind: &str, payload: &str, id: u16, expiry: Option<Duration>) -> String {
        let device = self.sessions[&A].clone();
        let message = Message::new(self.now, &format!("tcp/{device}/dn/{kind}"), payload.as_bytes());
        let message = message.with_expiry(expiry);
        let topic = format!("{device}/dn/{kind}");
        let delivery = Delivery {
            id: (id > 0).then_some(DeliveryId(id)),
            message: &message,
            topic: &topic,
            qos: Qos::AtLeastOnce,
            retain: false,
            duplicate: false,
            subscriptions: &[],
        };
        self.machine.deliver(self.now, A, &Deliver::Message(delivery), &mut self.out);
        self.perform()
    }

    /// Gives the answers that were held back.
    fn release(&mut self) -> String {
        self.holds = false;
        let mut sent = String::new();
        while let Some((peer, ticket, answer)) = self.held.pop_front() {
            self.reply(peer, ticket, answer);
            sent += &self.perform();
        }
        sent
    }

    /// What the script that was called gives for each of its inputs.
    fn called(&mut self, results: &[Result<&str, CallFailure>]) -> String {
        let (peer, ticket, calls) = self.calls.pop_front().expect("no call");
        assert_eq!(calls.inputs.len(), results.len());
        let own =
            |r: &Result<&str, CallFailure>| r.clone().map(|text| Bytes::copy_from_slice(text.as_bytes()));
        self.reply(peer, ticket, Answer::Called(results.iter().map(own).collect()));
        self.perform()
    }

    fn reply(&mut self, peer: Peer, ticket: Ticket, answer: Answer) {
        self.machine.reply(self.now, peer, ticket, answer, &mut self.out);
        self.resume(peer);
    }

    fn resume(&mut self, peer: Peer) {
        if let Some((_, is_paused)) = self.rest.get_mut(&peer)
            && std::mem::take(is_paused)
        {
            self.resumed.push(peer);
        }
    }

    /// Carries out what the machine asks for, hands what was left in again, and returns what was sent.
    fn perform(&mut self) -> String {
        let mut sent = String::new();
        loop {
            for (frame, bytes) in self.out.messages() {
                if frame.peer == A {
                    self.wire.extend_from_slice(bytes);
                } else {
                    sent += &format!("{}:", frame.peer.slot);
                }
                sent += &String::from_utf8_lossy(bytes);
            }
            (self.out.wire, self.out.frames) = (Vec::new(), Vec::new());
            let actions = std::mem::take(&mut self.out.actions);
            let was_idle = actions.is_empty();
            actions.into_iter().for_each(|action| self.act(action));
            let resumed = std::mem::take(&mut self.resumed);
            if was_idle && resumed.is_empty() {
                break;
            }
            for peer in resumed {
                sent += &self.feed(peer);
            }
        }
        sent
    }

    fn answer(&mut self, peer: Peer, ticket: Ticket, answer: Answer) {
        if self.holds {
            self.held.push_back((peer, ticket, answer));
        } else {
            self.reply(peer, ticket, answer);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Connect(peer, ticket, connect) => {
                let id = connect.client_id.to_string();
                let known = self.facts.get(&id).cloned();
                let is_wrong = connect.token.is_some() && connect.token != known && !self.knows_all_tokens;
                let why = self.refusal.or(is_wrong.then_some(Refusal::BadCredentials));
                self.connects.push(*connect);
                if let Some(why) = why {
                    return self.answer(peer, ticket, Answer::Refused(why));
                }
                self.sessions.insert(peer, id.clone());
                let connected =
                    Connected { client_id: id.into(), session_present: false, data: None, facts: Vec::new() };
                self.answer(peer, ticket, Answer::Connected(Box::new(connected)));
            }
            Action::Save(peer, ticket, name, value) => {
                assert_eq!(&*name, TOKEN);
                self.facts.insert(self.sessions[&peer].clone(), value.unwrap());
                self.answer(peer, ticket, Answer::Saved);
            }
            Action::Subscribe(peer, ticket, list) => {
                self.subscribed.extend(list.iter().map(|s| s.filter.as_str().to_owned()));
                self.answer(peer, ticket, Answer::Subscribed(vec![Ok(Qos::AtLeastOnce)]));
            }
            Action::Publish(peer, publish) => {
                let m = &publish.message;
                let is_refused = self.refused_topic.is_some_and(|topic| topic == m.topic());
                let answer = match is_refused {
                    true => Answer::Refused(Refusal::NotAuthorised),
                    false => Answer::Published(1),
                };
                if !is_refused {
                    assert!(self.sessions.contains_key(&peer), "nobody publishes {}", m.topic());
                    let payload = String::from_utf8_lossy(m.payload()).into_owned();
                    self.published.push(format!("{} {payload}", m.topic()));
                }
                if let Some(ticket) = publish.ticket {
                    self.answer(peer, ticket, answer);
                }
            }
            Action::Settle(_, id, _) => self.settled.push(id.0),
            Action::Call(peer, ticket, calls) => self.calls.push_back((peer, ticket, calls)),
            Action::Resume(peer) => self.resume(peer),
            Action::Disconnect(peer, _) => assert!(self.sessions.remove(&peer).is_some()),
            Action::Close(peer, why) => self.close(peer, why),
            Action::Drop(_, why) => self.drops.push(why),
            Action::Trace(..) => {}
            other => unreachable!("{other:?}"),
        }
    }

    fn close(&mut self, peer: Peer, why: Close) {
        self.closed.push(why);
        self.rest.remove(&peer);
        self.sessions.remove(&peer);
        self.machine.closed(self.now, peer, &mut self.out);
        self.held.retain(|(p, ..)| *p != peer);
    }

    fn taken(&mut self) -> Vec<String> {
        std::mem::take(&mut self.published)
    }
}
