//! The load generator: `load RUN ADDRESS PID [WARM_UP MEASURED]` makes one run against the server at ADDRESS, whose
//! process is PID, and prints one line of JSON. Times are in seconds, 1 and 3 without.

use std::net::SocketAddr;
use std::process::ExitCode;

use bench::cost::Process;
use bench::traffic::{Outcome, Pace, Plan, Shape};
use bench::{Failure, idle, subscriptions, traffic};

const PAYLOAD: usize = 64;
const IDLE: usize = 19_500;

/// Runs with traffic. `run.py` has the same names.
const TRAFFIC: &[(&str, Shape, u8, Pace)] = &[
    ("pairs-qos0", Shape::Pairs(50), 0, Pace::InFlight(20)),
    ("pairs-qos1", Shape::Pairs(50), 1, Pace::InFlight(20)),
    ("pairs-qos2", Shape::Pairs(50), 2, Pace::InFlight(20)),
    ("fan-in", Shape::FanIn(200), 0, Pace::InFlight(20)),
    // With 20 in flight each write carries so many messages that the cost of writing vanishes; 7 keeps it in sight.
    ("fan-out", Shape::FanOut(500), 0, Pace::InFlight(7)),
    ("fan-out-20", Shape::FanOut(500), 0, Pace::InFlight(20)),
    ("share-qos1", Shape::Share(50), 1, Pace::InFlight(20)),
    ("one-qos0", Shape::Pairs(50), 0, Pace::InFlight(1)),
    ("one-qos1", Shape::Pairs(50), 1, Pace::InFlight(1)),
    ("rate-qos0", Shape::Pairs(50), 0, Pace::PerSecond(20_000)),
    ("rate-qos1", Shape::Pairs(50), 1, Pace::PerSecond(20_000)),
];

fn main() -> ExitCode {
    bench::finish("load", run(&bench::words()).map(|line| println!("{line}")))
}

fn run(args: &[String]) -> Result<String, Failure> {
    let [name, address, pid, times @ ..] = args else {
        return Err("usage: load RUN ADDRESS PID [WARM_UP MEASURED]".into());
    };
    let (address, process) = (address.parse::<SocketAddr>()?, Process(pid.parse()?));
    let (warm_up, measured) = bench::times(times)?;
    match name.as_str() {
        "idle" | "idle-subscribed" => {
            let plan = idle::Plan { connections: IDLE, subscribe: name == "idle-subscribed" };
            let o = idle::run(plan, address, process)?;
            Ok(format!(
                r#"{{"run":"{name}","connections":{IDLE},"bytes_per_connection":{:.0},"us_per_connect":{:.2},"seconds":{:.2}}}"#,
                o.bytes_per_connection, o.us_per_connect, o.seconds
            ))
        }
        "subscriptions" => {
            let plan = subscriptions::Plan { clients: 1000, filters: 1000, times: (warm_up, measured) };
            let o = subscriptions::run(plan, address, process)?;
            Ok(format!(
                r#"{{"run":"{name}","subscriptions":1000000,"bytes_per_subscription":{:.0},"us_per_subscribe":{:.2},"us_before":{:.3},"us_among":{:.3},"seconds":{:.1}}}"#,
                o.bytes_per_subscription, o.us_per_subscribe, o.us_before, o.us_among, o.seconds
            ))
        }
        _ => {
            let known = TRAFFIC.iter().find(|(known, ..)| known == name);
            let &(_, shape, qos, pace) = known.ok_or_else(|| format!("there is no run {name}"))?;
            let is_durable = false;
            let plan = Plan { shape, qos, pace, payload: PAYLOAD, is_durable, warm_up, measured };
            Ok(describe(name, &traffic::run(plan, address, process)?))
        }
    }
}

fn describe(name: &str, o: &Outcome) -> String {
    let latency = |part: f64| {
        let at = (o.latency_ns.len() as f64 * part) as usize;
        o.latency_ns.get(at).map_or("null".to_owned(), |ns| format!("{:.4}", *ns as f64 / 1e6))
    };
    format!(
        r#"{{"run":"{name}","delivered":{},"seconds":{:.3},"cpu_s":{:.3},"cpu_s_per_million":{:.4},"per_second":{:.0},"lost":{},"disordered":{},"p50_ms":{},"p99_ms":{}}}"#,
        o.delivered,
        o.seconds,
        o.cpu_s,
        o.cpu_s * 1e6 / o.delivered as f64,
        o.delivered as f64 / o.seconds,
        o.lost,
        o.disordered,
        latency(0.5),
        latency(0.99),
    )
}
