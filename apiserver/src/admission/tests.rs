use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use orlop_core::admission::AdmissionOperation::{Create, Delete, Update};
use orlop_core::admission::{AdmissionOperation, AdmissionRequest};
use orlop_core::auth::UserInfo;
use orlop_core::env::SimEnv;
use serde_json::json;

use super::*;
use crate::authorization::{AlwaysAllow, RbacAuthorizer};
use crate::names::*;
use crate::testing::Objects;

/// A namespace with its default service account.
fn world() -> Arc<Objects> {
    Objects::new([
        (
            NAMESPACES,
            json!({"metadata": {"name": "pr"}, "status": {"phase": "Active"}}),
        ),
        (
            NAMESPACES,
            json!({"metadata": {"name": "going"}, "status": {"phase": "Terminating"}}),
        ),
        (
            SERVICE_ACCOUNTS,
            json!({"metadata": {"name": "default", "namespace": "pr"}}),
        ),
    ])
}

struct Setup {
    objects: Arc<Objects>,
    context: Context,
    chain: Chain,
}

impl Setup {
    fn new(env: Env, enable: &[&str]) -> Self {
        let objects = world();
        let kinds: Kinds = Arc::new(|_, kind| (kind == "Pod").then_some(PODS));
        let context = Context {
            reader: objects.clone(),
            authorizer: Arc::new(AlwaysAllow),
            env,
            kinds,
        };
        let chain = Chain::with_defaults(&context, enable, &[]).unwrap();
        Self {
            objects,
            context,
            chain,
        }
    }

    async fn write(&self, mut request: AdmissionRequest) -> Result<Value, Status> {
        self.chain.admit(&mut request).await?;
        self.chain.validate(&request).await?;
        Ok(request.object)
    }

    async fn refused(&self, request: AdmissionRequest) -> String {
        self.write(request).await.map(|_| ()).unwrap_err().message
    }
}

fn run<F: Future<Output = ()> + Send + 'static>(test: impl FnOnce(Setup) -> F) {
    run_with(&[], test);
}

fn run_with<F: Future<Output = ()> + Send + 'static>(
    enable: &[&str],
    test: impl FnOnce(Setup) -> F,
) {
    let sim = SimEnv::new(3);
    sim.block_on(test(Setup::new(sim.env(), enable)));
}

fn request(operation: AdmissionOperation, resource: &Resource, object: Value) -> AdmissionRequest {
    AdmissionRequest {
        operation,
        resource: resource.clone(),
        subresource: String::new(),
        namespace: if resource.namespaced {
            "pr".to_owned()
        } else {
            String::new()
        },
        name: text_at(&object, "/metadata/name").to_owned(),
        user: UserInfo::new("admin", ["system:masters"]),
        dry_run: false,
        object,
        old_object: Arc::new(Value::Null),
        warnings: Vec::new(),
    }
}

fn create(resource: &Resource, object: Value) -> AdmissionRequest {
    request(Create, resource, object)
}

fn update(resource: &Resource, old: Value, new: Value) -> AdmissionRequest {
    AdmissionRequest {
        old_object: Arc::new(old),
        ..request(Update, resource, new)
    }
}

fn pod(spec: Value) -> Value {
    let mut pod =
        json!({"metadata": {"name": "po"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    pod["spec"]
        .as_object_mut()
        .unwrap()
        .extend(spec.as_object().unwrap().clone());
    pod
}

#[test]
fn the_chain_has_upstreams_order() {
    run(async |setup: Setup| {
        let names = setup.chain.names();
        assert_eq!(names.first(), Some(&"NamespaceLifecycle"));
        assert_eq!(names.len(), 16);
        assert!(!names.contains(&"AlwaysPullImages"));
        let with =
            Chain::with_defaults(&setup.context, &["AlwaysPullImages"], &["Priority"]).unwrap();
        assert_eq!(with.names()[5], "AlwaysPullImages");
        assert!(!with.names().contains(&"Priority"));
        let error = |enable: &[&str], disable: &[&str]| {
            Chain::with_defaults(&setup.context, enable, disable).err()
        };
        assert_eq!(
            error(&["Nope"], &[]),
            Some(ChainError::Unknown("Nope".to_owned()))
        );
        assert_eq!(
            error(&["Priority"], &["Priority"]),
            Some(ChainError::Contradiction("Priority".to_owned()))
        );
        let twice = setup
            .chain
            .clone()
            .with(Arc::new(TaintNodesByCondition))
            .err();
        assert_eq!(twice, Some(ChainError::Duplicate("TaintNodesByCondition")));
    });
}

#[test]
fn nothing_new_where_there_is_no_namespace() {
    run(async |setup: Setup| {
        let config = |namespace: &str, operation| AdmissionRequest {
            namespace: namespace.to_owned(),
            ..request(operation, &CONFIG_MAPS, json!({"metadata": {"name": "x"}}))
        };
        assert!(setup.write(config("pr", Create)).await.is_ok());
        let missing = setup.write(config("nons", Create)).await.unwrap_err();
        assert_eq!(
            (missing.code, missing.message.as_str()),
            (404, r#"namespaces "nons" not found"#)
        );
        let details = missing.details.unwrap();
        assert_eq!(
            (details.name.as_str(), details.kind.as_str()),
            ("nons", "namespaces")
        );
        let going = setup.write(config("going", Create)).await.unwrap_err();
        assert_eq!(
            going.message,
            r#"configmaps "x" is forbidden: unable to create new content in namespace going because it is being terminated"#
        );
        let cause = going.details.unwrap().causes.pop().unwrap();
        assert_eq!(
            (
                cause.reason.as_str(),
                cause.message.as_str(),
                cause.field.as_str()
            ),
            (
                "NamespaceTerminating",
                "namespace going is being terminated",
                "metadata.namespace"
            )
        );
        for fine in [
            config("going", Update),
            config("going", Delete),
            config("nons", Delete),
        ] {
            assert!(setup.write(fine).await.is_ok());
        }
        let delete = |name: &str| request(Delete, &NAMESPACES, json!({"metadata": {"name": name}}));
        assert_eq!(
            setup.refused(delete("kube-system")).await,
            r#"namespaces "kube-system" is forbidden: this namespace may not be deleted"#
        );
        assert!(setup.write(delete("pr")).await.is_ok());
    });
}

#[test]
fn a_pod_gets_its_account_token_priority_and_tolerations() {
    run(async |setup: Setup| {
        let written = setup.write(create(&PODS, pod(json!({})))).await.unwrap();
        let volume = written
            .pointer("/spec/volumes/0/name")
            .unwrap()
            .as_str()
            .unwrap()
            .to_owned();
        assert_eq!((volume.len(), &volume[..16]), (21, "kube-api-access-"));
        assert_eq!(
            written["spec"],
            json!({
                "containers": [{"name": "c", "image": "i", "volumeMounts": [
                    {"name": volume, "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]}],
                "serviceAccountName": "default", "serviceAccount": "default", "priority": 0,
                "preemptionPolicy": "PreemptLowerPriority",
                "tolerations": [
                    {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
                    {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
                "volumes": [{"name": volume, "projected": {"sources": [
                    {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                    {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                    {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}],
                    "defaultMode": 420}}]
            })
        );
        let own = setup
            .write(create(
                &PODS,
                pod(json!({
                    "automountServiceAccountToken": false,
                    "tolerations": [{"operator": "Exists", "effect": "NoExecute"}],
                })),
            ))
            .await
            .unwrap();
        assert_eq!(own.pointer("/spec/volumes"), None);
        assert_eq!(list_at(&own, "/spec/tolerations").len(), 1);
        assert_eq!(
            setup
                .refused(create(&PODS, pod(json!({"serviceAccountName": "nope"}))))
                .await,
            r#"pods "po" is forbidden: error looking up service account pr/nope: serviceaccount "nope" not found"#
        );
    });
}

#[test]
fn the_default_account_is_waited_for() {
    run(async |setup: Setup| {
        setup.objects.remove(&SERVICE_ACCOUNTS, "pr", "default");
        let (objects, env) = (setup.objects.clone(), setup.context.env.clone());
        setup.context.env.spawn("account", async move {
            env.sleep(std::time::Duration::from_millis(500)).await;
            objects.put(&SERVICE_ACCOUNTS, json!({"metadata": {"name": "default", "namespace": "pr"}, "imagePullSecrets": [{"name": "s"}]}));
        });
        let written = setup.write(create(&PODS, pod(json!({})))).await.unwrap();
        assert_eq!(written["spec"]["imagePullSecrets"], json!([{"name": "s"}]));
        setup.objects.remove(&SERVICE_ACCOUNTS, "pr", "default");
        assert_eq!(
            setup.refused(create(&PODS, pod(json!({})))).await,
            r#"pods "po" is forbidden: error looking up service account pr/default: serviceaccount "default" not found"#
        );
    });
}

#[test]
fn an_account_may_limit_its_pods_to_its_own_secrets() {
    run(async |setup: Setup| {
        setup.objects.put(&SERVICE_ACCOUNTS, json!({"metadata": {"name": "default", "namespace": "pr",
            "annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}}, "secrets": [{"name": "mine"}]}));
        let env = |secret: &str| json!({"containers": [{"name": "c", "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": secret}}}]}]});
        assert!(setup.write(create(&PODS, pod(env("mine")))).await.is_ok());
        for (spec, why) in [
            (
                env("other"),
                r#"container c with envVar E referencing secret.secretName="other" is not allowed because service account default does not reference that secret"#,
            ),
            (
                json!({"volumes": [{"name": "v", "secret": {"secretName": "other"}}]}),
                r#"volume with secret.secretName="other" is not allowed because service account default does not reference that secret"#,
            ),
            (
                json!({"initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "x"}}]}]}),
                r#"init container i with envFrom referencing secret.secretName="x" is not allowed because service account default does not reference that secret"#,
            ),
            (
                json!({"imagePullSecrets": [{"name": "p"}]}),
                r#"imagePullSecrets[0].name="p" is not allowed because service account default does not reference that imagePullSecret"#,
            ),
        ] {
            assert_eq!(
                setup.refused(create(&PODS, pod(spec))).await,
                format!(r#"pods "po" is forbidden: {why}"#)
            );
        }
        let mut mirror = pod(json!({"serviceAccountName": "default"}));
        mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
        assert_eq!(
            setup.refused(create(&PODS, mirror)).await,
            r#"pods "po" is forbidden: a mirror pod may not reference service accounts"#
        );
    });
}

#[test]
fn priority_comes_from_the_class() {
    run(async |setup: Setup| {
        let class = |name: &str, value: i64, default: bool| json!({"metadata": {"name": name}, "value": value, "globalDefault": default, "preemptionPolicy": "Never"});
        setup
            .objects
            .put(&PRIORITY_CLASSES, class("high", 1000, false));
        let written = setup
            .write(create(&PODS, pod(json!({"priorityClassName": "high"}))))
            .await
            .unwrap();
        assert_eq!(
            (
                &written["spec"]["priority"],
                &written["spec"]["preemptionPolicy"]
            ),
            (&json!(1000), &json!("Never"))
        );
        for (spec, why) in [
            (
                json!({"priorityClassName": "nope"}),
                "no PriorityClass with name nope was found",
            ),
            (
                json!({"priority": 7}),
                "the integer value of priority (7) must not be provided in pod spec; priority admission controller computed 0 from the given PriorityClass name",
            ),
            (
                json!({"priorityClassName": "high", "preemptionPolicy": "PreemptLowerPriority"}),
                "the string value of PreemptionPolicy (PreemptLowerPriority) must not be provided in pod spec; priority admission controller computed Never from the given PriorityClass name",
            ),
        ] {
            assert_eq!(
                setup.refused(create(&PODS, pod(spec))).await,
                format!(r#"pods "po" is forbidden: {why}"#)
            );
        }
        setup
            .objects
            .put(&PRIORITY_CLASSES, class("usual", 10, true));
        let written = setup.write(create(&PODS, pod(json!({})))).await.unwrap();
        assert_eq!(
            (
                &written["spec"]["priority"],
                &written["spec"]["priorityClassName"]
            ),
            (&json!(10), &json!("usual"))
        );
        let kept = setup
            .write(update(&PODS, pod(json!({"priority": 10})), pod(json!({}))))
            .await
            .unwrap();
        assert_eq!(kept["spec"]["priority"], 10);
        assert_eq!(
            setup
                .refused(create(&PRIORITY_CLASSES, class("other", 1, true)))
                .await,
            r#"priorityclasses.scheduling.k8s.io "other" is forbidden: PriorityClass usual is already marked as default. Only one default can exist"#
        );
        assert!(
            setup
                .write(update(
                    &PRIORITY_CLASSES,
                    class("usual", 10, true),
                    class("usual", 10, true)
                ))
                .await
                .is_ok()
        );
    });
}

#[test]
fn nodes_start_tainted_and_storage_protected() {
    run(async |setup: Setup| {
        let node = setup
            .write(create(&NODES, json!({"metadata": {"name": "nodex"}})))
            .await
            .unwrap();
        assert_eq!(
            node["spec"],
            json!({"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]})
        );
        let volume = setup
            .write(create(
                &PERSISTENT_VOLUMES,
                json!({"metadata": {"name": "prx"}}),
            ))
            .await
            .unwrap();
        assert_eq!(
            volume["metadata"]["finalizers"],
            json!(["kubernetes.io/pv-protection"])
        );
        let mark = "storageclass.kubernetes.io/is-default-class";
        for (name, born) in [
            ("old", "2026-01-01T00:00:00Z"),
            ("b", "2026-02-01T00:00:00Z"),
            ("a", "2026-02-01T00:00:00Z"),
        ] {
            setup.objects.put(&STORAGE_CLASSES, json!({"metadata": {"name": name, "creationTimestamp": born, "annotations": {mark: "true"}}}));
        }
        let claim = setup
            .write(create(
                &PERSISTENT_VOLUME_CLAIMS,
                json!({"metadata": {"name": "c"}}),
            ))
            .await
            .unwrap();
        assert_eq!(
            claim,
            json!({"metadata": {"name": "c", "finalizers": ["kubernetes.io/pvc-protection"]}, "spec": {"storageClassName": "a"}})
        );
        let own = json!({"metadata": {"name": "c"}, "spec": {"storageClassName": ""}});
        assert_eq!(
            setup
                .write(create(&PERSISTENT_VOLUME_CLAIMS, own))
                .await
                .unwrap()["spec"],
            json!({"storageClassName": ""})
        );
        setup.objects.put(&INGRESS_CLASSES, json!({"metadata": {"name": "edge", "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}}}));
        let ingresses = Resource::namespaced(NETWORKING, "v1", "ingresses", "Ingress");
        let ingress = setup
            .write(create(&ingresses, json!({"metadata": {"name": "i"}})))
            .await
            .unwrap();
        assert_eq!(ingress["spec"], json!({"ingressClassName": "edge"}));
    });
}

#[test]
fn claims_grow_only_where_they_can() {
    run(async |setup: Setup| {
        setup.objects.put(
            &STORAGE_CLASSES,
            json!({"metadata": {"name": "grows"}, "allowVolumeExpansion": true}),
        );
        let claim = |size: &str, class: &str, phase: &str| {
            json!({"metadata": {"name": "c"}, "status": {"phase": phase},
            "spec": {"storageClassName": class, "resources": {"requests": {"storage": size}}}})
        };
        let change =
            |old: Value, new: Value| setup.write(update(&PERSISTENT_VOLUME_CLAIMS, old, new));
        assert!(
            change(
                claim("1Gi", "grows", "Bound"),
                claim("2Gi", "grows", "Bound")
            )
            .await
            .is_ok()
        );
        assert!(
            change(
                claim("1Gi", "fixed", "Pending"),
                claim("1024Mi", "fixed", "Pending")
            )
            .await
            .is_ok()
        );
        let refused = change(
            claim("1Gi", "grows", "Pending"),
            claim("2Gi", "grows", "Pending"),
        )
        .await
        .unwrap_err();
        assert_eq!(
            refused.message,
            r#"persistentvolumeclaims "c" is forbidden: Only bound persistent volume claims can be expanded"#
        );
        let refused = change(
            claim("1Gi", "fixed", "Bound"),
            claim("2Gi", "fixed", "Bound"),
        )
        .await
        .unwrap_err();
        assert_eq!(
            refused.message,
            r#"persistentvolumeclaims "c" is forbidden: only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"#
        );
    });
}

#[test]
fn limit_ranges_fill_in_and_bound() {
    run(async |setup: Setup| {
        setup.objects.put(&LIMIT_RANGES, json!({"metadata": {"name": "x", "namespace": "pr"}, "spec": {"limits": [
            {"type": "Container", "default": {"cpu": "200m"}, "defaultRequest": {"cpu": "100m"}, "max": {"cpu": "1"}, "min": {"cpu": "50m"},
             "maxLimitRequestRatio": {"cpu": "4"}},
            {"type": "Pod", "max": {"cpu": "1500m"}},
            {"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "5Gi"}},
        ]}}));
        let quiet = |containers: Value| {
            pod(json!({"automountServiceAccountToken": false, "containers": containers}))
        };
        let written = setup
            .write(create(&PODS, quiet(json!([{"name": "c"}]))))
            .await
            .unwrap();
        assert_eq!(
            written["spec"]["containers"][0]["resources"],
            json!({"limits": {"cpu": "200m"}, "requests": {"cpu": "100m"}})
        );
        assert_eq!(
            written["metadata"]["annotations"],
            json!({"kubernetes.io/limit-ranger": "LimitRanger plugin set: cpu request for container c; cpu limit for container c"})
        );
        let asks = |request: &str, limit: &str| json!({"name": "c", "resources": {"requests": {"cpu": request}, "limits": {"cpu": limit}}});
        for (containers, why) in [
            (
                json!([asks("1", "2")]),
                "[maximum cpu usage per Container is 1, but limit is 2, maximum cpu usage per Pod is 1500m, but limit is 2]",
            ),
            (
                json!([asks("10m", "40m")]),
                "minimum cpu usage per Container is 50m, but request is 10m",
            ),
            (
                json!([asks("100m", "500m")]),
                "cpu max limit to request ratio per Container is 4, but provided ratio is 5.000000",
            ),
            (
                json!([asks("400m", "800m"), asks("400m", "800m")]),
                "maximum cpu usage per Pod is 1500m, but limit is 1600m",
            ),
        ] {
            assert_eq!(
                setup.refused(create(&PODS, quiet(containers))).await,
                format!(r#"pods "po" is forbidden: {why}"#)
            );
        }
        let claim = |size: &str| {
            create(
                &PERSISTENT_VOLUME_CLAIMS,
                json!({"metadata": {"name": "d"}, "spec": {"resources": {"requests": {"storage": size}}}}),
            )
        };
        assert!(setup.write(claim("2Gi")).await.is_ok());
        assert_eq!(
            setup.refused(claim("6Gi")).await,
            r#"persistentvolumeclaims "d" is forbidden: maximum storage usage per PersistentVolumeClaim is 5Gi, but request is 6Gi"#
        );
        assert_eq!(
            setup.refused(claim("1Mi")).await,
            r#"persistentvolumeclaims "d" is forbidden: minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi"#
        );
    });
}

#[test]
fn runtime_classes_add_overhead_and_scheduling() {
    run(async |setup: Setup| {
        setup.objects.put(&RUNTIME_CLASSES, json!({"metadata": {"name": "vm"}, "handler": "vm", "overhead": {"podFixed": {"memory": "64Mi"}},
            "scheduling": {"nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm", "operator": "Exists"}]}}));
        let with = |spec: Value| {
            let mut pod =
                pod(json!({"automountServiceAccountToken": false, "runtimeClassName": "vm"}));
            pod["spec"]
                .as_object_mut()
                .unwrap()
                .extend(spec.as_object().unwrap().clone());
            create(&PODS, pod)
        };
        let spec = setup.write(with(json!({"nodeSelector": {"a": "b"}, "overhead": {"memory": "65536Ki"}, "tolerations": [{"key": "vm", "operator": "Equal", "value": "x"}]}))).await.unwrap()["spec"].clone();
        assert_eq!(
            (&spec["overhead"], &spec["nodeSelector"]),
            (&json!({"memory": "64Mi"}), &json!({"a": "b", "vm": "yes"}))
        );
        let keys: Vec<&str> = list_at(&spec, "/tolerations")
            .iter()
            .map(|t| text_field(t, "key"))
            .collect();
        assert_eq!(
            keys,
            [
                "node.kubernetes.io/not-ready",
                "node.kubernetes.io/unreachable",
                "vm"
            ],
            "the narrower one is gone"
        );
        for (bad, why) in [
            (
                json!({"runtimeClassName": "nope"}),
                r#"pod rejected: RuntimeClass "nope" not found"#,
            ),
            (
                json!({"overhead": {"memory": "1"}}),
                "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
            ),
            (
                json!({"nodeSelector": {"vm": "no"}}),
                "conflict: runtimeClass.scheduling.nodeSelector[vm] = yes; pod.spec.nodeSelector[vm] = no",
            ),
        ] {
            assert_eq!(
                setup.refused(with(bad)).await,
                format!(r#"pods "po" is forbidden: {why}"#)
            );
        }
        let bare = create(&PODS, pod(json!({"overhead": {"cpu": "1"}})));
        assert_eq!(
            setup.refused(bare).await,
            r#"pods "po" is forbidden: pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"#
        );
    });
}

#[test]
fn plugins_that_are_off_work_when_switched_on() {
    run_with(
        &[
            "AlwaysPullImages",
            "DenyServiceExternalIPs",
            "OwnerReferencesPermissionEnforcement",
        ],
        async |mut setup: Setup| {
            let written = setup.write(create(&PODS, pod(json!({})))).await.unwrap();
            assert_eq!(
                written["spec"]["containers"][0]["imagePullPolicy"],
                "Always"
            );
            let service = |addresses: Value| json!({"metadata": {"name": "s"}, "spec": {"externalIPs": addresses}});
            assert_eq!(
                setup
                    .refused(create(&SERVICES, service(json!(["1.2.3.4"]))))
                    .await,
                r#"services "s" is forbidden: Use of external IPs is denied by admission control."#
            );
            assert!(
                setup
                    .write(update(
                        &SERVICES,
                        service(json!(["1.2.3.4", "5.6.7.8"])),
                        service(json!(["5.6.7.8"]))
                    ))
                    .await
                    .is_ok()
            );
            setup.context.authorizer = Arc::new(RbacAuthorizer::new(setup.objects.clone()));
            setup.chain = Chain::with_defaults(
                &setup.context,
                &["OwnerReferencesPermissionEnforcement"],
                &[],
            )
            .unwrap();
            let owned = |block: bool, kind: &str| json!({"metadata": {"name": "s", "ownerReferences": [{"apiVersion": "v1", "kind": kind, "name": "p", "uid": "u", "blockOwnerDeletion": block}]}});
            assert_eq!(
                setup
                    .refused(create(&CONFIG_MAPS, owned(false, "Pod")))
                    .await,
                r#"configmaps "s" is forbidden: cannot set an ownerRef on a resource you can't delete: , <nil>"#
            );
            assert_eq!(
                setup
                    .refused(update(
                        &CONFIG_MAPS,
                        owned(false, "Pod"),
                        owned(true, "Pod")
                    ))
                    .await,
                r#"configmaps "s" is forbidden: cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: , <nil>"#
            );
            assert!(
                setup
                    .write(update(&CONFIG_MAPS, owned(true, "Pod"), owned(true, "Pod")))
                    .await
                    .is_ok()
            );
            assert!(
                setup
                    .write(create(&CONFIG_MAPS, json!({"metadata": {"name": "free"}})))
                    .await
                    .is_ok()
            );
        },
    );
}

#[test]
fn bindings_carry_the_topology_of_their_node() {
    run(async |setup: Setup| {
        setup.objects.put(&NODES, json!({"metadata": {"name": "a", "labels": {"topology.kubernetes.io/zone": "z", "other": "x"}}}));
        let binding = AdmissionRequest {
            subresource: "binding".to_owned(),
            ..create(
                &PODS,
                json!({"metadata": {"name": "po"}, "target": {"kind": "Node", "name": "a"}}),
            )
        };
        assert_eq!(
            setup.write(binding).await.unwrap()["metadata"]["labels"],
            json!({"topology.kubernetes.io/zone": "z"})
        );
        let bound = setup
            .write(create(&PODS, pod(json!({"nodeName": "a"}))))
            .await
            .unwrap();
        assert_eq!(
            bound["metadata"]["labels"],
            json!({"topology.kubernetes.io/zone": "z"})
        );
    });
}

#[test]
fn a_node_writes_its_own_only() {
    run(async |setup: Setup| {
        setup.objects.put(
            &NODES,
            json!({"metadata": {"name": "a", "uid": "node-uid"}}),
        );
        setup.objects.put(&PODS, json!({"metadata": {"name": "mine", "namespace": "pr", "uid": "pu"}, "spec": {"nodeName": "a"}}));
        setup.objects.put(&PODS, json!({"metadata": {"name": "other", "namespace": "pr", "uid": "ou"}, "spec": {"nodeName": "b"}}));
        let by = |request: AdmissionRequest| AdmissionRequest {
            user: UserInfo::new("system:node:a", ["system:nodes"]),
            ..request
        };
        let at = |subresource: &str, request: AdmissionRequest| AdmissionRequest {
            subresource: subresource.to_owned(),
            ..by(request)
        };
        let labelled = |labels: Value| json!({"metadata": {"name": "a", "labels": labels}});
        let mirror = |change: Value| {
            let mut pod = json!({"metadata": {"name": "m", "annotations": {"kubernetes.io/config.mirror": "x"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "a", "uid": "node-uid", "controller": true}]},
                "spec": {"nodeName": "a", "containers": []}});
            pod["spec"]
                .as_object_mut()
                .unwrap()
                .extend(change.as_object().unwrap().clone());
            by(create(&PODS, pod))
        };
        let named = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
        let on = |name: &str| named("x", json!({"nodeName": name}));
        let leases = Resource::namespaced("coordination.k8s.io", "v1", "leases", "Lease");
        let lease = |namespace: &str, name: &str| AdmissionRequest {
            namespace: namespace.to_owned(),
            ..by(create(&leases, named(name, json!({}))))
        };
        let token = |name: &str, uid: &str| {
            at(
                "token",
                create(
                    &SERVICE_ACCOUNTS,
                    json!({"metadata": {"name": "default"},
            "spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}}}),
                ),
            )
        };
        setup.objects.put(
            &NAMESPACES,
            json!({"metadata": {"name": "kube-node-lease"}}),
        );
        for fine in [
            by(create(
                &NODES,
                labelled(
                    json!({"kubernetes.io/hostname": "a", "node.kubernetes.io/x": "y", "acme.com/z": "1"}),
                ),
            )),
            at(
                "status",
                update(&NODES, labelled(json!({})), labelled(json!({}))),
            ),
            mirror(json!({})),
            by(request(Delete, &PODS, named("mine", json!({})))),
            at("status", update(&PODS, on("a"), on("a"))),
            at("eviction", create(&PODS, named("mine", json!({})))),
            lease("kube-node-lease", "a"),
            token("mine", "pu"),
            by(create(&CONFIG_MAPS, named("c", json!({})))),
        ] {
            let about = format!("{fine:?}");
            assert_eq!(setup.write(fine).await.err(), None, "{about}");
        }
        for (bad, why) in [
            (
                by(create(&NODES, named("b", json!({})))),
                r#"nodes "b" is forbidden: node "a" is not allowed to modify node "b""#,
            ),
            (
                by(create(
                    &NODES,
                    labelled(
                        json!({"foo.kubernetes.io/x": "y", "x.node-restriction.kubernetes.io/z": "1"}),
                    ),
                )),
                r#"nodes "a" is forbidden: node "a" is not allowed to set the following labels: foo.kubernetes.io/x, x.node-restriction.kubernetes.io/z"#,
            ),
            (
                by(update(
                    &NODES,
                    labelled(json!({"k8s.io/x": "1"})),
                    labelled(json!({})),
                )),
                r#"nodes "a" is forbidden: is not allowed to modify labels: k8s.io/x"#,
            ),
            (
                by(update(
                    &NODES,
                    named("a", json!({"taints": [{"key": "t"}]})),
                    named("a", json!({})),
                )),
                r#"nodes "a" is forbidden: node "a" is not allowed to modify taints"#,
            ),
            (
                by(create(&PODS, named("p", json!({"nodeName": "a"})))),
                r#"pods "p" is forbidden: pod does not have "kubernetes.io/config.mirror" annotation, node "a" can only create mirror pods"#,
            ),
            (
                mirror(json!({"nodeName": "b"})),
                r#"pods "m" is forbidden: node "a" can only create pods with spec.nodeName set to itself"#,
            ),
            (
                mirror(json!({"serviceAccountName": "default"})),
                "a mirror pod may not reference service accounts",
            ),
            (
                mirror(json!({"volumes": [{"name": "v", "configMap": {"name": "c"}}]})),
                r#"pods "m" is forbidden: node "a" can not create pods that reference configmaps"#,
            ),
            (
                by(request(Delete, &PODS, named("other", json!({})))),
                r#"pods "other" is forbidden: node "a" can only delete pods with spec.nodeName set to itself"#,
            ),
            (
                at("status", update(&PODS, on("b"), on("b"))),
                r#"pods "x" is forbidden: node "a" can only update pod status for pods with spec.nodeName set to itself"#,
            ),
            (
                at("eviction", create(&PODS, named("other", json!({})))),
                r#"pods "other" is forbidden: node a can only evict pods with spec.nodeName set to itself"#,
            ),
            (
                at("exec", create(&PODS, named("mine", json!({})))),
                r#"pods "mine" is forbidden: unexpected pod subresource "exec", only 'status' and 'eviction' are allowed"#,
            ),
            (
                lease("pr", "a"),
                r#"leases.coordination.k8s.io "a" is forbidden: can only access leases in the "kube-node-lease" system namespace"#,
            ),
            (
                lease("kube-node-lease", "b"),
                r#"leases.coordination.k8s.io "b" is forbidden: can only access node lease with the same name as the requesting node"#,
            ),
            (
                token("other", "ou"),
                r#"serviceaccounts "default" is forbidden: node requested token bound to a pod scheduled on a different node"#,
            ),
            (
                token("mine", ""),
                r#"serviceaccounts "default" is forbidden: node requested token with a pod binding without a uid"#,
            ),
        ] {
            let said = setup.refused(bad).await;
            assert!(said.ends_with(why), "{said}");
        }
    });
}

#[test]
fn certificates_are_approved_and_signed_by_those_who_may() {
    run(async |mut setup: Setup| {
        let requests = Resource::cluster(
            "certificates.k8s.io",
            "v1",
            "certificatesigningrequests",
            "CertificateSigningRequest",
        );
        setup.objects.put(&CLUSTER_ROLES, json!({"metadata": {"name": "r"}, "rules": [
            {"apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "resourceNames": ["acme.com/*"], "verbs": ["approve", "sign"]}]}));
        setup.objects.put(
            &CLUSTER_ROLE_BINDINGS,
            json!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "r"},
            "subjects": [{"kind": "User", "name": "ann"}]}),
        );
        setup.context.authorizer = Arc::new(RbacAuthorizer::new(setup.objects.clone()));
        setup.chain = Chain::with_defaults(&setup.context, &[], &[]).unwrap();
        let csr = |signer: &str, certificate: &str| json!({"metadata": {"name": "csr"}, "spec": {"signerName": signer}, "status": {"certificate": certificate}});
        let by = |user: &str, subresource: &str, signer: &str| AdmissionRequest {
            user: UserInfo::new(user, []),
            subresource: subresource.to_owned(),
            ..update(&requests, csr(signer, ""), csr(signer, "new"))
        };
        assert!(
            setup
                .write(by("ann", "approval", "acme.com/x"))
                .await
                .is_ok()
        );
        assert!(setup.write(by("ann", "status", "acme.com/x")).await.is_ok());
        assert_eq!(
            setup.refused(by("ann", "approval", "example.com/x")).await,
            r#"certificatesigningrequests.certificates.k8s.io "csr" is forbidden: user not permitted to approve requests with signerName "example.com/x""#
        );
        assert_eq!(
            setup.refused(by("bob", "status", "acme.com/x")).await,
            r#"certificatesigningrequests.certificates.k8s.io "csr" is forbidden: user not permitted to sign requests with signerName "acme.com/x""#
        );
        // Both made with `openssl req -new`.
        const OF_MASTERS: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIak1JR0pBZ0VBTUNjeEZ6QVZCZ05WQkFvTURuTjVjM1JsYlRwdFlYTjBaWEp6TVF3d0NnWURWUVFEREFObApkbVV3V1RBVEJnY3Foa2pPUFFJQkJnZ3Foa2pPUFFNQkJ3TkNBQVFXSVdBbjFuZVJpZUh5YVNlNXJnditXNVUwCktVMHNiNlhxNDM1VnMwMUlWckQvSC8vNHBVcW1wWmJBRTRvdHl2MU0xZlEyWEYvNURBb3RtVi9TOGhaem9BQXcKQ2dZSUtvWkl6ajBFQXdJRFNRQXdSZ0loQUxRWU1Mend4b3VhN2NzMnF5ckxBTE9DSFVCVXJjWXFVUFhEZEpvVwoxVU9MQWlFQXpZQTZsOXZqTW9UeFRPOS8rK0d2d2YzVktjWnA4NVkzMXhRTUtXU0pKNm89Ci0tLS0tRU5EIENFUlRJRklDQVRFIFJFUVVFU1QtLS0tLQo=";
        const OF_DEVELOPERS: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIWU1IOENBUUF3SFRFTk1Bc0dBMVVFQ2d3RVpHVjJjekVNTUFvR0ExVUVBd3dEWlhabE1Ga3dFd1lIS29aSQp6ajBDQVFZSUtvWkl6ajBEQVFjRFFnQUVGaUZnSjlaM2tZbmg4bWtudWE0TC9sdVZOQ2xOTEcrbDZ1TitWYk5OClNGYXcveC8vK0tWS3BxV1d3Qk9LTGNyOVROWDBObHhmK1F3S0xabGYwdklXYzZBQU1Bb0dDQ3FHU000OUJBTUMKQTBrQU1FWUNJUURlQ2NJZWZXWUwwWEh0aWh1RWJ1R1YyVVY3MCtYbEF0c29zSGhhMmNaVHBnSWhBSnNNdXJGNgo3Y1NadnV2NUFrenhQTG94d1huRFArN2ViaEJ2QSt2VnhFeDYKLS0tLS1FTkQgQ0VSVElGSUNBVEUgUkVRVUVTVC0tLS0tCg==";
        let ask = |encoded: &str| {
            create(
                &requests,
                json!({"metadata": {"name": "csr"}, "spec": {"signerName": "kubernetes.io/kube-apiserver-client", "request": encoded}}),
            )
        };
        assert!(setup.write(ask(OF_DEVELOPERS)).await.is_ok());
        assert_eq!(
            setup.refused(ask(OF_MASTERS)).await,
            r#"certificatesigningrequests.certificates.k8s.io "csr" is forbidden: use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"#
        );
        assert_eq!(
            setup.refused(ask(&STANDARD.encode("nothing"))).await,
            r#"certificatesigningrequests.certificates.k8s.io "csr" is forbidden: failed to parse CSR: PEM block type must be CERTIFICATE REQUEST"#
        );
    });
}
