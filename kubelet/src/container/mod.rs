//! From a pod's words to a runtime's: the configurations of sandboxes and containers, as upstream's `kuberuntime` builds them.

mod configs;
mod dns;
mod env;
mod env_file;
mod expansion;
mod hostname;
mod hosts;
mod resources;
mod sandbox;
mod security;
mod services;
mod termination;
#[cfg(test)]
mod tests;
mod user_namespace;
mod words;

pub use self::configs::{ConfigSources, ContainerConfigs, NodeFacts};
pub use self::expansion::expand;
pub use self::hostname::{Hostname, hostname};
pub use self::resources::{container_resources, oom_score_adj};
pub use self::services::{NoServices, Services};
pub(crate) use self::words::reference_of;
