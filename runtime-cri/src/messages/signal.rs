//! Signals by their numbers in CRI, which are not those of any machine.

use orlop_core::runtime::Signal;

/// By number: after the first, which means that nothing is said, by the alphabet, but for the real-time signals.
const NAMES: [&str; 66] = [
    "",
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGRTMIN",
    "SIGRTMIN+1",
    "SIGRTMIN+2",
    "SIGRTMIN+3",
    "SIGRTMIN+4",
    "SIGRTMIN+5",
    "SIGRTMIN+6",
    "SIGRTMIN+7",
    "SIGRTMIN+8",
    "SIGRTMIN+9",
    "SIGRTMIN+10",
    "SIGRTMIN+11",
    "SIGRTMIN+12",
    "SIGRTMIN+13",
    "SIGRTMIN+14",
    "SIGRTMIN+15",
    "SIGRTMAX-14",
    "SIGRTMAX-13",
    "SIGRTMAX-12",
    "SIGRTMAX-11",
    "SIGRTMAX-10",
    "SIGRTMAX-9",
    "SIGRTMAX-8",
    "SIGRTMAX-7",
    "SIGRTMAX-6",
    "SIGRTMAX-5",
    "SIGRTMAX-4",
    "SIGRTMAX-3",
    "SIGRTMAX-2",
    "SIGRTMAX-1",
    "SIGRTMAX",
];

/// The number of a signal; zero for none.
pub(crate) fn number(signal: Option<&Signal>) -> i32 {
    let place = signal.and_then(|signal| NAMES.iter().position(|name| *name == signal.as_str()));
    // At most 65.
    place.unwrap_or(0) as i32
}

/// The signal of a number; `None` for zero and for what is none.
pub(crate) fn named(number: i32) -> Option<Signal> {
    Signal::parse(NAMES.get(usize::try_from(number).ok()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_belong_together() {
        for number_ in 1..66 {
            let signal = named(number_).unwrap();
            assert_eq!(number(Some(&signal)), number_);
        }
        assert_eq!((named(0), named(66), named(-1)), (None, None, None));
        // Numbers of the protocol's own list.
        for (name, wanted) in [
            ("SIGQUIT", 18),
            ("SIGTERM", 23),
            ("SIGUSR2", 30),
            ("SIGRTMIN+15", 50),
            ("SIGRTMAX-14", 51),
            ("SIGRTMAX", 65),
        ] {
            assert_eq!(number(Signal::parse(name).as_ref()), wanted);
        }
    }
}
