//! Many subscriptions with wildcards: what one of them costs in memory, and what a publish costs among them.
//!
//! Each client holds filters that no message of the run matches, such as `site/17/+/4711/#`; one pair of clients
//! exchanges messages through the same levels, each on another topic. If the time of a match grew with the number of
//! subscriptions, that pair would be slower than without them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::Failure;
use crate::clients::Clients;
use crate::cost::Process;
use crate::traffic::{self, Pace, Shape};

/// Filters in one SUBSCRIBE.
const BATCH: usize = 100;

/// What is to be measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Clients that hold filters.
    pub clients: usize,
    /// Filters that each holds.
    pub filters: usize,
    /// Warm-up and measured time of each of the two exchanges.
    pub times: (Duration, Duration),
}

/// What came out.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Growth of resident memory, bytes a subscription.
    pub bytes_per_subscription: f64,
    /// CPU of the server per subscription, microseconds.
    pub us_per_subscribe: f64,
    /// CPU microseconds per delivery before the subscriptions were there.
    pub us_before: f64,
    /// The same with them.
    pub us_among: f64,
    /// Wall time of subscribing, seconds.
    pub seconds: f64,
}

/// Exchanges messages, subscribes, exchanges again.
pub fn run(plan: Plan, server: SocketAddr, process: Process) -> Result<Outcome, Failure> {
    let exchange = traffic::Plan {
        shape: Shape::Spread,
        qos: 0,
        pace: Pace::InFlight(20),
        payload: 64,
        is_durable: false,
        warm_up: plan.times.0,
        measured: plan.times.1,
    };
    let before = traffic::run(exchange, server, process)?;
    let mut clients = Clients::new()?;
    let names: Vec<String> = (0..plan.clients).map(|i| format!("holder-{i}")).collect();
    let first = clients.open(server, &names)?;
    let (resident, cpu, begin) = (process.resident()?, process.cpu_ns()?, Instant::now());
    for batch in (0..plan.filters).step_by(BATCH) {
        let filters = |c: usize| {
            let numbers = batch..plan.filters.min(batch + BATCH);
            numbers.map(move |f| format!("site/{c}/+/{f}/#")).collect::<Vec<_>>()
        };
        clients.subscribe((0..plan.clients).map(|c| (first + c, filters(c))), 0)?;
    }
    let (subscribed, seconds) = (process.cpu_ns()?, begin.elapsed().as_secs_f64());
    let grown = process.resident()? as f64 - resident as f64;
    let among = traffic::run(exchange, server, process)?;
    let n = (plan.clients * plan.filters) as f64;
    Ok(Outcome {
        bytes_per_subscription: grown / n,
        us_per_subscribe: (subscribed - cpu) as f64 / 1e3 / n,
        us_before: before.cpu_s * 1e6 / before.delivered as f64,
        us_among: among.cpu_s * 1e6 / among.delivered as f64,
        seconds,
    })
}
