//! How two topic filters lie to each other. An access list must answer for a *filter*: a subscriber to `#` must not pass
//! because `a/#` is allowed, nor slip past because only `a/#` is denied.
//!
//! Both answers err on the side of refusing: a filter that is not proven covered is not, and a denying rule's leading
//! wildcard reaches `$` topics although a subscription's does not (MQTT 5.0, 4.7.2).

/// Whether every topic that `filter` matches is matched by the allowing `rule`.
pub(crate) fn covers(rule: &str, filter: &str) -> bool {
    if filter.starts_with('$') && rule.starts_with(['+', '#']) {
        return false;
    }
    let (mut r, mut f) = (rule.split('/'), filter.split('/'));
    loop {
        match (r.next(), f.next()) {
            (Some("#"), _) => return true,
            (Some(_), Some("#")) => return false,
            (Some("+"), Some(_)) => {}
            (Some(a), Some(b)) if a == b => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

/// Whether some topic that `filter` matches is matched by the denying `rule`.
pub(crate) fn overlaps(rule: &str, filter: &str) -> bool {
    if rule.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let (mut r, mut f) = (rule.split('/'), filter.split('/'));
    loop {
        match (r.next(), f.next()) {
            (Some("#"), _) | (_, Some("#")) => return true,
            (Some("+"), Some(_)) | (Some(_), Some("+")) => {}
            (Some(a), Some(b)) if a == b => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway::topic::{check_filter, matches};
    use proptest::prelude::*;

    #[test]
    fn a_wider_filter_is_not_covered() {
        for (rule, filter, is_covered) in [
            ("a/#", "a/#", true),
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("a/#", "a/+/c", true),
            ("a/#", "#", false),
            ("a/#", "+/b", false),
            ("a/+", "a/+", true),
            ("a/+", "a/#", false),
            ("a/+", "a", false),
            ("a/b", "a/+", false),
            ("#", "$SYS/#", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/+", true),
            ("a/+/#", "a/#", false),
        ] {
            assert_eq!(covers(rule, filter), is_covered, "{rule} covers {filter}");
        }
    }

    #[test]
    fn a_denied_part_is_seen_in_a_wider_filter() {
        for (rule, filter, is_overlap) in [
            ("a/#", "#", true),
            ("a/b", "+/b", true),
            ("a/b", "a/c", false),
            ("a/+/c", "a/b/+", true),
            ("a/#", "a", true),
            ("a", "a/#", true),
            ("a/+", "a", false),
            ("$SYS/#", "#", false),
            ("$SYS/#", "+/x", false),
            ("$SYS/#", "$SYS/brokers", true),
            ("#", "$SYS/x", true),
        ] {
            assert_eq!(overlaps(rule, filter), is_overlap, "{rule} overlaps {filter}");
        }
    }

    fn filter() -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(vec!["a", "b", "$x", "+", "#"]), 1..4)
            .prop_map(|levels| levels.join("/"))
            .prop_filter("a filter", |f| check_filter(f).is_ok())
    }

    /// Every topic of up to four levels over a small alphabet: enough to tell filters of up to three levels apart.
    fn topics() -> Vec<String> {
        let words = ["a", "b", "$x"];
        let mut all: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        let mut last = all.clone();
        for _ in 0..3 {
            last = last.iter().flat_map(|t| words.iter().map(move |w| format!("{t}/{w}"))).collect();
            all.extend(last.iter().cloned());
        }
        all
    }

    proptest! {
        #[test]
        fn what_is_covered_is_matched_topic_by_topic(rule in filter(), f in filter()) {
            if covers(&rule, &f) {
                for t in topics().iter().filter(|t| matches(&f, t)) {
                    prop_assert!(matches(&rule, t), "{rule} covers {f} but not {t}");
                }
            }
        }

        #[test]
        fn no_common_topic_goes_unseen(rule in filter(), f in filter()) {
            let common = topics().iter().any(|t| matches(&f, t) && matches(&rule, t));
            prop_assert!(!common || overlaps(&rule, &f), "{rule} and {f}");
        }
    }
}
