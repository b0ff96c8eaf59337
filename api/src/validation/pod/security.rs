//! Security contexts of pods and containers, for Linux and Windows.

use std::collections::BTreeSet;

use orlop_core::field::Path;
use serde_json::Value;

use super::Scope;
use super::mounts::descending_path;
use crate::doc;
use crate::validation::errors::Errors;
use crate::validation::names;

fn id(errors: &mut Errors, of: &Value, key: &str, path: &Path) {
    if let Some(id) = doc::int(of, key).filter(|id| !(0..=0xffff_ffff).contains(id)) {
        errors.invalid(&path.child(key), id, names::out_of_range(0, 0xffff_ffff));
    }
}

/// The `securityContext` of a container.
pub(super) fn container(errors: &mut Errors, container: &Value, scope: &Scope<'_>, path: &Path) {
    let context = doc::get(container, "securityContext");
    if context.is_null() {
        return;
    }
    id(errors, context, "runAsUser", path);
    id(errors, context, "runAsGroup", path);
    if let Some(proc_mount) = doc::opt_text(context, "procMount") {
        errors.if_set_one_of(context, "procMount", path, &["Default", "Unmasked"]);
        if proc_mount == "Unmasked" && scope.host_users {
            errors.invalid(
                &path.child("procMount"),
                proc_mount,
                "`hostUsers` must be false to use `Unmasked`",
            );
        }
    }
    seccomp(errors, context, path);
    if doc::opt_flag(context, "allowPrivilegeEscalation") == Some(false) {
        if doc::flag(context, "privileged") {
            errors.invalid(
                path,
                context.clone(),
                "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            );
        }
        for _ in doc::texts(doc::get(context, "capabilities"), "add")
            .filter(|name| *name == "CAP_SYS_ADMIN")
        {
            errors.invalid(
                path,
                context.clone(),
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
            );
        }
    }
    windows_options(errors, context, path);
    app_armor(errors, context, path);
}

/// The `securityContext` of a pod.
pub(super) fn pod(errors: &mut Errors, spec: &Value, path: &Path) {
    let context = doc::get(spec, "securityContext");
    let path = path.child("securityContext");
    for key in ["fsGroup", "runAsUser", "runAsGroup"] {
        id(errors, context, key, &path);
    }
    for (i, group) in doc::list(context, "supplementalGroups").iter().enumerate() {
        if let Some(group) = group
            .as_i64()
            .filter(|group| !(0..=0xffff_ffff).contains(group))
        {
            errors.invalid(
                &path.child("supplementalGroups").index(i),
                group,
                names::out_of_range(0, 0xffff_ffff),
            );
        }
    }
    if doc::flag(spec, "shareProcessNamespace") && doc::flag(spec, "hostPID") {
        errors.invalid(
            &path.child("shareProcessNamespace"),
            true,
            "ShareProcessNamespace and HostPID cannot both be enabled",
        );
    }
    sysctls(errors, context, spec, &path.child("sysctls"));
    errors.if_set_one_of(
        context,
        "fsGroupChangePolicy",
        &path,
        &["Always", "OnRootMismatch"],
    );
    seccomp(errors, context, &path);
    windows_options(errors, context, &path);
    app_armor(errors, context, &path);
    errors.if_set_one_of(
        context,
        "supplementalGroupsPolicy",
        &path,
        &["Merge", "Strict"],
    );
    errors.if_set_one_of(
        context,
        "seLinuxChangePolicy",
        &path,
        &["MountOption", "Recursive"],
    );
}

fn sysctls(errors: &mut Errors, context: &Value, spec: &Value, path: &Path) {
    let mut seen = BTreeSet::new();
    for (i, sysctl) in doc::list(context, "sysctls").iter().enumerate() {
        let name = doc::text(sysctl, "name");
        let path = path.index(i).child("name");
        if name.is_empty() {
            errors.required(&path, "");
        } else if !names::sysctl_name(name) {
            errors.invalid(
                &path,
                name,
                "must have at most 253 characters and match regex \
                 ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
            );
        } else if seen.contains(name) {
            errors.duplicate(&path, name);
        }
        let dotted = name.replace('/', ".");
        let ipc = ["kernel.sem", "kernel.shm", "kernel.msg", "fs.mqueue."]
            .iter()
            .any(|start| dotted.starts_with(start));
        if doc::flag(spec, "hostNetwork") && dotted.starts_with("net.") {
            errors.invalid(
                &path,
                name,
                "may not be specified when 'hostNetwork' is true",
            );
        } else if doc::flag(spec, "hostIPC") && ipc {
            errors.invalid(&path, name, "may not be specified when 'hostIPC' is true");
        }
        seen.insert(name);
    }
}

fn seccomp(errors: &mut Errors, context: &Value, path: &Path) {
    let profile = doc::get(context, "seccompProfile");
    if profile.is_null() {
        return;
    }
    let path = path.child("seccompProfile");
    match doc::text(profile, "type") {
        "Localhost" | "RuntimeDefault" | "Unconfined" => {}
        "" => errors.required(
            &path.child("type"),
            "type is required when seccompProfile is set",
        ),
        other => errors.not_supported(
            &path.child("type"),
            other,
            &["Localhost", "RuntimeDefault", "Unconfined"],
        ),
    }
    let local = path.child("localhostProfile");
    match (
        doc::text(profile, "type") == "Localhost",
        doc::opt_text(profile, "localhostProfile"),
    ) {
        (true, None) => errors.required(&local, "must be set when seccomp type is Localhost"),
        (true, Some(file)) => descending_path(errors, file, &local),
        (false, Some(_)) => {
            errors.invalid(
                &local,
                profile.clone(),
                "can only be set when seccomp type is Localhost",
            );
        }
        (false, None) => {}
    }
}

fn app_armor(errors: &mut Errors, context: &Value, path: &Path) {
    let profile = doc::get(context, "appArmorProfile");
    if profile.is_null() {
        return;
    }
    let path = path.child("appArmorProfile");
    let local = path.child("localhostProfile");
    let file = doc::opt_text(profile, "localhostProfile");
    match doc::text(profile, "type") {
        "Localhost" => match file {
            None => errors.required(&local, "must be set when AppArmor type is Localhost"),
            Some(file) => {
                if file.trim() != file {
                    errors.invalid(&local, file, "must not be padded with whitespace");
                } else if file.is_empty() {
                    errors.required(&local, "must be set when AppArmor type is Localhost");
                }
                if file.len() > 4095 {
                    errors.too_long(&local, 4095);
                }
            }
        },
        "RuntimeDefault" | "Unconfined" => {
            if let Some(file) = file {
                errors.invalid(
                    &local,
                    file,
                    "can only be set when AppArmor type is Localhost",
                );
            }
        }
        "" => errors.required(
            &path.child("type"),
            "type is required when appArmorProfile is set",
        ),
        other => errors.not_supported(
            &path.child("type"),
            other,
            &["Localhost", "RuntimeDefault", "Unconfined"],
        ),
    }
}

fn windows_options(errors: &mut Errors, context: &Value, path: &Path) {
    let options = doc::get(context, "windowsOptions");
    if options.is_null() {
        return;
    }
    let path = path.child("windowsOptions");
    if let Some(name) = doc::opt_text(options, "gmsaCredentialSpecName") {
        errors.all_invalid(
            &path.child("gmsaCredentialSpecName"),
            name,
            names::dns_subdomain(name),
        );
    }
    if let Some(spec) = doc::opt_text(options, "gmsaCredentialSpec") {
        let path = path.child("gmsaCredentialSpec");
        if spec.is_empty() {
            errors.invalid(&path, spec, "gmsaCredentialSpec cannot be an empty string");
        } else if spec.len() > 64 * 1024 {
            errors.invalid(&path, spec, "gmsaCredentialSpec size must be under 64 KiB");
        }
    }
    if let Some(name) = doc::opt_text(options, "runAsUserName") {
        windows_user(errors, name, &path.child("runAsUserName"));
    }
}

fn windows_user(errors: &mut Errors, name: &str, path: &Path) {
    let mut refuse = |detail: &str| errors.invalid(path, name, detail);
    if name.is_empty() {
        return refuse("runAsUserName cannot be an empty string");
    }
    if name.chars().any(|c| c.is_ascii_control()) {
        return refuse("runAsUserName cannot contain control characters");
    }
    if name.matches('\\').count() > 1 {
        return refuse("runAsUserName cannot contain more than one backslash");
    }
    let (domain, user) = name
        .split_once('\\')
        .map_or((None, name), |(domain, user)| (Some(domain), user));
    if let Some(domain) = domain {
        if domain.len() >= 256 {
            refuse("runAsUserName's Domain length must be under 256 characters");
        }
        let net_bios = (1..=15).contains(&domain.len())
            && !domain.starts_with('.')
            && !domain.contains(['\\', '/', ':', '*', '?', '"', '<', '>', '|']);
        let dns = domain.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        });
        if !net_bios && !dns {
            refuse("runAsUserName's Domain doesn't match the NetBios nor the DNS format");
        }
    }
    if user.is_empty() {
        refuse("runAsUserName's User cannot be empty");
    } else if user.len() > 104 {
        refuse("runAsUserName's User length must not be longer than 104 characters");
    }
    if !user.is_empty() && user.chars().all(|c| c == '.' || c == ' ') {
        refuse("runAsUserName's User cannot contain only periods or spaces");
    }
    if user.contains([
        '"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']',
    ]) {
        refuse("runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]");
    }
}

const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Pods that run Windows host processes.
pub(super) fn host_process(errors: &mut Errors, spec: &Value, path: &Path) {
    let of = |context: &Value| {
        doc::opt_flag(
            doc::at(context, &["securityContext", "windowsOptions"]),
            "hostProcess",
        )
    };
    let pod = of(spec);
    let (mut all, mut host) = (0, 0);
    for key in CONTAINER_LISTS {
        for (i, container) in doc::list(spec, key).iter().enumerate() {
            all += 1;
            let own = of(container);
            if let (Some(pod), Some(own)) = (pod, own)
                && pod != own
            {
                errors.invalid(
                    &path
                        .child(key)
                        .index(i)
                        .child("securityContext")
                        .child("windowsOptions")
                        .child("hostProcess"),
                    own,
                    format!(
                        "pod hostProcess value must be identical if both are specified, was {pod}"
                    ),
                );
            }
            host += usize::from(own.or(pod).unwrap_or_default());
        }
    }
    if host == 0 {
        return;
    }
    if host != all {
        errors.invalid(
            path,
            "",
            "If pod contains any hostProcess containers then all containers must be HostProcess containers",
        );
    }
    if !doc::flag(spec, "hostNetwork") {
        errors.invalid(
            &path.child("hostNetwork"),
            false,
            "hostNetwork must be true if pod contains any hostProcess containers",
        );
    }
}

/// User namespaces go with no other namespace of the host.
pub(super) fn host_users(errors: &mut Errors, spec: &Value, path: &Path) {
    if doc::opt_flag(spec, "hostUsers") != Some(false) {
        return;
    }
    for (key, written) in [
        ("hostNetwork", "hostNetwork"),
        ("hostPID", "HostPID"),
        ("hostIPC", "HostIPC"),
    ] {
        if doc::flag(spec, key) {
            errors.forbidden(&path.child(written), "when `pod.Spec.HostUsers` is false");
        }
    }
}

/// `os`, and what the named system can't have.
pub(super) fn operating_system(errors: &mut Errors, spec: &Value, path: &Path) {
    let os = doc::get(spec, "os");
    if os.is_null() {
        return;
    }
    match doc::text(os, "name") {
        "" => errors.required(&path.child("os").child("name"), "cannot be empty"),
        "linux" => linux(errors, spec, path),
        "windows" => windows(errors, spec, path),
        other => errors.not_supported(&path.child("os"), other, &["linux", "windows"]),
    }
}

fn linux(errors: &mut Errors, spec: &Value, path: &Path) {
    let mut check = |of: &Value, path: &Path| {
        if doc::has(doc::get(of, "securityContext"), "windowsOptions") {
            errors.forbidden(
                &path.child("securityContext").child("windowsOptions"),
                "windows options cannot be set for a linux pod",
            );
        }
    };
    check(spec, path);
    for key in CONTAINER_LISTS {
        for (i, container) in doc::list(spec, key).iter().enumerate() {
            check(container, &path.child(key).index(i));
        }
    }
}

fn windows(errors: &mut Errors, spec: &Value, path: &Path) {
    const POD: &[(bool, &str)] = &[
        (true, "appArmorProfile"),
        (true, "seLinuxOptions"),
        (false, "hostUsers"),
        (false, "hostPID"),
        (false, "hostIPC"),
        (true, "seccompProfile"),
        (true, "fsGroup"),
        (true, "fsGroupChangePolicy"),
        (true, "sysctls"),
        (false, "shareProcessNamespace"),
        (true, "runAsUser"),
        (true, "runAsGroup"),
        (true, "supplementalGroups"),
        (true, "supplementalGroupsPolicy"),
        (true, "seLinuxChangePolicy"),
    ];
    const CONTAINER: &[&str] = &[
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "capabilities",
        "readOnlyRootFilesystem",
        "privileged",
        "allowPrivilegeEscalation",
        "procMount",
        "runAsUser",
        "runAsGroup",
    ];
    const DETAIL: &str = "cannot be set for a windows pod";
    let context = doc::get(spec, "securityContext");
    for (in_context, key) in POD {
        let (of, path) = if *in_context {
            (context, path.child("securityContext"))
        } else {
            (spec, path.clone())
        };
        let value = doc::get(of, key);
        // The two flags of the host's namespaces stand by value: false is as good as absent.
        let by_value = matches!(*key, "hostPID" | "hostIPC");
        let is_set = if by_value {
            value == true
        } else {
            !doc::is_empty(value)
        };
        if is_set {
            errors.forbidden(&path.child(key), DETAIL);
        }
    }
    for list in CONTAINER_LISTS {
        for (i, container) in doc::list(spec, list).iter().enumerate() {
            let context = doc::get(container, "securityContext");
            for key in CONTAINER.iter().filter(|key| doc::has(context, key)) {
                errors.forbidden(
                    &path
                        .child(list)
                        .index(i)
                        .child("securityContext")
                        .child(key),
                    DETAIL,
                );
            }
        }
    }
}

/// Annotations that once said what fields say now must agree with the fields.
pub(super) fn annotations_match(errors: &mut Errors, owner: &Value, spec: &Value, path: &Path) {
    if let Some(value) = doc::annotation(owner, "seccomp.security.alpha.kubernetes.io/pod") {
        seccomp_matches(errors, value, doc::get(spec, "securityContext"), path);
    }
    for list in CONTAINER_LISTS {
        for (i, container) in doc::list(spec, list).iter().enumerate() {
            let key = format!(
                "container.seccomp.security.alpha.kubernetes.io/{}",
                doc::text(container, "name")
            );
            if let Some(value) = doc::annotation(owner, &key) {
                seccomp_matches(
                    errors,
                    value,
                    doc::get(container, "securityContext"),
                    &path.child(list).index(i),
                );
            }
        }
    }
    if doc::text(doc::get(spec, "os"), "name") == "windows" {
        return;
    }
    let of_pod = doc::at(spec, &["securityContext", "appArmorProfile"]);
    for list in CONTAINER_LISTS {
        for (i, container) in doc::list(spec, list).iter().enumerate() {
            let own = doc::at(container, &["securityContext", "appArmorProfile"]);
            let profile = if own.is_null() { of_pod } else { own };
            let key = format!(
                "container.apparmor.security.beta.kubernetes.io/{}",
                doc::text(container, "name")
            );
            if let (false, Some(value)) = (profile.is_null(), doc::annotation(owner, &key)) {
                let path = path
                    .child(list)
                    .index(i)
                    .child("securityContext")
                    .child("appArmorProfile");
                profile_matches(errors, value, profile, "runtime/default", "apparmor", &path);
            }
        }
    }
}

fn seccomp_matches(errors: &mut Errors, value: &str, context: &Value, path: &Path) {
    let profile = doc::get(context, "seccompProfile");
    if !profile.is_null() {
        let value = if value == "docker/default" {
            "runtime/default"
        } else {
            value
        };
        let path = path.child("securityContext").child("seccompProfile");
        profile_matches(errors, value, profile, "runtime/default", "seccomp", &path);
    }
}

fn profile_matches(
    errors: &mut Errors,
    value: &str,
    profile: &Value,
    default: &str,
    what: &str,
    path: &Path,
) {
    let type_matches = match doc::text(profile, "type") {
        "Unconfined" => value == "unconfined",
        "RuntimeDefault" => value == default,
        "Localhost" => match value.strip_prefix("localhost/") {
            None => false,
            Some(file) => {
                if doc::opt_text(profile, "localhostProfile") != Some(file) {
                    errors.forbidden(
                        &path.child("localhostProfile"),
                        format!("{what} profile in annotation and field must match"),
                    );
                }
                true
            }
        },
        _ => true,
    };
    if !type_matches {
        errors.forbidden(
            &path.child("type"),
            format!("{what} type in annotation and field must match"),
        );
    }
}
