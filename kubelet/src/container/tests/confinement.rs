//! Whom containers run as, and what they may not do.

use super::*;

fn confined(spec: Value, user: Option<ImageUser>) -> Result<ContainerSecurity, String> {
    let pod = pod_of(spec);
    let container = &pod.spec.as_ref().unwrap().containers[0];
    let none = UserNamespace::Host;
    super::security::of_container(
        &pod,
        container,
        &image(user),
        None,
        none,
        Path::new("/root/seccomp"),
    )
}

#[test]
fn who_must_not_be_root_is_not() {
    let whose = "(pod: \"web_ns(1f0e)\", container: c)";
    let id = |id| Some(ImageUser::Id(id));
    let name = Some(ImageUser::Name("app".to_owned()));
    for (whole, own, user, expected) in [
        (json!({}), json!({}), None, Ok(Some(0))),
        (json!({}), json!({}), id(5), Ok(Some(5))),
        (json!({}), json!({}), name.clone(), Ok(None)),
        (
            json!({"runAsUser": 1}),
            json!({"runAsUser": 2}),
            None,
            Ok(Some(2)),
        ),
        (
            json!({"runAsUser": 1}),
            json!({}),
            name.clone(),
            Ok(Some(1)),
        ),
        (json!({"runAsNonRoot": true}), json!({}), id(5), Ok(Some(5))),
        (
            json!({"runAsNonRoot": true}),
            json!({"runAsNonRoot": false}),
            None,
            Ok(Some(0)),
        ),
        (
            json!({"runAsNonRoot": true}),
            json!({"runAsUser": 3}),
            None,
            Ok(Some(3)),
        ),
        (
            json!({"runAsNonRoot": true}),
            json!({}),
            None,
            Err("container has runAsNonRoot and image will run as root"),
        ),
        (
            json!({}),
            json!({"runAsNonRoot": true}),
            id(0),
            Err("container has runAsNonRoot and image will run as root"),
        ),
        (
            json!({"runAsUser": 0}),
            json!({"runAsNonRoot": true}),
            id(5),
            Err("container's runAsUser breaks non-root policy"),
        ),
        (
            json!({"runAsNonRoot": true}),
            json!({}),
            name,
            Err(
                "container has runAsNonRoot and image has non-numeric user (app), cannot verify user is non-root",
            ),
        ),
    ] {
        let spec = json!({"securityContext": whole, "containers": [{"name": "c", "securityContext": own}]});
        let made = confined(spec.clone(), user).map(|made| made.identity.user);
        assert_eq!(
            made,
            expected.map_err(|why| format!("{why} {whose}")),
            "{spec}"
        );
    }
}

#[test]
fn a_container_is_confined_as_it_says() {
    let plain = confined(json!({"containers": [{"name": "c"}]}), None).unwrap();
    assert_eq!(plain.seccomp, SecurityProfile::Unconfined);
    assert_eq!(plain.apparmor, SecurityProfile::RuntimeDefault);
    assert!(plain.masked_paths.iter().any(|path| path == "/proc/kcore"));
    assert!(plain.read_only_paths.iter().any(|path| path == "/proc/sys"));
    assert!(!plain.privileged && !plain.no_new_privileges && !plain.read_only_root);
    let full = confined(
        json!({
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}, "fsGroup": 4, "supplementalGroups": [5],
                "supplementalGroupsPolicy": "Strict", "runAsGroup": 6, "seLinuxOptions": {"level": "s0"}},
            "shareProcessNamespace": true,
            "containers": [{"name": "c", "securityContext": {
                "privileged": true, "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false,
                "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}, "procMount": "Unmasked",
                "seccompProfile": {"type": "Localhost", "localhostProfile": "a/b.json"},
                "appArmorProfile": {"type": "Localhost", "localhostProfile": "mine"},
                "seLinuxOptions": {"type": "t"},
            }}],
        }),
        None,
    )
    .unwrap();
    assert!(full.privileged && full.no_new_privileges && full.read_only_root);
    assert!(full.masked_paths.is_empty() && full.read_only_paths.is_empty());
    assert_eq!(full.capabilities.add, ["NET_ADMIN"]);
    assert_eq!(full.capabilities.drop, ["ALL"]);
    assert_eq!(
        full.seccomp,
        SecurityProfile::Localhost("/root/seccomp/a/b.json".to_owned())
    );
    assert_eq!(full.apparmor, SecurityProfile::Localhost("mine".to_owned()));
    assert_eq!(full.selinux.unwrap().kind, "t");
    assert_eq!(full.identity.supplemental_groups, [4, 5]);
    assert_eq!(
        full.identity.supplemental_groups_policy,
        SupplementalGroupsPolicy::Strict
    );
    assert_eq!(full.identity.group, Some(6));
    assert_eq!(full.namespaces.pid, NamespaceMode::Pod);
    for profile in [
        json!({"type": "Localhost"}),
        json!({"type": "Localhost", "localhostProfile": "../x"}),
    ] {
        let own =
            json!({"containers": [{"name": "c", "securityContext": {"seccompProfile": profile}}]});
        assert!(confined(own, None).is_err());
    }
}
