//! The operator's commands: a request over the admin socket, and what comes back printed.
//!
//! The protocol is one JSON object a line. A request is `{"do": "clients.list", …}`; the answer is any number of
//! `{"item": …}` and then `{"done": true}`, with `more` if the list was cut, or `{"error": "…"}`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

use crate::cli::{Bans, Clients, Coap, CoapRequest, Codec, Command, Stored};

/// Longest line of an answer in bytes.
const MAX_LINE: u64 = 64 << 20;

/// How items look on the terminal.
enum Look {
    /// A table with the first item's keys as its head.
    Table,
    /// A key a line.
    Sheet,
    /// `TOPIC PAYLOAD`.
    Message,
    /// The text alone.
    Line,
    /// A device's answer: code and options, an empty line, the payload.
    Answer,
}

/// Sends what `command` asks for to the gateway that listens at `socket`, and prints its answer. An error for
/// commands that are not the console's.
pub(crate) fn run(socket: &Path, command: &Command, json: bool) -> Result<(), String> {
    let (request, look) = request(command)?;
    let mut out = Printer { out: io::stdout().lock(), json, columns: None, look, damaged: 0, failure: None };
    match ask(socket, &request, &mut out) {
        Ok(false) => out.verdict(),
        Ok(true) => Err("and more; the list was cut here".to_owned()),
        // Who reads our output has left: `tidegate topics | head`.
        Err(Failure::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(Failure::Output(e)) => Err(format!("cannot write: {e}")),
        Err(Failure::Gateway(text)) => Err(text),
    }
}

/// Prints what `tidegate store` has found out by itself.
pub(crate) fn show(items: &[Value], command: &Stored, json: bool) -> Result<(), String> {
    let look = look(command);
    let mut out = Printer { out: io::stdout().lock(), json, columns: None, look, damaged: 0, failure: None };
    for item in items {
        match out.print(item) {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            other => other.map_err(|e| format!("cannot write: {e}"))?,
        }
    }
    out.verdict()
}

fn look(command: &Stored) -> Look {
    match command {
        Stored::Stats => Look::Sheet,
        Stored::Check => Look::Table,
        Stored::Backup { .. } => Look::Line,
    }
}

fn request(command: &Command) -> Result<(Value, Look), String> {
    Ok(match command {
        Command::Clients { command: Clients::List { part } } => {
            (json!({"do": "clients.list", "part": part}), Look::Table)
        }
        Command::Clients { command: Clients::Show { client } } => {
            (json!({"do": "clients.show", "client_id": client}), Look::Sheet)
        }
        Command::Clients { command: Clients::Kick { client } } => {
            (json!({"do": "clients.kick", "client_id": client}), Look::Line)
        }
        Command::Coap { command: Coap::Request(r) } => (coap_request(r)?, Look::Answer),
        Command::Topics { filter } => (json!({"do": "topics", "filter": filter}), Look::Table),
        Command::Subscriptions { client } => {
            (json!({"do": "subscriptions", "client_id": client}), Look::Table)
        }
        Command::Pub(p) => {
            let mut payload = Vec::new();
            if p.payload == "-" {
                io::stdin().read_to_end(&mut payload).map_err(|e| format!("cannot read the payload: {e}"))?;
            } else {
                payload.extend_from_slice(p.payload.as_bytes());
            }
            let payload = BASE64.encode(payload);
            let request = json!({"do": "pub", "topic": p.topic, "payload_base64": payload, "qos": p.qos, "retain": p.retain});
            (request, Look::Line)
        }
        Command::Sub { filter, qos, count } => {
            (json!({"do": "sub", "filter": filter, "qos": qos, "count": count}), Look::Message)
        }
        Command::Trace { client } => (json!({"do": "trace", "client_id": client}), Look::Line),
        Command::Bans { command: Bans::List } => (json!({"do": "bans.list"}), Look::Table),
        Command::Bans { command: Bans::Add { who, duration } } => {
            let seconds = match duration {
                None => None,
                Some(text) => {
                    let parsed = gateway::config::parse_duration(text);
                    Some(parsed.ok_or_else(|| format!("`{text}` is not a time such as `10 min`"))?.as_secs())
                }
            };
            let request = json!({"do": "bans.add", "kind": who.kind, "value": who.value, "seconds": seconds});
            (request, Look::Line)
        }
        Command::Bans { command: Bans::Remove { who } } => {
            (json!({"do": "bans.remove", "kind": who.kind, "value": who.value}), Look::Line)
        }
        Command::Codec { command } => codec(command)?,
        Command::Store { command } => {
            let request = match command {
                Stored::Stats => json!({"do": "store.stats"}),
                Stored::Check => json!({"do": "store.check"}),
                Stored::Backup { folder } => {
                    // The gateway has another working folder.
                    let folder = std::path::absolute(folder).map_err(|e| e.to_string())?;
                    json!({"do": "store.backup", "folder": folder.to_string_lossy()})
                }
            };
            (request, look(command))
        }
        Command::Run
        | Command::Check
        | Command::Passwd(_)
        | Command::Psk { .. }
        | Command::ScriptWorker
        | Command::Version => return Err("is not a command for a running gateway".to_owned()),
    })
}

fn codec(command: &Codec) -> Result<(Value, Look), String> {
    Ok(match command {
        Codec::Versions { name: None } => (json!({"do": "codecs.list"}), Look::Table),
        Codec::Versions { name } => (json!({"do": "codecs.versions", "codec": name}), Look::Table),
        Codec::Errors { name } => (json!({"do": "codecs.errors", "codec": name}), Look::Table),
        Codec::Reload { name } => (json!({"do": "codecs.reload", "codec": name}), Look::Line),
        Codec::Canary { name, share, version } => {
            let request = json!({"do": "codecs.canary", "codec": name, "share": share, "version": version});
            (request, Look::Line)
        }
        Codec::Promote { name } => (json!({"do": "codecs.promote", "codec": name}), Look::Line),
        Codec::Rollback { name } => (json!({"do": "codecs.rollback", "codec": name}), Look::Line),
        Codec::List | Codec::Show { .. } | Codec::Test { .. } | Codec::Try(_) => {
            return Err("is not a command for a running gateway".to_owned());
        }
    })
}

enum Failure {
    Gateway(String),
    Output(io::Error),
}

/// One request and its answer; whether there was more than was sent.
fn ask(socket: &Path, request: &Value, out: &mut Printer<'_>) -> Result<bool, Failure> {
    let gateway = |e: io::Error| Failure::Gateway(format!("the gateway does not answer: {e}"));
    let mut stream = UnixStream::connect(socket).map_err(|e| {
        Failure::Gateway(format!(
            "no running tidegate at {} ({e}); is --config or --data the same?",
            socket.display()
        ))
    })?;
    writeln!(stream, "{request}").map_err(gateway)?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        let read = reader.by_ref().take(MAX_LINE).read_line(&mut line).map_err(gateway)?;
        if read == 0 {
            return Err(Failure::Gateway("the gateway has closed the connection".to_owned()));
        }
        let bad = |_| Failure::Gateway("the gateway's answer is not understood".to_owned());
        let answer: Value = serde_json::from_str(&line).map_err(bad)?;
        if let Some(error) = answer.get("error") {
            return Err(Failure::Gateway(error.as_str().unwrap_or("unknown error").to_owned()));
        }
        if answer.get("done").is_some() {
            return Ok(answer["more"] == true);
        }
        out.print(&answer["item"]).map_err(Failure::Output)?;
    }
}

struct Printer<'a> {
    out: io::StdoutLock<'a>,
    json: bool,
    columns: Option<Vec<String>>,
    look: Look,
    /// Records of a store that cannot be read.
    damaged: u64,
    /// What a device has answered in place of a success.
    failure: Option<String>,
}

impl Printer<'_> {
    fn verdict(&self) -> Result<(), String> {
        if let Some(text) = &self.failure {
            return Err(text.clone());
        }
        match self.damaged {
            0 => Ok(()),
            n => Err(format!("{n} records are damaged; the gateway leaves them out and keeps the others")),
        }
    }

    fn print(&mut self, item: &Value) -> io::Result<()> {
        self.damaged += item["damaged"].as_u64().unwrap_or(0);
        if matches!(self.look, Look::Answer) {
            self.failure = failure(item);
        }
        match (&self.look, item) {
            _ if self.json => writeln!(self.out, "{item}")?,
            (Look::Table, Value::Object(fields)) => self.row(fields)?,
            (Look::Sheet, Value::Object(fields)) => {
                let width = fields.keys().map(String::len).max().unwrap_or(0);
                for (key, value) in fields {
                    let one = std::slice::from_ref(value);
                    for value in value.as_array().map_or(one, Vec::as_slice) {
                        writeln!(self.out, "{key:width$}  {}", plain(value))?;
                    }
                }
            }
            (Look::Answer, Value::Object(fields)) => self.answer(fields)?,
            (Look::Message, item) => {
                write!(self.out, "{} ", plain(&item["topic"]))?;
                self.out.write_all(&payload(item))?;
                writeln!(self.out)?;
            }
            (_, item) => writeln!(self.out, "{}", plain(item))?,
        }
        self.out.flush()
    }

    fn answer(&mut self, fields: &Map<String, Value>) -> io::Result<()> {
        let Some(code) = fields.get("code") else { return Ok(()) };
        writeln!(self.out, "{}", plain(code))?;
        if let Some(format) = fields.get("format") {
            writeln!(self.out, "Content-Format: {format}")?;
        }
        for (name, value) in fields.get("options").and_then(Value::as_object).into_iter().flatten() {
            let one = std::slice::from_ref(value);
            for value in value.as_array().map_or(one, Vec::as_slice) {
                writeln!(self.out, "{name}: {}", plain(value))?;
            }
        }
        let payload = payload(&Value::from(fields.clone()));
        if !payload.is_empty() {
            self.out.write_all(b"\n")?;
            self.out.write_all(&payload)?;
            if !payload.ends_with(b"\n") {
                self.out.write_all(b"\n")?;
            }
        }
        Ok(())
    }

    fn row(&mut self, fields: &Map<String, Value>) -> io::Result<()> {
        let columns = match &self.columns {
            Some(columns) => columns,
            None => {
                let columns: Vec<String> = fields.keys().cloned().collect();
                writeln!(self.out, "{}", columns.join("\t"))?;
                self.columns.insert(columns)
            }
        };
        let cells: Vec<String> =
            columns.iter().map(|c| fields.get(c).map(plain).unwrap_or_default()).collect();
        writeln!(self.out, "{}", cells.join("\t"))
    }
}

fn payload(item: &Value) -> Vec<u8> {
    let text = item["payload"].as_str().map(|t| t.as_bytes().to_vec());
    text.or_else(|| BASE64.decode(item["payload_base64"].as_str()?).ok()).unwrap_or_default()
}

/// Why a device's answer is none, or no success.
fn failure(answer: &Value) -> Option<String> {
    match (answer["code"].as_str(), answer["error"].as_str()) {
        (Some(code), _) if code.starts_with("2.") => None,
        (Some(code), _) => Some(format!("the device has answered {code}")),
        (None, text) => Some(text.unwrap_or("no answer").to_owned()),
    }
}

fn coap_request(r: &CoapRequest) -> Result<Value, String> {
    let mut payload = Vec::new();
    match (&r.payload, &r.file) {
        (Some(text), _) if text == "-" => {
            io::stdin().read_to_end(&mut payload).map_err(|e| format!("cannot read the payload: {e}"))?;
        }
        (Some(text), _) => payload.extend_from_slice(text.as_bytes()),
        (None, Some(file)) => {
            payload = std::fs::read(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
        }
        (None, None) => {}
    }
    let payload = BASE64.encode(payload);
    Ok(json!({
        "do": "coap.request", "client_id": r.client, "method": r.method, "path": r.path, "query": r.query,
        "format": r.format, "accept": r.accept, "payload_base64": payload, "timeout": r.timeout,
    }))
}

/// Without quotes, and without control characters that a client may have put into its id to play with a terminal.
fn plain(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_calls_itself_cannot_move_the_cursor() {
        assert_eq!(plain(&json!("a\u{1b}[2Jb")), "a\u{fffd}[2Jb");
        assert_eq!(plain(&json!(null)), "");
        assert_eq!(plain(&json!(3)), "3");
    }
}
