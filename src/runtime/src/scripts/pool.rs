//! Which call runs in which worker: a machine without processes, pipes and clock.
//!
//! ```text
//! submit -> queue of a worker -> sent (a window of them) -> Called, one an input, in order -> answer
//!                 ^                  | the worker is late, or has died
//!                 |                  v
//!                 +--- the others    the first without an answer: tried once more in the ward
//! ```
//!
//! Programs are dealt to the workers by their number. The last worker is the **ward**: a program that had to be stopped, or
//! that takes long for each call, runs there ([`Ward`]), one submission at a time, so that it delays nobody but its like. What was in flight when a worker died
//! goes again, each call alone: who is to blame when it dies once more is then certain.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use codecs::called::Decoded;
use gateway::{CallFailure, Calls, Function, Instant, ProgramId};
use hashbrown::HashMap;
use scripts::pipe::{Limits, Request, Response};

use super::record::{Record, Records, Sample};
use super::ward::Ward;

mod worker;

use worker::{State, Worker};

/// Time beyond a call's own until its worker is killed: the engine stops most of what takes too long by itself.
const GRACE: Duration = Duration::from_millis(400);
/// Longest time until a worker says that it is there.
const START: Duration = Duration::from_secs(10);
/// Calls and bytes that are sent to a worker before it has answered.
const WINDOW: usize = 256;
const WINDOW_BYTES: usize = 256 << 10;
/// Calls and bytes that wait, of all programs, and of one that is in the ward; of any other a quarter of all.
const MOST: Load = Load { calls: 65_536, bytes: 64 << 20 };
const MOST_APART: Load = Load { calls: 256, bytes: 1 << 20 };
/// Most bytes of one submission.
const MOST_BYTES: usize = 8 << 20;

/// What calls a program can be had for.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// Its codec's name.
    pub(crate) name: Box<str>,
    /// Its number among the codec's versions.
    pub(crate) version: u32,
    /// The script.
    pub(crate) source: Bytes,
}

/// What came of calls, in order.
pub(super) type Results = Vec<Result<Bytes, CallFailure>>;

/// Work for the shell; `T` says who asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Do<T> {
    /// Start this worker. What is heard of it has this generation.
    Start(usize, u32),
    /// End it at once.
    Kill(usize),
    /// Tell who asked.
    Answer(T, Results),
    /// Lines that a program wrote while it worked for this device.
    Log(Box<str>, Vec<String>),
}

/// Calls and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Load {
    calls: usize,
    bytes: usize,
}

impl Load {
    fn fits(self, more: Load, most: Load) -> bool {
        self.calls + more.calls <= most.calls && self.bytes + more.bytes <= most.bytes
    }

    fn add(&mut self, more: Load) {
        *self = Load { calls: self.calls + more.calls, bytes: self.bytes + more.bytes };
    }

    fn sub(&mut self, less: Load) {
        let bytes = self.bytes.saturating_sub(less.bytes);
        *self = Load { calls: self.calls.saturating_sub(less.calls), bytes };
    }
}

/// Calls that were submitted together.
struct Job<T> {
    from: T,
    /// Inputs without an answer, when it was last sent.
    calls: Calls,
    results: Results,
    /// How many of the results were there when it was last sent.
    base: usize,
    load: Load,
    /// Whether the load is part of what waits.
    is_counted: bool,
    /// Whether its first input is being tried again in the ward.
    is_trial: bool,
    /// Workers that died while they had it.
    deaths: u8,
}

impl<T> Job<T> {
    /// The input that has no answer yet.
    fn next_input(&self) -> Option<&Bytes> {
        self.calls.inputs.get(self.results.len() - self.base)
    }

    /// Lets go of inputs that have their answer.
    fn trim(&mut self) {
        self.calls.inputs.drain(..self.results.len() - self.base);
        self.base = self.results.len();
    }
}

struct Entry {
    program: Program,
    record: Arc<Record>,
    ward: Ward,
    /// Submitted and not answered.
    load: Load,
    /// Whether new calls are expected; if not, workers forget it when it has nothing to do.
    is_wanted: bool,
}

/// See the module.
pub(super) struct Pool<T> {
    limits: Limits,
    programs: HashMap<ProgramId, Entry>,
    /// The last is the ward.
    workers: Vec<Worker<T>>,
    load: Load,
    seq: u64,
    records: Arc<Records>,
    /// What is to be done, in order.
    pub(super) out: Vec<Do<T>>,
}

/// Why a worker is no more.
enum End<'a> {
    /// A call was late.
    Late,
    /// It died, or spoke what nobody understands.
    Died(&'a str),
    /// It was ended because of what it had still to do; nobody is to blame for anything.
    Cleared,
}

impl<T> Pool<T> {
    /// So many workers, and the ward.
    pub(super) fn new(workers: usize, limits: Limits, records: Arc<Records>) -> Pool<T> {
        let workers = (0..workers.max(1) + 1).map(|_| Worker::default()).collect();
        Pool {
            limits,
            programs: HashMap::new(),
            workers,
            load: Load::default(),
            seq: 0,
            records,
            out: Vec::new(),
        }
    }

    /// A program may be called from now on.
    pub(super) fn bring(&mut self, id: ProgramId, program: Program) {
        let record = self.records.of(&program.name);
        let entry = Entry { program, record, ward: Ward::default(), load: Load::default(), is_wanted: true };
        self.programs.insert(id, entry);
    }

    /// Whether new calls of the program are expected. One of which they are not can be called all the same.
    pub(super) fn want(&mut self, id: ProgramId, is_wanted: bool) {
        if let Some(entry) = self.programs.get_mut(&id) {
            entry.is_wanted = is_wanted;
            self.unload_idle(id);
        }
    }

    /// The program is no more.
    pub(super) fn forget(&mut self, now: Instant, id: ProgramId) {
        self.want(id, false);
        self.programs.remove(&id);
        self.pump(now);
    }

    /// Calls of a program; answered in any case.
    pub(super) fn submit(&mut self, now: Instant, from: T, calls: Calls) {
        let load = Load { calls: calls.inputs.len(), bytes: calls.inputs.iter().map(Bytes::len).sum() };
        let results = Vec::with_capacity(load.calls);
        let (is_counted, is_trial) = (false, false);
        let mut job = Job { from, calls, results, base: 0, load, is_counted, is_trial, deaths: 0 };
        let Some(entry) = self.programs.get_mut(&job.calls.program) else {
            return self.give_up(job, &CallFailure::Unknown);
        };
        job.is_counted = true;
        entry.load.add(load);
        self.load.add(load);
        let most = match entry.ward.is_apart(now) {
            true => MOST_APART,
            false => Load { calls: MOST.calls / 4, bytes: MOST.bytes / 4 },
        };
        let none = Load::default();
        if load.bytes > MOST_BYTES {
            self.give_up(job, &CallFailure::Limit(format!("an input of {} bytes", load.bytes).into()));
        } else if entry.ward.is_resting(now) {
            self.give_up(job, &CallFailure::Suspended);
        } else if !none.fits(self.load, MOST) || !none.fits(entry.load, most) {
            self.give_up(job, &CallFailure::Busy);
        } else if load.calls == 0 {
            self.finish(job);
        } else {
            let home = self.home(now, job.calls.program);
            self.workers[home].queue.push_back(job);
            self.pump(now);
        }
    }

    /// The worker has said something.
    pub(super) fn heard(&mut self, now: Instant, at: usize, generation: u32, response: Response) {
        if self.workers[at].generation != generation {
            return;
        }
        let understood = match response {
            Response::Hello(kept) => {
                let is_first = self.workers[at].state == State::Starting;
                if is_first {
                    self.workers[at].state = State::Ready;
                    for right in kept {
                        tracing::warn!(right, "a worker of scripts has kept a right that it should give up");
                    }
                }
                is_first
            }
            Response::Loaded { program, .. } => self.workers[at].answered_load(now, program),
            Response::Refused { program, why } => {
                tracing::error!(codec = %self.name(program), why, "a worker does not take a script that was taken before");
                self.workers[at].loaded.remove(&program);
                self.workers[at].answered_load(now, program)
            }
            Response::Called { seq, index, result, log } => self.called(now, at, (seq, index), result, log),
        };
        if !understood {
            self.out.push(Do::Kill(at));
            self.lost(now, at, &End::Died("what it said was no answer to what it was asked"));
        }
        self.pump(now);
    }

    /// The worker is no more.
    pub(super) fn gone(&mut self, now: Instant, at: usize, generation: u32, why: &str) {
        if self.workers[at].generation == generation && self.workers[at].is_alive() {
            self.lost(now, at, &End::Died(why));
            self.pump(now);
        }
    }

    /// The time has come.
    pub(super) fn timeout(&mut self, now: Instant) {
        for at in 0..self.workers.len() {
            if self.workers[at].deadline(self.limits.time + GRACE).is_none_or(|due| now < due) {
                continue;
            }
            match self.workers[at].state {
                State::Off | State::Resting(_) => {}
                State::Starting => {
                    self.out.push(Do::Kill(at));
                    self.lost(now, at, &End::Died("it did not say that it was there"));
                }
                State::Ready => {
                    self.out.push(Do::Kill(at));
                    self.lost(now, at, &End::Late);
                }
            }
        }
        self.pump(now);
    }

    /// When [`Pool::timeout`] is wanted.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.workers.iter().filter_map(|w| w.deadline(self.limits.time + GRACE)).min()
    }

    /// What is to be written to the worker.
    pub(super) fn output(&mut self, at: usize) -> Option<Vec<u8>> {
        let output = &mut self.workers[at].output;
        (!output.is_empty()).then(|| std::mem::take(output))
    }

    fn called(
        &mut self,
        now: Instant,
        at: usize,
        (seq, index): (u64, u32),
        result: Result<Bytes, CallFailure>,
        log: Vec<String>,
    ) -> bool {
        let worker = &mut self.workers[at];
        let Some((job, took, is_own)) = worker.answered_call(now, seq, index) else { return false };
        let id = job.calls.program;
        let Some(entry) = self.programs.get_mut(&id) else {
            // Forgotten while it ran: the answer is as good.
            job.results.push(result);
            self.complete(at);
            return true;
        };
        if job.is_trial {
            job.is_trial = false;
            entry.ward.end_trial();
        }
        entry.record.took(took);
        let is_slow = is_own && entry.ward.took(now, took);
        if !log.is_empty() {
            self.out.push(Do::Log(job.calls.device.clone(), log));
        }
        let is_limit = matches!(result, Err(CallFailure::Limit(_)));
        note(entry, job, &result);
        job.results.push(result);
        self.complete(at);
        if is_limit {
            self.stopped(now, at, id);
        } else if is_slow {
            let (codec, version) = self.named(id);
            tracing::warn!(codec, version, "the calls of a script take long: it runs apart from the others");
            self.clear(now, at, id);
        }
        true
    }

    /// What this worker has to do still for a program that runs apart now would keep the others waiting.
    fn clear(&mut self, now: Instant, at: usize, id: ProgramId) {
        if at != self.ward() && self.workers[at].sent.iter().any(|s| s.is_of(id)) {
            self.out.push(Do::Kill(at));
            self.lost(now, at, &End::Cleared);
        }
    }

    /// Answers the worker's first job if it has everything.
    fn complete(&mut self, at: usize) {
        if let Some(job) = self.workers[at].take_done() {
            self.finish(job);
        }
    }

    /// A call of this program had to be stopped in this worker: it runs apart now, and may have to rest.
    fn stopped(&mut self, now: Instant, at: usize, id: ProgramId) {
        let Some(entry) = self.programs.get_mut(&id) else { return };
        let (codec, version) = (entry.program.name.clone(), entry.program.version);
        let was_apart = entry.ward.is_apart(now);
        let rest = entry.ward.stopped(now);
        if let Some(rest) = rest {
            tracing::warn!(%codec, version, ?rest, "a script was stopped too often and rests");
            for worker in 0..self.workers.len() {
                let queue = std::mem::take(&mut self.workers[worker].queue);
                for job in queue {
                    match job.calls.program == id {
                        true => self.give_up(job, &CallFailure::Suspended),
                        false => self.workers[worker].queue.push_back(job),
                    }
                }
            }
        } else if !was_apart {
            tracing::warn!(%codec, version, "a script was stopped and runs apart from the others");
        }
        let has_more = self.workers[at].sent.iter().any(|s| s.is_of(id));
        if has_more && (at != self.ward() || rest.is_some()) {
            // What it has to do still would keep the others waiting, a limit's time each.
            self.out.push(Do::Kill(at));
            self.lost(now, at, &End::Cleared);
        }
    }

    /// A worker is gone, with everything that was sent to it.
    fn lost(&mut self, now: Instant, at: usize, end: &End<'_>) {
        let is_ward = at == self.ward();
        let mut jobs = self.workers[at].end();
        jobs.iter_mut().for_each(Job::trim);
        let first = jobs.front().map(|j| j.calls.program);
        match end {
            End::Late => {
                self.records.kills.fetch_add(1, Ordering::Relaxed);
                let (codec, version) = first.map(|id| self.named(id)).unwrap_or_default();
                tracing::warn!(codec, version, worker = at, "a worker of scripts was late and was killed");
            }
            End::Died(why) => {
                self.records.deaths.fetch_add(1, Ordering::Relaxed);
                let (codec, version) = first.map(|id| self.named(id)).unwrap_or_default();
                tracing::warn!(codec, version, worker = at, why, "a worker of scripts has died");
                self.workers[at].rest(now);
            }
            End::Cleared => {}
        }
        let is_blamed = !matches!(end, End::Cleared);
        let suspect = if is_blamed { jobs.pop_front() } else { None };
        for mut job in jobs.into_iter().rev() {
            job.deaths += u8::from(is_blamed);
            self.workers[at].queue.push_front(job);
        }
        let Some(mut job) = suspect else { return };
        if job.deaths == 0 && !(is_ward && matches!(end, End::Late)) {
            job.deaths = 1;
            if !is_ward && let Some(entry) = self.programs.get_mut(&job.calls.program) {
                job.is_trial = true;
                entry.ward.begin_trial();
            }
            let ward = self.ward();
            return self.workers[ward].queue.push_front(job);
        }
        self.blame(now, at, job);
    }

    /// The job's next input is what ended the worker.
    fn blame(&mut self, now: Instant, at: usize, mut job: Job<T>) {
        let id = job.calls.program;
        let failure = CallFailure::Limit("its worker had to be stopped, or died of it".into());
        if let Some(entry) = self.programs.get_mut(&id) {
            if std::mem::take(&mut job.is_trial) {
                entry.ward.end_trial();
            }
            note(entry, &job, &Err(failure.clone()));
        }
        job.results.push(Err(failure));
        job.trim();
        job.deaths = 0;
        if job.calls.inputs.is_empty() {
            self.finish(job);
        } else {
            let ward = self.ward();
            self.workers[ward].queue.push_front(job);
        }
        self.stopped(now, at, id);
    }

    /// Every input that has no answer gets this one.
    fn give_up(&mut self, mut job: Job<T>, failure: &CallFailure) {
        if let Some(entry) = self.programs.get_mut(&job.calls.program) {
            if std::mem::take(&mut job.is_trial) {
                entry.ward.end_trial();
            }
            for _ in job.results.len()..job.load.calls {
                entry.record.ended(Some(failure));
            }
        }
        job.results.resize(job.load.calls, Err(failure.clone()));
        self.finish(job);
    }

    fn finish(&mut self, job: Job<T>) {
        let id = job.calls.program;
        if job.is_counted {
            self.load.sub(job.load);
            if let Some(entry) = self.programs.get_mut(&id) {
                entry.load.sub(job.load);
            }
        }
        self.out.push(Do::Answer(job.from, job.results));
        self.unload_idle(id);
    }

    /// Starts and feeds the workers.
    fn pump(&mut self, now: Instant) {
        // A job that has moved to another worker in the first round is sent in the second.
        for at in (0..self.workers.len()).chain(0..self.workers.len()) {
            self.feed(now, at);
        }
    }

    fn feed(&mut self, now: Instant, at: usize) {
        let is_ward = at == self.ward();
        while let Some(job) = self.workers[at].queue.front() {
            let (id, is_trial, deaths) = (job.calls.program, job.is_trial, job.deaths);
            if !self.workers[at].is_ready(now) {
                if self.workers[at].state == State::Off {
                    self.records.starts.fetch_add(1, Ordering::Relaxed);
                    let generation = self.workers[at].start(now);
                    self.out.push(Do::Start(at, generation));
                }
                return;
            }
            let is_alone = is_ward || deaths > 0;
            let home = self.home(now, id);
            let must_move = home != at && !is_trial;
            if !must_move && !self.workers[at].has_room(is_alone) {
                return;
            }
            let Some(job) = self.workers[at].queue.pop_front() else { return };
            match self.programs.get(&id) {
                None => self.give_up(job, &CallFailure::Unknown),
                Some(entry) if entry.ward.is_resting(now) => self.give_up(job, &CallFailure::Suspended),
                Some(_) if must_move => self.workers[home].queue.push_back(job),
                Some(entry) => {
                    self.seq += 1;
                    let load = (!self.workers[at].loaded.contains(&id)).then(|| Request::Load {
                        program: id,
                        name: format!("{}.js", entry.program.name),
                        source: entry.program.source.clone(),
                        limits: self.limits,
                    });
                    if let Err(job) = self.workers[at].send(now, self.seq, load, job) {
                        self.give_up(job, &CallFailure::Limit("it is too long for the pipe".into()));
                    }
                }
            }
        }
    }

    /// Workers forget a program that is not wanted and has nothing to do.
    fn unload_idle(&mut self, id: ProgramId) {
        if self.programs.get(&id).is_some_and(|e| !e.is_wanted && e.load == Load::default()) {
            self.workers.iter_mut().for_each(|w| w.unload(id));
        }
    }

    fn ward(&self) -> usize {
        self.workers.len() - 1
    }

    fn home(&self, now: Instant, id: ProgramId) -> usize {
        match self.programs.get(&id) {
            Some(entry) if entry.ward.is_apart(now) => self.ward(),
            _ => (id.0 % self.ward() as u64) as usize,
        }
    }

    fn name(&self, id: ProgramId) -> &str {
        self.programs.get(&id).map_or("", |e| &e.program.name)
    }

    fn named(&self, id: ProgramId) -> (&str, u32) {
        (self.name(id), self.programs.get(&id).map_or(0, |e| e.program.version))
    }
}

/// Counts an answer to the job's next input, and keeps what has failed.
fn note<T>(entry: &Entry, job: &Job<T>, result: &Result<Bytes, CallFailure>) {
    let input = job.next_input().map_or(&[][..], |i| i);
    let bad = match result {
        Ok(value) if job.calls.function == Function::Decode => bad_frame(value, input),
        _ => None,
    };
    let (input, failure) = match (&bad, result) {
        (Some((frame, why)), _) => (*frame, why),
        (None, Err(failure)) => (input, failure),
        (None, Ok(_)) => return entry.record.ended(None),
    };
    entry.record.ended(Some(failure));
    let (CallFailure::Program(why) | CallFailure::Limit(why)) = failure else { return };
    let why = why.clone();
    entry.record.keep(Sample {
        wall_ms: job.calls.wall_ms,
        version: entry.program.version,
        device: job.calls.device.clone(),
        port: job.calls.port,
        input: Sample::keep(input),
        length: input.len(),
        why,
    });
}

/// What `decode` has thrown on behind the frames that it has read, and why.
fn bad_frame<'a>(value: &[u8], input: &'a [u8]) -> Option<(&'a [u8], CallFailure)> {
    // Most calls bring frames alone, whose list ends the JSON; these are not read twice.
    if !value.ends_with(b"}}") {
        return None;
    }
    let failed = serde_json::from_slice::<Decoded<'_>>(value).ok()?.error?;
    let end = failed.at.saturating_add(failed.costs(input.len())).min(input.len());
    Some((input.get(failed.at..end).unwrap_or_default(), CallFailure::Program(failed.why.into())))
}

#[cfg(test)]
mod tests;
