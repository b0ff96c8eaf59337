//! The same commands against a real etcd and against ours: the same answers.

use serde_json::Value;

use crate::support::{Etcd, Served, etcdctl, etcdctl_for, have};

/// What differs between any two servers.
const MASKED: [&str; 16] = [
    "cluster_id",
    "member_id",
    "raft_term",
    "raftTerm",
    "raftIndex",
    "raftAppliedIndex",
    "dbSize",
    "dbSizeInUse",
    "leader",
    "hash",
    "version",
    "Endpoint",
    "lease",
    "ID",
    "id",
    "clientURLs",
];

/// Commands, with what is on their standard input.
const SCRIPT: &[(&str, &str)] = &[
    ("put a 1", ""),
    ("put b 2 -w json", ""),
    ("put a 11 --prev-kv", ""),
    ("put a 12 --prev-kv -w json", ""),
    ("put foo/1 x", ""),
    ("put foo/2 y", ""),
    ("put new --prev-kv -w json", "value of the standard input"),
    ("get a -w json", ""),
    ("get a --rev=2 -w json", ""),
    ("get a --rev=1 -w json", ""),
    ("get foo/ --prefix -w json", ""),
    ("get foo/ --prefix --keys-only", ""),
    ("get '' --prefix --limit=2 -w json", ""),
    ("get '' --prefix --limit=100 -w json", ""),
    ("get '' --prefix --count-only -w json", ""),
    ("get '' --from-key --count-only -w json", ""),
    ("get b --from-key --limit=1 -w json", ""),
    ("get a c -w json", ""),
    ("get c a -w json", ""),
    (
        "get '' --prefix --sort-by=MODIFY --order=DESCEND -w json",
        "",
    ),
    (
        "get '' --prefix --sort-by=CREATE --order=ASCEND -w json",
        "",
    ),
    (
        "get '' --prefix --sort-by=KEY --order=DESCEND --limit=2 -w json",
        "",
    ),
    ("get a --consistency=s -w json", ""),
    ("get nope -w json", ""),
    ("get a --rev=1000", ""),
    ("get ''", ""),
    ("del foo/ --prefix --prev-kv -w json", ""),
    ("del nope -w json", ""),
    ("del x a -w json", ""),
    ("put z 1 -w json", ""),
    (
        "txn -i -w json",
        "value(\"a\") = \"12\"\nmod(\"b\") > \"1\"\n\nput k1 v1\nget k1\ndel b\nget a\n\nget a\n\n",
    ),
    (
        "txn -i -w json",
        "create(\"a\") = \"0\"\n\nput a new\n\nget a\n\n",
    ),
    (
        "txn -i -w json",
        "mod(\"z\") = \"10\"\n\nput z 2\n\nget z\n\n",
    ),
    (
        "txn -i -w json",
        "ver(\"z\") = \"2\"\n\ndel z\nput y 1\n\nget z\n\n",
    ),
    (
        "txn -i -w json",
        "ver(\"nope\") = \"0\"\n\ndel nope\nput y 2\ndel nope2\n\n\n",
    ),
    (
        "txn -i -w json",
        "val(\"nope\") < \"zzz\"\n\nput y 3\n\nget y\nget nope\n\n",
    ),
    ("txn -i -w json", "\nget a\nget y\n\n\n"),
    ("txn -i", "\nput k v\nput k w\n\n\n"),
    ("txn -i", "\nput k v\ndel k\n\n\n"),
    ("txn -i", "lease(\"y\") = 0\n\nput y 4\n\n\n"),
    ("put q --ignore-value", ""),
    ("put q v --ignore-lease", ""),
    ("put a --ignore-value", ""),
    ("put a --ignore-value --prev-kv -w json", ""),
    ("put a xx --ignore-lease", ""),
    ("compact 5 -w json", ""),
    ("compact 5", ""),
    ("compact 3", ""),
    ("compact 1000", ""),
    ("get a --rev=3", ""),
    ("get a --rev=4", ""),
    ("get a --rev=5 -w json", ""),
    ("lease grant 1 -w json", ""),
    ("lease grant 9999999999", ""),
    ("lease revoke 1234", ""),
    ("lease timetolive 1234", ""),
    ("lease keep-alive --once 1234", ""),
    ("put x y --lease=1234", ""),
    ("alarm list -w json", ""),
    ("alarm disarm", ""),
    ("move-leader 1234", ""),
    ("member remove 1234", ""),
    ("member promote 1234", ""),
    ("member update 1234 --peer-urls=http://127.0.0.1:1", ""),
    ("endpoint hashkv -w json", ""),
    ("auth disable", ""),
];

/// What is watched, after the script.
const WATCHES: &[(&str, &str)] = &[
    ("watch a --rev=5 -w json", ""),
    ("watch '' --prefix --rev=6 --prev-kv -w json", ""),
    ("watch a --rev=3", ""),
    ("watch a z --rev=8 -w json", ""),
    ("watch nope --from-key --rev=6 -w json", ""),
    (
        "watch -i -w json",
        "watch a --rev=6\nwatch foo/ --prefix --rev=6 --prev-kv\n",
    ),
];

fn mask(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if MASKED.contains(&name.as_str()) {
                    *value = Value::Null;
                } else {
                    mask(value);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(mask),
        _ => {}
    }
}

fn masked(line: &str, url: &str) -> String {
    let line = line.replace(url, "URL");
    match serde_json::from_str::<Value>(&line) {
        Ok(mut value) => {
            mask(&mut value);
            value.to_string()
        }
        Err(_) => line,
    }
}

fn answers(url: &str) -> Vec<(&'static str, Vec<String>)> {
    let said = |words: &'static str, input: &str| {
        let text = etcdctl(url, words, input);
        (words, text.lines().map(|line| masked(line, url)).collect())
    };
    SCRIPT
        .iter()
        .map(|&(words, input)| said(words, input))
        .collect()
}

/// The events of all answers to a watch, without how they were put together; and what is no answer.
fn watched(url: &str) -> Vec<(&'static str, Vec<String>)> {
    let events = |words: &'static str, input: &str| {
        let text = etcdctl_for(url, words, input, 3);
        let mut events = Vec::new();
        for line in text.lines() {
            match serde_json::from_str::<Value>(line) {
                Ok(answer) => {
                    let all = answer["Events"].as_array().cloned().unwrap_or_default();
                    events.extend(all.iter().map(Value::to_string));
                }
                Err(_) => events.push(line.to_owned()),
            }
        }
        // Of two watches, either may come first.
        if words.contains("-i") {
            events.sort();
        }
        (words, events)
    };
    WATCHES
        .iter()
        .map(|&(words, input)| events(words, input))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_those_of_etcd() {
    if !have("answers_are_those_of_etcd", &["timeout"]) {
        return;
    }
    let Some(etcd) = Etcd::start("answers_are_those_of_etcd") else {
        return;
    };
    let served = Served::start(|_| ()).await;
    let (url, theirs) = (served.url.clone(), etcd.url.clone());
    let check = move || {
        for (ours, theirs) in answers(&url).into_iter().zip(answers(&theirs)) {
            assert_eq!(ours, theirs);
        }
        for (ours, theirs) in watched(&url).into_iter().zip(watched(&theirs)) {
            assert!(!ours.1.is_empty(), "{ours:?}");
            assert_eq!(ours, theirs);
        }
    };
    tokio::task::spawn_blocking(check).await.unwrap();
    served.stop().await;
}
