//! Encryption at rest: `orlop up` with a configuration, the real kubectl, and what is on the disk.

use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use crate::support::{Kubectl, Server, eventually, run_to_end};

/// Keys of 32 bytes.
const FIRST: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const SECOND: &str = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";
const OTHER: &str = "QEFCQ0RFRkdISUpLTE1OT1BRUlNUVVZXWFlaW1xdXl8=";

const PASSWORD: &str = "swordfish-of-the-deep";
/// As it stands in an object.
const ENCODED: &str = "c3dvcmRmaXNoLW9mLXRoZS1kZWVw";

/// A configuration for secrets with these keys of one provider.
fn write(file: &Path, provider: &str, keys: &[(&str, &str)]) {
    let keys: String = keys
        .iter()
        .map(|(name, secret)| format!("      - name: {name}\n        secret: {secret}\n"))
        .collect();
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources:\n  - secrets\n  providers:\n  - {provider}:\n      keys:\n{keys}"
    );
    std::fs::write(file, text).unwrap();
}

fn contains(directory: &Path, needle: &str) -> bool {
    std::fs::read_dir(directory).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return contains(&path, needle);
        }
        let bytes = std::fs::read(path).unwrap();
        bytes
            .windows(needle.len())
            .any(|window| window == needle.as_bytes())
    })
}

#[test]
fn secrets_are_encrypted_on_disk_and_keys_can_be_rotated() {
    if !Kubectl::is_there("secrets_are_encrypted_on_disk_and_keys_can_be_rotated") {
        return;
    }
    let directory: Arc<TempDir> = Arc::new(
        tempfile::Builder::new()
            .prefix("orlop-test-")
            .tempdir()
            .unwrap(),
    );
    let file = directory.path().join("encryption.yaml");
    let path = file.display().to_string();
    let arguments = ["--encryption-provider-config", &path, "--nodes", "0"];
    let store = directory.path().join("data/store");
    let password =
        |server: &Server| Kubectl::new(server).ok("get secret db -o 'jsonpath={.data.password}'");

    write(&file, "secretbox", &[("first", FIRST)]);
    let server = Server::start_in(&directory, &arguments);
    let kubectl = Kubectl::new(&server);
    kubectl.ok(&format!(
        "create secret generic db --from-literal=password={PASSWORD}"
    ));
    kubectl.ok("create configmap plain --from-literal=text=to-be-seen-by-all");
    assert_eq!(password(&server), ENCODED);
    assert_eq!(server.stop().code(), Some(0));
    assert!(contains(&store, "k8s:enc:secretbox:v1:first:"));
    assert!(contains(&store, "to-be-seen-by-all"));
    assert!(!contains(&store, ENCODED) && !contains(&store, PASSWORD));

    // The new key comes first, and what the old one has encrypted is rewritten.
    write(&file, "secretbox", &[("second", SECOND), ("first", FIRST)]);
    let server = Server::start_in(&directory, &arguments);
    assert_eq!(password(&server), ENCODED);
    eventually("the rewriting", || {
        server
            .stderr()
            .contains("values in the store were rewritten")
            .then_some(())
    });
    assert_eq!(server.stop().code(), Some(0));
    assert!(contains(&store, "k8s:enc:secretbox:v1:second:"));

    // Nothing needs the old one any more.
    write(&file, "secretbox", &[("second", SECOND)]);
    let server = Server::start_in(&directory, &arguments);
    assert_eq!(password(&server), ENCODED);
    assert_eq!(server.stop().code(), Some(0));

    // The wrong key, and no configuration at all: an error for secrets, and for nothing else.
    write(&file, "secretbox", &[("second", OTHER)]);
    let name = "unable to transform key \"/registry/core/secrets/default/db\"";
    for (arguments, why) in [
        (
            &arguments[..],
            "secretbox:second: cipher: message authentication failed",
        ),
        (
            &arguments[2..],
            "identity transformer tried to read encrypted data",
        ),
    ] {
        let server = Server::start_in(&directory, arguments);
        let kubectl = Kubectl::new(&server);
        for what in ["secret db", "secrets"] {
            kubectl.refused(
                &format!("get {what}"),
                &format!(
                    "Error from server (InternalError): Internal error occurred: {name}: {why}"
                ),
            );
        }
        assert!(
            kubectl
                .ok("get configmap plain -o yaml")
                .contains("to-be-seen-by-all")
        );
        assert_eq!(server.stop().code(), Some(0));
    }

    // Back with the right one, everything is there.
    write(&file, "secretbox", &[("second", SECOND)]);
    let server = Server::start_in(&directory, &arguments);
    assert_eq!(password(&server), ENCODED);
    let metrics = Kubectl::new(&server).ok("get --raw /metrics");
    let counted = "etcd_requests_total{operation=\"list\",";
    assert!(metrics.contains(counted), "{metrics}");
    assert!(metrics.ends_with("# EOF\n") && metrics.matches("# EOF").count() == 1);
}

#[test]
fn a_configuration_that_cannot_be_used_stops_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("encryption.yaml");
    write(&file, "aesgcm", &[("short", "c2hvcnQ=")]);
    let path = file.display().to_string();
    let output = run_to_end(
        &directory.path().join("data"),
        &["--encryption-provider-config", &path],
    );
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        format!(
            "orlop: --encryption-provider-config {path}: resources[0].providers[0].aesgcm.keys[0].secret: Invalid value: \"REDACTED\": secret is not of the expected length, got 5, expected one of [16 24 32]\n"
        )
    );
}
