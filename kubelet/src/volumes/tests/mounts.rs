//! The mounts of containers.

use super::*;

#[test]
fn mounts_are_as_the_container_asks() {
    run(|room| async move {
        let mounts = json!([
            {"name": "v", "mountPath": "/a"},
            {"name": "v", "mountPath": "rel", "readOnly": true},
            {"name": "ro", "mountPath": "/c"},
            {"name": "v", "mountPath": "/d", "mountPropagation": "HostToContainer"},
            {"name": "v", "mountPath": "/e", "mountPropagation": "Bidirectional"},
            {"name": "v", "mountPath": "/f", "readOnly": true, "recursiveReadOnly": "IfPossible"},
        ]);
        let made = room.mounts(mounts.clone()).await.unwrap();
        let seen: Vec<_> = made
            .iter()
            .map(|mount| {
                (
                    mount.container_path.to_str().unwrap(),
                    mount.read_only,
                    mount.propagation,
                    mount.recursive_read_only,
                )
            })
            .collect();
        let private = MountPropagation::Private;
        assert_eq!(
            seen,
            [
                ("/a", false, private, false),
                ("/rel", true, private, false),
                ("/c", true, private, false),
                ("/d", false, MountPropagation::HostToContainer, false),
                ("/e", false, MountPropagation::Bidirectional, false),
                ("/f", true, private, false),
            ]
        );
        assert_eq!(
            made[0].source,
            MountSource::Host(room.dir("empty-dir", "v"))
        );
        room.manager.set_recursive_read_only(true);
        assert!(room.mounts(mounts).await.unwrap()[5].recursive_read_only);
    });
}

#[test]
fn mounts_that_cannot_be_are_refused() {
    run(|room| async move {
        for (mount, expected) in [
            (
                json!({"name": "none"}),
                "cannot find volume \"none\" to mount into container \"c\"",
            ),
            (
                json!({"subPath": "/abs"}),
                "error SubPath `/abs` must not be an absolute path",
            ),
            (
                json!({"subPath": "a/../.."}),
                "unable to provision SubPath `a/../..`: must not contain '..'",
            ),
            (
                json!({"subPathExpr": "$(NOBODY)/x"}),
                "missing value for NOBODY",
            ),
            (
                json!({"subPathExpr": "../$(WHO)"}),
                "unable to provision SubPath `../me`: must not contain '..'",
            ),
            (
                json!({"recursiveReadOnly": "Enabled"}),
                "volume \"v\" requested recursive read-only mode, but it is not read-only",
            ),
            (
                json!({"readOnly": true, "recursiveReadOnly": "Enabled"}),
                "volume \"v\" requested recursive read-only mode, but it is not supported by the runtime",
            ),
            (
                json!({"readOnly": true, "recursiveReadOnly": "IfPossible", "mountPropagation": "Bidirectional"}),
                "volume \"v\" requested recursive read-only mode, but it is not compatible with propagation \"Bidirectional\"",
            ),
            (
                json!({"mountPropagation": "Up"}),
                "invalid MountPropagation mode: \"Up\"",
            ),
            // No mounts here: the container does not start with anything else in its place.
            (
                json!({"subPath": "x"}),
                "failed to prepare subPath for volumeMount \"v\" of container \"c\"",
            ),
        ] {
            let mut wanted = json!({"name": "v", "mountPath": "/m"});
            wanted
                .as_object_mut()
                .unwrap()
                .extend(mount.as_object().unwrap().clone());
            let error = room.mounts(json!([wanted])).await.unwrap_err();
            assert_eq!(error.message, expected);
            assert_eq!(error.waiting.as_deref(), Some("CreateContainerConfigError"));
        }
    });
}
