//! One worker as the pool sees it: what waits for it, what it was sent, and since when it owes an answer.

use std::collections::VecDeque;
use std::time::Duration;

use gateway::{Instant, ProgramId};
use hashbrown::HashSet;
use scripts::pipe::Request;

use super::{Job, START, WINDOW, WINDOW_BYTES};

/// Pauses between deaths of a worker that has done nothing in between.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(10);

/// Where a worker's process is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    /// There is none, since there was nothing to do.
    #[default]
    Off,
    /// It was started and has not said that it is there.
    Starting,
    /// It works.
    Ready,
    /// There is to be none before this moment.
    Resting(Instant),
}

/// What a worker was sent and has not answered.
pub(super) enum Sent<T> {
    Load(ProgramId),
    Calls(u64, Job<T>),
}

impl<T> Sent<T> {
    /// Whether it is a call of this program.
    pub(super) fn is_of(&self, id: ProgramId) -> bool {
        matches!(self, Sent::Calls(_, job) if job.calls.program == id)
    }
}

/// See the module.
pub(super) struct Worker<T> {
    pub(super) state: State,
    /// Which process it is.
    pub(super) generation: u32,
    pub(super) queue: VecDeque<Job<T>>,
    pub(super) sent: VecDeque<Sent<T>>,
    pub(super) loaded: HashSet<ProgramId>,
    pub(super) output: Vec<u8>,
    /// Since when it has been busy with what it owes.
    since: Instant,
    /// It has answered since then, and has had something to do all the time.
    is_going: bool,
    calls: usize,
    bytes: usize,
    pause: Duration,
}

impl<T> Default for Worker<T> {
    fn default() -> Self {
        Worker {
            state: State::Off,
            generation: 0,
            queue: VecDeque::new(),
            sent: VecDeque::new(),
            loaded: HashSet::new(),
            output: Vec::new(),
            since: Instant::default(),
            is_going: false,
            calls: 0,
            bytes: 0,
            pause: Duration::ZERO,
        }
    }
}

impl<T> Worker<T> {
    /// Whether there is a process.
    pub(super) fn is_alive(&self) -> bool {
        matches!(self.state, State::Starting | State::Ready)
    }

    /// Whether it can be sent something; a pause that is over ends.
    pub(super) fn is_ready(&mut self, now: Instant) -> bool {
        if let State::Resting(until) = self.state
            && until <= now
        {
            self.state = State::Off;
        }
        self.state == State::Ready
    }

    /// A new process: its generation.
    pub(super) fn start(&mut self, now: Instant) -> u32 {
        self.state = State::Starting;
        self.since = now;
        self.generation = self.generation.wrapping_add(1);
        self.generation
    }

    /// When something has to have happened.
    pub(super) fn deadline(&self, limit: Duration) -> Option<Instant> {
        match self.state {
            State::Off => None,
            State::Starting => Some(self.since + START),
            State::Ready => (!self.sent.is_empty()).then(|| self.since + limit),
            State::Resting(until) => (!self.queue.is_empty()).then_some(until),
        }
    }

    /// Whether one more may be sent; one that goes alone, or after one that went alone, only when nothing else is there.
    pub(super) fn has_room(&self, is_alone: bool) -> bool {
        let last_is_alone = matches!(self.sent.back(), Some(Sent::Calls(_, job)) if job.deaths > 0);
        let is_full = is_alone || last_is_alone || self.calls >= WINDOW || self.bytes >= WINDOW_BYTES;
        self.sent.is_empty() || !is_full
    }

    /// Writes a job, after its program if the worker has not seen it yet. What the pipe does not take is given back.
    pub(super) fn send(
        &mut self,
        now: Instant,
        seq: u64,
        load: Option<Request>,
        mut job: Job<T>,
    ) -> Result<(), Job<T>> {
        job.trim();
        if self.sent.is_empty() {
            (self.since, self.is_going) = (now, false);
        }
        if let Some(load) = load {
            if load.encode(&mut self.output).is_err() {
                return Err(job);
            }
            self.loaded.insert(job.calls.program);
            self.sent.push_back(Sent::Load(job.calls.program));
        }
        let request = Request::Calls { seq, calls: job.calls };
        let encoded = request.encode(&mut self.output);
        if let Request::Calls { calls, .. } = request {
            job.calls = calls;
            if encoded.is_err() {
                return Err(job);
            }
            self.calls += job.calls.inputs.len();
            self.bytes += job.calls.inputs.iter().map(|i| i.len()).sum::<usize>();
            self.sent.push_back(Sent::Calls(seq, job));
        }
        Ok(())
    }

    /// Has the worker forget a program.
    pub(super) fn unload(&mut self, id: ProgramId) {
        if self.loaded.remove(&id) {
            // A number is never too long.
            let _ = Request::Unload(id).encode(&mut self.output);
        }
    }

    /// The program is ready, or refused. False if that was not the question.
    pub(super) fn answered_load(&mut self, now: Instant, program: ProgramId) -> bool {
        let is_asked = matches!(self.sent.front(), Some(Sent::Load(id)) if *id == program);
        if is_asked {
            self.sent.pop_front();
            self.since = now;
        }
        is_asked
    }

    /// The job whose next input was answered, how long that took, and whether that is the call's own time alone, without the
    /// way to a worker that had nothing to do. None if that was not the question.
    pub(super) fn answered_call(
        &mut self,
        now: Instant,
        seq: u64,
        index: u32,
    ) -> Option<(&mut Job<T>, Duration, bool)> {
        let Some(Sent::Calls(asked, job)) = self.sent.front_mut() else { return None };
        let place = job.results.len() - job.base;
        if *asked != seq || u32::try_from(place) != Ok(index) {
            return None;
        }
        let (took, is_own) = (now.since(self.since), self.is_going);
        (self.since, self.is_going) = (now, true);
        self.pause = Duration::ZERO;
        self.calls = self.calls.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(job.calls.inputs.get(place)?.len());
        Some((job, took, is_own))
    }

    /// The first job, if every input has its answer.
    pub(super) fn take_done(&mut self) -> Option<Job<T>> {
        let is_done =
            matches!(self.sent.front(), Some(Sent::Calls(_, job)) if job.results.len() == job.load.calls);
        match is_done.then(|| self.sent.pop_front()).flatten() {
            Some(Sent::Calls(_, job)) => Some(job),
            _ => None,
        }
    }

    /// The process is no more: what it was sent and has not done.
    pub(super) fn end(&mut self) -> VecDeque<Job<T>> {
        self.state = State::Off;
        self.generation = self.generation.wrapping_add(1);
        self.loaded.clear();
        self.output.clear();
        (self.calls, self.bytes) = (0, 0);
        let jobs = |sent| match sent {
            Sent::Load(_) => None,
            Sent::Calls(_, job) => Some(job),
        };
        self.sent.drain(..).filter_map(jobs).collect()
    }

    /// There is no new process for a while if the last ones have done nothing.
    pub(super) fn rest(&mut self, now: Instant) {
        if !self.pause.is_zero() {
            self.state = State::Resting(now + self.pause);
        }
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LAST_PAUSE);
    }
}
