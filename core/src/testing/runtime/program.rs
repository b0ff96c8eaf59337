//! The programs that a simulated runtime acts as if it ran.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures::channel::mpsc;
use futures::future::{Either, select};
use futures::{SinkExt, StreamExt, sink};
use tokio::sync::{oneshot, watch};

use super::KILLED;
use crate::env::{Env, TaskGroup};
use crate::runtime::{ByteSink, ByteStream, ExecRequest, Process, ResizeSink, RuntimeError};

/// How many chunks a stream holds that were not read yet.
pub(super) const CHUNKS: usize = 8;

/// The exit code of a program that wrote where nobody reads.
const BROKEN_PIPE: i32 = 141;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Program {
    /// Ends at once, with what it writes and its code.
    Instant(Bytes, i32),
    /// Ends after a while.
    Sleep(Duration),
    /// Writes what it reads, until there is no more to read.
    Cat,
    /// Runs until it is stopped.
    Forever,
}

impl Program {
    /// The program of a command line; `None` for one that is not known.
    pub(super) fn parse(words: &[String]) -> Option<Self> {
        let (name, arguments) = words.split_first()?;
        match name.rsplit('/').next()? {
            "true" => Some(Self::Instant(Bytes::new(), 0)),
            "false" => Some(Self::Instant(Bytes::new(), 1)),
            "echo" => Some(Self::Instant(
                format!("{}\n", arguments.join(" ")).into(),
                0,
            )),
            "cat" if arguments.is_empty() => Some(Self::Cat),
            "sleep" => match arguments {
                [infinity] if infinity == "infinity" => Some(Self::Forever),
                [seconds] => seconds
                    .parse()
                    .ok()
                    .map(|seconds| Self::Sleep(Duration::from_secs(seconds))),
                _ => None,
            },
            _ => None,
        }
    }

    /// Acts as if the program ran, and returns its exit code. `write` says whether anybody still reads.
    pub(super) async fn run<Fut: Future<Output = bool>>(
        self,
        env: &Env,
        input: Option<mpsc::Receiver<Bytes>>,
        write: impl Fn(Bytes) -> Fut,
    ) -> i32 {
        match self {
            Self::Instant(output, code) => {
                if !output.is_empty() {
                    write(output).await;
                }
                code
            }
            Self::Sleep(duration) => {
                env.sleep(duration).await;
                0
            }
            Self::Cat => {
                let Some(mut input) = input else {
                    return 0;
                };
                while let Some(chunk) = input.next().await {
                    if !write(chunk).await {
                        return BROKEN_PIPE;
                    }
                }
                0
            }
            Self::Forever => futures::future::pending().await,
        }
    }
}

/// Acts as if a program ran in a container beside its own, until it ends, the container does, or nobody waits for it any more.
pub(super) fn exec(
    program: Program,
    request: &ExecRequest,
    mut container: watch::Receiver<Option<i32>>,
    tasks: &TaskGroup,
) -> Process {
    let (stdin, input) = mpsc::channel(CHUNKS);
    let (output_sender, stdout) = mpsc::channel(CHUNKS);
    let (mut exit_sender, exit) = oneshot::channel();
    // Without a standard input there is nothing to read.
    let stdin = request.stdin.then(|| sink(stdin));
    // An output that is not wanted is thrown away.
    let wanted = request.stdout;
    let stdout = wanted.then(|| output(stdout));
    let env = tasks.env().clone();
    tasks.spawn_until_cancelled("simulated exec", async move {
        let write = |chunk| {
            let mut sender = output_sender.clone();
            async move { !wanted || sender.send(chunk).await.is_ok() }
        };
        let code = {
            let run = std::pin::pin!(program.run(&env, Some(input), write));
            let container = std::pin::pin!(container.wait_for(Option::is_some));
            let given_up = std::pin::pin!(exit_sender.closed());
            match select(run, select(container, given_up)).await {
                Either::Left((code, _)) => code,
                Either::Right(_) => KILLED,
            }
        };
        drop(output_sender);
        let _ = exit_sender.send(code);
    });
    Process {
        stdin,
        stdout,
        stderr: (request.stderr && !request.tty).then(|| futures::stream::empty().boxed()),
        resize: request.tty.then(resize),
        exit: Box::pin(async move { Ok(exit.await.unwrap_or(KILLED)) }),
    }
}

/// The writing end of a stream.
pub(super) fn sink(sender: mpsc::Sender<Bytes>) -> ByteSink {
    Box::pin(sender.sink_map_err(|_| RuntimeError::Failed("the other side has closed".to_owned())))
}

/// The reading end of a stream.
pub(super) fn output(receiver: mpsc::Receiver<Bytes>) -> ByteStream {
    Box::pin(receiver.map(Ok))
}

/// Takes the sizes of a terminal that nothing is drawn on.
pub(super) fn resize() -> ResizeSink {
    Box::pin(sink::drain().sink_map_err(|never| match never {}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Option<Program> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Program::parse(&words)
    }

    #[test]
    fn a_few_programs_are_known() {
        assert_eq!(parse("/bin/true"), Some(Program::Instant(Bytes::new(), 0)));
        assert_eq!(parse("echo a b"), Some(Program::Instant("a b\n".into(), 0)));
        assert_eq!(
            parse("sleep 3"),
            Some(Program::Sleep(Duration::from_secs(3)))
        );
        assert_eq!(parse("sleep infinity"), Some(Program::Forever));
        assert_eq!(parse("sleep soon"), None);
        assert_eq!(parse("nginx -g x"), None);
        assert_eq!(parse(""), None);
    }
}
