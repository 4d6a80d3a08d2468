//! The whole configuration, read and checked.

use std::path::Path;
use std::sync::Arc;

use auth::Auth;
use codecs::Library;
use gateway::config::{Kind, Mistake, Place, Section, Value};
use runtime::Gate;
use runtime::config::{ListenerSetup, Setup};
use runtime::layer::tls::TlsConfig;

use crate::file::{flatten, load, place_of, set};
use crate::{gateways, run};

/// Everything that the configuration says.
pub(crate) struct Settings {
    /// As it was written, with its places.
    pub(crate) root: Value,
    /// The runtime's part.
    pub(crate) setup: Setup,
    /// `[auth]`.
    pub(crate) auth: auth::Options,
    /// `[router]`.
    pub(crate) router: router::Options,
    /// The listeners of all gateways.
    pub(crate) gates: Vec<Gate>,
}

/// Reads the file at `config`, what stands beside it, and the environment.
pub(crate) fn read(
    config: &Path,
    data: Option<&Path>,
    library: &Arc<Library>,
    mistakes: &mut Vec<Mistake>,
) -> Settings {
    let mut root = load(config, environment(), mistakes);
    if let Some(data) = data {
        let text = data.display().to_string();
        let kind = Kind::Text(text);
        let place = Place { source: "--data".into(), line: 0 };
        set(&mut root, "--data", "node__data", Value { kind, place }, mistakes);
    }
    decode(root, library, mistakes)
}

/// Variables that are not UTF-8 name no key of ours.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
}

/// Reads what stands in `root`.
pub(crate) fn decode(root: Value, library: &Arc<Library>, mistakes: &mut Vec<Mistake>) -> Settings {
    let before = mistakes.len();
    let mut section = Section::new("", root.clone(), mistakes);
    let setup = Setup::read(&mut section);
    let auth = auth::Options::read(section.section("auth"));
    let router = {
        let mut s = section.section("router");
        let options = router::Options::read(&mut s);
        s.finish();
        options
    };
    library.expect(runtime::keeper::names(&setup.codecs.folder));
    let mut gates = Vec::new();
    for kind in gateways::ALL {
        let mut s = section.section(kind.name);
        let own = (kind.read)(&mut s, library);
        let read = |name: &str, s: Section<'_>| {
            ListenerSetup::read(kind.name, kind.carriers, kind.mountpoint, name, s, |s| own(s))
        };
        let listeners = s.sections("listeners", read);
        s.finish();
        gates.extend(listeners.into_iter().flatten().map(|(setup, factory)| Gate { setup, factory }));
    }
    section.finish();
    // In the order of the lines, as an editor shows them.
    mistakes[before..].sort_by(|a, b| (&a.place.source, a.place.line).cmp(&(&b.place.source, b.place.line)));
    Settings { root, setup, auth, router, gates }
}

impl Settings {
    /// What is wrong with the files that the configuration names, and with its parts as they stand to each other.
    pub(crate) fn check(&self, mistakes: &mut Vec<Mistake>) {
        mistakes.extend(Auth::open(&self.auth, run::random()).1);
        if let Err(e) = runtime::log::check(&self.setup.log.level) {
            self.mistake(mistakes, "log.level", e.to_string());
        }
        let codecs = &self.setup.codecs.folder;
        if let Err(e) = runtime::keeper::check_folder(codecs) {
            self.mistake(mistakes, "codecs.folder", format!("{}: cannot be read: {e}", codecs.display()));
        }
        for (i, gate) in self.gates.iter().enumerate() {
            let key = listener_key(&gate.setup);
            if let Some(tls) = &gate.setup.tls
                && let Err(e) = TlsConfig::load(tls, gate.setup.protocol)
            {
                self.mistake(mistakes, &format!("{key}.tls"), e.to_string());
            }
            if let Some(dtls) = &gate.setup.dtls
                && let Err(text) = runtime::datagram::check(dtls)
            {
                self.mistake(mistakes, &format!("{key}.dtls"), text);
            }
            let same =
                |other: &&Gate| other.setup.carrier == gate.setup.carrier && clash(&other.setup, &gate.setup);
            if let Some(other) = self.gates[..i].iter().find(same) {
                let text = format!("{} is taken by {}", gate.setup.bind, listener_key(&other.setup));
                self.mistake(mistakes, &format!("{key}.bind"), text);
            }
        }
    }

    fn mistake(&self, mistakes: &mut Vec<Mistake>, key: &str, text: String) {
        mistakes.push(Mistake { place: place_of(&self.root, key), key: key.to_owned(), text });
    }

    /// Keys whose values differ from `old` and that are not among those applied while running.
    pub(crate) fn needs_restart(&self, old: &Settings) -> Vec<String> {
        let (old, new) = (flatten(&old.root), flatten(&self.root));
        let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let is_live = |key: &str| LIVE.iter().any(|l| key == *l || l.ends_with('.') && key.starts_with(l));
        keys.into_iter().filter(|k| old.get(*k) != new.get(*k) && !is_live(k)).cloned().collect()
    }
}

/// What SIGHUP applies; certificates are read again too, from where they stood.
const LIVE: &[&str] = &["auth.", "limits.", "log.level", "router."];

fn listener_key(setup: &ListenerSetup) -> String {
    format!("{}.listeners.{}", setup.protocol, setup.name)
}

/// Whether two listeners want the same port of the same address. `[::]` serves IPv4 too. Port 0 is any free one.
fn clash(a: &ListenerSetup, b: &ListenerSetup) -> bool {
    let (a, b) = (a.bind, b.bind);
    let all = |ip: std::net::IpAddr, other: std::net::IpAddr| {
        ip.is_unspecified() && (ip.is_ipv6() || other.is_ipv4())
    };
    a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || all(a.ip(), b.ip()) || all(b.ip(), a.ip()))
}

/// `tidegate check`: what to print, or all mistakes.
pub(crate) fn check(config: &Path, data: Option<&Path>) -> Result<String, Vec<Mistake>> {
    let mut mistakes = Vec::new();
    let settings = read(config, data, &Arc::default(), &mut mistakes);
    settings.check(&mut mistakes);
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let mut text = String::new();
    for gate in &settings.gates {
        text += &format!("ok: {} on {}\n", listener_key(&gate.setup), gate.setup.bind);
    }
    Ok(text + &format!("ok: {}", config.display()))
}

#[cfg(test)]
mod tests {
    use runtime::config::Carrier;

    use super::*;

    fn settings(text: &str) -> (Settings, Vec<String>) {
        let mut mistakes = Vec::new();
        let root = crate::file::decode(&"t.toml".into(), text, &mut mistakes);
        let settings = decode(root, &Arc::default(), &mut mistakes);
        settings.check(&mut mistakes);
        (settings, mistakes.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_folder_of_codecs_that_cannot_be_read_is_named() {
        let text =
            "[codecs]\nfolder = \"Cargo.toml\"\n[tcp.listeners.a]\nbind = \"[::]:7000\"\ncodec = \"ours\"\n";
        let (_, mistakes) = settings(text);
        assert!(
            mistakes[0].starts_with("t.toml:5: tcp.listeners.a.codec: there is no codec"),
            "{mistakes:?}"
        );
        assert!(
            mistakes[1].starts_with("t.toml:2: codecs.folder: Cargo.toml: cannot be read: "),
            "{mistakes:?}"
        );
        assert_eq!(mistakes.len(), 2);
        assert_eq!(settings("[codecs]\nfolder = \"none\"\n").1, [""; 0]);
    }

    #[test]
    fn an_empty_file_is_a_gateway_without_listeners() {
        let (settings, mistakes) = settings("");
        assert_eq!(mistakes, [""; 0]);
        assert!(settings.gates.is_empty());
    }

    #[test]
    fn all_mistakes_of_all_sections_are_found_in_the_order_of_their_lines() {
        let (_, mistakes) = settings(
            "[node]\nnaem = \"x\"\n[limits]\nmax_logins = 0\n[mqtt.listeners.tcp]\nbnd = \"[::]:1883\"\n\
             [auth.bans]\nby = [\"adress\"]\n[mqt]\n",
        );
        let lines: Vec<&str> = mistakes.iter().map(|m| &m[..9]).collect();
        assert_eq!(lines, ["t.toml:2:", "t.toml:4:", "t.toml:5:", "t.toml:6:", "t.toml:8:", "t.toml:9:"]);
        assert_eq!(mistakes[0], "t.toml:2: node.naem: unknown key; did you mean `name`?");
        assert_eq!(mistakes[5], "t.toml:9: mqt: unknown key; did you mean `mqtt`?");
    }

    #[test]
    fn two_listeners_cannot_have_one_port() {
        let (_, mistakes) = settings(
            "[mqtt.listeners]\na.bind = \"[::]:1883\"\nb.bind = \"127.0.0.1:1883\"\nc.bind = \"127.0.0.1:1884\"\n\
             [coap.listeners]\nudp.bind = \"[::]:1883\"\n",
        );
        assert_eq!(
            mistakes,
            ["t.toml:3: mqtt.listeners.b.bind: 127.0.0.1:1883 is taken by mqtt.listeners.a"]
        );
    }

    #[test]
    fn a_listener_of_coap_is_a_port_of_udp_or_tcp() {
        let (settings, mistakes) = settings(
            "[coap.listeners]\na.bind = \"[::]:5683\"\nb.bind = \"[::]:5683\"\nb.transport = \"tcp\"\n\
             c.bind = \"[::]:8080\"\n[coap.listeners.c.websocket]\n",
        );
        assert_eq!(mistakes, [""; 0], "one number, two ports");
        let carriers: Vec<_> = settings.gates.iter().map(|g| g.setup.carrier).collect();
        assert_eq!(carriers, [Carrier::Datagram, Carrier::Stream, Carrier::Stream]);
        let websocket = settings.gates[2].setup.websocket.as_ref();
        assert_eq!(websocket.map(|w| &*w.path), Some("/.well-known/coap"));
    }

    #[test]
    fn what_a_transport_cannot_carry_is_a_mistake() {
        for (text, mistake) in [
            ("transport = \"sctp\"", "transport: \"sctp\" is none of \"udp\", \"tcp\""),
            ("transport = \"udp\"\nwebsocket.path = \"/x\"", "websocket: needs transport = \"tcp\""),
            (
                "transport = \"tcp\"\ndtls.psk = true",
                "dtls: needs transport = \"udp\", without sections tls and websocket",
            ),
            ("proxy_protocol = true", "proxy_protocol: unknown key"),
            ("groups = [\"224.0.1.187\"]\ndtls.psk = true", "groups: DTLS has none"),
        ] {
            let (_, mistakes) = settings(&format!("[coap.listeners.a]\nbind = \"127.0.0.1:1\"\n{text}\n"));
            assert_eq!(mistakes.len(), 1, "{mistakes:?}");
            assert!(mistakes[0].contains(mistake), "{mistakes:?}");
        }
        let (_, mistakes) = settings("[mqtt.listeners.a]\nbind = \"127.0.0.1:1\"\ntransport = \"tcp\"\n");
        assert!(mistakes[0].contains("transport: unknown key"), "{mistakes:?}");
    }

    #[test]
    fn files_that_are_named_must_be_there() {
        let (_, mistakes) = settings(
            "[auth]\nacl = \"/nonexistent/acl.conf\"\n[mqtt.listeners.tls]\nbind = \"[::]:8883\"\n\
             [mqtt.listeners.tls.tls]\ncertificate = \"/nonexistent/c.pem\"\nkey = \"/nonexistent/k.pem\"\n",
        );
        assert_eq!(mistakes.len(), 2, "{mistakes:?}");
        assert!(mistakes[0].starts_with("/nonexistent/acl.conf: acl: cannot be read"));
        assert!(mistakes[1].starts_with("t.toml:5: mqtt.listeners.tls.tls: "), "{}", mistakes[1]);
        assert!(mistakes[1].contains("/nonexistent/c.pem"), "{}", mistakes[1]);
    }

    #[test]
    fn a_listener_has_certificates_or_pre_shared_keys() {
        let read = |text: &str| {
            settings(&format!("[mqtt.listeners.a]\nbind = \"[::]:1\"\n[mqtt.listeners.a.tls]\n{text}\n"))
        };
        let (found, mistakes) = read("psk = true\nmin_version = \"1.3\"");
        assert_eq!(mistakes, [""; 0]);
        let setup = &found.gates[0].setup;
        assert!(setup.tls.is_none() && setup.psk_tls.is_some_and(|tls| tls.only_1_3));
        for (text, mistake) in [
            ("psk = true\nkey = \"k.pem\"", "tls.key: with psk = true there are no certificates"),
            ("psk = true\nclient_ca = \"c.pem\"", "tls.client_ca: with psk = true there are no certificates"),
            ("certificate = \"c.pem\"", "tls.key: is missing: a PEM file"),
        ] {
            let (_, mistakes) = read(text);
            assert!(mistakes.len() == 1 && mistakes[0].contains(mistake), "{mistakes:?}");
        }
    }

    #[test]
    fn a_level_that_nothing_has_is_a_mistake() {
        let (_, mistakes) = settings("[log]\nlevel = \"loud\"\n");
        assert!(mistakes[0].starts_with("t.toml:2: log.level: \"loud\" is neither"), "{mistakes:?}");
        assert_eq!(settings("[log]\nlevel = \"warn,runtime=trace\"\n").1, [""; 0]);
    }

    #[test]
    fn what_cannot_be_changed_while_running_is_named() {
        let (old, _) = settings("[node]\nname = \"a\"\n[limits]\nmax_logins = 5\n");
        let (new, _) = settings("\n[limits]\nmax_logins = 6\n[log]\nlevel = \"debug\"\nformat = \"json\"\n");
        assert_eq!(new.needs_restart(&old), ["log.format", "node.name"]);
        assert_eq!(old.needs_restart(&old), [""; 0]);
    }
}
