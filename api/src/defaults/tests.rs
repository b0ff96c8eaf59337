//! What a real server of Kubernetes v1.36 made of small documents.

use orlop_core::resource::GroupVersionKind;
use serde_json::{Value, json};

use super::apply;

fn defaulted(api_version: &str, kind: &str, mut document: Value) -> Value {
    let gvk = GroupVersionKind::from_api_version(api_version, kind);
    apply(&gvk, &mut document);
    let once = document.clone();
    apply(&gvk, &mut document);
    assert_eq!(once, document, "applied twice");
    document
}

fn container(image: &str, policy: &str) -> Value {
    json!({"name": "c", "image": image, "resources": {}, "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File", "imagePullPolicy": policy})
}

fn pod_spec(containers: Value, restart: &str) -> Value {
    json!({"containers": containers, "restartPolicy": restart, "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst", "securityContext": {}, "schedulerName": "default-scheduler"})
}

#[test]
fn a_deployment() {
    let found = defaulted(
        "apps/v1",
        "Deployment",
        json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata":
            {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}),
    );
    assert_eq!(
        found,
        json!({"metadata": {"name": "d"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod_spec(json!([container("i", "Always")]), "Always")},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
            "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600}, "status": {}})
    );
}

#[test]
fn a_daemon_set_and_a_cron_job() {
    let found = defaulted(
        "apps/v1",
        "DaemonSet",
        json!({"metadata": {"name": "x"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata":
            {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}}),
    );
    assert_eq!(
        found["spec"]["updateStrategy"],
        json!({"type": "RollingUpdate", "rollingUpdate":
        {"maxUnavailable": 1, "maxSurge": 0}})
    );
    assert_eq!(
        found["spec"]["template"]["spec"]["containers"][0],
        container("i:1", "IfNotPresent")
    );
    assert_eq!(
        found["status"],
        json!({"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0})
    );
    let found = defaulted(
        "batch/v1",
        "CronJob",
        json!({"metadata": {"name": "x"}, "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": {"spec":
            {"restartPolicy": "OnFailure", "containers": [{"name": "c", "image": "i"}]}}}}}}),
    );
    assert_eq!(
        found["spec"],
        json!({"schedule": "* * * * *", "concurrencyPolicy": "Allow", "suspend": false, "jobTemplate": {"metadata": {},
            "spec": {"template": {"metadata": {}, "spec": pod_spec(json!([container("i", "Always")]), "OnFailure")}}},
            "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1})
    );
}

#[test]
fn services() {
    let found = defaulted(
        "v1",
        "Service",
        json!({"metadata": {"name": "s"}, "spec": {"selector": {"a": "b"},
        "ports": [{"port": 80}]}}),
    );
    assert_eq!(
        found,
        json!({"metadata": {"name": "s"}, "spec": {"ports": [{"protocol": "TCP", "port": 80, "targetPort": 80}],
            "selector": {"a": "b"}, "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster"},
            "status": {"loadBalancer": {}}})
    );
    let found = defaulted(
        "v1",
        "Service",
        json!({"metadata": {"name": "en"}, "spec": {"type": "ExternalName", "externalName": "f"}}),
    );
    assert_eq!(
        found["spec"],
        json!({"type": "ExternalName", "sessionAffinity": "None", "externalName": "f"})
    );
    let found = defaulted(
        "v1",
        "Service",
        json!({"metadata": {}, "spec": {"type": "LoadBalancer", "ports": [{"port": 1}],
        "sessionAffinity": "ClientIP"}}),
    );
    assert_eq!(
        found["spec"]["sessionAffinityConfig"],
        json!({"clientIP": {"timeoutSeconds": 10800}})
    );
    assert_eq!(found["spec"]["allocateLoadBalancerNodePorts"], json!(true));
    assert_eq!(found["spec"]["externalTrafficPolicy"], json!("Cluster"));
}

#[test]
fn pods_get_more_than_templates() {
    let found = defaulted(
        "v1",
        "Pod",
        json!({"metadata": {"name": "p", "labels": {}}, "spec": {"hostNetwork": true, "hostPID": false,
            "initContainers": [], "volumes": [{"name": "a"}, {"name": "b", "secret": {"secretName": "s"}},
            {"name": "h", "hostPath": {"path": "/x"}}], "containers": [{"name": "c", "image": "i", "tty": false,
            "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1000m", "memory": "1024Mi"}},
            "env": [{"name": "A", "value": ""}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "livenessProbe": {"httpGet": {"port": 80}, "initialDelaySeconds": 0}}]}}),
    );
    let container = &found["spec"]["containers"][0];
    assert_eq!(
        container["resources"],
        json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}})
    );
    assert_eq!(
        container["ports"],
        json!([{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}])
    );
    assert_eq!(
        container["env"],
        json!([{"name": "A"}, {"name": "B", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}])
    );
    assert_eq!(
        container["livenessProbe"],
        json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10,
            "successThreshold": 1, "failureThreshold": 3})
    );
    assert_eq!(
        found["spec"]["volumes"],
        json!([{"name": "a", "emptyDir": {}}, {"name": "b", "secret": {"secretName": "s", "defaultMode": 420}},
            {"name": "h", "hostPath": {"path": "/x", "type": ""}}])
    );
    assert_eq!(found["spec"]["enableServiceLinks"], json!(true));
    assert_eq!(found["metadata"], json!({"name": "p"}));
    for gone in ["hostPID", "initContainers"] {
        assert!(found["spec"].get(gone).is_none(), "{gone}");
    }
    assert!(container.get("tty").is_none());
}

#[test]
fn an_autoscaler_and_a_limit_range() {
    let found = defaulted(
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        json!({"metadata": {"name": "x"}, "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "maxReplicas": 3}}),
    );
    assert_eq!(
        found["spec"]["metrics"],
        json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}])
    );
    assert_eq!(
        found["status"],
        json!({"desiredReplicas": 0, "currentMetrics": null})
    );
    let found = defaulted(
        "v1",
        "LimitRange",
        json!({"metadata": {"name": "x"}, "spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}}),
    );
    assert_eq!(
        found["spec"]["limits"][0],
        json!({"type": "Container", "max": {"cpu": "1"}, "default": {"cpu": "1"}, "defaultRequest": {"cpu": "1"}})
    );
}

#[test]
fn a_node_a_volume_and_the_rest() {
    let found = defaulted("v1", "Node", json!({"metadata": {"name": "n"}}));
    assert_eq!(found["spec"], json!({}));
    assert_eq!(
        found["status"]["daemonEndpoints"],
        json!({"kubeletEndpoint": {"Port": 0}})
    );
    let found = defaulted(
        "v1",
        "PersistentVolume",
        json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1024Mi"},
        "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/tmp/x"}}}),
    );
    assert_eq!(
        found["spec"],
        json!({"capacity": {"storage": "1Gi"}, "hostPath": {"path": "/tmp/x", "type": ""}, "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem"})
    );
    let found = defaulted(
        "storage.k8s.io/v1",
        "StorageClass",
        json!({"metadata": {}, "provisioner": "p.io/x"}),
    );
    assert_eq!(
        found,
        json!({"metadata": {}, "provisioner": "p.io/x", "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"})
    );
    let found = defaulted(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        json!({"metadata": {}, "spec": {"egress": [{"ports":
        [{"port": 1}]}]}}),
    );
    assert_eq!(
        found["spec"],
        json!({"podSelector": {}, "egress": [{"ports": [{"port": 1, "protocol": "TCP"}]}], "policyTypes": ["Ingress", "Egress"]})
    );
    assert_eq!(
        defaulted(
            "v1",
            "ConfigMap",
            json!({"metadata": {}, "data": {"limits": "1.50", "x": ""}})
        )["data"],
        json!({"limits": "1.50", "x": ""})
    );
}

#[test]
fn fields_with_a_meaning_of_their_own_stay() {
    let found = defaulted(
        "v1",
        "Pod",
        json!({"metadata": {}, "spec": {"automountServiceAccountToken": false, "enableServiceLinks": false, "containers":
            [{"name": "c", "image": "i", "securityContext": {"privileged": false, "runAsUser": 0}}],
            "terminationGracePeriodSeconds": 0}}),
    );
    let spec = &found["spec"];
    assert_eq!(spec["automountServiceAccountToken"], json!(false));
    assert_eq!(spec["enableServiceLinks"], json!(false));
    assert_eq!(spec["terminationGracePeriodSeconds"], json!(0));
    assert_eq!(
        spec["containers"][0]["securityContext"],
        json!({"privileged": false, "runAsUser": 0})
    );
    let found = defaulted(
        "v1",
        "PersistentVolumeClaim",
        json!({"metadata": {}, "spec": {"storageClassName": ""}}),
    );
    assert_eq!(found["spec"]["storageClassName"], json!(""));
}

#[test]
fn times_have_whole_seconds_and_leases_microseconds() {
    let found = defaulted(
        "coordination.k8s.io/v1",
        "Lease",
        json!({"metadata": {"creationTimestamp": "2026-01-01T02:00:00.5+02:00"}, "spec": {"renewTime": "2026-01-01T00:00:00Z"}}),
    );
    assert_eq!(
        found["metadata"]["creationTimestamp"],
        json!("2026-01-01T00:00:00Z")
    );
    assert_eq!(
        found["spec"]["renewTime"],
        json!("2026-01-01T00:00:00.000000Z")
    );
}

#[test]
fn secrets_fold_their_texts() {
    let secret = defaulted(
        "v1",
        "Secret",
        json!({"metadata": {}, "data": {"x": "eA=="}, "stringData": {"a": "b"}}),
    );
    assert_eq!(
        secret,
        json!({"metadata": {}, "data": {"a": "Yg==", "x": "eA=="}, "type": "Opaque"})
    );
}
