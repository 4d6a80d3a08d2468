//! The worker: a process that does what it reads from its input, one after the other, and writes what came of it.
//!
//! Answers are written when there is nothing more to do, when many wait, and once a millisecond while something is done: a
//! second thread sees to that, since the first may be in a script that never ends. So whoever kills the worker knows what
//! it was doing: the first input that has no answer.

use std::collections::HashMap;
use std::io::{self, BufReader, Read, Write};
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gateway::{CallFailure, ProgramId};

use crate::confine;
use crate::engine::{Call, Program};
use crate::pipe::{Request, Response, read};

/// Bytes of answers that are written at once.
const MANY: usize = 32 * 1024;
/// How long an answer waits while a script runs.
const TICK: Duration = Duration::from_millis(1);
/// After so many ticks with nothing to do the second thread sleeps until it is woken.
const QUIET: u32 = 20;

/// The subcommand's whole work: gives up every right, then does what standard input says until it ends.
pub fn main() -> ExitCode {
    // Whoever reads the pipe sees its end, and the exit status says why.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("a worker of scripts has failed: {panic}");
        std::process::exit(70);
    }));
    let mut kept = confine::first();
    let output = match Output::start(io::stdout()) {
        Ok(output) => output,
        Err(error) => {
            eprintln!("a worker of scripts cannot start its thread: {error}");
            return ExitCode::FAILURE;
        }
    };
    kept.extend(confine::last());
    match serve(io::stdin().lock(), &output, kept) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("a worker of scripts ends: {error}");
            ExitCode::FAILURE
        }
    }
}

/// As [`main`], without giving anything up: what `kept` says is what `Hello` says.
pub fn run(input: impl Read, output: impl Write + Send + 'static, kept: Vec<String>) -> io::Result<()> {
    serve(input, &Output::start(output)?, kept)
}

fn serve(input: impl Read, output: &Output, kept: Vec<String>) -> io::Result<()> {
    let mut input = BufReader::with_capacity(64 * 1024, input);
    let mut programs: HashMap<ProgramId, Program> = HashMap::new();
    output.say(&Response::Hello(kept))?;
    loop {
        if input.buffer().is_empty() {
            output.rest()?;
        }
        let Some(message) = read(&mut input)? else { return output.rest() };
        output.work();
        act(&mut programs, Request::decode(&message).map_err(io::Error::other)?, output)?;
    }
}

fn act(programs: &mut HashMap<ProgramId, Program>, request: Request, output: &Output) -> io::Result<()> {
    match request {
        Request::Load { program, name, source, limits } => {
            // Dropped first: two of them would take the memory of two.
            programs.remove(&program);
            let response = match Program::load(&name, &source, limits) {
                Ok(loaded) => {
                    let shape = loaded.shape();
                    programs.insert(program, loaded);
                    Response::Loaded { program, shape }
                }
                Err(why) => Response::Refused { program, why },
            };
            output.say(&response)
        }
        Request::Unload(program) => {
            programs.remove(&program);
            Ok(())
        }
        Request::Calls { seq, calls } => {
            let call = Call { device: &calls.device, port: calls.port, wall_ms: calls.wall_ms };
            let mut program = programs.get_mut(&calls.program);
            for (index, input) in (0..).zip(&calls.inputs) {
                let (result, log) = match &mut program {
                    Some(program) => program.call(calls.function, &call, input),
                    None => (Err(CallFailure::Unknown), Vec::new()),
                };
                output.called(program.as_deref_mut(), Response::Called { seq, index, result, log })?;
            }
            Ok(())
        }
        Request::Example { seq, program, function, input } => {
            let mut program = programs.get_mut(&program);
            let (result, log) = match &mut program {
                Some(program) => program.example(function, &input),
                None => (Err(CallFailure::Unknown), Vec::new()),
            };
            output.called(program, Response::Called { seq, index: 0, result, log })
        }
    }
}

/// What is to be written, and the thread that does not forget it.
struct Output(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

struct State {
    waiting: Vec<u8>,
    to: Box<dyn Write + Send>,
    is_working: bool,
    is_asleep: bool,
    is_over: bool,
}

impl Output {
    fn start(to: impl Write + Send + 'static) -> io::Result<Output> {
        let state = State {
            waiting: Vec::with_capacity(2 * MANY),
            to: Box::new(to),
            is_working: false,
            is_asleep: false,
            is_over: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), wake: Condvar::new() });
        let thread = Arc::clone(&shared);
        let builder = std::thread::Builder::new().name("answers".to_owned()).stack_size(128 * 1024);
        let (runs, is_running) = std::sync::mpsc::channel();
        builder.spawn(move || {
            // Whoever waits has not gone.
            let _ = runs.send(());
            thread.tick();
        })?;
        // What a thread asks the kernel for before it runs (rseq) is not allowed any more when rights are given up.
        is_running.recv().map_err(io::Error::other)?;
        Ok(Output(shared))
    }

    /// Something is to be done: nobody rests.
    fn work(&self) {
        let mut state = self.0.lock();
        state.is_working = true;
        if state.is_asleep {
            state.is_asleep = false;
            self.0.wake.notify_one();
        }
    }

    /// All is done: what waits is written.
    fn rest(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.is_working = false;
        state.write()
    }

    fn say(&self, response: &Response) -> io::Result<()> {
        let mut state = self.0.lock();
        response.encode(&mut state.waiting).map_err(io::Error::other)?;
        if state.waiting.len() >= MANY { state.write() } else { Ok(()) }
    }

    /// As `say`; a program that was stopped is made ready again when nobody waits for that any more.
    fn called(&self, program: Option<&mut Program>, response: Response) -> io::Result<()> {
        self.say(&response)?;
        if let Some(program) = program.filter(|program| program.is_spent()) {
            self.0.lock().write()?;
            program.renew();
        }
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.0.lock().is_over = true;
        self.0.wake.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self) {
        let mut quiet = 0;
        let mut state = self.lock();
        while !state.is_over {
            if quiet >= QUIET {
                quiet = 0;
                state.is_asleep = true;
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.is_asleep = false;
                continue;
            }
            state = self.wake.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner).0;
            quiet = if state.is_working { 0 } else { quiet + 1 };
            if state.is_working && state.write().is_err() {
                // The first thread has the same error when it writes next.
                return;
            }
        }
    }
}

impl State {
    fn write(&mut self) -> io::Result<()> {
        if !self.waiting.is_empty() {
            self.to.write_all(&self.waiting)?;
            self.to.flush()?;
            self.waiting.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
