use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

const TEXT: &str = "
apiVersion: v1
kind: Config
preferences: {colors: true}
clusters:
- name: one
  cluster: {server: https://one:6443, certificate-authority: ca.pem, tls-server-name: api}
- name: two
  cluster: {server: https://two, insecure-skip-tls-verify: true, extensions: []}
users:
- name: jane
  user: {client-certificate-data: Y2VydA==, client-key-data: a2V5}
- name: robot
  user: {token: abc, tokenFile: token}
- name: plugin
  user: {exec: {command: login}}
- name: half
  user: {client-certificate-data: Y2VydA==}
contexts:
- name: a
  context: {cluster: one, user: jane, namespace: web}
- name: b
  context: {cluster: two, user: robot}
- {name: c, context: {cluster: two, user: plugin}}
- {name: d, context: {cluster: nowhere, user: jane}}
- {name: e, context: {cluster: two, user: nobody}}
- {name: f, context: {cluster: two, user: half}}
current-context: a
";

fn message(config: &Kubeconfig, context: &str) -> String {
    config.resolve(Some(context)).unwrap_err().to_string()
}

#[test]
fn a_file_is_resolved_context_by_context() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("ca.pem"), "authorities").unwrap();
    let path = dir.path().join("config");
    fs::write(&path, TEXT).unwrap();
    let config = Kubeconfig::load(&path).unwrap();
    let a = config.resolve(None).unwrap();
    assert_eq!(
        (a.server.as_str(), a.namespace.as_str()),
        ("https://one:6443", "web")
    );
    assert_eq!(a.certificate_authority.as_deref(), Some("authorities"));
    assert_eq!(a.tls_server_name.as_deref(), Some("api"));
    let certificate = a.credentials.certificate.unwrap();
    assert_eq!(
        (certificate.certificate.as_str(), certificate.key.as_str()),
        ("cert", "key")
    );
    let b = config.resolve(Some("b")).unwrap();
    assert!(b.insecure_skip_tls_verify);
    assert_eq!(
        b.credentials.token,
        Some(Token::File(dir.path().join("token")))
    );
    assert_eq!(b.namespace, "default");

    assert_eq!(
        message(&config, "c"),
        "invalid configuration: user \"plugin\": exec is not supported"
    );
    assert_eq!(
        message(&config, "d"),
        "invalid configuration: cluster \"nowhere\" does not exist"
    );
    assert_eq!(
        message(&config, "e"),
        "invalid configuration: auth info \"nobody\" does not exist"
    );
    assert!(
        message(&config, "f").contains("client-key-data or client-key must be specified for half")
    );
    assert_eq!(
        message(&config, "x"),
        "invalid configuration: context was not found for specified context: x"
    );
    fs::remove_file(dir.path().join("ca.pem")).unwrap();
    assert!(matches!(config.resolve(None), Err(Error::File { .. })));
}

#[test]
fn what_is_not_known_is_kept() {
    let config = Kubeconfig::parse(TEXT, None).unwrap();
    assert_eq!(Kubeconfig::parse(&config.to_yaml(), None).unwrap(), config);
    assert!(
        config.to_yaml().contains("colors: true") && config.to_yaml().contains("command: login")
    );
    assert!(!format!("{config:?}").contains("abc"), "no secrets in logs");
    assert!(Kubeconfig::parse("kind: Pod", None).is_err());
    assert!(Kubeconfig::parse("clusters: [{name: a}, {name: a}]", None).is_err());
    assert!(Kubeconfig::parse("clusters: {", None).is_err());
    assert_eq!(Kubeconfig::parse("", None).unwrap(), Kubeconfig::default());
}

#[test]
fn several_files_are_read_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("1"), dir.path().join("2"));
    fs::write(
        &first,
        "clusters: [{name: one, cluster: {server: https://other}}]",
    )
    .unwrap();
    fs::write(&second, TEXT).unwrap();
    let paths = [dir.path().join("missing"), first, second];
    let config = Kubeconfig::load_merged(&paths).unwrap();
    assert_eq!(config.resolve(None).unwrap().server, "https://other");
    assert!(Kubeconfig::load_merged(&paths[..1]).is_err());
}

#[test]
fn what_is_written_is_secret_and_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kube/config");
    let pair = KeyAndCertificate {
        certificate: "cert".to_owned(),
        key: "key".to_owned(),
    };
    let credentials = Credentials {
        certificate: Some(pair),
        token: Some(Token::Text("t".to_owned())),
    };
    let config = Kubeconfig::for_cluster("c", "https://h:1", Some("ca"), "u", &credentials);
    config.store(&path).unwrap();
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let read = Kubeconfig::load(&path).unwrap();
    assert_eq!(read, config);
    let resolved = read.resolve(Some("u@c")).unwrap();
    assert_eq!(resolved.credentials, credentials);
    assert_eq!(resolved.certificate_authority.as_deref(), Some("ca"));
}

#[test]
fn a_pod_finds_its_service_account() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        ClientConfig::from_service_account("h", "1", dir.path()),
        Err(Error::File { .. })
    ));
    for (name, text) in [("token", "t"), ("ca.crt", "ca"), ("namespace", "web\n")] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let config = ClientConfig::from_service_account("fd00::1", "443", dir.path()).unwrap();
    assert_eq!(
        (config.server.as_str(), config.namespace.as_str()),
        ("https://[fd00::1]:443", "web")
    );
    assert_eq!(
        config.credentials.token,
        Some(Token::File(dir.path().join("token")))
    );
}
