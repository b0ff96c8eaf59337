//! Other programs, bounded in time and output.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use orlop_core::env::Env;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use crate::Error;

/// How much of what a program complains about is kept, in bytes.
const COMPLAINT: u64 = 4096;
/// The longest line that is read, in bytes.
const LINE: u64 = 64 * 1024;

/// Runs programs.
#[derive(Clone, Debug)]
pub(crate) struct Exec {
    env: Env,
    prefix: Vec<String>,
}

/// What is done with what a program writes to its standard output.
enum Output<'a> {
    Collect(usize),
    Lines(&'a mut (dyn FnMut(&str) + Send)),
}

impl Exec {
    /// `prefix` stands before every command.
    pub(crate) fn new(env: Env, prefix: Vec<String>) -> Self {
        Self { env, prefix }
    }

    /// Runs a program to its end and returns its output.
    pub(crate) async fn run(
        &self,
        program: &str,
        arguments: &[&str],
        input: &str,
        output: usize,
        limit: Duration,
    ) -> Result<Vec<u8>, Error> {
        self.bounded(program, arguments, input, Output::Collect(output), limit)
            .await
    }

    /// Runs a program and shows its output line by line, however much that is.
    pub(crate) async fn lines(
        &self,
        program: &str,
        arguments: &[&str],
        limit: Duration,
        each: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), Error> {
        self.bounded(program, arguments, "", Output::Lines(each), limit)
            .await
            .map(drop)
    }

    async fn bounded(
        &self,
        program: &str,
        arguments: &[&str],
        input: &str,
        output: Output<'_>,
        limit: Duration,
    ) -> Result<Vec<u8>, Error> {
        let run = self.spawned(program, arguments, input, output);
        // Dropped unfinished, the program is killed.
        self.env.timeout(limit, run).await.unwrap_or_else(|_| {
            Err(Error::TimedOut {
                program: program.to_owned(),
                limit,
            })
        })
    }

    async fn spawned(
        &self,
        program: &str,
        arguments: &[&str],
        input: &str,
        output: Output<'_>,
    ) -> Result<Vec<u8>, Error> {
        let failed = |source: io::Error| Error::Program {
            program: program.to_owned(),
            source,
        };
        let mut command = match self.prefix.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            None => Command::new(program),
        };
        let mut child = command
            .args(arguments)
            // Messages that are read are in English.
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(mut stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(failed(io::ErrorKind::BrokenPipe.into()));
        };
        let feed = async move {
            // A program that ends before it has read everything says why by itself.
            let _ = stdin.write_all(input.as_bytes()).await;
            drop(stdin);
        };
        let most = match output {
            Output::Collect(limit) => limit,
            Output::Lines(_) => usize::MAX,
        };
        let read = async {
            match output {
                Output::Collect(limit) => collect(stdout, limit).await,
                Output::Lines(each) => show_lines(stdout, each).await.map(|()| Some(Vec::new())),
            }
        };
        let ((), read, complaint) = futures::join!(feed, read, complaint(stderr));
        let status = child.wait().await.map_err(failed)?;
        if !status.success() {
            return Err(Error::Refused {
                program: program.to_owned(),
                code: status.code(),
                message: complaint,
            });
        }
        read.map_err(failed)?.ok_or_else(|| Error::TooMuch {
            program: program.to_owned(),
            limit: most,
        })
    }
}

/// Everything, or `None` if it is too much. What is too much is read nevertheless, so that the program can end.
async fn collect(mut from: impl AsyncRead + Unpin, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let mut output = Vec::new();
    (&mut from)
        .take(limit as u64 + 1)
        .read_to_end(&mut output)
        .await?;
    if output.len() <= limit {
        return Ok(Some(output));
    }
    discard(from).await?;
    Ok(None)
}

async fn show_lines(
    from: impl AsyncRead + Unpin,
    each: &mut (dyn FnMut(&str) + Send),
) -> io::Result<()> {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut from).take(LINE).read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        if let Ok(text) = std::str::from_utf8(&line) {
            each(text.trim_end());
        }
    }
}

async fn complaint(mut from: impl AsyncRead + Unpin) -> String {
    let mut text = Vec::new();
    // What can't be read is not said.
    let _ = (&mut from).take(COMPLAINT).read_to_end(&mut text).await;
    let _ = discard(from).await;
    String::from_utf8_lossy(&text).trim().to_owned()
}

async fn discard(mut from: impl AsyncRead + Unpin) -> io::Result<()> {
    let mut rest = [0; 8192];
    while from.read(&mut rest).await? > 0 {}
    Ok(())
}
