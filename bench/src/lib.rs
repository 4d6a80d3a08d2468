//! What the load generator and the bare forwarder share: MQTT 3.1.1 frames, an epoll, and readings of a server's cost.
//!
//! The generator is one thread that hosts every client, so that its own cost is small beside the server's and two cores
//! are enough for a run: `load` on one, the server on the other (see `run.py`).

pub mod clients;
pub mod coap;
pub mod cost;
pub mod dtls;
pub mod durable;
pub mod idle;
pub mod mqtt_sn;
pub mod packets;
pub mod subscriptions;
pub mod traffic;
pub mod wait;

use std::process::ExitCode;
use std::time::Duration;

/// Whatever ended a run early; a bench has nobody to recover for.
pub type Failure = Box<dyn std::error::Error>;

/// The words behind the program's name.
pub fn words() -> Vec<String> {
    std::env::args().skip(1).collect()
}

/// How a program ends: what went wrong is said.
pub fn finish(name: &str, result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{name}: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Warm-up and measured time of a run, in seconds; without words 1 and 3.
pub fn times(words: &[String]) -> Result<(Duration, Duration), Failure> {
    let seconds =
        |text: &String| -> Result<Duration, Failure> { Ok(Duration::try_from_secs_f64(text.parse()?)?) };
    match words {
        [] => Ok((Duration::from_secs(1), Duration::from_secs(3))),
        [warm_up, measured] => Ok((seconds(warm_up)?, seconds(measured)?)),
        _ => Err("give both times or none".into()),
    }
}
