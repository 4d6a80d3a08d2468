//! Replays what was written by hand and what fuzzing has found worth keeping, whole and cut short.
#![expect(clippy::unwrap_used, reason = "all of this file is a test, its helpers too")]

use std::path::{Path, PathBuf};

type Play = fn(&[u8]);

/// Every target with what it does.
const TARGETS: [(&str, Play); 13] = [
    ("coap_block", replay::coap_block::play),
    ("coap_machine", replay::coap_machine::play),
    ("coap_message", replay::coap_message::play),
    ("coap_stream", replay::coap_stream::play),
    ("codecs", replay::codecs::play),
    ("dtls", replay::dtls::play),
    ("mqtt_machine", replay::mqtt_machine::play),
    ("mqtt_packet", replay::mqtt_packet::play),
    ("mqtt_sn_machine", replay::mqtt_sn_machine::play),
    ("mqtt_sn_message", replay::mqtt_sn_message::play),
    ("proxy", replay::proxy::play),
    ("topic", replay::topic::play),
    ("websocket", replay::websocket::play),
];

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn every_corpus_is_played_without_harm() {
    for (target, play) in TARGETS {
        let folder = fuzz().join("corpus").join(target);
        let inputs = names(&folder);
        assert!(!inputs.is_empty(), "{target} has no corpus");
        for name in inputs {
            let input = std::fs::read(folder.join(name)).unwrap();
            for end in 0..=input.len() {
                play(&input[..end]);
            }
        }
    }
}

#[test]
fn targets_and_corpora_are_those_of_the_list() {
    let listed: Vec<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&fuzz().join("corpus")), listed);
    let files: Vec<String> = listed.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(names(&fuzz().join("targets")), files);
}
