use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Map, json};

use super::table::{Message, Shape, Special, Type};
use super::*;
use crate::resources;

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// Bodies that kubectl 1.32 sends, and the JSON that says the same.
#[test]
fn reads_what_kubectl_sends() {
    let cases = [
        // kubectl create ns demo
        (
            "6b3873000a0f0a02763112094e616d657370616365121c0a140a0464656d6f12001a0022002a0032003800420012001a020a001a002200",
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo"}, "spec": {}, "status": {}}),
        ),
        // kubectl create configmap c1 --from-literal=a=b -n demo
        (
            "6b3873000a0f0a0276311209436f6e6669674d617012200a160a02633112001a0464656d6f22002a0032003800420012060a01611201621a002200",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c1", "namespace": "demo"}, "data": {"a": "b"}}),
        ),
        // kubectl create secret generic s --from-literal=k=v -n demo
        (
            "6b3873000a0c0a027631120653656372657412210a150a017312001a0464656d6f22002a0032003800420012060a016b1201761a001a002200",
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "demo"}, "data": {"k": "dg=="}}),
        ),
        // kubectl create deployment web --image=nginx --replicas=2 --port=80 -n demo
        (
            "6b3873000a150a07617070732f7631120a4465706c6f796d656e7412bc010a230a0377656212001a0464656d6f22002a003200380042005a0a0a0361707012037765621286010802120c0a0a0a0361707012037765621a6c0a1c0a0012001a0022002a003200380042005a0a0a036170701203776562124c122e0a056e67696e7812056e67696e782a00320a0a001000185022002a0042006a007200800100880100900100a201001a00320042004a0052005800600068008201008a01009a0100c2010022020a00280038001a0c0800100018002000280038001a002200",
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": "web", "namespace": "demo", "labels": {"app": "web"}},
                "spec": {
                    "replicas": 2,
                    "selector": {"matchLabels": {"app": "web"}},
                    "strategy": {},
                    "template": {
                        "metadata": {"labels": {"app": "web"}},
                        "spec": {"containers": [
                            {"name": "nginx", "image": "nginx", "ports": [{"containerPort": 80}], "resources": {}},
                        ]},
                    },
                },
                "status": {},
            }),
        ),
        // kubectl create service clusterip s --tcp=80:8080 -n demo
        (
            "6b3873000a0d0a02763112075365727669636512670a1f0a017312001a0464656d6f22002a003200380042005a080a0361707012017312400a1b0a0738302d38303830120354435018502207080010903f1a00280012080a036170701201731a002209436c757374657249503a00420052005a00600068001a020a001a002200",
            json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": "s", "namespace": "demo", "labels": {"app": "s"}},
                "spec": {
                    "type": "ClusterIP", "selector": {"app": "s"},
                    "ports": [{"name": "80-8080", "protocol": "TCP", "port": 80, "targetPort": 8080}],
                },
                "status": {"loadBalancer": {}},
            }),
        ),
        // kubectl create token default -n demo
        (
            "6b3873000a280a1861757468656e7469636174696f6e2e6b38732e696f2f7631120c546f6b656e52657175657374121a0a100a0012001a0022002a0032003800420012001a040a0012001a002200",
            json!({
                "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
                "metadata": {}, "spec": {}, "status": {"token": ""},
            }),
        ),
        // kubectl auth can-i get pods
        (
            "6b3873000a320a17617574686f72697a6174696f6e2e6b38732e696f2f7631121753656c665375626a656374416363657373526576696577123c0a100a0012001a0022002a00320038004200121e0a1c0a0764656661756c7412036765741a0022002a04706f647332003a001a08080012001a0020001a002200",
            json!({
                "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "metadata": {},
                "spec": {"resourceAttributes": {"namespace": "default", "verb": "get", "resource": "pods"}},
                "status": {"allowed": false},
            }),
        ),
    ];
    for (bytes, expected) in cases {
        let decoded = decode(&hex(bytes)).unwrap();
        assert_eq!(decoded, expected);
        assert_eq!(decode(&encode(&decoded).unwrap()).unwrap(), expected);
    }
}

#[test]
fn zeros_that_mean_something_stay() {
    let object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "d", "creationTimestamp": "1970-01-01T00:00:00Z"},
        "spec": {
            "replicas": 0,
            "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "25%"}},
            "template": {"spec": {
                "containers": [{"name": "", "securityContext": {"runAsUser": 0, "privileged": false}, "env": []}],
                "volumes": [{"name": "e", "emptyDir": {}}, {"name": "c", "configMap": {"name": "x", "optional": false}}],
                "ephemeralContainers": [{"name": "debug", "image": "busybox", "targetContainerName": "c"}],
            }},
        },
    });
    let mut expected = object.clone();
    // An empty list is no list.
    expected["spec"]["template"]["spec"]["containers"][0]
        .as_object_mut()
        .unwrap()
        .remove("env");
    assert_eq!(decode(&encode(&object).unwrap()).unwrap(), expected);
}

#[test]
fn times_and_special_forms() {
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "l", "managedFields": [{
            "manager": "m", "operation": "Apply", "time": "1969-12-31T23:59:58Z", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {"f:holderIdentity": {}}},
        }]},
        "spec": {"renewTime": "2026-11-22T21:16:45.000120Z", "acquireTime": "1969-12-31T23:59:58.500000Z", "leaseDurationSeconds": -1},
    });
    assert_eq!(decode(&encode(&lease).unwrap()).unwrap(), lease);
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {},
        "status": {"capacity": {"cpu": "4", "memory": "16Gi"}, "images": [{"names": ["a", "b"], "sizeBytes": 9_007_199_254_740_993_i64}]},
    });
    assert_eq!(decode(&encode(&node).unwrap()).unwrap(), node);
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {},
        "status": {"user": {"username": "u", "extra": {"scopes": ["a", "b"], "none": []}}},
    });
    assert_eq!(decode(&encode(&review).unwrap()).unwrap(), review);
}

#[test]
fn lists_and_options() {
    let list = json!({
        "apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "7", "remainingItemCount": 0},
        "items": [{"metadata": {"name": "a"}, "spec": {"nodeName": "n"}}],
    });
    assert_eq!(decode(&encode(&list).unwrap()).unwrap(), list);
    let item = encode_item(
        &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"nodeName": "n"}}),
    );
    let kind = GroupVersionKind::new("", "v1", "PodList");
    assert_eq!(
        encode_list(&kind, &list["metadata"], [item.unwrap()]).unwrap(),
        encode(&list).unwrap()
    );
    // Options carry the group of the request.
    let options = json!({
        "apiVersion": "apps/v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground", "gracePeriodSeconds": 0,
        "preconditions": {"uid": "u"}, "dryRun": ["All"],
    });
    assert_eq!(decode(&encode(&options).unwrap()).unwrap(), options);
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": 404, "reason": "NotFound",
        "details": {"name": "x", "kind": "pods", "causes": [{"reason": "r", "message": "m", "field": "f"}]},
    });
    assert_eq!(decode(&encode(&status).unwrap()).unwrap(), status);
}

#[test]
fn a_body_may_leave_its_kind_to_the_request() {
    let body = hex("6b38730012020800");
    assert!(matches!(decode(&body), Err(Error::NoProtobuf { .. })));
    let kind = GroupVersionKind::new("", "v1", "DeleteOptions");
    let expected = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0});
    assert_eq!(decode_or(&body, Some(&kind)).unwrap(), expected);
}

#[test]
fn what_is_refused() {
    assert_eq!(decode(b"{}"), Err(Error::NotProtobuf));
    assert_eq!(
        Error::NotProtobuf.to_string(),
        "provided data does not appear to be a protobuf message, expected prefix [107, 56, 115, 0]"
    );
    let widget = json!({"apiVersion": "example.com/v1", "kind": "Widget"});
    assert!(matches!(encode(&widget), Err(Error::NoProtobuf { kind, .. }) if kind == "Widget"));
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"ports": [{"containerPort": "x"}]}]}});
    assert_eq!(
        encode(&pod),
        Err(Error::Mismatch {
            at: "spec.containers.ports.containerPort".into(),
            reason: "expected a whole number"
        })
    );
    // metadata as a number
    let body = hex("6b3873000a090a027631120350 6f6412020801"
        .replace(' ', "")
        .as_str());
    assert_eq!(
        decode(&body),
        Err(Error::Malformed {
            at: "metadata".into(),
            reason: "a field has the wrong wire type"
        })
    );
}

#[test]
fn depth_is_bounded() {
    // A Raw inside an envelope inside a Raw …: a WatchEvent can hold a WatchEvent.
    let mut object = json!({"apiVersion": "v1", "kind": "Status", "metadata": {}});
    let mut body = encode(&object).unwrap();
    for _ in 0..40 {
        let mut event = MAGIC.to_vec();
        wire::put_nested(&mut event, 1, |out| {
            wire::put_bytes(out, 1, b"v1");
            wire::put_bytes(out, 2, b"WatchEvent");
            Ok::<_, Error>(())
        })
        .unwrap();
        let frame = encode_watch_frame_of("ADDED", &body);
        wire::put_bytes(&mut event, 2, &frame[4..]);
        body = event;
    }
    assert!(decode(&body).is_ok());
    for _ in 0..40 {
        let mut event = MAGIC.to_vec();
        wire::put_bytes(&mut event, 1, b"\x0a\x02v1\x12\x0aWatchEvent");
        wire::put_bytes(&mut event, 2, &encode_watch_frame_of("ADDED", &body)[4..]);
        body = event;
    }
    assert!(matches!(decode(&body), Err(Error::Malformed { .. })));
    object["metadata"] = json!({"resourceVersion": "1"});
    assert!(encode(&object).is_ok());
}

#[test]
fn watch_frames_are_cut_anywhere() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}});
    let mut stream = encode_watch_frame("ADDED", &pod).unwrap();
    stream.extend(encode_watch_frame("DELETED", &pod).unwrap());
    let mut frames = WatchFrames::default();
    let mut events = Vec::new();
    for byte in stream {
        frames.push(&[byte]);
        events.extend(frames.next_event().unwrap());
    }
    assert_eq!(
        events,
        [
            json!({"type": "ADDED", "object": pod}),
            json!({"type": "DELETED", "object": pod})
        ]
    );
    frames.push(&[0xff; 4]);
    assert!(frames.next_event().is_err());
}

#[test]
fn every_built_in_kind_has_a_message_with_the_fields_of_its_schema() {
    for info in resources::builtin() {
        let kind = info.resource.gvk();
        assert!(supports(&kind), "{kind}");
        if info.allows(resources::Verb::List) {
            assert!(supports(&GroupVersionKind {
                kind: info.list_kind.clone(),
                ..kind
            }));
        }
    }
    let document = crate::schema::document();
    let mut missing = Vec::new();
    for message in &table::get().messages {
        let (package, rest) = message.name.split_once('.').unwrap();
        let name = if package == "meta" {
            format!("io.k8s.apimachinery.pkg.apis.meta.{rest}")
        } else {
            format!("io.k8s.api.{package}.{rest}")
        };
        let Some(properties) = document
            .get(&name)
            .and_then(|d| d["properties"].as_object())
        else {
            continue;
        };
        let mut fields = BTreeMap::new();
        collect(message, &mut fields);
        for property in properties.keys() {
            let is_type_meta = property == "apiVersion" || property == "kind";
            if !fields.contains_key(property.as_str()) && !is_type_meta {
                missing.push(format!("{name}.{property}"));
            }
        }
        missing.extend(
            fields
                .keys()
                .filter(|f| !properties.contains_key(**f))
                .map(|f| format!("{name} has no {f}")),
        );
    }
    assert_eq!(missing, Vec::<String>::new());
}

/// Every list has its items where `encode_list` puts them.
#[test]
fn items_are_field_two() {
    for info in resources::builtin()
        .iter()
        .filter(|info| info.allows(resources::Verb::List))
    {
        let kind = GroupVersionKind {
            kind: info.list_kind.clone(),
            ..info.resource.gvk()
        };
        let field = table::get().kind(&kind).unwrap().field(2).unwrap();
        assert_eq!(
            (field.name, field.shape),
            ("items", Shape::Repeated),
            "{kind}"
        );
    }
}

fn collect(message: &Message, into: &mut BTreeMap<&'static str, ()>) {
    for field in &message.fields {
        match (field.shape, field.ty) {
            (Shape::Inline, Type::Message(at)) => collect(&table::get().messages[at], into),
            _ => {
                into.insert(field.name, ());
            }
        }
    }
}

/// A random value of a type, as JSON.
fn value(ty: Type, depth: u32) -> BoxedStrategy<Value> {
    match ty {
        Type::String => "[a-z0-9/é]{1,8}".prop_map(Value::from).boxed(),
        Type::Int32 => (1..i32::MAX).prop_map(Value::from).boxed(),
        Type::Int64 => (1..i64::MAX).prop_map(Value::from).boxed(),
        Type::Bool => Just(json!(true)).boxed(),
        Type::Bytes => prop::collection::vec(any::<u8>(), 1..6)
            .prop_map(|b| json!(forms::to_base64(&b)))
            .boxed(),
        Type::Double => (1..1000i32).prop_map(|n| json!(f64::from(n) / 8.0)).boxed(),
        Type::Special(special) => match special {
            Special::Time => (-1_000_000_000..4_000_000_000i64)
                .prop_map(|s| json!(jiff::Timestamp::from_second(s).unwrap().to_string()))
                .boxed(),
            Special::MicroTime => (-1_000_000_000_000..4_000_000_000_000_000i64)
                .prop_map(|s| {
                    json!(format!(
                        "{:.6}",
                        jiff::Timestamp::from_microsecond(s).unwrap()
                    ))
                })
                .boxed(),
            Special::Quantity => "[1-9][0-9]{0,3}(m|Ki|Gi|)".prop_map(Value::from).boxed(),
            Special::IntOrString => prop_oneof![
                (1..i32::MAX).prop_map(Value::from),
                "[0-9]{1,2}%".prop_map(Value::from)
            ]
            .boxed(),
            Special::Raw => "[a-z]{0,4}"
                .prop_map(|s| json!({"x": [s, 1, null]}))
                .boxed(),
            Special::Strings => prop::collection::vec("[a-z]{0,4}", 0..3)
                .prop_map(|v| json!(v))
                .boxed(),
        },
        Type::Message(at) => object(at, depth).prop_map(Value::Object).boxed(),
    }
}

fn object(at: usize, depth: u32) -> BoxedStrategy<Map<String, Value>> {
    let mut all: BoxedStrategy<Map<String, Value>> = Just(Map::new()).boxed();
    for field in &table::get().messages[at].fields {
        let nested = matches!(field.ty, Type::Message(_));
        if nested && depth == 0 {
            continue;
        }
        let one = value(field.ty, depth.saturating_sub(1));
        let some = match field.shape {
            Shape::Single | Shape::Inline => one,
            Shape::Repeated => prop::collection::vec(one, 1..3)
                .prop_map(Value::Array)
                .boxed(),
            Shape::Map => prop::collection::btree_map("[a-z]{0,4}", one, 1..3)
                .prop_map(|m| Value::Object(m.into_iter().collect()))
                .boxed(),
        };
        let (name, inline) = (field.name, field.shape == Shape::Inline);
        let chance = if nested { 0.4 } else { 0.3 };
        all = (all, prop::option::weighted(chance, some))
            .prop_map(move |(mut object, some)| {
                match some {
                    Some(Value::Object(fields)) if inline => object.extend(fields),
                    Some(value) => {
                        object.insert(name.to_owned(), value);
                    }
                    None => {}
                }
                object
            })
            .boxed();
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn objects_come_back_as_they_went(
        (kind, object) in (0..resources::builtin().len()).prop_flat_map(|at| {
            let gvk = resources::builtin()[at].resource.gvk();
            let name = table::get().kind(&gvk).unwrap().name;
            let at = table::get().messages.iter().position(|m| m.name == name).unwrap();
            (Just(gvk), object(at, 3))
        })
    ) {
        let mut object = object;
        object.insert("apiVersion".into(), json!(kind.api_version()));
        object.insert("kind".into(), json!(kind.kind));
        let object = Value::Object(object);
        let bytes = encode(&object).unwrap();
        prop_assert_eq!(decode(&bytes).unwrap(), object);
    }

    #[test]
    fn no_bytes_make_it_panic(noise in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..400, at in 0usize..400, with in any::<u8>()) {
        let mut body = MAGIC.to_vec();
        body.extend_from_slice(b"\x0a\x09\x0a\x02v1\x12\x03Pod");
        wire::put_bytes(&mut body, 2, &noise);
        let _ = decode(&body);
        let mut real = hex("6b3873000a150a07617070732f7631120a4465706c6f796d656e7412bc010a230a0377656212001a0464656d6f22002a003200380042005a0a0a0361707012037765621286010802120c0a0a0a0361707012037765621a6c0a1c0a0012001a0022002a003200380042005a0a0a036170701203776562124c122e0a056e67696e7812056e67696e782a00320a0a001000185022002a0042006a007200800100880100900100a201001a00320042004a0052005800600068008201008a01009a0100c2010022020a00280038001a0c0800100018002000280038001a002200");
        let length = real.len();
        real[at % length] = with;
        real.truncate(cut.max(4));
        if let Ok(object) = decode(&real) {
            prop_assert!(encode(&object).is_ok());
        }
    }
}
