use super::*;
use gateway::config::{Kind, Place, Section, Value};

fn value(kind: Kind) -> Value {
    Value { kind, place: Place::default() }
}

fn text(text: &str) -> Kind {
    Kind::Text(text.to_owned())
}

fn table(entries: &[(&str, Kind)]) -> Kind {
    Kind::Table(entries.iter().map(|(key, kind)| ((*key).to_owned(), value(kind.clone()))).collect())
}

fn read(entries: &[(&str, Kind)]) -> (Config, Vec<String>) {
    let mut mistakes = Vec::new();
    let mut s = Section::new("l", value(table(entries)), &mut mistakes);
    let config = Config::read(&mut s, &Library::default());
    s.finish();
    (config, mistakes.iter().map(|m| format!("{}: {}", m.key, m.text)).collect())
}

#[test]
fn a_listener_says_its_codec_and_the_rest_has_values() {
    let (config, mistakes) = read(&[("codec", text("teltonika"))]);
    assert_eq!(mistakes, [""; 0]);
    assert_eq!(config, Config { codec: "teltonika".into(), ..Config::default() });
}

#[test]
fn a_codec_that_is_not_there_is_a_mistake_with_a_suggestion() {
    let (_, mistakes) = read(&[("codec", text("teltonica"))]);
    assert!(mistakes[0].starts_with("l.codec: there is no codec \"teltonica\""), "{mistakes:?}");
    assert!(mistakes[0].ends_with("did you mean \"teltonika\"?"), "{mistakes:?}");
    let (_, mistakes) = read(&[("codec", text("our-own-thing"))]);
    let end = "; yours would be our-own-thing.js or our-own-thing.wasm in `codecs.folder`";
    assert!(mistakes[0].ends_with(end), "{mistakes:?}");
    let (_, mistakes) = read(&[]);
    assert!(mistakes[0].starts_with("l.codec: is missing: there are "), "{mistakes:?}");
}

#[test]
fn a_language_without_a_login_needs_a_name_for_its_devices() {
    let (_, mistakes) = read(&[("codec", text("raw"))]);
    assert!(mistakes[0].starts_with("l.device: `raw` does not say"), "{mistakes:?}");
    assert_eq!(read(&[("codec", text("raw")), ("device", text("json:id"))]).1, [""; 0]);
    assert_eq!(read(&[("codec", text("raw")), ("device", text("login"))]).1, mistakes);
    let (_, mistakes) = read(&[("codec", text("raw")), ("device", text("serial"))]);
    assert!(mistakes[0].starts_with("l.device: must be \"login\""), "{mistakes:?}");
}

#[test]
fn keys_of_framing_are_read_as_they_are_written() {
    let framing = |entries: &[(&str, Kind)]| {
        read(&[("codec", text("raw")), ("device", text("address")), ("framing", table(entries))])
    };
    let (config, mistakes) = framing(&[("kind", text("idle")), ("pause", text("50 ms"))]);
    assert_eq!(mistakes, [""; 0]);
    assert_eq!(config.options.framing.and_then(|f| f.idle()), Some(Duration::from_millis(50)));
    let (_, mistakes) = framing(&[("kind", text("length")), ("length_size", Kind::Integer(9))]);
    assert!(mistakes.len() == 1 && mistakes[0].starts_with("l.framing.length_size: "), "{mistakes:?}");
    let (_, mistakes) = framing(&[("kind", text("fixed"))]);
    assert_eq!(mistakes, ["l.framing.kind: kind \"fixed\" needs `size`"]);
    let (_, mistakes) = framing(&[("knid", text("fixed"))]);
    assert!(mistakes.iter().any(|m| m.contains("did you mean `kind`?")), "{mistakes:?}");
}

#[test]
fn topics_need_the_device() {
    let topics = |up: &str| {
        let entries = table(&[("up", text(up))]);
        read(&[("codec", text("teltonika")), ("topics", entries)]).1
    };
    assert_eq!(topics("fleet/{device}/{kind}"), [""; 0]);
    assert_eq!(
        topics("fleet/{kind}"),
        ["l.topics.up: needs {device} and {kind}, as \"{device}/up/{kind}\" has"]
    );
}
