//! `tidegate psk`.

use std::fs;
use std::io::{self, BufRead};
use std::path::Path;
use std::time::Duration;

use auth::psk::{Credential, File, Key};
use gateway::time::datetime;
use runtime::clock::Clock;
use serde_json::{Value, json};

use crate::cli::Psk;

/// Bytes of a key that nobody finds by trying (RFC 9257, 6: 128 bits).
const SAFE: usize = 16;

/// Does what `command` says to the file, and returns what to tell the operator. Keys are told only where one was made.
pub(crate) fn run(path: Option<&Path>, command: &Psk, json: bool) -> Result<String, String> {
    let path = path.ok_or("auth.psk names no file; `--file` does")?;
    let name = path.display();
    // Of two at a time one would undo the other.
    let _folder = lock(path).map_err(|e| format!("{name}: its folder cannot be locked: {e}"))?;
    let (mut file, mistakes) = File::read(path).map_err(|e| format!("{name}: cannot be read: {e}"))?;
    if let Some(mistake) = mistakes.first() {
        return Err(format!("{mistake}; nothing was changed"));
    }
    let failed = |text| format!("{name}: {text}");
    let (identity, done, made) = match command {
        Psk::List => return Ok(list(&file, json)),
        Psk::Add { identity, client, user, key, .. } => {
            let (key, made) = key_of(key.as_deref()).map_err(failed)?;
            let (identity, client_id, user) = (identity.clone(), client.clone(), user.clone());
            let credential = Credential { identity: identity.clone(), client_id, user, key, older: None };
            file.add(credential).map_err(failed)?;
            (identity, format!("added as client `{client}`"), made)
        }
        Psk::Rotate { identity, key, keep } => {
            let (key, made) = key_of(key.as_deref()).map_err(failed)?;
            let until = until(keep).map_err(failed)?;
            file.rotate(identity, key, until).map_err(failed)?;
            let old = until.map_or("the old one is valid no more".to_owned(), |at| {
                format!("the old one is valid until {}", datetime(at))
            });
            (identity.clone(), format!("has a new key, {old}"), made)
        }
        Psk::Remove { identity } => {
            file.remove(identity).map_err(failed)?;
            (identity.clone(), "removed".to_owned(), None)
        }
    };
    file.write(path).map_err(|e| format!("{name}: cannot be written: {e}"))?;
    let key = made.as_ref().map(|key| key.encode());
    if json {
        let key = key.as_ref().map(|k| k.as_str());
        return Ok(json!({ "identity": identity, "done": done, "key": key }).to_string());
    }
    let key = key.map(|k| format!("; its key is {}", k.as_str())).unwrap_or_default();
    Ok(format!("{name}: identity `{identity}` {done}{key}; a running tidegate reads it on SIGHUP"))
}

/// Held until it is dropped.
fn lock(path: &Path) -> io::Result<fs::File> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = fs::File::open(folder)?;
    folder.lock()?;
    Ok(folder)
}

/// The key that was given, or one that is made and is to be told.
fn key_of(given: Option<&str>) -> Result<(Key, Option<Key>), String> {
    let hex = match given {
        None => {
            let mut random = [0; 16];
            getrandom::fill(&mut random).map_err(|e| format!("no random numbers: {e}"))?;
            let key = Key::generate(random);
            return Ok((key.clone(), Some(key)));
        }
        Some("-") => {
            let mut line = String::new();
            io::stdin().lock().read_line(&mut line).map_err(|e| format!("cannot read the key: {e}"))?;
            line
        }
        Some(hex) => hex.to_owned(),
    };
    let key = Key::decode(hex.trim())?;
    let length = key.encode().len() / 2;
    if length < SAFE {
        // Who heard a handshake can try keys as fast as a computer does. Some devices have no better one.
        eprintln!(
            "a key of {length} bytes can be guessed; without `--key` one of {SAFE} is made, which cannot"
        );
    }
    Ok((key, None))
}

/// When an old key ends that is kept for so long; None is now.
fn until(keep: &str) -> Result<Option<u64>, String> {
    let keep = gateway::config::parse_duration(keep)
        .ok_or_else(|| format!("`{keep}` is not a time such as `7 d` or `12 h`"))?;
    let now = Duration::from_millis(Clock::start().now().wall_ms);
    // The year 9999 is the last that can be written.
    let latest = Duration::from_secs(253_402_300_799);
    Ok((!keep.is_zero()).then(|| now.saturating_add(keep).min(latest).as_millis() as u64))
}

fn list(file: &File, json: bool) -> String {
    let rows: Vec<[String; 4]> = file.credentials().map(row).collect();
    if json {
        let object = |[identity, client_id, user, keys]: [String; 4]| -> Value {
            json!({ "identity": identity, "client_id": client_id, "user": user, "keys": keys })
        };
        return rows.into_iter().map(|r| object(r).to_string()).collect::<Vec<_>>().join("\n");
    }
    let head = ["identity", "client_id", "user", "keys"].map(str::to_owned);
    let rows: Vec<[String; 4]> = std::iter::once(head).chain(rows).collect();
    let width = |i: usize| rows.iter().map(|r| r[i].chars().count()).max().unwrap_or_default();
    let (a, b, c) = (width(0), width(1), width(2));
    let line = |[i, client, user, keys]: &[String; 4]| format!("{i:a$}  {client:b$}  {user:c$}  {keys}");
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn row(c: Credential) -> [String; 4] {
    let keys = match &c.older {
        None => "1".to_owned(),
        Some((_, None)) => "2".to_owned(),
        Some((_, Some(until))) => format!("2, the old one until {}", datetime(*until)),
    };
    // What somebody put into a name must not reach the terminal as more than text.
    let plain =
        |text: &str| if text.contains(char::is_control) { format!("{text:?}") } else { text.to_owned() };
    [plain(&c.identity), plain(&c.client_id), c.user.unwrap_or_default(), keys]
}
