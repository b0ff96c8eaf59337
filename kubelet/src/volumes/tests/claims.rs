//! Claims.

use super::*;

#[test]
fn claims_become_the_directories_that_they_are_bound_to() {
    run(|room| async move {
        let data = tempfile::tempdir().unwrap();
        let claim = async |name: &str, volume: &str, phase: &str, owner: Value| {
            let body = json!({
                "metadata": {"name": name, "ownerReferences": owner}, "spec": {"volumeName": volume}, "status": {"phase": phase}});
            room.put(&CLAIMS, body).await.uid().to_owned()
        };
        let persistent = async |name: &str, uid: &str, source: Value| {
            let mut spec = json!({"claimRef": {"name": "c", "uid": uid}});
            spec.as_object_mut()
                .unwrap()
                .extend(source.as_object().unwrap().clone());
            let body = json!({"metadata": {"name": name}, "spec": spec});
            room.put(&PERSISTENT, body).await;
        };
        let none = || json!([]);
        let uid = claim("host", "pv-host", "Bound", none()).await;
        persistent(
            "pv-host",
            &uid,
            json!({"hostPath": {"path": data.path(), "type": "Directory"}}),
        )
        .await;
        let uid = claim("local", "pv-local", "Bound", none()).await;
        persistent("pv-local", &uid, json!({"local": {"path": data.path()}})).await;
        let uid = claim("gone", "pv-gone", "Bound", none()).await;
        persistent("pv-gone", &uid, json!({"local": {"path": "/no/such/dir"}})).await;
        let uid = claim("csi", "pv-csi", "Bound", none()).await;
        persistent(
            "pv-csi",
            &uid,
            json!({"csi": {"driver": "d", "volumeHandle": "h"}}),
        )
        .await;
        let uid = claim("block", "pv-block", "Bound", none()).await;
        persistent(
            "pv-block",
            &uid,
            json!({"volumeMode": "Block", "local": {"path": "/dev/x"}}),
        )
        .await;
        claim("waits", "", "Pending", none()).await;
        claim("empty", "", "Bound", none()).await;
        claim("lost", "pv-none", "Bound", none()).await;
        claim("thief", "pv-host", "Bound", none()).await;
        claim("p-foreign", "pv-host", "Bound", none()).await;
        let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}]);
        let uid = claim("p-own", "pv-own", "Bound", owner).await;
        persistent("pv-own", &uid, json!({"hostPath": {"path": data.path()}})).await;

        let pod = pod(
            json!([
                {"name": "a", "persistentVolumeClaim": {"claimName": "host"}},
                {"name": "b", "persistentVolumeClaim": {"claimName": "local", "readOnly": true}},
                {"name": "own", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
            ]),
            json!({}),
        );
        let ready = room.manager.set_up(&pod).await.unwrap();
        for (name, read_only) in [("a", false), ("b", true), ("own", false)] {
            assert_eq!(ready.by_name[name].path, data.path());
            assert_eq!(ready.by_name[name].read_only, read_only);
        }
        // The pod keeps what it has, whatever becomes of the claim.
        for name in ["host", "local"] {
            claim(name, "pv-none", "Lost", none()).await;
        }
        assert_eq!(room.manager.set_up(&pod).await.unwrap(), ready);
        room.manager.tear_down("u").await.unwrap();
        assert!(data.path().exists());
        room.manager.set_up(&pod).await.unwrap_err();
        room.manager.tear_down("u").await.unwrap();

        let attach = "Unable to attach or mount volumes: unmounted volumes=[v], unattached volumes=[], failed to process volumes=[v]: ";
        for (name, expected) in [
            ("none", format!("{attach}error processing PVC ns/none: failed to fetch PVC from API server: persistentvolumeclaims \"none\" not found")),
            ("waits", format!("{attach}error processing PVC ns/waits: PVC is not bound")),
            ("empty", format!("{attach}error processing PVC ns/empty: PVC has empty pvc.Spec.VolumeName")),
            ("lost", format!("{attach}error processing PVC ns/lost: failed to fetch PV pv-none from API server: persistentvolumes \"pv-none\" not found")),
            ("csi", format!("{attach}failed to get Plugin from volumeSpec for volume \"pv-csi\" err=no volume plugin matched")),
            ("block", format!("{attach}volume v has volumeMode Block, which is not supported by this node")),
            ("gone", "MountVolume.NewMounter initialization failed for volume \"pv-gone\" : path \"/no/such/dir\" does not exist".to_owned()),
        ] {
            let error = room.fails(json!({"name": "v", "persistentVolumeClaim": {"claimName": name}})).await;
            assert_eq!((error.event.as_ref(), error.message), ("FailedMount", expected));
        }
        let error = room
            .fails(json!({"name": "v", "persistentVolumeClaim": {"claimName": "thief"}}))
            .await;
        assert!(
            error.message.contains("does not point to claim.UID"),
            "{error}"
        );
        let error = room
            .fails(json!({"name": "foreign", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}))
            .await;
        assert!(
            error
                .message
                .ends_with("PVC ns/p-foreign was not created for pod ns/p (pod is not owner)"),
            "{error}"
        );
    });
}
