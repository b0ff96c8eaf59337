//! Exec, attach and port forwarding.

use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};

use super::{Checked, Context, Failure, checks, ensure, is_wrong_state, refused, same, words};
use crate::runtime::{
    AttachRequest, ByteStream, ContainerId, ExecRequest, RuntimeError, SandboxId, TerminalSize,
};

checks!(
    commands_run_to_their_end,
    commands_read_and_write,
    much_is_carried,
    commands_end_with_their_container,
    terminals,
    bad_commands,
    attached_clients_talk_to_the_program,
    ports_are_forwarded,
);

async fn commands_run_to_their_end(c: &Context) -> Checked {
    let sandbox = c.sandbox().await?;
    let id = c.running(&sandbox, &["sleep", "100000"]).await?;
    let echo = c.runtime().exec_sync(&id, &words(&["echo", "hello"])).await;
    let Some(echo) = c.supported(echo)? else {
        return Ok(());
    };
    same(echo.stdout, b"hello\n".to_vec(), "the output")?;
    same(echo.stderr, Vec::new(), "the errors")?;
    same(echo.code, 0, "the exit code")?;
    let fails = c.runtime().exec_sync(&id, &words(&["false"])).await?;
    same(fails.code, 1, "the exit code of `false`")
}

async fn commands_read_and_write(c: &Context) -> Checked {
    let sandbox = c.sandbox().await?;
    let id = c.running(&sandbox, &["sleep", "100000"]).await?;
    let request = ExecRequest::new(["cat"]).with_stdin();
    let Some(process) = c.supported(c.runtime().exec(&id, &request).await)? else {
        return Ok(());
    };
    let (Some(mut stdin), Some(mut stdout)) = (process.stdin, process.stdout) else {
        return Err(Failure("a stream that was asked for is missing".to_owned()));
    };
    ensure(process.resize.is_none(), "there is a terminal to resize")?;
    for line in ["first\n", "second\n"] {
        c.within("a write", stdin.send(Bytes::from(line))).await??;
        let read = c
            .within("an answer", read(&mut stdout, line.len()))
            .await??;
        same(read, line.as_bytes().to_vec(), "what came back")?;
    }
    c.within("the close", stdin.close()).await??;
    ensure(
        c.within("the end of the output", stdout.next())
            .await?
            .is_none(),
        "there was more to read",
    )?;
    same(
        c.within("the exit", process.exit).await??,
        0,
        "the exit code",
    )
}

async fn much_is_carried(c: &Context) -> Checked {
    const CHUNK: usize = 8 << 10;
    const CHUNKS: usize = 128;
    let sandbox = c.sandbox().await?;
    let id = c.running(&sandbox, &["sleep", "100000"]).await?;
    let request = ExecRequest::new(["cat"]).with_stdin();
    let Some(process) = c.supported(c.runtime().exec(&id, &request).await)? else {
        return Ok(());
    };
    let (Some(mut stdin), Some(mut stdout)) = (process.stdin, process.stdout) else {
        return Err(Failure("a stream that was asked for is missing".to_owned()));
    };
    let write = async {
        for n in 0..CHUNKS {
            // Every chunk is another byte, so that order shows.
            stdin.send(Bytes::from(vec![n as u8; CHUNK])).await?;
        }
        stdin.close().await
    };
    let all = read(&mut stdout, CHUNK * CHUNKS);
    let (written, all) = c
        .within("a mebibyte", async { futures::join!(write, all) })
        .await?;
    written?;
    let ordered = all?
        .chunks(CHUNK)
        .enumerate()
        .all(|(n, chunk)| chunk.iter().all(|byte| *byte == n as u8));
    ensure(ordered, "what came back is not what was sent")
}

async fn commands_end_with_their_container(c: &Context) -> Checked {
    let sandbox = c.sandbox().await?;
    let id = c.running(&sandbox, &["sleep", "100000"]).await?;
    let request = ExecRequest::new(["sleep", "100000"]);
    let Some(process) = c.supported(c.runtime().exec(&id, &request).await)? else {
        return Ok(());
    };
    c.runtime().stop_container(&id, Duration::ZERO).await?;
    let code = c.within("the exit", process.exit).await?;
    ensure(
        code.as_ref().map_or(true, |code| *code != 0),
        "a command ended well although its container was killed",
    )?;
    let late = c.runtime().exec(&id, &request).await;
    refused(late, is_wrong_state, "a command in a container that exited")
}

async fn terminals(c: &Context) -> Checked {
    let sandbox = c.sandbox().await?;
    let id = c.running(&sandbox, &["sleep", "100000"]).await?;
    let request = ExecRequest {
        tty: true,
        stderr: false,
        ..ExecRequest::new(["cat"]).with_stdin()
    };
    let Some(mut process) = c.supported(c.runtime().exec(&id, &request).await)? else {
        return Ok(());
    };
    ensure(process.stderr.is_none(), "a terminal has two outputs")?;
    let Some(resize) = &mut process.resize else {
        return Err(Failure("a terminal cannot be resized".to_owned()));
    };
    let size = TerminalSize {
        width: 120,
        height: 40,
    };
    Ok(c.within("a resize", resize.send(size)).await??)
}

async fn bad_commands(c: &Context) -> Checked {
    let sandbox = c.sandbox().await?;
    let id = c.running(&sandbox, &["sleep", "100000"]).await?;
    let empty = c.runtime().exec(&id, &ExecRequest::default()).await;
    let Some(()) = c.supported(match empty {
        Err(RuntimeError::InvalidRequest(_)) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => return Err(Failure("an empty command ran".to_owned())),
    })?
    else {
        return Ok(());
    };
    // A shell's codes for what cannot be executed, or a refusal: runtimes differ.
    let missing = c
        .runtime()
        .exec_sync(&id, &words(&["/no/such/program"]))
        .await;
    ensure(
        missing.as_ref().map_or(true, |output| output.code != 0),
        "a program that is not there ended well",
    )?;
    let nobody = ContainerId::new("0000000000000000no-such-container");
    refused(
        c.runtime().exec(&nobody, &ExecRequest::new(["true"])).await,
        RuntimeError::is_not_found,
        "a command in an unknown container",
    )
}

async fn attached_clients_talk_to_the_program(c: &Context) -> Checked {
    let sandbox = c.sandbox().await?;
    c.pull().await?;
    let mut config = c.config("cat", &["cat"]);
    config.stdin = true;
    let id = c.runtime().create_container(&sandbox, &config).await?;
    c.runtime().start_container(&id).await?;
    let request = AttachRequest {
        stdin: true,
        stdout: true,
        ..AttachRequest::default()
    };
    let Some(process) = c.supported(c.runtime().attach(&id, &request).await)? else {
        return Ok(());
    };
    let (Some(mut stdin), Some(mut stdout)) = (process.stdin, process.stdout) else {
        return Err(Failure("a stream that was asked for is missing".to_owned()));
    };
    c.within("a write", stdin.send(Bytes::from("hello\n")))
        .await??;
    let answer = c.within("an answer", read(&mut stdout, 6)).await??;
    same(answer, b"hello\n".to_vec(), "what came back")?;
    // Letting go does not end the container.
    drop((stdin, stdout, process.exit));
    let again = c.runtime().attach(&id, &request).await?;
    c.runtime().stop_container(&id, Duration::ZERO).await?;
    same(
        c.within("the exit", again.exit).await??,
        137,
        "the exit code",
    )?;
    let late = c.runtime().attach(&id, &request).await;
    refused(late, is_wrong_state, "a client of a container that exited")
}

async fn ports_are_forwarded(c: &Context) -> Checked {
    let sandbox = c.sandbox().await?;
    let closed = c.runtime().port_forward(&sandbox, 9).await;
    let Some(()) = c.supported(match closed {
        Err(RuntimeError::Refused(9)) => Ok(()),
        Err(error) => Err(error),
        // Where the connection is made by another process, it opens first and ends when that process finds nobody.
        Ok(mut connection) => {
            let heard = c.within("the end of a connection", connection.receive.next());
            ensure(
                !matches!(heard.await?, Some(Ok(_))),
                "something answered at a closed port",
            )?;
            Ok(())
        }
    })?
    else {
        return Ok(());
    };
    if let Some(port) = c.subject.echo {
        let answer = c
            .within("an answer", async {
                loop {
                    match ping(c, &sandbox, port).await {
                        // A program that has just been started may not listen yet.
                        Err(RuntimeError::Refused(_)) => {
                            c.subject.env.sleep(Duration::from_millis(50)).await;
                        }
                        answer => return answer,
                    }
                }
            })
            .await??;
        same(answer, b"ping".to_vec(), "what came back")?;
        c.runtime().stop_sandbox(&sandbox).await?;
        let late = c.runtime().port_forward(&sandbox, port).await;
        refused(late, is_wrong_state, "a port of a stopped sandbox")?;
    }
    let nobody = SandboxId::new("0000000000000000no-such-sandbox");
    refused(
        c.runtime().port_forward(&nobody, 9).await,
        RuntimeError::is_not_found,
        "a port of an unknown sandbox",
    )
}

/// Sends `ping` to a port and returns as much of the answer.
async fn ping(c: &Context, sandbox: &SandboxId, port: u16) -> Result<Vec<u8>, RuntimeError> {
    let mut connection = c.runtime().port_forward(sandbox, port).await?;
    connection.send.send(Bytes::from("ping")).await?;
    let mut answer = Vec::new();
    while answer.len() < 4 {
        match connection.receive.next().await {
            Some(bytes) => answer.extend_from_slice(&bytes?),
            None => break,
        }
    }
    Ok(answer)
}

/// Reads so many bytes, in as many chunks as they come.
async fn read(stream: &mut ByteStream, bytes: usize) -> Checked<Vec<u8>> {
    let mut all = Vec::with_capacity(bytes);
    while all.len() < bytes {
        match stream.next().await {
            Some(chunk) => all.extend_from_slice(&chunk?),
            None => {
                return Err(Failure(format!(
                    "the stream ended after {} of {bytes} bytes",
                    all.len()
                )));
            }
        }
    }
    ensure(all.len() == bytes, "there was more to read")?;
    Ok(all)
}
