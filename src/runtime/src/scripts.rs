//! Scripts outside the process: workers are started when there is something to call, fed in batches, killed when they are
//! late, and replaced. Which call goes where, and who is to blame when a worker ends, is the [`pool`]'s; here are the
//! processes, on a thread of their own.
//!
//! ```text
//! Action::Call -> Scripts::submit -> the thread -> pool -> pipe -> worker (this binary, `script-worker`)
//!                 driver's mailbox <- Mail::Called <-'  ^-- pipe <-'
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gateway::{Calls, Peer, ProgramId, Ticket};
use parking_lot::Mutex;
use scripts::pipe::Limits;
use tokio::sync::{Notify, mpsc};

use crate::house::House;
use crate::mailbox::Mail;

pub mod once;
mod pool;
mod process;
mod record;
mod ward;

use pool::{Do, Pool};
use process::{Event, Process};

pub(crate) use pool::Program;
pub use record::ScriptFigures;
pub(crate) use record::{Records, Sample};

/// What supervisors and drivers share. Calls that nobody takes, since there are no workers, wait.
#[derive(Default)]
pub struct Scripts {
    inbox: Mutex<Vec<Letter>>,
    wake: Notify,
    last: AtomicU64,
    pub(crate) records: Arc<Records>,
}

/// Who is told what came of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    /// Of this driver.
    pub(crate) driver: u16,
    /// Whose machine asked.
    pub(crate) peer: Peer,
    /// With this ticket.
    pub(crate) ticket: Ticket,
}

enum Letter {
    Call(Asker, Calls),
    Bring(ProgramId, Program),
    Want(ProgramId, bool),
    Forget(ProgramId),
}

impl Scripts {
    /// Has calls made; what came of them goes to the driver as [`Mail::Called`].
    pub(crate) fn submit(&self, asker: Asker, calls: Calls) {
        self.leave(Letter::Call(asker, calls));
    }

    /// A program that may be called from now on.
    pub(crate) fn bring(&self, program: Program) -> ProgramId {
        let id = ProgramId(self.last.fetch_add(1, Ordering::Relaxed) + 1);
        self.leave(Letter::Bring(id, program));
        id
    }

    /// Whether devices use the program; what nobody uses takes no memory in workers.
    pub(crate) fn want(&self, id: ProgramId, is_wanted: bool) {
        self.leave(Letter::Want(id, is_wanted));
    }

    /// The program is not kept any more.
    pub(crate) fn forget(&self, id: ProgramId) {
        self.leave(Letter::Forget(id));
    }

    fn leave(&self, letter: Letter) {
        let mut inbox = self.inbox.lock();
        let was_empty = inbox.is_empty();
        inbox.push(letter);
        drop(inbox);
        if was_empty {
            self.wake.notify_one();
        }
    }
}

/// Serves calls until the task is ended, with so many workers for all and one for those that have to be kept apart.
pub(crate) async fn serve(house: Arc<House>, workers: usize, limits: Limits) {
    let (sender, mut events) = mpsc::unbounded_channel();
    let mut shell = Shell {
        pool: Pool::new(workers, limits, house.scripts.records.clone()),
        processes: (0..=workers).map(|_| None).collect(),
        mail: house.boxes.iter().map(|_| Vec::new()).collect(),
        house,
        events: sender,
    };
    let mut letters = Vec::new();
    loop {
        let until = shell.pool.next_timeout().map(|at| shell.house.clock.until(at));
        let sleep = async {
            match until {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shell.house.scripts.wake.notified() => {}
            event = events.recv() => shell.hear(event),
            () = sleep => {}
        }
        while let Ok(event) = events.try_recv() {
            shell.hear(Some(event));
        }
        std::mem::swap(&mut letters, &mut *shell.house.scripts.inbox.lock());
        letters.drain(..).for_each(|letter| shell.read(letter));
        shell.pool.timeout(shell.house.clock.now().instant);
        shell.act();
    }
}

/// The pool, and what carries out what it wants.
struct Shell {
    house: Arc<House>,
    pool: Pool<Asker>,
    processes: Vec<Option<Process>>,
    /// By driver.
    mail: Vec<Vec<Mail>>,
    events: mpsc::UnboundedSender<Event>,
}

impl Shell {
    fn hear(&mut self, event: Option<Event>) {
        let now = self.house.clock.now().instant;
        match event {
            Some(Event::Said(at, generation, responses)) => {
                for response in responses {
                    self.pool.heard(now, at, generation, response);
                }
            }
            Some(Event::Gone(at, generation, why)) => self.pool.gone(now, at, generation, &why),
            // One sender is kept here: this does not happen.
            None => {}
        }
    }

    fn read(&mut self, letter: Letter) {
        let now = self.house.clock.now().instant;
        match letter {
            Letter::Call(asker, calls) => self.pool.submit(now, asker, calls),
            Letter::Bring(id, program) => self.pool.bring(id, program),
            Letter::Want(id, is_wanted) => self.pool.want(id, is_wanted),
            Letter::Forget(id) => self.pool.forget(now, id),
        }
    }

    fn act(&mut self) {
        for each in std::mem::take(&mut self.pool.out) {
            match each {
                Do::Start(at, generation) => {
                    self.processes[at] = Some(Process::start(at, generation, self.events.clone()));
                }
                Do::Kill(at) => self.processes[at] = None,
                Do::Answer(asker, results) => {
                    if let Some(mail) = self.mail.get_mut(usize::from(asker.driver)) {
                        mail.push(Mail::Called(asker.peer, asker.ticket, results));
                    }
                }
                Do::Log(device, lines) => {
                    let wall_ms = self.house.clock.now().wall_ms;
                    for line in lines {
                        self.house.traces.note(wall_ms, &device, &line);
                    }
                }
            }
        }
        for (at, process) in self.processes.iter().enumerate() {
            if let (Some(process), Some(output)) = (process, self.pool.output(at)) {
                process.write(output);
            }
        }
        for (mailbox, mail) in self.house.boxes.iter().zip(&mut self.mail) {
            mailbox.append(mail);
        }
    }
}
