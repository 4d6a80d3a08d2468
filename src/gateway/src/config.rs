//! Reading configuration so that **all** mistakes are found at once, each with its key, place and a suggestion.
//!
//! Every gateway and layer reads its own section: it takes the keys it knows, and what is left over is a mistake. Where
//! the values came from (TOML file, environment) is the business of who made the [`Value`]s.

use std::collections::BTreeMap;
use std::time::Duration;

/// Where a value stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// File name or environment variable.
    pub source: std::sync::Arc<str>,
    /// Line from 1; 0 where lines make no sense.
    pub line: u32,
}

/// A value with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// What it is.
    pub kind: Kind,
    /// Where it stands.
    pub place: Place,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// true or false.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Value>),
    /// Keys with values.
    Table(BTreeMap<String, Value>),
}

impl Kind {
    fn name(&self) -> &'static str {
        match self {
            Kind::Bool(_) => "true or false",
            Kind::Integer(_) => "a whole number",
            Kind::Float(_) => "a number",
            Kind::Text(_) => "text",
            Kind::List(_) => "a list",
            Kind::Table(_) => "a section",
        }
    }
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where.
    pub place: Place,
    /// Full key, such as `mqtt.listeners.tcp.bind`.
    pub key: String,
    /// What is wrong, and what would be right.
    pub text: String,
}

impl std::fmt::Display for Mistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.place.line > 0 {
            write!(f, "{}:{}: {}: {}", self.place.source, self.place.line, self.key, self.text)
        } else {
            write!(f, "{}: {}: {}", self.place.source, self.key, self.text)
        }
    }
}

/// One table of the configuration while it is read. [`Section::finish`] must be called: it reports unknown keys.
#[derive(Debug)]
pub struct Section<'m> {
    path: String,
    place: Place,
    left: BTreeMap<String, Value>,
    known: Vec<&'static str>,
    mistakes: &'m mut Vec<Mistake>,
}

impl<'m> Section<'m> {
    /// Reads `value`, which stands at `path`. A value that is no table is reported and read as an empty one.
    pub fn new(path: &str, value: Value, mistakes: &'m mut Vec<Mistake>) -> Section<'m> {
        let place = value.place.clone();
        let left = match value.kind {
            Kind::Table(table) => table,
            other => {
                let text = format!("must be a section, not {}", other.name());
                mistakes.push(Mistake { place: place.clone(), key: path.to_owned(), text });
                BTreeMap::new()
            }
        };
        Section { path: path.to_owned(), place, left, known: Vec::new(), mistakes }
    }

    /// The full key of `key` in this section.
    pub fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Where the section stands.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Reports a mistake about `key` at `place`.
    pub fn mistake(&mut self, place: Place, key: &str, text: impl Into<String>) {
        let key = self.key(key);
        self.mistakes.push(Mistake { place, key, text: text.into() });
    }

    /// Takes the value of `key` as it stands.
    pub fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.left.remove(key)
    }

    /// Whether `key` stands here.
    pub fn has(&self, key: &str) -> bool {
        self.left.contains_key(key)
    }

    /// Takes a value through `read`, which says what would be right if it does not like it.
    pub fn read<T>(&mut self, key: &'static str, read: impl FnOnce(&Kind) -> Result<T, String>) -> Option<T> {
        let value = self.take(key)?;
        match read(&value.kind) {
            Ok(t) => Some(t),
            Err(text) => {
                self.mistake(value.place, key, text);
                None
            }
        }
    }

    /// Text.
    pub fn text(&mut self, key: &'static str) -> Option<String> {
        self.read(key, |k| match k {
            Kind::Text(t) => Ok(t.clone()),
            other => Err(format!("must be text, not {}", other.name())),
        })
    }

    /// true or false.
    pub fn flag(&mut self, key: &'static str, default: bool) -> bool {
        self.read(key, |k| match k {
            Kind::Bool(b) => Ok(*b),
            other => Err(format!("must be true or false, not {}", other.name())),
        })
        .unwrap_or(default)
    }

    /// A whole number within `range`.
    pub fn number<T>(&mut self, key: &'static str, default: T, range: std::ops::RangeInclusive<T>) -> T
    where
        T: Copy + PartialOrd + TryFrom<i64> + std::fmt::Display,
    {
        self.read(key, |k| {
            let text = || format!("must be a whole number from {} to {}", range.start(), range.end());
            let Kind::Integer(n) = k else { return Err(text()) };
            T::try_from(*n).ok().filter(|n| range.contains(n)).ok_or_else(text)
        })
        .unwrap_or(default)
    }

    /// A size in bytes: a whole number, or text such as `"256 KiB"`, within `range`.
    pub fn size(
        &mut self,
        key: &'static str,
        default: usize,
        range: std::ops::RangeInclusive<usize>,
    ) -> usize {
        self.read(key, |k| {
            let text = || {
                format!(
                    "must be a size such as 65536 or \"256 KiB\", from {} to {} bytes",
                    range.start(),
                    range.end()
                )
            };
            let bytes = match k {
                Kind::Integer(n) => usize::try_from(*n).ok(),
                Kind::Text(t) => parse_size(t),
                _ => None,
            };
            bytes.filter(|n| range.contains(n)).ok_or_else(text)
        })
        .unwrap_or(default)
    }

    /// A time span: text such as `"10 s"`, `"500 ms"`, `"2 h"`, within `range`.
    pub fn duration(
        &mut self,
        key: &'static str,
        default: Duration,
        range: std::ops::RangeInclusive<Duration>,
    ) -> Duration {
        self.read(key, |k| {
            let text = || {
                format!(
                    "must be a time such as \"10 s\", \"500 ms\" or \"2 h\", from {:?} to {:?}",
                    range.start(),
                    range.end()
                )
            };
            let Kind::Text(t) = k else { return Err(text()) };
            parse_duration(t).filter(|d| range.contains(d)).ok_or_else(text)
        })
        .unwrap_or(default)
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&mut self, key: &'static str, default: T, words: &[(&str, T)]) -> T {
        self.read(key, |k| {
            let list = || words.iter().map(|(w, _)| format!("\"{w}\"")).collect::<Vec<_>>().join(", ");
            let Kind::Text(t) = k else { return Err(format!("must be one of {}", list())) };
            words.iter().find(|(w, _)| w == t).map(|&(_, v)| v).ok_or_else(|| {
                let near = nearest(t, words.iter().map(|&(w, _)| w));
                let hint = near.map(|w| format!("; did you mean \"{w}\"?")).unwrap_or_default();
                format!("\"{t}\" is none of {}{hint}", list())
            })
        })
        .unwrap_or(default)
    }

    /// Text that parses into `T`; `what` names it in the mistake, such as `an address such as "0.0.0.0:1883"`.
    pub fn parsed<T: std::str::FromStr>(&mut self, key: &'static str, what: &str) -> Option<T> {
        self.read(key, |k| {
            let Kind::Text(t) = k else { return Err(format!("must be {what}")) };
            t.parse().map_err(|_| format!("\"{t}\" is not {what}"))
        })
    }

    /// A list of texts.
    pub fn texts(&mut self, key: &'static str) -> Option<Vec<String>> {
        self.read(key, |k| {
            let text = || "must be a list of texts such as [\"a\", \"b\"]".to_owned();
            let Kind::List(list) = k else { return Err(text()) };
            list.iter()
                .map(|v| if let Kind::Text(t) = &v.kind { Ok(t.clone()) } else { Err(text()) })
                .collect()
        })
    }

    /// A section below this one; an absent one reads as empty.
    pub fn section(&mut self, key: &'static str) -> Section<'_> {
        let place = self.place.clone();
        let value = self.take(key).unwrap_or(Value { kind: Kind::Table(BTreeMap::new()), place });
        let path = self.key(key);
        Section::new(&path, value, self.mistakes)
    }

    /// Reads every entry of the section `key` by its name, such as listeners.
    pub fn sections<T>(&mut self, key: &'static str, mut read: impl FnMut(&str, Section<'_>) -> T) -> Vec<T> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let path = self.key(key);
        let Kind::Table(table) = value.kind else {
            let text = format!("must be a section, not {}", value.kind.name());
            self.mistakes.push(Mistake { place: value.place, key: path, text });
            return Vec::new();
        };
        table
            .into_iter()
            .map(|(name, value)| {
                let section = Section::new(&format!("{path}.{name}"), value, self.mistakes);
                read(&name, section)
            })
            .collect()
    }

    /// Reads every entry of the list of sections `key` (`[[key]]` in TOML).
    pub fn list<T>(&mut self, key: &'static str, mut read: impl FnMut(Section<'_>) -> T) -> Vec<T> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let path = self.key(key);
        let Kind::List(list) = value.kind else {
            let text = format!("must be a list of sections ([[{path}]]), not {}", value.kind.name());
            self.mistakes.push(Mistake { place: value.place, key: path, text });
            return Vec::new();
        };
        list.into_iter()
            .enumerate()
            .map(|(i, value)| read(Section::new(&format!("{path}[{i}]"), value, self.mistakes)))
            .collect()
    }

    /// Reports what nobody took.
    pub fn finish(self) {
        for (key, value) in &self.left {
            let hint = nearest(key, self.known.iter().copied());
            let text = match hint {
                Some(near) => format!("unknown key; did you mean `{near}`?"),
                None => {
                    let mut known = self.known.clone();
                    known.sort_unstable();
                    known.dedup();
                    format!("unknown key; known here: {}", known.join(", "))
                }
            };
            let key = if self.path.is_empty() { key.clone() } else { format!("{}.{key}", self.path) };
            self.mistakes.push(Mistake { place: value.place.clone(), key, text });
        }
    }
}

/// A size such as `64 KiB`, `1 MB`, `512`, in bytes.
pub fn parse_size(text: &str) -> Option<usize> {
    let (number, unit) = split_unit(text)?;
    let factor: usize = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "GiB" => 1 << 30,
        _ => return None,
    };
    usize::try_from(number).ok()?.checked_mul(factor)
}

/// A time such as `500 ms`, `10 s`, `5 min`, `2 h`, `7 d`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim()))
}

/// The candidate that `text` most likely was meant to be: at most a third of its letters differ.
pub fn nearest<'a>(text: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|c| (distance(text, c), c))
        .filter(|&(d, c)| d <= c.len().max(text.len()).div_ceil(3))
        .min_by_key(|&(d, _)| d)
        .map(|(_, c)| c)
}

/// Levenshtein's distance in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[(&str, Kind)]) -> Value {
        let place = |line| Place { source: "t.toml".into(), line };
        let entries = entries
            .iter()
            .zip(1..)
            .map(|((k, v), line)| ((*k).to_owned(), Value { kind: v.clone(), place: place(line) }));
        Value { kind: Kind::Table(entries.collect()), place: place(0) }
    }

    #[test]
    fn every_mistake_is_reported_with_place_key_and_suggestion() {
        let mut mistakes = Vec::new();
        let value = table(&[
            ("max_packt_size", Kind::Integer(3)),
            ("keep_alive", Kind::Text("10 parsec".into())),
            ("on_full", Kind::Text("drop_oldst".into())),
            ("qos", Kind::Integer(9)),
        ]);
        let mut s = Section::new("mqtt", value, &mut mistakes);
        s.size("max_packet_size", 1, 0..=10);
        s.duration("keep_alive", Duration::ZERO, Duration::ZERO..=Duration::from_secs(100));
        s.choice("on_full", 0, &[("drop_oldest", 0), ("refuse", 1)]);
        assert_eq!(s.number("qos", 1, 0..=2), 1);
        s.finish();
        let text: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            [
                "t.toml:2: mqtt.keep_alive: must be a time such as \"10 s\", \"500 ms\" or \"2 h\", from 0ns to 100s",
                "t.toml:3: mqtt.on_full: \"drop_oldst\" is none of \"drop_oldest\", \"refuse\"; did you mean \"drop_oldest\"?",
                "t.toml:4: mqtt.qos: must be a whole number from 0 to 2",
                "t.toml:1: mqtt.max_packt_size: unknown key; did you mean `max_packet_size`?",
            ]
        );
    }

    #[test]
    fn sizes_and_times_have_units() {
        assert_eq!(parse_size("256 KiB"), Some(262_144));
        assert_eq!(parse_size("12"), Some(12));
        assert_eq!(parse_size("12 bananas"), None);
        assert_eq!(parse_duration("5 min"), Some(Duration::from_secs(300)));
        assert_eq!(parse_duration("5"), None);
        assert_eq!(parse_duration("99999999999999999999 s"), None);
    }
}
