//! The table of normative statements (`normative.md`): which case checks each, or why none can.
//!
//! A row is `| 5:MQTT-1.5.4-1 | in short | case: name; name |` or `| … | … | none: reason |`.

use crate::script::Case;
use std::collections::BTreeMap;

/// One statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Such as `5:MQTT-1.5.4-1`.
    pub id: String,
    /// What it says, in short.
    pub short: String,
    /// The last column as it stands.
    pub seen: String,
}

/// The rows of the table.
pub fn parse(content: &str) -> Vec<Statement> {
    content.lines().filter_map(row).collect()
}

fn row(line: &str) -> Option<Statement> {
    let cells: Vec<&str> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
    let [id, short, seen] = cells[..] else { return None };
    id.contains(":MQTT-").then(|| Statement { id: id.into(), short: short.into(), seen: seen.into() })
}

/// The table as the cases make it: statements that cases name get their names, others keep their reason.
pub fn rewrite(content: &str, cases: &[Case]) -> String {
    let names = names(cases);
    let mut out = String::new();
    for line in content.lines() {
        match row(line).and_then(|statement| Some((names.get(statement.id.as_str())?, statement))) {
            Some((names, Statement { id, short, .. })) => {
                out += &format!("| {id} | {short} | case: {} |\n", names.join("; "));
            }
            None => out += &format!("{line}\n"),
        }
    }
    out
}

/// What is wrong between table and cases.
pub fn mistakes(content: &str, cases: &[Case]) -> Vec<String> {
    let (statements, names) = (parse(content), names(cases));
    let mut wrong = Vec::new();
    for id in names.keys().filter(|id| !statements.iter().any(|statement| statement.id == **id)) {
        wrong.push(format!("{id}: a case names it, the table does not have it"));
    }
    for Statement { id, seen, .. } in &statements {
        let reason = seen.strip_prefix("none: ").unwrap_or_default();
        match names.get(id.as_str()) {
            Some(names) if *seen != format!("case: {}", names.join("; ")) => {
                wrong.push(format!("{id}: the cases are {}", names.join("; ")));
            }
            Some(_) => {}
            None if reason.is_empty() => wrong.push(format!("{id}: neither a case nor a reason")),
            None => {}
        }
    }
    wrong
}

/// Names of cases for each statement, each once, in the order of the files.
fn names(cases: &[Case]) -> BTreeMap<&str, Vec<&str>> {
    let mut names: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for case in cases {
        for id in &case.ids {
            let names = names.entry(id).or_default();
            if !names.contains(&case.name.as_str()) {
                names.push(&case.name);
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script;
    use std::path::Path;

    const TABLE: &str = "# x\n\n| id | in short | seen in |\n|---|---|---|\n| 5:MQTT-1.5.4-1 | a | case: x |\n\
                         | 5:MQTT-1.5.4-2 | b | none: why |\n";

    fn cases(text: &str) -> Vec<Case> {
        script::parse(text, Path::new("v5/x.case")).unwrap()
    }

    #[test]
    fn a_table_that_says_what_the_cases_say_has_no_mistakes() {
        assert!(mistakes(TABLE, &cases("case \"x\" [5:MQTT-1.5.4-1]\n")).is_empty());
    }

    #[test]
    fn what_does_not_fit_is_a_mistake() {
        assert_eq!(mistakes(TABLE, &cases("case \"y\" [5:MQTT-1.5.4-1]\n")).len(), 1);
        assert_eq!(mistakes(TABLE, &cases("case \"y\"\n")).len(), 1, "a row says case, and there is none");
        assert_eq!(mistakes(TABLE, &cases("case \"x\" [5:MQTT-1.5.4-1] [5:MQTT-9.9.9-9]\n")).len(), 1);
        assert_eq!(mistakes(&TABLE.replace("why", ""), &cases("case \"x\" [5:MQTT-1.5.4-1]\n")).len(), 1);
    }

    #[test]
    fn a_rewritten_table_has_no_mistakes() {
        let cases = cases("case \"y\" [5:MQTT-1.5.4-1] [5:MQTT-1.5.4-2]\ncase \"z\" [5:MQTT-1.5.4-1]\n");
        let table = rewrite(TABLE, &cases);
        assert!(table.contains("| 5:MQTT-1.5.4-1 | a | case: y; z |"));
        assert!(mistakes(&table, &cases).is_empty());
    }
}
