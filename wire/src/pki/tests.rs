use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::*;
use crate::Error;

const DAY: Duration = Duration::from_secs(86_400);

fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn authority() -> CertificateAuthority {
    CertificateAuthority::create("test-ca", now(), DAY * 3650).unwrap()
}

#[test]
fn a_client_certificate_carries_user_and_groups_and_is_believed() {
    let ca = authority();
    let groups = ["system:masters", "developers", "grüppe"];
    let client = ca.issue_client("jane", groups, now(), DAY).unwrap();
    let verifier = ClientVerifier::from_pem(ca.certificate_pem()).unwrap();
    let identity = verifier.verify(&client.chain().unwrap(), now()).unwrap();
    assert_eq!(identity.common_name, "jane");
    assert_eq!(identity.organizations, groups);
    assert_eq!(identity.not_after, now() + DAY);
    assert_eq!(identity.not_before, now() - Duration::from_secs(300));
    assert_eq!(identity.fingerprint.len(), 64);
    assert!(ca.signed(&client.chain().unwrap()[0]));

    let nobody = ca
        .issue_client("solo", Vec::<String>::new(), now(), DAY)
        .unwrap();
    assert!(
        verifier
            .verify(&nobody.chain().unwrap(), now())
            .unwrap()
            .organizations
            .is_empty()
    );
}

#[test]
fn strangers_servers_and_the_expired_are_not_believed() {
    let ca = authority();
    let verifier = ClientVerifier::from_pem(ca.certificate_pem()).unwrap();
    let refused = |pair: &KeyAndCertificate, at: Timestamp| {
        matches!(
            verifier.verify(&pair.chain().unwrap(), at),
            Err(Error::NotTrusted(_))
        )
    };
    let good = ca.issue_client("jane", ["a", "b"], now(), DAY).unwrap();
    assert!(!refused(&good, now()));
    assert!(refused(&good, now() + DAY * 2), "expired");
    assert!(refused(&good, now() - DAY), "not yet valid");
    assert!(
        refused(
            &authority().issue_client("jane", ["a"], now(), DAY).unwrap(),
            now()
        ),
        "another authority"
    );
    let server = ca
        .issue_server("x", ["localhost".into()], now(), DAY)
        .unwrap();
    assert!(
        refused(&server, now()),
        "a server's certificate is not a client's"
    );
    assert!(matches!(
        verifier.verify(&[], now()),
        Err(Error::NotTrusted(_))
    ));
}

#[test]
fn nothing_outlives_its_authority() {
    let ca = CertificateAuthority::create("short", now(), DAY).unwrap();
    let client = ca.issue_client("jane", ["a"], now(), DAY * 30).unwrap();
    let identity = CertificateIdentity::from_pem(&client.certificate).unwrap();
    assert_eq!(identity.not_after, ca.identity().not_after);
}

#[test]
fn an_authority_comes_back_from_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = (dir.path().join("ca.crt"), dir.path().join("ca.key"));
    let ca = authority();
    ca.store(&certificate, &key).unwrap();
    assert_eq!(
        fs::metadata(&key).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let again = CertificateAuthority::load(&certificate, &key).unwrap();
    assert_eq!(again.identity(), ca.identity());
    let client = again.issue_client("jane", ["a", "b"], now(), DAY).unwrap();
    assert!(
        ClientVerifier::from_pem(ca.certificate_pem())
            .unwrap()
            .verify(&client.chain().unwrap(), now())
            .is_ok()
    );

    let other = authority();
    other
        .store(&dir.path().join("other.crt"), &dir.path().join("other.key"))
        .unwrap();
    let mixed = CertificateAuthority::load(&certificate, &dir.path().join("other.key"));
    assert!(matches!(mixed, Err(Error::Mismatch(_))));
    assert!(matches!(
        CertificateAuthority::from_pem("nonsense", "nonsense"),
        Err(Error::Pem { .. })
    ));
    let leaf = CertificateAuthority::from_pem(&client.certificate, &client.key);
    assert!(
        matches!(leaf, Err(Error::Certificate(_))),
        "a leaf is no authority"
    );
}

#[test]
fn old_forms_of_keys_are_read() {
    // The SEC 1 form is what stands inside of PKCS #8, behind the algorithm.
    let pair = SigningKeyPair::create().unwrap();
    let pkcs8 = private_key_from_pem("key", pair.key.as_bytes()).unwrap();
    let bytes = pkcs8.secret_der();
    let at = bytes.windows(4).position(|w| w == [2, 1, 1, 4]).unwrap() - 2;
    use base64::Engine as _;
    let sec1 = base64::engine::general_purpose::STANDARD.encode(&bytes[at..]);
    let pem = format!("-----BEGIN EC PRIVATE KEY-----\n{sec1}\n-----END EC PRIVATE KEY-----\n");
    assert_eq!(
        SigningKeyPair::from_pem("key", &pem).unwrap().public,
        pair.public
    );
    assert!(pair.public.starts_with("-----BEGIN PUBLIC KEY-----"));
}

fn read(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap()
}

#[test]
fn a_directory_is_filled_once_and_renewed_where_needed() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let options = ClusterPkiOptions::new().server_name("192.0.2.7");
    let first = ClusterPki::load_or_create(dir, &options, now()).unwrap();
    let server = CertificateIdentity::from_pem(&first.server.certificate).unwrap();
    for name in [
        "localhost",
        "127.0.0.1",
        "192.0.2.7",
        "kubernetes.default.svc",
        "10.96.0.1",
    ] {
        assert!(server.covers([name]), "{name}");
    }
    assert!(!server.covers(["example.org"]));
    let admin = CertificateIdentity::from_pem(&first.admin.certificate).unwrap();
    assert_eq!(
        (admin.common_name.as_str(), admin.organizations),
        ("kubernetes-admin", vec!["system:masters".to_owned()])
    );
    for key in [
        files::CA_KEY,
        files::SERVER_KEY,
        files::SERVICE_ACCOUNT_KEY,
        files::ADMIN_KEY,
    ] {
        assert_eq!(
            fs::metadata(dir.join(key)).unwrap().permissions().mode() & 0o777,
            0o600,
            "{key}"
        );
    }

    let same = ClusterPki::load_or_create(dir, &options, now() + DAY).unwrap();
    assert_eq!(
        (&same.server, &same.admin, &same.service_account),
        (&first.server, &first.admin, &first.service_account)
    );
    assert_eq!(
        same.authority.certificate_pem(),
        first.authority.certificate_pem()
    );

    // A new name: the server's certificate alone is new.
    let options = options.server_name("api.example.org");
    let named = ClusterPki::load_or_create(dir, &options, now() + DAY).unwrap();
    assert_ne!(named.server, first.server);
    assert_eq!(named.admin, first.admin);

    // Another administrator.
    let options = options.admin("root", ["kubeadm:cluster-admins", "x"]);
    let other = ClusterPki::load_or_create(dir, &options, now() + DAY).unwrap();
    assert_eq!(other.server, named.server);
    assert_ne!(other.admin, first.admin);

    // Near the end all that was issued is new; the authority and the service account key stay.
    let late = ClusterPki::load_or_create(dir, &options, now() + DAY * 300).unwrap();
    assert_ne!(late.server, named.server);
    assert_ne!(late.admin, other.admin);
    assert_eq!(
        late.authority.certificate_pem(),
        first.authority.certificate_pem()
    );
    assert_eq!(late.service_account, first.service_account);

    // Damage is repaired where that costs nobody's trust.
    fs::write(dir.join(files::SERVER_CERTIFICATE), "garbage").unwrap();
    fs::remove_file(dir.join(files::SERVICE_ACCOUNT_PUBLIC)).unwrap();
    ClusterPki::load_or_create(dir, &options, now() + DAY * 300).unwrap();
    assert!(CertificateIdentity::from_pem(&read(dir, files::SERVER_CERTIFICATE)).is_ok());
    assert_eq!(
        read(dir, files::SERVICE_ACCOUNT_PUBLIC),
        first.service_account.public
    );
    // A start that was cut short between key and certificate.
    fs::remove_file(dir.join(files::CA_CERTIFICATE)).unwrap();
    let revived = ClusterPki::load_or_create(dir, &options, now() + DAY * 300).unwrap();
    assert!(revived.authority.signed(&revived.admin.chain().unwrap()[0]));
    // But not where it does.
    fs::remove_file(dir.join(files::CA_KEY)).unwrap();
    assert!(matches!(
        ClusterPki::load_or_create(dir, &options, now()),
        Err(Error::Pem { .. })
    ));
}

#[test]
fn an_expired_authority_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = ClusterPkiOptions::new();
    options.authority_validity = DAY * 100;
    let first = ClusterPki::load_or_create(dir.path(), &options, now()).unwrap();
    // What ends with the authority is not issued anew again and again.
    let again = ClusterPki::load_or_create(dir.path(), &options, now() + DAY * 50).unwrap();
    assert_eq!(again.server, first.server);
    let late = ClusterPki::load_or_create(dir.path(), &options, now() + DAY * 101);
    assert!(matches!(late, Err(Error::AuthorityNotValid(_))));
}
