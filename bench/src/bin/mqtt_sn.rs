//! The load generator for MQTT-SN: `mqtt_sn RUN ADDRESS PID [WARM_UP MEASURED]` makes one run against the server at ADDRESS,
//! whose process is PID, and prints one line of JSON. Times are in seconds, 1 and 3 without.

use std::process::ExitCode;

use bench::Failure;
use bench::cost::Process;
use bench::mqtt_sn::{self, Plan, Visit};

/// Runs of publishing: QoS of the publications and of the subscriber. `mqtt_sn.py` has the same names.
const RUNS: &[(&str, u8, u8)] = &[("qos0", 0, 0), ("qos1", 1, 0), ("qos1-qos1", 1, 1)];
const CLIENTS: usize = 200;
const PAYLOAD: usize = 32;
/// Messages for each sleeper, and how many are woken in a second.
const EACH: usize = 10;
const RATE: f64 = 1_000.0;

fn main() -> ExitCode {
    bench::finish("mqtt_sn", run(&bench::words()).map(|line| println!("{line}")))
}

fn run(args: &[String]) -> Result<String, Failure> {
    let [name, address, pid, times @ ..] = args else {
        return Err("usage: mqtt_sn RUN ADDRESS PID [WARM_UP MEASURED]".into());
    };
    let (server, process) = (address.parse()?, Process(pid.parse()?));
    if let Some(&(_, qos, subscriber_qos)) = RUNS.iter().find(|(known, ..)| known == name) {
        let (warm_up, measured) = bench::times(times)?;
        let plan = Plan { clients: CLIENTS, qos, subscriber_qos, payload: PAYLOAD, warm_up, measured };
        let o = mqtt_sn::publish(plan, server, process)?;
        return Ok(format!(
            r#"{{"run":"{name}","delivered":{},"acknowledged":{},"repeated":{},"seconds":{:.3},"cpu_s":{:.3},"cpu_s_per_million":{:.3},"per_second":{:.0}}}"#,
            o.delivered,
            o.acknowledged,
            o.repeated,
            o.seconds,
            o.cpu_s,
            o.cpu_s * 1e6 / o.delivered as f64,
            o.delivered as f64 / o.seconds,
        ));
    }
    let (what, count) = name.rsplit_once('-').ok_or_else(|| format!("there is no run {name}"))?;
    let count = count.parse()?;
    let visit = match what {
        "connected" => Visit::Connect,
        "asleep" => Visit::FallAsleep,
        "woken" => return woken(name, server, process, count),
        _ => return Err(format!("there is no run {name}").into()),
    };
    Ok(format!(r#"{{"run":"{name}","bytes_each":{:.0}}}"#, mqtt_sn::memory(server, process, count, visit)?))
}

fn woken(
    name: &str,
    server: std::net::SocketAddr,
    process: Process,
    count: usize,
) -> Result<String, Failure> {
    let o = mqtt_sn::sleepers(server, process, count, EACH, RATE)?;
    let (w, n) = (&o.woken, o.woken.took.len());
    Ok(format!(
        r#"{{"run":"{name}","bytes_each":{:.0},"bytes_a_message":{:.0},"published_s":{:.1},"publish_cpu_s_per_million":{:.2},"messages":{},"wanted":{},"repeated":{},"seconds":{:.1},"wakes_per_second":{:.0},"cpu_share":{:.3},"wake_cpu_s_per_million":{:.2},"p50_ms":{:.3},"p99_ms":{:.3},"p999_ms":{:.3}}}"#,
        o.bytes_each,
        o.bytes_a_message,
        o.published_s,
        o.published_cpu_s * 1e6 / (count * EACH) as f64,
        w.messages,
        count * EACH,
        w.repeated,
        w.seconds,
        n as f64 / w.seconds,
        w.cpu_s / w.seconds,
        w.cpu_s * 1e6 / w.messages as f64,
        w.took[n / 2] * 1e3,
        w.took[n * 99 / 100] * 1e3,
        w.took[n * 999 / 1000] * 1e3,
    ))
}
