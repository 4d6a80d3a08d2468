//! Attempts to come in, from credentials to what the client may do.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what is wrong by failing"
)]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use auth::ban::{BanOptions, By};
use auth::passwd::Users;
use auth::{Anonymous, Attempt, Auth, Exchange, Grant, ListenerRules, Options, Step, Verdict};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use gateway::{Certificate, Facts, Listener, Now, Qos, Refusal, Transport};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

const NOW: Now = Now::from_micros(1);

struct World {
    folder: PathBuf,
    options: Options,
    auth: Auth,
}

impl World {
    fn new(users: &[(&str, &str)], acl: &str) -> World {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("tidegate-auth-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let options = Options {
            passwords: Some(folder.join("passwd")),
            psk: Some(folder.join("psk")),
            acl: Some(folder.join("acl.conf")),
            bans: BanOptions { login_failures: 3, ..BanOptions::default() },
        };
        let mut file = Users::default();
        for (name, password) in users {
            file.set(name, password, &[3; 64], true).unwrap();
        }
        file.write(&folder.join("passwd")).unwrap();
        std::fs::write(folder.join("acl.conf"), acl).unwrap();
        let random = Arc::new(|buffer: &mut [u8]| {
            buffer.fill(9);
            true
        });
        let (auth, mistakes) = Auth::open(&options, random);
        assert_eq!(mistakes, []);
        World { folder, options, auth }
    }

    fn check(&self, who: &Who) -> Result<Grant, Refusal> {
        match self.auth.check(NOW, &who.attempt()) {
            Verdict::Allow(grant) => Ok(grant),
            Verdict::Deny(why) => Err(why),
            Verdict::Work(job) => job(),
        }
    }

    fn exchange(&self, who: &Who) -> Exchange {
        self.auth.exchange(NOW, "SCRAM-SHA-256", &who.attempt()).unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

struct Who {
    username: Option<&'static str>,
    password: Option<&'static str>,
    facts: Facts,
    rules: ListenerRules,
}

impl Who {
    fn from(address: &str) -> Who {
        let listener = Listener::new("t", "mqtt");
        let facts = Facts::new(Arc::new(listener), Transport::Tcp, address.parse().unwrap());
        Who { username: None, password: None, facts, rules: ListenerRules::default() }
    }

    fn near() -> Who {
        Who::from("127.0.0.1:5000")
    }

    fn far() -> Who {
        Who::from("192.0.2.1:5000")
    }

    /// A device behind DTLS that has proven this identity.
    fn device(identity: &str) -> Who {
        let mut who = Who::far();
        (who.facts.psk, who.facts.transport) = (Some(identity.into()), Transport::Dtls);
        who
    }

    fn with(mut self, username: &'static str, password: &'static str) -> Who {
        (self.username, self.password) = (Some(username), Some(password));
        self
    }

    fn certified(mut self, common_name: Option<&str>) -> Who {
        let common_name = common_name.map(Box::from);
        self.facts.certificate = Some(Arc::new(Certificate { common_name, fingerprint: [0; 32] }));
        self.rules.certificate_user = true;
        self
    }

    fn attempt(&self) -> Attempt<'_> {
        Attempt {
            client_id: "c1",
            username: self.username,
            password: self.password.map(str::as_bytes),
            facts: &self.facts,
            rules: &self.rules,
        }
    }
}

#[test]
fn without_users_only_direct_peers_from_this_machine_come_in() {
    let world = World::new(&[], "");
    let grant = world.check(&Who::near()).unwrap();
    assert!(grant.username().is_none() && grant.principal().is_none());
    assert!(grant.may_publish("a", Qos::ExactlyOnce, true) && !grant.may_subscribe("$SYS/#"));
    assert!(world.check(&Who::from("[::1]:1")).is_ok());
    assert!(world.check(&Who::from("[::ffff:127.0.0.1]:1")).is_ok());
    assert_eq!(world.check(&Who::far()).unwrap_err(), Refusal::NotAuthorised);
    let mut proxied = Who::near();
    proxied.facts.is_direct = false;
    assert_eq!(world.check(&proxied).unwrap_err(), Refusal::NotAuthorised);
}

#[test]
fn a_name_that_nobody_can_prove_is_not_believed() {
    let world = World::new(&[], "allow user alice all a/#\ndefault deny");
    let grant = world.check(&Who::near().with("alice", "x")).unwrap();
    assert!(grant.username().is_none() && !grant.may_publish("a/b", Qos::AtMostOnce, false));
}

#[test]
fn the_first_user_closes_the_door_to_anonymous_clients() {
    let world = World::new(&[("alice", "secret")], "");
    assert!(world.auth.has_users());
    assert_eq!(world.check(&Who::near()).unwrap_err(), Refusal::NotAuthorised);
    let grant = world.check(&Who::far().with("alice", "secret")).unwrap();
    assert_eq!((grant.username(), grant.principal().as_deref()), (Some("alice"), Some("alice")));
    for (name, password) in [("alice", "Secret"), ("bob", "secret"), ("", "")] {
        assert_eq!(world.check(&Who::near().with(name, password)).unwrap_err(), Refusal::BadCredentials);
    }
}

#[test]
fn an_unknown_user_is_work_like_a_wrong_password() {
    let world = World::new(&[("alice", "secret")], "");
    for name in ["alice", "nobody"] {
        assert!(
            matches!(world.auth.check(NOW, &Who::far().with(name, "x").attempt()), Verdict::Work(_)),
            "{name}"
        );
    }
}

#[test]
fn an_open_listener_takes_those_without_a_name_and_checks_those_with_one() {
    let world = World::new(&[("alice", "secret")], "");
    let mut who = Who::far();
    who.rules.anonymous = Anonymous::Always;
    assert!(world.check(&who).unwrap().username().is_none());
    assert_eq!(world.check(&who.with("alice", "x")).unwrap_err(), Refusal::BadCredentials);
}

#[test]
fn a_certificate_names_the_user_where_the_listener_says_so() {
    let world = World::new(&[("alice", "secret")], "allow user dev-7 all d/%u/#\ndefault deny");
    let grant = world.check(&Who::far().certified(Some("dev-7")).with("alice", "wrong")).unwrap();
    assert_eq!(grant.username(), Some("dev-7"));
    assert!(grant.may_publish("d/dev-7/x", Qos::AtMostOnce, false) && !grant.may_subscribe("d/+/x"));
    assert_eq!(world.check(&Who::far().certified(None)).unwrap_err(), Refusal::BadCredentials);
    let mut plain = Who::far().certified(Some("dev-7"));
    plain.rules.certificate_user = false;
    assert_eq!(world.check(&plain).unwrap_err(), Refusal::NotAuthorised);
}

#[test]
fn failed_logins_ban_the_address() {
    let world = World::new(&[("alice", "secret")], "");
    for _ in 0..3 {
        assert_eq!(world.check(&Who::far().with("alice", "x")).unwrap_err(), Refusal::BadCredentials);
    }
    assert_eq!(world.check(&Who::far().with("alice", "secret")).unwrap_err(), Refusal::Banned);
    assert!(world.check(&Who::from("192.0.2.2:1").with("alice", "secret")).is_ok());
    let later = NOW.after(std::time::Duration::from_secs(601));
    assert!(matches!(
        world.auth.check(later, &Who::far().with("alice", "secret").attempt()),
        Verdict::Work(_)
    ));
}

#[test]
fn a_reload_with_mistakes_changes_nothing() {
    let world = World::new(&[("alice", "secret")], "default deny");
    std::fs::write(world.folder.join("acl.conf"), "allow nonsense").unwrap();
    assert_eq!(world.auth.reload(&world.options).unwrap_err().len(), 1);
    let alice = || world.check(&Who::far().with("alice", "secret"));
    assert!(!alice().unwrap().may_publish("a", Qos::AtMostOnce, false));
    std::fs::write(world.folder.join("acl.conf"), "default allow").unwrap();
    assert!(world.auth.reload(&world.options).is_ok());
    assert!(alice().unwrap().may_publish("a", Qos::AtMostOnce, false));
    std::fs::write(world.folder.join("acl.conf"), "allow client c1 user alice all a/#\ndefault deny")
        .unwrap();
    let connected = alice().unwrap();
    assert!(world.auth.reload(&world.options).is_ok());
    let again = |client_id| world.auth.regrant(&connected, client_id, "192.0.2.1".parse().unwrap()).unwrap();
    assert!(connected.may_publish("b", Qos::AtMostOnce, false));
    assert!(!again("c1").may_publish("b", Qos::AtMostOnce, false));
    assert!(
        again("c1").may_publish("a/x", Qos::AtMostOnce, false) && again("c1").username() == Some("alice")
    );
    assert!(!again("c2").may_publish("a/x", Qos::AtMostOnce, false));
    std::fs::write(world.folder.join("acl.conf"), "").unwrap();
    std::fs::remove_file(world.folder.join("passwd")).unwrap();
    assert!(world.auth.reload(&world.options).is_ok());
    assert!(world.check(&Who::near()).is_ok());
}

#[test]
fn a_list_that_is_missing_is_a_mistake() {
    let options = Options { acl: Some("/nonexistent/acl.conf".into()), ..Options::default() };
    let (_, mistakes) = Auth::open(&options, Arc::new(|_| true));
    assert_eq!(mistakes.len(), 1);
    assert!(mistakes[0].to_string().starts_with("/nonexistent/acl.conf: acl: cannot be read"));
}

fn hmac(key: &[u8], data: &str) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(data.as_bytes());
    mac.finalize().into_bytes().into()
}

/// The client's side of RFC 5802, 3: its last message and the signature it expects.
fn answer(bare: &str, challenge: &str, password: &str) -> (String, String) {
    let mut fields = challenge.split(',');
    let (nonce, salt, rounds) = (fields.next().unwrap(), fields.next().unwrap(), fields.next().unwrap());
    let mut salted = [0; 32];
    let salt = BASE64.decode(&salt[2..]).unwrap();
    pbkdf2::pbkdf2::<Hmac<Sha256>>(password.as_bytes(), &salt, rounds[2..].parse().unwrap(), &mut salted)
        .unwrap();
    let client_key = hmac(&salted, "Client Key");
    let without_proof = format!("c=biws,{nonce}");
    let message = format!("{bare},{challenge},{without_proof}");
    let signature = hmac(&Sha256::digest(client_key), &message);
    let proof: Vec<u8> = client_key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
    let expected = hmac(&hmac(&salted, "Server Key"), &message);
    (format!("{without_proof},p={}", BASE64.encode(proof)), format!("v={}", BASE64.encode(expected)))
}

fn challenge(step: Step) -> String {
    let Step::Challenge(data) = step else { panic!("no challenge but {step:?}") };
    String::from_utf8(data.to_vec()).unwrap()
}

fn denied(step: Step) -> Refusal {
    let Step::Deny(why) = step else { panic!("not denied but {step:?}") };
    why
}

#[test]
fn scram_lets_in_who_knows_the_password() {
    let world = World::new(&[("alice", "secret")], "");
    let mut exchange = world.exchange(&Who::far());
    assert_eq!(challenge(exchange.step(b"")), "");
    let first = challenge(exchange.step(b"n,,n=alice,r=abc"));
    assert!(first.starts_with("r=abc") && first.len() > 40);
    let (last, expected) = answer("n=alice,r=abc", &first, "secret");
    let Step::Done(grant, data) = exchange.step(last.as_bytes()) else { panic!() };
    assert_eq!((grant.username(), &data[..]), (Some("alice"), expected.as_bytes()));
    assert_eq!(denied(exchange.step(last.as_bytes())), Refusal::BadCredentials);
}

#[test]
fn scram_refuses_at_the_proof_and_says_not_which_users_exist() {
    let world = World::new(&[("alice", "secret")], "");
    for name in ["alice", "nobody"] {
        let bare = format!("n={name},r=abc");
        let mut exchange = world.exchange(&Who::near());
        let first = challenge(exchange.step(format!("n,,{bare}").as_bytes()));
        let again = challenge(world.exchange(&Who::near()).step(format!("n,,{bare}").as_bytes()));
        assert_eq!(first, again, "the salt of {name} is always the same");
        assert!(first.contains(",i=10000"));
        let (last, _) = answer(&bare, &first, "wrong");
        assert_eq!(denied(exchange.step(last.as_bytes())), Refusal::BadCredentials);
    }
}

#[test]
fn scram_refuses_what_was_not_offered_and_what_is_malformed() {
    let world = World::new(&[("alice", "secret")], "");
    for bad in [
        &b"p=tls-unique,,n=alice,r=abc"[..],
        b"n,a=bob,n=alice,r=abc",
        b"n,,m=x,n=alice,r=abc",
        b"n,,n=alice",
        b"n,,n=alice,r=",
        b"n,,n=al=ice,r=abc",
        b"n,,n=alice,r=a\xffc",
        b"\0",
    ] {
        assert_eq!(denied(world.exchange(&Who::far()).step(bad)), Refusal::BadCredentials);
    }
    let refused = world.auth.exchange(NOW, "SCRAM-SHA-1", &Who::far().attempt()).unwrap_err();
    assert_eq!(refused, Refusal::BadMethod);
}

#[test]
fn scram_proves_the_name_that_was_claimed_and_no_other() {
    let world = World::new(&[("alice", "secret"), ("bob", "hush")], "");
    let mut exchange = world.exchange(&Who::far().with("bob", ""));
    assert_eq!(denied(exchange.step(b"n,,n=alice,r=abc")), Refusal::BadCredentials);
    let mut exchange = world.exchange(&Who::far().with("alice", ""));
    assert!(challenge(exchange.step(b"n,a=alice,n=alice,r=abc")).starts_with("r=abc"));
}

#[test]
fn scram_failures_count_towards_a_ban() {
    let world = World::new(&[("alice", "secret")], "");
    for _ in 0..3 {
        let mut exchange = world.exchange(&Who::far());
        exchange.step(b"n,,n=alice,r=abc");
        exchange.step(b"c=biws,r=abc,p=x");
    }
    let refused = world.auth.exchange(NOW, "SCRAM-SHA-256", &Who::far().attempt()).unwrap_err();
    assert_eq!(refused, Refusal::Banned);
}

#[test]
fn what_was_kept_with_a_session_opens_it_for_its_owner_and_nobody_else() {
    let world = World::new(&[("ada", "pw")], "");
    let resume = |who: &Who, token: &[u8], known: Option<(&[u8], Option<&str>)>| {
        let known = known.map(|(kept, owner)| (kept, owner.map(Arc::from)));
        world.auth.resume(NOW, &who.attempt(), token, known)
    };
    let kept: &[u8] = b"kept";
    assert_eq!(resume(&Who::far(), kept, Some((kept, Some("ada")))).unwrap().username(), Some("ada"));
    for (token, known) in [
        (&b"other"[..], Some((kept, Some("ada")))),
        (kept, None),
        // Its owner has left the password file.
        (kept, Some((kept, Some("bob")))),
    ] {
        assert_eq!(resume(&Who::far(), token, known).unwrap_err(), Refusal::BadCredentials);
    }
    // A session without an owner is for whom this listener lets in without a name.
    assert_eq!(resume(&Who::far(), kept, Some((kept, None))).unwrap_err(), Refusal::NotAuthorised);
}

const DEVICES: &str = "meter meter-1 alice 00112233\nvalve valve-1 - 01 02 1970-01-01T01:00:00Z\n";

impl World {
    fn with_devices(acl: &str) -> World {
        let world = World::new(&[("alice", "secret")], acl);
        std::fs::write(world.folder.join("psk"), DEVICES).unwrap();
        assert!(world.auth.reload(&world.options).is_ok());
        world
    }

    fn check_as(&self, client_id: &str, who: &Who) -> Result<Grant, Refusal> {
        match self.auth.check(NOW, &Attempt { client_id, ..who.attempt() }) {
            Verdict::Allow(grant) => Ok(grant),
            Verdict::Deny(why) => Err(why),
            Verdict::Work(_) => panic!("a proven key needs no password"),
        }
    }
}

#[test]
fn a_proven_key_opens_the_session_of_its_client_with_the_rights_of_its_user() {
    let world = World::with_devices(
        "allow user alice publish alice/%c\nallow authenticated publish own/%c\nallow anonymous publish open\ndefault deny\n",
    );
    let meter = world.check_as("meter-1", &Who::device("meter")).unwrap();
    assert_eq!((meter.username(), meter.principal().as_deref()), (Some("alice"), Some("alice")));
    assert!(meter.may_publish("alice/meter-1", Qos::AtMostOnce, false));
    let valve = world.check_as("valve-1", &Who::device("valve")).unwrap();
    // Without a user its session is still its own, and no user can be called so.
    assert_eq!((valve.username(), valve.principal().as_deref()), (None, Some("psk:valve-1")));
    assert!(valve.may_publish("own/valve-1", Qos::AtMostOnce, false));
    assert!(!valve.may_publish("own/meter-1", Qos::AtMostOnce, false));
    assert!(!valve.may_publish("open", Qos::AtMostOnce, false), "it is not nobody");
}

#[test]
fn a_proven_key_is_no_other_clients() {
    let world = World::with_devices("");
    for other in ["meter-1", "", "VALVE-1"] {
        assert_eq!(world.check_as(other, &Who::device("valve")).unwrap_err(), Refusal::ClientId);
    }
    // Neither a password nor an exchange makes it another one.
    let with_password = Who { username: Some("alice"), password: Some("secret"), ..Who::device("valve") };
    assert_eq!(world.check_as("x", &with_password).unwrap_err(), Refusal::ClientId);
    assert_eq!(world.check_as("valve-1", &with_password).unwrap().username(), None);
    let exchange = world.auth.exchange(NOW, "SCRAM-SHA-256", &Who::device("valve").attempt());
    assert_eq!(exchange.unwrap_err(), Refusal::BadMethod);
}

#[test]
fn a_credential_stands_for_a_client_id() {
    let world = World::with_devices("");
    let own = |who: &Who| world.auth.client_id(&who.facts, &who.rules);
    assert_eq!(own(&Who::device("meter")).as_deref(), Some("meter-1"));
    assert_eq!(own(&Who::device("gone")), None);
    assert_eq!(own(&Who::far()), None);
    let mut certified = Who::device("meter");
    let certificate = Certificate { common_name: Some("pump-3".into()), fingerprint: [0; 32] };
    (certified.facts.psk, certified.facts.certificate) = (None, Some(Arc::new(certificate)));
    assert_eq!(own(&certified), None, "certificates name nobody at this listener");
    certified.rules.certificate_user = true;
    assert_eq!(own(&certified).as_deref(), Some("pump-3"));
    assert_eq!(world.check_as("pump-3", &certified).unwrap().username(), Some("pump-3"));
    certified.facts.transport = Transport::Tls;
    assert_eq!(own(&certified), None, "a user may have many clients");
}

#[test]
fn a_peer_behind_dtls_that_proves_nothing_needs_a_password() {
    let world = World::new(&[("alice", "secret")], "");
    let mut who =
        Who { rules: ListenerRules { anonymous: Anonymous::Always, ..Default::default() }, ..Who::near() };
    assert!(world.check(&who).is_ok());
    who.facts.transport = Transport::Dtls;
    assert_eq!(world.check(&who).unwrap_err(), Refusal::NotAuthorised);
    assert_eq!(world.check(&who.with("alice", "secret")).unwrap().username(), Some("alice"));
    let world = World::new(&[], "");
    let mut who = Who::near();
    who.facts.transport = Transport::Dtls;
    assert_eq!(world.check(&who.with("alice", "secret")).unwrap_err(), Refusal::BadCredentials);
}

#[test]
fn a_removed_or_changed_credential_ends_at_the_next_regrant() {
    let world = World::with_devices("");
    let at = "192.0.2.1".parse().unwrap();
    let meter = world.check_as("meter-1", &Who::device("meter")).unwrap();
    let valve = world.check_as("valve-1", &Who::device("valve")).unwrap();
    assert_eq!(world.auth.regrant(&meter, "meter-1", at).unwrap().principal().as_deref(), Some("alice"));
    assert_eq!(world.auth.regrant(&valve, "valve-1", at).unwrap().principal(), valve.principal());
    for text in ["meter meter-1 - 00112233\n", "meter meter-2 alice 00112233\n", ""] {
        std::fs::write(world.folder.join("psk"), text).unwrap();
        assert!(world.auth.reload(&world.options).is_ok());
        assert!(world.auth.regrant(&meter, "meter-1", at).is_none(), "{text}");
        assert!(world.auth.regrant(&valve, "valve-1", at).is_none(), "{text}");
    }
    assert_eq!(world.check_as("meter-1", &Who::device("meter")).unwrap_err(), Refusal::BadCredentials);
}

#[test]
fn a_reload_tells_whose_keys_are_all_others_than_before() {
    let world = World::with_devices("");
    let exchanged = |text: &str| {
        std::fs::write(world.folder.join("psk"), text).unwrap();
        let mut names: Vec<_> = world.auth.reload(&world.options).unwrap().into_iter().collect();
        names.sort();
        names.join(" ")
    };
    exchanged("a a - 01\nb b - 02\nc c - 03 04 -\nd d - 05\n");
    assert_eq!(exchanged("a a - 0101\nb b - 0202 02 -\nc c - 04\ne e - 06\n"), "a");
    assert_eq!(exchanged("a a - 0101\nb b - 0202\nc c - 03\ne e - 06 07 -\n"), "c");
}

#[test]
fn failed_handshakes_bring_a_ban_that_holds_for_proven_keys_too() {
    let world = World::with_devices("");
    let (mut who, at) = (Who::device("meter"), "192.0.2.1".parse().unwrap());
    for identity in [&b"meter"[..], b"gone", b"\xff"] {
        assert!(world.check_as("meter-1", &who).is_ok());
        world.auth.psk_failed(NOW, identity, at);
    }
    assert_eq!(world.check_as("meter-1", &who).unwrap_err(), Refusal::Banned);
    who.facts.address = "192.0.2.2:5000".parse().unwrap();
    assert!(world.check_as("meter-1", &who).is_ok());
}

#[test]
fn handshakes_that_fail_without_a_name_ban_their_address_alone() {
    let by = By { address: true, username: true, client_id: true };
    let mut world = World::with_devices("");
    world.options.bans.by = by;
    assert!(world.auth.reload(&world.options).is_ok());
    (0..3).for_each(|_| world.auth.handshake_failed(NOW, "192.0.2.1".parse().unwrap()));
    assert_eq!(world.check_as("meter-1", &Who::device("meter")).unwrap_err(), Refusal::Banned);
    assert_eq!(world.auth.bans().list(NOW, 10).len(), 1);
}

#[test]
fn the_key_that_failed_comes_second_where_two_are_valid() {
    let world = World::with_devices("");
    let at = "192.0.2.1".parse().unwrap();
    let first = |identity: &[u8]| world.auth.psk(NOW, identity, at).key[0];
    assert_eq!(first(b"valve"), 1);
    world.auth.psk_failed(NOW, b"valve", at);
    assert_eq!(first(b"valve"), 2);
    assert_eq!(world.auth.psk(NOW, b"valve", "192.0.2.2".parse().unwrap()).key[0], 1);
    let later = Now { wall_ms: 3_600_000, ..NOW };
    assert_eq!(world.auth.psk(later, b"valve", at).key[0], 1, "the older key has ended");
    world.auth.psk_failed(NOW, b"valve", at);
    assert_eq!(first(b"valve"), 1);
    let unknown = world.auth.psk(NOW, b"gone", at);
    assert!(!unknown.is_known && unknown.key.len() == 4);
}

#[test]
fn a_mistake_among_the_keys_leaves_everything_as_it_was() {
    let world = World::with_devices("");
    std::fs::write(world.folder.join("psk"), "meter meter-1 - zz\n").unwrap();
    let mistakes = world.auth.reload(&world.options).unwrap_err();
    assert!(mistakes[0].to_string().contains("psk:1"), "{}", mistakes[0]);
    assert!(world.check_as("valve-1", &Who::device("valve")).is_ok());
}
