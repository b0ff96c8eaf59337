//! What the end-to-end tests share: the real program in a directory of its own, and the real kubectl beside it.

mod component;
mod engine;
mod etcd;
mod images;
mod kubectl;
mod machine;
mod raw;
mod server;

pub(crate) use self::component::Component;
pub(crate) use self::engine::{Engine, Namespace, ip};
pub(crate) use self::etcd::EtcdCluster;
pub(crate) use self::kubectl::Kubectl;
pub(crate) use self::machine::{IMAGE, Machine, can_have_nodes, page, until_nothing_is_left};
pub(crate) use self::raw::{Answer, Raw};
pub(crate) use self::server::{Server, run_to_end};

use std::time::Duration;

/// How long anything may take that is bound to happen. Generous: a busy machine must not fail a test.
const PATIENCE: Duration = Duration::from_secs(90);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(50);

/// Looks again and again until something is there.
///
/// # Panics
/// When it does not come.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let mut waited = Duration::ZERO;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(waited < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(LOOK);
        waited += LOOK;
    }
}
