//! Slices that systemd makes, told by `systemctl`.

use std::path::PathBuf;
use std::process::Command;

use super::{CgroupError, Limits};

/// The directory that is there where systemd runs the machine (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

/// Tells systemd.
#[derive(Clone, Debug)]
pub(super) struct Systemd {
    systemctl: PathBuf,
}

impl Systemd {
    /// The systemd that runs this machine.
    ///
    /// # Errors
    /// When none does.
    pub(super) fn of_machine() -> Result<Self, CgroupError> {
        let booted = PathBuf::from(BOOTED);
        if booted.is_dir() {
            Ok(Self::new("systemctl"))
        } else {
            Err(CgroupError::NoSystemd(booted))
        }
    }

    /// Another program in the place of `systemctl`.
    pub(super) fn new(systemctl: impl Into<PathBuf>) -> Self {
        Self {
            systemctl: systemctl.into(),
        }
    }

    /// Makes a slice, if it is not there, and gives it limits, until the machine restarts. A slice needs no unit file: its name says
    /// where it belongs.
    ///
    /// # Errors
    /// What systemctl says.
    pub(super) fn ensure(&self, slice: &str, limits: &Limits, v2: bool) -> Result<(), CgroupError> {
        self.run(&["start", slice])?;
        let properties = limits.properties(v2);
        if properties.is_empty() {
            return Ok(());
        }
        let mut arguments = vec!["set-property", "--runtime", slice];
        arguments.extend(properties.iter().map(String::as_str));
        self.run(&arguments)
    }

    /// Stops a slice with all that is in it.
    ///
    /// # Errors
    /// What systemctl says.
    pub(super) fn stop(&self, slice: &str) -> Result<(), CgroupError> {
        self.run(&["stop", slice])
    }

    fn run(&self, arguments: &[&str]) -> Result<(), CgroupError> {
        let failed = |message: String| CgroupError::Systemd {
            command: arguments.join(" "),
            message,
        };
        let mut command = Command::new(&self.systemctl);
        let done = command.arg("--no-ask-password").args(arguments).output();
        let done = done.map_err(|error| failed(error.to_string()))?;
        if done.status.success() {
            return Ok(());
        }
        Err(failed(
            String::from_utf8_lossy(&done.stderr).trim().to_owned(),
        ))
    }
}
