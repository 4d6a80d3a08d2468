//! The access list: one rule a line, the first that concerns a client and a topic decides.
//!
//! ```text
//! allow|deny  WHO…  publish|subscribe|all  [retained|unretained] [qos N[,N]]  TOPIC…
//! default allow|deny
//!
//! WHO:  everyone | anonymous | authenticated | user NAME[,NAME] | client ID[,ID] | address CIDR[,CIDR]
//! ```
//!
//! Several of WHO must all hold. A name or id that ends in `*` stands for all that begin so. Words with blanks or commas
//! stand in `"…"`. In a topic `%c` is the client id and `%u` the user name. A value that holds `/`, `+` or `#`, or that
//! is missing, never widens a rule: an allowing rule does not hold then, a denying one holds for any value. A line that
//! begins with `#` is a comment.

use std::net::IpAddr;
use std::sync::Arc;

use gateway::config::{Mistake, Place};
use gateway::topic::check_filter;
use ipnet::IpNet;

use crate::grant::{Grant, Rule};

/// Most rules of a list.
const MAX_RULES: usize = 10_000;

/// An access list.
#[derive(Debug)]
pub struct Acl {
    lines: Vec<Line>,
    default_allow: bool,
}

impl Default for Acl {
    fn default() -> Acl {
        Acl { lines: Vec::new(), default_allow: true }
    }
}

#[derive(Debug)]
struct Line {
    who: Vec<Who>,
    rule: Rule,
    has_names: bool,
}

#[derive(Debug)]
enum Who {
    Anonymous,
    Authenticated,
    User(Vec<String>),
    Client(Vec<String>),
    Address(Vec<IpNet>),
}

/// Whom a grant is made for.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// Client id.
    pub client_id: &'a str,
    /// Proven user name.
    pub username: Option<&'a str>,
    /// Whether it has proven to be somebody, if only to have the key of this client id.
    pub is_proven: bool,
    /// Its address.
    pub address: IpAddr,
}

impl<'a> Identity<'a> {
    /// Of who has proven this name, or none.
    pub fn new(client_id: &'a str, username: Option<&'a str>, address: IpAddr) -> Identity<'a> {
        Identity { client_id, username, is_proven: username.is_some(), address }
    }
}

impl Acl {
    /// Reads a list; `source` names it in the mistakes, of which all are found.
    pub fn decode(source: &str, text: &str) -> (Acl, Vec<Mistake>) {
        let (mut acl, mut mistakes) = (Acl::default(), Vec::new());
        let source: Arc<str> = source.into();
        let mut default_line = None;
        for (number, line) in (1u32..).zip(text.lines()) {
            if let Err(text) = acl.decode_line(line, number, &mut default_line) {
                let place = Place { source: source.clone(), line: number };
                mistakes.push(Mistake { place, key: "acl".to_owned(), text });
            }
        }
        (acl, mistakes)
    }

    fn decode_line(&mut self, line: &str, number: u32, default_line: &mut Option<u32>) -> Result<(), String> {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        let words = split(line)?;
        let mut words = words.iter().peekable();
        let allow = match words.next().map(|w| w.text.as_str()) {
            Some("allow") => true,
            Some("deny") => false,
            Some("default") => {
                if let Some(earlier) = default_line {
                    return Err(format!("`default` stands already in line {earlier}"));
                }
                self.default_allow = match (words.next().map(|w| w.text.as_str()), words.next()) {
                    (Some("allow"), None) => true,
                    (Some("deny"), None) => false,
                    _ => return Err("must be `default allow` or `default deny`".to_owned()),
                };
                *default_line = Some(number);
                return Ok(());
            }
            other => {
                let word = other.unwrap_or_default();
                return Err(format!("`{word}`: a line begins with `allow`, `deny` or `default`"));
            }
        };
        if let Some(earlier) = default_line {
            return Err(format!(
                "a rule after `default` (line {earlier}) is never reached; `default` comes last"
            ));
        }
        if self.lines.len() == MAX_RULES {
            return Err(format!("more than {MAX_RULES} rules"));
        }
        let line = decode_rule(allow, &mut words)?;
        self.lines.push(line);
        Ok(())
    }

    /// What this client may do.
    pub fn grant(&self, who: Identity<'_>) -> Grant {
        let username = who.username.map(Arc::from);
        Grant::new(username, self.rules(who), self.default_allow)
    }

    /// Whether every client may do the same as without a list.
    pub fn is_open(&self) -> bool {
        self.lines.is_empty() && self.default_allow
    }

    fn rules(&self, who: Identity<'_>) -> Vec<Rule> {
        self.lines
            .iter()
            .filter(|line| line.who.iter().all(|w| w.is(who)))
            .filter_map(|line| line.fill(who))
            .collect()
    }
}

impl Who {
    fn is(&self, who: Identity<'_>) -> bool {
        let like = |patterns: &[String], name: &str| {
            patterns.iter().any(|p| p.strip_suffix('*').map_or(p == name, |start| name.starts_with(start)))
        };
        match self {
            Who::Anonymous => !who.is_proven,
            Who::Authenticated => who.is_proven,
            Who::User(names) => who.username.is_some_and(|name| like(names, name)),
            Who::Client(ids) => like(ids, who.client_id),
            Who::Address(nets) => nets.iter().any(|net| net.contains(&who.address.to_canonical())),
        }
    }
}

impl Line {
    /// The rule with the client's names filled in; None if it cannot hold for this client.
    fn fill(&self, who: Identity<'_>) -> Option<Rule> {
        if !self.has_names {
            return Some(self.rule.clone());
        }
        let topics: Arc<[Box<str>]> = self
            .rule
            .topics
            .iter()
            .filter_map(|t| fill(t, who, self.rule.allow))
            .map(String::into_boxed_str)
            .collect();
        (!topics.is_empty()).then(|| Rule { topics, ..self.rule.clone() })
    }
}

fn fill(topic: &str, who: Identity<'_>, allow: bool) -> Option<String> {
    let is_safe = |name: &str| !name.is_empty() && !name.contains(['/', '+', '#', '\0']);
    let values = [("%c", Some(who.client_id)), ("%u", who.username)];
    let mut levels = Vec::new();
    for level in topic.split('/') {
        let used = || values.iter().filter(|(mark, _)| level.contains(mark));
        if used().all(|(_, value)| value.is_some_and(is_safe)) {
            levels.push(replace(level, who));
        } else if allow {
            return None;
        } else {
            levels.push("+".to_owned());
        }
    }
    Some(levels.join("/"))
}

/// In one pass, so that a client called `%u` does not get another's name.
fn replace(level: &str, who: Identity<'_>) -> String {
    let mut filled = String::with_capacity(level.len());
    let mut rest = level;
    while let Some(at) = rest.find('%') {
        filled.push_str(&rest[..at]);
        let (value, used) = match rest.as_bytes().get(at + 1) {
            Some(b'c') => (who.client_id, 2),
            Some(b'u') => (who.username.unwrap_or_default(), 2),
            _ => ("%", 1),
        };
        filled.push_str(value);
        rest = &rest[at + used..];
    }
    filled + rest
}

struct Word {
    text: String,
    is_quoted: bool,
}

impl Word {
    fn list(&self) -> Vec<String> {
        if self.is_quoted {
            return vec![self.text.clone()];
        }
        self.text.split(',').filter(|t| !t.is_empty()).map(str::to_owned).collect()
    }
}

fn split(line: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok(words);
        }
        if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"').ok_or("a `\"` without its end")?;
            words.push(Word { text: quoted[..end].to_owned(), is_quoted: true });
            rest = &quoted[end + 1..];
        } else {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            words.push(Word { text: rest[..end].to_owned(), is_quoted: false });
            rest = &rest[end..];
        }
    }
}

type Words<'a> = std::iter::Peekable<std::slice::Iter<'a, Word>>;

fn decode_rule(allow: bool, words: &mut Words<'_>) -> Result<Line, String> {
    let Head { who, is_everyone, publish, subscribe } = decode_who(words)?;
    if who.is_empty() && !is_everyone {
        return Err(
            "says nobody: `everyone`, `anonymous`, `authenticated`, `user`, `client` or `address`".to_owned()
        );
    }
    let (mut retain, mut qos) = (None, 7);
    while let Some(word) = words.peek().filter(|w| !w.is_quoted) {
        match word.text.as_str() {
            "retained" => retain = Some(true),
            "unretained" => retain = Some(false),
            "qos" => {
                words.next();
                qos = decode_qos(words.peek().copied())?;
            }
            _ => break,
        }
        words.next();
    }
    if subscribe && (retain.is_some() || qos != 7) {
        return Err("`retained`, `unretained` and `qos` go with `publish` alone".to_owned());
    }
    let topics: Vec<Box<str>> = words.map(decode_topic).collect::<Result<_, _>>()?;
    if topics.is_empty() {
        return Err("names no topic; `#` is all of them".to_owned());
    }
    let has_names = topics.iter().any(|t| t.contains("%c") || t.contains("%u"));
    let rule = Rule { allow, publish, subscribe, retain, qos, topics: topics.into() };
    Ok(Line { who, rule, has_names })
}

struct Head {
    who: Vec<Who>,
    is_everyone: bool,
    publish: bool,
    subscribe: bool,
}

fn decode_who(words: &mut Words<'_>) -> Result<Head, String> {
    let (mut who, mut is_everyone) = (Vec::new(), false);
    loop {
        let word = words.next().ok_or("says not what: `publish`, `subscribe` or `all`")?;
        let mut names = |what: &str| -> Result<Vec<String>, String> {
            let list = words.next().map(Word::list).unwrap_or_default();
            if list.is_empty() { Err(format!("`{what}` needs a name")) } else { Ok(list) }
        };
        match word.text.as_str() {
            "publish" => return Ok(Head { who, is_everyone, publish: true, subscribe: false }),
            "subscribe" => return Ok(Head { who, is_everyone, publish: false, subscribe: true }),
            "all" => return Ok(Head { who, is_everyone, publish: true, subscribe: true }),
            "everyone" => is_everyone = true,
            "anonymous" => who.push(Who::Anonymous),
            "authenticated" => who.push(Who::Authenticated),
            "user" => who.push(Who::User(names("user")?)),
            "client" => who.push(Who::Client(names("client")?)),
            "address" => who.push(Who::Address(decode_nets(&names("address")?)?)),
            other => {
                return Err(format!(
                    "`{other}` is none of `everyone`, `anonymous`, `authenticated`, `user`, `client`, `address`, \
                     `publish`, `subscribe`, `all`"
                ));
            }
        }
    }
}

fn decode_nets(list: &[String]) -> Result<Vec<IpNet>, String> {
    let net = |t: &String| {
        let found = t.parse::<IpNet>().ok().or_else(|| t.parse::<IpAddr>().ok().map(IpNet::from));
        found.ok_or_else(|| format!("`{t}` is not an address such as 10.0.0.7 or 10.0.0.0/8"))
    };
    list.iter().map(net).collect()
}

fn decode_qos(word: Option<&Word>) -> Result<u8, String> {
    let text = || "`qos` needs levels such as `0` or `1,2`".to_owned();
    let mut bits = 0;
    for level in word.ok_or_else(text)?.list() {
        let level: u8 = level.parse().ok().filter(|l| *l <= 2).ok_or_else(text)?;
        bits |= 1 << level;
    }
    if bits == 0 { Err(text()) } else { Ok(bits) }
}

fn decode_topic(word: &Word) -> Result<Box<str>, String> {
    check_filter(&word.text).map_err(|e| format!("`{}` is not a topic filter: {e}", word.text))?;
    Ok(word.text.as_str().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway::Qos;

    fn acl(text: &str) -> Acl {
        let (acl, mistakes) = Acl::decode("acl.conf", text);
        assert_eq!(mistakes, []);
        acl
    }

    fn client<'a>(client_id: &'a str, username: Option<&'a str>) -> Identity<'a> {
        Identity::new(client_id, username, "10.1.2.3".parse().unwrap())
    }

    fn publishes(acl: &Acl, who: Identity<'_>, topic: &str) -> bool {
        acl.grant(who).may_publish(topic, Qos::AtMostOnce, false)
    }

    #[test]
    fn rules_are_read_from_top_to_bottom() {
        let acl =
            acl("# comment\n\nallow user alice,bob publish a/# b\ndeny everyone all a/#\ndefault deny\n");
        assert!(publishes(&acl, client("c", Some("bob")), "a/x"));
        assert!(publishes(&acl, client("c", Some("alice")), "b"));
        assert!(!publishes(&acl, client("c", Some("carol")), "a/x"));
        assert!(!publishes(&acl, client("c", None), "b"));
        assert!(!acl.grant(client("c", Some("bob"))).may_subscribe("a/x"));
    }

    #[test]
    fn all_conditions_of_a_rule_must_hold() {
        let acl = acl("allow user alice client dev-* address 10.0.0.0/8,::1 publish a\ndefault deny");
        assert!(publishes(&acl, client("dev-1", Some("alice")), "a"));
        assert!(!publishes(&acl, client("x", Some("alice")), "a"));
        assert!(!publishes(&acl, client("dev-1", None), "a"));
        let far = Identity { address: "192.168.0.1".parse().unwrap(), ..client("dev-1", Some("alice")) };
        assert!(!publishes(&acl, far, "a"));
        let mapped =
            Identity { address: "::ffff:10.0.0.1".parse().unwrap(), ..client("dev-1", Some("alice")) };
        assert!(publishes(&acl, mapped, "a"));
    }

    #[test]
    fn names_are_filled_in_and_never_widen_a_rule() {
        let acl = acl("allow everyone all d/%c/# u/%u\ndefault deny");
        assert!(publishes(&acl, client("one", None), "d/one/x"));
        assert!(!publishes(&acl, client("one", None), "d/two/x"));
        assert!(publishes(&acl, client("one", Some("al")), "u/al"));
        for hostile in ["+", "#", "a/b", "", "a+"] {
            assert!(!publishes(&acl, client(hostile, None), "d/two/x"), "{hostile}");
            assert!(!publishes(&acl, client(hostile, None), &format!("d/{hostile}/x")), "{hostile}");
            assert!(!publishes(&acl, client("c", Some(hostile)), "u/al"), "{hostile}");
        }
        assert!(!publishes(&acl, client("%u", Some("al")), "d/al/x"));
    }

    #[test]
    fn a_denying_rule_holds_for_a_name_that_cannot_be_filled_in() {
        let acl = acl("deny everyone all d/%c/x\ndefault allow");
        assert!(!publishes(&acl, client("one", None), "d/one/x"));
        assert!(publishes(&acl, client("one", None), "d/two/x"));
        assert!(!publishes(&acl, client("a/b", None), "d/two/x"));
    }

    #[test]
    fn every_mistake_is_reported_with_its_line() {
        let (_, mistakes) = Acl::decode(
            "acl.conf",
            "permit all\nallow publish a\nallow user\nallow everyone publish\nallow everyone publish a/#/b\n\
             deny address 10.0.0.0/99 all #\nallow everyone subscribe qos 1 a\nallow everyone publish qos 3 a\n\
             deny everyone \"x\ndefault maybe\ndefault deny\nallow everyone all b\ndefault deny",
        );
        let lines: Vec<u32> = mistakes.iter().map(|m| m.place.line).collect();
        assert_eq!(lines, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13]);
        assert_eq!(
            mistakes[4].to_string(),
            "acl.conf:5: acl: `a/#/b` is not a topic filter: wildcard where none may stand"
        );
    }

    #[test]
    fn a_list_of_nothing_allows() {
        let acl = acl("# nothing\n");
        assert!(acl.is_open() && publishes(&acl, client("c", None), "a"));
    }
}
