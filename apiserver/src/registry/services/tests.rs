use std::collections::BTreeSet;

use orlop_core::env::SimEnv;

use super::*;

fn allocator() -> ServiceAllocator {
    let range = ServiceRange {
        prefix: 29,
        node_ports: 30_000..=30_001,
        ..ServiceRange::default()
    };
    ServiceAllocator::new(SimEnv::new(1).env(), range)
}

fn service(spec: Value) -> Value {
    json!({"metadata": {"name": "s"}, "spec": spec})
}

#[test]
fn every_address_is_given_once_and_comes_back() {
    let allocator = allocator();
    let mut claims = Vec::new();
    let mut seen = BTreeSet::new();
    // .1 is the API server's, .0 and .7 are not given out.
    for _ in 0..5 {
        let (mut claim, mut one) = (allocator.empty_claim(), service(json!({})));
        allocator
            .assign(&mut one, &Value::Null, &mut claim)
            .unwrap();
        assert!(seen.insert(one["spec"]["clusterIP"].to_string()));
        claims.push(claim);
    }
    let (mut claim, mut one) = (allocator.empty_claim(), service(json!({})));
    assert!(
        allocator
            .assign(&mut one, &Value::Null, &mut claim)
            .is_err()
    );
    drop(claims.pop());
    assert!(allocator.assign(&mut one, &Value::Null, &mut claim).is_ok());
}

#[test]
fn an_address_of_ones_own_must_be_free_and_in_the_range() {
    let allocator = allocator();
    let ask = |ip: &str| {
        let mut claim = allocator.empty_claim();
        let outcome = allocator.assign(
            &mut service(json!({"clusterIP": ip})),
            &Value::Null,
            &mut claim,
        );
        claim.keep();
        outcome.map_err(|status| status.message)
    };
    assert!(ask("10.96.0.3").is_ok());
    assert!(
        ask("10.96.0.3")
            .unwrap_err()
            .ends_with("provided IP is already allocated")
    );
    assert_eq!(
        ask("192.168.1.1").unwrap_err(),
        "Service \"s\" is invalid: spec.clusterIPs: Invalid value: [\"192.168.1.1\"]: failed to allocate IP 192.168.1.1: the \
         provided network does not match the current range"
    );
}

#[test]
fn what_is_in_doubt_stays_taken_until_it_is_known_whose_it_is() {
    let allocator = allocator();
    let claim = |ip: &str| {
        let (mut claim, mut one) = (allocator.empty_claim(), service(json!({"clusterIP": ip})));
        let outcome = allocator.assign(&mut one, &Value::Null, &mut claim);
        (claim, outcome.is_ok())
    };
    let (mut lost, free) = claim("10.96.0.2");
    assert!(free);
    lost.begin_write();
    drop(lost);
    let (mut written, free) = claim("10.96.0.3");
    assert!(free);
    written.begin_write();
    drop(written);
    let services = [Object::from_value(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"clusterIP": "10.96.0.3"},
    }))
    .unwrap()];
    allocator.settle(&services);
    assert!(!claim("10.96.0.2").1, "its write may still be under way");
    allocator.settle(&services);
    assert!(claim("10.96.0.2").1);
    assert!(!claim("10.96.0.3").1);
    let (mut refused, _) = claim("10.96.0.4");
    refused.begin_write();
    refused.refused();
    assert!(claim("10.96.0.4").1);
}

#[test]
fn node_ports_are_kept_over_an_update_and_given_back() {
    let allocator = allocator();
    let mut old = service(json!({"type": "NodePort", "ports": [{"port": 80}, {"port": 443}]}));
    let mut claim = allocator.empty_claim();
    allocator
        .assign(&mut old, &Value::Null, &mut claim)
        .unwrap();
    claim.keep();
    assert_eq!(ports_of(&old), [30_000, 30_001]);
    let mut new = old.clone();
    new["spec"]["ports"].as_array_mut().unwrap().pop();
    let mut claim = allocator.empty_claim();
    allocator.assign(&mut new, &old, &mut claim).unwrap();
    claim.released.ports = vec![
        ports_of(&old)
            .into_iter()
            .find(|port| !ports_of(&new).contains(port))
            .unwrap(),
    ];
    claim.keep();
    let mut third = service(json!({"type": "NodePort", "ports": [{"port": 1}]}));
    let mut claim = allocator.empty_claim();
    assert!(
        allocator
            .assign(&mut third, &Value::Null, &mut claim)
            .is_ok()
    );
}
