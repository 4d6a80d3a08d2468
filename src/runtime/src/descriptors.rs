//! How many sockets the process may have open: who connects may not take those that the operator, the store and scripts need.

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

/// Left for everything that is no client's connection; a quarter where there are few.
const RESERVE: usize = 256;

/// Raises the limit of open files as far as the system lets it (a shell's own is 1,024), and returns how many connections
/// there may be.
pub(crate) fn most_connections() -> usize {
    // That it cannot be read says that there is none.
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((rlim_t::MAX, rlim_t::MAX));
    let is_raised = soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    room(if is_raised { hard } else { soft })
}

fn room(limit: rlim_t) -> usize {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    limit - RESERVE.min(limit / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_what_there_is_is_left_for_others() {
        assert_eq!([room(0), room(40), room(1024), room(1 << 20)], [0, 30, 768, (1 << 20) - 256]);
        assert_eq!(room(rlim_t::MAX), usize::MAX - RESERVE);
    }
}
