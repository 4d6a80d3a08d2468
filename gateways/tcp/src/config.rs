//! What a listener says beside where it listens.

use std::time::Duration;

use codecs::{Framing, FramingOptions, Library, Options};
use gateway::Qos;
use gateway::config::{Kind, Section, nearest};

use crate::naming::Naming;
use crate::topics::Topics;

/// What a listener says.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The codec's name.
    pub codec: Box<str>,
    /// For the codec.
    pub options: Options,
    /// How a device is known.
    pub device: Naming,
    /// What scripts are told as LoRaWAN's FPort.
    pub port: u8,
    /// A device that is silent for longer is lost; zero is never.
    pub keep_alive: Duration,
    /// Who has not said by then who it is, is closed.
    pub login_timeout: Duration,
    /// How long a session outlives its connection.
    pub session_expiry: Duration,
    /// Of what is published for devices.
    pub qos: Qos,
    /// Of the devices' subscriptions to their commands.
    pub command_qos: Qos,
    /// First wait for the answer to a command, and each one after it.
    pub command_timeout: Duration,
    /// How often a command is sent again.
    pub command_retries: u32,
    /// Most commands of a device that wait for its answers.
    pub max_commands: u16,
    /// See [`Topics`].
    pub topics: Topics,
    /// What devices come in with whose language has no password.
    pub credentials: Credentials,
}

/// A user name and password; `%c` is the device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// None is nobody.
    pub username: Option<String>,
    /// None is none.
    pub password: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            codec: "".into(),
            options: Options::default(),
            device: Naming::Login,
            port: 1,
            keep_alive: Duration::from_secs(600),
            login_timeout: Duration::from_secs(30),
            session_expiry: Duration::from_secs(7 * 86_400),
            qos: Qos::AtLeastOnce,
            command_qos: Qos::AtLeastOnce,
            command_timeout: Duration::from_secs(30),
            command_retries: 2,
            max_commands: 16,
            topics: Topics::default(),
            credentials: Credentials::default(),
        }
    }
}

impl Config {
    /// Reads a listener's own keys.
    pub fn read(s: &mut Section<'_>, library: &Library) -> Config {
        let d = Config::default();
        let (ms, second, day) =
            (Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(86_400));
        let codec = codec(s, library);
        let says_device = s.has("device");
        let device = s.read("device", naming);
        let is_bad = says_device && device.is_none();
        let config = Config {
            codec,
            options: Options {
                max_frame: s.size("max_frame", 0, 0..=1 << 24),
                framing: framing(s),
                // The gateway knows whether it is, by what carries the listener.
                is_whole: false,
            },
            device: device.unwrap_or(d.device),
            port: s.number("port", d.port, 1..=255),
            keep_alive: s.duration("keep_alive", d.keep_alive, Duration::ZERO..=30 * day),
            login_timeout: s.duration("login_timeout", d.login_timeout, second..=3600 * second),
            session_expiry: s.duration("session_expiry", d.session_expiry, Duration::ZERO..=365 * day),
            qos: qos(s, "qos", d.qos),
            command_qos: qos(s, "command_qos", d.command_qos),
            command_timeout: s.duration("command_timeout", d.command_timeout, ms..=day),
            command_retries: s.number("command_retries", d.command_retries, 0..=20),
            max_commands: s.number("max_commands", d.max_commands, 1..=1000),
            topics: topics(s.section("topics")),
            credentials: credentials(s.section("credentials")),
        };
        let is_nameless = config.device == Naming::Login && never_logs_in(&config.codec);
        if is_nameless && !is_bad {
            let place = s.place().clone();
            let text = format!(
                "`{}` does not say which device it is of. \"first-frame\", \"address\", \"address-port\", \
                 \"certificate\", \"psk\" or \"json:FIELD\" does",
                config.codec
            );
            s.mistake(place, "device", text);
        }
        config
    }
}

/// Whether the built-in codec of this name has no login: none of its samples shows one.
fn never_logs_in(codec: &str) -> bool {
    let has_login = |sample: &codecs::Sample| sample.up.iter().any(|up| up.contains("\"login\""));
    codecs::find(codec).is_some_and(|def| !def.samples.is_empty() && !def.samples.iter().any(has_login))
}

fn codec(s: &mut Section<'_>, library: &Library) -> Box<str> {
    let place = s.place().clone();
    let names = library.names();
    let has = s.has("codec");
    let name = s.read("codec", |k| match k {
        Kind::Text(name) if library.knows(name) => Ok(name.clone()),
        Kind::Text(name) => {
            let near = nearest(name, names.iter().map(|n| &**n));
            let hint = near.map_or_else(
                || format!("; yours would be {name}.js or {name}.wasm in `codecs.folder`"),
                |near| format!("; did you mean \"{near}\"?"),
            );
            Err(format!("there is no codec \"{name}\"; there are {}{hint}", names.join(", ")))
        }
        _ => Err("must be a codec's name".to_owned()),
    });
    if !has {
        s.mistake(place, "codec", format!("is missing: there are {}", names.join(", ")));
    }
    name.unwrap_or_default().into()
}

/// The section `framing`: all of its keys are text for the codecs' own reader.
fn framing(s: &mut Section<'_>) -> Option<Framing> {
    if !s.has("framing") {
        s.take("framing");
        return None;
    }
    let mut s = s.section("framing");
    let mut options = FramingOptions::default();
    let mut is_good = true;
    for key in FramingOptions::KEYS {
        let is_there = s.has(key);
        let set = s.read(key, |kind| match kind {
            Kind::Text(text) => options.set(key, &text.replace(' ', "")),
            Kind::Integer(number) => options.set(key, &number.to_string()),
            _ => Err("must be text or a whole number".to_owned()),
        });
        is_good &= set.is_some() || !is_there;
    }
    let place = s.place().clone();
    let framing =
        if is_good { Framing::new(&options).map_err(|why| s.mistake(place, "kind", why)).ok() } else { None };
    s.finish();
    framing
}

fn naming(kind: &Kind) -> Result<Naming, String> {
    let text = || {
        "must be \"login\", \"first-frame\", \"address\", \"address-port\", \"certificate\", \"psk\" \
         or \"json:FIELD\""
            .to_owned()
    };
    let Kind::Text(word) = kind else { return Err(text()) };
    Naming::parse(word).ok_or_else(text)
}

fn qos(s: &mut Section<'_>, key: &'static str, default: Qos) -> Qos {
    Qos::from_u8(s.number(key, default as u8, 0..=1)).unwrap_or(default)
}

fn topics(mut s: Section<'_>) -> Topics {
    let d = Topics::default();
    let topics = Topics {
        up: s.read("up", |k| template(k, Topics::up)).unwrap_or(d.up),
        down: s.read("down", |k| template(k, Topics::down)).unwrap_or(d.down),
    };
    s.finish();
    topics
}

fn template<T>(kind: &Kind, parse: fn(&str) -> Result<T, String>) -> Result<T, String> {
    let Kind::Text(text) = kind else { return Err("must be a topic".to_owned()) };
    parse(text)
}

fn credentials(mut s: Section<'_>) -> Credentials {
    let of = Credentials { username: s.text("username"), password: s.text("password") };
    s.finish();
    of
}
