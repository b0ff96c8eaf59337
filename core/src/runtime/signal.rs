//! Signals by name.

use std::fmt;

/// Every name that CRI knows, beside the real-time ones.
const NAMES: &[&str] = &[
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
    "SIGRTMAX",
];

/// A signal, by its name in Linux. Names, because numbers differ between machines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(String);

impl Default for Signal {
    /// SIGTERM, which asks a program to stop.
    fn default() -> Self {
        Self("SIGTERM".to_owned())
    }
}

impl Signal {
    /// The signal of a name such as `SIGTERM`, `SIGRTMIN+3` or `SIGRTMAX-2`; `None` for what is none.
    ///
    /// ```
    /// use orlop_core::runtime::Signal;
    /// assert!(Signal::parse("SIGUSR1").is_some());
    /// assert!(Signal::parse("SIGRTMIN+15").is_some());
    /// assert!(Signal::parse("SIGRTMIN+16").is_none());
    /// assert!(Signal::parse("TERM").is_none());
    /// ```
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        // Of the real-time signals the lower half is counted from below, the upper from above.
        let offset = |prefix, last| {
            let number = name.strip_prefix(prefix)?;
            let plain = !number.starts_with('0') && number.bytes().all(|b| b.is_ascii_digit());
            (plain && (1..=last).contains(&number.parse::<u8>().ok()?)).then_some(())
        };
        let known = NAMES.contains(&name)
            || offset("SIGRTMIN+", 15).is_some()
            || offset("SIGRTMAX-", 14).is_some();
        known.then(|| Self(name.to_owned()))
    }

    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
