//! Requests to a device's own resources, for gateways whose devices answer some: CoAP, LwM2M, and protocols that can be
//! read as a method, a path and a payload.

use std::time::Duration;

use bytes::Bytes;

use crate::peer::labelled;

labelled! {
    /// What is to be done with the resource (RFC 7252, 5.8; RFC 8132).
    Method {
        /// Its value.
        Get = "GET",
        /// Process the payload.
        Post = "POST",
        /// Make it this.
        Put = "PUT",
        /// Remove it.
        Delete = "DELETE",
        /// The part of its value that the payload asks for.
        Fetch = "FETCH",
        /// Change it as the payload says.
        Patch = "PATCH",
        /// The same, with no harm in doing it twice.
        Ipatch = "iPATCH",
    }
}

impl Method {
    /// The method of this name, in whatever case.
    pub fn parse(name: &str) -> Option<Method> {
        Method::ALL.iter().find(|m| m.label().eq_ignore_ascii_case(name)).copied()
    }
}

/// One request to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is to be done.
    pub method: Method,
    /// With what: levels with `/` between them, with or without one before the first.
    pub path: Box<str>,
    /// Queries such as `k=v`, in order.
    pub query: Vec<Box<str>>,
    /// Content-Format of the payload (RFC 7252, 12.3).
    pub format: Option<u16>,
    /// Content-Format that the answer is to have.
    pub accept: Option<u16>,
    /// The payload; empty is none.
    pub payload: Bytes,
    /// Longest wait for the answer, from now on.
    pub timeout: Duration,
}

/// What a device answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// As the protocol writes it: `2.05`.
    pub code: Box<str>,
    /// The device has done it.
    pub is_success: bool,
    /// Content-Format of the payload.
    pub format: Option<u16>,
    /// What else it said, in its order: the option's name and its value for people.
    pub options: Vec<(Box<str>, Box<str>)>,
    /// The payload.
    pub payload: Bytes,
}

labelled! {
    /// Why a request to a device has no answer.
    Failure {
        /// Nobody has this client id.
        UnknownClient = "unknown_client",
        /// The client has a session and is not connected.
        NotConnected = "not_connected",
        /// The client's protocol knows no such requests.
        Unsupported = "unsupported",
        /// The request cannot be written in the client's protocol: a path or query that is too long, a reserved number.
        BadRequest = "bad_request",
        /// The payload is larger than what may be sent.
        TooLarge = "too_large",
        /// As many requests as may be wait for this client already.
        Busy = "busy",
        /// Sent again and again, and never acknowledged: nobody is there.
        Unreachable = "unreachable",
        /// The device has rejected the message (CoAP Reset).
        Rejected = "rejected",
        /// No answer in time.
        Timeout = "timeout",
        /// The conversation has ended before the answer.
        Gone = "gone",
        /// The answer cannot be understood, or is larger than what may be received.
        BadAnswer = "bad_answer",
    }
}

impl Failure {
    /// In words for people.
    pub fn text(self) -> &'static str {
        match self {
            Failure::UnknownClient => "there is no such client",
            Failure::NotConnected => "the client is not connected",
            Failure::Unsupported => "the client's protocol has no requests to devices",
            Failure::BadRequest => {
                "the request cannot be sent: path, query or an option is too long or reserved"
            }
            Failure::TooLarge => "the payload is too large",
            Failure::Busy => "too many requests wait for answers",
            Failure::Unreachable => "the device does not acknowledge the request",
            Failure::Rejected => "the device has rejected the request with a Reset",
            Failure::Timeout => "the device has not answered in time",
            Failure::Gone => "the device's connection ended before it has answered",
            Failure::BadAnswer => "the device's answer is not understood, or too large",
        }
    }
}

/// What came of a request.
pub type Outcome = Result<Box<Response>, Failure>;
