//! The one rule of the house: `core` and `merge` are the ground; `wire` and `api` stand on them; every other room stands on those
//! four and on no other; only the root composes. Dependencies of tests are free.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

const GROUND: [&str; 2] = ["orlop-core", "orlop-merge"];
const SECOND: [&str; 2] = ["orlop-wire", "orlop-api"];
const ROOT: &str = "orlop";

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(arguments)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The packages of the house, and which of them each depends on other than for its tests.
fn house() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = cargo(&["metadata", "--no-deps", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    let own: BTreeSet<String> = packages.iter().map(name).collect();
    let dependencies = |package: &Value| {
        let all = package["dependencies"].as_array().unwrap().iter();
        all.filter(|dependency| dependency["kind"] != "dev")
            .map(name)
            .filter(|name| own.contains(name))
            .collect()
    };
    packages
        .iter()
        .map(|package| (name(package), dependencies(package)))
        .collect()
}

/// What a package of the house may depend on.
fn allowed(package: &str, house: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    if package == ROOT {
        let rooms = house.keys().filter(|name| name.starts_with("orlop-"));
        rooms.cloned().collect()
    } else if GROUND.contains(&package) || package == "xtask" {
        BTreeSet::new()
    } else if SECOND.contains(&package) {
        names(&GROUND)
    } else {
        names(&[GROUND, SECOND].concat())
    }
}

#[test]
fn every_room_stands_where_it_may() {
    let house = house();
    for needed in GROUND.iter().chain(&SECOND).chain(&[ROOT]) {
        assert!(house.contains_key(*needed), "{needed} has gone: {house:?}");
    }
    for (package, dependencies) in &house {
        let allowed = allowed(package, &house);
        let astray: Vec<_> = dependencies.difference(&allowed).collect();
        assert!(astray.is_empty(), "{package} must not depend on {astray:?}");
    }
}

#[test]
fn only_the_rooms_are_named_like_rooms() {
    for package in house().keys() {
        let room = package.strip_prefix("orlop-");
        assert!(
            room.is_some() || [ROOT, "xtask"].contains(&package.as_str()),
            "{package}"
        );
        // A room's folder is its name.
        if let Some(room) = room {
            let manifest = format!("{}/{room}/Cargo.toml", env!("CARGO_MANIFEST_DIR"));
            assert!(
                std::path::Path::new(&manifest).is_file(),
                "{manifest} is missing"
            );
        }
    }
}

/// A plug-in author compiles `core`. So nothing heavy may be in what it depends on, however far down.
#[test]
fn core_is_light() {
    let graph = cargo(&[
        "tree",
        "--locked",
        "--package",
        "orlop-core",
        "--all-features",
        "--edges",
        "normal,build",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]);
    let names: BTreeSet<&str> = graph
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(
        names.contains("serde_json"),
        "this is not the graph of core: {names:?}"
    );
    for heavy in [
        "k8s-openapi",
        "kube",
        "http",
        "hyper",
        "tonic",
        "prost",
        "tower",
        "rustls",
        "schemars",
        "regex",
    ] {
        let found = names
            .iter()
            .find(|name| **name == heavy || name.starts_with(&format!("{heavy}-")));
        assert_eq!(found, None, "core depends on it");
    }
}
