use super::*;

#[test]
fn a_command_that_needs_no_answer_is_over_when_it_is_sent() {
    let mut b = bench();
    b.device("d1");
    assert_eq!(b.command("say", "{}", 1), "say;");
    assert_eq!((b.taken().len(), &b.settled[..]), (0, &[1][..]));
    assert_eq!(b.command("say", r#"{"id": "c-7"}"#, 2), "say;");
    assert_eq!(b.taken(), [r#"d1/up/reply {"id":"c-7","kind":"say","ok":true}"#]);
}

#[test]
fn a_command_waits_for_the_answer_to_the_login() {
    let mut b = bench();
    b.open(A);
    b.holds = true;
    assert_eq!(b.say("W d1 x\n"), "");
    let (peer, ticket, answer) = b.held.pop_front().unwrap();
    b.reply(peer, ticket, answer);
    assert_eq!(b.perform(), "");
    // The session is there, and what the login said beside is not published yet.
    assert_eq!(b.command("say", "{}", 1), "");
    assert_eq!(b.release(), "+say;");
    assert_eq!(b.settled, [1]);
}

#[test]
fn a_command_that_comes_while_the_token_is_being_kept_waits_for_the_answer_to_the_registration() {
    let mut b = bench();
    b.open(A);
    b.holds = true;
    b.say("I d1\n");
    let (peer, ticket, answer) = b.held.pop_front().unwrap();
    b.reply(peer, ticket, answer);
    b.perform();
    // What the session has kept for the device comes at once, and not again before the next connection.
    assert_eq!(b.command("say", "{}", 1), "");
    assert_eq!(b.release(), "+0707070707070707say;");
    assert_eq!((&b.settled[..], b.drops.len()), (&[1][..], 0));
}

#[test]
fn what_is_for_the_device_before_is_not_said_while_another_one_comes_in() {
    let mut b = bench();
    b.device("d1");
    b.holds = true;
    assert_eq!(b.say("L d2\n"), "");
    b.sessions.insert(A, "d1".to_owned());
    assert_eq!(b.command("say", "{}", 1), "");
    b.sessions.insert(A, "d2".to_owned());
    assert_eq!(b.release(), "+");
    assert_eq!(b.settled, [0; 0]);
}

#[test]
fn a_command_is_not_said_when_it_has_expired() {
    let mut b = bench();
    b.device("d1");
    b.command("ask", r#"{"id": 5}"#, 1);
    b.command_for("ask", r#"{"id": 5}"#, 2, Some(Duration::from_secs(40)));
    b.command_for("ask", r#"{"id": 6}"#, 3, Some(Duration::from_secs(40)));
    assert_eq!(b.wait(30_000), "ask 5;ask 6;");
    assert_eq!(b.wait(30_000), "ask 5;", "the other one is not said again");
    let over = |id: u8, why| format!(r#"d1/up/reply {{"id":{id},"kind":"ask","ok":false,"error":"{why}"}}"#);
    assert_eq!(b.taken(), [over(6, "timeout")]);
    assert_eq!(b.say("R 5\n"), "+", "nor the one that has waited for its turn");
    assert_eq!(b.taken(), [r#"d1/up/reply {"id":5,"kind":"ask","ok":true}"#.to_owned(), over(5, "expired")]);
    assert_eq!(b.settled, [3, 1, 2]);
    assert_eq!(b.wait(300_000), "");
}

#[test]
fn the_answer_of_a_device_is_the_outcome_of_its_command() {
    let mut b = bench();
    b.device("d1");
    assert_eq!(b.command("ask", r#"{"id": 5}"#, 1), "ask 5;");
    assert_eq!(b.settled, [0; 0]);
    assert_eq!(b.say("R 5 {\"a\":1}\n"), "+");
    assert_eq!(b.taken(), [r#"d1/up/reply {"id":5,"kind":"ask","ok":true,"data":{"a":1}}"#]);
    assert_eq!(b.settled, [1]);
    assert_eq!(b.wait(300_000), "");
}

#[test]
fn a_command_is_sent_again_and_given_up() {
    let mut b = bench();
    b.device("d1");
    b.command("ask", r#"{"id": 5}"#, 1);
    assert_eq!(b.wait(30_000), "ask 5;");
    assert_eq!(b.wait(30_000), "ask 5;");
    assert_eq!(b.taken(), [""; 0]);
    assert_eq!(b.wait(30_000), "");
    assert_eq!(b.taken(), [r#"d1/up/reply {"id":5,"kind":"ask","ok":false,"error":"timeout"}"#]);
    assert_eq!((&b.settled[..], &b.drops[..]), (&[1][..], &[Drop::CommandTimeout][..]));
    assert_eq!(b.say("R 5 late\n"), "+");
    assert_eq!(b.taken(), [r#"d1/up/reply {"ok":true,"data":"late"}"#]);
    assert_eq!(b.drops, [Drop::CommandTimeout, Drop::Unexpected]);
}

#[test]
fn a_second_command_of_the_same_key_waits_for_the_first() {
    let mut b = bench();
    b.device("d1");
    assert_eq!(b.command("ask", "5", 1), "ask 5;");
    assert_eq!(b.command("ask", "6", 2), "ask 6;");
    assert_eq!(b.command("ask", "5", 3), "");
    assert_eq!(b.say("R 5\n"), "ask 5;+");
    assert_eq!(b.say("R 6\n"), "+");
    assert_eq!(b.say("R 5\n"), "+");
    assert_eq!(b.settled, [1, 2, 3]);
}

#[test]
fn a_command_that_cannot_be_said_fails() {
    let mut b = bench();
    b.device("d1");
    assert_eq!(b.command("dance", r#"{"id":1}"#, 1), "");
    let outcome = r#"d1/up/reply {"id":1,"kind":"dance","ok":false,"error":"it cannot be said"}"#;
    assert_eq!(b.taken(), [outcome]);
    assert_eq!((&b.settled[..], &b.drops[..]), (&[1][..], &[Drop::CommandFailed][..]));
}

#[test]
fn a_command_whose_connection_ends_is_not_over() {
    let mut b = bench();
    b.device("d1");
    b.command("ask", "5", 1);
    b.close(A, Close::PeerClosed);
    assert_eq!((b.settled.len(), b.taken().len()), (0, 0));
}

#[test]
fn commands_without_acknowledgement_have_a_bound() {
    let mut b = bench();
    b.device("d1");
    for n in 0..20 {
        b.command("ask", &n.to_string(), 0);
    }
    assert_eq!(b.drops, [Drop::SlowPeer; 4]);
}

#[test]
fn what_is_no_command_of_this_device_is_settled() {
    let mut b = bench();
    b.device("d1");
    b.sessions.insert(A, "other".to_owned());
    assert_eq!(b.command("say", "", 9), "");
    assert_eq!((&b.settled[..], &b.drops[..]), (&[9][..], &[Drop::Unexpected][..]));
}

#[test]
fn the_correlation_data_of_a_command_comes_with_its_outcome() {
    let mut b = bench();
    b.device("d1");
    let properties =
        gateway::Properties { correlation_data: Some(Bytes::from_static(b"c1")), ..Default::default() };
    let message = Message::new(b.now, "tcp/d1/dn/say", b"").with_properties(properties);
    let delivery = Delivery {
        id: None,
        message: &message,
        topic: "d1/dn/say",
        qos: Qos::AtMostOnce,
        retain: false,
        duplicate: false,
        subscriptions: &[],
    };
    b.machine.deliver(b.now, A, &Deliver::Message(delivery), &mut b.out);
    let of = |action: &Action| match action {
        Action::Publish(_, p) => p.message.properties().and_then(|p| p.correlation_data.clone()),
        _ => None,
    };
    assert_eq!(b.out.actions.iter().find_map(of).as_deref(), Some(&b"c1"[..]));
}
