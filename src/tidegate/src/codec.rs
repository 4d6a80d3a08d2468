//! `tidegate codec`: device languages, and what one makes of bytes.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use codecs::{Build, Def, Framing, FramingOptions, Options, hex};
use gateway::Now;
use runtime::attend::{self, Attendant, Place};
use runtime::clock::Clock;
use serde_json::json;

use crate::cli::Try;

mod capture;
mod dump;
mod reading;
pub(crate) mod test;

use capture::What;
use reading::{Count, Reading};

/// Bytes of a file that are read at a time.
const CHUNK: usize = 4096;

/// The codecs that are built in, a line each.
pub(crate) fn list(is_json: bool) -> String {
    let line = |def: &Def| {
        if is_json {
            json!({"name": def.name, "about": def.about}).to_string()
        } else {
            format!("{:12}  {}", def.name, def.about)
        }
    };
    codecs::CODECS.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A codec's samples and commands, as it reads and writes them.
pub(crate) fn show(name: &str, is_json: bool) -> Result<String, String> {
    let def = codecs::find(name).ok_or_else(|| unknown(name))?;
    let mut text = if is_json { String::new() } else { format!("{}: {}\n", def.name, def.about) };
    let wall_ms = Clock::start().now().wall_ms;
    for sample in def.samples {
        if !is_json {
            text += &format!("\n{}\n", sample.about);
        }
        let codec = (def.build)(&Options::default());
        let mut reading = Reading::new(codec, None, "token".to_owned(), is_json);
        reading.read(wall_ms, &hex::decode(sample.hex)?, &mut text);
    }
    for down in def.downs {
        let bytes = hex::encode(&hex::decode(down.hex)?);
        text += &if is_json {
            format!("{}\n", json!({"down": down.kind, "value": down.value, "bytes": bytes}))
        } else {
            format!("\ncommand {}: {}\n  {bytes}\n", down.kind, down.value)
        };
    }
    Ok(text.trim_end().to_owned())
}

/// What every reading of one command shares.
struct Attempt<'a> {
    what: &'a Try,
    build: Arc<dyn Build>,
    framing: Option<Framing>,
    is_json: bool,
}

/// Decodes bytes and prints what they mean, and counts.
pub(crate) fn attempt(what: &Try, is_json: bool) -> Result<(), String> {
    let framing = what.framing.as_deref().map(framing).transpose()?;
    let attempt = Attempt { what, build: find(&what.name)?, framing, is_json };
    let count = match (&what.hex, &what.file, &what.pcap, what.listen) {
        (Some(text), ..) => attempt.hex(text)?,
        (_, Some(file), ..) => attempt.file(file)?,
        (_, _, Some(file), _) => attempt.pcap(file)?,
        (.., Some(bind)) => attempt.listen(bind)?,
        _ => Count::default(),
    };
    match count {
        Count { bad: 0, good: 0 } => Err("no whole frame".to_owned()),
        Count { bad: 0, .. } => Ok(()),
        Count { bad: 1, good } => Err(format!("1 bad frame, {good} good")),
        Count { bad, good } => Err(format!("{bad} bad frames, {good} good")),
    }
}

impl Attempt<'_> {
    /// A new device's. What it is handed may end where a frame ends.
    fn reading(&self, is_whole: bool) -> Reading {
        let options = Options { max_frame: self.what.max_frame, framing: self.framing.clone(), is_whole };
        let mut random = [0; 16];
        // Devices that log in with it later come to another process: a known one does no harm here.
        let token = getrandom::fill(&mut random).map_or("token".to_owned(), |()| hex::encode(&random));
        Reading::new(self.build.build(&options), self.what.device.clone(), token, self.is_json)
    }

    fn hex(&self, text: &str) -> Result<Count, String> {
        let text = match (text, text.strip_prefix('@')) {
            ("-", _) => std::io::read_to_string(std::io::stdin()).map_err(|e| e.to_string())?,
            (_, Some(file)) => std::fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?,
            _ => text.to_owned(),
        };
        if !self.what.udp {
            return self.bytes(&mut &bytes(&text)?[..]);
        }
        let mut reading = self.reading(true);
        let now = Clock::start().now();
        for datagram in text.lines().filter(|line| !line.trim().is_empty()) {
            let mut out = String::new();
            reading.read(now.wall_ms, &bytes(datagram)?, &mut out);
            reading.end_datagram(&mut out);
            print(&out);
        }
        self.downs(&mut reading)
    }

    fn file(&self, file: &Path) -> Result<Count, String> {
        let mut opened = std::fs::File::open(file).map_err(|e| format!("{}: {e}", file.display()))?;
        self.bytes(&mut opened)
    }

    /// One stream.
    fn bytes(&self, from: &mut dyn Read) -> Result<Count, String> {
        let is_paused = self.framing.as_ref().is_some_and(|framing| framing.idle().is_some());
        let mut reading = self.reading(is_paused);
        let mut chunk = [0; CHUNK];
        let now = Clock::start().now();
        loop {
            let n = from.read(&mut chunk).map_err(|e| e.to_string())?;
            let mut out = String::new();
            let heard = reading.read(now.wall_ms, &chunk[..n], &mut out);
            if n == 0 && !heard.is_over {
                reading.end(&mut out);
            }
            print(&out);
            if n == 0 || heard.is_over {
                return self.downs(&mut reading);
            }
        }
    }

    /// The commands that were asked for, after all that the device has said.
    fn downs(&self, reading: &mut Reading) -> Result<Count, String> {
        let now = Clock::start().now();
        for down in &self.what.down {
            let (kind, value) = down.split_once('=').ok_or("--down is KIND=VALUE")?;
            let mut out = String::new();
            reading.down(now.wall_ms, kind, value, &mut out);
            print(&out);
        }
        Ok(reading.count)
    }

    fn pcap(&self, file: &Path) -> Result<Count, String> {
        let mut readings: HashMap<SocketAddr, Reading> = HashMap::new();
        let mut count = Count::default();
        let mut over: Vec<SocketAddr> = Vec::new();
        let wall_ms = Clock::start().now().wall_ms;
        for piece in capture::read(file, self.what.port)? {
            let device = piece.device;
            let is_datagram = matches!(piece.what, What::Datagram(_));
            let new = || self.reading(is_datagram).of(device.to_string());
            let mut out = String::new();
            match piece.what {
                What::Opened => {
                    over.retain(|other| *other != device);
                    add(&mut count, readings.remove(&device), &mut out);
                }
                What::Stream(_) if over.contains(&device) => {}
                What::Stream(bytes) => {
                    if readings.entry(device).or_insert_with(new).read(wall_ms, &bytes, &mut out).is_over {
                        over.push(device);
                    }
                }
                What::Datagram(bytes) => {
                    let reading = readings.entry(device).or_insert_with(new);
                    reading.read(wall_ms, &bytes, &mut out);
                    reading.end_datagram(&mut out);
                }
                What::Sent(bytes) => readings.entry(device).or_insert_with(new).sent(&bytes, &mut out),
                What::Missing(n) if !self.is_json => {
                    out = format!("{device}  {n} bytes are not in the capture\n");
                }
                What::Missing(n) => out = format!("{}\n", json!({"from": device.to_string(), "missing": n})),
            }
            print(&out);
        }
        let mut left: Vec<(SocketAddr, Reading)> = readings.into_iter().collect();
        left.sort_by_key(|(device, _)| *device);
        for (_, reading) in left {
            let mut out = String::new();
            add(&mut count, Some(reading), &mut out);
            print(&out);
        }
        Ok(count)
    }

    fn listen(&self, bind: SocketAddr) -> Result<Count, String> {
        let pause = self.framing.as_ref().and_then(Framing::idle);
        let total: Arc<Mutex<Count>> = Arc::default();
        let engage = |from: SocketAddr| -> Box<dyn Attendant> {
            let reading = self.reading(self.what.udp || pause.is_some()).of(from.to_string());
            if !self.is_json {
                print(&format!("{from}  is there\n"));
            }
            Box::new(Shown { reading, is_datagram: self.what.udp, total: Arc::clone(&total) })
        };
        let kind = if self.what.udp { "udp" } else { "tcp" };
        // A script has to learn which port it got.
        let bound = |at: SocketAddr| eprintln!("waiting on {kind} {at}");
        let place = Place { bind, bound: &bound, is_once: self.what.once };
        let attended = if self.what.udp {
            attend::datagram(&place, &engage)
        } else {
            attend::stream(&place, pause, &engage)
        };
        attended.map_err(|e| format!("{bind}: {e}"))?;
        let count = *total.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(count)
    }
}

/// A device on a socket.
struct Shown {
    reading: Reading,
    is_datagram: bool,
    total: Arc<Mutex<Count>>,
}

impl Attendant for Shown {
    fn bytes(&mut self, now: Now, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut out = String::new();
        let before = self.reading.count;
        let heard = self.reading.read(now.wall_ms, bytes, &mut out);
        if self.is_datagram {
            self.reading.end_datagram(&mut out);
        }
        print(&out);
        let after = self.reading.count;
        let mut total = self.total.lock().unwrap_or_else(PoisonError::into_inner);
        total.good += after.good - before.good;
        total.bad += after.bad - before.bad;
        (!heard.is_over).then_some(heard.answer)
    }

    fn gone(&mut self) {
        let mut out = String::new();
        self.reading.end(&mut out);
        print(&out);
    }
}

/// The end of a reading.
fn add(count: &mut Count, reading: Option<Reading>, out: &mut String) {
    if let Some(mut reading) = reading {
        reading.end(out);
        count.good += reading.count.good;
        count.bad += reading.count.bad;
    }
}

/// A codec by its name, or out of a file.
fn find(name: &str) -> Result<Arc<dyn Build>, String> {
    let file = Path::new(name);
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("wasm") => {
            let bytes = std::fs::read(file).map_err(|e| format!("{name}: {e}"))?;
            let module = codecs::wasm::Module::load(&bytes, codecs::wasm::Limits::default());
            Ok(Arc::new(module.map_err(|e| format!("{name}: {e}"))?))
        }
        Some("js") => {
            let bytes = std::fs::read(file).map_err(|e| format!("{name}: {e}"))?;
            let script = runtime::scripts::once::load(name, bytes.into(), scripts::pipe::Limits::default());
            Ok(Arc::new(script.map_err(|e| format!("{name}: {e}"))?))
        }
        _ => codecs::find(name).map(|def| Arc::new(def.build) as Arc<dyn Build>).ok_or_else(|| unknown(name)),
    }
}

fn unknown(name: &str) -> String {
    let names: Vec<&str> = codecs::CODECS.iter().map(|def| def.name).collect();
    let built_in = names.join(", ");
    format!(
        "there is no codec {name}; built in are {built_in}; `try` takes yours by its file, such as etc/codecs/{name}.js"
    )
}

/// `kind=length,offset=2`; a value may have commas in it.
fn framing(text: &str) -> Result<Framing, String> {
    let mut pairs: Vec<(&str, String)> = Vec::new();
    for part in text.split(',') {
        match (part.split_once('='), pairs.last_mut()) {
            (Some((key, value)), _) if FramingOptions::KEYS.contains(&key.trim()) => {
                pairs.push((key.trim(), value.trim().to_owned()));
            }
            (_, Some((_, value))) => *value += &format!(",{part}"),
            _ => return Err(format!("--framing: {part:?}: keys are {}", FramingOptions::KEYS.join(", "))),
        }
    }
    let mut options = FramingOptions::default();
    for (key, value) in pairs {
        options.set(key, &value).map_err(|why| format!("--framing: {key}: {why}"))?;
    }
    Framing::new(&options).map_err(|why| format!("--framing: {why}"))
}

/// Bytes as people copy them from logs and manuals.
fn bytes(text: &str) -> Result<Vec<u8>, String> {
    let plain = text.replace("0x", " ").replace("\\x", " ").replace([',', ':', ';', '-', '"'], " ");
    hex::decode(&plain).map_err(|why| format!("--hex: {why}"))
}

/// A reader that has gone away (`| head`) has seen enough.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}
