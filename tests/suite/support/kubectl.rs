//! The real kubectl, with a home of its own, so that no cache is shared.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::{Server, eventually};

/// kubectl in one namespace of one server, working in the server's directory.
pub(crate) struct Kubectl<'a> {
    server: &'a Server,
    namespace: String,
}

/// Words, separated by blanks; what stands in single quotes is one.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            c if c.is_whitespace() && !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl<'a> Kubectl<'a> {
    /// Whether there is a kubectl. Where there is none, says which test is skipped.
    pub(crate) fn is_there(test: &str) -> bool {
        let there = Command::new("kubectl")
            .args(["version", "--client"])
            .output()
            .is_ok_and(|out| out.status.success());
        if !there {
            println!("SKIPPED {test}: kubectl is not on PATH");
        }
        there
    }

    /// kubectl in the namespace `default`.
    pub(crate) fn new(server: &'a Server) -> Self {
        Self {
            server,
            namespace: "default".to_owned(),
        }
    }

    /// kubectl in another namespace, which is made.
    pub(crate) fn in_new(server: &'a Server, namespace: &str) -> Self {
        let kubectl = Self::new(server);
        assert_eq!(
            kubectl.ok(&format!("create namespace {namespace}")),
            format!("namespace/{namespace} created\n")
        );
        Self {
            server,
            namespace: namespace.to_owned(),
        }
    }

    /// A command that can be run in a way of its own.
    pub(crate) fn command(&self, line: &str) -> Command {
        let home = self.server.directory().path().join("home");
        std::fs::create_dir_all(&home).unwrap();
        let mut command = Command::new("kubectl");
        command
            .current_dir(self.server.directory().path())
            .env("HOME", &home)
            .env("KUBECONFIG", self.server.kubeconfig())
            .env_remove("KUBECTL_EXTERNAL_DIFF")
            .args(["--namespace", &self.namespace])
            .args(words(line))
            .stdin(Stdio::null());
        command
    }

    /// Puts a file beside the server's directory.
    pub(crate) fn file(&self, name: &str, content: &str) {
        std::fs::write(self.server.directory().path().join(name), content).unwrap();
    }

    pub(crate) fn path(&self) -> &Path {
        self.server.directory().path()
    }

    pub(crate) fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    /// Runs it and gives what it printed.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub(crate) fn ok(&self, line: &str) -> String {
        let output = self.run(line);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "kubectl {line}\n{out}{err}");
        out
    }

    /// Runs it with something on its standard input.
    #[track_caller]
    pub(crate) fn feed(&self, line: &str, input: &str) -> Output {
        let mut child = self
            .command(line)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap()
    }

    /// What it prints, as JSON.
    #[track_caller]
    pub(crate) fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.ok(&format!("{line} -o json"))).unwrap()
    }

    /// Runs it where it is to fail, and gives what it says on stderr.
    ///
    /// # Panics
    /// When it succeeds.
    #[track_caller]
    pub(crate) fn fails(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(
            !output.status.success(),
            "kubectl {line} succeeded:\n{}",
            text(&output.stdout)
        );
        text(&output.stderr).trim_end().to_owned()
    }

    /// Checks what it says on stderr, failing.
    #[track_caller]
    pub(crate) fn refused(&self, line: &str, error: &str) {
        assert_eq!(self.fails(line), error, "kubectl {line}");
    }

    /// Runs it until it prints what is wanted.
    #[track_caller]
    pub(crate) fn until(&self, line: &str, wanted: impl Fn(&str) -> bool) -> String {
        eventually(line, || {
            let output = self.run(line);
            let out = text(&output.stdout);
            (output.status.success() && wanted(&out)).then_some(out)
        })
    }
}
