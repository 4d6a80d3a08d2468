//! What one client may do: the access list as far as it concerns this client, with its names filled in.

use std::sync::Arc;

use gateway::Qos;
use gateway::topic::matches;

use crate::cover::{covers, overlaps};

/// See the module. Cloning counts a reference; clients without a name and without rules share one.
#[derive(Clone, Debug)]
pub struct Grant(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    username: Option<Arc<str>>,
    device: Option<Device>,
    rules: Box<[Rule]>,
    default_allow: bool,
    /// No rule concerns publishing and the default is to allow.
    may_publish_all: bool,
}

/// Who came in with a pre-shared key.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    pub(crate) identity: Arc<str>,
    /// The owner of its session where the credential names no user: no user is called so.
    pub(crate) principal: Arc<str>,
}

/// One rule for one client.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) allow: bool,
    pub(crate) publish: bool,
    pub(crate) subscribe: bool,
    /// Publishing: only with this RETAIN flag.
    pub(crate) retain: Option<bool>,
    /// Publishing: only with these QoS levels, bit n for level n.
    pub(crate) qos: u8,
    pub(crate) topics: Arc<[Box<str>]>,
}

impl Rule {
    fn concerns(&self, topic: &str, qos: Qos, retain: bool) -> bool {
        self.publish
            && self.qos & (1 << qos as u8) != 0
            && self.retain.is_none_or(|r| r == retain)
            // A denying wildcard reaches `$` topics too; an allowing one does not.
            && self.topics.iter().any(|t| if self.allow { matches(t, topic) } else { overlaps(t, topic) })
    }
}

/// Reading what the gateway says about itself and its clients is for those that a rule allows it to.
const SYS: &str = "$SYS/#";

impl Grant {
    pub(crate) fn new(username: Option<Arc<str>>, rules: Vec<Rule>, default_allow: bool) -> Grant {
        let may_publish_all = default_allow && !rules.iter().any(|r| r.publish && !r.allow);
        let rules = rules.into_boxed_slice();
        Grant(Arc::new(Inner { username, device: None, rules, default_allow, may_publish_all }))
    }

    /// The same for who has proven a pre-shared key.
    pub(crate) fn of(mut self, device: Device) -> Grant {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.device = Some(device);
        }
        self
    }

    /// The identity of the pre-shared key that was proven.
    pub(crate) fn device(&self) -> Option<&Device> {
        self.0.device.as_ref()
    }

    /// A client without a name that may do everything but read `$SYS`.
    pub fn anonymous() -> Grant {
        Grant::new(None, Vec::new(), true)
    }

    /// The user name that was proven; none for anonymous clients.
    pub fn username(&self) -> Option<&str> {
        self.0.username.as_deref()
    }

    /// Who owns this client's session: the same for every way to prove the name. A device with a pre-shared key and no
    /// name owns its own. None is everybody else without a name.
    pub fn principal(&self) -> Option<Arc<str>> {
        self.0.username.clone().or_else(|| self.0.device.as_ref().map(|d| d.principal.clone()))
    }

    /// Whether the client may publish to `topic`, as it sent it.
    pub fn may_publish(&self, topic: &str, qos: Qos, retain: bool) -> bool {
        if self.0.may_publish_all {
            return true;
        }
        self.0.rules.iter().find(|r| r.concerns(topic, qos, retain)).map_or(self.0.default_allow, |r| r.allow)
    }

    /// Whether the client may subscribe to the plain `filter`, as it sent it: an allowing rule must cover all of it,
    /// a denying one needs only touch it.
    pub fn may_subscribe(&self, filter: &str) -> bool {
        for rule in self.0.rules.iter().filter(|r| r.subscribe) {
            let concerns = if rule.allow { covers } else { overlaps };
            if rule.topics.iter().any(|t| concerns(t, filter)) {
                return rule.allow;
            }
        }
        self.0.default_allow && !overlaps(SYS, filter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(allow: bool, topics: &[&str]) -> Rule {
        let topics = topics.iter().map(|t| Box::from(*t)).collect();
        Rule { allow, publish: true, subscribe: true, retain: None, qos: 7, topics }
    }

    #[test]
    fn the_first_rule_that_concerns_a_topic_decides() {
        let g = Grant::new(None, vec![rule(true, &["a/b"]), rule(false, &["a/#"])], true);
        assert!(g.may_publish("a/b", Qos::AtMostOnce, false));
        assert!(!g.may_publish("a/c", Qos::AtMostOnce, false));
        assert!(g.may_publish("b", Qos::AtMostOnce, false));
        assert!(g.may_subscribe("a/b"));
        assert!(!g.may_subscribe("a/+"));
        assert!(!g.may_subscribe("#"));
    }

    #[test]
    fn an_allowed_part_does_not_open_the_whole() {
        let g = Grant::new(None, vec![rule(true, &["a/#"])], false);
        assert!(g.may_subscribe("a/+/c"));
        assert!(!g.may_subscribe("#"));
        assert!(!g.may_subscribe("+/b"));
    }

    #[test]
    fn sys_is_read_only_by_those_that_a_rule_allows_to() {
        assert!(Grant::anonymous().may_subscribe("#"));
        assert!(!Grant::anonymous().may_subscribe("$SYS/#"));
        assert!(!Grant::anonymous().may_subscribe("$SYS/brokers/n/version"));
        assert!(Grant::new(None, vec![rule(true, &["$SYS/#"])], true).may_subscribe("$SYS/+/x"));
        assert!(!Grant::new(None, vec![rule(true, &["#"])], true).may_subscribe("$SYS/#"));
    }

    #[test]
    fn a_denied_wildcard_reaches_dollar_topics() {
        let g = Grant::new(None, vec![rule(false, &["#"])], true);
        assert!(!g.may_publish("$delayed/x", Qos::AtMostOnce, false));
        assert!(!g.may_subscribe("$x/y"));
    }

    #[test]
    fn a_rule_may_concern_retained_messages_or_some_qos_alone() {
        let keep = Rule { retain: Some(true), ..rule(false, &["#"]) };
        let two = Rule { qos: 4, ..rule(false, &["#"]) };
        let g = Grant::new(None, vec![keep, two], true);
        assert!(g.may_publish("a", Qos::AtLeastOnce, false));
        assert!(!g.may_publish("a", Qos::AtLeastOnce, true));
        assert!(!g.may_publish("a", Qos::ExactlyOnce, false));
    }
}
