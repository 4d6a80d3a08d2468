//! Topic names and topic filters, checked once where they enter (MQTT 5.0, 4.7).

use std::fmt;
use std::sync::Arc;

/// Longest topic name or filter in bytes (MQTT 5.0, 4.7.3: a UTF-8 string with a two-byte length).
pub const MAX_BYTES: usize = 65_535;
/// Most levels of a topic name or filter that the house accepts. The standard sets none; without one a filter of
/// 65,535 bytes could cost 65,536 trie nodes.
pub const MAX_LEVELS: usize = 128;

/// Why a text is no topic name or no topic filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicError {
    /// No characters (MQTT-4.7.3-1).
    Empty,
    /// Holds U+0000 (MQTT-4.7.3-2) or is not UTF-8.
    Character,
    /// More than 65,535 bytes (MQTT-4.7.3-3).
    TooLong,
    /// More than [`MAX_LEVELS`] levels.
    TooManyLevels,
    /// A wildcard where none may stand (MQTT-3.3.2-2, 4.7.1-1, 4.7.1-2).
    Wildcard,
    /// A `$share` group that is empty or holds a wildcard, or no filter behind it (MQTT-4.8.2-1, 4.8.2-2).
    Group,
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TopicError::Empty => "topic is empty",
            TopicError::Character => "topic holds a character that is not allowed",
            TopicError::TooLong => "topic is longer than 65535 bytes",
            TopicError::TooManyLevels => "topic has more than 128 levels",
            TopicError::Wildcard => "wildcard where none may stand",
            TopicError::Group => "malformed shared subscription",
        })
    }
}

impl std::error::Error for TopicError {}

fn check_text(text: &str) -> Result<(), TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    if text.len() > MAX_BYTES {
        return Err(TopicError::TooLong);
    }
    let mut levels = 1;
    for &byte in text.as_bytes() {
        match byte {
            0 => return Err(TopicError::Character),
            b'/' => levels += 1,
            _ => {}
        }
    }
    if levels > MAX_LEVELS { Err(TopicError::TooManyLevels) } else { Ok(()) }
}

/// Whether `text` may name a topic to publish to: no wildcards, not empty, no U+0000 (MQTT 5.0, 4.7.3).
pub fn check_name(text: &str) -> Result<(), TopicError> {
    check_text(text)?;
    if text.bytes().any(|b| b == b'+' || b == b'#') { Err(TopicError::Wildcard) } else { Ok(()) }
}

/// Whether `text` is a plain topic filter: wildcards fill whole levels and `#` is last (MQTT 5.0, 4.7.1).
pub fn check_filter(text: &str) -> Result<(), TopicError> {
    check_text(text)?;
    let mut levels = text.split('/').peekable();
    while let Some(level) = levels.next() {
        let last = levels.peek().is_none();
        match level {
            "+" => {}
            "#" if last => {}
            _ if level.bytes().any(|b| b == b'+' || b == b'#') => return Err(TopicError::Wildcard),
            _ => {}
        }
    }
    Ok(())
}

/// Whether the plain filter matches the topic name (MQTT 5.0, 4.7.1 and 4.7.2: a leading wildcard matches no `$` topic).
/// The trie is quicker for many filters; this is for one.
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let (mut f, mut t) = (filter.split('/'), topic.split('/'));
    loop {
        match (f.next(), t.next()) {
            (Some("#"), _) => return true,
            (Some("+"), Some(_)) => {}
            (Some(a), Some(b)) if a == b => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

/// What a client subscribes to: a topic filter with the house's prefixes taken apart.
///
/// Prefixes: `$fastlane/`, `$local/` and `$exclusive/` (each at most once, in any order), then `$queue/` or
/// `$share/{group}/`, then the plain filter. `as_str` is the text as the client sent it and is its identity.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Filter {
    text: Arc<str>,
    plain: u16,
    group: Option<(u16, u16)>,
    flags: u8,
}

const FASTLANE: u8 = 1;
const LOCAL: u8 = 2;
const EXCLUSIVE: u8 = 4;
const QUEUE: u8 = 8;

impl Filter {
    /// Takes a subscription's text apart and checks it.
    pub fn parse(text: &str) -> Result<Filter, TopicError> {
        if text.len() > MAX_BYTES {
            return Err(TopicError::TooLong);
        }
        let mut rest = text;
        let mut flags = 0;
        loop {
            let (tail, flag) = if let Some(tail) = rest.strip_prefix("$fastlane/") {
                (tail, FASTLANE)
            } else if let Some(tail) = rest.strip_prefix("$local/") {
                (tail, LOCAL)
            } else if let Some(tail) = rest.strip_prefix("$exclusive/") {
                (tail, EXCLUSIVE)
            } else {
                break;
            };
            if flags & flag != 0 {
                break;
            }
            flags |= flag;
            rest = tail;
        }
        let mut group = None;
        if let Some(tail) = rest.strip_prefix("$share/") {
            let (name, tail) = tail.split_once('/').ok_or(TopicError::Group)?;
            if name.is_empty() || name.bytes().any(|b| b == b'+' || b == b'#') || tail.is_empty() {
                return Err(TopicError::Group);
            }
            let start = offset(text, name);
            group = Some((start, start + name.len() as u16));
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix("$queue/") {
            flags |= QUEUE;
            rest = tail;
        }
        check_filter(rest)?;
        Ok(Filter { plain: offset(text, rest), text: text.into(), group, flags })
    }

    /// The text as the client sent it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The same text, shared.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// The filter without prefixes: what topics are matched against.
    pub fn plain(&self) -> &str {
        &self.text[usize::from(self.plain)..]
    }

    /// The `$share` group; `$queue` is the group with the empty name, which no `$share` can have.
    pub fn group(&self) -> Option<&str> {
        if self.flags & QUEUE != 0 {
            return Some("");
        }
        self.group.map(|(start, end)| &self.text[usize::from(start)..usize::from(end)])
    }

    /// `$fastlane/`: QoS 0, straight from the router to the socket's queue.
    pub fn is_fastlane(&self) -> bool {
        self.flags & FASTLANE != 0
    }

    /// `$local/`: this node's messages only.
    pub fn is_local(&self) -> bool {
        self.flags & LOCAL != 0
    }

    /// `$exclusive/`: one subscriber at a time.
    pub fn is_exclusive(&self) -> bool {
        self.flags & EXCLUSIVE != 0
    }

    /// Whether the plain filter holds a wildcard.
    pub fn has_wildcard(&self) -> bool {
        self.plain().bytes().any(|b| b == b'+' || b == b'#')
    }

    /// The same subscription with `prefix` before its plain filter (a listener's mountpoint).
    pub fn mounted(&self, prefix: &str) -> Result<Filter, TopicError> {
        if prefix.is_empty() {
            return Ok(self.clone());
        }
        let (head, plain) = self.text.split_at(usize::from(self.plain));
        Filter::parse(&format!("{head}{prefix}{plain}"))
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Filter({:?})", self.as_str())
    }
}

/// Where `part`, a slice of `whole`, begins. `whole` is at most 65,535 bytes long.
fn offset(whole: &str, part: &str) -> u16 {
    (part.as_ptr() as usize - whole.as_ptr() as usize) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standards_examples_match_as_it_says() {
        // MQTT 5.0, 4.7.1.2 and 4.7.1.3
        for t in
            ["sport/tennis/player1", "sport/tennis/player1/ranking", "sport/tennis/player1/score/wimbledon"]
        {
            assert!(matches("sport/tennis/player1/#", t));
        }
        assert!(matches("sport/#", "sport"));
        assert!(matches("sport/tennis/+", "sport/tennis/player1"));
        assert!(!matches("sport/tennis/+", "sport/tennis/player1/ranking"));
        assert!(!matches("sport/+", "sport"));
        assert!(matches("sport/+", "sport/"));
        assert!(matches("+/+", "/finance"));
        assert!(matches("/+", "/finance"));
        assert!(!matches("+", "/finance"));
        // 4.7.2
        assert!(!matches("#", "$SYS/x"));
        assert!(!matches("+/monitor/Clients", "$SYS/monitor/Clients"));
        assert!(matches("$SYS/#", "$SYS/x"));
    }

    #[test]
    fn wildcards_fill_whole_levels() {
        for ok in ["#", "+", "+/tennis/#", "sport/+/player1", "/"] {
            assert_eq!(check_filter(ok), Ok(()), "{ok}");
        }
        for bad in ["sport/tennis#", "sport/tennis/#/ranking", "sport+", "a/+b", "##"] {
            assert_eq!(check_filter(bad), Err(TopicError::Wildcard), "{bad}");
        }
        assert_eq!(check_name("a/+"), Err(TopicError::Wildcard));
        assert_eq!(check_name(""), Err(TopicError::Empty));
        assert_eq!(check_name("a\0"), Err(TopicError::Character));
        assert_eq!(check_name(&"/".repeat(128)), Err(TopicError::TooManyLevels));
        assert_eq!(check_name(&"a".repeat(65_536)), Err(TopicError::TooLong));
    }

    #[test]
    fn prefixes_are_taken_apart() {
        let f = Filter::parse("$share/g/a/+").unwrap();
        assert_eq!((f.group(), f.plain(), f.has_wildcard()), (Some("g"), "a/+", true));
        let f = Filter::parse("$fastlane/$queue/#").unwrap();
        assert_eq!((f.group(), f.plain(), f.is_fastlane()), (Some(""), "#", true));
        let f = Filter::parse("$local/$exclusive/a").unwrap();
        assert!(f.is_local() && f.is_exclusive() && f.group().is_none() && f.plain() == "a");
        let f = Filter::parse("$SYS/#").unwrap();
        assert_eq!((f.group(), f.plain()), (None, "$SYS/#"));
    }

    #[test]
    fn malformed_shared_subscriptions_are_refused() {
        for bad in ["$share/g", "$share//a", "$share/g+/a", "$share/g/"] {
            assert_eq!(Filter::parse(bad), Err(TopicError::Group), "{bad}");
        }
        assert_eq!(Filter::parse("$queue/"), Err(TopicError::Empty));
    }

    #[test]
    fn a_mountpoint_goes_before_the_plain_filter() {
        let f = Filter::parse("$share/g/a/+").unwrap().mounted("t1/").unwrap();
        assert_eq!((f.as_str(), f.plain(), f.group()), ("$share/g/t1/a/+", "t1/a/+", Some("g")));
    }
}
