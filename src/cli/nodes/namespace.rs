//! Network namespaces: making them, and doing things inside.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::cli::Failure;

/// Where `ip netns` keeps its namespaces.
const NAMESPACES: &str = "/run/netns";

/// A network namespace with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Namespace {
    name: String,
}

impl Namespace {
    pub(super) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(NAMESPACES).join(&self.name)
    }

    /// Makes it, if it is not there.
    pub(super) fn ensure(&self) -> Result<(), Failure> {
        if self.path().exists() {
            return Ok(());
        }
        ip(&["netns", "add", &self.name])?;
        self.ip(&["link", "set", "lo", "up"])
    }

    /// Removes it, with all interfaces in it. Succeeds if it is not there.
    pub(super) fn remove(&self) -> Result<(), Failure> {
        if !self.path().exists() {
            return Ok(());
        }
        ip(&["netns", "del", &self.name])
    }

    /// Runs `ip` on what is inside.
    pub(super) fn ip(&self, arguments: &[&str]) -> Result<(), Failure> {
        let mut all = vec!["-n", &self.name];
        all.extend(arguments);
        ip(&all)
    }

    /// Does something inside, on a thread of its own: only the thread moves, and only its network. (`ip netns exec` would also change
    /// the mounts, and hide the cgroups.) What it starts stays inside.
    pub(super) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Failure> {
        let path = self.path();
        let namespace = File::open(&path)
            .map_err(|error| Failure::new(format!("cannot open {}: {error}", path.display())))?;
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .map(|()| work())
            });
            match inside.join() {
                Ok(Ok(done)) => Ok(done),
                Ok(Err(error)) => Err(Failure::new(format!(
                    "cannot enter the network namespace {}: {error}",
                    self.name
                ))),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Sets a kernel parameter of the network inside, by its path below `/proc/sys/net`.
    pub(super) fn set(&self, parameter: &str, value: &str) -> Result<(), Failure> {
        self.enter(|| set(parameter, value))?
    }
}

/// Sets a kernel parameter of the network here, by its path below `/proc/sys/net`.
pub(super) fn set(parameter: &str, value: &str) -> Result<(), Failure> {
    // What is below is that of the network namespace of the thread that opens it.
    let path = format!("/proc/sys/net/{parameter}");
    std::fs::write(&path, value)
        .map_err(|error| Failure::new(format!("cannot set net/{parameter}: {error}")))
}

/// Runs `ip`.
pub(super) fn ip(arguments: &[&str]) -> Result<(), Failure> {
    run("ip", arguments).map(drop)
}

/// Runs a program to its end and gives what it printed.
pub(super) fn run(program: &str, arguments: &[&str]) -> Result<String, Failure> {
    feed(program, arguments, "")
}

/// Runs a program with something on its standard input.
pub(super) fn feed(program: &str, arguments: &[&str], input: &str) -> Result<String, Failure> {
    use std::io::Write;
    use std::process::Stdio;
    let says = |what: &str| Failure::new(format!("{program} {}: {what}", arguments.join(" ")));
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| says(&error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read is told by its exit code.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(|error| says(&error.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    let error = error.trim();
    Err(says(if error.is_empty() { "failed" } else { error }))
}
