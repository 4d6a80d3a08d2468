//! What is shipped in `etc/` and what the program does without it are the same. Tests only.

use std::path::Path;
use std::sync::Arc;

use gateway::config::Kind;

use crate::{file, settings};

fn etc() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../etc")
}

fn shipped() -> (settings::Settings, Vec<String>) {
    let mut mistakes = Vec::new();
    let root = file::load(&etc().join("tidegate.toml"), std::iter::empty(), &mut mistakes);
    let settings = settings::decode(root, &Arc::default(), &mut mistakes);
    (settings, mistakes.iter().map(ToString::to_string).collect())
}

#[test]
fn every_file_of_etc_is_understood() {
    let (settings, mistakes) = shipped();
    assert_eq!(mistakes, [""; 0]);
    let listeners: Vec<String> = settings
        .gates
        .iter()
        .map(|g| format!("{} {} {}", g.setup.protocol, g.setup.name, g.setup.bind))
        .collect();
    assert_eq!(
        listeners,
        ["mqtt tcp [::]:1883", "mqtt ws [::]:8083", "coap udp [::]:5683", "mqtt_sn udp [::]:1884"]
    );
    let acl = std::fs::read_to_string(etc().join("acl.conf")).unwrap();
    let (list, mistakes) = auth::acl::Acl::decode("acl.conf", &acl);
    assert_eq!(mistakes, []);
    assert!(list.is_open(), "what is shipped allows what no list allows");
    let examples: String = acl
        .lines()
        .filter_map(|l| l.strip_prefix("#   "))
        .filter(|l| is_rule(l))
        .map(|l| format!("{l}\n"))
        .collect();
    assert_eq!(auth::acl::Acl::decode("examples", &examples).1, []);
    assert_eq!(examples.lines().count(), 4);
    for entry in std::fs::read_dir(etc()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let known = [
            "README.md",
            "acl.conf",
            "codecs",
            "gateways",
            "passwd",
            "psk",
            "tidegate.service",
            "tidegate.toml",
        ];
        assert!(known.contains(&name.as_str()), "{name} is checked by no test");
    }
}

fn is_rule(line: &str) -> bool {
    (line.starts_with("allow ") || line.starts_with("deny ")) && !line.contains("WHO")
}

#[test]
fn the_shipped_configuration_is_the_default_one() {
    let (shipped, _) = shipped();
    let mut mistakes = Vec::new();
    let bare =
        settings::decode(file::decode(&Arc::from("bare"), "", &mut mistakes), &Arc::default(), &mut mistakes);
    assert_eq!(shipped.setup, bare.setup);
    // The shipped list allows all, as no list does; it is there to be written in.
    assert_eq!(shipped.auth, auth::Options { acl: Some("etc/acl.conf".into()), ..bare.auth });
    assert_eq!(format!("{:?}", shipped.router), format!("{:?}", bare.router));
    // A listener that says its address alone is the shipped one.
    let text = "[mqtt.listeners.tcp]\nbind = \"[::]:1883\"\n[coap.listeners.udp]\nbind = \"[::]:5683\"\n[mqtt_sn.listeners.udp]\nbind = \"[::]:1884\"\n[mqtt.listeners.ws]\nbind = \"[::]:8083\"\n[mqtt.listeners.ws.websocket]\n";
    let bare = settings::decode(
        file::decode(&Arc::from("bare"), text, &mut mistakes),
        &Arc::default(),
        &mut mistakes,
    );
    let setups = |s: &settings::Settings| s.gates.iter().map(|g| g.setup.clone()).collect::<Vec<_>>();
    assert_eq!(setups(&shipped), setups(&bare));
    assert_eq!(mistakes, []);
}

#[test]
fn the_example_of_every_gateway_is_understood() {
    for gateway in crate::gateways::ALL {
        let path = etc().join("../gateways").join(gateway.name).join("config.example.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let mut mistakes = Vec::new();
        settings::decode(
            file::decode(&Arc::from(gateway.name), &text, &mut mistakes),
            &Arc::default(),
            &mut mistakes,
        );
        assert_eq!(mistakes.iter().map(ToString::to_string).collect::<Vec<_>>(), [""; 0]);
        assert!(text.contains(&format!("\n[{}]\n", gateway.name)), "{} has no section", path.display());
    }
}

#[test]
fn what_the_guides_show_of_configuration_can_be_copied() {
    let codecs = format!("[codecs]\nfolder = {:?}\n", etc().join("codecs"));
    let mut count = 0;
    for guide in ["codecs", "gateways/coap", "gateways/mqtt", "gateways/mqtt_sn", "gateways/tcp"] {
        let text = std::fs::read_to_string(etc().join("..").join(guide).join("README.md")).unwrap();
        for block in text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            let mut mistakes = Vec::new();
            let root = file::decode(&Arc::from(guide), &format!("{codecs}{block}"), &mut mistakes);
            settings::decode(root, &Arc::default(), &mut mistakes);
            assert_eq!(mistakes.iter().map(ToString::to_string).collect::<Vec<_>>(), [""; 0], "{block}");
            count += 1;
        }
    }
    assert!(count >= 6, "{count} blocks");
}

/// What a section knows: it lists its keys to who uses another.
fn known_keys(section: &str) -> Vec<String> {
    let (shipped, _) = shipped();
    let (mut root, mut mistakes) = (shipped.root, Vec::new());
    let key = format!("{section}.@").replace('.', "__");
    file::set(&mut root, "test", &key, file::value_of("test", "1"), &mut mistakes);
    settings::decode(root, &Arc::default(), &mut mistakes);
    let mistake = mistakes.iter().find(|m| m.key.ends_with('@')).expect("an unknown key is a mistake");
    let list = mistake.text.strip_prefix("unknown key; known here: ").expect("a list of keys");
    list.split(", ").map(str::to_owned).collect()
}

#[test]
fn every_key_that_is_known_is_shown() {
    let text = std::fs::read_to_string(etc().join("tidegate.toml")).unwrap();
    let shown: Vec<&str> = text.lines().map(|l| l.trim_start_matches("# ")).collect();
    let is_shown = |key: &str| {
        shown.iter().any(|l| {
            let header = l.trim_start_matches('[').split(']').next().unwrap_or_default();
            l.starts_with(&format!("{key} = "))
                || l.starts_with('[') && header.split('.').any(|part| part == key)
        })
    };
    for section in [
        "node",
        "log",
        "http",
        "admin",
        "drivers",
        "limits",
        "codecs",
        "auth",
        "auth.bans",
        "router",
        "mqtt",
        "mqtt.listeners.tcp",
        "mqtt.listeners.tls.tls",
        "mqtt.listeners.ws.websocket",
        "coap",
        "coap.listeners.udp",
        "mqtt_sn",
        "mqtt_sn.credentials",
        "mqtt_sn.advertise",
        "mqtt_sn.listeners.udp",
        "tcp",
        "tcp.listeners.trackers",
        "tcp.listeners.trackers.topics",
        "tcp.listeners.trackers.credentials",
    ] {
        for key in known_keys(section) {
            assert!(is_shown(&key), "{section}.{key} is not shown");
        }
    }
}

#[test]
fn every_key_of_the_shipped_file_is_explained() {
    let text = std::fs::read_to_string(etc().join("tidegate.toml")).unwrap();
    let mut is_explained = false;
    for (number, line) in (1..).zip(text.lines()) {
        let is_key = line.contains(" = ") && !line.starts_with('#');
        // Keys that follow each other without a blank line share what is said above them.
        is_explained = line.starts_with('#') || is_explained && (is_key || line.starts_with('['));
        assert!(
            !is_key || is_explained || line.starts_with("bind") || line.starts_with("path"),
            "line {number}"
        );
    }
}

#[test]
fn the_unit_starts_the_program_as_it_is_called() {
    use clap::Parser;
    let unit = std::fs::read_to_string(etc().join("tidegate.service")).unwrap();
    let lines: Vec<&str> =
        unit.lines().filter_map(|l| l.strip_prefix("ExecStart")?.split_once('=')).map(|l| l.1).collect();
    assert_eq!(lines.len(), 2);
    for line in lines {
        assert!(crate::cli::Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
    }
    let (shipped, _) = shipped();
    let mut root = shipped.root;
    for line in unit.lines().filter_map(|l| l.strip_prefix("Environment=")) {
        let (name, value) = line.split_once('=').unwrap();
        let mut mistakes = Vec::new();
        file::set(
            &mut root,
            name,
            name.strip_prefix("TIDEGATE__").unwrap(),
            file::value_of(name, value),
            &mut mistakes,
        );
        let _ = settings::decode(root.clone(), &Arc::default(), &mut mistakes);
        assert_eq!(mistakes, []);
    }
    // The unit starts the process in no particular folder, and `data` is an argument.
    for (key, value) in file::flatten(&root) {
        let Kind::Text(text) = value else { continue };
        assert!(!text.starts_with("etc/"), "{key} is {text}: under the unit there is no such file");
    }
    assert!(unit.contains("\nSystemCallFilter=seccomp\n"), "a worker of scripts needs it to confine itself");
}
