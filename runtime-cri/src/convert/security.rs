//! How sandboxes and containers are confined.

use orlop_core::runtime::{
    Capabilities, ContainerId, ContainerSecurity, Identity, NamespaceMode, Namespaces,
    SandboxSecurity, SeLinuxOptions, SecurityProfile, SupplementalGroupsPolicy, UserNamespace,
};

use super::{id_mappings, said_id_mappings};
use crate::messages as cri;

pub(super) fn sandbox_security(security: &SandboxSecurity) -> cri::LinuxSandboxSecurityContext {
    let (run_as_user, _, run_as_group) = run_as(&security.identity);
    cri::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(&security.namespaces)),
        selinux_options: security.selinux.as_ref().map(selinux),
        run_as_user,
        readonly_rootfs: security.read_only_root,
        supplemental_groups: security.identity.supplemental_groups.clone(),
        privileged: security.privileged,
        seccomp_profile_path: String::new(),
        run_as_group,
        seccomp: Some(profile(&security.seccomp)),
        apparmor: apparmor(&security.apparmor),
        supplemental_groups_policy: groups_policy(&security.identity),
    }
}

pub(super) fn container_security(
    security: &ContainerSecurity,
) -> cri::LinuxContainerSecurityContext {
    let (run_as_user, run_as_username, run_as_group) = run_as(&security.identity);
    cri::LinuxContainerSecurityContext {
        capabilities: Some(capabilities(&security.capabilities)),
        privileged: security.privileged,
        namespace_options: Some(namespaces(&security.namespaces)),
        selinux_options: security.selinux.as_ref().map(selinux),
        run_as_user,
        run_as_username,
        readonly_rootfs: security.read_only_root,
        supplemental_groups: security.identity.supplemental_groups.clone(),
        apparmor_profile: String::new(),
        seccomp_profile_path: String::new(),
        no_new_privs: security.no_new_privileges,
        run_as_group,
        masked_paths: security.masked_paths.clone(),
        readonly_paths: security.read_only_paths.clone(),
        seccomp: Some(profile(&security.seccomp)),
        apparmor: apparmor(&security.apparmor),
        supplemental_groups_policy: groups_policy(&security.identity),
    }
}

/// The user's id, else the user's name, and the group's id. Engines refuse a name beside an id, and a group without a user.
fn run_as(identity: &Identity) -> (Option<cri::Int64Value>, String, Option<cri::Int64Value>) {
    let value = |value| cri::Int64Value { value };
    let user = identity.user.map(value);
    let name = match user {
        Some(_) => String::new(),
        None => identity.username.clone(),
    };
    let group = identity.group.map(value);
    let group = group.filter(|_| user.is_some() || !name.is_empty());
    (user, name, group)
}

fn groups_policy(identity: &Identity) -> i32 {
    match identity.supplemental_groups_policy {
        SupplementalGroupsPolicy::Merge => cri::SupplementalGroupsPolicy::Merge,
        SupplementalGroupsPolicy::Strict => cri::SupplementalGroupsPolicy::Strict,
    }
    .into()
}

fn capabilities(capabilities: &Capabilities) -> cri::Capability {
    cri::Capability {
        add_capabilities: capabilities.add.clone(),
        drop_capabilities: capabilities.drop.clone(),
        add_ambient_capabilities: capabilities.add_ambient.clone(),
    }
}

fn selinux(options: &SeLinuxOptions) -> cri::SeLinuxOption {
    cri::SeLinuxOption {
        user: options.user.clone(),
        role: options.role.clone(),
        kind: options.kind.clone(),
        level: options.level.clone(),
    }
}

fn profile(profile: &SecurityProfile) -> cri::SecurityProfile {
    let (kind, localhost_ref) = match profile {
        SecurityProfile::RuntimeDefault => (cri::ProfileType::RuntimeDefault, String::new()),
        SecurityProfile::Unconfined => (cri::ProfileType::Unconfined, String::new()),
        SecurityProfile::Localhost(which) => (cri::ProfileType::Localhost, which.clone()),
    };
    cri::SecurityProfile {
        profile_type: kind.into(),
        localhost_ref,
    }
}

/// The engine's own profile is what it takes when nothing is said; said aloud, it is refused where the kernel has no AppArmor.
fn apparmor(wanted: &SecurityProfile) -> Option<cri::SecurityProfile> {
    (*wanted != SecurityProfile::RuntimeDefault).then(|| profile(wanted))
}

pub(super) fn namespaces(namespaces: &Namespaces) -> cri::NamespaceOption {
    let userns_options = match &namespaces.user {
        // Left out, as engines without user namespaces want it.
        UserNamespace::Host => None,
        UserNamespace::Pod { uids, gids } => Some(cri::UserNamespace {
            mode: cri::NamespaceMode::Pod.into(),
            uids: id_mappings(uids),
            gids: id_mappings(gids),
        }),
    };
    cri::NamespaceOption {
        network: mode(namespaces.network).into(),
        pid: mode(namespaces.pid).into(),
        ipc: mode(namespaces.ipc).into(),
        target_id: namespaces
            .target
            .as_ref()
            .map(|id| id.as_str().to_owned())
            .unwrap_or_default(),
        userns_options,
    }
}

/// The namespaces that an engine told of.
pub(super) fn said_namespaces(said: &cri::NamespaceOption) -> Namespaces {
    let own = said.userns_options.as_ref();
    let own = own.filter(|user| user.mode() == cri::NamespaceMode::Pod);
    Namespaces {
        network: said_mode(said.network()),
        pid: said_mode(said.pid()),
        ipc: said_mode(said.ipc()),
        target: (!said.target_id.is_empty()).then(|| ContainerId::new(&said.target_id)),
        user: own.map_or(UserNamespace::Host, |user| UserNamespace::Pod {
            uids: said_id_mappings(&user.uids),
            gids: said_id_mappings(&user.gids),
        }),
    }
}

fn mode(mode: NamespaceMode) -> cri::NamespaceMode {
    match mode {
        NamespaceMode::Pod => cri::NamespaceMode::Pod,
        NamespaceMode::Container => cri::NamespaceMode::Container,
        NamespaceMode::Node => cri::NamespaceMode::Node,
        NamespaceMode::Target => cri::NamespaceMode::Target,
    }
}

fn said_mode(mode: cri::NamespaceMode) -> NamespaceMode {
    match mode {
        cri::NamespaceMode::Pod => NamespaceMode::Pod,
        cri::NamespaceMode::Container => NamespaceMode::Container,
        cri::NamespaceMode::Node => NamespaceMode::Node,
        cri::NamespaceMode::Target => NamespaceMode::Target,
    }
}
