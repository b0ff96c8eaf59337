//! What is stored and cannot be read.

use orlop_core::store::{KeyRange, RangeRequest, Store, Txn};
use orlop_store::encryption::{EncryptedStore, EncryptionConfiguration};

use super::*;

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const STORED: &str = "/registry/core/secrets/default/db";

/// Encryption of secrets with one key of AES-GCM.
fn key(name: &str, secret: &str) -> EncryptionConfiguration {
    let keys = json!([{"name": name, "secret": secret}]);
    EncryptionConfiguration::from_json(&json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["secrets"], "providers": [{"aesgcm": {"keys": keys}}]}],
    }))
    .unwrap()
}

const RIGHT: &str = "AAECAwQFBgcICQoLDA0ODw==";
const WRONG: &str = "AAECAwQFBgcICQoLDA0OEA==";

async fn start(env: &Env, store: &Arc<EncryptedStore>) -> Cluster {
    let api = ApiServer::builder(store.clone(), env.clone())
        .with_defaults()
        .start()
        .await
        .unwrap();
    let api = Arc::new(api);
    let admin = UserInfo::new("admin", [SYSTEM_MASTERS, ALL_AUTHENTICATED]);
    let service = api.service_as(admin);
    Cluster {
        env: env.clone(),
        api,
        service,
    }
}

fn secret(name: &str) -> Value {
    json!({"metadata": {"name": name}, "stringData": {"password": "swordfish"}})
}

#[test]
fn a_kind_that_cannot_be_read_answers_so_and_nothing_else_does() {
    let sim = SimEnv::new(3);
    let env = sim.env();
    sim.block_on(async move {
        let inner: Arc<dyn Store> = Arc::new(MemoryStore::new(env.clone()));
        let store = Arc::new(EncryptedStore::new(inner.clone(), &key("a", RIGHT)));
        let cluster = start(&env, &store).await;
        cluster.post(SECRETS, &secret("db")).await.expect(201);
        cluster
            .post(CONFIG_MAPS, &config_map("plain", json!({})))
            .await
            .expect(201);
        let stored = inner.range(RangeRequest::new(KeyRange::key(STORED))).await;
        assert!(
            stored.unwrap().items[0]
                .value
                .starts_with(b"k8s:enc:aesgcm:v1:a:")
        );
        assert!(cluster.api.unreadable().is_empty());
        cluster.api.shutdown().await;

        // A start with the wrong key.
        store.reload(&key("a", WRONG));
        let cluster = start(&env, &store).await;
        let why = format!(
            "unable to transform key \"{STORED}\": aesgcm:a: cipher: message authentication failed"
        );
        let said = cluster.api.unreadable();
        assert_eq!(said.len(), 1);
        assert_eq!((said[0].0.as_str(), &*said[0].1), ("secrets", why.as_str()));
        let one = format!("{SECRETS}/db");
        for path in [
            one.as_str(),
            SECRETS,
            "/api/v1/secrets",
            "/api/v1/secrets?watch=1",
        ] {
            let answer = cluster.get(path).await;
            assert_eq!(
                answer.refused(500),
                format!("Internal error occurred: {why}")
            );
            assert_eq!(answer.json()["reason"], "InternalError");
        }
        let patch = json!({"data": {"a": "Yg=="}});
        assert_eq!(
            cluster.patch(&one, MERGE, &patch).await.refused(500),
            format!("Internal error occurred: {why}")
        );
        let map = format!("{CONFIG_MAPS}/plain");
        let mut watch = cluster.watch(&format!("{CONFIG_MAPS}?watch=1")).await;
        while watch.brief().await.1 != "plain" {}
        cluster
            .patch(&map, MERGE, &json!({"data": {"b": "2"}}))
            .await
            .expect(200);
        assert_eq!(
            watch.brief().await,
            ("MODIFIED".to_owned(), "plain".to_owned())
        );

        // The right one comes back, and nobody else notices.
        store.reload(&key("a", RIGHT));
        env.sleep(Duration::from_secs(11)).await;
        assert!(cluster.api.unreadable().is_empty());
        assert_eq!(
            cluster.get(&one).await.expect(200)["data"]["password"],
            "c3dvcmRmaXNo"
        );
        cluster.patch(&one, MERGE, &patch).await.expect(200);
        cluster
            .patch(&map, MERGE, &json!({"data": {"b": "3"}}))
            .await
            .expect(200);
        assert_eq!(
            watch.brief().await,
            ("MODIFIED".to_owned(), "plain".to_owned())
        );
        cluster.api.shutdown().await;
    });
}

#[test]
fn a_value_that_is_damaged_while_the_server_runs_stops_its_kind_alone() {
    let sim = SimEnv::new(4);
    let env = sim.env();
    sim.block_on(async move {
        let inner: Arc<dyn Store> = Arc::new(MemoryStore::new(env.clone()));
        let store = Arc::new(EncryptedStore::new(inner.clone(), &key("a", RIGHT)));
        let cluster = start(&env, &store).await;
        cluster.post(SECRETS, &secret("db")).await.expect(201);
        cluster.post(SECRETS, &secret("other")).await.expect(201);
        inner
            .commit(Txn::put(STORED, "k8s:enc:aesgcm:v1:a:damaged"))
            .await
            .unwrap();
        env.sleep(Duration::from_secs(1)).await;
        assert_eq!(
            cluster.get(SECRETS).await.refused(500),
            format!(
                "Internal error occurred: unable to transform key \"{STORED}\": aesgcm:a: the stored data was shorter than the required size"
            )
        );
        assert_eq!(cluster.get(CONFIG_MAPS).await.code, 200);
        // Somebody repairs it.
        let keys = KeyRange::key(STORED);
        let txn = Txn {
            compare: Vec::new(),
            ops: vec![orlop_core::store::Op::Delete(keys)],
        };
        inner.commit(txn).await.unwrap();
        env.sleep(Duration::from_secs(15)).await;
        assert_eq!(names(&cluster.get(SECRETS).await.expect(200)), ["other"]);
        cluster.api.shutdown().await;
    });
}
