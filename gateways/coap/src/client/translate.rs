//! Requests and answers as messages.

use gateway::request;
use gateway::request::{Failure, Outcome, Request};

use crate::frame::{Code, Kind, Message};
use crate::options::{
    ACCEPT, BLOCK1, BLOCK2, CONTENT_FORMAT, ETAG, LOCATION_PATH, LOCATION_QUERY, MAX_AGE, SIZE2, URI_PATH,
    URI_QUERY,
};

/// The request as a message without id, token and payload; None if it cannot be one.
pub(super) fn encode(request: &Request) -> Option<Message> {
    // 0.01 to 0.07, in the order of the methods.
    let code = Code(request.method as u8 + 1);
    let mut message = Message { code, ..Message::empty(Kind::Con, 0) };
    let path = request.path.strip_prefix('/').unwrap_or(&request.path);
    if !path.is_empty() {
        for level in path.split('/') {
            // These would be steps in a tree, which options have none of (5.10.1).
            if level.len() > 255 || matches!(level, "." | "..") {
                return None;
            }
            message.add(URI_PATH, level.as_bytes());
        }
    }
    for query in &request.query {
        if query.len() > 255 {
            return None;
        }
        message.add(URI_QUERY, query.as_bytes());
    }
    for (number, value) in [(CONTENT_FORMAT, request.format), (ACCEPT, request.accept)] {
        if let Some(value) = value {
            message.add_uint(number, value.into());
        }
    }
    Some(message)
}

/// What the device said.
pub(super) fn decode(answer: &Message, body: Vec<u8>) -> Outcome {
    let mut response = request::Response {
        code: answer.code.to_string().into(),
        is_success: answer.code.class() == 2,
        format: answer.uint(CONTENT_FORMAT).and_then(|f| u16::try_from(f).ok()),
        options: Vec::new(),
        payload: body.into(),
    };
    for (number, value) in &answer.options {
        let name = match *number {
            // How the body came is nobody's business.
            CONTENT_FORMAT | BLOCK1 | BLOCK2 => continue,
            ETAG => "ETag",
            LOCATION_PATH => "Location-Path",
            LOCATION_QUERY => "Location-Query",
            MAX_AGE => "Max-Age",
            SIZE2 => "Size2",
            // A critical option that is not known makes the answer one that cannot be understood (5.4.1).
            number if number & 1 == 1 => return Err(Failure::BadAnswer),
            _ => "",
        };
        let name = if name.is_empty() { format!("option {number}").into() } else { name.into() };
        let text = match *number {
            LOCATION_PATH | LOCATION_QUERY => String::from_utf8_lossy(value).into_owned(),
            MAX_AGE | SIZE2 if value.len() <= 4 => {
                value.iter().fold(0, |n, b| n << 8 | u32::from(*b)).to_string()
            }
            _ => value.iter().map(|b| format!("{b:02x}")).collect(),
        };
        response.options.push((name, text.into()));
    }
    Ok(Box::new(response))
}
