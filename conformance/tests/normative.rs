//! Every numbered statement of MQTT 3.1.1 and 5.0 has a case, or a reason why none can see it.

use conformance::broker;
use conformance::normative;
use conformance::script;

#[test]
fn every_statement_has_a_case_or_a_reason() {
    let folder = broker::house().join("conformance/cases/mqtt");
    let path = folder.join("normative.md");
    let cases = script::load(&folder).unwrap();
    let mut table = std::fs::read_to_string(&path).unwrap();
    if std::env::var_os("DIALOGUE_WRITE").is_some() {
        table = normative::rewrite(&table, &cases);
        std::fs::write(&path, &table).unwrap();
    }
    let wrong = normative::mistakes(&table, &cases);
    assert!(
        wrong.is_empty(),
        "normative.md (DIALOGUE_WRITE=1 writes the names of cases):\n{}",
        wrong.join("\n")
    );
}

#[test]
fn the_table_has_every_statement_once() {
    let path = broker::house().join("conformance/cases/mqtt/normative.md");
    let table = std::fs::read_to_string(path).unwrap();
    let mut ids: Vec<String> = normative::parse(&table).into_iter().map(|statement| statement.id).collect();
    let count = |version: &str| ids.iter().filter(|id| id.starts_with(version)).count();
    // Appendix B of each standard has this many.
    assert_eq!((count("3.1.1:"), count("5:")), (141, 251));
    ids.sort_unstable();
    assert!(ids.windows(2).all(|pair| pair[0] != pair[1]));
}
