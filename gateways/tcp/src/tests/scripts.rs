use super::*;

fn payloads() -> Bench {
    let config = Config { codec: "payloads".into(), device: Naming::AddressAndPort, port: 9, ..config() };
    let mut b = bench_with(config);
    b.transport = Transport::Udp;
    b.open(A);
    b
}

fn stream() -> Bench {
    let mut b = bench_with(Config { codec: "stream".into(), ..config() });
    b.open(A);
    b
}

const LOGIN: &str =
    r#"{"consumed":2,"frames":[{"up":[{"login":{"device":"d1"}}],"answer":"2b","refusal":"2d"}]}"#;

fn logged_in() -> Bench {
    let mut b = stream();
    b.say("L\n");
    assert_eq!(b.called(&[Ok(LOGIN)]), "+");
    b
}

#[test]
fn a_payload_becomes_data_and_what_it_is_normalised_to() {
    let mut b = payloads();
    b.hand(A, &[1, 2]);
    let calls = &b.calls[0].2;
    assert_eq!((calls.function, calls.port, &*calls.device), (Function::DecodeUplink, 9, "192.0.2.1:4711"));
    assert_eq!(calls.inputs, [&[1, 2][..]]);
    b.called(&[Ok(r#"{"data":{"t":21.5},"normalized":[{"air":1}],"warnings":["old"]}"#)]);
    assert_eq!(
        b.taken(),
        [r#"192.0.2.1:4711/up/data {"t":21.5}"#, r#"192.0.2.1:4711/up/normalized [{"air":1}]"#]
    );
}

#[test]
fn payloads_that_came_meanwhile_are_one_call() {
    let mut b = payloads();
    for n in 1..=4 {
        b.hand(A, &[n]);
    }
    assert_eq!(b.calls.len(), 1, "one call at a time");
    b.called(&[Ok(r#"{"data":1}"#)]);
    assert_eq!(b.calls[0].2.inputs, [&[2][..], &[3], &[4]]);
    let throws = Err(CallFailure::Program("ReferenceError: x".into()));
    b.called(&[throws, Ok(r#"{"data":3}"#), Err(CallFailure::Limit("100 ms".into()))]);
    assert_eq!(b.taken(), ["192.0.2.1:4711/up/data 1", "192.0.2.1:4711/up/data 3"]);
    assert_eq!(b.drops, [Drop::ScriptFailed, Drop::ScriptLimit]);
    assert!(b.closed.is_empty());
}

#[test]
fn a_busy_worker_is_asked_again_and_nothing_is_lost() {
    let mut b = payloads();
    b.hand(A, &[1]);
    b.hand(A, &[2]);
    b.called(&[Err(CallFailure::Busy)]);
    assert_eq!(b.calls.len(), 0);
    b.wait(100);
    assert_eq!(b.calls[0].2.inputs, [&[1][..], &[2]]);
    b.called(&[Ok(r#"{"data":1}"#), Err(CallFailure::Busy)]);
    b.wait(100);
    b.called(&[Ok(r#"{"data":2}"#)]);
    assert_eq!(b.taken().len(), 2);
    assert_eq!(b.drops, []);
}

#[test]
fn a_version_that_was_replaced_meanwhile_loses_nothing() {
    let mut b = payloads();
    b.hand(A, &[1]);
    b.library.put("payloads", Found::Script(2, Shape::Payload));
    b.called(&[Err(CallFailure::Unknown)]);
    assert_eq!(b.calls[0].2.program, gateway::ProgramId(2));
    b.called(&[Ok(r#"{"data":1}"#)]);
    assert_eq!((b.taken().len(), b.drops.len()), (1, 0));
    b.hand(A, &[2]);
    b.called(&[Err(CallFailure::Unknown)]);
    assert_eq!((b.calls.len(), &b.drops[..]), (0, &[Drop::ScriptFailed][..]), "it is the newest, and gone");
}

#[test]
fn a_stream_is_handed_over_until_nothing_is_taken_of_it() {
    let mut b = logged_in();
    b.say("D 1\nD");
    assert_eq!(b.calls[0].2.inputs, [&b"D 1\nD"[..]]);
    let one = r#"{"consumed":4,"frames":[{"up":[{"kind":"t","data":1}],"answer":"2b"}]}"#;
    assert_eq!(b.called(&[Ok(one)]), "+");
    assert_eq!(b.calls[0].2.inputs, [&b"D"[..]]);
    b.called(&[Ok(r#"{"consumed":0,"frames":[]}"#)]);
    assert_eq!(b.calls.len(), 0, "it waits for more");
    b.say(" 2\n");
    assert_eq!(b.calls[0].2.inputs, [&b"D 2\n"[..]]);
    b.called(&[Ok(&one.replace("\"data\":1", "\"data\":2"))]);
    assert_eq!(b.taken(), ["d1/up/t 1", "d1/up/t 2"]);
}

#[test]
fn nothing_is_read_while_a_stream_is_being_looked_at() {
    let mut b = logged_in();
    b.say("D 1");
    b.say(" and more");
    assert_eq!((b.calls.len(), &b.rest[&A].0[..]), (1, &b" and more"[..]));
    b.called(&[Ok(r#"{"consumed":0}"#)]);
    assert_eq!(b.calls[0].2.inputs, [&b"D 1 and more"[..]]);
}

#[test]
fn a_script_that_throws_costs_the_frame_and_not_those_around_it() {
    let mut b = logged_in();
    b.say("D 1\nX\nD 2\n");
    let frames =
        r#"{"consumed":4,"frames":[{"up":[{"kind":"t","data":1}]}],"error":{"at":4,"why":"bad","skip":2}}"#;
    b.called(&[Ok(frames)]);
    assert_eq!(b.calls[0].2.inputs, [&b"D 2\n"[..]]);
    b.called(&[Ok(r#"{"consumed":0,"frames":[],"error":{"at":0,"why":"bad"}}"#)]);
    assert_eq!(b.calls.len(), 0, "without a word of how much it is all");
    assert_eq!(b.drops, [Drop::ScriptFailed; 2]);
    assert_eq!(b.taken(), ["d1/up/t 1"]);
    b.say("again");
    b.called(&[Err(CallFailure::Limit("too long".into()))]);
    b.say("D 3\n");
    assert_eq!(b.calls[0].2.inputs, [&b"D 3\n"[..]]);
    b.called(&[Ok("nonsense")]);
    assert!(b.closed.is_empty());
}

#[test]
fn a_stream_that_is_never_taken_has_a_bound() {
    let mut b = logged_in();
    b.say(&"x".repeat(70_000));
    b.called(&[Ok(r#"{"consumed":0}"#)]);
    assert_eq!(b.closed, [Close::TooLarge]);
}

#[test]
fn a_new_version_of_a_script_gets_the_half_frame() {
    let mut b = logged_in();
    b.say("D ");
    b.called(&[Ok(r#"{"consumed":0}"#)]);
    b.library.put("stream", Found::Script(2, Shape::Stream));
    b.say("1\n");
    let calls = &b.calls[0].2;
    assert_eq!(
        (calls.program, &calls.inputs[..]),
        (gateway::ProgramId(2), &[Bytes::from_static(b"D 1\n")][..])
    );
}

#[test]
fn a_codec_that_runs_here_goes_on_where_a_script_was() {
    let mut b = logged_in();
    b.say("D t");
    b.called(&[Ok(r#"{"consumed":0}"#)]);
    b.command("say", "", 1);
    b.library.put("stream", Found::Inline(Arc::new(Make("h"))));
    assert_eq!(b.called(&[Err(CallFailure::Unknown)]), "say;");
    assert_eq!(b.say(" 1\nH"), "+");
    assert_eq!(b.say("\n"), "h");
    assert_eq!(b.taken(), ["d1/up/t 1"]);
    assert_eq!((&b.settled[..], b.drops.len()), (&[1][..], 0));
}

#[test]
fn a_stream_is_read_on_when_what_was_busy_is_not_called_again() {
    let mut b = logged_in();
    b.say("H\n");
    b.called(&[Err(CallFailure::Busy)]);
    b.say("D t 1");
    assert!(b.rest[&A].1, "nothing is read meanwhile");
    // A module is in the script's place before that is asked again: no answer will come.
    b.library.put("stream", Found::Inline(Arc::new(Make("h"))));
    assert_eq!(b.wait(100), "h");
    assert!(!b.rest[&A].1, "it is read on");
    assert_eq!(b.say("\n"), "+");
    assert_eq!(b.taken(), ["d1/up/t 1"]);
}

#[test]
fn a_script_says_commands_one_after_the_other() {
    let mut b = logged_in();
    b.command("ask", r#"{"id":5}"#, 1);
    b.command("say", "hello", 2);
    let calls = &b.calls[0].2;
    assert_eq!(
        (calls.function, &calls.inputs[0][..]),
        (Function::Encode, &br#"{"kind":"ask","value":{"id":5}}"#[..])
    );
    assert_eq!(b.called(&[Ok(r#"{"hex":"613b","key":5}"#)]), "a;");
    assert_eq!(&b.calls[0].2.inputs[0][..], br#"{"kind":"say","value":"hello"}"#);
    b.called(&[Err(CallFailure::Program("no".into()))]);
    assert_eq!(b.taken(), [r#"d1/up/reply {"kind":"say","ok":false,"error":"no"}"#]);
    b.say("R");
    b.called(&[Ok(r#"{"consumed":1,"frames":[{"up":[{"reply":{"key":5}}]}]}"#)]);
    assert_eq!(b.taken(), [r#"d1/up/reply {"id":5,"kind":"ask","ok":true}"#]);
    assert_eq!(b.settled, [2, 1]);
}

#[test]
fn what_a_script_gives_that_is_no_frame_is_counted() {
    let mut b = logged_in();
    b.say("D");
    b.called(&[Ok(r#"{"consumed":1,"frames":[{"up":[{"knid":1}]},{"up":[{"kind":"t","data":2}]}]}"#)]);
    assert_eq!(b.drops, [Drop::ScriptFailed]);
    assert_eq!(b.taken(), ["d1/up/t 2"]);
}
