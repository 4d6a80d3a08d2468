//! What a ticket means: what was asked, and the numbers that its answer needs.

use gateway::Ticket;

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Asked {
    /// To open a session.
    Open,
    /// To publish QoS 1.
    Publish,
    /// To publish QoS 2.
    PublishOnce,
    /// To release QoS 2.
    Release,
    /// To note that the client has a QoS 2 delivery.
    Receive,
    /// To keep a topic id that the client has registered.
    Register,
    /// To keep a topic id.
    Topic,
    /// To subscribe.
    Subscribe,
    /// To unsubscribe.
    Unsubscribe,
    /// To replace the will of a session that goes on with CONNECT.
    TakeUp,
    /// To change the will's topic.
    WillTopic,
    /// To change the will's message.
    WillMsg,
    /// Something that nobody waits for.
    Nothing,
}

const ALL: [Asked; 13] = [
    Asked::Open,
    Asked::Publish,
    Asked::PublishOnce,
    Asked::Release,
    Asked::Receive,
    Asked::Register,
    Asked::Topic,
    Asked::Subscribe,
    Asked::Unsubscribe,
    Asked::TakeUp,
    Asked::WillTopic,
    Asked::WillMsg,
    Asked::Nothing,
];

/// A ticket for this, with a topic id and a message id.
pub(crate) fn ticket(asked: Asked, topic: u16, msg_id: u16) -> Ticket {
    Ticket(u64::from(asked as u8) << 32 | u64::from(topic) << 16 | u64::from(msg_id))
}

/// What a ticket was made of.
pub(crate) fn asked(ticket: Ticket) -> (Asked, u16, u16) {
    let kind = ALL.get((ticket.0 >> 32) as usize).copied().unwrap_or(Asked::Nothing);
    (kind, (ticket.0 >> 16) as u16, ticket.0 as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_comes_back_as_it_was_made() {
        for kind in ALL {
            assert_eq!(asked(ticket(kind, 0xABCD, 0x0102)), (kind, 0xABCD, 0x0102));
        }
    }
}
