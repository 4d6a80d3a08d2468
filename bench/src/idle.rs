//! Runs where nothing happens: what a connection costs that is only there.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::Failure;
use crate::clients::Clients;
use crate::cost::Process;

/// What is to be measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many clients connect.
    pub connections: usize,
    /// Whether each subscribes to a topic of its own.
    pub subscribe: bool,
}

/// What came out.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Growth of resident memory, bytes a connection.
    pub bytes_per_connection: f64,
    /// CPU time of the server per connect (TCP accept, CONNECT, CONNACK), microseconds.
    pub us_per_connect: f64,
    /// Time from the first connect to the last CONNACK, seconds.
    pub seconds: f64,
}

/// Connects all, lets the server settle, and reads what it holds. One client is there before the first reading, so
/// that what a server makes once is not counted.
pub fn run(plan: Plan, server: SocketAddr, process: Process) -> Result<Outcome, Failure> {
    let mut clients = Clients::new()?;
    clients.open(server, &["first".into()])?;
    settle(&mut clients)?;
    let (resident, cpu, begin) = (process.resident()?, process.cpu_ns()?, Instant::now());
    let names: Vec<String> = (0..plan.connections).map(|i| format!("idle-{i:05}")).collect();
    let first = clients.open(server, &names)?;
    let (connected, seconds) = (process.cpu_ns()?, begin.elapsed().as_secs_f64());
    if plan.subscribe {
        let filters = (0..plan.connections).map(|i| (first + i, vec![format!("idle/{i:05}/command")]));
        clients.subscribe(filters, 0)?;
    }
    settle(&mut clients)?;
    let n = plan.connections as f64;
    Ok(Outcome {
        bytes_per_connection: (process.resident()? as f64 - resident as f64) / n,
        us_per_connect: (connected - cpu) as f64 / 1e3 / n,
        seconds,
    })
}

/// A second in which nothing may come.
fn settle(clients: &mut Clients) -> Result<(), Failure> {
    let end = Instant::now() + Duration::from_secs(1);
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        clients.turn(Some(left), |_, frame, _| Err(format!("an idle client got {frame:?}").into()))?;
    }
    Ok(())
}
