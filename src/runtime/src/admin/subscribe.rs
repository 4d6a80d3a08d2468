//! `tidegate sub`: a session of the operator's own, drained into the admin connection.
//!
//! These sessions live at a driver of their own, the last mailbox, whose mail `sort_mail` sorts to the connections.
//! What a connection does not take in time waits in its session's bounded queue, like any other subscriber's.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use gateway::{Filter, Peer, Subscribe};
use hashbrown::HashMap;
use parking_lot::Mutex;
use router::{Attachment, Session, Signal};
use serde_json::{Value, json};
use tokio::io::BufReader;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::Notify;

use super::{Answer, Items, gone, qos, text};
use crate::house::House;
use crate::mailbox::Mail;
use crate::own;

/// Most `$fastlane` messages that wait for one connection.
const MAX_FAST: usize = 1024;

/// Who subscribes through the admin socket.
pub(super) struct Subscribers {
    driver: u16,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    next: u32,
    by_slot: HashMap<u32, Arc<Seat>>,
}

/// What wakes one of them.
#[derive(Default)]
struct Seat {
    wake: Notify,
    is_stopped: AtomicBool,
    fast: Mutex<Vec<Value>>,
}

impl Subscribers {
    pub(super) fn new(house: &House) -> Subscribers {
        let last = house.boxes.len().saturating_sub(1);
        Subscribers { driver: u16::try_from(last).unwrap_or(u16::MAX), table: Mutex::default() }
    }

    /// Sorts the last mailbox's mail, for ever.
    pub(super) async fn sort_mail(self: Arc<Self>, house: Arc<House>) {
        let Some(mailbox) = house.boxes.get(usize::from(self.driver)) else { return };
        let mut mail = Vec::new();
        loop {
            mailbox.wait().await;
            mailbox.take(&mut mail);
            for piece in mail.drain(..) {
                if let Mail::Signal(peer, signal) = piece {
                    self.sort(&house, peer, signal);
                }
            }
        }
    }

    fn sort(&self, house: &House, peer: Peer, signal: Signal) {
        let Some(seat) = self.table.lock().by_slot.get(&peer.slot).cloned() else { return };
        match signal {
            Signal::Ready => {}
            Signal::Stop(_) => seat.is_stopped.store(true, Ordering::Relaxed),
            Signal::Fast(fast) => {
                let mut waiting = seat.fast.lock();
                if waiting.len() < MAX_FAST {
                    waiting.push(message(fast.topic(), fast.message.payload()));
                } else {
                    house.metrics.dropped(gateway::Drop::SlowPeer);
                }
            }
        }
        seat.wake.notify_one();
    }

    /// Subscribes and hands messages over until `count` of them were, or who asked has gone.
    pub(super) async fn run(
        &self,
        house: &House,
        request: &Value,
        input: &mut BufReader<OwnedReadHalf>,
        items: &mut Items,
    ) -> io::Result<Answer> {
        let subscribe = match subscription(request) {
            Ok(subscribe) => subscribe,
            Err(e) => return Ok(Err(e)),
        };
        let seat = Arc::new(Seat::default());
        let slot = {
            let mut table = self.table.lock();
            table.next = table.next.wrapping_add(1);
            let slot = table.next;
            table.by_slot.insert(slot, seat.clone());
            slot
        };
        let at = Attachment { driver: self.driver, peer: Peer { slot, generation: 0 } };
        let mut left = request["count"].as_u64().unwrap_or(u64::MAX);
        let result = match own::attach(house, at, &format!("$admin-{slot}"), vec![subscribe]) {
            Ok(session) => {
                let result = pass_on(house, at, &session, &seat, &mut left, input, items).await;
                own::detach(house, at, &session);
                result.map(|()| Ok(false))
            }
            Err(text) => Ok(Err(text)),
        };
        self.table.lock().by_slot.remove(&slot);
        result
    }
}

fn subscription(request: &Value) -> Result<Subscribe, String> {
    let filter = Filter::parse(text(request, "filter")?).map_err(|e| e.to_string())?;
    Ok(Subscribe {
        filter,
        qos: qos(request)?,
        no_local: false,
        retain_as_published: true,
        retain_handling: 0,
        identifier: 0,
    })
}

async fn pass_on(
    house: &House,
    at: Attachment,
    session: &Session,
    seat: &Seat,
    left: &mut u64,
    input: &mut BufReader<OwnedReadHalf>,
    items: &mut Items,
) -> io::Result<()> {
    let end = gone(input);
    tokio::pin!(end);
    loop {
        let (batch, has_more) = drain(house, at, session);
        let fast = std::mem::take(&mut *seat.fast.lock());
        for item in batch.into_iter().chain(fast) {
            items.item(item).await?;
            *left -= 1;
            if *left == 0 {
                return Ok(());
            }
        }
        if seat.is_stopped.load(Ordering::Relaxed) {
            return Ok(());
        }
        if !has_more {
            tokio::select! {
                () = seat.wake.notified() => {}
                () = &mut end => return Ok(()),
            }
        }
    }
}

fn drain(house: &House, at: Attachment, session: &Session) -> (Vec<Value>, bool) {
    let mut batch = Vec::new();
    let has_more = own::drain(house, at, session, |d| batch.push(message(d.topic, d.message.payload())));
    (batch, has_more)
}

fn message(topic: &str, payload: &[u8]) -> Value {
    match std::str::from_utf8(payload) {
        Ok(text) => json!({"topic": topic, "payload": text}),
        Err(_) => json!({"topic": topic, "payload_base64": BASE64.encode(payload)}),
    }
}
