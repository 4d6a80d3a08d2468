use super::*;

fn datagrams(config: Config) -> Bench {
    let mut b = bench_with(config);
    b.transport = Transport::Udp;
    b.open(A);
    b.open(B);
    b
}

#[test]
fn peers_of_a_socket_are_devices_of_their_own() {
    let mut b = datagrams(config());
    assert_eq!(b.hand(A, b"L d1\n") + &b.hand(B, b"L d2\n"), "+2:+");
    assert_eq!(b.hand(B, b"D t 2\n") + &b.hand(A, b"D t 1\nH\n"), "2:++h");
    assert_eq!(b.taken(), ["d2/up/t 2", "d1/up/t 1"]);
}

#[test]
fn what_a_codec_leaves_of_a_datagram_is_dropped() {
    let mut b = datagrams(config());
    b.hand(A, b"L d1\n");
    assert_eq!(b.hand(A, b"H\nD t"), "h");
    assert_eq!(b.hand(A, b"H\n!\nH\n"), "h", "nor is it read on behind what ends a stream");
    assert_eq!(b.hand(A, b"X\nH\n"), "h");
    assert_eq!(b.drops, [Drop::CodecFrame; 3]);
    assert!(b.closed.is_empty());
}

#[test]
fn datagrams_wait_for_the_session_up_to_a_bound() {
    let mut b = datagrams(config());
    b.holds = true;
    b.hand(A, b"L d1\n");
    for _ in 0..70 {
        b.hand(A, b"D t 1\n");
    }
    assert_eq!(b.drops, [Drop::ExchangesFull; 6]);
    assert_eq!(b.release().len(), 65);
}

#[test]
fn who_never_says_who_it_is_is_forgotten() {
    let mut b = datagrams(config());
    b.hand(A, b"L d1\n");
    b.wait(30_000);
    assert_eq!(b.closed, [Close::Idle]);
    b.wait(570_000);
    assert_eq!(b.closed, [Close::Idle, Close::KeepAlive]);
}

#[test]
fn nobody_takes_no_place() {
    let mut b = datagrams(config());
    assert_eq!(b.hand(A, b"D t 1\n"), "-");
    b.hand(B, &[0; 100]);
    assert_eq!((b.closed.len(), b.machine.peers.len()), (2, 0));
    let mut b = datagrams(Config { codec: "stream".into(), ..config() });
    b.hand(A, b"who");
    assert!(b.closed.is_empty(), "its script may know who it is");
    b.called(&[Ok(r#"{"consumed":0}"#)]);
    assert_eq!(b.closed, [Close::Idle]);
    let mut b = datagrams(config());
    b.hand(A, b"L d1\n");
    b.hand(A, b"Q\n");
    assert_eq!(b.closed, [Close::Idle], "and who goes is nobody");
}

#[test]
fn no_two_devices_are_issued_the_same() {
    let config = config();
    let mut b = datagrams(config);
    b.hand(A, b"L d1\n");
    b.holds = true;
    // The first one's answer waits for what it has said before.
    b.hand(A, b"D t 1\nI d1\n");
    b.hand(B, b"I d2\n");
    let sent = b.release();
    let tokens: Vec<&str> = sent.split('+').filter(|word| word.len() >= 16).map(|word| &word[..16]).collect();
    assert_eq!(tokens.len(), 2, "{sent}");
    assert_ne!(tokens[0], tokens[1]);
}
