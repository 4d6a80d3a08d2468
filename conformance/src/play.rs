//! Plays one case against a server. Each step is one line; README.md in `conformance/` lists them.

use crate::connection::{Connection, Event, Targets};
use crate::expect::{self, Bound};
use crate::packet::{self, Context};
use crate::read::{self, Packet};
use crate::request::with;
use crate::script::{Case, Step, Version};
use crate::text::{self, Word};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long an expected packet may take. A server under test shares its machine with many cases at once.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long `nothing` looks unless it says.
const QUIET: Duration = Duration::from_millis(200);

/// Plays `case` with `unique` for `{u}`; the mistake says the line, what was expected and what came.
pub fn play(case: &Case, targets: &Targets, unique: &str) -> Result<(), String> {
    let mut player = Player {
        version: case.version,
        level: case.version.level(),
        targets,
        unique,
        bound: Bound::new(),
        connections: BTreeMap::new(),
        next_id: 0x4000,
    };
    let mut at = 0;
    while at < case.steps.len() {
        let step = &case.steps[at];
        let group = unordered(&case.steps[at..]);
        let outcome = match group {
            0 | 1 => player.step(&for_version(&step.words, case.version)),
            _ => player.any_order(&case.steps[at..at + group]),
        };
        outcome.map_err(|why| format!("line {}: {why}", step.line))?;
        at += group.max(1);
    }
    player.finish()
}

/// Drops words that are for other versions: `5:codes=0x8f`, `3:…` (3.1 and 3.1.1), `3.1:…`, `3.1.1:…`. A line that
/// begins with such a mark alone is a step of that version only.
fn for_version(words: &[String], version: Version) -> Vec<String> {
    let mut out = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let marked = ["3:", "3.1:", "3.1.1:", "5:"]
            .into_iter()
            .find_map(|mark| Some((mark, word.strip_prefix(mark)?)));
        let Some((mark, rest)) = marked else {
            out.push(word.clone());
            continue;
        };
        let is_ours = match mark {
            "3:" => version != Version::V5,
            _ => mark == format!("{version}:"),
        };
        if at == 0 && rest.is_empty() && !is_ours {
            return Vec::new();
        }
        if is_ours && !rest.is_empty() {
            out.push(rest.to_owned());
        }
    }
    out
}

/// How many steps from here are `<~` of one connection.
fn unordered(steps: &[Step]) -> usize {
    let is_one =
        |step: &Step| step.words.len() > 2 && step.words[1] == "<~" && step.words[0] == steps[0].words[0];
    steps.iter().take_while(|step| is_one(step)).count()
}

pub(crate) struct Player<'a> {
    version: Version,
    pub(crate) level: u8,
    targets: &'a Targets,
    pub(crate) unique: &'a str,
    pub(crate) bound: Bound,
    connections: BTreeMap<String, Connection>,
    pub(crate) next_id: u16,
}

impl Player<'_> {
    fn step(&mut self, words: &[String]) -> Result<(), String> {
        match words.first().map(String::as_str) {
            None => return Ok(()),
            Some("sleep") => {
                pause(duration(words.get(1))?);
                return Ok(());
            }
            Some(_) => {}
        }
        let [name, verb, rest @ ..] = words else { return Err("a step is: connection, verb, words".into()) };
        match verb.as_str() {
            ">" => self.send(name, rest),
            "+" => {
                let bytes = self.encode(rest)?;
                self.open(name)?.hold(&bytes);
                Ok(())
            }
            "<" | "<~" => self.expect(name, rest),
            "joins" => self.joins(name, rest),
            "scrams" => self.scrams(name, "connect", rest),
            "scrams-again" => self.scrams(name, "auth code=0x19", rest),
            "leaves" => {
                self.send(name, &["disconnect".into()])?;
                self.expect(name, &["close".into()])
            }
            "skips" => self.skips(name, rest),
            "ends" => self.ends(name, rest),
            "is-refused" => self.is_refused(name, rest),
            "cut" => self.connections.remove(name).map(drop).ok_or_else(|| format!("{name} is not open")),
            "opens" => self.opens(name, rest),
            "subscribes" => self.subscribes(name, rest),
            "unsubscribes" => self.unsubscribes(name, rest),
            "publishes" => self.publishes(name, rest),
            "takes" => self.takes(name, rest),
            "syncs" => {
                self.send(name, &["pingreq".into()])?;
                self.expect(name, &["pingresp".into()])
            }
            _ => Err(format!("there is no verb {verb:?}")),
        }
    }

    fn open(&mut self, name: &str) -> Result<&mut Connection, String> {
        if !self.connections.contains_key(name) {
            self.connections.insert(name.to_owned(), Connection::open(self.targets.tcp)?);
        }
        self.connections.get_mut(name).ok_or_else(|| format!("{name} is not open"))
    }

    /// `opens`, `opens login`, `opens ws [path=] [protocol=] [selects=]`.
    fn opens(&mut self, name: &str, rest: &[String]) -> Result<(), String> {
        self.connections.remove(name);
        match rest.first().map(String::as_str) {
            Some("ws") => {}
            Some("login") => {
                let address = self.targets.login.ok_or("the server has no listener that wants a login")?;
                self.connections.insert(name.to_owned(), Connection::open(address)?);
                return Ok(());
            }
            _ => return self.open(name).map(drop),
        }
        let words: Vec<Word> = rest.iter().map(|w| text::word(w)).collect();
        let value = |key: &str| words.iter().find(|word| word.key == key).and_then(|word| word.value.clone());
        let address = self.targets.ws.ok_or("the server has no WebSocket listener")?;
        let path = value("path").unwrap_or_else(|| "/mqtt".into());
        let protocol = value("protocol").unwrap_or_else(|| "mqtt".into());
        let (connection, selected) = Connection::upgrade(address, &path, &protocol)?;
        let wanted = value("selects").unwrap_or_else(|| "mqtt".into());
        if selected.as_deref().unwrap_or("none") != wanted {
            return Err(format!("expected subprotocol {wanted}, got {selected:?}"));
        }
        self.connections.insert(name.to_owned(), connection);
        Ok(())
    }

    pub(crate) fn send(&mut self, name: &str, rest: &[String]) -> Result<(), String> {
        match rest.first().map(String::as_str) {
            Some("slowly") => {
                let bytes = self.encode(&rest[1..])?;
                let connection = self.open(name)?;
                for byte in bytes {
                    connection.send(&[byte]);
                }
            }
            Some("frame") => {
                let opcode = text::number(rest.get(1).ok_or("a frame has an opcode")?)? as u8;
                let bytes = self.encode(&rest[2..])?;
                self.open(name)?.send_frame(opcode, &bytes);
            }
            _ => {
                let bytes = self.encode(rest)?;
                self.open(name)?.send(&bytes);
            }
        }
        Ok(())
    }

    fn encode(&self, rest: &[String]) -> Result<Vec<u8>, String> {
        let (kind, rest) = rest.split_first().ok_or("a packet has a kind")?;
        let words: Vec<Word> = rest.iter().map(|w| text::word(w)).collect();
        let bound = |name: &str| self.bound.get(name).cloned();
        packet::encode(kind, &words, Context { level: self.level, unique: self.unique, bound: &bound })
    }

    fn read(&mut self, name: &str, patience: Duration) -> Result<Event, String> {
        self.connections.get_mut(name).ok_or_else(|| format!("{name} is not open"))?.read(patience)
    }

    /// Alternatives are separated by `|`.
    pub(crate) fn expect(&mut self, name: &str, rest: &[String]) -> Result<(), String> {
        if rest.first().is_some_and(|word| word == "nothing") {
            let quiet = rest.get(1).map_or(Ok(QUIET), |_| duration(rest.get(1)))?;
            return match self.read(name, quiet)? {
                Event::Nothing => Ok(()),
                event => Err(format!("expected nothing, got {}", self.show(&event))),
            };
        }
        let event = self.read(name, PATIENCE)?;
        let mut reasons = Vec::new();
        for alternative in rest.split(|word| word == "|") {
            match self.fits(&event, alternative) {
                Ok(()) => {
                    if event == Event::Closed {
                        self.connections.remove(name);
                    }
                    return Ok(());
                }
                Err(why) => reasons.push(why),
            }
        }
        Err(reasons.join("; "))
    }

    fn fits(&mut self, event: &Event, wanted: &[String]) -> Result<(), String> {
        let (kind, rest) = wanted.split_first().ok_or("an expectation has a kind")?;
        match (event, kind.as_str()) {
            (Event::Closed, "close") => Ok(()),
            (Event::Packet(bytes), "hex") => {
                let wanted = self.encode(wanted)?;
                if *bytes == wanted {
                    Ok(())
                } else {
                    Err(format!("expected {}, got {}", text::show(&wanted), text::show(bytes)))
                }
            }
            (Event::Packet(bytes), kind) if kind != "close" => {
                let words: Vec<Word> = rest.iter().map(|w| text::word(w)).collect();
                let packet = self.decode(bytes)?;
                expect::compare(&packet, bytes.len(), kind, &words, self.unique, &mut self.bound)
            }
            _ => Err(format!("expected {}, got {}", wanted.join(" "), self.show(event))),
        }
    }

    fn decode(&self, bytes: &[u8]) -> Result<Packet, String> {
        read::decode(bytes, self.level).map_err(|why| format!("wrong packet {}: {why}", text::show(bytes)))
    }

    fn show(&self, event: &Event) -> String {
        match event {
            Event::Closed => "the end of the connection".into(),
            Event::Nothing => "nothing".into(),
            Event::Packet(bytes) => self.decode(bytes).map_or_else(|why| why, |packet| expect::show(&packet)),
        }
    }

    /// As many packets as steps, each fitting one of them.
    fn any_order(&mut self, steps: &[Step]) -> Result<(), String> {
        let steps: Vec<Vec<String>> =
            steps.iter().map(|step| for_version(&step.words, self.version)).collect();
        let mut open: Vec<&[String]> = steps.iter().map(|words| &words[2..]).collect();
        while !open.is_empty() {
            let event = self.read(&steps[0][0], PATIENCE)?;
            let Some(at) = open.iter().position(|wanted| self.fits(&event, wanted).is_ok()) else {
                let wanted: Vec<String> = open.iter().map(|words| words.join(" ")).collect();
                return Err(format!("expected one of [{}], got {}", wanted.join("; "), self.show(&event)));
            };
            open.remove(at);
        }
        Ok(())
    }

    /// Reads packets of one kind, as many as there are, up to the first that is another.
    fn skips(&mut self, name: &str, rest: &[String]) -> Result<(), String> {
        let kind = rest.first().ok_or("skips wants the kind of packet")?;
        loop {
            match self.read(name, PATIENCE)? {
                Event::Packet(bytes) if self.decode(&bytes)?.kind == kind => {}
                Event::Packet(bytes) => {
                    self.open(name)?.unread(bytes);
                    return Ok(());
                }
                Event::Closed => return Ok(()),
                Event::Nothing => return Err(format!("after {kind} nothing came")),
            }
        }
    }

    /// The server closes; in 5.0 after a DISCONNECT with one of the codes, if codes are named. Without codes it may say
    /// any or none.
    fn ends(&mut self, name: &str, codes: &[String]) -> Result<(), String> {
        let wanted = match codes.split_first() {
            Some((first, more)) => {
                let mut wanted = with("disconnect", &[format!("code={first}")]);
                for code in more {
                    wanted.extend(with("| disconnect", &[format!("code={code}")]));
                }
                wanted
            }
            None if self.level == 5 => with("disconnect code=0x80.. | close", &[]),
            None => vec!["close".into()],
        };
        self.expect(name, &wanted)?;
        if self.connections.contains_key(name) { self.expect(name, &["close".into()]) } else { Ok(()) }
    }

    /// The server refuses the CONNECT with one of the codes and closes; `close` among them: it may close at once.
    fn is_refused(&mut self, name: &str, codes: &[String]) -> Result<(), String> {
        let mut wanted: Vec<String> = Vec::new();
        for code in codes {
            if !wanted.is_empty() {
                wanted.push("|".into());
            }
            match code.as_str() {
                "close" => wanted.push("close".into()),
                code => wanted.extend(with("connack", &[format!("code={code}")])),
            }
        }
        self.expect(name, &wanted)?;
        if self.connections.contains_key(name) { self.expect(name, &["close".into()]) } else { Ok(()) }
    }

    /// Nothing may be left that no step expected.
    fn finish(mut self) -> Result<(), String> {
        let names: Vec<String> = self.connections.keys().cloned().collect();
        for name in names {
            let event = self.read(&name, Duration::ZERO)?;
            if let Event::Packet(_) = event {
                return Err(format!("at the end {name} got {} besides", self.show(&event)));
            }
            self.send(&name, &["disconnect".into()])?;
        }
        Ok(())
    }
}

/// `200ms` or `2s`.
fn duration(text: Option<&String>) -> Result<Duration, String> {
    let text = text.map(String::as_str).unwrap_or_default();
    let millis = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(millis), _) => millis.parse().ok(),
        (None, Some(seconds)) => seconds.parse::<u64>().ok().map(|seconds| seconds * 1000),
        (None, None) => None,
    };
    millis.map(Duration::from_millis).ok_or_else(|| format!("{text:?} is not like 200ms or 2s"))
}

#[expect(clippy::disallowed_methods, reason = "a case that sleeps plays a client that waits")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
