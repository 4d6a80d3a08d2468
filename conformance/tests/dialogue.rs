//! Plays every case against the built binary, and against Debian's mosquitto, whose differences are listed with reasons.

use conformance::broker::{self, Broker};
use conformance::differences::{self, Difference};
use conformance::run::{self, Outcome};
use conformance::script::{self, Case};
use std::path::PathBuf;

fn folder() -> PathBuf {
    broker::house().join("conformance/cases/mqtt")
}

fn play<'a>(cases: &'a [Case], broker: &Broker) -> Vec<Outcome<'a>> {
    run::run(cases, &broker.targets)
}

fn show(outcome: &Outcome<'_>) -> String {
    let file =
        outcome.case.file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mistake = outcome.mistake.as_deref().unwrap_or("as the case says");
    format!("{} ({}) {file}: {mistake}", outcome.case.name, outcome.case.version)
}

#[test]
fn tidegate_does_as_every_case_says() {
    let cases = script::load(&folder()).unwrap();
    let broker = broker::tidegate().unwrap();
    let outcomes = play(&cases, &broker);
    let failed: Vec<String> = outcomes.iter().filter(|outcome| outcome.mistake.is_some()).map(show).collect();
    assert!(failed.is_empty(), "{} of {} cases failed:\n{}", failed.len(), cases.len(), failed.join("\n"));
}

#[test]
fn mosquitto_differs_where_the_list_says_and_nowhere_else() {
    let cases = script::load(&folder()).unwrap();
    let list = std::fs::read_to_string(folder().join("differences.toml")).unwrap();
    let list = differences::parse(&list).unwrap();
    let broker = broker::mosquitto().unwrap();
    let outcomes = play(&cases, &broker);
    let wrong: Vec<String> =
        outcomes.iter().filter(|outcome| is_unlisted(outcome, &list)).map(show).collect();
    assert!(wrong.is_empty(), "not in differences.toml:\n{}", wrong.join("\n"));
    let stale: Vec<String> = outcomes.iter().filter(|outcome| is_stale(outcome, &list)).map(show).collect();
    assert!(stale.is_empty(), "in differences.toml, but no difference:\n{}", stale.join("\n"));
}

#[test]
fn every_difference_is_about_a_case() {
    let cases = script::load(&folder()).unwrap();
    let list = std::fs::read_to_string(folder().join("differences.toml")).unwrap();
    for difference in differences::parse(&list).unwrap() {
        let covered = cases.iter().filter(|case| difference.covers(case)).count();
        let wanted = difference.versions.len().max(1);
        assert!(covered >= wanted, "line {}: no case is called {:?}", difference.line, difference.case);
    }
}

fn is_unlisted(outcome: &Outcome<'_>, list: &[Difference]) -> bool {
    outcome.mistake.is_some() && !list.iter().any(|difference| difference.covers(outcome.case))
}

fn is_stale(outcome: &Outcome<'_>, list: &[Difference]) -> bool {
    outcome.mistake.is_none() && list.iter().any(|difference| difference.covers(outcome.case))
}
