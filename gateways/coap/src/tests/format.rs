//! Content-Formats of observations.

use super::*;

/// A delivery with a content type.
fn deliver_as(b: &mut Bench, content_type: &str, payload: &[u8]) -> Vec<Message> {
    let properties = gateway::Properties { content_type: Some(content_type.into()), ..Default::default() };
    let message = Published::new(b.now, "a", payload).with_properties(properties);
    let d = Delivery {
        id: None,
        message: &message,
        topic: "a",
        qos: Qos::AtMostOnce,
        retain: false,
        duplicate: false,
        subscriptions: &[b.identifier],
    };
    b.machine.deliver(b.now, b.peer, &Deliver::Message(d), &mut b.out);
    b.run()
}

#[test]
fn an_observation_ends_when_a_value_is_of_another_format() {
    // RFC 7641, 4.2; TD_COAP_OBS_08.
    let mut b = bench();
    b.send(&observe(1, &["ps", "a"]));
    assert_eq!(deliver_as(&mut b, "text/plain", b"1")[0].uint(CONTENT_FORMAT), Some(0));
    assert_eq!(b.deliver_to("a", Qos::AtMostOnce, b"2")[0].code, Code::CONTENT, "one that says none fits");
    let sent = deliver_as(&mut b, "application/json", b"{}");
    assert_eq!(
        (sent[0].code, sent[0].token, sent[0].kind),
        (Code::NOT_ACCEPTABLE, Token::new(&[1]), Kind::Con)
    );
    assert!(sent[0].uint(OBSERVE).is_none() && b.unsubscribed == 1);
    assert!(deliver_as(&mut b, "text/plain", b"3").is_empty());
}

#[test]
fn what_a_client_accepts_holds_for_notifications() {
    let mut b = bench();
    let mut look = observe(1, &["ps", "a"]);
    look.add_uint(crate::options::ACCEPT, 50);
    b.send(&look);
    assert_eq!(deliver_as(&mut b, "text/plain", b"1")[0].code, Code::NOT_ACCEPTABLE);
    assert_eq!(b.unsubscribed, 1);
}
