//! What other threads leave for a driver. The first mail into an empty box wakes it; the driver swaps the box out.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use auth::Grant;
use bytes::Bytes;
use gateway::{CallFailure, Outcome, Peer, Refusal, Request, Stop, Ticket, Transport};
use parking_lot::Mutex;
use router::Signal;
use tokio::sync::{Notify, oneshot};

use crate::house::Port;

/// What an operator's look at one conversation brought: names and values.
pub type Description = Vec<(&'static str, String)>;

/// One piece of mail.
pub enum Mail {
    /// The router has something for a peer.
    Signal(Peer, Signal),
    /// A connection was accepted for this driver.
    Accepted(mio::net::TcpStream, SocketAddr, Arc<Port>),
    /// A password check ended.
    Verdict(Peer, Ticket, Result<Grant, Refusal>),
    /// An operator wants to see a conversation.
    Describe(Peer, oneshot::Sender<Description>),
    /// An operator wants to know what carries these conversations; None for those that have ended.
    Transports(Vec<Peer>, oneshot::Sender<Vec<Option<Transport>>>),
    /// Ask a device something.
    Command(Peer, Box<Request>, oneshot::Sender<Outcome>),
    /// What came of calls of a script, in their order.
    Called(Peer, Ticket, Vec<Result<Bytes, CallFailure>>),
    /// End a conversation.
    Stop(Peer, Stop),
    /// The access list or pre-shared keys have changed: fill in every client's grant anew. Of these identities nobody stays.
    Regrant(Arc<HashSet<Box<str>>>),
    /// Say goodbye to everybody and end.
    ShutDown,
}

/// A driver's box. Its length is bounded by what bounds its writers: one `Ready` a session, the accept loop's
/// connection limit, the bounds on password checks and on requests to devices, one answer of scripts a peer.
#[derive(Default)]
pub struct Mailbox {
    mail: Mutex<Vec<Mail>>,
    wake: Notify,
    /// The driver has answers that wait for the store.
    waits: AtomicBool,
}

impl Mailbox {
    /// Leaves one piece.
    pub fn push(&self, mail: Mail) {
        let mut queue = self.mail.lock();
        let was_empty = queue.is_empty();
        queue.push(mail);
        drop(queue);
        if was_empty {
            self.wake.notify_one();
        }
    }

    /// Leaves several with one lock and at most one wake-up; `mail` keeps its memory.
    pub fn append(&self, mail: &mut Vec<Mail>) {
        if mail.is_empty() {
            return;
        }
        let mut queue = self.mail.lock();
        let was_empty = queue.is_empty();
        queue.append(mail);
        drop(queue);
        if was_empty {
            self.wake.notify_one();
        }
    }

    /// Swaps what is there for the empty `into`.
    pub fn take(&self, into: &mut Vec<Mail>) {
        std::mem::swap(into, &mut *self.mail.lock());
    }

    /// Wakes the driver without mail, to look at deadlines that somebody else has set.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// The driver has answers that wait for the store, or has none any more.
    pub fn wait_for_store(&self, waits: bool) {
        self.waits.store(waits, Ordering::SeqCst);
        // Who looks after this whether it is written, and who writes and then looks whether somebody waits, cannot both miss.
        fence(Ordering::SeqCst);
    }

    /// The store has tried to write another batch: wakes the driver if it waits for one.
    pub fn store_has_tried(&self) {
        fence(Ordering::SeqCst);
        if self.waits.load(Ordering::SeqCst) {
            self.wake.notify_one();
        }
    }

    /// Until mail comes.
    pub async fn wait(&self) {
        self.wake.notified().await;
    }
}
