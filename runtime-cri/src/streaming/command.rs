//! Commands and programs: the protocol `v4.channel.k8s.io`.

use futures::future::BoxFuture;
use futures::{FutureExt, SinkExt};
use orlop_core::env::Env;
use orlop_core::runtime::{Process, RuntimeError, TerminalSize};
use orlop_wire::stream::mux::{Headers, Stream};
use serde_json::Value;

use super::{broken, connect, report, sink, stream};

/// The protocol: an end is told as a `Status` of Kubernetes' API, and terminals can be resized.
const PROTOCOL: &str = "v4.channel.k8s.io";

/// Which streams are wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) tty: bool,
}

impl Wanted {
    /// What is asked of the engine: it refuses a request for no stream at all.
    pub(crate) fn asked(self) -> Self {
        Self {
            stdout: self.stdout || !(self.stdin || self.stderr),
            // A terminal has one output.
            stderr: self.stderr && !self.tty,
            ..self
        }
    }
}

/// The streams at an address of a command that was asked for. It is begun when they all are there.
pub(crate) async fn command(
    env: &Env,
    address: &str,
    wanted: Wanted,
) -> Result<Process, RuntimeError> {
    let asked = wanted.asked();
    let connection = connect(env, address, &[PROTOCOL]).await?;
    let open = async |kind: &str| -> Result<Stream, RuntimeError> {
        connection
            .open(Headers::new().with("streamtype", kind))
            .await
            .map_err(broken)
    };
    let open_if = async |wanted: bool, kind: &str| match wanted {
        true => open(kind).await.map(Some),
        false => Ok(None),
    };
    let error = open("error").await?;
    let stdin = open_if(asked.stdin, "stdin").await?;
    let stdout = open_if(asked.stdout, "stdout").await?;
    let stderr = open_if(asked.stderr, "stderr").await?;
    let resize = open_if(asked.tty, "resize").await?;
    // What the engine alone sends over is not waited for at its end.
    let (end, _) = error.into_split();
    let receive = |stream: Option<Stream>, wanted: bool| {
        let (receive, _) = stream?.into_split();
        wanted.then_some(receive)
    };
    Ok(Process {
        stdin: stdin.map(|stdin| sink(stdin.into_split().1)),
        stdout: receive(stdout, wanted.stdout).map(stream),
        stderr: receive(stderr, wanted.stderr).map(stream),
        resize: resize.map(|resize| {
            let sizes = resize.into_split().1.sink_map_err(broken);
            let sizes = sizes.with(|size: TerminalSize| {
                let size = format!("{{\"Width\":{},\"Height\":{}}}\n", size.width, size.height);
                std::future::ready(Ok::<_, RuntimeError>(size.into()))
            });
            Box::pin(sizes) as orlop_core::runtime::ResizeSink
        }),
        exit: exit(end),
    })
}

fn exit(
    end: orlop_wire::stream::mux::ReceiveHalf,
) -> BoxFuture<'static, Result<i32, RuntimeError>> {
    async move { code_of(&report(end).await?) }.boxed()
}

/// The exit code that a `Status` tells.
fn code_of(said: &[u8]) -> Result<i32, RuntimeError> {
    let Ok(status) = serde_json::from_slice::<Value>(said) else {
        return Err(match String::from_utf8_lossy(said).trim() {
            "" => RuntimeError::Failed("the engine did not tell how it ended".to_owned()),
            text => RuntimeError::Failed(text.to_owned()),
        });
    };
    if status["status"] == "Success" {
        return Ok(0);
    }
    let causes = status["details"]["causes"].as_array();
    let code = causes
        .into_iter()
        .flatten()
        .find(|cause| cause["reason"] == "ExitCode");
    let code = code.and_then(|cause| cause["message"].as_str()?.parse().ok());
    match code {
        Some(code) if status["reason"] == "NonZeroExitCode" => Ok(code),
        _ => Err(RuntimeError::Failed(
            own_words(status["message"].as_str().unwrap_or("the command failed")).to_owned(),
        )),
    }
}

/// What an engine says without what its streaming server puts before it: it is the kubelet's as a library, and says the same as the
/// kubelet that passes this on. It would be said twice.
fn own_words(message: &str) -> &str {
    let message = message
        .strip_prefix("Internal error occurred: ")
        .unwrap_or(message);
    let tried = [
        "error executing command in container: ",
        "error attaching to container: ",
    ];
    let own = tried.iter().find_map(|tried| message.strip_prefix(tried));
    own.unwrap_or(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_tells_the_code() {
        assert_eq!(code_of(br#"{"metadata":{},"status":"Success"}"#), Ok(0));
        let failed = br#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code",
            "reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#;
        assert_eq!(code_of(failed), Ok(7));
        let refused = br#"{"metadata":{},"status":"Failure","message":"no such program","reason":"InternalError"}"#;
        assert_eq!(
            code_of(refused),
            Err(RuntimeError::Failed("no such program".to_owned()))
        );
        for tried in ["executing command in", "attaching to"] {
            let wrapped = format!(
                r#"{{"status":"Failure","reason":"InternalError","message":"Internal error occurred: error {tried} container: it is over: unknown"}}"#
            );
            assert_eq!(
                code_of(wrapped.as_bytes()),
                Err(RuntimeError::Failed("it is over: unknown".to_owned()))
            );
        }
        assert_eq!(
            code_of(b"oops"),
            Err(RuntimeError::Failed("oops".to_owned()))
        );
        assert!(code_of(b"").is_err());
    }

    #[test]
    fn something_is_always_asked_for() {
        let nothing = Wanted {
            stdin: false,
            stdout: false,
            stderr: false,
            tty: false,
        };
        assert!(nothing.asked().stdout);
        let errors = Wanted {
            stderr: true,
            ..nothing
        };
        assert!(!errors.asked().stdout);
        let terminal = Wanted {
            tty: true,
            ..errors
        };
        assert!(!terminal.asked().stderr);
    }
}
