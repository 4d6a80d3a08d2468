//! Makes the bytes of a packet from its words. It writes what it is told, wrong or right: what a server does with
//! malformed packets is half of what the cases ask.
//!
//! Words that every packet knows, for making it wrong: `header=` (first byte), `length=hex:` (Remaining Length as raw
//! bytes), `trailing=hex:` (appended to the body), `property=hex:` (appended to the properties as it is),
//! `property-length=` (instead of the right one), `short=N` (the last N bytes are missing, and so says the length).

use crate::property::{self, Kind};
use crate::read::Value;
use crate::text::{self, Word};

/// What a value may refer to while a packet is made.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Protocol level of the connection: 3, 4 or 5.
    pub level: u8,
    /// For `{u}`.
    pub unique: &'a str,
    /// Values that `name=@variable` in an expectation has bound.
    pub bound: &'a dyn Fn(&str) -> Option<Value>,
}

/// The bytes of packet `kind` with `words`.
pub fn encode(kind: &str, words: &[Word], context: Context<'_>) -> Result<Vec<u8>, String> {
    let mut packet = Packet { words, context, used: vec![false; words.len()] };
    let (first, mut body) = match kind {
        "hex" => return packet.raw(),
        "connect" => (0x10, packet.connect()?),
        "connack" => (0x20, packet.plain(&["flags", "code"])?),
        "publish" => packet.publish()?,
        "puback" => (0x40, packet.acknowledgement()?),
        "pubrec" => (0x50, packet.acknowledgement()?),
        "pubrel" => (0x62, packet.acknowledgement()?),
        "pubcomp" => (0x70, packet.acknowledgement()?),
        "subscribe" => (0x82, packet.subscribe()?),
        "suback" => (0x90, packet.id_and_properties()?),
        "unsubscribe" => (0xa2, packet.unsubscribe()?),
        "unsuback" => (0xb0, packet.id_and_properties()?),
        "pingreq" => (0xc0, Vec::new()),
        "pingresp" => (0xd0, Vec::new()),
        "disconnect" => (0xe0, packet.code_and_properties()?),
        "auth" => (0xf0, packet.code_and_properties()?),
        _ => return Err(format!("no packet is called {kind:?}")),
    };
    body.extend(packet.bytes("trailing")?.unwrap_or_default());
    let missing = packet.number("short")?.unwrap_or(0) as usize;
    body.truncate(body.len().saturating_sub(missing));
    let mut out = vec![packet.number("header")?.map_or(first, |byte| byte as u8)];
    match packet.bytes("length")? {
        Some(raw) => out.extend(raw),
        None => put_variable(&mut out, body.len() as u64),
    }
    out.extend(body);
    packet.finish()?;
    Ok(out)
}

struct Packet<'a> {
    words: &'a [Word],
    context: Context<'a>,
    used: Vec<bool>,
}

impl Packet<'_> {
    fn raw(&self) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        for word in self.words {
            match &word.value {
                Some(value) if word.key == "text" => out.extend(text::bytes(value, self.context.unique)?),
                None => out.extend(text::hex(&word.key)?),
                Some(_) => return Err(format!("{} is neither hex digits nor text=", word.key)),
            }
        }
        Ok(out)
    }

    /// MQTT 5.0, 3.1.
    fn connect(&mut self) -> Result<Vec<u8>, String> {
        let level = self.number("level")?.unwrap_or(self.context.level.into());
        let name =
            self.bytes("name")?.unwrap_or_else(|| if level == 3 { b"MQIsdp".into() } else { b"MQTT".into() });
        let (username, password) = (self.bytes("username")?, self.bytes("password")?);
        let (will_topic, will_payload) = (self.bytes("will-topic")?, self.bytes("will-payload")?);
        let has_will = will_topic.is_some() || will_payload.is_some();
        let flags = u64::from(username.is_some()) << 7
            | u64::from(password.is_some()) << 6
            | u64::from(self.flag("will-retain")) << 5
            | self.number("will-qos")?.unwrap_or(0) << 3
            | u64::from(has_will) << 2
            | u64::from(self.flag("clean")) << 1;
        let mut body = Vec::new();
        put_prefixed(&mut body, &name)?;
        body.push(level as u8);
        body.push(self.number("flags")?.unwrap_or(flags) as u8);
        put_u16(&mut body, self.number("keep-alive")?.unwrap_or(60));
        if self.context.level == 5 {
            body.extend(self.properties("")?);
        }
        put_prefixed(&mut body, &self.bytes("id")?.unwrap_or_default())?;
        if has_will {
            if self.context.level == 5 {
                body.extend(self.properties("will.")?);
            }
            put_prefixed(&mut body, &will_topic.unwrap_or_default())?;
            put_prefixed(&mut body, &will_payload.unwrap_or_default())?;
        }
        for field in [username, password].into_iter().flatten() {
            put_prefixed(&mut body, &field)?;
        }
        Ok(body)
    }

    /// MQTT 5.0, 3.3.
    fn publish(&mut self) -> Result<(u8, Vec<u8>), String> {
        let qos = self.number("qos")?.unwrap_or(0);
        let first = 0x30 | u64::from(self.flag("dup")) << 3 | qos << 1 | u64::from(self.flag("retain"));
        let mut body = Vec::new();
        put_prefixed(&mut body, &self.bytes("topic")?.unwrap_or_default())?;
        let id = self.number("id")?;
        if qos > 0 || id.is_some() {
            put_u16(&mut body, id.unwrap_or(1));
        }
        if self.context.level == 5 {
            body.extend(self.properties("")?);
        }
        body.extend(self.bytes("payload")?.unwrap_or_default());
        Ok((first as u8, body))
    }

    /// MQTT 5.0, 3.4 to 3.7: code and properties may be left out when they say nothing.
    fn acknowledgement(&mut self) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        put_u16(&mut body, self.number("id")?.unwrap_or(1));
        body.extend(self.code_and_properties()?);
        Ok(body)
    }

    /// MQTT 5.0, 3.14 and 3.15: `code`, then properties; `long` writes a length of zero.
    fn code_and_properties(&mut self) -> Result<Vec<u8>, String> {
        let code = self.number("code")?;
        let properties = if self.context.level == 5 { self.properties("")? } else { Vec::new() };
        let has_properties = properties.len() > 1 || self.flag("long");
        let mut body = Vec::new();
        if code.is_some() || has_properties {
            body.push(code.unwrap_or(0) as u8);
        }
        if has_properties {
            body.extend(properties);
        }
        Ok(body)
    }

    fn id_and_properties(&mut self) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        put_u16(&mut body, self.number("id")?.unwrap_or(1));
        if self.context.level == 5 {
            body.extend(self.properties("")?);
        }
        Ok(body)
    }

    fn plain(&mut self, bytes: &[&str]) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        for name in bytes {
            body.push(self.number(name)?.unwrap_or(0) as u8);
        }
        Ok(body)
    }

    /// MQTT 5.0, 3.8: the words after a `filter=` are its options, up to the next one.
    fn subscribe(&mut self) -> Result<Vec<u8>, String> {
        let mut body = self.id_and_properties()?;
        let mut pending: Option<u8> = None;
        for at in 0..self.words.len() {
            let word = &self.words[at];
            let value = word.value.as_deref();
            let number = || text::number(value.unwrap_or("1")).map(|n| n as u8);
            let mut option = |bits: u8| match &mut pending {
                Some(options) => {
                    *options |= bits;
                    Ok(())
                }
                None => Err(format!("{} comes before any filter", word.key)),
            };
            match word.key.as_str() {
                "filter" => {
                    body.extend(pending.replace(0));
                    put_prefixed(&mut body, &text::bytes(value.unwrap_or_default(), self.context.unique)?)?;
                }
                "qos" => option(number()? & 3)?,
                "no-local" => option(4)?,
                "retain-as-published" => option(8)?,
                "retain-handling" => option((number()? & 3) << 4)?,
                "options" => option(number()?)?,
                _ => continue,
            }
            self.used[at] = true;
        }
        body.extend(pending);
        Ok(body)
    }

    fn unsubscribe(&mut self) -> Result<Vec<u8>, String> {
        let mut body = self.id_and_properties()?;
        while let Some(filter) = self.bytes("filter")? {
            put_prefixed(&mut body, &filter)?;
        }
        Ok(body)
    }

    /// Every word that names a property after `prefix`, in the order written, with their length before them.
    fn properties(&mut self, prefix: &str) -> Result<Vec<u8>, String> {
        let mut all = Vec::new();
        for at in 0..self.words.len() {
            let Word { key, value } = &self.words[at];
            let (Some(name), Some(value)) = (key.strip_prefix(prefix), value) else { continue };
            if name == "property" {
                all.extend(text::bytes(value, self.context.unique)?);
            } else if let Some(property) = property::by_name(name) {
                all.push(property.id);
                let value = self.resolve(value)?;
                put_property(&mut all, property.kind, &value, self.context.unique)?;
            } else {
                continue;
            }
            self.used[at] = true;
        }
        let length = self.number(&format!("{prefix}property-length"))?.unwrap_or(all.len() as u64);
        let mut out = Vec::new();
        put_variable(&mut out, length);
        out.extend(all);
        Ok(out)
    }

    fn take(&mut self, key: &str) -> Option<&str> {
        let at = (0..self.words.len()).find(|&at| !self.used[at] && self.words[at].key == key)?;
        self.used[at] = true;
        Some(self.words[at].value.as_deref().unwrap_or_default())
    }

    fn bytes(&mut self, key: &str) -> Result<Option<Vec<u8>>, String> {
        let Context { unique, bound, .. } = self.context;
        let Some(value) = self.take(key) else { return Ok(None) };
        match value.strip_prefix('@').map(|name| (name, bound(name))) {
            Some((_, Some(Value::Bytes(bytes)))) => Ok(Some(bytes)),
            Some((name, _)) => Err(format!("@{name} is not bound to a text")),
            None => text::bytes(value, unique).map(Some),
        }
    }

    fn number(&mut self, key: &str) -> Result<Option<u64>, String> {
        let bound = self.context.bound;
        let Some(value) = self.take(key) else { return Ok(None) };
        match value.strip_prefix('@').map(|name| (name, bound(name))) {
            Some((_, Some(Value::Number(number)))) => Ok(Some(number)),
            Some((name, _)) => Err(format!("@{name} is not bound to a number")),
            None => text::number(value).map(Some),
        }
    }

    /// The number that `@name` is bound to, as text; other values as they are.
    fn resolve(&self, value: &str) -> Result<String, String> {
        match value.strip_prefix('@').map(|name| (name, (self.context.bound)(name))) {
            None => Ok(value.to_owned()),
            Some((_, Some(Value::Number(number)))) => Ok(number.to_string()),
            Some((name, _)) => Err(format!("@{name} is not bound to a number")),
        }
    }

    fn flag(&mut self, key: &str) -> bool {
        self.take(key).is_some()
    }

    fn finish(&self) -> Result<(), String> {
        match self.used.iter().position(|used| !used) {
            Some(at) => Err(format!("the word {:?} means nothing here", self.words[at].key)),
            None => Ok(()),
        }
    }
}

fn put_property(out: &mut Vec<u8>, kind: Kind, value: &str, unique: &str) -> Result<(), String> {
    match kind {
        Kind::Byte => out.push(text::number(value)? as u8),
        Kind::Two => put_u16(out, text::number(value)?),
        Kind::Four => out.extend_from_slice(&(text::number(value)? as u32).to_be_bytes()),
        Kind::Variable => put_variable(out, text::number(value)?),
        Kind::Binary | Kind::Text => put_prefixed(out, &text::bytes(value, unique)?)?,
        Kind::Pair => {
            let (key, value) = value.split_once(':').ok_or("a user-property is written key:value")?;
            put_prefixed(out, &text::bytes(key, unique)?)?;
            put_prefixed(out, &text::bytes(value, unique)?)?;
        }
    }
    Ok(())
}

fn put_u16(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&(value as u16).to_be_bytes());
}

fn put_prefixed(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), String> {
    let length = u16::try_from(bytes.len()).map_err(|_| "a field has at most 65,535 bytes".to_owned())?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

/// MQTT 5.0, 1.5.5.
fn put_variable(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let more = value > 127;
        out.push((value & 0x7f) as u8 | u8::from(more) << 7);
        value >>= 7;
        if !more {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(level: u8, line: &str) -> Result<Vec<u8>, String> {
        let words: Vec<Word> = text::words(line)?.iter().map(|w| text::word(w)).collect();
        encode(&words[0].key, &words[1..], Context { level, unique: "U", bound: &|_| Some(Value::Number(7)) })
    }

    #[test]
    fn a_connect_has_the_bytes_of_the_standard() {
        let bytes = made(4, "connect clean id={u} username=n password=p keep-alive=10").unwrap();
        assert_eq!(bytes, b"\x10\x13\x00\x04MQTT\x04\xc2\x00\x0a\x00\x01U\x00\x01n\x00\x01p");
        let bytes =
            made(5, "connect id=c receive-maximum=2 will-topic=t will-payload=p will.will-delay-interval=1");
        assert_eq!(
            bytes.unwrap(),
            b"\x10\x1d\x00\x04MQTT\x05\x04\x00\x3c\x03\x21\x00\x02\x00\x01c\x05\x18\0\0\0\x01\x00\x01t\x00\x01p"
        );
        assert_eq!(made(3, "connect clean id=c").unwrap()[2..10], *b"\x00\x06MQIsdp");
    }

    #[test]
    fn a_publish_and_its_acknowledgement_use_what_was_bound() {
        assert_eq!(
            made(5, "publish topic=t qos=1 id=5 retain payload=x").unwrap(),
            b"\x33\x07\0\x01t\0\x05\0x"
        );
        assert_eq!(made(5, "puback id=@p").unwrap(), b"\x40\x02\0\x07");
        assert_eq!(made(5, "pubrec id=1 code=0x80").unwrap(), b"\x50\x03\0\x01\x80");
        assert_eq!(made(5, "pubcomp id=1 long").unwrap(), b"\x70\x04\0\x01\0\0");
    }

    #[test]
    fn each_filter_has_its_own_options() {
        let bytes = made(5, "subscribe id=9 filter=a qos=1 no-local filter=b retain-handling=2").unwrap();
        assert_eq!(bytes, b"\x82\x0b\0\x09\0\0\x01a\x05\0\x01b\x20");
    }

    #[test]
    fn a_packet_can_be_made_wrong() {
        assert_eq!(
            made(4, "pingreq header=0xc1 length=hex:8080808001").unwrap(),
            b"\xc1\x80\x80\x80\x80\x01"
        );
        assert_eq!(made(4, "subscribe id=1 filter=a short=1").unwrap(), b"\x82\x05\0\x01\0\x01a");
        assert_eq!(made(4, "hex 10 0c text=ab").unwrap(), b"\x10\x0cab");
    }

    #[test]
    fn a_word_that_means_nothing_is_a_mistake_of_the_case() {
        assert!(made(4, "publish topic=t qso=1").is_err());
        assert!(made(4, "subscribe qos=1 filter=a").is_err());
    }
}
