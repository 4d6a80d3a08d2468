//! Configuration files and environment to values with their places.
//!
//! One TOML file, then `gateways/*.toml` beside it in the order of their names, then the environment:
//! `TIDEGATE__SECTION__KEY=value` sets `section.key`. Files add to each other and may not say a key twice; the
//! environment overrides. All mistakes are found, of syntax too.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gateway::config::{Kind, Mistake, Place, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Longest configuration file in bytes.
const MAX_BYTES: u64 = 4 << 20;
/// Most levels of keys that the environment may name.
const MAX_DEPTH: usize = 16;
/// What the variables begin with.
const PREFIX: &str = "TIDEGATE__";

/// Reads the file at `path`, what stands beside it, and `environment`.
pub(crate) fn load(
    path: &Path,
    environment: impl Iterator<Item = (String, String)>,
    mistakes: &mut Vec<Mistake>,
) -> Value {
    let mut root = read(path, mistakes);
    for more in beside(path, mistakes) {
        let value = read(&more, mistakes);
        merge(&mut root, value, "", mistakes);
    }
    let mut variables: Vec<(String, String)> =
        environment.filter(|(name, _)| name.starts_with(PREFIX)).collect();
    variables.sort();
    for (name, text) in variables {
        set(&mut root, &name, &name[PREFIX.len()..], value_of(&name, &text), mistakes);
    }
    root
}

/// Sets `key` (levels parted by `__`) to `value` whatever stood there; `source` names who said so.
pub(crate) fn set(root: &mut Value, source: &str, key: &str, value: Value, mistakes: &mut Vec<Mistake>) {
    let place = Place { source: source.into(), line: 0 };
    let levels: Vec<&str> = key.split("__").collect();
    if levels.iter().any(|l| l.is_empty()) || levels.len() > MAX_DEPTH {
        let text = "does not name a key: TIDEGATE__SECTION__KEY".to_owned();
        mistakes.push(Mistake { place, key: key.to_ascii_lowercase().replace("__", "."), text });
        return;
    }
    let mut at = root;
    for (depth, level) in levels.iter().enumerate() {
        let Kind::Table(table) = &mut at.kind else {
            let key = levels[..depth].join(".").to_ascii_lowercase();
            mistakes.push(Mistake { place, key, text: "is a value and has no keys".to_owned() });
            return;
        };
        // The environment knows no case.
        let known = table.keys().find(|k| k.eq_ignore_ascii_case(level)).cloned();
        let name = known.unwrap_or_else(|| level.to_ascii_lowercase());
        at = table.entry(name).or_insert_with(|| empty(place.clone()));
    }
    *at = value;
}

/// The value that stands at the dotted `key`, or the nearest above it.
pub(crate) fn place_of(root: &Value, key: &str) -> Place {
    let mut at = root;
    for level in key.split('.') {
        let Kind::Table(table) = &at.kind else { break };
        let Some(next) = table.get(level) else { break };
        at = next;
    }
    at.place.clone()
}

/// Every value that is no section, by its dotted key.
pub(crate) fn flatten(root: &Value) -> BTreeMap<String, Kind> {
    let mut flat = BTreeMap::new();
    let mut left = vec![(String::new(), root)];
    while let Some((path, value)) = left.pop() {
        match &value.kind {
            Kind::Table(table) => {
                left.extend(table.iter().map(|(key, value)| (join(&path, key), value)));
            }
            kind => {
                flat.insert(path, without_places(kind));
            }
        }
    }
    flat
}

/// So that a line more above does not make a list look changed.
fn without_places(kind: &Kind) -> Kind {
    let bare = |v: &Value| Value { kind: without_places(&v.kind), place: Place::default() };
    match kind {
        Kind::List(list) => Kind::List(list.iter().map(bare).collect()),
        Kind::Table(table) => Kind::Table(table.iter().map(|(k, v)| (k.clone(), bare(v))).collect()),
        other => other.clone(),
    }
}

fn empty(place: Place) -> Value {
    Value { kind: Kind::Table(BTreeMap::new()), place }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn beside(path: &Path, mistakes: &mut Vec<Mistake>) -> Vec<PathBuf> {
    let folder = path.with_file_name("gateways");
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(e) => {
            mistakes.push(unreadable(&folder, &e));
            return Vec::new();
        }
    };
    let mut files: Vec<PathBuf> =
        entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "toml")).collect();
    files.sort();
    files
}

fn unreadable(path: &Path, e: &dyn std::fmt::Display) -> Mistake {
    let place = Place { source: path.display().to_string().into(), line: 0 };
    Mistake { place, key: "file".to_owned(), text: format!("cannot be read: {e}") }
}

fn read(path: &Path, mistakes: &mut Vec<Mistake>) -> Value {
    let source: Arc<str> = path.display().to_string().into();
    let text = fs::metadata(path).and_then(|m| {
        if m.len() > MAX_BYTES {
            Err(io::Error::other("larger than 4 MiB"))
        } else {
            fs::read_to_string(path)
        }
    });
    match text {
        Ok(text) => decode(&source, &text, mistakes),
        Err(e) => {
            mistakes.push(unreadable(path, &e));
            empty(Place { source, line: 0 })
        }
    }
}

/// Reads TOML.
pub(crate) fn decode(source: &Arc<str>, text: &str, mistakes: &mut Vec<Mistake>) -> Value {
    let reader = Reader { source, text };
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let place = reader.place(error.span().unwrap_or_default());
        mistakes.push(Mistake { place, key: "syntax".to_owned(), text: error.message().to_owned() });
    }
    reader.table(table.get_ref(), Place { source: source.clone(), line: 0 }, "", mistakes)
}

struct Reader<'a> {
    source: &'a Arc<str>,
    text: &'a str,
}

impl Reader<'_> {
    fn place(&self, span: Range<usize>) -> Place {
        let start = span.start.min(self.text.len());
        let before = self.text.as_bytes()[..start].iter().filter(|b| **b == b'\n').count();
        Place { source: self.source.clone(), line: u32::try_from(before + 1).unwrap_or(u32::MAX) }
    }

    fn table(&self, table: &DeTable<'_>, place: Place, path: &str, mistakes: &mut Vec<Mistake>) -> Value {
        let entries = table.iter().filter_map(|(key, value)| {
            let name = key.get_ref().to_string();
            // A value stands where its key does; a section's span is its header.
            let place = self.place(key.span());
            Some((name.clone(), self.value(value, place, &join(path, &name), mistakes)?))
        });
        Value { kind: Kind::Table(entries.collect()), place }
    }

    fn value(
        &self,
        value: &Spanned<DeValue<'_>>,
        place: Place,
        path: &str,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<Value> {
        let kind = match value.get_ref() {
            DeValue::Table(table) => return Some(self.table(table, place, path, mistakes)),
            DeValue::Array(list) => Kind::List(
                list.iter().filter_map(|v| self.value(v, self.place(v.span()), path, mistakes)).collect(),
            ),
            DeValue::String(text) => Kind::Text(text.to_string()),
            DeValue::Boolean(b) => Kind::Bool(*b),
            DeValue::Datetime(time) => Kind::Text(time.to_string()),
            DeValue::Integer(n) => {
                let digits: String = n.as_str().chars().filter(|c| *c != '_').collect();
                match i64::from_str_radix(&digits, n.radix()) {
                    Ok(n) => Kind::Integer(n),
                    Err(_) => {
                        let text = format!("{} is too large a number", n.as_str());
                        mistakes.push(Mistake { place, key: path.to_owned(), text });
                        return None;
                    }
                }
            }
            DeValue::Float(f) => Kind::Float(f.as_str().replace('_', "").parse().unwrap_or(f64::NAN)),
        };
        Some(Value { kind, place })
    }
}

/// An override's value: TOML if it is that, else text, so that neither `1883` nor `10 s` needs quotes.
pub(crate) fn value_of(name: &str, text: &str) -> Value {
    let place = Place { source: name.into(), line: 0 };
    let mut mistakes = Vec::new();
    let source = place.source.clone();
    let parsed = DeValue::parse(text)
        .ok()
        .and_then(|v| Reader { source: &source, text }.value(&v, place.clone(), name, &mut mistakes));
    match parsed {
        Some(value) if mistakes.is_empty() => Value { place, ..value },
        _ => Value { kind: Kind::Text(text.to_owned()), place },
    }
}

fn merge(into: &mut Value, from: Value, path: &str, mistakes: &mut Vec<Mistake>) {
    let (Kind::Table(into), Kind::Table(from)) = (&mut into.kind, from.kind) else { return };
    for (key, value) in from {
        let path = join(path, &key);
        match into.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(value);
            }
            Entry::Occupied(mut entry) => {
                let there = entry.get_mut();
                if matches!((&there.kind, &value.kind), (Kind::Table(_), Kind::Table(_))) {
                    merge(there, value, &path, mistakes);
                } else {
                    let Place { source, line } = &there.place;
                    let text = format!("stands already in {source}:{line}");
                    mistakes.push(Mistake { place: value.place, key: path, text });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toml(text: &str) -> (Value, Vec<String>) {
        let mut mistakes = Vec::new();
        let value = decode(&"t.toml".into(), text, &mut mistakes);
        (value, mistakes.iter().map(ToString::to_string).collect())
    }

    fn kind(root: &Value, key: &str) -> Option<Kind> {
        flatten(root).get(key).cloned()
    }

    #[test]
    fn values_know_their_lines() {
        let (root, mistakes) =
            toml("a = 1\n\n[b.c]\n# d\nd = \"x\"\ne = [\n 1,\n 2]\n[[f]]\ng = 0x1_0\n[[f]]\ng = 1.5\n");
        assert_eq!(mistakes, [""; 0]);
        assert_eq!(place_of(&root, "a").line, 1);
        assert_eq!(place_of(&root, "b.c.d").line, 5);
        assert_eq!(place_of(&root, "b.c.missing").line, place_of(&root, "b.c").line);
        assert_eq!(kind(&root, "b.c.d"), Some(Kind::Text("x".into())));
        let Some(Kind::List(f)) = kind(&root, "f") else { panic!() };
        let Kind::Table(first) = &f[0].kind else { panic!() };
        assert_eq!(first["g"].kind, Kind::Integer(16));
    }

    #[test]
    fn all_mistakes_of_syntax_are_found_with_their_lines() {
        let (root, mistakes) = toml("a = \nb = 2\nc = [1, 2\nd = 99999999999999999999\n");
        assert!(mistakes.iter().any(|m| m.starts_with("t.toml:1: syntax: ")), "{mistakes:?}");
        assert!(mistakes.len() >= 2, "{mistakes:?}");
        assert_eq!(kind(&root, "b"), Some(Kind::Integer(2)));
        let (_, mistakes) = toml("d = 99999999999999999999\n");
        assert_eq!(mistakes, ["t.toml:1: d: 99999999999999999999 is too large a number"]);
    }

    #[test]
    fn the_environment_overrides_whatever_its_case() {
        let (mut root, _) = toml("[mqtt.listeners.Tcp]\nbind = \"x\"\n");
        let mut mistakes = Vec::new();
        for (name, text) in [
            ("TIDEGATE__MQTT__LISTENERS__TCP__BIND", "[::1]:1883"),
            ("TIDEGATE__LIMITS__MAX_LOGINS", "7"),
            ("TIDEGATE__LOG__LEVEL", "debug"),
            ("TIDEGATE__A__B", "10 s"),
            ("TIDEGATE__A__C", "[1, 2]"),
            ("TIDEGATE__A__D", "\"7\""),
        ] {
            set(&mut root, name, &name[PREFIX.len()..], value_of(name, text), &mut mistakes);
        }
        assert_eq!(mistakes, []);
        assert_eq!(kind(&root, "mqtt.listeners.Tcp.bind"), Some(Kind::Text("[::1]:1883".into())));
        assert_eq!(
            &*place_of(&root, "mqtt.listeners.Tcp.bind").source,
            "TIDEGATE__MQTT__LISTENERS__TCP__BIND"
        );
        assert_eq!(kind(&root, "limits.max_logins"), Some(Kind::Integer(7)));
        assert_eq!(kind(&root, "a.b"), Some(Kind::Text("10 s".into())));
        assert!(matches!(kind(&root, "a.c"), Some(Kind::List(_))));
        assert_eq!(kind(&root, "a.d"), Some(Kind::Text("7".into())));
    }

    #[test]
    fn a_variable_that_names_no_key_is_a_mistake() {
        let (mut root, _) = toml("a = 1\n");
        let mut mistakes = Vec::new();
        set(&mut root, "TIDEGATE__A__B", "A__B", value_of("v", "1"), &mut mistakes);
        set(&mut root, "TIDEGATE____B", "__B", value_of("v", "1"), &mut mistakes);
        let text: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        assert_eq!(text[0], "TIDEGATE__A__B: a: is a value and has no keys");
        assert!(text[1].starts_with("TIDEGATE____B: "));
    }

    #[test]
    fn files_add_to_each_other_and_say_nothing_twice() {
        let (mut root, _) = toml("[mqtt]\na = 1\n");
        let mut mistakes = Vec::new();
        let more = decode(&"more.toml".into(), "[mqtt]\na = 2\nb = 3\n[coap]\nc = 4\n", &mut mistakes);
        merge(&mut root, more, "", &mut mistakes);
        assert_eq!(mistakes.len(), 1);
        assert_eq!(mistakes[0].to_string(), "more.toml:2: mqtt.a: stands already in t.toml:2");
        assert_eq!(
            (kind(&root, "mqtt.b"), kind(&root, "coap.c")),
            (Some(Kind::Integer(3)), Some(Kind::Integer(4)))
        );
    }
}
