//! What a worker gives up before it reads a script. The engine is a large program in C; whoever finds a hole in it is then
//! in a process that can compute, and write to one pipe.
//!
//! Each step that fails is told, and the others are taken all the same: in a container some are not allowed, and some were
//! taken by whoever started the container.

use std::collections::BTreeMap;
use std::fmt::Display;

use nix::libc;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Gid, Uid, chdir, close, geteuid, setgid, setgroups, setuid};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter_all_threads,
};

/// The user and the group `nobody`, by their number on every system that matters.
const NOBODY: u32 = 65534;
/// Private memory, and all that is mapped: the binary itself, stacks, what malloc reserves.
const LIMITS: [(Resource, u64, &str); 5] = [
    (Resource::RLIMIT_DATA, 256 << 20, "the limit of memory"),
    (Resource::RLIMIT_AS, 1 << 30, "the limit of addresses"),
    (Resource::RLIMIT_CORE, 0, "the limit of core files"),
    (Resource::RLIMIT_FSIZE, 0, "the limit of files"),
    (Resource::RLIMIT_NOFILE, 3, "the limit of descriptors"),
];

/// Collects what failed.
#[derive(Default)]
struct Steps(Vec<String>);

impl Steps {
    fn take<T, E: Display>(&mut self, what: &str, result: Result<T, E>) {
        if let Err(error) = result {
            self.0.push(format!("{what}: {error}"));
        }
    }
}

/// Before the worker's second thread begins. Gives what could not be done.
pub(crate) fn first() -> Vec<String> {
    let mut steps = Steps::default();
    // Ctrl-C goes to all of a terminal, and systemd's stop to all of a service. What devices have sent until then is still
    // read: a worker ends with its input, and with its parent.
    let shared = SigSet::from_iter([Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM]);
    steps.take("not hearing what is the gateway's", shared.thread_block());
    steps.take("chdir to /", chdir("/"));
    steps.take("closing descriptors", close_all());
    if geteuid().is_root() {
        let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        steps.take("setgroups to none", setgroups(&[]));
        steps.take("setgid to nobody", setgid(group));
        steps.take("setuid to nobody", setuid(user));
    }
    for (resource, limit, what) in LIMITS {
        steps.take(what, setrlimit(resource, limit, limit));
    }
    steps.take("no new privileges", prctl::set_no_new_privs());
    steps.take("not dumpable", prctl::set_dumpable(false));
    // After setuid, which forgets it. The pipe's end is the other way to learn that nobody is there any more.
    steps.take("the signal of the parent's end", prctl::set_pdeathsig(Signal::SIGKILL));
    steps.0
}

/// When there are all threads that there will be.
pub(crate) fn last() -> Vec<String> {
    let mut steps = Steps::default();
    steps.take("the limit of processes", setrlimit(Resource::RLIMIT_NPROC, 0, 0));
    let filtered = filter().and_then(|filter| apply_filter_all_threads(&filter).map_err(|e| e.to_string()));
    steps.take("seccomp", filtered);
    steps.0
}

/// Closes all but the first three. Every descriptor of the gateway is closed on exec; whoever has started the gateway may
/// have left some of its own.
fn close_all() -> std::io::Result<()> {
    let number = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse::<i32>().ok();
    let entries = std::fs::read_dir("/proc/self/fd")?.collect::<Result<Vec<_>, _>>()?;
    let numbers: Vec<i32> = entries.into_iter().filter_map(number).collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // One of them was that of the folder, which is closed already.
        let _ = close(number);
    }
    Ok(())
}

/// What a thread that computes, reads and writes asks the kernel for; anything else fails with EPERM.
fn filter() -> Result<BpfProgram, String> {
    let plain = [
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_writev,
        libc::SYS_close,
        libc::SYS_futex,
        libc::SYS_brk,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_clock_gettime,
        libc::SYS_gettimeofday,
        libc::SYS_getrandom,
        libc::SYS_sched_getaffinity,
        libc::SYS_sched_yield,
        libc::SYS_restart_syscall,
        libc::SYS_exit,
        libc::SYS_exit_group,
        libc::SYS_sigaltstack,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        // abort()
        libc::SYS_getpid,
        libc::SYS_gettid,
        libc::SYS_tgkill,
    ];
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = plain.iter().map(|call| (*call, Vec::new())).collect();
    // Memory, but none that can be executed.
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let executable = u64::try_from(libc::PROT_EXEC).map_err(|e| e.to_string())?;
        let condition =
            SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(executable), 0);
        let rule = condition.and_then(|condition| SeccompRule::new(vec![condition]));
        rules.insert(call, vec![rule.map_err(|e| e.to_string())?]);
    }
    let arch: TargetArch = std::env::consts::ARCH.try_into().map_err(|e| format!("{e}"))?;
    let eperm = SeccompAction::Errno(u32::try_from(libc::EPERM).map_err(|e| e.to_string())?);
    let filter = SeccompFilter::new(rules, eperm, SeccompAction::Allow, arch).map_err(|e| e.to_string())?;
    filter.try_into().map_err(|e: seccompiler::BackendError| e.to_string())
}
