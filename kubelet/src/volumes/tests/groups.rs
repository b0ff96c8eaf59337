//! `fsGroup`.

use super::*;

#[test]
fn the_groups_files_are_the_groups() {
    run(|room| async move {
        room.config_map("m", json!({"a": "1"})).await;
        // The own group needs no privileges.
        let group = std::fs::metadata(room.root.path()).unwrap().gid();
        let pod = pod(
            json!([
                {"name": "v", "emptyDir": {}},
                {"name": "map", "configMap": {"name": "m", "defaultMode": 0o400}},
                {"name": "tok", "projected": {"sources": [{"serviceAccountToken": {"path": "d/token"}}]}},
            ]),
            json!({"securityContext": {"fsGroup": group}}),
        );
        room.manager.set_up(&pod).await.unwrap();
        let (scratch, map) = (room.dir("empty-dir", "v"), room.dir("configmap", "map"));
        let token = room.dir("projected", "tok");
        assert_eq!(mode(&scratch), 0o2777);
        assert_eq!((mode(&map), mode(&map.join("a"))), (0o2777, 0o440));
        // A token that only the pod's group may read.
        assert_eq!(
            (mode(&token.join("d")), mode(&token.join("d/token"))),
            (0o2755, 0o640)
        );
        // What a container does with its files is its own business, and with the directory, too.
        std::fs::set_permissions(&scratch, PermissionsExt::from_mode(0o700)).unwrap();
        std::fs::write(scratch.join("own"), "").unwrap();
        std::fs::set_permissions(scratch.join("own"), PermissionsExt::from_mode(0o600)).unwrap();
        let data = std::fs::read_link(map.join("..data")).unwrap();
        room.manager.set_up(&pod).await.unwrap();
        assert_eq!((mode(&scratch), mode(&scratch.join("own"))), (0o700, 0o600));
        assert_eq!(std::fs::read_link(map.join("..data")).unwrap(), data);
    });
}

#[test]
fn giving_to_a_group_follows_no_link() {
    use super::tree::GroupAccess;
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    std::fs::create_dir_all(at("volume/d")).unwrap();
    for name in ["outside", "volume/f", "volume/d/f"] {
        std::fs::write(at(name), "").unwrap();
        std::fs::set_permissions(at(name), PermissionsExt::from_mode(0o600)).unwrap();
    }
    std::fs::set_permissions(at("volume"), PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink(at("outside"), at("volume/link")).unwrap();
    let access = GroupAccess {
        group: std::fs::metadata(temp.path()).unwrap().gid(),
        read_only: false,
    };
    tree::give_to_group(&at("volume"), access, true).unwrap();
    assert_eq!(
        (mode(&at("volume/f")), mode(&at("volume/d/f"))),
        (0o660, 0o660)
    );
    assert_eq!(
        (mode(&at("volume")), mode(&at("volume/d"))),
        (0o2775, 0o2775)
    );
    assert_eq!(mode(&at("outside")), 0o600);
    // The root is as it should be: what is below is not looked at, unless asked to.
    std::fs::set_permissions(at("volume/f"), PermissionsExt::from_mode(0o600)).unwrap();
    tree::give_to_group(&at("volume"), access, true).unwrap();
    assert_eq!(mode(&at("volume/f")), 0o600);
    tree::give_to_group(&at("volume"), access, false).unwrap();
    assert_eq!(mode(&at("volume/f")), 0o660);
}
