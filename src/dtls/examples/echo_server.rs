//! A DTLS echo server, to try clients against:
//! `cargo run -p dtls --example echo_server -- 127.0.0.1:5684 IDENTITY KEY [CHAIN.pem KEY.pem CA.pem]`.
//! It answers a CoAP request with 2.05 and the payload `tidegate`, anything else with what came.
#![expect(clippy::disallowed_methods, reason = "an example reads the clock and opens its socket itself")]

use std::error::Error;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dtls::{Certificates, Endpoint, Event, Found, Id, Key, Keys, Settings};
use gateway::{Instant, Now};

struct One(Vec<u8>, Key);

impl Keys for One {
    fn key(&self, identity: &[u8]) -> Found {
        Found { newest: (identity == self.0).then(|| self.1.clone()), older: None }
    }
}

/// RFC 7252, 3: version 1, acknowledgement with the request's token; a confirmable 0.0x is a request.
fn answer(request: &[u8]) -> Vec<u8> {
    match request {
        [head, 1..=7, id0, id1, rest @ ..] if head >> 4 == 4 => {
            let token = rest.get(..usize::from(head & 15)).unwrap_or_default();
            [&[0x60 | head & 15, 0x45, *id0, *id1], token, &[0xff], b"tidegate"].concat()
        }
        // Ping (RFC 7252, 4.3).
        [head, 0, id0, id1] if head >> 4 == 4 => vec![0x70, 0, *id0, *id1],
        other => other.to_vec(),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [bind, identity, key, pem @ ..] = &args[..] else {
        return Err("ADDRESS IDENTITY KEY [PEM...]".into());
    };
    let certificates = match pem {
        [chain, key, ca] => Some(Certificates {
            chain_pem: std::fs::read(chain)?,
            key_pem: std::fs::read(key)?,
            client_ca_pem: Some(std::fs::read(ca)?),
            require: false,
        }),
        _ => None,
    };
    let park_after = Duration::from_secs(1);
    let settings = Settings { certificates, park_after, durable: false, ..Settings::default() };
    let keys = Arc::new(One(
        identity.clone().into(),
        Key::new(key.as_bytes()).ok_or("the key is empty or too long")?,
    ));
    let mut endpoint = Endpoint::new(settings, keys, &[0; 32])?;
    let socket = UdpSocket::bind(bind)?;
    let began = std::time::Instant::now();
    let mut room = [0; 65_536];
    loop {
        let clock = || -> Result<Now, Box<dyn Error>> {
            let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
            let micros = u64::try_from(began.elapsed().as_micros())?;
            Ok(Now { instant: Instant::from_micros(micros), wall_ms: u64::try_from(wall.as_millis())? })
        };
        let now = clock()?;
        let wait = endpoint.next_timeout().map_or(Duration::from_secs(60), |at| at.since(now.instant));
        socket.set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
        let came = socket.recv_from(&mut room).ok();
        let now = clock()?;
        let mut data: Vec<(Id, SocketAddr, Vec<u8>)> = vec![];
        let mut events = |event: Event<'_>| match event {
            Event::Send { to, datagram } => {
                let _ = socket.send_to(datagram, to);
            }
            Event::Data { id, from, payload, .. } => data.push((id, from, payload.to_vec())),
            other => eprintln!("{other:?}"),
        };
        if let Some((n, from)) = came {
            endpoint.receive(now, from, &room[..n], &mut events);
        }
        endpoint.timeout(now, &mut events);
        for (id, from, payload) in data {
            let mut out = vec![];
            if endpoint.seal(now, id, &answer(&payload), &mut out).is_ok() {
                let _ = socket.send_to(&out, from);
            }
        }
    }
}
