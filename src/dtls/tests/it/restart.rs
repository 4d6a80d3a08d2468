//! The process ends and another goes on with what the store holds.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use dtls::{ClientSettings, Id, Identity, NotRestored, NotSent, Reason, Settings};

use crate::net::{Dice, Peer, Server, Table, Told, address};

/// What the store holds: of each association its `Keep`, and its latest `KeepNumbers`.
#[derive(Default)]
struct Disk(HashMap<Id, (Vec<u8>, Option<Vec<u8>>)>);

impl Disk {
    fn write(&mut self, told: &[Told]) {
        for t in told {
            match t {
                Told::Keep(id, record) => {
                    self.0.insert(*id, (record.clone(), None));
                }
                Told::KeepNumbers(id, record, _) => {
                    if let Some((_, numbers)) = self.0.get_mut(id) {
                        *numbers = Some(record.clone());
                    }
                }
                Told::Forget(id) => {
                    self.0.remove(id);
                }
                _ => {}
            }
        }
    }

    fn start(&self, settings: &Settings, now: gateway::Now) -> Server {
        let mut server = Server::new(settings.clone(), Table::of(&[("dev", &["secret"])]));
        server.now = now;
        for (id, (record, numbers)) in &self.0 {
            server.endpoint.restore(now, *id, record, numbers.as_deref()).unwrap();
        }
        server
    }
}

/// Everything the server told is written, and it ends; another starts.
fn restart(server: Server, disk: &mut Disk) -> Server {
    disk.write(&server.told);
    disk.start(&Settings::default(), server.now)
}

#[test]
fn an_association_goes_on_without_a_handshake() {
    for (cid, from) in [(None, address(1)), (Some(vec![]), address(2))] {
        let mut disk = Disk::default();
        let mut server = Server::simple();
        let has_cid = cid.is_some();
        let mut peer =
            Peer::new(address(1), &ClientSettings { cid, ..ClientSettings::psk(b"dev", b"secret") });
        let id = peer.open(&mut server).unwrap();
        peer.say(&mut server, b"before");
        let mut server = restart(server, &mut disk);
        assert_eq!(server.endpoint.counts().parked, 1);
        let shown = server.endpoint.show(server.now, id).unwrap();
        assert_eq!(shown.identity, Identity::Psk(b"dev".as_slice().into()));
        assert_eq!((shown.address, shown.has_cid), (address(1), has_cid));
        peer.at = from;
        peer.say(&mut server, b"after");
        assert_eq!(server.payloads(), [b"after"]);
        server.kept();
        let answer = server.seal(id, b"good morning").unwrap();
        assert!(peer.hear(&server, &answer));
    }
}

#[test]
fn a_restored_association_sends_nothing_before_its_new_block_is_kept() {
    let mut disk = Disk::default();
    let mut server = Server::simple();
    let mut peer = Peer::simple(address(1));
    let id = peer.open(&mut server).unwrap();
    let mut server = restart(server, &mut disk);
    assert_eq!(server.seal(id, b"x"), Err(NotSent::NotReserved));
    server.timeout();
    assert_eq!(server.seal(id, b"x"), Err(NotSent::NotReserved));
    server.kept();
    let d = server.seal(id, b"x").unwrap();
    assert!(peer.hear(&server, &d));
}

#[test]
fn what_was_received_before_the_restart_is_a_replay_after_it() {
    let mut disk = Disk::default();
    let mut server = Server::simple();
    let mut peer = Peer::simple(address(1));
    peer.open(&mut server).unwrap();
    let d = peer.client.seal(server.now, b"once").unwrap();
    server.receive(peer.at, &d);
    let mut server = restart(server, &mut disk);
    server.receive(peer.at, &d);
    assert_eq!(server.told, [Told::Drop(Reason::Replay)]);
}

#[test]
fn the_address_it_moved_to_is_kept() {
    let mut disk = Disk::default();
    let mut server = Server::simple();
    let mut peer = Peer::simple(address(1));
    let id = peer.open(&mut server).unwrap();
    peer.at = address(7);
    peer.say(&mut server, b"x");
    server.endpoint.moved(id, address(7));
    server.timeout();
    let server = restart(server, &mut disk);
    assert_eq!(server.endpoint.address(id), Some(address(7)));
}

#[test]
fn a_record_that_was_changed_or_is_anothers_is_not_restored() {
    let mut server = Server::simple();
    let mut peer = Peer::simple(address(1));
    let id = peer.open(&mut server).unwrap();
    peer.say(&mut server, b"x");
    let mut disk = Disk::default();
    disk.write(&server.told);
    let (record, numbers) = disk.0.remove(&id).unwrap();
    let numbers = numbers.unwrap();
    let mut fresh = Server::simple();
    let now = fresh.now;
    let mut restore =
        |id, record: &[u8], numbers: &[u8]| fresh.endpoint.restore(now, id, record, Some(numbers));
    for at in 0..record.len() {
        let mut changed = record.clone();
        changed[at] ^= 1;
        assert_eq!(restore(id, &changed, &numbers), Err(NotRestored::NotAuthentic), "{at}");
        assert_eq!(restore(id, &record[..at], &numbers), Err(NotRestored::NotAuthentic));
    }
    for at in 0..numbers.len() {
        let mut changed = numbers.clone();
        changed[at] ^= 1;
        assert_eq!(restore(id, &record, &changed), Err(NotRestored::NotAuthentic), "{at}");
    }
    assert_eq!(restore(Id([1; 8]), &record, &numbers), Err(NotRestored::NotAuthentic));
    assert!(restore(id, &record, &numbers).is_ok());
    assert_eq!(restore(id, &record, &numbers), Err(NotRestored::Duplicate));
}

/// Peers that talk to a server that is killed again and again, in the middle of what it tells its store.
struct World {
    settings: Settings,
    server: Server,
    disk: Disk,
    peers: Vec<(Peer, Option<Id>, u32)>,
    /// Peer, which of its associations, epoch and number of every record the server ever sent.
    sent: HashSet<(usize, u32, u16, u64)>,
    heard: usize,
    dice: Dice,
}

impl World {
    fn new(seed: u64) -> World {
        let settings = Settings {
            number_block: 4,
            max_per_identity: 100,
            park_after: Duration::from_secs(5),
            ..Settings::default()
        };
        let server = Server::new(settings.clone(), Table::of(&[("dev", &["secret"])]));
        let peers = (0..6).map(|n| (Self::peer(n), None, 0)).collect();
        World {
            settings,
            server,
            disk: Disk::default(),
            peers,
            sent: HashSet::new(),
            heard: 0,
            dice: Dice(seed),
        }
    }

    /// Half of them use connection ids.
    fn peer(n: u16) -> Peer {
        let cid = n.is_multiple_of(2).then(Vec::new);
        Peer::new(address(n), &ClientSettings { cid, ..ClientSettings::psk(b"dev", b"secret") })
    }

    /// Every record of a datagram to a peer is one that was never sent before, or not encrypted.
    fn note(&mut self, n: usize, mut datagram: &[u8]) {
        while !datagram.is_empty() {
            let field =
                |at: usize, len: usize| datagram[at..at + len].iter().fold(0, |v, b| v << 8 | u64::from(*b));
            let (epoch, number) = (field(3, 2) as u16, field(5, 6));
            let record = (n, self.peers[n].2, epoch, number);
            assert!(epoch == 0 || self.sent.insert(record), "sent twice: {record:?}");
            datagram = &datagram[13 + field(11, 2) as usize..];
        }
    }

    /// A peer sends, the server answers as soon as it knows, long before its store has written.
    fn act(&mut self, n: usize) {
        let first = self.server.told.len();
        let (peer, id, generation) = &mut self.peers[n];
        if id.is_none() {
            *peer = Self::peer(n as u16);
            *generation += 1;
            *id = peer.open(&mut self.server);
        }
        if peer.at != address(n as u16) || self.dice.roll(2) == 0 {
            peer.at = if n.is_multiple_of(2) {
                address(100 + self.dice.roll(100) as u16)
            } else {
                address(n as u16)
            };
        }
        peer.say(&mut self.server, b"request");
        let is_known = self.server.told[first..].iter().any(|t| matches!(t, Told::Data { .. }));
        let Some(known) = id.filter(|_| is_known) else {
            // Its association did not survive: it begins anew next time.
            *id = None;
            return;
        };
        for _ in 0..self.dice.roll(4) {
            match self.server.seal(known, b"answer") {
                Ok(d) => {
                    self.note(n, &d);
                    assert!(self.peers[n].0.hear(&self.server, &d));
                    self.heard += 1;
                }
                Err(NotSent::NotReserved) => {
                    self.server.timeout();
                    return;
                }
                Err(other) => panic!("{other:?}"),
            }
        }
    }

    fn commit(&mut self) {
        self.server.kept();
        self.disk.write(&self.server.told);
        self.server.told.clear();
    }

    fn kill(&mut self) {
        let written = self.dice.roll(self.server.told.len() as u64 + 1) as usize;
        self.disk.write(&self.server.told[..written]);
        self.server = self.disk.start(&self.settings, self.server.now);
    }
}

#[test]
fn through_a_hundred_kills_no_record_number_is_used_twice() {
    for seed in 1..=3 {
        let mut world = World::new(seed);
        let mut opened = 0;
        for _ in 0..100 {
            for _ in 0..=world.dice.roll(8) {
                let n = world.dice.roll(6) as usize;
                opened += u32::from(world.peers[n].1.is_none());
                world.act(n);
                for (to, d) in std::mem::take(&mut world.server.sent) {
                    let n = world.peers.iter().position(|(p, ..)| p.at == to).unwrap();
                    world.note(n, &d);
                }
                if world.dice.roll(2) == 0 {
                    world.commit();
                }
                if world.dice.roll(4) == 0 {
                    world.server.pass(Duration::from_secs(6));
                }
            }
            world.kill();
        }
        // Most outlive the kills, or this would prove little.
        assert!(world.heard > 100, "{}", world.heard);
        assert!(opened < 120, "{opened} handshakes");
    }
}

#[test]
fn what_a_kill_let_the_store_keep_is_never_received_again() {
    let mut dice = Dice(9);
    for _ in 0..100 {
        let mut disk = Disk::default();
        let mut server = Server::simple();
        let mut peer = Peer::simple(address(1));
        peer.open(&mut server).unwrap();
        disk.write(&std::mem::take(&mut server.told));
        let datagrams: Vec<_> = (0..5).map(|n| peer.client.seal(server.now, &[n]).unwrap()).collect();
        for d in &datagrams {
            server.receive(peer.at, d);
        }
        // The store has a prefix of what it was told, and the effects of its data with it.
        let written = dice.roll(server.told.len() as u64 + 1) as usize;
        disk.write(&server.told[..written]);
        let payload =
            |t: &Told| if let Told::Data { payload, .. } = t { Some(payload.clone()) } else { None };
        let mut seen: Vec<_> = server.told[..written].iter().filter_map(payload).collect();
        let mut server = disk.start(&Settings::default(), server.now);
        for d in &datagrams {
            server.receive(peer.at, d);
        }
        seen.extend(server.told.iter().filter_map(payload));
        let again = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), again, "received twice");
        // A record whose number was written and whose effect was not is lost, and sent again by who wants an answer.
        assert!(seen.len() >= 4);
    }
}
