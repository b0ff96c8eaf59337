//! The clock by which TLS judges certificates.

use std::time::Duration;

use orlop_core::env::Env;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;

/// The wall clock of the environment.
#[derive(Debug)]
pub(crate) struct Clock(pub(crate) Env);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.wall().as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}
