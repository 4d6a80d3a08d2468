//! What holds whatever a device says, however it is cut, and whenever the driver answers.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

/// Lines that leave the connection open, and one that may not.
const LINES: &[&str] = &[
    "L d1",
    "L d2",
    "L d1 secret",
    "I d1",
    "D t 1",
    "M 1 2 3",
    "D a/# 1",
    "R 5 x",
    "H",
    "Q",
    "X",
    "",
    "I d2",
    "D secret 1",
];

fn line() -> impl Strategy<Value = &'static str> {
    prop::sample::select(LINES)
}

fn played(b: Bench) -> (String, Vec<String>, usize, Vec<Close>) {
    (String::from_utf8(b.wire).unwrap(), b.published, b.drops.len(), b.closed)
}

fn new() -> Bench {
    let mut b = bench();
    b.refused_topic = Some("d1/up/secret");
    b.open(A);
    b
}

proptest! {
    /// Answers come in the order of their frames and values in theirs, whenever the driver answers.
    #[test]
    fn neither_cuts_nor_late_answers_change_what_is_said(
        lines in vec(line(), 0..40),
        cuts in vec(1usize..20, 1..40),
        holds in vec(any::<bool>(), 1..40),
    ) {
        let bytes = lines.iter().map(|line| format!("{line}\n")).collect::<String>().into_bytes();
        let mut at_once = new();
        at_once.hand(A, &bytes);
        let mut b = new();
        let (mut rest, mut steps) = (&bytes[..], cuts.iter().cycle().zip(holds.iter().cycle()));
        while let (false, Some((cut, hold))) = (rest.is_empty(), steps.next()) {
            let (piece, more) = rest.split_at((*cut).min(rest.len()));
            rest = more;
            b.holds = *hold;
            b.hand(A, piece);
            if !hold {
                b.release();
            }
        }
        b.release();
        prop_assert_eq!(played(b), played(at_once));
    }

    /// Commands, time and answers in any order: nothing panics, and no command is settled twice.
    #[test]
    fn commands_are_settled_once(steps in vec((0u8..6, 0u16..4), 0..80)) {
        let mut b = new();
        b.hand(A, b"L d1\n");
        let mut id = 0;
        for (step, n) in steps {
            if b.sessions.is_empty() {
                break;
            }
            match step {
                0 | 1 => {
                    id += 1;
                    b.command("ask", &n.to_string(), id);
                }
                2 => {
                    id += 1;
                    b.command("say", "", id);
                }
                3 => {
                    b.say(&format!("R {n}\n"));
                }
                4 => {
                    b.wait(u64::from(n) * 20_000);
                }
                _ => {
                    b.say("D t 1\n");
                }
            }
        }
        if b.closed.is_empty() {
            b.hand(A, b"H\n");
            for _ in 0..400 {
                b.wait(30_000);
                b.hand(A, b"H\n");
            }
            prop_assert_eq!(b.settled.len(), usize::from(id), "every command is over in the end");
        }
        let mut once = b.settled.clone();
        once.sort_unstable();
        once.dedup();
        prop_assert_eq!(once.len(), b.settled.len());
    }

    /// What a script gives may be anything.
    #[test]
    fn no_answer_of_a_script_harms_the_machine(
        results in vec(prop::sample::select(&[
            r#"{"consumed":1,"frames":[]}"#, r#"{"consumed":99999999}"#, "", "null", "[]", r#"{"consumed":-1}"#,
            r#"{"consumed":0,"frames":[{"up":[{"heartbeat":{}}],"answer":"zz"}]}"#,
            r#"{"consumed":2,"frames":[{"up":[{"login":{"device":"d"}},{"kind":"t","data":1}]}]}"#,
            r#"{"consumed":0,"error":{"at":9999,"why":"x","skip":18446744073709551615}}"#,
            r#"{"consumed":0,"error":{"at":0,"why":"x","skip":0}}"#, r#"{"hex":"0"}"#, r#"{"hex":"00","key":1}"#,
        ][..]), 1..60),
    ) {
        let mut b = bench_with(Config { codec: "stream".into(), ..config() });
        b.open(A);
        for (n, result) in results.into_iter().enumerate() {
            b.say("some bytes");
            if n % 5 == 4 && b.sessions.contains_key(&A) {
                b.command("ask", "{}", 1);
            }
            if let Some((_, _, calls)) = b.calls.front() {
                let results = vec![Ok(result); calls.inputs.len()];
                b.called(&results);
            }
        }
        prop_assert!(b.calls.len() <= 1);
    }
}
