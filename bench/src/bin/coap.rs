//! The load generator for CoAP: `coap RUN ADDRESS PID [WARM_UP MEASURED]` makes one run against the server at ADDRESS, whose
//! process is PID, and prints one line of JSON. Times are in seconds, 1 and 3 without.

use std::process::ExitCode;
use std::time::Duration;

use bench::Failure;
use bench::coap::{self, Audience, Method, Outcome, Plan};
use bench::cost::Process;

const CLIENTS: usize = 200;
const PAYLOAD: usize = 32;

/// Runs: method, Confirmable, audience. `coap.py` has the same names.
const RUNS: &[(&str, Method, bool, Audience)] = &[
    ("con-put", Method::Put, true, Audience::None),
    ("con-put-observed", Method::Put, true, Audience::Observers),
    ("con-put-mqtt", Method::Put, true, Audience::Mqtt),
    ("non-put", Method::Put, false, Audience::None),
    ("con-get", Method::Get, true, Audience::None),
];

fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("coap: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<String, Failure> {
    let [name, address, pid, times @ ..] = args else {
        return Err("usage: coap RUN ADDRESS PID [WARM_UP MEASURED]".into());
    };
    let seconds =
        |text: &String| -> Result<Duration, Failure> { Ok(Duration::try_from_secs_f64(text.parse()?)?) };
    let (warm_up, measured) = match times {
        [] => (Duration::from_secs(1), Duration::from_secs(3)),
        [warm_up, measured] => (seconds(warm_up)?, seconds(measured)?),
        _ => return Err("give both times or none".into()),
    };
    let known = RUNS.iter().find(|(known, ..)| known == name);
    let &(_, method, is_confirmable, audience) = known.ok_or_else(|| format!("there is no run {name}"))?;
    let (clients, payload) = (CLIENTS, PAYLOAD);
    let plan = Plan { clients, method, is_confirmable, audience, payload, warm_up, measured };
    Ok(describe(name, &coap::run(plan, address.parse()?, Process(pid.parse()?))?))
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
