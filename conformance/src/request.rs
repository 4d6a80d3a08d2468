//! Steps that are a request with its answer: `joins`, `subscribes`, `publishes`, `takes`, …

use crate::play::Player;
use crate::read::Value;
use crate::scram::{Exchange, METHOD};
use crate::text;

impl Player<'_> {
    /// `joins <words of connect> [-> <words of connack>]`.
    pub(crate) fn joins(&mut self, name: &str, rest: &[String]) -> Result<(), String> {
        let (words, wanted) = halves(rest);
        self.send(name, &with("connect", words))?;
        self.expect(name, &with("connack", wanted))
    }

    /// Authenticates by SCRAM-SHA-256 (MQTT 5.0, 4.12) with a CONNECT or, again, with an AUTH: `user=` and `password=`,
    /// and the words of the packet. Expects success and the server's own proof, or what follows `->`.
    pub(crate) fn scrams(&mut self, name: &str, packet: &str, rest: &[String]) -> Result<(), String> {
        let (words, wanted) = halves(rest);
        let value = |key: &str| words.iter().find_map(|word| word.strip_prefix(key));
        let (Some(user), Some(password)) = (value("user="), value("password=")) else {
            return Err("scrams wants user= and password=".into());
        };
        let exchange = Exchange::new(user, password, self.unique);
        let rest: Vec<String> = words
            .iter()
            .filter(|w| !w.starts_with("user=") && !w.starts_with("password="))
            .cloned()
            .collect();
        let method = format!("authentication-method={METHOD}");
        let data = |text: &str| format!("authentication-data=hex:{}", text::hex_digits(text.as_bytes()));
        let mut first = with(packet, &rest);
        first.extend([method.clone(), data(&exchange.first())]);
        self.send(name, &first)?;
        self.bound.remove("scram");
        self.expect(name, &with("auth code=0x18 authentication-data=@scram", std::slice::from_ref(&method)))?;
        let Some(Value::Bytes(server_first)) = self.bound.remove("scram") else {
            return Err("no data".into());
        };
        let last = exchange.answer(&String::from_utf8_lossy(&server_first))?;
        self.send(name, &with("auth code=0x18", &[method.clone(), data(&last.client)]))?;
        let answer = if packet == "connect" { "connack" } else { "auth" };
        match wanted {
            [] => self.expect(name, &with(&format!("{answer} code=0"), &[method, data(&last.server)])),
            [kind, ..] if kind.contains('=') => self.expect(name, &with(answer, wanted)),
            _ => self.expect(name, wanted),
        }
    }

    /// Granted as asked, unless `-> codes=` says otherwise.
    pub(crate) fn subscribes(&mut self, name: &str, rest: &[String]) -> Result<(), String> {
        let (words, wanted) = halves(rest);
        let id = self.fresh_id();
        self.send(name, &with(&format!("subscribe id={id}"), words))?;
        let mut granted: Vec<String> = Vec::new();
        for word in words.iter().map(|w| text::word(w)) {
            match (word.key.as_str(), granted.last_mut()) {
                ("filter", _) => granted.push("0".into()),
                ("qos", Some(last)) => *last = word.value.unwrap_or_default(),
                _ => {}
            }
        }
        let mut expected = with(&format!("suback id={id}"), wanted);
        if !wanted.iter().any(|word| word.starts_with("codes=")) {
            expected.push(format!("codes={}", granted.join(",")));
        }
        self.expect(name, &expected)
    }

    pub(crate) fn unsubscribes(&mut self, name: &str, rest: &[String]) -> Result<(), String> {
        let (words, wanted) = halves(rest);
        let id = self.fresh_id();
        self.send(name, &with(&format!("unsubscribe id={id}"), words))?;
        let mut expected = with(&format!("unsuback id={id}"), wanted);
        if self.level == 5 && !wanted.iter().any(|word| word.starts_with("codes=")) {
            let filters = words.iter().filter(|word| word.starts_with("filter=")).count();
            expected.push(format!("codes={}", vec!["0"; filters].join(",")));
        }
        self.expect(name, &expected)
    }

    /// Sends a PUBLISH and completes what its QoS asks for.
    pub(crate) fn publishes(&mut self, name: &str, rest: &[String]) -> Result<(), String> {
        let qos = qos(rest);
        let id = self.fresh_id();
        let mut words = with("publish", rest);
        if qos > 0 && !rest.iter().any(|word| word.starts_with("id=")) {
            words.push(format!("id={id}"));
        }
        self.send(name, &words)?;
        let id = words.iter().find(|word| word.starts_with("id=")).cloned().unwrap_or_default();
        match qos {
            1 => self.expect(name, &["puback".into(), id]),
            2 => {
                self.expect(name, &["pubrec".into(), id.clone()])?;
                self.send(name, &["pubrel".into(), id.clone()])?;
                self.expect(name, &["pubcomp".into(), id])
            }
            _ => Ok(()),
        }
    }

    /// Expects a PUBLISH and completes what its QoS asks for.
    pub(crate) fn takes(&mut self, name: &str, rest: &[String]) -> Result<(), String> {
        let mut words = with("publish", rest);
        let qos = qos(rest);
        if qos == 0 {
            return self.expect(name, &words);
        }
        self.bound.remove("taken");
        words.push("id=@taken".into());
        self.expect(name, &words)?;
        let Some(Value::Number(id)) = self.bound.remove("taken") else {
            return Err("no packet identifier".into());
        };
        let id = format!("id={id}");
        if qos == 1 {
            return self.send(name, &["puback".into(), id]);
        }
        self.send(name, &["pubrec".into(), id.clone()])?;
        self.expect(name, &["pubrel".into(), id.clone()])?;
        self.send(name, &["pubcomp".into(), id])
    }

    fn fresh_id(&mut self) -> u16 {
        self.next_id += 1;
        self.next_id
    }
}

pub(crate) fn with(first: &str, rest: &[String]) -> Vec<String> {
    first.split(' ').map(str::to_owned).chain(rest.iter().cloned()).collect()
}

fn halves(words: &[String]) -> (&[String], &[String]) {
    match words.iter().position(|word| word == "->") {
        Some(at) => (&words[..at], &words[at + 1..]),
        None => (words, &[]),
    }
}

fn qos(words: &[String]) -> u64 {
    words.iter().find_map(|word| word.strip_prefix("qos=")?.parse().ok()).unwrap_or(0)
}
