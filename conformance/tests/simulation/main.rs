//! Machines, router, store and two clients in memory, with the connection lost, or the node killed, at every byte: QoS 2
//! arrives exactly once, QoS 1 at least once, each in its order, and no session and no record is left over or lost.
#![expect(clippy::unwrap_used, clippy::panic, reason = "all of this file is a test, its helpers too")]

mod client;
mod node;

use client::Client;
use node::Node;

/// Where a connection is lost: when so many bytes of this client have gone in this direction.
#[derive(Clone, Copy, Debug)]
struct Cut {
    client: usize,
    to_server: bool,
    after: usize,
    how: How,
}

/// What is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// The connection.
    Connection,
    /// The connection, and the server notices only after the client is back: the client takes its own session over.
    Late,
    /// The node is killed, with what its store has not written.
    Node,
}

/// One run.
struct World {
    node: Node,
    clients: [Client; 2],
    /// The connection of each client.
    at: [Option<usize>; 2],
    /// Connections of which the server has not noticed that they are lost.
    ghosts: [Option<usize>; 2],
    /// Bytes that have gone, by client, to the client and to the server.
    gone: [[usize; 2]; 2],
    cuts: Vec<Cut>,
    /// The store writes after so many turns.
    lag: usize,
    turns: usize,
}

const PUBLISHER: usize = 0;
const SUBSCRIBER: usize = 1;
const MESSAGES: u8 = 4;

impl World {
    fn new(level: u8, cuts: Vec<Cut>, lag: usize) -> World {
        let clients = [Client::new("p", level, false), Client::new("s", level, true)];
        let (at, ghosts, gone) = ([None; 2], [None; 2], [[0; 2]; 2]);
        World { node: Node::new(), clients, at, ghosts, gone, cuts, lag, turns: 0 }
    }

    /// Plays until all is done; the bytes that went.
    fn play(&mut self) -> [[usize; 2]; 2] {
        let mut has_published = false;
        let mut quiet = 0;
        for _ in 0..1000 {
            let mut moved = false;
            for client in [SUBSCRIBER, PUBLISHER] {
                moved |= self.turn(client);
                self.turns += 1;
                if self.turns.is_multiple_of(self.lag) {
                    self.node.write();
                }
            }
            if self.clients[SUBSCRIBER].is_subscribed() && !std::mem::replace(&mut has_published, true) {
                for n in 0..MESSAGES {
                    self.clients[PUBLISHER].publish(1 + n % 2, format!("q{}n{n}", 1 + n % 2));
                }
            }
            quiet = if moved { 0 } else { quiet + 1 };
            if quiet > 2 + self.lag && has_published {
                assert!(self.clients.iter().all(Client::is_done), "stuck with {:?}", self.cuts);
                return self.gone;
            }
        }
        panic!("no end with {:?}", self.cuts);
    }

    fn turn(&mut self, client: usize) -> bool {
        let n = match self.at[client] {
            Some(n) => n,
            None => {
                let n = self.node.open();
                self.at[client] = Some(n);
                self.clients[client].connect();
                n
            }
        };
        let up = self.clients[client].output();
        let (bytes, cut) = self.cross(client, true, &up);
        self.node.feed(n, &up[..bytes]);
        if let Some(how) = cut {
            self.lose(client, how);
            return true;
        }
        if let Some(ghost) = self.ghosts[client].take() {
            self.node.lose(ghost);
        }
        let Some(down) = self.node.output(n) else { panic!("the server closed with {:?}", self.cuts) };
        let (bytes, cut) = self.cross(client, false, &down);
        self.clients[client].feed(&down[..bytes]);
        if let Some(how) = cut {
            self.lose(client, how);
        }
        cut.is_some() || !up.is_empty() || !down.is_empty()
    }

    /// How many of these bytes arrive, and what is lost then.
    fn cross(&mut self, client: usize, to_server: bool, bytes: &[u8]) -> (usize, Option<How>) {
        let gone = &mut self.gone[client][usize::from(to_server)];
        let hits = |cut: &Cut| {
            cut.client == client
                && cut.to_server == to_server
                && (*gone..*gone + bytes.len()).contains(&cut.after)
        };
        match self.cuts.iter().position(hits) {
            Some(at) => {
                let arrived = self.cuts[at].after - *gone;
                *gone += bytes.len();
                let cut = self.cuts.remove(at);
                self.ghosts[client] = self.at[client].filter(|_| cut.how == How::Late);
                (arrived, Some(cut.how))
            }
            None => {
                *gone += bytes.len();
                (bytes.len(), None)
            }
        }
    }

    fn lose(&mut self, client: usize, how: How) {
        if how == How::Node {
            self.node.kill();
            (self.at, self.ghosts) = ([None; 2], [None; 2]);
            return;
        }
        if let Some(n) = self.at[client].take()
            && self.ghosts[client].is_none()
        {
            self.node.lose(n);
        }
    }

    fn check(&self, cuts: &[Cut]) {
        let got = &self.clients[SUBSCRIBER].got;
        for n in 0..MESSAGES {
            let payload = format!("q{}n{n}", 1 + n % 2);
            let times = got.iter().filter(|one| **one == payload).count();
            let is_right = if payload.starts_with("q2") { times == 1 } else { times >= 1 };
            assert!(is_right, "{payload} came {times} times with {cuts:?}: {got:?}");
        }
        for qos in ["q1", "q2"] {
            let mut first: Vec<&String> = Vec::new();
            got.iter().filter(|one| one.starts_with(qos)).for_each(|one| {
                if !first.contains(&one) {
                    first.push(one);
                }
            });
            assert!(first.is_sorted(), "out of order with {cuts:?}: {got:?}");
        }
        assert_eq!(self.node.router.stats().sessions, 2, "sessions with {cuts:?}");
        assert_eq!(self.node.records(), 0, "records with {cuts:?}");
    }
}

fn play(level: u8, cuts: &[Cut], lag: usize) -> [[usize; 2]; 2] {
    let mut world = World::new(level, cuts.to_vec(), lag);
    let gone = world.play();
    world.node.write();
    world.check(cuts);
    gone
}

/// Every place where something can be lost in an undisturbed run.
fn places(level: u8, hows: &[How], lag: usize) -> Vec<Cut> {
    let gone = play(level, &[], lag);
    let mut all = Vec::new();
    for client in [PUBLISHER, SUBSCRIBER] {
        for to_server in [false, true] {
            for after in 0..gone[client][usize::from(to_server)] {
                all.extend(hows.iter().map(|&how| Cut { client, to_server, after, how }));
            }
        }
    }
    all
}

#[test]
fn without_loss_every_message_arrives_once() {
    for level in [3, 4, 5] {
        let mut world = World::new(level, Vec::new(), 1);
        world.play();
        assert_eq!(world.clients[SUBSCRIBER].got, ["q1n0", "q2n1", "q1n2", "q2n3"]);
    }
}

#[test]
fn a_connection_lost_at_any_byte_loses_and_doubles_nothing() {
    for level in [4, 5] {
        for cut in places(level, &[How::Connection, How::Late], 1) {
            play(level, &[cut], 1);
        }
    }
}

#[test]
fn a_node_killed_at_any_byte_loses_and_doubles_nothing() {
    for level in [4, 5] {
        // The store is at once done, or lags behind by turns of both clients.
        for lag in [1, 2, 3, 5, 8] {
            for cut in places(level, &[How::Node], lag) {
                play(level, &[cut], lag);
            }
        }
    }
}

#[test]
fn connections_of_both_clients_may_be_lost_and_the_node_killed_in_one_run() {
    for (level, lag) in [(4, 1), (5, 1), (4, 3), (5, 4)] {
        let places = places(level, &[How::Connection, How::Late, How::Node], lag);
        // Every place of the one with a few of the other, spread over the run.
        for (n, first) in places.iter().enumerate().step_by(5) {
            for second in places.iter().skip(n % 7).step_by(places.len() / 9 + 1) {
                let later = Cut { after: second.after + 20, ..*second };
                play(level, &[*first, *second, later], lag);
            }
        }
    }
}
