//! MQTT-SN clients over a network that loses three of ten datagrams, doubles one of ten and lets them overtake each other:
//! the machine with the router, in memory, with a clock that stands still unless the test moves it. QoS 1 arrives at least
//! once, QoS 2 exactly once, both ways, awake and asleep, at an address and at changing ones; and whoever has lost the
//! gateway, or is lost by it, comes back.
//!
//! `SEED=7 cargo test -p conformance --test mqtt_sn` plays a run again, `RUNS=1000` more of them.
#![expect(clippy::unwrap_used, clippy::panic, reason = "all of this file is a test, its helpers too")]

mod device;
mod node;

use std::collections::BTreeMap;

use device::Device;
use node::Node;

const DEVICES: usize = 10;
/// Publications of each device, and messages to each.
const MESSAGES: u32 = 20;
const SECOND: u64 = 1_000_000;
/// From when on nothing is lost.
const BAD_UNTIL: u64 = 1_500 * SECOND;
/// Whatever is not over then never will be.
const END: u64 = 5_000 * SECOND;

enum Event {
    ToGateway(u16, Vec<u8>),
    ToDevice(u16, Vec<u8>),
    Wake(usize),
    /// Somebody publishes the message of this number for the device.
    Tell(usize, u32),
}

struct World {
    node: Node,
    devices: Vec<Device>,
    events: BTreeMap<(u64, u64), Event>,
    count: u64,
    now: u64,
    random: u64,
    lost: u64,
}

/// SplitMix64.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (*state ^ *state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

impl World {
    fn new(seed: u64) -> World {
        let devices: Vec<Device> = (0..DEVICES).map(Device::new).collect();
        let (node, events) = (Node::new(), BTreeMap::new());
        let mut world = World { node, devices, events, count: 0, now: SECOND, random: seed, lost: 0 };
        for d in 0..DEVICES {
            world.at(0, Event::Wake(d));
            for number in 0..MESSAGES {
                let when = (300 + u64::from(number) * 50 + world.below(40)) * SECOND;
                world.at(when, Event::Tell(d, number));
            }
        }
        world
    }

    fn below(&mut self, n: u64) -> u64 {
        split_mix(&mut self.random) % n
    }

    fn at(&mut self, micros: u64, event: Event) {
        self.count += 1;
        self.events.insert((self.now + micros, self.count), event);
    }

    /// A datagram goes its way. It takes 300 to 700 ms, so that those which are on their way together change places, and a
    /// copy comes before the exchange is over that it belongs to: later ones no receiver could tell from new messages.
    fn carry(&mut self, make: impl Fn() -> Event) {
        let is_bad = self.now < BAD_UNTIL;
        if is_bad && self.below(10) < 3 {
            self.lost += 1;
            return;
        }
        let copies = if is_bad && self.below(10) == 0 { 2 } else { 1 };
        for _ in 0..copies {
            let delay = 300_000 + if is_bad { self.below(400_000) } else { 0 };
            self.at(delay, make());
        }
    }

    fn play(&mut self) {
        while !self.is_over() {
            let due = self.node.next_timeout();
            let (next, _) = *self.events.keys().next().unwrap();
            assert!(self.now < END, "{}", self.report());
            if due.is_some_and(|at| at <= next) {
                self.now = due.unwrap_or_default().max(self.now);
                self.node.timeout(self.now);
            } else if let Some(((at, _), event)) = self.events.pop_first() {
                self.now = at;
                self.happen(event);
            }
            for (address, bytes) in self.node.take_sent() {
                self.carry(|| Event::ToDevice(address, bytes.clone()));
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::ToGateway(address, bytes) => self.node.receive(self.now, address, &bytes),
            Event::ToDevice(address, bytes) => {
                let device = usize::from(address) % DEVICES;
                // What goes to an address that it had before does not arrive.
                if self.devices[device].address() == address {
                    self.devices[device].receive(self.now, &bytes);
                    self.speak(device);
                }
            }
            Event::Wake(device) => {
                let jitter = self.below(5);
                self.devices[device].look(self.now, jitter);
                self.speak(device);
                self.at(SECOND / 2, Event::Wake(device));
            }
            Event::Tell(device, number) => {
                let topic = format!("down/{device}/{}", number % 3);
                self.node.publish(self.now, &topic, number, 1 + (number % 2) as u8);
            }
        }
    }

    fn speak(&mut self, device: usize) {
        let address = self.devices[device].address();
        for bytes in std::mem::take(&mut self.devices[device].out) {
            self.carry(|| Event::ToGateway(address, bytes.clone()));
        }
    }

    fn is_over(&self) -> bool {
        self.now > BAD_UNTIL && self.devices.iter().all(|d| d.is_done(MESSAGES))
    }

    /// Who has not got what.
    fn report(&self) -> String {
        let of = self.devices.iter().filter(|d| !d.is_done(MESSAGES));
        of.map(|d| format!("{}\n", d.describe())).collect()
    }

    fn check(&self) {
        for (d, device) in self.devices.iter().enumerate() {
            for number in 0..MESSAGES {
                let down = device.heard.iter().filter(|n| **n == number).count();
                let up = self
                    .node
                    .heard
                    .iter()
                    .filter(|(topic, n)| *topic == format!("up/{d}") && *n == number)
                    .count();
                let is_once = number % 2 == 1;
                assert!(down == 1 || down > 1 && !is_once, "device {d} has message {number} {down} times");
                assert!(
                    up == 1 || up > 1 && !is_once,
                    "message {number} of device {d} was published {up} times"
                );
            }
        }
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap())
}

#[test]
fn nothing_is_lost_or_doubled_over_a_bad_network_and_nobody_is_stuck() {
    let (first, runs) = (number("SEED", 1), number("RUNS", 20));
    let (mut lost, mut reconnects) = (0, 0);
    for seed in first..first + runs {
        println!("SEED={seed}");
        let mut world = World::new(seed);
        world.play();
        world.check();
        lost += world.lost;
        reconnects += world.devices.iter().map(|d| u64::from(d.connects)).sum::<u64>();
    }
    assert!(lost > 500 * runs, "{lost} lost: the network was good");
    assert!(reconnects > 2 * DEVICES as u64 * runs, "{reconnects}: nobody lost the gateway");
}
