//! POST, PUT, PATCH and apply: races, dry runs, ownership.

use super::*;

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
const SERVICES: &str = "/api/v1/namespaces/default/services";

#[test]
fn who_names_the_version_loses_no_update() {
    with_cluster(31, |cluster| async move {
        let map = config_map("n", json!({}));
        cluster.post(CONFIG_MAPS, &map).await.expect(201);
        let path = format!("{CONFIG_MAPS}/n");
        let counters = (0..6).map(|_| {
            let (cluster, path) = (cluster.clone(), path.clone());
            async move {
                for _ in 0..5 {
                    loop {
                        let mut map = cluster.get(&path).await.expect(200);
                        let count: u32 = map["data"]["a"].as_str().unwrap().parse().unwrap();
                        map["data"]["a"] = json!((count + 1).to_string());
                        match cluster.put(&path, &map).await {
                            answer if answer.code == 200 => break,
                            answer => assert!(answer.refused(409).contains("has been modified")),
                        }
                    }
                }
            }
        });
        futures::future::join_all(counters).await;
        assert_eq!(cluster.get(&path).await.expect(200)["data"]["a"], "31");
    });
}

#[test]
fn patches_that_name_no_version_all_land() {
    with_cluster(32, |cluster| async move {
        let map = config_map("n", json!({}));
        cluster.post(CONFIG_MAPS, &map).await.expect(201);
        let path = format!("{CONFIG_MAPS}/n");
        let patches = (0..100).map(|number| {
            let (cluster, path) = (cluster.clone(), path.clone());
            async move {
                let patch = json!({"data": {format!("k{number}"): "1"}});
                cluster.patch(&path, MERGE, &patch).await.expect(200);
            }
        });
        futures::future::join_all(patches).await;
        let map = cluster.get(&path).await.expect(200);
        assert_eq!(map["data"].as_object().unwrap().len(), 101);
    });
}

#[test]
fn appliers_of_what_is_not_there_yet_share_it() {
    with_cluster(33, |cluster| async move {
        let appliers = (0..20).map(|number| {
            let cluster = cluster.clone();
            async move {
                let path = format!("{CONFIG_MAPS}/new?fieldManager=m{number}");
                let applied = json!({
                    "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "new"}, "data": {format!("k{number}"): "1"},
                });
                cluster.patch(&path, APPLY, &applied).await.code
            }
        });
        let codes = futures::future::join_all(appliers).await;
        assert_eq!(codes.iter().filter(|code| **code == 201).count(), 1);
        assert!(codes.iter().all(|code| matches!(code, 200 | 201)));
        let map = cluster.get(&format!("{CONFIG_MAPS}/new")).await.expect(200);
        assert_eq!(map["data"].as_object().unwrap().len(), 20);
        assert_eq!(
            map["metadata"]["managedFields"].as_array().unwrap().len(),
            20
        );
    });
}

#[test]
fn put_makes_some_kinds() {
    with_cluster(34, |cluster| async move {
        let path = format!("{LEASES}/l");
        let lease = |holder: usize| json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": holder.to_string(), "leaseDurationSeconds": 5}});
        let putters = (0..10).map(|holder| {
            let (cluster, path) = (cluster.clone(), path.clone());
            async move { cluster.put(&path, &lease(holder)).await }
        });
        let answers = futures::future::join_all(putters).await;
        assert_eq!(
            answers.iter().filter(|answer| answer.code == 201).count(),
            1
        );
        for answer in answers.iter().filter(|answer| answer.code != 201) {
            // It is there by now, and a lease is not changed unseen.
            assert!(
                answer
                    .refused(422)
                    .contains("must be specified for an update")
            );
        }
        let map = cluster
            .put(&format!("{CONFIG_MAPS}/x"), &config_map("x", json!({})))
            .await;
        assert_eq!(map.code, 404);
    });
}

#[test]
fn a_dry_run_leaves_nothing() {
    with_cluster(35, |cluster| async move {
        let service = |name: &str| {
            json!({"metadata": {"name": name}, "spec": {
                "type": "NodePort", "clusterIP": "10.96.7.7", "ports": [{"port": 80, "nodePort": 30_777}],
            }})
        };
        let dry = format!("{SERVICES}?dryRun=All");
        cluster.post(&dry, &service("dry")).await.expect(201);
        assert_eq!(cluster.get(&format!("{SERVICES}/dry")).await.code, 404);
        cluster.post(SERVICES, &service("a")).await.expect(201);
        let taken = cluster.post(&dry, &service("b")).await.refused(422);
        assert!(
            taken.contains("provided IP is already allocated"),
            "{taken}"
        );
        // What only seems to be given back is still taken.
        let path = format!("{SERVICES}/a");
        let plain = json!({"spec": {"type": "ExternalName", "externalName": "a.b", "clusterIP": null, "clusterIPs": null, "ports": null}});
        cluster
            .patch(&format!("{path}?dryRun=All"), MERGE, &plain)
            .await
            .expect(200);
        cluster
            .delete(&format!("{path}?dryRun=All"), None)
            .await
            .expect(200);
        assert_eq!(cluster.post(SERVICES, &service("b")).await.code, 422);
        cluster.delete(&path, None).await.expect(200);
        cluster.post(SERVICES, &service("b")).await.expect(201);
    });
}

#[test]
fn appliers_keep_what_they_own() {
    with_cluster(36, |cluster| async move {
        let apply = |manager: &str, force: bool, data: Value| {
            let cluster = cluster.clone();
            let path = format!("{CONFIG_MAPS}/s?fieldManager={manager}&force={force}");
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "s"}, "data": data});
            async move { cluster.patch(&path, APPLY, &map).await }
        };
        let first = apply("one", false, json!({"a": "1", "b": "1"}))
            .await
            .expect(201);
        // The same again changes nothing, not even the version.
        cluster.env.sleep(Duration::from_secs(5)).await;
        let same = apply("one", false, json!({"a": "1", "b": "1"}))
            .await
            .expect(200);
        assert_eq!(revision(&same), revision(&first));
        let conflict = apply("two", false, json!({"a": "2"})).await.expect(409);
        assert_eq!(
            conflict["message"],
            "Apply failed with 1 conflict: conflict with \"one\": .data.a"
        );
        apply("two", false, json!({"a": "1", "c": "1"}))
            .await
            .expect(200);
        // What is shared stays when one of the owners lets go.
        let shared = apply("one", false, json!({"b": "1"})).await.expect(200);
        assert_eq!(shared["data"], json!({"a": "1", "b": "1", "c": "1"}));
        let taken = apply("one", true, json!({"b": "1", "c": "2"}))
            .await
            .expect(200);
        assert_eq!(taken["data"], json!({"a": "1", "b": "1", "c": "2"}));
        let alone = apply("two", false, json!({})).await.expect(200);
        assert_eq!(alone["data"], json!({"b": "1", "c": "2"}));
        // Who clears the book lets everything go.
        let path = format!("{CONFIG_MAPS}/s");
        let clear = json!([{"op": "replace", "path": "/metadata/managedFields", "value": [{}]}]);
        let cleared = cluster.patch(&path, JSON_PATCH, &clear).await.expect(200);
        assert!(cleared["metadata"].get("managedFields").is_none());
    });
}

#[test]
fn parts_are_written_through_their_subresources_only() {
    with_cluster(37, |cluster| async move {
        cluster.post(PODS, &pod("p")).await.expect(201);
        let path = format!("{PODS}/p");
        let phase = json!({"status": {"phase": "Running"}, "metadata": {"labels": {"a": "b"}}});
        let main = cluster.patch(&path, STRATEGIC, &phase).await.expect(200);
        assert_eq!(main["status"]["phase"], "Pending");
        assert_eq!(main["metadata"]["labels"]["a"], "b");
        let sub = format!("{path}/status");
        let change = json!({"status": {"phase": "Running"}, "spec": {"activeDeadlineSeconds": 5}});
        let status = cluster.patch(&sub, STRATEGIC, &change).await.expect(200);
        assert_eq!(status["status"]["phase"], "Running");
        assert!(status["spec"].get("activeDeadlineSeconds").is_none());
        let owner = status["metadata"]["managedFields"]
            .as_array()
            .unwrap()
            .iter()
            .find(|entry| entry["subresource"] == "status")
            .unwrap();
        assert!(owner["fieldsV1"].get("f:status").is_some());
        assert!(owner["fieldsV1"].get("f:spec").is_none());
    });
}

#[test]
fn who_makes_what_nothing_acts_on_is_told() {
    with_cluster(38, |cluster| async move {
        let jobs = "/apis/batch/v1/namespaces/default/cronjobs";
        let pod = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
        let job = json!({"metadata": {"name": "j"}, "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": pod}}}});
        let made = cluster.post(jobs, &job).await;
        made.expect(201);
        assert_eq!(
            made.warnings(),
            ["299 - \"cronjobs are stored, but nothing acts on them\""]
        );
        let path = format!("{jobs}/j");
        let change = json!({"spec": {"suspend": true}});
        let changed = cluster.patch(&path, MERGE, &change).await;
        changed.expect(200);
        assert!(changed.warnings().is_empty());
        let map = cluster.post(CONFIG_MAPS, &config_map("m", json!({}))).await;
        assert!(map.warnings().is_empty());
    });
}

#[test]
fn a_scale_has_owners_of_its_own() {
    with_cluster(39, |cluster| async move {
        let sets = "/apis/apps/v1/namespaces/default/replicasets";
        let set = json!({"metadata": {"name": "r"}, "spec": {
            "replicas": 1, "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        }});
        cluster
            .post(&format!("{sets}?fieldManager=maker"), &set)
            .await
            .expect(201);
        let scale = format!("{sets}/r/scale");
        let three = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "r"}, "spec": {"replicas": 3}});
        let path = format!("{scale}?fieldManager=s");
        let conflict = cluster.patch(&path, APPLY, &three).await.refused(409);
        assert!(conflict.contains("conflict with \"maker\""), "{conflict}");
        let path = format!("{path}&force=true");
        let scaled = cluster.patch(&path, APPLY, &three).await.expect(200);
        assert_eq!(scaled["spec"]["replicas"], 3);
        let parent = cluster.get(&format!("{sets}/r")).await.expect(200);
        assert_eq!(parent["spec"]["replicas"], 3);
        let entries = parent["metadata"]["managedFields"]
            .as_array()
            .unwrap()
            .clone();
        let of = |manager: &str| {
            entries
                .iter()
                .find(|entry| entry["manager"] == manager)
                .unwrap()
        };
        assert_eq!(of("s")["operation"], "Apply");
        assert_eq!(of("s")["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
        assert!(
            of("maker")["fieldsV1"]["f:spec"]
                .get("f:replicas")
                .is_none()
        );
        // Without a namespace it is that of the request; another name is refused.
        let put = json!({"metadata": {"name": "r"}, "spec": {"replicas": 2}});
        assert_eq!(
            cluster.put(&scale, &put).await.expect(200)["spec"]["replicas"],
            2
        );
        let other = json!({"metadata": {"name": "q"}, "spec": {"replicas": 2}});
        assert_eq!(cluster.put(&scale, &other).await.code, 400);
        let test = json!([{"op": "test", "path": "/spec/replicas", "value": 9}]);
        assert_eq!(cluster.patch(&scale, JSON_PATCH, &test).await.code, 422);
    });
}

#[test]
fn an_applied_uid_must_be_that_of_an_object() {
    with_cluster(40, |cluster| async move {
        let path = format!("{CONFIG_MAPS}/u?fieldManager=m");
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "u", "uid": "abc"}});
        let refused = cluster.patch(&path, APPLY, &map).await.refused(409);
        assert!(refused.contains("uid mismatch: the provided object specified uid abc"));
        assert_eq!(cluster.get(&format!("{CONFIG_MAPS}/u")).await.code, 404);
    });
}

#[test]
fn resizing_owns_nothing_but_resources() {
    with_cluster(51, |cluster| async move {
        cluster.post(PODS, &pod("p")).await.expect(201);
        let path = format!("{PODS}/p/resize?fieldManager=resizer");
        let change = json!({"spec": {"containers": [{"name": "c", "image": "other", "resources": {"requests": {"cpu": "1"}}}]}});
        let answer = cluster.patch(&path, STRATEGIC, &change).await;
        // A pod of the best-effort class cannot be given requests; with another image alone nothing changes.
        assert_eq!(answer.code, 422, "{}", answer.text());
        let change = json!({"spec": {"containers": [{"name": "c", "image": "other"}]}});
        let same = cluster.patch(&path, STRATEGIC, &change).await.expect(200);
        assert_eq!(same["spec"]["containers"][0]["image"], "i");
        assert!(
            !same["metadata"]["managedFields"]
                .to_string()
                .contains("resizer")
        );
    });
}

#[test]
fn what_belongs_to_the_cluster_is_in_no_namespace() {
    with_cluster(52, |cluster| async move {
        let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
        let role = json!({"metadata": {"name": "r", "namespace": "x"}, "rules": []});
        let made = cluster.post(roles, &role).await.expect(201);
        assert!(made["metadata"].get("namespace").is_none());
        let put = cluster.put(&format!("{roles}/r"), &role).await.expect(200);
        assert_eq!(revision(&put), revision(&made));
        let map = json!({"metadata": {"name": "m", "namespace": "other"}});
        let refused = cluster.post(CONFIG_MAPS, &map).await.refused(400);
        assert_eq!(
            refused,
            "the namespace of the provided object does not match the namespace sent on the request"
        );
    });
}
