use orlop_core::client::Propagation;
use serde_json::json;

use super::*;

fn gvk(api_version: &str, kind: &str) -> GroupVersionKind {
    GroupVersionKind::from_api_version(api_version, kind)
}

fn context() -> Context {
    Context {
        now: "2026-01-01T00:00:00Z".into(),
        user: Some(UserInfo::new("alice", ["staff"])),
    }
}

fn create(api_version: &str, kind: &str, mut document: Value) -> Value {
    prepare_for_create(&gvk(api_version, kind), &mut document, &context());
    document
}

fn update(
    api_version: &str,
    kind: &str,
    mut new: Value,
    old: &Value,
    subresource: Option<&str>,
) -> Value {
    prepare_for_update(
        &gvk(api_version, kind),
        &mut new,
        old,
        subresource,
        &context(),
    );
    new
}

#[test]
fn a_job_selects_its_pods_by_its_uid() {
    let job = create(
        "batch/v1",
        "Job",
        json!({"metadata": {"name": "x", "uid": "u"}, "spec": {"template": {"spec": {}}}}),
    );
    let labels = json!({"batch.kubernetes.io/controller-uid": "u", "batch.kubernetes.io/job-name": "x",
        "controller-uid": "u", "job-name": "x"});
    assert_eq!(job["metadata"]["labels"], labels);
    assert_eq!(job["metadata"]["generation"], json!(1));
    assert_eq!(job["spec"]["template"]["metadata"]["labels"], labels);
    assert_eq!(
        job["spec"]["selector"],
        json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}})
    );
    let manual = create(
        "batch/v1",
        "Job",
        json!({"metadata": {"name": "x"}, "spec": {"manualSelector": true}}),
    );
    assert!(manual["spec"].get("selector").is_none());
}

#[test]
fn status_is_dropped_where_it_is_a_subresource_and_kept_where_not() {
    let deployment = create(
        "apps/v1",
        "Deployment",
        json!({"metadata": {}, "status": {"replicas": 3}}),
    );
    assert_eq!(deployment["status"], json!({}));
    let node = create(
        "v1",
        "Node",
        json!({"metadata": {}, "status": {"phase": "x"}}),
    );
    assert_eq!(node["status"], json!({"phase": "x"}));
    let old =
        json!({"metadata": {"generation": 2}, "spec": {"replicas": 1}, "status": {"replicas": 1}});
    let new = update(
        "apps/v1",
        "Deployment",
        json!({"metadata": {"generation": 9}, "spec": {"replicas": 2}, "status": {"replicas": 7}}),
        &old,
        None,
    );
    assert_eq!(new["status"], json!({"replicas": 1}));
    assert_eq!(new["metadata"]["generation"], json!(3));
    let new = update(
        "apps/v1",
        "Deployment",
        json!({"metadata": {"labels": {"x": "y"}}, "spec": {"replicas": 2}, "status": {"replicas": 7}}),
        &old,
        Some("status"),
    );
    assert_eq!(new["spec"], json!({"replicas": 1}));
    assert_eq!(new["status"], json!({"replicas": 7}));
    assert_eq!(new["metadata"], json!({"generation": 2}));
}

#[test]
fn a_label_does_not_raise_the_generation_but_an_annotation_of_a_deployment_does() {
    let old = json!({"metadata": {"generation": 2}, "spec": {"replicas": 1}});
    let labelled = json!({"metadata": {"labels": {"q": "1"}}, "spec": {"replicas": 1}});
    assert_eq!(
        update("apps/v1", "Deployment", labelled, &old, None)["metadata"]["generation"],
        json!(2)
    );
    let annotated = json!({"metadata": {"annotations": {"q": "1"}}, "spec": {"replicas": 1}});
    assert_eq!(
        update("apps/v1", "Deployment", annotated.clone(), &old, None)["metadata"]["generation"],
        json!(3)
    );
    assert_eq!(
        update("apps/v1", "ReplicaSet", annotated, &old, None)["metadata"]["generation"],
        json!(2)
    );
}

#[test]
fn pods_start_pending_with_a_quality_of_service() {
    let full = json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1000m", "memory": "1Gi"}});
    for (resources, class) in [
        (json!({}), "BestEffort"),
        (json!({"requests": {"cpu": "1"}}), "Burstable"),
        (json!({"limits": {"example.com/gpu": "1"}}), "BestEffort"),
        (full, "Guaranteed"),
    ] {
        let pod = create(
            "v1",
            "Pod",
            json!({"metadata": {}, "spec": {"containers": [{"resources": resources}]}}),
        );
        assert_eq!(
            pod["status"],
            json!({"phase": "Pending", "qosClass": class})
        );
    }
    let gated = create(
        "v1",
        "Pod",
        json!({"metadata": {}, "spec": {"schedulingGates": [{"name": "a/b"}]}}),
    );
    assert_eq!(
        gated["status"]["conditions"][0]["reason"],
        json!("SchedulingGated")
    );
}

#[test]
fn match_label_keys_are_written_out() {
    let pod = create(
        "v1",
        "Pod",
        json!({"metadata": {"labels": {"hash": "1"}}, "spec": {"affinity": {"podAntiAffinity":
        {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "z", "labelSelector": {}, "matchLabelKeys":
        ["hash", "none"]}]}}}}),
    );
    let term = &pod["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        [0];
    assert_eq!(
        term["labelSelector"]["matchExpressions"],
        json!([{"key": "hash", "operator": "In", "values": ["1"]}])
    );
}

#[test]
fn namespaces_hold_a_finalizer_until_they_are_empty() {
    let mut namespace = create("v1", "Namespace", json!({"metadata": {"name": "n"}}));
    assert_eq!(namespace["spec"], json!({"finalizers": ["kubernetes"]}));
    assert_eq!(namespace["status"], json!({"phase": "Active"}));
    canonicalize(&gvk("v1", "Namespace"), &mut namespace);
    assert_eq!(
        namespace["metadata"]["labels"],
        json!({"kubernetes.io/metadata.name": "n"})
    );
    let new = update(
        "v1",
        "Namespace",
        json!({"metadata": {}, "spec": {}, "status": {}}),
        &namespace,
        None,
    );
    assert_eq!(new["spec"], namespace["spec"]);
    let new = update(
        "v1",
        "Namespace",
        json!({"metadata": {}, "spec": {}, "status": {}}),
        &namespace,
        Some("finalize"),
    );
    assert_eq!(new["spec"], json!({}));
    assert_eq!(new["status"], namespace["status"]);
}

#[test]
fn an_update_of_a_service_keeps_what_was_allocated() {
    let old = json!({"metadata": {}, "spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
        "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
        "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}]}, "status": {"loadBalancer": {}}});
    let new = update(
        "v1",
        "Service",
        json!({"metadata": {}, "spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]}}),
        &old,
        None,
    );
    assert_eq!(new["spec"], old["spec"]);
    let plain = update(
        "v1",
        "Service",
        json!({"metadata": {}, "spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}]}}),
        &old,
        None,
    );
    assert_eq!(
        plain["spec"]["ports"],
        json!([{"port": 80, "protocol": "TCP"}])
    );
}

#[test]
fn grace_and_propagation() {
    let pod = gvk("v1", "Pod");
    let running = json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}, "status": {"phase": "Running"}});
    assert_eq!(graceful_period(&pod, &running, None), Some(30));
    assert_eq!(graceful_period(&pod, &running, Some(5)), Some(5));
    assert_eq!(graceful_period(&pod, &running, Some(-1)), Some(1));
    assert_eq!(
        graceful_period(
            &pod,
            &json!({"spec": {"terminationGracePeriodSeconds": 30}}),
            None
        ),
        Some(0)
    );
    let ended = json!({"spec": {"nodeName": "n"}, "status": {"phase": "Succeeded"}});
    assert_eq!(graceful_period(&pod, &ended, Some(30)), Some(0));
    assert_eq!(
        graceful_period(&gvk("v1", "ConfigMap"), &json!({}), Some(30)),
        None
    );
    assert_eq!(
        default_propagation(&gvk("batch/v1", "Job")),
        Propagation::Orphan
    );
    assert_eq!(
        default_propagation(&gvk("apps/v1", "Deployment")),
        Propagation::Background
    );
}

#[test]
fn a_pod_is_bound_once() {
    let mut pod = json!({"metadata": {"name": "po", "generation": 1}, "spec": {}, "status": {}});
    let to =
        |node: &str| json!({"metadata": {"name": "po"}, "target": {"kind": "Node", "name": node}});
    assert_eq!(bind(&mut pod, &to("nodea"), &context()), Ok(()));
    assert_eq!(pod["spec"]["nodeName"], json!("nodea"));
    assert_eq!(
        bind(&mut pod, &to("nodeb"), &context()),
        Err("pod po is already assigned to node \"nodea\"".to_owned())
    );
}

#[test]
fn signing_requests_name_who_asked() {
    let request = create(
        "certificates.k8s.io/v1",
        "CertificateSigningRequest",
        json!({"metadata": {}, "spec": {"username": "root", "request": "x"}}),
    );
    assert_eq!(
        request["spec"],
        json!({"username": "alice", "groups": ["staff"], "request": "x"})
    );
    let approved = json!({"metadata": {}, "spec": {}, "status": {"certificate": "c", "conditions": [{"type": "Approved"}]}});
    let new = update(
        "certificates.k8s.io/v1",
        "CertificateSigningRequest",
        approved,
        &request,
        Some("approval"),
    );
    assert_eq!(new["spec"], request["spec"]);
    assert_eq!(new["status"]["conditions"][0]["status"], json!("True"));
    assert!(new["status"].get("certificate").is_none());
}

#[test]
fn scales() {
    let gvk = gvk("apps/v1", "Deployment");
    let mut deployment = json!({"metadata": {"name": "d", "namespace": "pr", "uid": "u", "resourceVersion": "306"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}, "matchExpressions":
        [{"key": "x", "operator": "In", "values": ["2", "1"]}, {"key": "c", "operator": "DoesNotExist"}]}}, "status": {}});
    let mut scale = scale::read(&gvk, &deployment).unwrap();
    assert_eq!(scale["spec"], json!({"replicas": 3}));
    assert_eq!(
        scale["status"],
        json!({"replicas": 0, "selector": "a=b,!c,x in (1,2)"})
    );
    scale["spec"]["replicas"] = json!(5);
    assert!(scale::write(&gvk, &mut deployment, &scale));
    assert_eq!(deployment["spec"]["replicas"], json!(5));
}

#[test]
fn warnings() {
    let deployment = gvk("apps/v1", "Deployment");
    let document = |name: &str| {
        json!({"metadata": {"name": name}, "spec": {"template": {"spec": {"containers": [{"name": "c", "env": [
        {"name": "A", "value": "1"}, {"name": "A", "value": "2"}, {"name": "B", "value": "1"}, {"name": "B", "value": "$(B)2"}]}]}}}})
    };
    assert_eq!(
        warnings_on_create(&deployment, &document("d")),
        [
            "spec.template.spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using \
             apply"
        ]
    );
    assert_eq!(
        warnings_on_create(&deployment, &document("a.b"))[0],
        "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is \
         recommended: [must not contain dots]"
    );
    assert_eq!(
        warnings_on_update(&deployment, &document("d"), &document("d")),
        [""; 0]
    );
    assert_eq!(warnings_on_delete(&gvk("batch/v1", "Job"), false).len(), 1);
}
