//! What a client is told: the one place where refusals and stops become MQTT codes (MQTT 5.0, 2.4; 3.1.1, 3.2.2.3).

use gateway::{Close, Refusal, Stop};

/// CONNACK return code of MQTT 3.1 and 3.1.1.
pub fn return_code(why: Refusal) -> u8 {
    match why {
        Refusal::ClientId => 2,
        Refusal::ServerBusy
        | Refusal::QuotaExceeded
        | Refusal::NotKept
        | Refusal::Uncertain
        | Refusal::Internal => 3,
        Refusal::BadCredentials | Refusal::BadMethod => 4,
        _ => 5,
    }
}

/// Reason code of MQTT 5.0.
pub fn reason(why: Refusal) -> u8 {
    match why {
        Refusal::BadCredentials => 0x86,
        Refusal::BadMethod => 0x8C,
        Refusal::NotAuthorised | Refusal::NotOwner => 0x87,
        Refusal::ClientId => 0x85,
        Refusal::Banned => 0x8A,
        // There may be one exclusive subscriber: as other brokers with such filters say it.
        Refusal::QuotaExceeded | Refusal::NotKept | Refusal::Uncertain | Refusal::ExclusiveTaken => 0x97,
        Refusal::ServerBusy => 0x89,
        Refusal::TopicName => 0x90,
        Refusal::TopicFilter => 0x8F,
        Refusal::NoSession | Refusal::Internal => 0x83,
    }
}

/// The same for a packet that may carry only some reason codes.
pub fn reason_of(why: Refusal, allowed: &[u8]) -> u8 {
    let code = reason(why);
    // Implementation specific error, which all packets may carry.
    if allowed.contains(&code) { code } else { 0x83 }
}

/// A text for people, as Reason String.
pub fn text(why: Refusal) -> &'static str {
    match why {
        Refusal::BadCredentials => "user name or password is wrong",
        Refusal::BadMethod => "this authentication method is not served",
        Refusal::NotAuthorised => "not authorised",
        Refusal::ClientId => "this client identifier cannot be used",
        Refusal::NotOwner => "the session belongs to somebody else",
        Refusal::Banned => "banned",
        Refusal::QuotaExceeded => "a limit was reached",
        Refusal::ServerBusy => "busy; try again later",
        Refusal::NotKept => "it cannot be kept at present: the store has no room or cannot write",
        Refusal::Uncertain => "it could not be written; ask again",
        Refusal::TopicName => "this topic name cannot be published to",
        Refusal::TopicFilter => "this topic filter cannot be subscribed to",
        Refusal::ExclusiveTaken => "another client holds this exclusive subscription",
        Refusal::NoSession => "no session",
        Refusal::Internal => "internal error",
    }
}

/// Why a connection ends whose CONNECT was refused.
pub fn close(why: Refusal) -> Close {
    match why {
        Refusal::BadCredentials | Refusal::BadMethod => Close::BadCredentials,
        Refusal::ClientId => Close::ClientId,
        Refusal::Banned => Close::Banned,
        Refusal::QuotaExceeded | Refusal::ServerBusy | Refusal::NotKept | Refusal::Uncertain => {
            Close::QuotaExceeded
        }
        Refusal::Internal => Close::Internal,
        _ => Close::NotAuthorised,
    }
}

/// DISCONNECT reason code when the driver ends the conversation.
pub fn stop(why: Stop) -> u8 {
    match why {
        Stop::TakenOver => 0x8E,
        Stop::Kicked => 0x98,
        Stop::ShuttingDown => 0x8B,
        Stop::RateLimited => 0x96,
        Stop::SlowPeer => 0x97,
    }
}
