//! Plays dialogue cases against a server that runs already:
//! `dialogue --target 127.0.0.1:1883 [--ws 127.0.0.1:8083] [--login 127.0.0.1:1884] [--only REGEX] [--version 5] [FOLDER]`.

use conformance::connection::Targets;
use conformance::run;
use conformance::script::{self, Version};
use regex_lite::Regex;
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    match play() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("dialogue: {why}");
            ExitCode::from(2)
        }
    }
}

fn play() -> Result<usize, String> {
    let (mut tcp, mut ws, mut login, mut only, mut version) = (None, None, None, None, None);
    let mut folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/cases/mqtt"));
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} wants a value"));
        match argument.as_str() {
            "--target" => tcp = Some(value()?.parse().map_err(|error| format!("--target: {error}"))?),
            "--ws" => ws = Some(value()?.parse().map_err(|error| format!("--ws: {error}"))?),
            "--login" => login = Some(value()?.parse().map_err(|error| format!("--login: {error}"))?),
            "--only" => only = Some(Regex::new(&value()?).map_err(|error| format!("--only: {error}"))?),
            "--version" => {
                version = Some(Version::from_text(&value()?).ok_or("--version is 3.1, 3.1.1 or 5")?)
            }
            _ if argument.starts_with('-') => return Err(format!("{argument} is unknown")),
            _ => folder = argument.into(),
        }
    }
    let targets = Targets { tcp: tcp.ok_or("--target HOST:PORT says which server")?, ws, login };
    let mut cases = script::load(&folder)?;
    cases.retain(|case| version.is_none_or(|version| version == case.version));
    cases.retain(|case| only.as_ref().is_none_or(|only| only.is_match(&case.name)));
    let outcomes = run::run(&cases, &targets);
    let mut failed = 0;
    for outcome in &outcomes {
        if let Some(mistake) = &outcome.mistake {
            failed += 1;
            let case = outcome.case;
            println!("FAILED {} ({}) {}: {mistake}", case.name, case.version, case.file.display());
        }
    }
    println!("{} passed, {failed} failed", outcomes.len() - failed);
    Ok(failed)
}
