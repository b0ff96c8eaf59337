//! What the suites of runtimes and networks have in common.

use std::fmt;

/// Why a check failed.
#[derive(Debug)]
pub(super) struct Failure(pub(super) String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(format!("refused: {error}"))
    }
}

pub(super) type Checked<T = ()> = Result<T, Failure>;

/// Fails unless a condition holds.
pub(super) fn ensure(condition: bool, why: impl fmt::Display) -> Checked {
    if condition {
        Ok(())
    } else {
        Err(Failure(why.to_string()))
    }
}

/// Fails unless two values are the same.
pub(super) fn same<T: PartialEq + fmt::Debug>(got: T, wanted: T, what: &str) -> Checked {
    ensure(
        got == wanted,
        format_args!("{what}: wanted {wanted:?}, got {got:?}"),
    )
}

/// Fails unless it was refused in the way that is wanted.
pub(super) fn refused<T, E: fmt::Debug>(
    got: Result<T, E>,
    wanted: impl Fn(&E) -> bool,
    what: &str,
) -> Checked {
    match got {
        Ok(_) => Err(Failure(format!("{what} was not refused"))),
        Err(error) => ensure(
            wanted(&error),
            format_args!("{what} was refused with {error:?}"),
        ),
    }
}

/// The checks of one part of the contract, by their names.
macro_rules! checks {
    ($($name:ident),+ $(,)?) => {
        pub(super) const CHECKS: &[(&str, super::Check)] =
            &[$((stringify!($name), |c| Box::pin($name(c)))),+];
    };
}

pub(super) use checks;
