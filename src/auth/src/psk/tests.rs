//! The file, its tables and what is offered.

use super::*;

fn credential(identity: &str, client_id: &str) -> Credential {
    let key = Key::new(b"0123456789abcdef");
    Credential { identity: identity.into(), client_id: client_id.into(), user: None, key, older: None }
}

fn keys(text: &str) -> Keys {
    let (keys, mistakes) = Keys::decode("psk", text);
    assert_eq!(mistakes, []);
    keys
}

const SECRET: [u8; 32] = [7; 32];

#[test]
fn a_credential_survives_its_line() {
    let older = Some((Key::new(&[0xff; 64]), Some(1_764_547_200_000)));
    for c in [
        credential("urn:imei:490154203237518", "meter-17"),
        Credential { user: Some("meters".into()), ..credential("# a\\b", "-") },
        Credential { user: Some("-".into()), older, ..credential("ö \u{a0}\u{2028}\0", "ü ü") },
        Credential { older: Some((Key::new(&[1]), None)), ..credential("a", "b") },
    ] {
        assert_eq!(Credential::decode(&c.encode()).unwrap(), c);
    }
    let line = Credential::decode("gate\\x207 gate-7 - 00aa 5d01 2025-12-01T00:00:00Z").unwrap();
    assert_eq!((line.identity.as_str(), line.user), ("gate 7", None));
    assert_eq!(line.older.unwrap(), (Key::new(&[0x5d, 1]), Some(1_764_547_200_000)));
}

#[test]
fn every_mistake_is_reported_with_its_line_and_without_the_key() {
    let text = format!(
        "# head\n\na\nb c\nd e -\nf g - 0011x2\nh i - {long}\nj k - 00 11\nl m - 00 11 soon\nn o - 00 11 - x\n\
         p q - 00\np r - 00\ns q - 00\nt\\xff u - 00\nv\\x u - 00\nw x\\x0a - 00\ny z a:b 00\n{id} l - 00\n",
        long = "00".repeat(65),
        id = "i".repeat(256),
    );
    let (keys, mistakes) = Keys::decode("psk", &text);
    let lines: Vec<u32> = mistakes.iter().map(|m| m.place.line).collect();
    assert_eq!(lines, [3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15, 16, 17, 18]);
    assert_eq!(keys.len(), 1);
    assert!(mistakes.iter().all(|m| !m.to_string().contains("0011x2") && !m.to_string().contains("0000")));
    assert!(mistakes[9].to_string().contains("identity `p`"), "{}", mistakes[9]);
}

#[test]
fn both_keys_are_offered_while_the_older_one_is_valid() {
    let keys = keys("a c - 01 02 1970-01-01T00:00:10Z\nb d - 03 04 -\n");
    let offer = |at, identity: &[u8]| keys.offer(at, &SECRET, identity);
    assert_eq!(offer(9_999, b"a").other, Some(Key::new(&[2])));
    assert_eq!(offer(10_000, b"a").other, None);
    assert_eq!(offer(10_000, b"a").key, Key::new(&[1]));
    assert_eq!(offer(u64::MAX - 1, b"b").other, Some(Key::new(&[4])));
}

#[test]
fn an_unknown_identity_is_offered_a_key_of_its_own_that_is_always_the_same() {
    let keys = keys("a c - 000102030405060708090a0b0c0d0e0f1011121314151617\n");
    let (one, two) = (keys.offer(0, &SECRET, b"x"), keys.offer(0, &SECRET, b"y"));
    assert!(!one.is_known && one.other.is_none());
    assert_eq!((one.key.len(), two.key.len()), (24, 24));
    assert_ne!(one.key, two.key);
    assert_eq!(one.key, keys.offer(5, &SECRET, b"x").key);
    assert_ne!(one.key, keys.offer(0, &[8; 32], b"x").key);
    // Bytes that are no text, and none at all.
    assert!(!keys.offer(0, &SECRET, b"\xff\0").is_known && !keys.offer(0, &SECRET, b"").is_known);
}

#[test]
fn keys_are_not_shown() {
    let shown = format!("{:?} {:?}", credential("a", "b"), keys("a c - 30313233\n").offer(0, &SECRET, b"a"));
    assert!(shown.contains("Key(16 bytes)") && shown.contains("Key(4 bytes)"));
    assert!(!shown.contains("3031") && !shown.contains("48, 49") && !shown.contains("0123"));
}

#[test]
fn a_hundred_thousand_are_found_in_a_hundred_bytes_each() {
    let line = |i: u32| format!("urn:imei:{:015} meter-{i} - {:032x}\n", u64::from(i) * 7919, i);
    let text: String = (0..100_000).map(line).collect();
    let keys = keys(&text);
    assert_eq!(keys.len(), 100_000);
    for i in (0..100_000u32).step_by(997) {
        let entry = keys.find(format!("urn:imei:{:015}", u64::from(i) * 7919).as_bytes()).unwrap();
        assert_eq!(entry.client_id, format!("meter-{i}"));
        assert_eq!(entry.key, u128::from(i).to_be_bytes());
    }
    assert!(keys.find(b"urn:imei:000000000000001").is_none());
    let held = keys.bytes.capacity() + keys.places.allocation_size();
    assert!(held < 100 * keys.len(), "{held}");
}

#[test]
fn which_key_is_tried_first_is_bounded_and_turns_back() {
    let tries = Tries::default();
    let at: std::net::IpAddr = "192.0.2.1".parse().unwrap();
    tries.turn(b"a", at);
    assert!(tries.is_turned(b"a", at) && !tries.is_turned(b"b", at));
    assert!(!tries.is_turned(b"a", "192.0.2.2".parse().unwrap()), "a stranger has turned it");
    tries.turn(b"a", at);
    assert!(!tries.is_turned(b"a", at));
    tries.turn(b"a", at);
    (0..10_000u32).for_each(|i| tries.turn(&i.to_be_bytes(), at));
    assert!(!tries.is_turned(b"a", at) && tries.is_turned(&9_999u32.to_be_bytes(), at));
}

#[test]
fn an_edited_file_keeps_its_comments_and_their_order() {
    let folder = std::env::temp_dir().join(format!("tidegate-psk-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("psk");
    std::fs::write(&path, "# first floor\na dev-a - 01\n\n# second floor\nb dev-b - 02\n").unwrap();
    let (mut file, mistakes) = File::read(&path).unwrap();
    assert_eq!(mistakes, []);
    file.add(credential("c d", "dev-c")).unwrap();
    assert!(file.add(credential("a", "dev-x")).unwrap_err().contains("exists"));
    assert!(file.add(credential("x", "dev-b")).unwrap_err().contains("identity `b`"));
    assert!(file.add(credential("", "dev-x")).is_err());
    file.rotate("b", Key::new(&[3]), Some(10_000)).unwrap();
    assert!(file.rotate("b", Key::new(&[3]), None).unwrap_err().contains("already"));
    file.remove("a").unwrap();
    assert!(file.remove("a").unwrap_err().contains("no identity `a`"));
    file.write(&path).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        text,
        "# first floor\n\n# second floor\nb dev-b - 03 02 1970-01-01T00:00:10Z\n\
         c\\x20d dev-c - 30313233343536373839616263646566\n"
    );
    let names: Vec<String> = file.credentials().map(|c| c.identity).collect();
    assert_eq!(names, ["b", "c d"]);
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::remove_dir_all(&folder).unwrap();
}
