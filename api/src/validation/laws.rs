//! What holds for every document and every text.

use orlop_core::resource::GroupVersionKind;
use proptest::prelude::*;
use serde_json::Value;

use super::batch::cron;
use super::{names, validate_create, validate_update};
use crate::strategy::{self, Context};
use crate::{defaults, doc};

const KINDS: &[(&str, &str)] = &[
    ("v1", "Pod"),
    ("v1", "Service"),
    ("v1", "Node"),
    ("v1", "Namespace"),
    ("v1", "Secret"),
    ("v1", "ConfigMap"),
    ("v1", "LimitRange"),
    ("v1", "ResourceQuota"),
    ("v1", "PersistentVolume"),
    ("v1", "PersistentVolumeClaim"),
    ("v1", "ReplicationController"),
    ("v1", "Endpoints"),
    ("v1", "Event"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "DaemonSet"),
    ("apps/v1", "StatefulSet"),
    ("apps/v1", "ReplicaSet"),
    ("batch/v1", "Job"),
    ("batch/v1", "CronJob"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("networking.k8s.io/v1", "Ingress"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ("discovery.k8s.io/v1", "EndpointSlice"),
    ("policy/v1", "PodDisruptionBudget"),
    ("storage.k8s.io/v1", "StorageClass"),
    ("certificates.k8s.io/v1", "CertificateSigningRequest"),
    ("resource.k8s.io/v1", "ResourceClaim"),
];

const KEYS: &[&str] = &[
    "metadata",
    "spec",
    "status",
    "template",
    "jobTemplate",
    "containers",
    "initContainers",
    "volumes",
    "ports",
    "name",
    "image",
    "resources",
    "limits",
    "requests",
    "cpu",
    "memory",
    "labels",
    "annotations",
    "selector",
    "matchLabels",
    "rollingUpdate",
    "strategy",
    "updateStrategy",
    "metrics",
    "ingress",
    "egress",
    "from",
    "ipBlock",
    "rules",
    "http",
    "paths",
    "backend",
    "subjects",
    "roleRef",
    "endpoints",
    "addresses",
    "conditions",
    "livenessProbe",
    "httpGet",
    "env",
    "valueFrom",
    "affinity",
    "nodeAffinity",
    "tolerations",
    "type",
    "clusterIP",
    "clusterIPs",
    "taints",
    "securityContext",
    "projected",
    "sources",
];

fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..70_000).prop_map(Value::from),
        prop_oneof![
            "[a-zA-Z0-9./_-]{0,8}",
            Just("1Gi".to_owned()),
            Just("25%".to_owned())
        ]
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(
                prop::sample::select(KEYS).prop_map(str::to_owned),
                inner,
                0..6
            )
            .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever shape a document has, nothing panics, and defaults are applied once and for all.
    #[test]
    fn any_document_is_digested(old in document(), new in document()) {
        for (api_version, kind) in KINDS {
            let gvk = GroupVersionKind::from_api_version(api_version, kind);
            let (mut old, mut new) = (old.clone(), new.clone());
            if !old.is_object() || !new.is_object() {
                continue;
            }
            for document in [&mut old, &mut new] {
                defaults::apply(&gvk, document);
                let once = document.clone();
                defaults::apply(&gvk, document);
                prop_assert_eq!(&once, &*document);
            }
            strategy::prepare_for_create(&gvk, &mut old, &Context::default());
            let _ = validate_create(&gvk, &old);
            let _ = strategy::warnings_on_create(&gvk, &old);
            for subresource in [None, Some("status"), Some("resize"), Some("ephemeralcontainers"), Some("finalize")] {
                let mut new = new.clone();
                strategy::prepare_for_update(&gvk, &mut new, &old, subresource, &Context::default());
                let _ = validate_update(&gvk, &new, &old, subresource);
            }
            let _ = strategy::scale::read(&gvk, &old);
        }
    }

    /// Nothing to complain about a document means nothing to complain about it unchanged.
    #[test]
    fn a_good_object_may_stay_as_it_is(spec in document()) {
        let gvk = GroupVersionKind::new("", "v1", "ConfigMap");
        let mut document = serde_json::json!({"metadata": {"name": "a", "namespace": "n", "resourceVersion": "1"}});
        doc::copy_field(&mut document, &serde_json::json!({"data": spec}), "data");
        defaults::apply(&gvk, &mut document);
        if validate_create(&gvk, &document).is_empty() {
            prop_assert!(validate_update(&gvk, &document, &document, None).is_empty());
        }
    }

    #[test]
    fn narrower_names_are_wider_names(name in "[a-z0-9.-]{0,12}") {
        if names::dns1035_label(&name).is_empty() {
            prop_assert!(names::dns_label(&name).is_empty());
        }
        if names::dns_label(&name).is_empty() {
            prop_assert!(names::dns_subdomain(&name).is_empty());
        }
        if names::dns_subdomain(&name).is_empty() {
            prop_assert!(names::qualified_name(&name).is_empty());
            prop_assert!(names::path_segment(&name).is_empty());
        }
    }

    #[test]
    fn any_schedule_is_answered(text in "[0-9*/,@a-z -]{0,24}") {
        let _ = cron::check(&text);
    }

    #[test]
    fn a_network_contains_its_own_address(a in any::<u32>(), length in 0u8..=32) {
        let address = std::net::Ipv4Addr::from(a);
        let text = format!("{address}/{length}");
        let (parsed, found) = names::parse_cidr(&text).expect("a CIDR");
        prop_assert_eq!(found, length);
        prop_assert_eq!(names::masked(parsed, length) & names::address_bits(parsed), names::masked(parsed, length));
    }
}
