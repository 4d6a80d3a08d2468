//! What an answer of the driver is for.

use gateway::Ticket;

/// See [`Ticket`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A session.
    Session,
    /// That the token is kept.
    Token,
    /// The subscription to commands.
    Commands,
    /// A value of the frame of this number is published.
    Publish,
    /// The outcome of a command is published.
    Outcome,
    /// The call of this number of a script.
    Call,
}

const ALL: [Asked; 6] =
    [Asked::Session, Asked::Token, Asked::Commands, Asked::Publish, Asked::Outcome, Asked::Call];

/// The ticket for it.
pub(crate) fn ticket(asked: Asked, number: u32) -> Ticket {
    Ticket((asked as u64) << 32 | u64::from(number))
}

/// What the ticket is for.
pub(crate) fn asked(ticket: Ticket) -> Option<(Asked, u32)> {
    let asked = *ALL.get(usize::try_from(ticket.0 >> 32).ok()?)?;
    Some((asked, (ticket.0 & u64::from(u32::MAX)) as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_says_what_was_asked() {
        for of in ALL {
            assert_eq!(asked(ticket(of, u32::MAX)), Some((of, u32::MAX)));
        }
        assert_eq!(asked(Ticket(99 << 32)), None);
    }
}
