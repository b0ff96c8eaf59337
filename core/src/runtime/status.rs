//! What a runtime is and can do.

/// Which runtime it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeVersion {
    /// Its name, such as `containerd`.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// The conditions that every runtime reports.
pub mod condition {
    /// Containers can be run.
    pub const RUNTIME_READY: &str = "RuntimeReady";
    /// Sandboxes get a network. Those in the host's network can be run without.
    pub const NETWORK_READY: &str = "NetworkReady";
}

/// Something that holds, or does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeCondition {
    /// What: one of [`condition`], or a runtime's own.
    pub kind: String,
    /// Whether it holds.
    pub holds: bool,
    /// Why not, in a word.
    pub reason: String,
    /// Why not, in a sentence.
    pub message: String,
}

impl RuntimeCondition {
    /// A condition that holds.
    pub fn holding(kind: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            holds: true,
            reason: String::new(),
            message: String::new(),
        }
    }

    /// A condition that does not hold.
    pub fn failing(
        kind: impl Into<String>,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind: kind.into(),
            holds: false,
            reason: reason.into(),
            message: message.into(),
        }
    }
}

/// A way to run sandboxes, which a RuntimeClass can name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeHandler {
    /// Its name; empty for the default one.
    pub name: String,
    /// Whether mounts can be read-only with all that lies below.
    pub recursive_read_only_mounts: bool,
    /// Whether it has user namespaces.
    pub user_namespaces: bool,
}

/// What a runtime can do, whatever the handler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuntimeFeatures {
    /// Whether it heeds [`SupplementalGroupsPolicy`](super::SupplementalGroupsPolicy).
    pub supplemental_groups_policy: bool,
    /// Whether a sandbox in the host's network can have a user namespace.
    pub user_namespaces_host_network: bool,
    /// Whether it heeds [`Mount::options`](super::Mount::options).
    pub mount_options: bool,
}

/// How a runtime is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeStatus {
    /// Which it is.
    pub version: RuntimeVersion,
    /// What holds; at least those of [`condition`].
    pub conditions: Vec<RuntimeCondition>,
    /// Its handlers, the default one among them.
    pub handlers: Vec<RuntimeHandler>,
    /// What it can do.
    pub features: RuntimeFeatures,
}

impl RuntimeStatus {
    /// Whether a condition is reported and holds.
    #[must_use]
    pub fn holds(&self, kind: &str) -> bool {
        self.conditions
            .iter()
            .any(|condition| condition.kind == kind && condition.holds)
    }
}

/// Who makes cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupDriver {
    /// systemd, as slices and scopes.
    Systemd,
    /// The runtime, as directories.
    Cgroupfs,
}
