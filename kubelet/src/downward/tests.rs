use k8s_openapi::api::core::v1::ResourceFieldSelector;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn pod() -> Pod {
    serde_json::from_value(json!({
        "metadata": {
            "name": "p", "namespace": "ns", "uid": "u",
            "labels": {"b": "2", "a": "1"},
            "annotations": {"builder": "john \"doe\"\n", "x.y/z": "\u{e9}\t"},
        },
        "spec": {
            "nodeName": "n1", "serviceAccountName": "sa",
            "initContainers": [{"name": "init", "resources": {"limits": {"cpu": "3"}}}],
            "containers": [
                {"name": "c", "resources": {
                    "limits": {"cpu": "1250m", "memory": "64Mi", "hugepages-2Mi": "4Mi"},
                    "requests": {"cpu": "250m", "memory": "33554433", "ephemeral-storage": "1Gi"}}},
                {"name": "bare"},
            ],
        },
    }))
    .unwrap()
}

#[test]
fn fields() {
    let host = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
    let own = ["10.244.0.7".parse().unwrap(), "fd01::7".parse().unwrap()];
    let addresses = Addresses {
        host: &host,
        pod: &own,
    };
    for (path, expected) in [
        ("metadata.name", "p"),
        ("metadata.namespace", "ns"),
        ("metadata.uid", "u"),
        ("metadata.labels", "a=\"1\"\nb=\"2\""),
        (
            "metadata.annotations",
            "builder=\"john \\\"doe\\\"\\n\"\nx.y/z=\"\u{e9}\\t\"",
        ),
        ("metadata.labels['a']", "1"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations['x.y/z']", "\u{e9}\t"),
        ("spec.nodeName", "n1"),
        ("spec.serviceAccountName", "sa"),
        ("status.hostIP", "10.0.0.1"),
        ("status.hostIPs", "10.0.0.1,fd00::1"),
        ("status.podIP", "10.244.0.7"),
        ("status.podIPs", "10.244.0.7,fd01::7"),
    ] {
        assert_eq!(
            field(&pod(), path, addresses).as_deref(),
            Ok(expected),
            "{path}"
        );
    }
    for (path, expected) in [
        (
            "spec.restartPolicy",
            "unsupported fieldPath: spec.restartPolicy",
        ),
        (
            "metadata.name['a']",
            "fieldPath \"metadata.name['a']\" does not support subscript",
        ),
    ] {
        let error = field(&pod(), path, addresses).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    let unknown = field(&pod(), "status.podIP", Addresses::default());
    assert_eq!(unknown.as_deref(), Ok(""));
}

fn told(container: &str, name: &str, divisor: &str) -> Result<String, DownwardError> {
    let allocatable = [
        ("cpu", "8"),
        ("memory", "16Gi"),
        ("ephemeral-storage", "100G"),
    ];
    let allocatable = allocatable.map(|(name, amount)| (name.to_owned(), quantity(amount)));
    let reference = ResourceFieldSelector {
        container_name: Some(container.to_owned()),
        divisor: (!divisor.is_empty()).then(|| quantity(divisor)),
        resource: name.to_owned(),
    };
    resource(&pod(), None, &reference, &allocatable.into())
}

fn quantity(text: &str) -> k8s_openapi::apimachinery::pkg::api::resource::Quantity {
    k8s_openapi::apimachinery::pkg::api::resource::Quantity(text.to_owned())
}

#[test]
fn resources_round_up_to_divisors() {
    for (container, name, divisor, expected) in [
        ("c", "limits.cpu", "", "2"),
        ("c", "limits.cpu", "0", "2"),
        ("c", "limits.cpu", "1m", "1250"),
        ("c", "requests.cpu", "", "1"),
        ("c", "requests.cpu", "100m", "3"),
        ("c", "limits.memory", "", "67108864"),
        ("c", "limits.memory", "1Mi", "64"),
        ("c", "limits.memory", "1M", "68"),
        ("c", "requests.memory", "1Mi", "33"),
        ("c", "requests.ephemeral-storage", "1Mi", "1024"),
        ("c", "limits.hugepages-2Mi", "1Mi", "4"),
        ("c", "requests.hugepages-2Mi", "", "0"),
        // Nobody set these: the node's.
        ("c", "limits.ephemeral-storage", "1G", "100"),
        ("bare", "limits.cpu", "", "8"),
        ("bare", "limits.memory", "1Gi", "16"),
        ("bare", "requests.memory", "", "0"),
        ("init", "limits.cpu", "", "3"),
    ] {
        let value = told(container, name, divisor);
        assert_eq!(
            value.as_deref(),
            Ok(expected),
            "{container} {name} {divisor}"
        );
    }
}

#[test]
fn resources_that_cannot_be_told() {
    for (container, name, expected) in [
        ("none", "limits.cpu", "container none not found"),
        (
            "c",
            "limits.gpu",
            "unsupported container resource : limits.gpu",
        ),
        ("c", "cpu", "unsupported container resource : cpu"),
        (
            "c",
            "usage.cpu",
            "unsupported container resource : usage.cpu",
        ),
    ] {
        assert_eq!(told(container, name, "").unwrap_err().to_string(), expected);
    }
    assert!(matches!(
        told("c", "limits.cpu", "x"),
        Err(DownwardError::Quantity { .. })
    ));
}

#[test]
fn the_own_container_is_meant_without_a_name_and_the_pod_limits_it() {
    let mut pod = pod();
    let spec = pod.spec.as_mut().unwrap();
    spec.resources = serde_json::from_value(json!({"limits": {"cpu": "5"}})).unwrap();
    let own = spec.containers[1].clone();
    let reference = ResourceFieldSelector {
        container_name: None,
        divisor: None,
        resource: "limits.cpu".to_owned(),
    };
    let value = resource(&pod, Some(&own), &reference, &Allocatable::new());
    assert_eq!(value.as_deref(), Ok("5"));
}

#[test]
fn quotes() {
    for (text, expected) in [
        ("", r#""""#),
        ("plain", r#""plain""#),
        ("a\"b\\c", r#""a\"b\\c""#),
        ("\u{7}\u{8}\u{c}\n\r\t\u{b}", r#""\a\b\f\n\r\t\v""#),
        ("\0\u{1f}\u{7f}", r#""\x00\x1f\x7f""#),
        (
            "\u{85}\u{a0}\u{200b}\u{feff}",
            r#""\u0085\u00a0\u200b\ufeff""#,
        ),
        ("\u{e0001}", r#""\U000e0001""#),
        ("é漢🙂e\u{301}", "\"é漢🙂e\u{301}\""),
    ] {
        assert_eq!(quote(text), expected);
    }
}

/// Reads what `quote` wrote.
fn unquote(text: &str) -> Option<String> {
    let mut chars = text.strip_prefix('"')?.strip_suffix('"')?.chars();
    let mut out = String::new();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let digits = match chars.clone().next()? {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
        if digits > 0 {
            let hex: String = chars.by_ref().skip(1).take(digits).collect();
            out.push(char::from_u32(u32::from_str_radix(&hex, 16).ok()?)?);
            continue;
        }
        out.push(match chars.next()? {
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            other => other,
        });
    }
    Some(out)
}

proptest! {
    #[test]
    fn what_is_quoted_is_one_line_and_can_be_read_back(text in any::<String>()) {
        let quoted = quote(&text);
        prop_assert!(!quoted.chars().any(char::is_control));
        prop_assert_eq!(unquote(&quoted), Some(text));
    }

    #[test]
    fn labels_are_sorted_lines(map in proptest::collection::btree_map("[a-z./]{1,8}", any::<String>(), 0..8)) {
        let mut pod = Pod::default();
        pod.metadata.labels = Some(map.clone());
        let text = field(&pod, "metadata.labels", Addresses::default()).unwrap();
        let read: Vec<(String, String)> = text
            .split('\n')
            .filter(|line| !line.is_empty())
            .map(|line| {
                let (key, value) = line.split_once('=').unwrap();
                (key.to_owned(), unquote(value).unwrap())
            })
            .collect();
        prop_assert_eq!(read, map.into_iter().collect::<Vec<_>>());
    }
}
