use serde_json::{Value, json};

use super::{document, provider, secret};
use crate::encryption::{ConfigError, EncryptionConfiguration};

#[track_caller]
fn refused(document: &Value, message: &str) {
    match EncryptionConfiguration::from_json(document) {
        Ok(_) => panic!("accepted: {document}"),
        Err(error) => assert_eq!(error.to_string(), message),
    }
}

fn with_provider(value: Value) -> Value {
    document(&[(&["secrets"], &[value])])
}

#[test]
fn what_it_is_must_be_said() {
    let rules = document(&[(&["secrets"], &[json!({"identity": {}})])])["resources"].clone();
    refused(&json!([]), ": an object is wanted");
    refused(
        &json!({"apiVersion": "apiserver.config.k8s.io/v1"}),
        "Object 'Kind' is missing",
    );
    refused(
        &json!({"kind": "EncryptionConfiguration", "resources": rules}),
        "Object 'apiVersion' is missing",
    );
    refused(
        &json!({"apiVersion": "v1", "kind": "ConfigMap"}),
        "no kind \"ConfigMap\" is registered for version \"v1\": want EncryptionConfiguration of apiserver.config.k8s.io/v1",
    );
    let old = json!({"apiVersion": "v1", "kind": "EncryptionConfig", "resources": rules});
    assert!(EncryptionConfiguration::from_json(&old).is_ok());
}

#[test]
fn reading_is_strict() {
    refused(
        &json!({
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "EncryptionConfiguration",
            "resource": [],
            "resources": [{
                "resources": ["secrets"],
                "provider": [],
                "providers": [{"aesgcm": {"keys": [{"name": "a", "secret": secret(16, 0), "key": "b"}]}}],
            }],
        }),
        "strict decoding error: unknown field \"resource\", unknown field \"resources[0].provider\", unknown field \"resources[0].providers[0].aesgcm.keys[0].key\"",
    );
    refused(
        &json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration", "resources": {}}),
        "resources: a list is wanted",
    );
    refused(
        &with_provider(json!({"aesgcm": {"keys": [{"name": 1}]}})),
        "resources[0].providers[0].aesgcm.keys[0].name: a string is wanted",
    );
}

#[test]
fn something_must_be_said() {
    refused(
        &document(&[]),
        "resources: Required value: at least one resources is required",
    );
    refused(
        &document(&[(&[], &[])]),
        "[resources[0].resources: Required value: at least one resources[0].resources is required, resources[0].providers: Required value: at least one resources[0].providers is required]",
    );
    refused(
        &with_provider(json!({})),
        "resources[0].providers[0]: Invalid value: {}: provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity",
    );
    refused(
        &with_provider(json!({"identity": null, "aescbc": null})),
        "resources[0].providers[0]: Invalid value: {}: provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity",
    );
    refused(
        &with_provider(json!({"secretbox": {}})),
        "resources[0].providers[0].secretbox.keys: Required value: at least one keys is required",
    );
}

#[test]
fn a_provider_is_one_and_is_one_that_we_have() {
    let two = json!({"identity": {}, "aesgcm": {"keys": [{"name": "a", "secret": secret(16, 0)}]}});
    refused(
        &with_provider(two),
        "resources[0].providers[0]: Invalid value: \"REDACTED\": more than one provider specified in a single element, should split into different list elements",
    );
    let kms = json!({"kms": {"apiVersion": "v2", "name": "vault", "endpoint": "unix:///tmp/s"}});
    refused(
        &with_provider(kms),
        "resources[0].providers[0].kms: Forbidden: the KMS provider \"vault\" cannot be used: providers are aesgcm, aescbc, secretbox and identity, with their keys in this file",
    );
}

#[test]
fn keys_have_names_and_secrets_of_the_right_length() {
    refused(
        &with_provider(json!({"aescbc": {"keys": [{}]}})),
        "[resources[0].providers[0].aescbc.keys[0].name: Required value: name is a mandatory field for a key, resources[0].providers[0].aescbc.keys[0].secret: Required value: secret is a mandatory field for a key]",
    );
    refused(
        &with_provider(json!({"aesgcm": {"keys": [{"name": "a", "secret": "not base64"}]}})),
        "resources[0].providers[0].aesgcm.keys[0].secret: Invalid value: \"REDACTED\": secrets must be base64 encoded",
    );
    refused(
        &with_provider(json!({"aesgcm": {"keys": [{"name": "a", "secret": secret(15, 0)}]}})),
        "resources[0].providers[0].aesgcm.keys[0].secret: Invalid value: \"REDACTED\": secret is not of the expected length, got 15, expected one of [16 24 32]",
    );
    refused(
        &with_provider(json!({"secretbox": {"keys": [{"name": "a", "secret": secret(16, 0)}]}})),
        "resources[0].providers[0].secretbox.keys[0].secret: Invalid value: \"REDACTED\": secret is not of the expected length, got 16, expected one of [32]",
    );
    // A line break, as `base64` writes it, is passed over.
    let broken = format!("{}\n", secret(32, 0));
    let read = with_provider(json!({"secretbox": {"keys": [{"name": "a", "secret": broken}]}}));
    assert!(EncryptionConfiguration::from_json(&read).is_ok());
}

#[test]
fn names_of_resources_are_checked() {
    let at = "resources[0].resources[0]: Invalid value:";
    for (name, why) in [
        (
            "Secrets",
            "resource name should not contain capital letters",
        ),
        (
            "*",
            "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources",
        ),
        (
            "serviceipallocations",
            "resources which do not have REST API/s cannot be encrypted",
        ),
        (
            "events.events.k8s.io",
            "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file",
        ),
        (
            "deployments.extensions",
            "'extensions' group has been removed and cannot be used for encryption",
        ),
        (
            "secrets.*",
            "encrypting the same resource across groups is not supported",
        ),
    ] {
        refused(
            &document(&[(&[name], &[json!({"identity": {}})])]),
            &format!("{at} \"{name}\": {why}"),
        );
    }
}

#[test]
fn rules_do_not_overlap() {
    let identity = [json!({"identity": {}})];
    refused(
        &document(&[(&["secrets", "secrets"], &identity)]),
        "resources[0].resources: Invalid value: [\"secrets\",\"secrets\"]: the same resource cannot be specified multiple times",
    );
    let overlap = "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked";
    refused(
        &document(&[(&["secrets", "*."], &identity)]),
        &format!("resources[0].resources: Invalid value: [\"secrets\",\"*.\"]: {overlap}"),
    );
    refused(
        &document(&[(&["deployments.apps", "*.*"], &identity)]),
        &format!(
            "resources[0].resources: Invalid value: [\"deployments.apps\",\"*.*\"]: {overlap}"
        ),
    );
    for (earlier, later) in [
        ("*.", "secrets"),
        ("*.", "*."),
        ("*.apps", "deployments.apps"),
        ("*.*", "secrets"),
        ("*.*", "*.apps"),
    ] {
        refused(
            &document(&[(&[earlier], &identity), (&[later], &identity)]),
            &format!("resource {later:?} is masked by earlier rule {earlier:?}"),
        );
    }
    for (earlier, later) in [
        ("secrets", "*."),
        ("deployments.apps", "*.apps"),
        ("*.apps", "*.*"),
        ("secrets", "secrets"),
    ] {
        let fine = document(&[(&[earlier], &identity), (&[later], &identity)]);
        assert!(EncryptionConfiguration::from_json(&fine).is_ok());
    }
}

#[test]
fn no_message_and_no_debug_shows_a_secret() {
    let hidden = secret(32, 0x41);
    let good = with_provider(provider("aesgcm", &[("key1", 0x41)]));
    assert!(good.to_string().contains(&hidden));
    let read = EncryptionConfiguration::from_json(&good).unwrap();
    let shown = format!("{read:?}");
    assert!(
        shown.contains("key1") && !shown.contains(&hidden),
        "{shown}"
    );
    assert!(!shown.contains("65, 66"), "{shown}");
    let wrong = [
        json!({"aesgcm": {"keys": [{"name": "a", "secret": hidden, "x": 1}]}}),
        json!({"aesgcm": {"keys": [{"name": "a", "secret": format!("{hidden}{hidden}")}]}}),
        json!({"identity": {}, "aesgcm": {"keys": [{"name": "a", "secret": hidden}]}}),
        json!({"aesgcm": {"keys": [{"name": 3, "secret": hidden}]}}),
    ];
    for provider in wrong {
        let error: ConfigError =
            EncryptionConfiguration::from_json(&with_provider(provider)).unwrap_err();
        assert!(
            !format!("{error} {error:?}").contains(&hidden[..20]),
            "{error:?}"
        );
    }
}
