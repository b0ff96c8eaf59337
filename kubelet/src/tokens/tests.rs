use std::future::Future;

use async_trait::async_trait;
use orlop_core::client::{Operation, Request};
use orlop_core::env::SimEnv;
use orlop_core::object::Object;

use super::*;

/// An API that gives numbered tokens, unless it is down.
struct Issuer {
    env: Env,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    down: bool,
    asked: Vec<(String, Value)>,
}

#[async_trait]
impl Client for Issuer {
    async fn call(&self, request: Request) -> Result<Answer, Status> {
        let mut state = self.state.lock();
        if state.down {
            return Err(Status::unavailable("down"));
        }
        let Operation::Create(mut body, _) = request.operation else {
            return Err(Status::method_not_allowed());
        };
        let target = request.target;
        let path = [
            target.namespace,
            Some(target.resource.plural.into_owned()),
            target.name,
            target.subresource,
        ];
        let path: Vec<String> = path.into_iter().flatten().collect();
        state.asked.push((path.join("/"), body["spec"].clone()));
        let lifetime = body["spec"]["expirationSeconds"].as_i64().unwrap();
        let expires = self.env.wall() + SignedDuration::from_secs(lifetime);
        body["metadata"] = json!({"name": "sa"});
        body["status"] = json!({
            "token": format!("t{}", state.asked.len()),
            "expirationTimestamp": expires.to_string(),
        });
        Ok(Answer::Object(Object::from_value(body).unwrap()))
    }
}

fn run<F: Future<Output = ()> + Send + 'static>(
    test: impl FnOnce(Env, Arc<Issuer>, TokenManager) -> F,
) {
    let sim = SimEnv::new(5);
    let env = sim.env();
    let issuer = Arc::new(Issuer {
        env: env.clone(),
        state: Mutex::default(),
    });
    let manager = TokenManager::new(issuer.clone(), env.clone());
    sim.block_on(test(env, issuer, manager));
}

fn wanted(audience: &str, uid: &str, expiration_seconds: i64) -> TokenRequest {
    TokenRequest {
        namespace: "ns".to_owned(),
        service_account: "sa".to_owned(),
        audience: audience.to_owned(),
        expiration_seconds,
        pod_name: "p".to_owned(),
        pod_uid: uid.to_owned(),
    }
}

async fn text(manager: &TokenManager, request: &TokenRequest) -> String {
    manager.token(request).await.unwrap().reveal().to_owned()
}

#[test]
fn a_token_is_bound_to_its_pod_and_kept() {
    run(|_, issuer, manager| async move {
        let (own, other) = (wanted("", "u", 3600), wanted("vault", "u", 3600));
        assert_eq!(text(&manager, &own).await, "t1");
        assert_eq!(text(&manager, &own).await, "t1");
        assert_eq!(text(&manager, &other).await, "t2");
        assert_eq!(text(&manager, &wanted("", "v", 3600)).await, "t3");
        let asked = issuer.state.lock().asked.clone();
        assert_eq!(asked[0].0, "ns/serviceaccounts/sa/token");
        let expected = json!({
            "audiences": [], "expirationSeconds": 3600,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"},
        });
        assert_eq!(asked[0].1, expected);
        assert_eq!(asked[1].1["audiences"], json!(["vault"]));
        manager.forget_pod("u");
        assert_eq!(text(&manager, &own).await, "t4");
        assert_eq!(text(&manager, &wanted("", "v", 3600)).await, "t3");
        assert!(!format!("{:?}", manager.token(&own).await).contains("t4"));
    });
}

#[test]
fn a_token_is_renewed_at_four_fifths_of_its_life_or_after_a_day() {
    for (lifetime, due) in [(3600, 2880), (600, 480), (7 * 86400, 86400)] {
        run(move |env, _, manager| async move {
            let request = wanted("", "u", lifetime);
            assert_eq!(text(&manager, &request).await, "t1");
            env.sleep(Duration::from_secs(due - 10)).await;
            assert_eq!(text(&manager, &request).await, "t1", "{lifetime}");
            env.sleep(Duration::from_secs(10)).await;
            assert_eq!(text(&manager, &request).await, "t2", "{lifetime}");
        });
    }
}

#[test]
fn an_outage_is_survived_while_the_token_is_valid() {
    run(|env, issuer, manager| async move {
        let request = wanted("", "u", 3600);
        issuer.state.lock().down = true;
        let error = manager.token(&request).await.unwrap_err();
        assert_eq!(error.to_string(), "failed to fetch token: down");
        issuer.state.lock().down = false;
        assert_eq!(text(&manager, &request).await, "t1");
        issuer.state.lock().down = true;
        env.sleep(Duration::from_secs(3500)).await;
        assert_eq!(text(&manager, &request).await, "t1");
        env.sleep(Duration::from_secs(101)).await;
        let error = manager.token(&request).await.unwrap_err();
        let expected = "token ns/sa expired and refresh failed: down";
        assert_eq!(error.to_string(), expected);
        issuer.state.lock().down = false;
        assert_eq!(text(&manager, &request).await, "t2");
    });
}
