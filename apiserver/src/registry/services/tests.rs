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
    json!({"metadata": {"name": "s", "namespace": "default"}, "spec": spec})
}

/// What a Service gets beside those that have something.
fn assign(
    allocator: &ServiceAllocator,
    service: &mut Value,
    old: &Value,
    others: &BTreeSet<Lot>,
) -> Result<Claim, String> {
    let mut claim = Claim::of(service);
    let taken = |lot| others.contains(&lot);
    match allocator.assign(service, old, &taken, &mut claim) {
        Ok(()) => Ok(claim),
        Err(trouble) => Err(Status::from(trouble).message),
    }
}

fn given(claim: &Claim) -> Vec<Lot> {
    claim.given.iter().map(|given| given.lot).collect()
}

#[test]
fn every_address_is_given_once() {
    let allocator = allocator();
    let mut others = BTreeSet::new();
    // .1 is the API server's, .0 and .7 are not given out.
    for _ in 0..5 {
        let mut one = service(json!({}));
        let claim = assign(&allocator, &mut one, &Value::Null, &others).unwrap();
        let ip: Ipv4Addr = one["spec"]["clusterIP"].as_str().unwrap().parse().unwrap();
        assert_eq!(given(&claim), [Lot::Address(ip)]);
        assert!(others.insert(Lot::Address(ip)));
    }
    let full = assign(&allocator, &mut service(json!({})), &Value::Null, &others);
    assert_eq!(
        full.unwrap_err(),
        "Internal error occurred: failed to allocate a serviceIP: range 10.96.0.0/29 is full"
    );
}

#[test]
fn an_address_of_ones_own_must_be_in_the_range_and_the_store_says_whether_it_is_free() {
    let allocator = allocator();
    let ask = |ip: &str| {
        assign(
            &allocator,
            &mut service(json!({"clusterIP": ip})),
            &Value::Null,
            &BTreeSet::new(),
        )
    };
    let claim = ask("10.96.0.3").unwrap();
    let kv = |key: String, value: &str| orlop_core::store::KeyValue {
        key: key.into(),
        value: value.to_owned().into(),
        create_revision: orlop_core::revision::Revision(2),
        mod_revision: orlop_core::revision::Revision(2),
        version: 1,
        lease: None,
    };
    let stands = kv(given(&claim)[0].key(), "{}");
    let mut tried = BTreeSet::new();
    assert!(claim.lost(&[None, None], &mut tried).is_ok());
    assert_eq!(
        claim
            .lost(&[None, Some(stands.clone())], &mut tried)
            .unwrap_err()
            .message,
        "Service \"s\" is invalid: spec.clusterIPs: Invalid value: [\"10.96.0.3\"]: failed to allocate IP 10.96.0.3: provided \
         IP is already allocated"
    );
    assert!(tried.is_empty());
    // One that was not asked for is not tried again.
    let mut any = service(json!({}));
    let claim = assign(&allocator, &mut any, &Value::Null, &BTreeSet::new()).unwrap();
    assert!(claim.lost(&[None, Some(stands)], &mut tried).is_ok());
    assert_eq!(tried.into_iter().collect::<Vec<_>>(), given(&claim));
    assert_eq!(
        ask("192.168.1.1").unwrap_err(),
        "Service \"s\" is invalid: spec.clusterIPs: Invalid value: [\"192.168.1.1\"]: failed to allocate IP 192.168.1.1: the \
         provided network does not match the current range"
    );
}

#[test]
fn a_lot_tells_whose_it_is() {
    let of = |lot: Lot, value: Value| lot.holder(value.to_string().as_bytes());
    let (ip, port) = (Lot::Address(Ipv4Addr::new(10, 96, 0, 9)), Lot::Port(30_000));
    assert_eq!(
        ip.key(),
        "/registry/networking.k8s.io/ipaddresses/10.96.0.9"
    );
    assert_eq!(port.key(), "/registry/ranges/servicenodeports/30000");
    let reference = json!({"resource": "services", "namespace": "a", "name": "b"});
    let holder = Some(("a".to_owned(), "b".to_owned()));
    assert_eq!(
        of(ip, json!({"spec": {"parentRef": reference.clone()}})),
        holder
    );
    assert_eq!(of(port, reference), holder);
    let gateway =
        json!({"spec": {"parentRef": {"resource": "gateways", "namespace": "a", "name": "b"}}});
    assert_eq!(of(ip, gateway), None);
    assert_eq!(port.holder(b"half"), None);
}

#[test]
fn node_ports_are_kept_over_an_update() {
    let allocator = allocator();
    let mut old = service(json!({"type": "NodePort", "ports": [{"port": 80}, {"port": 443}]}));
    let claim = assign(&allocator, &mut old, &Value::Null, &BTreeSet::new()).unwrap();
    assert_eq!(ports_of(&old), [30_000, 30_001]);
    assert_eq!(claim.given.len(), 3);
    let others: BTreeSet<Lot> = given(&claim).into_iter().collect();
    let mut new = old.clone();
    new["spec"]["ports"].as_array_mut().unwrap().pop();
    let claim = assign(&allocator, &mut new, &old, &others).unwrap();
    assert!(claim.given.is_empty());
    let ports = new["spec"]["ports"].as_array_mut().unwrap();
    ports.push(json!({"port": 8080}));
    let full = assign(&allocator, &mut new, &old, &others).unwrap_err();
    assert!(full.ends_with("failed to allocate a nodePort: range is full"));
}

#[test]
fn a_port_that_a_service_names_is_not_chosen_for_it_as_well() {
    let allocator = allocator();
    for named in [30_000, 30_001] {
        let ports = json!([{"port": 80}, {"port": 443, "nodePort": named}]);
        let mut one = service(json!({"type": "NodePort", "ports": ports}));
        let _ = assign(&allocator, &mut one, &Value::Null, &BTreeSet::new()).unwrap();
        assert_eq!(ports_of(&one), [30_000, 30_001]);
    }
}
