//! The figures of README.md.
//! The fastest of twenty batches is told: other work of the machine only adds.
//! `figures speed`, `figures memory N FILE` (opens, parks, writes what is kept), `figures restore FILE`.
#![expect(clippy::disallowed_methods, reason = "an example that measures reads the clock itself")]

use std::error::Error;
use std::io::{BufReader, BufWriter, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dtls::{
    Certificates, Client, ClientSettings, Endpoint, Event, Found, Id, Key, Keys, Proof, Settings, Suite,
};
use gateway::Now;

type Failed = Box<dyn Error>;

struct Same;

impl Keys for Same {
    fn key(&self, _: &[u8]) -> Found {
        Found { newest: Key::new(b"0123456789abcdef"), older: None }
    }
}

const BATCHES: usize = 20;

/// Seconds of one of `count`, in the fastest batch.
fn fastest(batches: &[Duration; BATCHES], count: u32) -> f64 {
    let best = batches.iter().min().copied().unwrap_or_default();
    best.as_secs_f64() * BATCHES as f64 / f64::from(count)
}

fn address(n: u32) -> SocketAddr {
    SocketAddr::from((n.to_be_bytes(), 5000))
}

fn now(ms: u64) -> Now {
    Now { wall_ms: 1_800_000_000_000 + ms, ..Now::from_micros(1_000_000 + ms * 1000) }
}

fn pem(name: &str) -> Result<Vec<u8>, Failed> {
    Ok(std::fs::read(format!("{}/tests/pem/{name}", env!("CARGO_MANIFEST_DIR")))?)
}

fn endpoint(durable: bool) -> Result<Endpoint, Failed> {
    let certificates = Some(Certificates {
        chain_pem: pem("server.pem")?,
        key_pem: pem("server.key")?,
        client_ca_pem: Some(pem("ca.pem")?),
        require: true,
    });
    let settings = Settings { durable, certificates, max_per_identity: usize::MAX, ..Settings::default() };
    Ok(Endpoint::new(settings, Arc::new(Same), &[1; 32])?)
}

fn psk(n: u32, suite: &str) -> Result<ClientSettings, Failed> {
    let suites = vec![Suite::named(suite).ok_or("no such suite")?];
    let identity = format!("device-{n:08}");
    Ok(ClientSettings { suites, ..ClientSettings::psk(identity.as_bytes(), b"0123456789abcdef") })
}

/// A handshake in memory; the time that the server's side of it took.
fn open(
    e: &mut Endpoint,
    client: &mut Client,
    at: SocketAddr,
    keep: &mut dyn FnMut(Id, &[u8]),
) -> Result<(Option<Id>, Duration), Failed> {
    let (mut to_server, mut to_client, mut opened, mut spent) = (vec![], vec![], None, Duration::ZERO);
    client.timeout(now(0), &mut to_server)?;
    while !to_server.is_empty() {
        for d in std::mem::take(&mut to_server) {
            let began = Instant::now();
            e.receive(now(0), at, &d, &mut |event| match event {
                Event::Send { datagram, .. } => to_client.push(datagram.to_vec()),
                Event::Opened { id, .. } => opened = Some(id),
                Event::Keep { id, record } => keep(id, record),
                _ => {}
            });
            spent += began.elapsed();
        }
        for d in std::mem::take(&mut to_client) {
            client.receive(now(0), &d, &mut to_server, &mut vec![])?;
        }
    }
    Ok((opened, spent))
}

fn handshakes(
    name: &str,
    count: u32,
    settings: &dyn Fn(u32) -> Result<ClientSettings, Failed>,
) -> Result<(), Failed> {
    let mut e = endpoint(true)?;
    let mut batches = [Duration::ZERO; BATCHES];
    for n in 0..count {
        let mut client = Client::new(&settings(n)?)?;
        let (opened, t) = open(&mut e, &mut client, address(n), &mut |_, _| {})?;
        opened.ok_or("the handshake failed")?;
        batches[n as usize % BATCHES] += t;
    }
    let each = fastest(&batches, count);
    println!("handshake {name}: {:.0} us of the server's, {:.0} a second", each * 1e6, 1.0 / each);
    Ok(())
}

fn requests(suite: &str, durable: bool) -> Result<(), Failed> {
    const COUNT: u32 = 200_000;
    let mut e = endpoint(durable)?;
    let mut client = Client::new(&psk(1, suite)?)?;
    let id = open(&mut e, &mut client, address(1), &mut |_, _| {})?.0.ok_or("the handshake failed")?;
    let (mut batches, mut out, mut told) = ([Duration::ZERO; BATCHES], vec![], 0);
    for n in 0..COUNT {
        let d = client.seal(now(0), &[7; 64])?;
        let began = Instant::now();
        let mut reserved = None;
        e.receive(now(0), address(1), &d, &mut |event| match event {
            Event::Data { .. } => told += 1,
            Event::KeepNumbers { reserved: r, .. } => reserved = Some(r),
            _ => {}
        });
        reserved.into_iter().for_each(|r| e.kept(id, r));
        out.clear();
        e.seal(now(0), id, &[8; 64], &mut out).map_err(|why| format!("{why:?}"))?;
        batches[(n / (COUNT / BATCHES as u32)) as usize] += began.elapsed();
    }
    let each = fastest(&batches, COUNT);
    let kept = if durable { "with KeepNumbers" } else { "nothing kept" };
    println!(
        "request and reply of 64 bytes, {suite}, {kept}: {:.2} us, {:.0} a second",
        each * 1e6,
        1.0 / each
    );
    assert_eq!(told, COUNT);
    Ok(())
}

/// What strangers cost.
fn strangers() -> Result<(), Failed> {
    const COUNT: u32 = 200_000;
    let mut e = endpoint(true)?;
    let mut client = Client::new(&psk(1, "PSK-AES128-CCM8")?)?;
    let mut hello = vec![];
    client.timeout(now(0), &mut hello)?;
    let hello = hello.pop().ok_or("no hello")?;
    let mut timed = |name: &str, count: u32, act: &mut dyn FnMut(&mut Endpoint, u32)| {
        let mut batches = [Duration::ZERO; BATCHES];
        for n in 0..count {
            let began = Instant::now();
            act(&mut e, n);
            batches[(n / count.div_ceil(BATCHES as u32)) as usize] += began.elapsed();
        }
        let each = if count == 1 { batches[0].as_secs_f64() } else { fastest(&batches, count) };
        println!("{name}: {:.2} us", each * 1e6);
    };
    timed("HelloVerifyRequest", COUNT, &mut |e, n| e.receive(now(0), address(n), &hello, &mut |_| {}));
    let mut client = Client::new(&psk(1, "PSK-AES128-CCM8")?)?;
    let mut forged = vec![];
    timed("one association to forge records for", 1, &mut |e, _| {
        let _ = open(e, &mut client, address(1), &mut |_, _| {});
        forged = client.seal(now(0), &[7; 64]).unwrap_or_default();
    });
    if let Some(last) = forged.last_mut() {
        *last ^= 1;
    }
    timed("forged record, active", COUNT, &mut |e, n| e.receive(now(0), address(n), &forged, &mut |_| {}));
    timed("park it", 1, &mut |e, _| e.timeout(now(40_000), &mut |_| {}));
    // Eight a second are tried.
    let tried = |n: u32| now(40_000 + u64::from(n / 8) * 1000);
    timed("forged record, parked", 20_000, &mut |e, n| e.receive(tried(n), address(n), &forged, &mut |_| {}));
    let beyond = now(40_000_000);
    timed("forged record, parked, beyond eight a second", COUNT, &mut |e, n| {
        e.receive(beyond, address(n), &forged, &mut |_| {});
    });
    Ok(())
}

fn wake() -> Result<(), Failed> {
    const COUNT: u32 = 20_000;
    let mut e = endpoint(true)?;
    let mut client = Client::new(&psk(1, "PSK-AES128-CCM8")?)?;
    open(&mut e, &mut client, address(1), &mut |_, _| {})?;
    let mut spent = [[Duration::ZERO; BATCHES]; 2];
    for n in 0..COUNT {
        let batch = (n / (COUNT / BATCHES as u32)) as usize;
        let at = now(u64::from(n + 1) * 40_000);
        let began = Instant::now();
        e.timeout(at, &mut |_| {});
        spent[0][batch] += began.elapsed();
        let d = client.seal(at, &[7; 64])?;
        let began = Instant::now();
        e.receive(at, address(1), &d, &mut |_| {});
        spent[1][batch] += began.elapsed();
    }
    let [park, wake] = spent.map(|batches| fastest(&batches, COUNT) * 1e6);
    println!("park: {park:.1} us; first record of a parked association: {wake:.1} us");
    Ok(())
}

fn resident() -> Result<u64, Failed> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    Ok(statm.split(' ').nth(1).ok_or("statm")?.parse::<u64>()? * 4096)
}

fn memory(count: u32, file: &str) -> Result<(), Failed> {
    let mut e = endpoint(true)?;
    let mut file = BufWriter::new(std::fs::File::create(file)?);
    let mut wrong = None;
    // One before, so that what is allocated once is not counted.
    open(&mut e, &mut Client::new(&psk(u32::MAX, "PSK-AES128-CCM8")?)?, address(u32::MAX), &mut |_, _| {})?;
    let before = resident()?;
    for n in 0..count {
        let mut client = Client::new(&psk(n, "PSK-AES128-CCM8")?)?;
        open(&mut e, &mut client, address(n), &mut |id, record| {
            let len = (record.len() as u32).to_be_bytes();
            wrong = file.write_all(&[&id.0, &len[..], record].concat()).err();
        })?;
    }
    file.flush()?;
    if let Some(e) = wrong {
        return Err(e.into());
    }
    let each = |now: u64| now.saturating_sub(before) / u64::from(count);
    println!("{count} active: {} bytes each", each(resident()?));
    let began = Instant::now();
    e.timeout(now(40_000), &mut |_| {});
    let c = e.counts();
    let took = began.elapsed();
    println!(
        "{} parked in {took:?}: {} bytes each, {} of them slots",
        c.parked,
        each(resident()?),
        c.parked_bytes / c.parked
    );
    Ok(())
}

fn restore(file: &str) -> Result<(), Failed> {
    let mut e = endpoint(true)?;
    let mut all = vec![];
    BufReader::new(std::fs::File::open(file)?).read_to_end(&mut all)?;
    let before = resident()?;
    let began = Instant::now();
    let mut rest = &all[..];
    while let Some((head, tail)) = rest.split_at_checked(12) {
        let id = Id(head[..8].try_into()?);
        let len = u32::from_be_bytes(head[8..].try_into()?) as usize;
        let (record, tail) = tail.split_at_checked(len).ok_or("the file is cut off")?;
        e.restore(now(0), id, record, None)?;
        rest = tail;
    }
    let took = began.elapsed();
    let n = e.counts().parked as u64;
    println!(
        "{n} restored in {took:?}: {} bytes each, {} of file",
        (resident()? - before) / n,
        all.len() as u64 / n
    );
    Ok(())
}

fn main() -> Result<(), Failed> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["speed"] => {
            println!("{}", dtls::engine_version());
            handshakes("PSK-AES128-CCM8", 5000, &|n| psk(n, "PSK-AES128-CCM8"))?;
            handshakes("ECDHE-PSK-CHACHA20-POLY1305", 500, &|n| psk(n, "ECDHE-PSK-CHACHA20-POLY1305"))?;
            let (chain_pem, key_pem, ca_pem) = (pem("client.pem")?, pem("client.key")?, pem("ca.pem")?);
            handshakes("ECDHE-ECDSA-AES128-CCM8 with a client certificate", 200, &|_| {
                let host = "gateway.test".to_owned();
                let (chain_pem, key_pem, ca_pem) = (chain_pem.clone(), key_pem.clone(), ca_pem.clone());
                let proof = Proof::Certificate { chain_pem, key_pem, ca_pem, host };
                let suites = vec![Suite::named("ECDHE-ECDSA-AES128-CCM8").ok_or("no such suite")?];
                Ok(ClientSettings { proof, suites, ..psk(0, "PSK-AES128-CCM8")? })
            })?;
            for suite in ["PSK-AES128-CCM8", "PSK-AES128-GCM", "PSK-CHACHA20-POLY1305"] {
                requests(suite, false)?;
            }
            requests("PSK-AES128-CCM8", true)?;
            wake()?;
            strangers()
        }
        ["memory", n, file] => memory(n.parse()?, file),
        ["restore", file] => restore(file),
        _ => Err("speed | memory N FILE | restore FILE".into()),
    }
}
