//! Compares a packet that came with the words of an expectation.
//!
//! A word asks for one field: `name=value`, `name=5..10` (a range of numbers), `name=*` (there, whatever it is), `-name`
//! (not there), `name` alone (a flag that is set), `name=@variable` (binds it, or compares with what is bound). `size=`
//! is the length of the whole packet, `payload-has=` a part of the payload, `codes=0,0x8f` all codes in their order.
//! `user-property` repeated is compared in order, `subscription-identifier` in any.
//!
//! What is not named: DUP, QoS and RETAIN of a publish are 0, and it has no property; a code is a success. Other fields
//! are not looked at.

use crate::property;
use crate::read::{Packet, Value};
use crate::text::{self, Word};
use std::collections::BTreeMap;

/// Values bound so far in a case.
pub type Bound = BTreeMap<String, Value>;

/// Whether `packet`, of `size` bytes, is what `kind` with `words` describes; what it binds is added only if it is.
pub fn compare(
    packet: &Packet,
    size: usize,
    kind: &str,
    words: &[Word],
    unique: &str,
    bound: &mut Bound,
) -> Result<(), String> {
    if packet.kind != kind {
        return Err(format!("expected {kind}, got {}", show(packet)));
    }
    let mut new = Bound::new();
    for (at, word) in words.iter().enumerate() {
        let is_first = words[..at].iter().all(|earlier| earlier.key != word.key);
        if is_first || !may_repeat(&word.key) {
            field(packet, size, word, words, unique, bound, &mut new)
                .map_err(|why| format!("{why}, got {}", show(packet)))?;
        }
    }
    unnamed(packet, words).map_err(|why| format!("{why}, got {}", show(packet)))?;
    bound.append(&mut new);
    Ok(())
}

/// A packet as a line of a case would describe it.
pub fn show(packet: &Packet) -> String {
    let mut line = packet.kind.to_owned();
    for (name, value) in &packet.fields {
        line += &match value {
            Value::Number(number) if name.starts_with("code") => format!(" {name}={number:#04x}"),
            Value::Number(number) => format!(" {name}={number}"),
            Value::Bytes(bytes) => format!(" {name}={}", text::show(bytes)),
            Value::Pair(key, value) => format!(" {name}={}:{}", text::show(key), text::show(value)),
        };
    }
    line
}

fn may_repeat(key: &str) -> bool {
    matches!(key, "user-property" | "subscription-identifier")
}

fn field(
    packet: &Packet,
    size: usize,
    word: &Word,
    words: &[Word],
    unique: &str,
    bound: &Bound,
    new: &mut Bound,
) -> Result<(), String> {
    let key = word.key.as_str();
    if let Some(name) = key.strip_prefix('-') {
        return match packet.values(name).next() {
            Some(_) => Err(format!("expected no {name}")),
            None => Ok(()),
        };
    }
    let Some(wanted) = &word.value else {
        return if packet.number(key) == Some(1) { Ok(()) } else { Err(format!("expected {key}")) };
    };
    if may_repeat(key) {
        return repeated(packet, key, words, unique);
    }
    match key {
        "size" => {
            return if in_range(size as u64, wanted)? { Ok(()) } else { Err(format!("{size} bytes long")) };
        }
        "payload-has" => {
            let part = text::bytes(wanted, unique)?;
            let is_there = packet.values("payload").any(
                |value| matches!(value, Value::Bytes(all) if all.windows(part.len()).any(|window| window == part)),
            );
            return if is_there { Ok(()) } else { Err(format!("expected {wanted:?} in the payload")) };
        }
        "codes" => {
            let wanted: Vec<u64> = wanted.split(',').map(text::number).collect::<Result<_, _>>()?;
            let got: Vec<u64> = packet.values("codes").filter_map(as_number).collect();
            return if got == wanted { Ok(()) } else { Err(format!("expected codes {}", hex_list(&wanted))) };
        }
        _ => {}
    }
    let value = packet.values(key).next().ok_or_else(|| format!("expected {key}"))?;
    if let Some(name) = wanted.strip_prefix('@') {
        return match bound.get(name).or_else(|| new.get(name)) {
            Some(earlier) if earlier == value => Ok(()),
            Some(_) => Err(format!("{key} is not what @{name} was")),
            None => {
                new.insert(name.to_owned(), value.clone());
                Ok(())
            }
        };
    }
    let is_right = wanted == "*"
        || match value {
            Value::Number(number) => in_range(*number, wanted)?,
            Value::Bytes(bytes) => *bytes == text::bytes(wanted, unique)?,
            Value::Pair(..) => false,
        };
    if is_right { Ok(()) } else { Err(format!("expected {key}={wanted}")) }
}

fn repeated(packet: &Packet, key: &str, words: &[Word], unique: &str) -> Result<(), String> {
    let wanted = words.iter().filter(|word| word.key == key).filter_map(|word| word.value.as_deref());
    let mut got: Vec<Value> = packet.values(key).cloned().collect();
    let mut all = Vec::new();
    for text in wanted {
        all.push(match text.split_once(':') {
            Some((name, value)) => Value::Pair(text::bytes(name, unique)?, text::bytes(value, unique)?),
            None => Value::Number(text::number(text)?),
        });
    }
    if key == "subscription-identifier" {
        all.sort_by_key(as_number);
        got.sort_by_key(as_number);
    }
    if all == got { Ok(()) } else { Err(format!("expected {} of {key}", all.len())) }
}

fn unnamed(packet: &Packet, words: &[Word]) -> Result<(), String> {
    let is_named = |name: &str| words.iter().any(|word| word.key.trim_start_matches('-') == name);
    if packet.kind == "publish" {
        for name in ["dup", "qos", "retain"] {
            if !is_named(name) && packet.number(name) != Some(0) {
                return Err(format!("expected {name}=0"));
            }
        }
        if let Some((name, _)) =
            packet.fields.iter().find(|(name, _)| property::by_name(name).is_some() && !is_named(name))
        {
            return Err(format!("expected no {name}"));
        }
    }
    let has_outcome = matches!(packet.kind, "connack" | "puback" | "pubrec" | "pubrel" | "pubcomp");
    match packet.number("code") {
        Some(0 | 0x10) | None => Ok(()),
        Some(_) if !has_outcome || is_named("code") => Ok(()),
        Some(_) => Err("expected success".into()),
    }
}

fn hex_list(codes: &[u64]) -> String {
    codes.iter().map(|code| format!("{code:#04x}")).collect::<Vec<_>>().join(",")
}

fn as_number(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => Some(*number),
        _ => None,
    }
}

/// `5`, `5..10`, `5..` or `..10`, the last included.
fn in_range(number: u64, wanted: &str) -> Result<bool, String> {
    let Some((low, high)) = wanted.split_once("..") else { return Ok(text::number(wanted)? == number) };
    let low = if low.is_empty() { 0 } else { text::number(low)? };
    let high = if high.is_empty() { u64::MAX } else { text::number(high)? };
    Ok((low..=high).contains(&number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::decode;

    fn check(bytes: &[u8], line: &str, bound: &mut Bound) -> Result<(), String> {
        let words: Vec<Word> = text::words(line)?.iter().map(|w| text::word(w)).collect();
        compare(&decode(bytes, 5)?, bytes.len(), &words[0].key, &words[1..], "U", bound)
    }

    const PUBLISH: &[u8] = b"\x33\x0a\0\x01t\0\x05\x02\x0b\x09xy";

    #[test]
    fn every_named_field_must_be_right() {
        let line = "publish topic=t qos=1 retain id=1..9 payload=xy subscription-identifier=9 size=..12";
        assert_eq!(check(PUBLISH, line, &mut Bound::new()), Ok(()));
        for wrong in ["topic=t", "payload=xy", "id=1..9", "subscription-identifier=9", "size=..12"] {
            let broken = match wrong.split_once('=') {
                Some((key, _)) => line.replace(wrong, &format!("{key}=77")),
                None => unreachable!(),
            };
            assert!(check(PUBLISH, &broken, &mut Bound::new()).is_err(), "{broken}");
        }
    }

    #[test]
    fn flags_and_properties_that_nobody_named_are_wrong() {
        assert!(check(PUBLISH, "publish retain qos=1", &mut Bound::new()).is_err());
        assert!(check(PUBLISH, "publish qos=1 subscription-identifier=9", &mut Bound::new()).is_err());
        assert!(check(PUBLISH, "publish retain subscription-identifier=9", &mut Bound::new()).is_err());
        assert!(check(b"\x40\x03\0\x01\x87", "puback id=1", &mut Bound::new()).is_err());
        assert!(check(b"\x40\x03\0\x01\x10", "puback id=1", &mut Bound::new()).is_ok());
    }

    #[test]
    fn a_variable_is_bound_once_and_compared_after() {
        let mut bound = Bound::new();
        assert_eq!(check(b"\x40\x02\0\x05", "puback id=@p", &mut bound), Ok(()));
        assert_eq!(check(b"\x40\x02\0\x05", "puback id=@p", &mut bound), Ok(()));
        assert!(check(b"\x40\x02\0\x06", "puback id=@p", &mut bound).is_err());
    }

    #[test]
    fn codes_are_compared_in_order() {
        let suback = b"\x90\x05\0\x01\0\x01\x8f";
        assert_eq!(check(suback, "suback codes=1,0x8f", &mut Bound::new()), Ok(()));
        assert!(check(suback, "suback codes=0x8f,1", &mut Bound::new()).is_err());
    }
}
