//! What an engine's refusals mean.
//!
//! CRI says little about errors: a code of gRPC, of which most engines use two or three, and a text. So texts are looked at, those of
//! containerd and of CRI-O. A text that is not known here is never taken for more than a failure.

use orlop_core::runtime::RuntimeError;
use tonic::{Code, Status};

use crate::engine::is_broken_connection;
use crate::messages::Call;

/// What a call was about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum About<'a> {
    /// The engine itself, or many things.
    Engine,
    /// A sandbox to be made, of this handler.
    NewSandbox(&'a str),
    /// A sandbox.
    Sandbox(&'a str),
    /// A container to be made in a sandbox of an image.
    NewContainer {
        /// The sandbox's id.
        sandbox: &'a str,
        /// The image's name.
        image: &'a str,
    },
    /// A container.
    Container(&'a str),
    /// An image that is there, or not.
    Image(&'a str),
    /// An image of a registry.
    Pull(&'a str),
}

/// What a refusal of the call `C` means.
pub(crate) fn refusal<C: Call>(status: Status, about: About<'_>) -> RuntimeError {
    if status.code() == Code::Unimplemented {
        return RuntimeError::Unsupported(C::OFFERS);
    }
    meaning(&status, about)
}

fn meaning(status: &Status, about: About<'_>) -> RuntimeError {
    let text = status.message();
    if is_broken_connection(status) || text == STARTING {
        return RuntimeError::Unavailable(chain(status));
    }
    if text.contains("no space left on device") {
        return RuntimeError::NoSpace(text.to_owned());
    }
    if status.code() == Code::DeadlineExceeded {
        return RuntimeError::Unavailable(text.to_owned());
    }
    if matches!(about, About::NewContainer { .. }) && says(text, NOT_READY) {
        return RuntimeError::WrongState(text.to_owned());
    }
    let not_found = status.code() == Code::NotFound || says(text, NOT_FOUND);
    match about {
        About::Pull(image) => return pull(status, image),
        About::Sandbox(id) if not_found => return RuntimeError::not_found("sandbox", id),
        About::Container(id) if not_found => return RuntimeError::not_found("container", id),
        About::Image(name) if not_found => return RuntimeError::not_found("image", name),
        About::NewContainer { sandbox, image } if not_found => {
            let of_sandbox = says(
                text,
                &["find sandbox", "sandbox not found", "sandbox with ID"],
            );
            return if of_sandbox || text.contains(sandbox) && !text.contains(image) {
                RuntimeError::not_found("sandbox", sandbox)
            } else {
                RuntimeError::not_found("image", image)
            };
        }
        About::NewSandbox(handler) if !handler.is_empty() && says(text, UNKNOWN_HANDLER) => {
            return RuntimeError::Unsupported("this runtime handler");
        }
        _ => {}
    }
    let text = text.to_owned();
    match status.code() {
        Code::AlreadyExists => RuntimeError::AlreadyExists(text),
        Code::InvalidArgument => RuntimeError::InvalidRequest(text),
        Code::FailedPrecondition => RuntimeError::WrongState(text),
        _ if says(&text, TAKEN) => RuntimeError::AlreadyExists(text),
        _ if says(&text, WRONG_STATE) => RuntimeError::WrongState(text),
        _ => RuntimeError::Failed(text),
    }
}

/// What containerd says between listening and knowing its containers again.
const STARTING: &str = "server is not initialized yet";

/// Texts of engines that do not use the code for it. A program that is missing in an image is "not found", too, so these are narrow.
const NOT_FOUND: &[&str] = &[
    "could not find container",
    "could not find sandbox",
    "specified container not found",
    "specified sandbox not found",
    "no such container",
    "no such sandbox",
];

/// How engines say that a sandbox is there and does not run, which containerd calls "not found", too.
const NOT_READY: &[&str] = &[
    "failed to get sandbox container task",
    "sandbox container is not running",
    "CreateContainer failed as the sandbox was stopped",
];

const UNKNOWN_HANDLER: &[&str] = &["no runtime for", "failed to find runtime handler"];

const TAKEN: &[&str] = &["is reserved for", "name is reserved"];

const WRONG_STATE: &[&str] = &[
    "is in CONTAINER_",
    "in CONTAINER_EXITED state",
    "is not in created state",
    "is already in starting state",
    "is in removing state",
    "not created or running",
    "is not created or running",
    "container is not running",
    "is not running",
    "is not ready",
    "is not in ready state",
    "sandbox is not ready",
];

/// What the refusal of a pull means.
fn pull(status: &Status, image: &str) -> RuntimeError {
    let text = status.message();
    let low = text.to_ascii_lowercase();
    if status.code() == Code::InvalidArgument || says(&low, NO_NAME) {
        RuntimeError::InvalidRequest(text.to_owned())
    } else if matches!(
        status.code(),
        Code::PermissionDenied | Code::Unauthenticated
    ) || says(&low, DENIED)
    {
        RuntimeError::Denied {
            image: image.to_owned(),
            reason: text.to_owned(),
        }
    } else if says(&low, UNREACHABLE) {
        RuntimeError::Unavailable(text.to_owned())
    } else if status.code() == Code::NotFound || says(&low, MISSING) {
        RuntimeError::ImageNotFound(image.to_owned())
    } else {
        RuntimeError::Failed(text.to_owned())
    }
}

const NO_NAME: &[&str] = &[
    "invalid reference format",
    "failed to parse image reference",
    "failed to parse reference",
    "repository name must be",
    "short-name resolution",
];

const DENIED: &[&str] = &[
    "pull access denied",
    "unauthorized",
    "authorization failed",
    "authentication required",
    "insufficient_scope",
    "requested access to the resource is denied",
    "401 unauthorized",
    "403 forbidden",
    "no basic auth credentials",
    "invalid username/password",
];

const UNREACHABLE: &[&str] = &[
    "registryunavailable",
    "connection refused",
    "connection reset",
    "no such host",
    "network is unreachable",
    "no route to host",
    "i/o timeout",
    "tls handshake timeout",
    "server misbehaving",
    "temporary failure in name resolution",
    "429 too many requests",
    "toomanyrequests",
    "500 internal server error",
    "502 bad gateway",
    "503 service unavailable",
    "504 gateway timeout",
];

const MISSING: &[&str] = &[
    "manifest unknown",
    "name unknown",
    "404 not found",
    ": not found",
];

fn says(text: &str, any: &[&str]) -> bool {
    any.iter().any(|part| text.contains(part))
}

/// An error with the errors behind it.
fn chain(status: &Status) -> String {
    let mut said = status.message().to_owned();
    let mut behind = std::error::Error::source(status);
    while let Some(error) = behind {
        let more = error.to_string();
        if !said.contains(&more) {
            if !said.is_empty() {
                said.push_str(": ");
            }
            said.push_str(&more);
        }
        behind = error.source();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What engines were seen to say, or say by their sources, and what it means.
    #[test]
    fn refusals_have_their_meanings() {
        let container = About::NewContainer {
            sandbox: "5a",
            image: "example/web:1",
        };
        let pulled = About::Pull("example/web:1");
        let cases: &[(Code, &str, About<'_>, RuntimeError)] = &[
            (
                Code::NotFound,
                "an error occurred when try to find container \"c1\": not found",
                About::Container("c1"),
                RuntimeError::not_found("container", "c1"),
            ),
            (
                Code::Unknown,
                "could not find container \"c1\"",
                About::Container("c1"),
                RuntimeError::not_found("container", "c1"),
            ),
            (
                Code::NotFound,
                "failed to find sandbox id \"5a\": not found",
                container,
                RuntimeError::not_found("sandbox", "5a"),
            ),
            (
                Code::NotFound,
                "failed to resolve image \"example/web:1\": not found",
                container,
                RuntimeError::not_found("image", "example/web:1"),
            ),
            (
                Code::Unknown,
                "executable file not found in $PATH: unknown",
                About::Container("c1"),
                RuntimeError::Failed("executable file not found in $PATH: unknown".to_owned()),
            ),
            (
                Code::Unknown,
                "failed to get sandbox runtime: no runtime for \"kata\" is configured",
                About::NewSandbox("kata"),
                RuntimeError::Unsupported("this runtime handler"),
            ),
            (
                Code::NotFound,
                "failed to pull and unpack image \"example/web:1\": failed to resolve reference: example/web:1: not found",
                pulled,
                RuntimeError::ImageNotFound("example/web:1".to_owned()),
            ),
        ];
        for (code, text, about, wanted) in cases {
            assert_eq!(
                &meaning(&Status::new(*code, *text), *about),
                wanted,
                "{text}"
            );
        }
        type IsMeant = fn(&RuntimeError) -> bool;
        let kinds: &[(Code, &str, About<'_>, IsMeant)] = &[
            (
                Code::Unknown,
                "failed to reserve sandbox name \"web_default_1_0\": name \"web_default_1_0\" is reserved for \"5a\"",
                About::NewSandbox(""),
                |e| matches!(e, RuntimeError::AlreadyExists(_)),
            ),
            (
                Code::NotFound,
                "failed to get sandbox container task: no running task found: task 5a not found: not found",
                container,
                |e| matches!(e, RuntimeError::WrongState(_)),
            ),
            (
                Code::Unknown,
                "container is in CONTAINER_EXITED state",
                About::Container("c1"),
                |e| matches!(e, RuntimeError::WrongState(_)),
            ),
            (
                Code::Unknown,
                "container c1 is not in created state: stopped",
                About::Container("c1"),
                |e| matches!(e, RuntimeError::WrongState(_)),
            ),
            (
                Code::Unknown,
                "write /var/lib/x: no space left on device",
                pulled,
                |e| matches!(e, RuntimeError::NoSpace(_)),
            ),
            (
                Code::Unknown,
                "failed to resolve reference: pull access denied, repository does not exist or may require authorization",
                pulled,
                |e| matches!(e, RuntimeError::Denied { .. }),
            ),
            (
                Code::Unknown,
                "failed to do request: Head \"http://r/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
                pulled,
                |e| matches!(e, RuntimeError::Unavailable(_)),
            ),
            (
                Code::Unknown,
                "failed to parse image reference \"a//b\": invalid reference format",
                pulled,
                |e| matches!(e, RuntimeError::InvalidRequest(_)),
            ),
            (
                Code::Unavailable,
                "the engine is starting",
                About::Engine,
                |e| matches!(e, RuntimeError::Unavailable(_)),
            ),
            (
                Code::Unknown,
                "server is not initialized yet",
                About::Container("c1"),
                |e| matches!(e, RuntimeError::Unavailable(_)),
            ),
        ];
        for (code, text, about, wanted) in kinds {
            let got = meaning(&Status::new(*code, *text), *about);
            assert!(wanted(&got), "{text}: {got:?}");
        }
        assert_eq!(
            refusal::<crate::messages::GetEventsRequest>(
                Status::unimplemented("unknown method"),
                About::Engine
            ),
            RuntimeError::Unsupported("events")
        );
    }
}
