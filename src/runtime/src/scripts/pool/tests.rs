use std::collections::VecDeque;

use gateway::Function;
use scripts::pipe::cut;

use super::*;

const LIMIT: Duration = Duration::from_millis(100);
const LATE: Duration = Duration::from_millis(501);

/// A pool with two workers and a ward, its clock, and what its workers were asked.
struct World {
    pool: Pool<u32>,
    now: Instant,
    generation: [u32; 3],
    /// What each worker was asked and has not answered: program, number of the submission, inputs.
    asked: [VecDeque<Asked>; 3],
    loads: Vec<(usize, u64)>,
    unloads: Vec<(usize, u64)>,
    answers: Vec<(u32, Results)>,
    killed: Vec<usize>,
    started: Vec<usize>,
}

struct Asked {
    seq: u64,
    program: u64,
    inputs: Vec<Bytes>,
    done: usize,
}

impl World {
    fn new() -> World {
        let limits = Limits { time: LIMIT, ..Limits::default() };
        let mut pool = Pool::new(2, limits, Arc::default());
        for id in 0..6 {
            let name = format!("p{id}").into();
            pool.bring(ProgramId(id), Program { name, version: 1, source: Bytes::from_static(b"x") });
        }
        World {
            pool,
            now: Instant::from_micros(1_000_000),
            generation: [0; 3],
            asked: Default::default(),
            loads: Vec::new(),
            unloads: Vec::new(),
            answers: Vec::new(),
            killed: Vec::new(),
            started: Vec::new(),
        }
    }

    fn submit(&mut self, from: u32, program: u64, inputs: &[&'static str]) {
        self.submit_to(Function::DecodeUplink, from, program, inputs);
    }

    fn submit_to(&mut self, function: Function, from: u32, program: u64, inputs: &[&'static str]) {
        let calls = Calls {
            program: ProgramId(program),
            function,
            device: "dev".into(),
            port: 1,
            wall_ms: 7,
            inputs: inputs.iter().map(|i| Bytes::from_static(i.as_bytes())).collect(),
        };
        self.pool.submit(self.now, from, calls);
        self.settle();
    }

    /// Does what the pool wants; workers start at once, and programs are ready at once.
    fn settle(&mut self) {
        loop {
            let out = std::mem::take(&mut self.pool.out);
            let is_done = out.is_empty();
            for each in out {
                match each {
                    Do::Start(at, generation) => {
                        self.generation[at] = generation;
                        self.asked[at].clear();
                        self.started.push(at);
                        self.pool.heard(self.now, at, generation, Response::Hello(vec![]));
                    }
                    Do::Kill(at) => {
                        self.killed.push(at);
                        self.asked[at].clear();
                    }
                    Do::Answer(from, results) => self.answers.push((from, results)),
                    Do::Log(..) => {}
                }
            }
            let was_quiet = (0..3).all(|at| !self.read(at));
            if is_done && was_quiet {
                return;
            }
        }
    }

    fn read(&mut self, at: usize) -> bool {
        let Some(output) = self.pool.output(at) else { return false };
        let mut buf = bytes::BytesMut::from(&output[..]);
        while let Some(message) = cut(&mut buf).unwrap() {
            match Request::decode(&message).unwrap() {
                Request::Load { program, .. } => {
                    self.loads.push((at, program.0));
                    self.asked[at].push_back(Asked { seq: 0, program: program.0, inputs: vec![], done: 0 });
                }
                Request::Unload(program) => self.unloads.push((at, program.0)),
                Request::Calls { seq, calls } => {
                    let (program, inputs) = (calls.program.0, calls.inputs);
                    self.asked[at].push_back(Asked { seq, program, inputs, done: 0 });
                }
                Request::Example { .. } => panic!("the pool asks for no examples"),
            }
        }
        self.load(at);
        true
    }

    /// The worker answers what it was asked to load, when it comes to that.
    fn load(&mut self, at: usize) {
        while let Some(asked) = self.asked[at].pop_front_if(|a| a.inputs.is_empty()) {
            let loaded =
                Response::Loaded { program: ProgramId(asked.program), shape: codecs::Shape::Payload };
            self.pool.heard(self.now, at, self.generation[at], loaded);
        }
    }

    /// The worker answers its next input; with what it was, if nothing else is said.
    fn answer(&mut self, at: usize, result: Option<Result<Bytes, CallFailure>>) {
        let asked = self.asked[at].front_mut().expect("it has something to do");
        let (seq, index) = (asked.seq, u32::try_from(asked.done).unwrap());
        let result = result.unwrap_or_else(|| Ok(asked.inputs[asked.done].clone()));
        asked.done += 1;
        if asked.done == asked.inputs.len() {
            self.asked[at].pop_front();
        }
        let called = Response::Called { seq, index, result, log: vec![] };
        self.pool.heard(self.now, at, self.generation[at], called);
        self.load(at);
        self.settle();
    }

    fn answer_all(&mut self) {
        while let Some(at) = (0..3).find(|at| !self.asked[*at].is_empty()) {
            self.answer(at, None);
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
        self.pool.timeout(self.now);
        self.settle();
    }

    fn die(&mut self, at: usize) {
        self.asked[at].clear();
        self.pool.gone(self.now, at, self.generation[at], "signal 9");
        self.settle();
    }

    fn inputs(&self, at: usize) -> Vec<&str> {
        let texts = self.asked[at].iter().flat_map(|a| &a.inputs[a.done..]);
        texts.map(|i| std::str::from_utf8(i).unwrap()).collect()
    }

    fn answered(&mut self) -> Vec<(u32, String)> {
        let word = |r: &Result<Bytes, CallFailure>| match r {
            Ok(value) => String::from_utf8(value.to_vec()).unwrap(),
            Err(CallFailure::Limit(_)) => "limit".to_owned(),
            Err(other) => format!("{other:?}"),
        };
        let text = |results: &Results| results.iter().map(word).collect::<Vec<_>>().join(" ");
        self.answers.drain(..).map(|(from, results)| (from, text(&results))).collect()
    }
}

fn limit() -> Option<Result<Bytes, CallFailure>> {
    Some(Err(CallFailure::Limit("too long".into())))
}

fn said(from: u32, text: &str) -> (u32, String) {
    (from, text.to_owned())
}

#[test]
fn a_worker_is_started_and_a_program_is_loaded_when_there_is_something_to_do() {
    let mut w = World::new();
    assert_eq!(w.pool.next_timeout(), None);
    w.submit(1, 0, &["a", "b"]);
    w.submit(2, 2, &["c"]);
    w.submit(3, 0, &["d"]);
    assert_eq!((&w.started[..], &w.loads[..]), (&[0][..], &[(0, 0), (0, 2)][..]));
    assert_eq!(w.inputs(0), ["a", "b", "c", "d"]);
    w.answer_all();
    assert_eq!(w.answered(), [said(1, "a b"), said(2, "c"), said(3, "d")]);
    assert_eq!(w.pool.next_timeout(), None);
    w.submit(4, 3, &["e"]);
    assert_eq!((&w.started[..], w.inputs(1)), (&[0, 1][..], vec!["e"]));
}

#[test]
fn a_program_that_takes_long_within_its_limit_is_served_apart_and_delays_nobody_any_more() {
    let mut w = World::new();
    w.submit(1, 0, &["slow"; 64]);
    w.submit(2, 2, &["quick"]);
    w.submit(3, 0, &["later"]);
    for _ in 0..17 {
        assert_eq!(w.killed, [0; 0]);
        w.wait(Duration::from_millis(60));
        w.answer(0, None);
    }
    // What is left of it is done in the ward, and nothing twice.
    assert_eq!((&w.killed[..], w.inputs(0), w.inputs(2)), (&[0][..], vec!["quick"], vec!["slow"; 47]));
    w.answer_all();
    assert_eq!(w.answered(), [said(2, "quick"), said(1, &["slow"; 64].join(" ")), said(3, "later")]);
    assert_eq!(w.pool.records.workers(), [3, 0, 0], "nobody is to blame for anything");
    w.submit(4, 0, &["again"]);
    w.submit(5, 2, &["elsewhere"]);
    assert_eq!((w.inputs(0), w.inputs(2)), (vec!["elsewhere"], vec!["again"]));
    w.answer_all();
    w.wait(Duration::from_secs(600));
    w.submit(6, 0, &["at home"]);
    assert_eq!(w.inputs(0), ["at home"]);
}

#[test]
fn what_ends_a_worker_twice_is_the_culprit_and_the_others_lose_nothing() {
    let mut w = World::new();
    w.submit(1, 0, &["fine", "loop", "after"]);
    w.submit(2, 2, &["innocent"]);
    w.submit(3, 3, &["elsewhere"]);
    w.answer(0, None);
    w.answer(1, None);
    w.wait(LATE);
    // Tried again in the ward with what follows it, and the other program in a new worker.
    assert!(w.killed.contains(&0));
    assert_eq!((w.inputs(2), w.inputs(0)), (vec!["loop", "after"], vec!["innocent"]));
    w.answer(0, None);
    w.submit(4, 2, &["again"]);
    w.answer(0, None);
    assert_eq!(w.answered(), [said(3, "elsewhere"), said(2, "innocent"), said(4, "again")]);
    w.wait(LATE);
    assert_eq!(w.inputs(2), ["after"]);
    w.answer(2, None);
    assert_eq!(w.answered()[0], said(1, "fine limit after"));
    // It stays apart, and comes home when it has been quiet for long.
    w.submit(5, 0, &["x"]);
    assert_eq!((w.inputs(2), w.inputs(0)), (vec!["x"], vec![]));
    w.answer_all();
    w.wait(Duration::from_secs(601));
    w.submit(6, 0, &["y"]);
    assert_eq!(w.inputs(0), ["y"]);
}

#[test]
fn a_worker_that_somebody_else_kills_costs_nothing_and_no_program_its_place() {
    let mut w = World::new();
    w.submit(1, 0, &["a"]);
    w.submit(2, 2, &["b"]);
    w.submit(3, 4, &["c"]);
    w.die(0);
    assert_eq!(w.inputs(2), ["a"]);
    assert_eq!(w.inputs(0), ["b"], "who was in flight goes alone");
    w.answer(2, None);
    w.submit(4, 0, &["d"]);
    w.answer_all();
    let mut answers = w.answered();
    answers.sort();
    assert_eq!(answers, [said(1, "a"), said(2, "b"), said(3, "c"), said(4, "d")]);
    assert!(!w.pool.programs[&ProgramId(0)].ward.is_apart(w.now));
}

#[test]
fn when_answers_were_lost_with_the_worker_the_culprit_is_found_all_the_same() {
    let mut w = World::new();
    // The first had been done when the worker was stuck with the second, but its answer had not been written yet.
    w.submit(1, 0, &["innocent"]);
    w.submit(2, 2, &["loop"]);
    w.submit(3, 4, &["third"]);
    w.wait(LATE);
    assert_eq!((w.inputs(2), w.inputs(0)), (vec!["innocent"], vec!["loop"]));
    w.answer(2, None);
    w.wait(LATE);
    assert_eq!(w.inputs(0), ["third"]);
    w.answer_all();
    assert_eq!(w.answered(), [said(1, "innocent"), said(2, "limit"), said(3, "third")]);
}

#[test]
fn a_program_that_reaches_its_limit_leaves_the_others_and_takes_what_waits_with_it() {
    let mut w = World::new();
    w.submit(1, 0, &["slow", "slow2"]);
    w.submit(2, 2, &["other"]);
    w.submit(3, 0, &["slow3"]);
    w.answer(0, limit());
    assert_eq!((w.inputs(0), w.inputs(2)), (vec!["other"], vec!["slow2"]));
    assert_eq!(w.killed, [0], "the limit's time for each that it had in flight is not waited for");
    w.answer(2, limit());
    w.answer_all();
    assert_eq!(w.answered(), [said(1, "limit limit"), said(2, "other"), said(3, "slow3")]);
}

#[test]
fn a_program_that_is_stopped_too_often_rests_and_the_others_go_on() {
    let mut w = World::new();
    for from in 1..=5 {
        w.submit(from, 0, &["loop"]);
        let at = if from == 1 { 0 } else { 2 };
        w.answer(at, limit());
    }
    w.answers.clear();
    w.submit(6, 0, &["a", "b"]);
    assert_eq!(w.answered(), [said(6, "Suspended Suspended")]);
    w.submit(7, 2, &["other"]);
    w.answer_all();
    w.wait(Duration::from_secs(1));
    w.submit(8, 0, &["loop", "next"]);
    w.submit(9, 0, &["waits"]);
    w.answer(2, limit());
    assert_eq!(
        w.answered(),
        [said(7, "other"), said(9, "Suspended"), said(8, "limit Suspended")],
        "what waits is not tried when it rests again"
    );
    let record = w.pool.records.of("p0");
    assert_eq!(record.samples().len(), 6);
    assert_eq!((&record.samples()[0].input[..], record.samples()[0].version), (&b"loop"[..], 1));
}

#[test]
fn a_frame_that_a_stream_throws_on_is_kept_and_counted_and_none_that_is_good() {
    let mut w = World::new();
    let frames = r#"{"consumed":2,"frames":[{"consumed":2,"up":[{"kind":"x","data":{"y":{}}}]}]"#;
    let says = |w: &mut World, end: &str| {
        w.submit_to(Function::Decode, 1, 0, &["ok bad rest"]);
        w.answer(0, Some(Ok(format!("{frames}{end}").into())));
    };
    says(&mut w, "}");
    assert_eq!(w.pool.records.of("p0").samples(), []);
    says(&mut w, r#","error":{"at":3,"why":"the CRC is wrong","skip":3}}"#);
    says(&mut w, r#","error":{"at":3,"why":"lost"}}"#);
    let samples = w.pool.records.of("p0").samples();
    let kept: Vec<_> = samples.iter().map(|s| (&s.input[..], s.length, &*s.why)).collect();
    assert_eq!(kept, [(&b"bad"[..], 3, "the CRC is wrong"), (&b"bad rest"[..], 8, "lost")]);
    let figures = &w.pool.records.figures()[0];
    assert_eq!((figures.calls, figures.failures[0]), (3, ("program", 2)));
}

#[test]
fn a_new_version_of_what_rests_begins_without_its_past() {
    let mut w = World::new();
    for from in 1..=5 {
        w.submit(from, 0, &["loop"]);
        let at = if from == 1 { 0 } else { 2 };
        w.answer(at, limit());
    }
    let program = Program { name: "p0".into(), version: 2, source: Bytes::new() };
    w.pool.bring(ProgramId(10), program);
    w.submit(6, 10, &["good"]);
    assert_eq!(w.inputs(0), ["good"]);
}

#[test]
fn what_does_not_fit_is_told_so_at_once() {
    let mut w = World::new();
    for from in 0..256 {
        w.submit(from, 0, &["loop"]);
    }
    w.answer(0, limit());
    w.answers.clear();
    w.submit(900, 0, &["a"]);
    w.submit(901, 0, &["b"]);
    assert_eq!(w.answered(), [said(901, "Busy")], "255 and one wait in the ward");
    w.submit(902, 99, &["x"]);
    w.submit(903, 2, &[]);
    assert_eq!(w.answered(), [said(902, "Unknown"), said(903, "")]);
    for from in 0..16_384 {
        w.submit(from, 2, &["x"]);
    }
    assert_eq!(w.answered(), []);
    w.submit(1000, 2, &["x"]);
    assert_eq!(w.answered(), [said(1000, "Busy")]);
    w.answer_all();
    assert_eq!(w.answers.len(), 16_384 + 256);
    assert_eq!(w.pool.load, Load::default());
    let is_idle = |e: &Entry| e.load == Load::default();
    assert!(w.pool.programs.values().all(is_idle));
}

#[test]
fn a_worker_that_cannot_live_is_started_less_and_less_often() {
    let mut w = World::new();
    w.submit(1, 0, &["a"]);
    w.die(0);
    w.die(2);
    w.answers.clear();
    let mut starts = Vec::new();
    for from in 0..8 {
        w.submit(from, 1, &["x"]);
    }
    for _ in 0..400 {
        if w.pool.workers[1].state == State::Ready {
            starts.push(w.now.as_micros() / 100_000);
            w.die(1);
        }
        w.wait(Duration::from_millis(100));
    }
    let pauses: Vec<u64> = starts.windows(2).map(|p| p[1] - p[0]).collect();
    assert!(pauses.len() < 12 && pauses.is_sorted(), "{pauses:?}");
}

#[test]
fn a_worker_that_does_not_come_up_is_replaced() {
    let mut w = World::new();
    w.pool.submit(
        w.now,
        1,
        Calls {
            program: ProgramId(0),
            function: Function::Decode,
            device: "".into(),
            port: 0,
            wall_ms: 0,
            inputs: vec![Bytes::from_static(b"a")],
        },
    );
    assert_eq!(std::mem::take(&mut w.pool.out), [Do::Start(0, 1)]);
    w.wait(START);
    w.answer_all();
    assert_eq!((w.answered(), w.killed.clone()), (vec![said(1, "a")], vec![0]));
}

#[test]
fn a_worker_that_talks_nonsense_is_killed_and_what_it_had_goes_again() {
    let mut w = World::new();
    w.submit(1, 0, &["a"]);
    let called = Response::Called { seq: 77, index: 0, result: Ok(Bytes::new()), log: vec![] };
    w.pool.heard(w.now, 0, w.generation[0], called.clone());
    w.settle();
    assert_eq!((w.killed.clone(), w.inputs(2)), (vec![0], vec!["a"]));
    // What the dead one had written before is not heard any more.
    w.pool.heard(w.now, 0, w.generation[0], called);
    w.settle();
    w.answer_all();
    assert_eq!(w.answered(), [said(1, "a")]);
}

#[test]
fn a_version_that_nobody_uses_any_more_does_what_it_has_to_and_is_forgotten() {
    let mut w = World::new();
    w.submit(1, 0, &["a"]);
    w.pool.want(ProgramId(0), false);
    w.settle();
    assert_eq!(w.unloads, []);
    w.answer_all();
    assert_eq!(w.unloads, [(0, 0)]);
    // Somebody who has not heard of it yet is served too.
    w.submit(2, 0, &["b"]);
    w.answer_all();
    assert_eq!((w.loads.len(), w.unloads.len()), (2, 2));
    w.submit(3, 0, &["c"]);
    w.pool.forget(w.now, ProgramId(0));
    w.answer_all();
    w.submit(4, 0, &["d"]);
    assert_eq!(w.answered(), [said(1, "a"), said(2, "b"), said(3, "c"), said(4, "Unknown")]);
    assert_eq!(w.pool.load, Load::default());
}

#[test]
fn whatever_happens_to_workers_every_call_is_answered_once_and_in_its_place() {
    let mut random = 1_u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let mut w = World::new();
    let words = ["a", "b", "c", "d", "e", "f", "g"];
    let mut submitted = Vec::new();
    for _ in 0..20_000 {
        match next(20) {
            0..8 => {
                let n = 1 + next(6) as usize;
                w.submit(submitted.len() as u32, next(6), &words[..n]);
                submitted.push(n);
            }
            8..17 => {
                let at = next(3) as usize;
                if !w.asked[at].is_empty() {
                    let result = if next(50) == 0 { limit() } else { None };
                    w.answer(at, result);
                }
            }
            17 => w.wait(Duration::from_millis(next(300))),
            18 if next(20) == 0 => w.die(next(3) as usize),
            _ => w.wait(Duration::from_millis(next(20))),
        }
    }
    for _ in 0..1000 {
        w.answer_all();
        w.wait(Duration::from_secs(61));
    }
    assert_eq!(w.pool.load, Load::default());
    let mut answers = std::mem::take(&mut w.answers);
    answers.sort_by_key(|(from, _)| *from);
    assert_eq!(
        answers.iter().map(|(from, _)| *from as usize).collect::<Vec<_>>(),
        (0..submitted.len()).collect::<Vec<_>>()
    );
    let mut good = 0;
    for ((_, results), n) in answers.iter().zip(&submitted) {
        assert_eq!(results.len(), *n);
        for (result, word) in results.iter().zip(words) {
            if let Ok(value) = result {
                assert_eq!(value, word.as_bytes());
                good += 1;
            }
        }
    }
    assert!(good > 1000, "{good}");
}
