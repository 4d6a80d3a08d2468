//! Topics as configuration wants them: rewrite rules, placeholders, and the mountpoint in front.

use gateway::topic::matches;
use gateway::{Filter, Refusal};

use crate::config::{Rewrite, RewriteAction};

/// The name a message is published under; None if it stays as it is. A `$delayed/{seconds}/` prefix is left in front.
pub(crate) fn name(rules: &[Rewrite], topic: &str, client_id: &str, mount: &str) -> Option<String> {
    let plain = match topic.strip_prefix("$delayed/").and_then(|t| t.split_once('/')) {
        Some((_, plain)) => plain,
        None => topic,
    };
    let head = &topic[..topic.len() - plain.len()];
    let rewritten = apply(rules, RewriteAction::Publish, plain, client_id);
    if rewritten.is_none() && mount.is_empty() {
        return None;
    }
    Some(format!("{head}{mount}{}", rewritten.as_deref().unwrap_or(plain)))
}

/// The filter that is subscribed to.
pub(crate) fn filter(
    rules: &[Rewrite],
    filter: &Filter,
    client_id: &str,
    mount: &str,
) -> Result<Filter, Refusal> {
    let rewritten = match apply(rules, RewriteAction::Subscribe, filter.plain(), client_id) {
        Some(plain) => {
            let head = &filter.as_str()[..filter.as_str().len() - filter.plain().len()];
            Filter::parse(&format!("{head}{plain}")).map_err(|_| Refusal::TopicFilter)?
        }
        None => filter.clone(),
    };
    rewritten.mounted(mount).map_err(|_| Refusal::TopicFilter)
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
