//! How sandboxes and containers are confined.

use super::Namespaces;

/// A profile of seccomp or AppArmor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SecurityProfile {
    /// The runtime's own.
    #[default]
    RuntimeDefault,
    /// None: everything goes.
    Unconfined,
    /// One that is on the node: a file for seccomp, a loaded profile's name for AppArmor.
    Localhost(String),
}

/// An SELinux context. Empty parts are the runtime's choice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeLinuxOptions {
    /// The user.
    pub user: String,
    /// The role.
    pub role: String,
    /// The type.
    pub kind: String,
    /// The level.
    pub level: String,
}

/// Linux capabilities, against the runtime's usual set. Names are without `CAP_`; `ALL` means every one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// To be added.
    pub add: Vec<String>,
    /// To be dropped.
    pub drop: Vec<String>,
    /// To be added to the ambient set.
    pub add_ambient: Vec<String>,
}

/// Where supplemental groups come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SupplementalGroupsPolicy {
    /// From the pod and from the image's `/etc/group`.
    #[default]
    Merge,
    /// From the pod alone.
    Strict,
}

/// Whom something runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user's id.
    pub user: Option<i64>,
    /// The user's name, looked up in the image; used where there is no id.
    pub username: String,
    /// The group's id; only with a user.
    pub group: Option<i64>,
    /// Further groups.
    pub supplemental_groups: Vec<i64>,
    /// Where further groups come from.
    pub supplemental_groups_policy: SupplementalGroupsPolicy,
}

/// How a sandbox is confined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SandboxSecurity {
    /// With whom namespaces are shared.
    pub namespaces: Namespaces,
    /// Whom it runs as.
    pub identity: Identity,
    /// Whether its root file system can only be read.
    pub read_only_root: bool,
    /// Whether a container in it may be privileged.
    pub privileged: bool,
    /// Its SELinux context; the runtime's choice without.
    pub selinux: Option<SeLinuxOptions>,
    /// Its seccomp profile.
    pub seccomp: SecurityProfile,
    /// Its AppArmor profile; none where the kernel has no AppArmor.
    pub apparmor: SecurityProfile,
}

/// How a container is confined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerSecurity {
    /// With whom namespaces are shared.
    pub namespaces: Namespaces,
    /// Whom it runs as.
    pub identity: Identity,
    /// Whether it is not confined at all: all capabilities, all devices, no profiles.
    pub privileged: bool,
    /// Its capabilities.
    pub capabilities: Capabilities,
    /// Whether its processes can never gain privileges by running other programs.
    pub no_new_privileges: bool,
    /// Whether its root file system can only be read.
    pub read_only_root: bool,
    /// Paths that are hidden.
    pub masked_paths: Vec<String>,
    /// Paths that can only be read.
    pub read_only_paths: Vec<String>,
    /// Its SELinux context; the runtime's choice without.
    pub selinux: Option<SeLinuxOptions>,
    /// Its seccomp profile.
    pub seccomp: SecurityProfile,
    /// Its AppArmor profile; none where the kernel has no AppArmor.
    pub apparmor: SecurityProfile,
}
