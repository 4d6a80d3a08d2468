//! Runs with sessions that outlive their connections; `durable.py` makes the table. One line of JSON each:
//!
//! ```text
//! durable sleepers ADDRESS N [common]          N sessions with a subscription, left at once
//! durable online ADDRESS PID PAIRS WINDOW SECONDS QOS
//! durable window ADDRESS PID PUBLISHERS TOPICS WINDOW SECONDS [MESSAGES]
//! durable rate ADDRESS PID PUBLISHERS TOPICS PER_SECOND SECONDS
//! durable wake ADDRESS N MESSAGES              session N takes what waits for it
//! durable store FOLDER BATCH SECONDS           the store alone: commits of BATCH records of 100 bytes
//! ```

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bench::Failure;
use bench::cost::Process;
use bench::durable::{self, Outcome, Pace, Plan};
use bench::traffic::{self, Shape};
use store::{Body, Limits, Store};

fn main() -> ExitCode {
    let words = bench::words();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    bench::finish("durable", run(&words).map(|line| println!("{line}")))
}

fn run(args: &[&str]) -> Result<String, Failure> {
    let warm_up = Duration::from_secs(1);
    let seconds = |s: &str| s.parse().map(Duration::from_secs_f64);
    let address = |a: &str| a.parse::<SocketAddr>();
    Ok(match *args {
        ["sleepers", a, n, ref how @ ..] => {
            durable::sleepers(address(a)?, n.parse()?, how == ["common"])?;
            format!(r#"{{"sleepers":{n}}}"#)
        }
        ["online", a, pid, pairs, window, time, qos] => {
            let plan = traffic::Plan {
                shape: Shape::Pairs(pairs.parse()?),
                qos: qos.parse()?,
                pace: traffic::Pace::InFlight(window.parse()?),
                payload: 100,
                is_durable: true,
                warm_up,
                measured: seconds(time)?,
            };
            let o = traffic::run(plan, address(a)?, Process(pid.parse()?))?;
            format!(
                r#"{{"per_second":{:.0},"cpu_s_per_million":{:.3},"lost":{},"disordered":{}}}"#,
                o.delivered as f64 / o.seconds,
                o.cpu_s * 1e6 / o.delivered as f64,
                o.lost,
                o.disordered
            )
        }
        ["window", a, pid, publishers, topics, window, time, ref most @ ..] => {
            let most = most.first().map_or(Ok(u64::MAX), |m| m.parse())?;
            let (publishers, topics) = (publishers.parse()?, topics.parse()?);
            let pace = Pace::Window(window.parse()?);
            // A run that is counted in messages is measured from its beginning.
            let times = (if most == u64::MAX { warm_up } else { Duration::ZERO }, seconds(time)?);
            let plan = Plan { publishers, topics, pace, most, times };
            describe(&durable::publish(plan, address(a)?, Process(pid.parse()?))?)
        }
        ["rate", a, pid, publishers, topics, rate, time] => {
            let (publishers, topics) = (publishers.parse()?, topics.parse()?);
            let pace = Pace::PerSecond(rate.parse()?);
            let plan = Plan { publishers, topics, pace, most: u64::MAX, times: (warm_up, seconds(time)?) };
            describe(&durable::publish(plan, address(a)?, Process(pid.parse()?))?)
        }
        ["wake", a, n, messages] => {
            let (first, all) = durable::wake(address(a)?, n.parse()?, messages.parse()?)?;
            format!(r#"{{"first_s":{first:.4},"all_s":{all:.3}}}"#)
        }
        ["store", folder, batch, time] => store_alone(folder, batch.parse()?, seconds(time)?)?,
        _ => return Err("usage: see the head of bench/src/bin/durable.rs".into()),
    })
}

fn describe(o: &Outcome) -> String {
    let latency = |part: f64| {
        let at = (o.latency_ns.len() as f64 * part) as usize;
        o.latency_ns.get(at).map_or(0.0, |ns| *ns as f64 / 1e6)
    };
    format!(
        r#"{{"per_second":{:.0},"cpu_s_per_million":{:.3},"acknowledged":{},"all":{},"seconds":{:.3},"p50_ms":{:.3},"p99_ms":{:.3},"p999_ms":{:.3},"max_ms":{:.1}}}"#,
        o.acknowledged as f64 / o.seconds,
        o.cpu_s * 1e6 / o.acknowledged.max(1) as f64,
        o.acknowledged,
        o.all,
        o.seconds,
        latency(0.5),
        latency(0.99),
        latency(0.999),
        o.latency_ns.last().map_or(0.0, |ns| *ns as f64 / 1e6),
    )
}

/// As fast as one thread can push and wait: every batch is durable before the next is made.
fn store_alone(folder: &str, batch: u32, time: Duration) -> Result<String, Failure> {
    let store = Store::open(folder.as_ref(), Limits::default())?;
    let record = [b'x'; 100];
    let begin = Instant::now();
    let micros = || begin.elapsed().as_micros() as u64;
    let (mut records, mut took) = (0u64, Vec::new());
    while begin.elapsed() < time {
        for n in 0..batch {
            store.push(u64::from(n % 50), &[], Body::Inline(&record));
        }
        let at = Instant::now();
        if !store.write(&micros, &|| {}) {
            return Err("the store cannot write".into());
        }
        took.push(at.elapsed().as_secs_f64() * 1e3);
        records += u64::from(batch);
    }
    let seconds = begin.elapsed().as_secs_f64();
    took.sort_unstable_by(f64::total_cmp);
    Ok(format!(
        r#"{{"batch":{batch},"per_second":{:.0},"p50_ms":{:.3},"p99_ms":{:.3}}}"#,
        records as f64 / seconds,
        took[took.len() / 2],
        took[took.len() * 99 / 100],
    ))
}
