//! Topics as configuration wants them: rewrite rules, placeholders, and the mountpoint in front.

use gateway::topic::matches;
use gateway::{Filter, Refusal};

use crate::config::{Rewrite, RewriteAction};
use crate::session::Session;

/// The name a message is published under; None if it stays as it is. A `$delayed/{seconds}/` prefix is left in front.
pub(crate) fn name(rules: &[Rewrite], topic: &str, session: &Session) -> Option<String> {
    let (head, plain) = split_delayed(topic);
    let rewritten = apply(rules, RewriteAction::Publish, plain, session.client_id());
    if rewritten.is_none() && session.mount().is_empty() {
        return None;
    }
    Some(format!("{head}{}{}", session.mount(), rewritten.as_deref().unwrap_or(plain)))
}

/// The topic behind the mountpoint; a `$delayed/{seconds}/` prefix is left in front.
pub(crate) fn mounted(topic: &str, mount: &str) -> String {
    let (head, plain) = split_delayed(topic);
    format!("{head}{mount}{plain}")
}

/// `$delayed/{seconds}/` or nothing, and the rest.
pub(crate) fn split_delayed(topic: &str) -> (&str, &str) {
    let plain =
        topic.strip_prefix("$delayed/").and_then(|t| t.split_once('/')).map_or(topic, |(_, plain)| plain);
    topic.split_at(topic.len() - plain.len())
}

/// The filter that is subscribed to.
pub(crate) fn filter(rules: &[Rewrite], filter: &Filter, session: &Session) -> Result<Filter, Refusal> {
    let plain = filter.plain();
    let rewritten = match apply(rules, RewriteAction::Subscribe, plain, session.client_id()) {
        Some(target) => {
            let head = &filter.as_str()[..filter.as_str().len() - plain.len()];
            Filter::parse(&format!("{head}{target}")).map_err(|_| Refusal::TopicFilter)?
        }
        None => filter.clone(),
    };
    rewritten.mounted(session.mount()).map_err(|_| Refusal::TopicFilter)
}

fn apply(rules: &[Rewrite], action: RewriteAction, topic: &str, client_id: &str) -> Option<String> {
    rules.iter().rev().filter(|r| r.action == action || r.action == RewriteAction::All).find_map(|rule| {
        // A filter is compared with the rule's as if it were a name: `a/#` is rewritten by a rule for `a/#`.
        if !matches(&rule.source, topic) {
            return None;
        }
        let captures = rule.pattern.captures(topic)?;
        let mut target = String::new();
        captures.expand(&rule.target, &mut target);
        fill(&target, client_id, None)
    })
}

/// Fills in `%c` and `%u`; None if a name is missing or would change the levels.
pub(crate) fn fill(text: &str, client_id: &str, username: Option<&str>) -> Option<String> {
    let is_level = |name: &str| !name.is_empty() && !name.contains(['/', '+', '#']);
    let mut filled = text.to_owned();
    for (mark, name) in [("%c", client_id), ("%u", username.unwrap_or_default())] {
        if filled.contains(mark) {
            if !is_level(name) {
                return None;
            }
            filled = filled.replace(mark, name);
        }
    }
    Some(filled)
}
