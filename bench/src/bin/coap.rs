//! The load generator for CoAP: `coap RUN ADDRESS PID [WARM_UP MEASURED]` makes one run against the server at ADDRESS, whose
//! process is PID, and prints one line of JSON. Times are in seconds, 1 and 3 without.

use std::process::ExitCode;

use bench::Failure;
use bench::coap::{self, Audience, Method, Outcome, Plan};
use bench::cost::Process;
use bench::dtls;

const CLIENTS: usize = 200;
const PAYLOAD: usize = 32;

/// Runs: method, Confirmable, DTLS, audience. `coap.py` has the same names.
const RUNS: &[(&str, Method, bool, bool, Audience)] = &[
    ("con-put", Method::Put, true, false, Audience::None),
    ("con-put-observed", Method::Put, true, false, Audience::Observers),
    ("con-put-mqtt", Method::Put, true, false, Audience::Mqtt),
    ("non-put", Method::Put, false, false, Audience::None),
    ("con-get", Method::Get, true, false, Audience::None),
    ("dtls-con-put", Method::Put, true, true, Audience::None),
];
/// Devices of the run `dtls-handshakes`.
const HANDSHAKES: usize = 10_000;

fn main() -> ExitCode {
    bench::finish("coap", run(&bench::words()).map(|line| println!("{line}")))
}

fn run(args: &[String]) -> Result<String, Failure> {
    let [name, address, pid, times @ ..] = args else {
        return Err("usage: coap RUN ADDRESS PID [WARM_UP MEASURED]".into());
    };
    let (warm_up, measured) = bench::times(times)?;
    if let Some(what) = name.strip_prefix("dtls-").filter(|n| *n != "con-put") {
        return dtls_run(name, what, address, pid);
    }
    let known = RUNS.iter().find(|(known, ..)| known == name);
    let &(_, method, is_confirmable, is_secure, audience) =
        known.ok_or_else(|| format!("there is no run {name}"))?;
    let (clients, payload) = (CLIENTS, PAYLOAD);
    let plan = Plan { clients, method, is_confirmable, is_secure, audience, payload, warm_up, measured };
    Ok(describe(name, &coap::run(plan, address.parse()?, Process(pid.parse()?))?))
}

/// `dtls-handshakes`, `dtls-{active,parked}-{n}` and, of the DTLS layer alone in this process, `dtls-layer-{active,parked}-{n}`.
fn dtls_run(name: &str, what: &str, address: &str, pid: &str) -> Result<String, Failure> {
    let (server, process) = (address.parse()?, Process(pid.parse()?));
    let (kind, count) = what.rsplit_once('-').unwrap_or((what, ""));
    let bytes = match kind {
        "handshakes" => {
            let o = dtls::handshakes(server, process, 0..HANDSHAKES, dtls::UNLIMITED)?;
            return Ok(format!(
                r#"{{"run":"{name}","answered":{},"refused":0,"repeated":0,"notified":0,"seconds":{:.3},"cpu_s":{:.3},"cpu_s_per_million":{:.2},"per_second":{:.0}}}"#,
                o.count,
                o.seconds,
                o.cpu_s,
                o.cpu_s * 1e6 / o.count as f64,
                o.count as f64 / o.seconds,
            ));
        }
        "active" | "parked" => dtls::memory(server, process, count.parse()?, kind == "parked")?,
        "layer-active" | "layer-parked" => dtls::endpoint_memory(count.parse()?, kind == "layer-parked")?,
        _ => return Err(format!("there is no run {name}").into()),
    };
    Ok(format!(r#"{{"run":"{name}","bytes_each":{bytes:.0}}}"#))
}

fn describe(name: &str, o: &Outcome) -> String {
    format!(
        r#"{{"run":"{name}","answered":{},"refused":{},"repeated":{},"notified":{},"seconds":{:.3},"cpu_s":{:.3},"cpu_s_per_million":{:.4},"per_second":{:.0}}}"#,
        o.answered,
        o.refused,
        o.repeated,
        o.notified,
        o.seconds,
        o.cpu_s,
        o.cpu_s * 1e6 / o.answered as f64,
        o.answered as f64 / o.seconds,
    )
}
