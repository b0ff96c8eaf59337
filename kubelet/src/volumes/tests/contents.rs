//! Volumes with contents from the API.

use super::*;

#[test]
fn every_kind_of_volume_is_made_and_removed() {
    run(|room| async move {
        room.config_map("m", json!({"a": "1", "b": "2"})).await;
        room.secret("s", "key", "hush").await;
        let host = tempfile::tempdir().unwrap();
        std::fs::write(host.path().join("precious"), "data").unwrap();
        let pod = pod(
            json!([
                {"name": "map", "configMap": {"name": "m", "defaultMode": 0o600}},
                {"name": "some", "configMap": {"name": "m", "items": [{"key": "b", "path": "x/y", "mode": 0o400}]}},
                {"name": "sec", "secret": {"secretName": "s"}},
                {"name": "down", "downwardAPI": {"items": [
                    {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                    {"path": "cpu", "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu", "divisor": "1m"}},
                    {"path": "mem", "resourceFieldRef": {"containerName": "c", "resource": "limits.memory"}}]}},
                {"name": "all", "projected": {"sources": [
                    {"serviceAccountToken": {"path": "token"}},
                    {"configMap": {"name": "m", "items": [{"key": "a", "path": "ca.crt"}]}},
                    {"secret": {"name": "s"}},
                    {"downwardAPI": {"items": [{"path": "ns", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}]}},
                {"name": "scratch", "emptyDir": {}},
                {"name": "host", "hostPath": {"path": host.path(), "type": "Directory"}},
            ]),
            json!({}),
        );
        let ready = room.manager.set_up(&pod).await.unwrap();
        let names_ready: Vec<&String> = ready.by_name.keys().collect();
        assert_eq!(
            names_ready,
            ["all", "down", "host", "map", "scratch", "sec", "some"]
        );
        let map = room.dir("configmap", "map");
        assert_eq!(ready.by_name["map"].path, map);
        assert!(ready.by_name["map"].read_only);
        assert_eq!(
            (read(&map.join("a")), mode(&map.join("a"))),
            ("1".to_owned(), 0o600)
        );
        let some = room.dir("configmap", "some");
        assert_eq!(names(&some), ["x"]);
        assert_eq!(
            (read(&some.join("x/y")), mode(&some.join("x/y"))),
            ("2".to_owned(), 0o400)
        );
        assert_eq!(read(&room.dir("secret", "sec").join("key")), "hush");
        let down = room.dir("downward-api", "down");
        assert_eq!(read(&down.join("labels")), "a=\"1\"\nb=\"2\"");
        assert_eq!(read(&down.join("cpu")), "1500");
        assert_eq!(read(&down.join("mem")), (1 << 30).to_string());
        let all = room.dir("projected", "all");
        assert_eq!(names(&all), ["ca.crt", "key", "ns", "token"]);
        assert_eq!(read(&all.join("token")), "token of robot");
        assert_eq!(
            (read(&all.join("ns")), mode(&all.join("token"))),
            ("ns".to_owned(), 0o644)
        );
        let scratch = room.dir("empty-dir", "scratch");
        assert_eq!(mode(&scratch), 0o777);
        assert_eq!(ready.by_name["host"].path, host.path());
        // Once more changes nothing.
        let before = std::fs::read_link(map.join("..data")).unwrap();
        assert_eq!(room.manager.set_up(&pod).await.unwrap(), ready);
        assert_eq!(std::fs::read_link(map.join("..data")).unwrap(), before);
        assert_eq!(room.manager.on_disk().await, ["u"]);

        std::fs::write(scratch.join("big"), vec![1; 100_000]).unwrap();
        let usage = room.manager.usage("u").await;
        let scratch = usage.iter().find(|usage| usage.name == "scratch").unwrap();
        assert_eq!(scratch.plugin, "kubernetes.io/empty-dir");
        assert!(
            (100_000..200_000).contains(&scratch.used_bytes),
            "{scratch:?}"
        );
        assert!(scratch.inodes_used == 2 && scratch.capacity_bytes > 0 && !scratch.mounted);

        room.manager.tear_down("u").await.unwrap();
        room.manager.tear_down("u").await.unwrap();
        assert_eq!(room.manager.on_disk().await, Vec::<String>::new());
        assert_eq!(room.manager.usage("u").await, []);
        assert_eq!(read(&host.path().join("precious")), "data");
    });
}

#[test]
fn what_is_missing_is_said_in_an_event() {
    run(|room| async move {
        room.config_map("m", json!({"a": "1"})).await;
        room.secret("s", "key", "hush").await;
        let set_up = "MountVolume.SetUp failed for volume \"v\" : ";
        let attach = "Unable to attach or mount volumes: unmounted volumes=[v], unattached volumes=[], failed to process volumes=[v]: ";
        for (volume, start, expected) in [
            (
                json!({"configMap": {"name": "y"}}),
                set_up,
                "configmap \"y\" not found",
            ),
            (
                json!({"secret": {"secretName": "y"}}),
                set_up,
                "secret \"y\" not found",
            ),
            (
                json!({"configMap": {"name": "m", "items": [{"key": "k", "path": "k"}]}}),
                set_up,
                "configmap references non-existent config key: k",
            ),
            (
                json!({"secret": {"secretName": "s", "items": [{"key": "k", "path": "k"}]}}),
                set_up,
                "references non-existent secret key: k",
            ),
            (
                json!({"projected": {"sources": [{"configMap": {"name": "y"}}]}}),
                set_up,
                "configmap \"y\" not found",
            ),
            (
                json!({"projected": {"sources": [{"configMap": {"name": "y"}}, {"secret": {"name": "z"}}]}}),
                set_up,
                "[configmap \"y\" not found, secret \"z\" not found]",
            ),
            (
                json!({"projected": {"sources": [{"podCertificate": {"keyType": "ED25519", "signerName": "a/b"}}]}}),
                set_up,
                "PodCertificate projection is not supported by this node",
            ),
            (
                json!({"projected": {"sources": [{"clusterTrustBundle": {"name": "b", "path": "p"}}]}}),
                set_up,
                "ClusterTrustBundle projection is not supported by this node",
            ),
            (
                json!({"downwardAPI": {"items": [{"path": "p", "resourceFieldRef": {"containerName": "x", "resource": "limits.cpu"}}]}}),
                set_up,
                "container x not found",
            ),
            (
                json!({"configMap": {"name": "m", "items": [{"key": "a", "path": "../a"}]}}),
                set_up,
                "invalid path: \"../a\" must not start with '..'",
            ),
            (
                json!({"hostPath": {"path": "/proc/version", "type": "Directory"}}),
                set_up,
                "hostPath type check failed: /proc/version is not a directory",
            ),
            (
                json!({"emptyDir": {"medium": "HugePages"}}),
                set_up,
                "storage medium \"HugePages\" is not supported by this node",
            ),
            (
                json!({"emptyDir": {"medium": "Floppy"}}),
                set_up,
                "unknown storage medium \"Floppy\"",
            ),
            (
                json!({"image": {"reference": "r"}}),
                set_up,
                "image volumes are not supported by this node",
            ),
            (
                json!({"gitRepo": {"repository": "r"}}),
                "MountVolume.NewMounter initialization failed for volume \"v\" : ",
                "git-repo volume plugin has been disabled",
            ),
            (
                json!({"csi": {"driver": "d"}}),
                attach,
                "failed to get Plugin from volumeSpec for volume \"v\" err=no volume plugin matched",
            ),
            (
                json!({"nfs": {"server": "s", "path": "/"}}),
                attach,
                "failed to get Plugin from volumeSpec for volume \"v\" err=no volume plugin matched",
            ),
        ] {
            let mut volume = volume;
            volume["name"] = "v".into();
            let error = room.fails(volume).await;
            assert_eq!(error.event, "FailedMount");
            assert_eq!(error.waiting, None);
            assert_eq!(error.message, format!("{start}{expected}"));
        }
    });
}

#[test]
fn what_is_optional_may_be_missing() {
    run(|room| async move {
        room.config_map("m", json!({"a": "1"})).await;
        let pod = pod(
            json!([
                {"name": "map", "configMap": {"name": "y", "optional": true}},
                {"name": "sec", "secret": {"secretName": "y", "optional": true}},
                {"name": "key", "configMap": {"name": "m", "optional": true, "items": [{"key": "a", "path": "a"}, {"key": "k", "path": "k"}]}},
                {"name": "all", "projected": {"sources": [
                    {"secret": {"name": "y", "optional": true}}, {"configMap": {"name": "m"}},
                    {"clusterTrustBundle": {"name": "b", "path": "bundle", "optional": true}}]}},
            ]),
            json!({}),
        );
        room.manager.set_up(&pod).await.unwrap();
        assert_eq!(names(&room.dir("configmap", "map")), Vec::<String>::new());
        assert_eq!(names(&room.dir("secret", "sec")), Vec::<String>::new());
        assert_eq!(names(&room.dir("configmap", "key")), ["a"]);
        assert_eq!(names(&room.dir("projected", "all")), ["a", "bundle"]);
        // It comes later.
        room.secret("y", "late", "1").await;
        room.env.sleep(std::time::Duration::from_millis(10)).await;
        assert_eq!(*room.woken.lock(), ["u"]);
        room.manager.set_up(&pod).await.unwrap();
        assert_eq!(names(&room.dir("secret", "sec")), ["late"]);
        assert_eq!(
            names(&room.dir("projected", "all")),
            ["a", "bundle", "late"]
        );
    });
}

#[test]
fn a_change_reaches_the_files_as_one() {
    run(|room| async move {
        room.config_map("m", json!({"a": "1", "b": "1"})).await;
        let pod = pod(
            json!([{"name": "map", "configMap": {"name": "m"}}]),
            json!({}),
        );
        room.manager.set_up(&pod).await.unwrap();
        let dir = room.dir("configmap", "map");
        let before = std::fs::canonicalize(dir.join("..data")).unwrap();
        room.config_map("m", json!({"a": "2", "b": null, "c": "2"}))
            .await;
        room.env.sleep(std::time::Duration::from_millis(10)).await;
        assert_eq!(*room.woken.lock(), ["u"]);
        room.manager.set_up(&pod).await.unwrap();
        assert_eq!(names(&dir), ["a", "c"]);
        assert_eq!(
            (read(&dir.join("a")), read(&dir.join("c"))),
            ("2".to_owned(), "2".to_owned())
        );
        assert_ne!(std::fs::canonicalize(dir.join("..data")).unwrap(), before);
        assert!(!before.exists());
        // A pod that is gone is not woken any more.
        room.manager.tear_down("u").await.unwrap();
        room.config_map("m", json!({"a": "3"})).await;
        room.env.sleep(std::time::Duration::from_millis(10)).await;
        assert_eq!(room.woken.lock().len(), 1);
    });
}

#[test]
fn volumes_that_no_container_uses_are_not_made() {
    run(|room| async move {
        let volumes = json!([{"name": "used", "emptyDir": {}}, {"name": "unused", "configMap": {"name": "none"}}]);
        let mounts = json!([{"name": "used", "mountPath": "/x"}]);
        let pod = pod(
            volumes,
            json!({"containers": [{"name": "c", "volumeMounts": mounts}]}),
        );
        let ready = room.manager.set_up(&pod).await.unwrap();
        assert_eq!(ready.by_name.len(), 1);
        assert_eq!(ready.by_name["used"].path, room.dir("empty-dir", "used"));
    });
}

#[test]
fn a_volume_that_cannot_be_brought_up_to_date_stays_as_it_is() {
    run(|mut room| async move {
        let told = Arc::new(Mutex::new(Vec::new()));
        let log = told.clone();
        room.manager = room.manager.on_outdated(move |pod, error| {
            let name = pod.metadata.name.clone().unwrap();
            log.lock()
                .push((name, error.event.to_string(), error.message.clone()));
        });
        room.config_map("m", json!({"a": "1"})).await;
        let pod = pod(
            json!([{"name": "map", "configMap": {"name": "m"}}, {"name": "e", "emptyDir": {}}]),
            json!({}),
        );
        let ready = room.manager.set_up(&pod).await.unwrap();
        let client = room.api.client();
        let maps = client
            .resource(&ObjectKind::ConfigMap.resource())
            .namespace("ns");
        maps.delete("m", Default::default()).await.unwrap();
        room.env.sleep(std::time::Duration::from_millis(10)).await;
        assert_eq!(room.manager.set_up(&pod).await.unwrap(), ready);
        assert_eq!(read(&room.dir("configmap", "map").join("a")), "1");
        let message = "MountVolume.SetUp failed for volume \"map\" : configmap \"m\" not found";
        let expected = ("p".to_owned(), "FailedMount".to_owned(), message.to_owned());
        assert_eq!(*told.lock(), [expected]);
        // The next pod has nothing to go on with.
        room.manager.tear_down("u").await.unwrap();
        assert_eq!(
            room.manager.set_up(&pod).await.unwrap_err().message,
            message
        );
    });
}

#[test]
fn a_hosts_path_is_checked_once() {
    run(|room| async move {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("socket.d");
        let volume = json!([{"name": "h", "hostPath": {"path": path, "type": "Directory"}}]);
        let pod = pod(volume, json!({}));
        room.manager.set_up(&pod).await.unwrap_err();
        std::fs::create_dir(&path).unwrap();
        let ready = room.manager.set_up(&pod).await.unwrap();
        std::fs::remove_dir(&path).unwrap();
        assert_eq!(room.manager.set_up(&pod).await.unwrap(), ready);
        room.manager.tear_down("u").await.unwrap();
        room.manager.set_up(&pod).await.unwrap_err();
    });
}
