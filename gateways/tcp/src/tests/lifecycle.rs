use super::*;

#[test]
fn a_device_logs_in_and_publishes() {
    let mut b = bench();
    b.open(A);
    assert_eq!(b.say("L d1\n"), "+");
    assert_eq!(b.subscribed, ["d1/dn/#"]);
    assert_eq!(b.say("D temp 21\nD a/b 3\nH\n"), "++h");
    assert_eq!(b.taken(), ["d1/up/temp 21", "d1/up/a/b 3"]);
}

#[test]
fn bytes_that_come_one_by_one_mean_the_same() {
    let mut b = bench();
    b.open(A);
    let mut sent = String::new();
    for byte in b"L d1\nM 1 2\nD temp 21\nQ\n" {
        sent += &b.hand(A, &[*byte]);
    }
    assert_eq!(sent, "++++");
    assert_eq!(b.taken(), ["d1/up/many 1", "d1/up/many 2", "d1/up/temp 21"]);
}

#[test]
fn what_is_said_before_the_login_is_refused_and_after_a_hundred_times_closed() {
    let mut b = bench();
    b.open(A);
    assert_eq!(b.say("D temp 21\n"), "-");
    assert_eq!(b.drops, [Drop::NoLogin]);
    let sent = b.say(&"D temp 21\n".repeat(200));
    assert_eq!((sent.len() < 100, &b.closed[..]), (true, &[Close::Malformed][..]));
    assert_eq!(b.taken(), [""; 0]);
}

#[test]
fn a_refused_login_is_told_and_closed() {
    let mut b = bench();
    b.open(A);
    b.refusal = Some(Refusal::BadCredentials);
    assert_eq!(b.say("L d1 wrong\nD temp 21\n"), "-");
    assert_eq!((b.taken().len(), &b.closed[..]), (0, &[Close::BadCredentials][..]));
    let connect = &b.connects[0];
    assert_eq!((connect.username.as_deref(), connect.password.as_deref()), (Some("d1"), Some(&b"wrong"[..])));
}

#[test]
fn a_login_that_may_work_later_is_not_refused_but_closed() {
    let mut b = bench();
    b.open(A);
    b.refusal = Some(Refusal::ServerBusy);
    assert_eq!(b.say("L d1\n"), "");
    assert_eq!(b.closed, [Close::QuotaExceeded]);
}

#[test]
fn names_that_are_no_topic_level_do_not_come_in() {
    for name in ["a/b", "+", "#", "$SYS"] {
        let mut b = bench();
        b.open(A);
        assert_eq!(b.say(&format!("L {name}\n")), "-");
        assert_eq!((b.connects.len(), b.closed), (0, vec![Close::ClientId]));
    }
}

#[test]
fn the_same_login_again_is_answered_and_keeps_the_session() {
    let mut b = bench();
    b.device("d1");
    assert_eq!(b.say("L d1\n"), "+");
    assert_eq!(b.connects.len(), 1);
    // With a password it has to be proven.
    assert_eq!(b.say("L d1 secret\n"), "+");
    assert_eq!(b.connects.len(), 2);
}

#[test]
fn what_was_under_way_comes_again_with_a_session_that_is_proven_again() {
    let mut b = bench();
    b.device("d1");
    assert_eq!(b.command("ask", "5", 1), "ask 5;");
    assert_eq!(
        b.say(
            "L d1 secret
"
        ),
        "+"
    );
    assert_eq!(b.command("ask", "5", 1), "ask 5;", "as the router hands it over again");
    assert_eq!(
        (
            b.say(
                "R 5
"
            ),
            &b.settled[..]
        ),
        ("+".to_owned(), &[1][..])
    );
}

#[test]
fn another_device_in_the_same_connection_has_a_session_of_its_own() {
    let mut b = bench();
    b.device("d1");
    b.holds = true;
    assert_eq!(b.say("D t 1\nL d2\nD t 2\n"), "", "what d1 has said is not answered yet");
    assert_eq!(b.connects.len(), 1, "its session goes on until then");
    assert_eq!(b.release(), "+++");
    assert_eq!(b.taken(), ["d1/up/t 1", "d2/up/t 2"]);
    assert_eq!(b.subscribed, ["d1/dn/#", "d2/dn/#"]);
}

#[test]
fn an_issued_token_is_kept_before_the_device_has_it_and_lets_it_in_later() {
    let mut b = bench();
    b.open(A);
    b.holds = true;
    assert_eq!(b.say("I d1\n"), "");
    let (peer, ticket, answer) = b.held.pop_front().unwrap();
    b.reply(peer, ticket, answer);
    assert_eq!(b.perform(), "", "it is in, and its token is not kept yet");
    assert_eq!(b.release(), "+0707070707070707");
    assert_eq!(b.say("T d1 0707070707070707\n"), "+");
    assert_eq!(b.connects.len(), 1, "it has just been given it");
    assert!(!b.facts["d1"].starts_with(b"07"), "nobody who reads the store can show it");
    b.open(B);
    assert_eq!(b.hand(B, b"T d1 0707070707070707\n"), "2:+");
    assert_eq!(b.hand(B, b"T d1 0000\n"), "2:-");
    assert_eq!(b.closed, [Close::BadCredentials]);
}

#[test]
fn a_value_is_answered_when_it_is_published_and_not_before() {
    let mut b = bench();
    b.device("d1");
    b.holds = true;
    assert_eq!(b.say("D t 1\nM 2 3\nH\n"), "", "a heartbeat waits for its turn");
    assert_eq!(b.taken().len(), 3);
    let (peer, ticket, answer) = b.held.pop_front().unwrap();
    b.reply(peer, ticket, answer);
    assert_eq!(b.perform(), "+");
    let (peer, ticket, answer) = b.held.pop_front().unwrap();
    b.reply(peer, ticket, answer);
    assert_eq!(b.perform(), "", "half of a frame");
    assert_eq!(b.release(), "+h");
}

#[test]
fn a_frame_of_which_one_value_is_refused_is_refused() {
    let mut b = bench();
    b.device("d1");
    b.refused_topic = Some("d1/up/secret");
    assert_eq!(b.say("D secret 1\nD t 1\n"), "-+");
    b.refused_topic = Some("d1/up/many");
    assert_eq!(b.say("M 1 2\n"), "-");
    assert_eq!(b.taken(), ["d1/up/t 1"]);
}

#[test]
fn nobody_is_read_further_while_too_many_frames_wait() {
    let mut b = bench();
    b.device("d1");
    b.holds = true;
    b.say(&"D t 1\n".repeat(1000));
    assert_eq!(b.taken().len(), 256);
    assert!(b.rest[&A].1, "paused");
    assert_eq!(b.release().len(), 1000);
    assert_eq!(b.taken().len(), 744);
}

#[test]
fn garbage_costs_a_frame_and_a_thousand_in_a_row_the_connection() {
    let mut b = bench();
    b.device("d1");
    assert_eq!(b.say("X\nD t 1\n\nH\n"), "+h");
    assert_eq!(b.drops, [Drop::CodecFrame; 2]);
    b.say(&"X\n".repeat(999));
    assert_eq!(b.say("D t 1\n"), "+", "one good frame, and they are counted anew");
    b.say(&"X\n".repeat(999));
    assert!(b.closed.is_empty());
    b.say("X\n");
    assert_eq!(b.closed, [Close::Malformed]);
}

#[test]
fn a_stream_that_cannot_be_read_any_more_is_closed() {
    let mut b = bench();
    b.device("d1");
    assert_eq!(b.say("D t 1\n!\nD t 2\n"), "+");
    assert_eq!(b.closed, [Close::Malformed]);
    let mut b = bench();
    b.device("d1");
    b.say(&"x".repeat(65));
    assert_eq!(b.closed, [Close::TooLarge]);
}

#[test]
fn who_is_silent_is_closed() {
    let mut b = bench();
    b.open(A);
    b.wait(29_999);
    assert!(b.closed.is_empty());
    b.wait(1);
    assert_eq!(b.closed, [Close::ConnectTimeout]);
    let mut b = bench();
    b.device("d1");
    b.wait(599_000);
    assert_eq!(b.say("H\n"), "h");
    b.wait(599_000);
    assert!(b.closed.is_empty());
    b.wait(1_000);
    assert_eq!(b.closed, [Close::KeepAlive]);
    assert_eq!(b.machine.next_timeout(), None);
}

#[test]
fn a_login_that_takes_long_is_not_timed_out() {
    let mut b = bench();
    b.open(A);
    b.holds = true;
    b.say("L d1\n");
    b.wait(60_000);
    assert!(b.closed.is_empty());
    assert_eq!(b.release(), "+");
    b.wait(599_000);
    assert!(b.closed.is_empty());
}

#[test]
fn who_has_said_goodbye_may_come_again() {
    let mut b = bench();
    b.device("d1");
    assert_eq!(b.say("Q\nD t 1\nL d2\nD t 2\n"), "+-++");
    assert_eq!(b.taken(), ["d2/up/t 2"]);
    b.say("Q\n");
    b.wait(30_000);
    assert_eq!(b.closed, [Close::ConnectTimeout]);
}

#[test]
fn the_listener_may_know_the_device_itself() {
    let with = |device: &str| bench_with(Config { device: Naming::parse(device).unwrap(), ..config() });
    let mut b = with("address");
    b.open(A);
    assert_eq!(b.subscribed, ["192.0.2.1/dn/#"], "before it has said anything");
    assert_eq!(b.say("D t 1\nL other\nD t 2\n"), "+++");
    assert_eq!(b.taken(), ["192.0.2.1/up/t 1", "192.0.2.1/up/t 2"]);
    let mut b = with("psk");
    b.client_id = Some("meter-7");
    b.open(A);
    assert_eq!(b.say("D t 1\nQ\nD t 2\n"), "+++");
    assert_eq!(b.taken(), ["meter-7/up/t 1", "meter-7/up/t 2"]);
    let mut b = with("certificate");
    b.open(A);
    assert_eq!(b.closed, [Close::NotAuthorised], "it has none");
}

#[test]
fn the_first_frame_may_be_the_name() {
    let mut b = bench_with(Config { device: Naming::FirstFrame, ..config() });
    b.open(A);
    assert_eq!(b.say("D x d7\nD t 1\n"), "++");
    assert_eq!(b.taken(), ["d7/up/t 1"]);
}

#[test]
fn a_field_of_each_value_may_be_the_name() {
    let mut b = bench_with(Config { device: Naming::parse("json:id").unwrap(), ..config() });
    b.open(A);
    assert_eq!(b.say("D t 1\n"), "-", "nobody knows who");
    assert_eq!(b.say("D t {\"id\":\"a\"}\nD t {\"id\":\"a\",\"v\":2}\nD t {\"id\":\"b\"}\nD t 1\n"), "++++");
    assert_eq!(
        b.taken(),
        ["a/up/t {\"id\":\"a\"}", "a/up/t {\"id\":\"a\",\"v\":2}", "b/up/t {\"id\":\"b\"}", "b/up/t 1"]
    );
    assert_eq!(b.connects.len(), 2);
}

#[test]
fn a_kind_that_is_no_topic_is_refused() {
    let mut b = bench();
    b.device("d1");
    assert_eq!(b.say("D a/+ 1\nD t 1\n"), "-+");
    assert_eq!(b.taken(), ["d1/up/t 1"]);
}

#[test]
fn credentials_of_the_listener_are_those_of_devices_without_a_password() {
    let mut config = config();
    config.credentials.username = Some("fleet".into());
    config.credentials.password = Some("%c-secret".into());
    let mut b = bench_with(config);
    b.device("d1");
    let connect = &b.connects[0];
    assert_eq!(connect.username.as_deref(), Some("fleet"));
    assert_eq!(connect.password.as_deref(), Some(&b"d1-secret"[..]));
}

#[test]
fn a_codec_that_is_missing_lets_nobody_in() {
    let mut b = bench_with(Config { codec: "nothing".into(), ..config() });
    b.open(A);
    assert_eq!(b.closed, [Close::NoCodec]);
}

#[test]
fn a_new_version_reads_what_the_old_one_has_left() {
    let mut b = bench();
    b.device("d1");
    assert_eq!(b.say("H\nD te"), "h");
    b.library.put("other", Found::Inline(Arc::new(Make("?"))));
    b.library.put("words", Found::Inline(Arc::new(Make("n"))));
    assert_eq!(b.say("mp 21\nH\n"), "+n");
    assert_eq!(b.taken(), ["d1/up/temp 21"]);
    assert_eq!((b.connects.len(), b.closed.len()), (1, 0));
}

#[test]
fn a_trace_shows_no_password() {
    let mut b = bench();
    b.out.is_traced = true;
    b.open(A);
    b.hand(A, b"L d1 secret\n");
    let mut lines = Vec::new();
    b.out.is_traced = true;
    b.machine.input(b.now, A, &mut BytesMut::from(&b"L d2 secret\n"[..]), &mut b.out).unwrap();
    for action in std::mem::take(&mut b.out.actions) {
        if let Action::Trace(_, _, line) = action {
            lines.push(line);
        }
    }
    assert!(lines.iter().any(|line| line.contains(r#"{"login":{"device":"d2"}}"#)), "{lines:?}");
    let is_shown = |line: &String| line.contains("secret") || line.contains(&hex::encode(b"secret"));
    assert!(!lines.iter().any(is_shown), "{lines:?}");
}
