//! What only who may mount can try. Elsewhere these are skipped by name.

use std::os::unix::fs::symlink;

use super::*;

fn mounted<F: Future<Output = ()> + Send + 'static>(
    test: &str,
    body: impl FnOnce(Room) -> F + Send + 'static,
) {
    let ground = Root::new();
    if let Err(error) = HostMounter::default().tmpfs(ground.path(), None) {
        println!("skipped: {test}: cannot mount: {error}");
        return;
    }
    run_with(HostMounter::default(), body);
}

fn below(dir: &Path) -> Vec<PathBuf> {
    let dir = std::fs::canonicalize(dir).unwrap();
    HostMounter::default().at_or_below(&dir).unwrap()
}

fn host(mount: &Mount) -> PathBuf {
    match &mount.source {
        MountSource::Host(path) => path.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn secrets_and_tokens_and_memory_are_in_memory() {
    mounted(
        "secrets_and_tokens_and_memory_are_in_memory",
        |room| async move {
            room.secret("s", "key", "hush").await;
            let pod = pod(
                json!([
                    {"name": "sec", "secret": {"secretName": "s"}},
                    {"name": "tok", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
                    {"name": "mem", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
                    {"name": "disk", "emptyDir": {}},
                ]),
                json!({"securityContext": {"fsGroup": 4242, "runAsUser": 4243}}),
            );
            for _ in 0..2 {
                room.manager.set_up(&pod).await.unwrap();
                assert_eq!(below(room.root.path()).len(), 3);
            }
            let secret = room.dir("secret", "sec").join("key");
            let meta = std::fs::metadata(&secret).unwrap();
            assert_eq!((meta.gid(), mode(&secret)), (4242, 0o644));
            // Only the one user and the group can read a token.
            let token = room.dir("projected", "tok").join("token");
            let meta = std::fs::metadata(&token).unwrap();
            assert_eq!((meta.uid(), meta.gid(), mode(&token)), (4243, 4242, 0o640));
            let memory = room.dir("empty-dir", "mem");
            let of = rustix::fs::statvfs(&memory).unwrap();
            assert_eq!(of.f_blocks * of.f_frsize, 1 << 20);
            assert_eq!(mode(&memory), 0o2777);
            std::fs::write(memory.join("fill"), vec![0; 2 << 20]).unwrap_err();
            let usage = room.manager.usage("u").await;
            let mounted: Vec<_> = usage
                .iter()
                .map(|of| (of.name.as_str(), of.mounted))
                .collect();
            assert_eq!(
                mounted,
                [("disk", false), ("mem", true), ("tok", true), ("sec", true)]
            );
            let memory = usage.iter().find(|of| of.name == "mem").unwrap();
            assert_eq!(
                (memory.capacity_bytes, memory.used_bytes),
                (1 << 20, 1 << 20)
            );
            room.manager.tear_down("u").await.unwrap();
            assert_eq!(below(room.root.path()), Vec::<PathBuf>::new());
            assert!(room.manager.on_disk().await.is_empty());
        },
    );
}

#[test]
fn parts_of_volumes_are_bound_and_removed() {
    mounted(
        "parts_of_volumes_are_bound_and_removed",
        |room| async move {
            let wanted = json!([
                {"name": "v", "mountPath": "/a", "subPath": "new/dir"},
                {"name": "v", "mountPath": "/b", "subPathExpr": "log/$(WHO)"},
                {"name": "ro", "mountPath": "/c", "subPath": "key"},
            ]);
            let made = room.mounts(wanted.clone()).await.unwrap();
            let base = room.root.path().join("pods/u/volume-subpaths");
            assert_eq!(host(&made[0]), base.join("v/c/0"));
            assert_eq!(host(&made[2]), base.join("ro/c/2"));
            let volume = room.dir("empty-dir", "v");
            assert_eq!(mode(&volume.join("new/dir")), 0o777);
            std::fs::write(host(&made[0]).join("x"), "seen").unwrap();
            assert_eq!(read(&volume.join("new/dir/x")), "seen");
            assert!(volume.join("log/me").is_dir());
            assert_eq!(read(&host(&made[2])), "1");
            // A restart of the container finds them.
            let before = below(room.root.path()).len();
            assert_eq!(room.mounts(wanted.clone()).await.unwrap(), made);
            assert_eq!(below(room.root.path()).len(), before);
            // The key has another value now, and a container that starts again sees it.
            room.config_map("m", json!({"key": "2"})).await;
            room.env.sleep(std::time::Duration::from_millis(10)).await;
            let pod = pod(
                json!([{"name": "v", "emptyDir": {}}, {"name": "ro", "configMap": {"name": "m"}}]),
                json!({}),
            );
            let ready = room.manager.set_up(&pod).await.unwrap();
            assert_eq!(read(&host(&made[2])), "1");
            let container = serde_json::from_value(json!({"name": "c", "volumeMounts": [
            {"name": "v", "mountPath": "/a", "subPath": "new/dir"},
            {"name": "v", "mountPath": "/b", "subPath": "log/me"},
            {"name": "ro", "mountPath": "/c", "subPath": "key"}]}))
            .unwrap();
            room.manager
                .mounts(&pod, &container, &ready, &[])
                .await
                .unwrap();
            assert_eq!(read(&host(&made[2])), "2");
            room.manager.tear_down("u").await.unwrap();
            assert_eq!(below(room.root.path()), Vec::<PathBuf>::new());
            assert!(!base.exists());
        },
    );
}

#[test]
fn links_do_not_lead_out_of_a_volume() {
    mounted("links_do_not_lead_out_of_a_volume", |room| async move {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("shadow"), "host").unwrap();
        std::fs::create_dir(outside.path().join("d")).unwrap();
        // The volume is there before its parts are asked for, as in a container that starts again.
        room.mounts(json!([])).await.unwrap();
        let volume = room.dir("empty-dir", "v");
        std::fs::create_dir(volume.join("real")).unwrap();
        symlink(outside.path(), volume.join("abs")).unwrap();
        symlink("../../../../../../../../..", volume.join("up")).unwrap();
        symlink("real", volume.join("fine")).unwrap();
        symlink("loop", volume.join("loop")).unwrap();
        symlink("/proc/self/root", volume.join("magic")).unwrap();
        symlink("nowhere", volume.join("dangling")).unwrap();
        for sub_path in [
            "abs",
            "abs/shadow",
            "abs/d",
            "abs/new",
            "up/etc",
            "up/tmp/new",
            "loop",
            "magic",
            "magic/etc",
            "dangling",
            "dangling/new",
            "real/../../..",
        ] {
            let mount = json!([{"name": "v", "mountPath": "/m", "subPath": sub_path}]);
            let error = room.mounts(mount).await.unwrap_err();
            let known = [
                "failed to create subPath directory for",
                "failed to prepare subPath for",
                "unable to provision SubPath",
            ];
            assert!(
                known.iter().any(|known| error.message.starts_with(known)),
                "{sub_path}: {error}"
            );
            assert!(!error.message.contains(outside.path().to_str().unwrap()));
        }
        assert_eq!(below(room.root.path()), Vec::<PathBuf>::new());
        assert_eq!(names(outside.path()), ["d", "shadow"]);
        let made = room
            .mounts(json!([{"name": "v", "mountPath": "/m", "subPath": "fine/x"}]))
            .await
            .unwrap();
        assert!(volume.join("real/x").is_dir() && host(&made[0]).is_dir());
        room.manager.tear_down("u").await.unwrap();
        assert_eq!(read(&outside.path().join("shadow")), "host");
    });
}

#[test]
fn a_race_for_a_link_is_lost() {
    mounted("a_race_for_a_link_is_lost", |room| async move {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "host").unwrap();
        room.mounts(json!([])).await.unwrap();
        let volume = room.dir("empty-dir", "v");
        std::fs::create_dir(volume.join("real")).unwrap();
        std::fs::write(volume.join("real/secret"), "volume").unwrap();
        symlink("real", volume.join("a")).unwrap();
        symlink(outside.path(), volume.join("b")).unwrap();
        // Swaps the good link and the bad one, again and again.
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let swapper = std::thread::spawn({
            let (stop, volume) = (stop.clone(), volume.clone());
            move || {
                use rustix::fs::{CWD, RenameFlags, renameat_with};
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    renameat_with(
                        CWD,
                        volume.join("a"),
                        CWD,
                        volume.join("b"),
                        RenameFlags::EXCHANGE,
                    )
                    .unwrap();
                }
            }
        });
        let mut bound = 0;
        for _ in 0..300 {
            let mount = json!([{"name": "v", "mountPath": "/m", "subPath": "a/secret"}]);
            if let Ok(made) = room.mounts(mount).await {
                assert_eq!(read(&host(&made[0])), "volume");
                bound += 1;
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        swapper.join().unwrap();
        assert!(bound > 0);
        room.manager.tear_down("u").await.unwrap();
    });
}

#[test]
fn what_is_mounted_into_a_pod_survives_it() {
    mounted(
        "what_is_mounted_into_a_pod_survives_it",
        |room| async move {
            let data = tempfile::tempdir().unwrap();
            std::fs::create_dir(data.path().join("d")).unwrap();
            std::fs::write(data.path().join("d/precious"), "data").unwrap();
            room.mounts(json!([])).await.unwrap();
            let volume = room.dir("empty-dir", "v");
            // Two mounts over each other, one of them with another below, as a container with propagation could leave them.
            let bind = |from: &Path, at: &Path| {
                std::fs::create_dir_all(at).unwrap();
                let from = std::fs::File::open(from).unwrap();
                HostMounter::default()
                    .bind(std::os::fd::AsFd::as_fd(&from), at)
                    .unwrap();
            };
            bind(data.path(), &volume.join("m"));
            bind(data.path(), &volume.join("m/d"));
            bind(data.path(), &volume.join("m"));
            // A bind mount has the device of its surroundings: a walk by devices alone would not see it.
            assert_eq!(
                tree::remove(&volume).unwrap_err().kind(),
                io::ErrorKind::ResourceBusy
            );
            assert_eq!(read(&data.path().join("d/precious")), "data");
            room.manager.tear_down("u").await.unwrap();
            assert_eq!(below(room.root.path()), Vec::<PathBuf>::new());
            assert_eq!(read(&data.path().join("d/precious")), "data");
            assert!(room.manager.on_disk().await.is_empty());
        },
    );
}

#[test]
fn a_mount_in_use_is_waited_for() {
    mounted("a_mount_in_use_is_waited_for", |room| async move {
        let pod = pod(
            json!([{"name": "mem", "emptyDir": {"medium": "Memory"}}]),
            json!({}),
        );
        room.manager.set_up(&pod).await.unwrap();
        let dir = room.dir("empty-dir", "mem");
        std::fs::write(dir.join("x"), "1").unwrap();
        let open = std::fs::File::open(dir.join("x")).unwrap();
        let error = room.manager.tear_down("u").await.unwrap_err();
        assert!(error.message.contains("busy"), "{error}");
        assert_eq!(read(&dir.join("x")), "1");
        drop(open);
        room.manager.tear_down("u").await.unwrap();
        assert!(!dir.exists());
    });
}

#[test]
fn a_full_disk_is_said_and_leaves_no_half() {
    mounted(
        "a_full_disk_is_said_and_leaves_no_half",
        |mut room| async move {
            // A disk that is small.
            let pods = room.root.path().join("pods");
            std::fs::create_dir(&pods).unwrap();
            HostMounter::default().tmpfs(&pods, Some(64 << 10)).unwrap();
            let told = Arc::new(Mutex::new(Vec::new()));
            let log = told.clone();
            room.manager = room
                .manager
                .on_outdated(move |_, error| log.lock().push(error.clone()));
            let full = |error: &PartError| {
                assert_eq!(error.event, "FailedMount");
                let start = "MountVolume.SetUp failed for volume \"map\" : write ";
                assert!(error.message.starts_with(start), "{error}");
                assert!(
                    error.message.ends_with(": no space left on device"),
                    "{error}"
                );
            };
            let large = json!({"a": "x".repeat(100 << 10), "b": "2"});
            room.config_map("m", large.clone()).await;
            let pod = pod(
                json!([{"name": "map", "configMap": {"name": "m"}}]),
                json!({}),
            );
            full(&room.manager.set_up(&pod).await.unwrap_err());
            let dir = room.dir("configmap", "map");
            assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
            room.config_map("m", json!({"a": "small", "b": "1"})).await;
            room.env.sleep(std::time::Duration::from_millis(10)).await;
            room.manager.set_up(&pod).await.unwrap();
            assert_eq!(*told.lock(), []);
            room.config_map("m", large).await;
            room.env.sleep(std::time::Duration::from_millis(10)).await;
            room.manager.set_up(&pod).await.unwrap();
            full(&told.lock()[0]);
            // All of the old state, and nothing of the new one.
            assert_eq!(
                (read(&dir.join("a")), read(&dir.join("b"))),
                ("small".to_owned(), "1".to_owned())
            );
            let all = std::fs::read_dir(&dir).unwrap().count();
            assert_eq!(all, 4);
            room.config_map("m", json!({"a": "fits", "b": "3"})).await;
            room.env.sleep(std::time::Duration::from_millis(10)).await;
            room.manager.set_up(&pod).await.unwrap();
            assert_eq!(
                (read(&dir.join("a")), read(&dir.join("b"))),
                ("fits".to_owned(), "3".to_owned())
            );
            room.manager.tear_down("u").await.unwrap();
            HostMounter::default()
                .unmount(&std::fs::canonicalize(&pods).unwrap())
                .unwrap();
        },
    );
}
