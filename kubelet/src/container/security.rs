//! How a pod's containers are confined: what the pod says, overridden by what the container says.

use std::path::Path;
use std::sync::OnceLock;

use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, Pod, PodSecurityContext, SELinuxOptions, SeccompProfile,
    SecurityContext,
};
use orlop_core::runtime::{
    Capabilities, ContainerId, ContainerSecurity, Identity, Image, ImageUser, NamespaceMode,
    Namespaces, SandboxSecurity, SeLinuxOptions, SecurityProfile, SupplementalGroupsPolicy,
    UserNamespace,
};

use super::words::pod_text;

/// Paths that are hidden from a container with the default `procMount`.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// Paths that such a container can only read.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];
/// The annotation that named a container's AppArmor profile before there was a field.
const APPARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// How a sandbox is confined.
pub(super) fn of_sandbox(pod: &Pod, user: UserNamespace) -> SandboxSecurity {
    let context = pod_context(pod);
    SandboxSecurity {
        namespaces: namespaces(pod, None, user),
        identity: Identity {
            user: context.and_then(|context| context.run_as_user),
            username: String::new(),
            group: context.and_then(|context| context.run_as_group),
            ..groups(context)
        },
        read_only_root: false,
        privileged: has_privileged(pod),
        selinux: context.and_then(|context| selinux(context.se_linux_options.as_ref())),
        // The sandbox runs the runtime's own program: a pod's profile need not allow what that needs.
        seccomp: SecurityProfile::RuntimeDefault,
        apparmor: SecurityProfile::RuntimeDefault,
    }
}

/// How a container is confined.
///
/// # Errors
/// When it must not run as root and would, or may; when a profile is not named.
pub(super) fn of_container(
    pod: &Pod,
    container: &Container,
    image: &Image,
    target: Option<&ContainerId>,
    user: UserNamespace,
    seccomp_root: &Path,
) -> Result<ContainerSecurity, String> {
    let whole = pod_context(pod);
    let own = container.security_context.as_ref();
    /// The container's word, or else the pod's.
    fn either<'a, T>(
        own: Option<&'a SecurityContext>,
        whole: Option<&'a PodSecurityContext>,
        of_own: impl Fn(&'a SecurityContext) -> Option<T>,
        of_whole: impl Fn(&'a PodSecurityContext) -> Option<T>,
    ) -> Option<T> {
        own.and_then(of_own).or_else(|| whole.and_then(of_whole))
    }
    let run_as = either(own, whole, |own| own.run_as_user, |whole| whole.run_as_user);
    if either(
        own,
        whole,
        |own| own.run_as_non_root,
        |whole| whole.run_as_non_root,
    ) == Some(true)
    {
        check_non_root(pod, container, run_as, image)?;
    }
    let (user_id, username) = match (run_as, &image.user) {
        (Some(user), _) => (Some(user), String::new()),
        (None, Some(ImageUser::Name(name))) => (None, name.clone()),
        (None, Some(ImageUser::Id(user))) => (Some(*user), String::new()),
        (None, None) => (Some(0), String::new()),
    };
    let unmasked = own.and_then(|own| own.proc_mount.as_deref()) == Some("Unmasked");
    let paths = |all: &[&str]| -> Vec<String> {
        let all = if unmasked { &[][..] } else { all };
        all.iter().map(|path| (*path).to_owned()).collect()
    };
    let mut masked_paths = paths(&MASKED);
    if !unmasked {
        masked_paths.extend(thermal_paths().iter().cloned());
    }
    let seccomp = either(
        own,
        whole,
        |own| own.seccomp_profile.as_ref(),
        |whole| whole.seccomp_profile.as_ref(),
    );
    let apparmor = either(
        own,
        whole,
        |own| own.app_armor_profile.as_ref(),
        |whole| whole.app_armor_profile.as_ref(),
    );
    Ok(ContainerSecurity {
        namespaces: namespaces(pod, target, user),
        identity: Identity {
            user: user_id,
            username,
            group: either(
                own,
                whole,
                |own| own.run_as_group,
                |whole| whole.run_as_group,
            ),
            ..groups(whole)
        },
        privileged: own.and_then(|own| own.privileged) == Some(true),
        capabilities: own.map(capabilities).unwrap_or_default(),
        no_new_privileges: own.and_then(|own| own.allow_privilege_escalation) == Some(false),
        read_only_root: own.and_then(|own| own.read_only_root_filesystem) == Some(true),
        masked_paths,
        read_only_paths: paths(&READ_ONLY),
        selinux: selinux(either(
            own,
            whole,
            |own| own.se_linux_options.as_ref(),
            |whole| whole.se_linux_options.as_ref(),
        )),
        seccomp: seccomp_profile(seccomp, seccomp_root)?,
        apparmor: apparmor_profile(pod, container, apparmor)?,
    })
}

fn pod_context(pod: &Pod) -> Option<&PodSecurityContext> {
    pod.spec.as_ref()?.security_context.as_ref()
}

fn has_privileged(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let containers = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    let mut contexts = containers.map(|container| container.security_context.as_ref());
    let privileged =
        |context: Option<&SecurityContext>| context.and_then(|own| own.privileged) == Some(true);
    let mut ephemeral = spec.ephemeral_containers.iter().flatten();
    contexts.any(privileged) || ephemeral.any(|own| privileged(own.security_context.as_ref()))
}

/// With whom namespaces are shared.
fn namespaces(pod: &Pod, target: Option<&ContainerId>, user: UserNamespace) -> Namespaces {
    let spec = pod.spec.as_ref();
    let says = |word: Option<bool>| word == Some(true);
    let node_or = |host: bool, other| if host { NamespaceMode::Node } else { other };
    let pid = if target.is_some() {
        NamespaceMode::Target
    } else if says(spec.and_then(|spec| spec.host_pid)) {
        NamespaceMode::Node
    } else if says(spec.and_then(|spec| spec.share_process_namespace)) {
        NamespaceMode::Pod
    } else {
        NamespaceMode::Container
    };
    Namespaces {
        network: node_or(
            says(spec.and_then(|spec| spec.host_network)),
            NamespaceMode::Pod,
        ),
        pid,
        ipc: node_or(
            says(spec.and_then(|spec| spec.host_ipc)),
            NamespaceMode::Pod,
        ),
        target: target.cloned(),
        user,
    }
}

/// The further groups of a pod's processes: that of its volumes, and those that it names.
fn groups(context: Option<&PodSecurityContext>) -> Identity {
    let Some(context) = context else {
        return Identity::default();
    };
    let named = context.supplemental_groups.iter().flatten();
    Identity {
        supplemental_groups: context.fs_group.iter().chain(named).copied().collect(),
        supplemental_groups_policy: match context.supplemental_groups_policy.as_deref() {
            Some("Strict") => SupplementalGroupsPolicy::Strict,
            _ => SupplementalGroupsPolicy::Merge,
        },
        ..Identity::default()
    }
}

fn check_non_root(
    pod: &Pod,
    container: &Container,
    run_as: Option<i64>,
    image: &Image,
) -> Result<(), String> {
    let whose = format!("(pod: {:?}, container: {})", pod_text(pod), container.name);
    match (run_as, &image.user) {
        (Some(0), _) => Err(format!(
            "container's runAsUser breaks non-root policy {whose}"
        )),
        (Some(_), _) => Ok(()),
        (None, None | Some(ImageUser::Id(0))) => Err(format!(
            "container has runAsNonRoot and image will run as root {whose}"
        )),
        (None, Some(ImageUser::Name(name))) => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root {whose}"
        )),
        (None, Some(ImageUser::Id(_))) => Ok(()),
    }
}

fn capabilities(context: &SecurityContext) -> Capabilities {
    let Some(own) = &context.capabilities else {
        return Capabilities::default();
    };
    Capabilities {
        add: own.add.clone().unwrap_or_default(),
        drop: own.drop.clone().unwrap_or_default(),
        add_ambient: Vec::new(),
    }
}

fn selinux(options: Option<&SELinuxOptions>) -> Option<SeLinuxOptions> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    options.map(|options| SeLinuxOptions {
        user: text(&options.user),
        role: text(&options.role),
        kind: text(&options.type_),
        level: text(&options.level),
    })
}

/// The seccomp profile; none where nothing is said. Profiles of the node's own are files below its directory for them.
fn seccomp_profile(
    profile: Option<&SeccompProfile>,
    root: &Path,
) -> Result<SecurityProfile, String> {
    let Some(profile) = profile else {
        return Ok(SecurityProfile::Unconfined);
    };
    match profile.type_.as_str() {
        "RuntimeDefault" => Ok(SecurityProfile::RuntimeDefault),
        "Localhost" => {
            let name = profile
                .localhost_profile
                .as_deref()
                .filter(|name| !name.is_empty());
            let name =
                name.ok_or("localhostProfile must be set if seccompProfile type is Localhost.")?;
            // The API refuses such a name, but a manifest passes no API.
            if name.starts_with('/') || name.split('/').any(|part| part == "..") {
                return Err(format!(
                    "localhostProfile {name:?} must be a descending relative path"
                ));
            }
            Ok(SecurityProfile::Localhost(
                root.join(name).display().to_string(),
            ))
        }
        _ => Ok(SecurityProfile::Unconfined),
    }
}

/// The AppArmor profile; the runtime's own where nothing is said.
fn apparmor_profile(
    pod: &Pod,
    container: &Container,
    profile: Option<&AppArmorProfile>,
) -> Result<SecurityProfile, String> {
    if let Some(profile) = profile {
        return match profile.type_.as_str() {
            "Unconfined" => Ok(SecurityProfile::Unconfined),
            "Localhost" => {
                let name = profile
                    .localhost_profile
                    .clone()
                    .filter(|name| !name.is_empty());
                let name = name
                    .ok_or("localhostProfile must be set if appArmorProfile type is Localhost.")?;
                Ok(SecurityProfile::Localhost(name))
            }
            _ => Ok(SecurityProfile::RuntimeDefault),
        };
    }
    let annotations = pod.metadata.annotations.as_ref();
    let old =
        annotations.and_then(|all| all.get(&format!("{APPARMOR_ANNOTATION}{}", container.name)));
    Ok(match old.map(String::as_str) {
        Some("unconfined") => SecurityProfile::Unconfined,
        Some(text) => text
            .strip_prefix("localhost/")
            .map_or(SecurityProfile::RuntimeDefault, |name| {
                SecurityProfile::Localhost(name.to_owned())
            }),
        None => SecurityProfile::RuntimeDefault,
    })
}

/// What tells how hot each CPU is, which is hidden, too, where the machine has it.
fn thermal_paths() -> &'static [String] {
    static PATHS: OnceLock<Vec<String>> = OnceLock::new();
    PATHS.get_or_init(|| {
        let entries = std::fs::read_dir("/sys/devices/system/cpu")
            .into_iter()
            .flatten()
            .flatten();
        let is_cpu = |name: &str| {
            let number = name.strip_prefix("cpu");
            number.is_some_and(|number| {
                !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
            })
        };
        let cpus = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_cpu));
        let throttles = cpus.map(|entry| entry.path().join("thermal_throttle"));
        let mut paths: Vec<String> = throttles
            .filter(|path| path.exists())
            .map(|path| path.display().to_string())
            .collect();
        paths.sort();
        paths
    })
}
