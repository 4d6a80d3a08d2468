//! What a ticket is for; the packet identifier is in its low 16 bits.

use gateway::Ticket;

pub(crate) const CONNECT: u64 = 1;
pub(crate) const QOS1: u64 = 2;
pub(crate) const QOS2: u64 = 3;
pub(crate) const RELEASE: u64 = 4;
pub(crate) const RECEIVE: u64 = 5;
pub(crate) const SUBSCRIBE: u64 = 6;
pub(crate) const UNSUBSCRIBE: u64 = 7;
pub(crate) const AUTH: u64 = 8;
pub(crate) const QOS0: u64 = 9;

pub(crate) fn new(kind: u64, id: u16) -> Ticket {
    Ticket(kind << 16 | u64::from(id))
}

pub(crate) fn take(ticket: Ticket) -> (u64, u16) {
    (ticket.0 >> 16, (ticket.0 & 0xFFFF) as u16)
}
