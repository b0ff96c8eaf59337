//! How the end of a program is told.

use orlop_core::runtime::RuntimeError;
use orlop_core::status::{Status, StatusCause, StatusDetails};

/// The reason of a status that tells an exit code other than zero.
const NON_ZERO_EXIT_CODE: &str = "NonZeroExitCode";

/// The reason of the cause that holds the code.
const EXIT_CODE: &str = "ExitCode";

/// The end of a program as a status.
pub(super) fn of_exit(code: i32) -> Status {
    if code == 0 {
        return Status {
            status: "Success".to_owned(),
            ..Status::default()
        };
    }
    let mut status = Status::failure(
        0,
        NON_ZERO_EXIT_CODE,
        format!("command terminated with non-zero exit code: exit status {code}"),
    );
    status.details = Some(Box::new(StatusDetails {
        causes: vec![StatusCause {
            reason: EXIT_CODE.to_owned(),
            message: code.to_string(),
            ..StatusCause::default()
        }],
        ..StatusDetails::default()
    }));
    status
}

/// What is written into the error stream.
pub(super) fn encode(status: &Status, as_json: bool) -> Vec<u8> {
    if as_json {
        serde_json::to_vec(status).unwrap_or_default()
    } else if status.status == "Success" {
        Vec::new()
    } else {
        status.message.clone().into_bytes()
    }
}

/// The exit code that an error stream told.
pub(super) fn decode(text: &[u8], is_json: bool) -> Result<i32, RuntimeError> {
    if !is_json {
        return if text.is_empty() {
            Ok(0)
        } else {
            Err(RuntimeError::Failed(
                String::from_utf8_lossy(text).into_owned(),
            ))
        };
    }
    if text.is_empty() {
        return Err(RuntimeError::Unavailable(
            "the connection ended before the command did".to_owned(),
        ));
    }
    let status: Status = serde_json::from_slice(text)
        .map_err(|_| RuntimeError::Failed(String::from_utf8_lossy(text).into_owned()))?;
    if status.status == "Success" {
        return Ok(0);
    }
    if status.reason == NON_ZERO_EXIT_CODE {
        let causes = status.details.iter().flat_map(|details| &details.causes);
        let code = causes
            .filter(|cause| cause.reason == EXIT_CODE)
            .find_map(|cause| cause.message.parse().ok());
        return code.ok_or(RuntimeError::Failed(status.message));
    }
    Err(RuntimeError::Failed(status.message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_read_as_it_was_told() {
        for code in [0, 1, 126, 137, -1] {
            let text = encode(&of_exit(code), true);
            assert_eq!(decode(&text, true).unwrap(), code);
        }
        assert_eq!(
            String::from_utf8(encode(&of_exit(3), true)).unwrap(),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"command terminated with non-zero exit code: exit status 3","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#
        );
        let refused = Status::internal("no such program");
        for json in [true, false] {
            let error = decode(&encode(&refused, json), json).unwrap_err();
            assert_eq!(
                error,
                RuntimeError::Failed("Internal error occurred: no such program".to_owned())
            );
        }
        assert_eq!(decode(b"", false).unwrap(), 0);
        assert!(decode(b"", true).is_err());
        assert!(decode(b"{", true).is_err());
    }
}
