//! How long a start takes with a million durable sessions, each with a subscription, and what they cost:
//! `cargo run --release -p router --example million_sessions [FOLDER]`.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "an example that measures")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway::{Connect, Filter, Now, Peer, Qos, Subscribe};
use router::{Attachment, Matches, Open, Options, Post, Router};
use store::{Limits, Store};

const MANY: u32 = 1_000_000;

fn open(folder: &Path) -> (Router, Arc<Store>) {
    let store = Arc::new(Store::open(folder, Limits::default()).unwrap());
    let options = Options { max_sessions: MANY as usize, ..Options::default() };
    (Router::new(options).with_store(store.clone(), true), store)
}

fn connect(n: u32) -> Connect {
    Connect {
        clean_start: false,
        expiry: Duration::MAX,
        ..Connect::new(format!("device-{n:07}"), "MQTT 5.0", 10)
    }
}

fn fill(folder: &Path) {
    let (router, store) = open(folder);
    let (mut matches, mut post) = (Matches::default(), Post::default());
    let now = Now { wall_ms: 1_700_000_000_000, ..Now::from_micros(1) };
    for n in 0..MANY {
        let at = Attachment { driver: 0, peer: Peer { slot: n, generation: 0 } };
        let open = Open {
            connect: &mut connect(n),
            namespace: "",
            principal: None,
            username: None,
            mount: "".into(),
        };
        let session = router.connect(now, at, open, &mut matches, &mut post).unwrap().session;
        let subscribe = Subscribe {
            filter: Filter::parse(&format!("devices/{n:07}/commands")).unwrap(),
            qos: Qos::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: 0,
            identifier: 0,
        };
        router.subscribe(now, &session, subscribe, &mut matches, &mut post).unwrap();
        router.disconnect(now, &session, at, false, None, &mut matches, &mut post);
        if n % 1000 == 0 {
            store.write(&|| 0, &|| {});
        }
    }
    store.write(&|| 0, &|| {});
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn main() {
    let folder = std::env::args().nth(1).map_or_else(|| PathBuf::from("/var/tmp/million"), PathBuf::from);
    if !folder.exists() {
        let began = Instant::now();
        fill(&folder);
        println!(
            "{MANY} sessions made in {:.1} s; run again to see the start",
            began.elapsed().as_secs_f64()
        );
        return;
    }
    let before = resident();
    let began = Instant::now();
    let (router, store) = open(&folder);
    let opened = began.elapsed();
    let restored = router.restore(Now { wall_ms: 1_700_000_000_000, ..Now::from_micros(1) }).unwrap();
    println!(
        "{restored:?}: engine {:.2} s, sessions {:.2} s, {} bytes of memory each, {} on the disk",
        opened.as_secs_f64(),
        (began.elapsed() - opened).as_secs_f64(),
        (resident() - before) / u64::from(MANY),
        store.disk_bytes() / u64::from(MANY),
    );
}
