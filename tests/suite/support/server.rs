//! The program itself: `orlop up`, started, waited for, and never left behind.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;

use orlop::wire::kubeconfig::{ClientConfig, Kubeconfig};
use tempfile::TempDir;

/// A running `orlop up`. It is killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    /// Kept open, so that the program may go on to print.
    _stdout: BufReader<ChildStdout>,
    directory: Arc<TempDir>,
    url: String,
    /// What it said until it was ready.
    pub(crate) said: String,
}

/// The command line of the program on a data directory, with a free port.
fn command(data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orlop"));
    command.arg("up").arg("--data-dir").arg(data);
    if !arguments.contains(&"--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    // What a test does not choose must not depend on the machine.
    if !arguments.contains(&"--runtime") {
        command.args(["--runtime", "sim"]);
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs the program where it is expected to give up.
pub(crate) fn run_to_end(data: &Path, arguments: &[&str]) -> Output {
    command(data, arguments).output().unwrap()
}

impl Server {
    /// A server in a new directory.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("orlop-test-")
            .tempdir()
            .unwrap();
        Self::start_in(&Arc::new(directory), arguments)
    }

    /// A server in a directory that may hold what another one left.
    pub(crate) fn start_in(directory: &Arc<TempDir>, arguments: &[&str]) -> Self {
        let command = command(&directory.path().join("data"), arguments);
        Self::spawn(directory, command)
    }

    /// `orlop apiserver` alone, in such a directory.
    pub(crate) fn api_alone(directory: &Arc<TempDir>, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orlop"));
        command.args([
            "apiserver",
            "--bind-address",
            "127.0.0.1",
            "--secure-port",
            "0",
        ]);
        command.arg("--data-dir").arg(directory.path().join("data"));
        command.args(arguments).stdin(Stdio::null());
        Self::spawn(directory, command)
    }

    fn spawn(directory: &Arc<TempDir>, mut command: Command) -> Self {
        let log = directory.path().join("stderr");
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        let url = loop {
            let begin = said.len();
            if stdout.read_line(&mut said).unwrap() == 0 {
                let _ = child.wait();
                panic!(
                    "orlop ended: {said}\n{}",
                    std::fs::read_to_string(&log).unwrap_or_default()
                );
            }
            if let Some((_, rest)) = said[begin..].split_once(" ms at ") {
                break rest.split(';').next().unwrap_or_default().to_owned();
            }
        };
        Self {
            child,
            _stdout: stdout,
            directory: directory.clone(),
            url,
            said,
        }
    }

    /// The directory of the test: the data directory is `data` in it.
    pub(crate) fn directory(&self) -> &Arc<TempDir> {
        &self.directory
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.data().join("kubeconfig")
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// How the administrator connects.
    pub(crate) fn config(&self) -> ClientConfig {
        Kubeconfig::load(&self.kubeconfig())
            .unwrap()
            .resolve(None)
            .unwrap()
    }

    /// What it wrote to stderr so far.
    pub(crate) fn stderr(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("stderr")).unwrap()
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.child.id().to_string())
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Waits for the end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- stderr of orlop ---\n{}", self.stderr());
        }
    }
}
