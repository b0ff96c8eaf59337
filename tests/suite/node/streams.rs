//! kubectl logs, exec, attach, cp, port-forward, debug.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::Stdio;

use serde_json::json;

use super::{pod, web};
use crate::support::{IMAGE, Machine, eventually, page};

#[test]
fn logs_exec_attach_copy_forward_and_debug() {
    let Some(machine) = Machine::start("logs_exec_attach_copy_forward_and_debug", 1, &[]) else {
        return;
    };
    let kubectl = machine.kubectl();
    let script =
        "echo one; echo two >&2; echo three; while read line; do echo got $line; done; sleep 1000";
    let mut talker = pod("talker", script);
    talker["spec"]["containers"][0]["stdin"] = json!(true);
    let crasher = pod(
        "crasher",
        "if [ -e /state/ran ]; then echo second; sleep 1000; fi; touch /state/ran; echo first; exit 3",
    );
    let mut crasher = crasher;
    crasher["spec"]["volumes"] = json!([{"name": "state", "emptyDir": {}}]);
    crasher["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "state", "mountPath": "/state"}]);
    kubectl.file("talker.json", &talker.to_string());
    kubectl.file("crasher.json", &crasher.to_string());
    kubectl.file("web.json", &web("web", 1).to_string());
    kubectl.ok("apply -f talker.json -f crasher.json -f web.json");
    kubectl.ok("wait --for=condition=Ready pod/talker --timeout=80s");

    // Logs. The two outputs come by pipes of their own: in which order, nobody promises.
    kubectl.until("logs talker", |out| {
        let mut lines: Vec<&str> = out.lines().collect();
        lines.sort_unstable();
        lines == ["one", "three", "two"]
    });
    let last = kubectl.ok("logs talker --tail=1");
    assert!(kubectl.ok("logs talker").ends_with(&last) && last.lines().count() == 1);
    assert_eq!(
        kubectl.ok("logs talker -c main --limit-bytes=3"),
        kubectl.ok("logs talker")[..3]
    );
    let stamped = kubectl.ok("logs talker --timestamps --tail=1");
    assert!(
        stamped.ends_with(&format!("Z {last}")) && stamped.starts_with("20"),
        "{stamped}"
    );
    assert!(
        kubectl
            .fails("logs talker -c nobody")
            .contains("container nobody is not valid for pod talker")
    );
    let mut follow = kubectl
        .command("logs talker --follow --tail=0")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut followed = BufReader::new(follow.stdout.take().unwrap());

    // Attach: the program reads what is typed, and what it says is seen there and in the log.
    let mut attach = kubectl
        .command("attach talker -i --quiet")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(attach.stdout.take().unwrap());
    std::thread::sleep(std::time::Duration::from_secs(1));
    std::io::Write::write_all(attach.stdin.as_mut().unwrap(), b"hello\n").unwrap();
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "got hello\n");
    line.clear();
    followed.read_line(&mut line).unwrap();
    assert_eq!(line, "got hello\n");
    for mut child in [follow, attach] {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    // A container that ended and runs again: its present and its previous log.
    kubectl.until("logs crasher", |out| out == "second\n");
    assert_eq!(kubectl.ok("logs crasher --previous"), "first\n");
    let status = kubectl.json("get pod crasher");
    let container = &status["status"]["containerStatuses"][0];
    assert_eq!(container["restartCount"], 1);
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(container["lastState"]["terminated"]["reason"], "Error");

    // Exec: both outputs, the exit code, the input to its end.
    let output = kubectl.run("exec talker -- sh -c 'echo out; echo err >&2; exit 7'");
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(output.stdout, b"out\n");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        error.starts_with("err\n") && error.contains("exit code 7"),
        "{error}"
    );
    let big = "0123456789abcdef".repeat(64 * 1024);
    let output = kubectl.feed("exec -i talker -- cat", &big);
    assert_eq!(output.stdout.len(), big.len());
    assert!(output.stdout == big.as_bytes());
    let nowhere = kubectl.fails("exec talker -- /nowhere");
    let tried = "Internal error occurred: error executing command in container: ";
    assert!(
        nowhere.contains("no such file or directory") && nowhere.matches(tried).count() == 1,
        "{nowhere}"
    );

    // Copy, there and back.
    kubectl.file("there.txt", "a file\n");
    kubectl.ok("cp there.txt talker:/tmp/there.txt");
    assert_eq!(kubectl.ok("exec talker -- cat /tmp/there.txt"), "a file\n");
    kubectl.ok("cp talker:/tmp/there.txt back.txt");
    assert_eq!(
        std::fs::read_to_string(kubectl.path().join("back.txt")).unwrap(),
        "a file\n"
    );

    // Port-forward.
    kubectl.ok("rollout status deployment/web --timeout=80s");
    let mut forward = kubectl
        .command("port-forward deployment/web :8080")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(forward.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    let port = line
        .strip_prefix("Forwarding from 127.0.0.1:")
        .and_then(|rest| rest.split(' ').next());
    let port: u16 = port.unwrap_or_else(|| panic!("{line}")).parse().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    for _ in 0..3 {
        assert!(eventually("a page", || page(address)).starts_with("web-"));
    }
    forward.kill().unwrap();
    forward.wait().unwrap();

    // The proxy of the API server.
    let name = kubectl.ok("get pods -l app=web -o name");
    let name = name.trim().trim_start_matches("pod/");
    let path = format!("get --raw /api/v1/namespaces/default/pods/{name}:8080/proxy/index.html");
    assert_eq!(kubectl.ok(&path).trim(), name);

    // Debug: a container is added to a pod that runs.
    let said = kubectl.ok(&format!(
        "debug talker --image={IMAGE} --container=look --target=main --attach=false -- sh -c 'ps; sleep 1000'"
    ));
    // What kubectl itself says about it.
    assert!(
        said.is_empty() || said.starts_with("Targeting container \"main\""),
        "{said}"
    );
    kubectl.until("logs talker -c look", |out| out.contains("sleep 1000"));
}
