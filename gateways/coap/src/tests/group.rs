//! Requests that were sent to a group of hosts (RFC 7252, 8).

use super::*;

impl Bench {
    fn group(&mut self, message: &Message) -> Vec<Message> {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        self.machine.group(self.now, self.peer, &mut BytesMut::from(&bytes[..]), &mut self.out);
        self.run()
    }
}

#[test]
fn discovery_by_multicast_is_answered_once_and_within_the_leisure() {
    let mut b = bench();
    let look = request(Kind::Non, Code::GET, 1, &[".well-known", "core"], &[]);
    assert!(b.group(&look).is_empty() && b.group(&look).is_empty());
    let sent = b.pass(5);
    assert_eq!(
        (sent.len(), sent[0].kind, sent[0].code, sent[0].token),
        (1, Kind::Non, Code::CONTENT, look.token)
    );
    assert!(b.pass(5).is_empty());
}

#[test]
fn errors_acknowledgements_and_resets_are_never_the_answer_to_a_group() {
    let mut b = bench();
    let mut sent = b.group(&request(Kind::Con, Code::GET, 1, &[".well-known", "core"], &[]));
    sent.extend(b.group(&request(Kind::Non, Code::GET, 2, &["nothing"], &[])));
    sent.extend(b.group(&request(Kind::Non, Code::GET, 3, &["ps", "none"], &[])));
    sent.extend(b.group(&Message::empty(Kind::Con, 4)));
    sent.extend(b.group(&request(Kind::Non, Code::PUT, 5, &["ps", "a"], &[])));
    sent.extend(b.pass(6));
    assert!(sent.is_empty(), "{sent:?}");
    assert_eq!(b.published.len(), 1);
}

#[test]
fn a_group_is_not_told_that_there_is_no_room() {
    let config = Config { max_exchanges: 1, ..Config::default() };
    let mut b = bench_of(&facts("127.0.0.1:9", None), config);
    b.send(&request(Kind::Con, Code::PUT, 1, &["ps", "a"], &[]));
    let look = request(Kind::Non, Code::GET, 2, &[".well-known", "core"], &[]);
    assert!(b.group(&look).is_empty());
    assert!(b.pass(300).is_empty());
    // Nor is another request with its message id taken for it.
    let sent = b.send(&request(Kind::Con, Code::PUT, 2, &["ps", "a"], &[]));
    assert_eq!(sent[0].code, Code::CHANGED);
}
