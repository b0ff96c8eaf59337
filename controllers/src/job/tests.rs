use orlop_core::client::{DeleteOptions, Propagation};
use serde_json::{Value, json};

use super::*;
use crate::garbage_collector::GarbageCollector;
use crate::manager::FixedCatalog;
use crate::testing::{World, condition as condition_of, run};
use crate::ttl_after_finished::TtlAfterFinishedController;

fn controllers() -> Vec<Arc<dyn Controller>> {
    vec![
        Arc::new(JobController::new()),
        Arc::new(TtlAfterFinishedController::new()),
        Arc::new(GarbageCollector::new(Arc::new(FixedCatalog::new([
            PODS, JOBS,
        ])))),
    ]
}

fn job(spec: Value) -> Value {
    let mut job = json!({"metadata": {"name": "work"}, "spec": {"parallelism": 1, "completions": 1, "backoffLimit": 6,
        "completionMode": "NonIndexed", "selector": {"matchLabels": {"job-name": "work"}},
        "template": {"metadata": {"labels": {"job-name": "work"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "main"}]}}}});
    for (key, value) in spec.as_object().unwrap() {
        job["spec"][key] = value.clone();
    }
    job
}

fn now(world: &World) -> Value {
    world.get(&JOBS, "work").unwrap()
}

fn working(world: &World) -> Vec<Value> {
    let mut pods = world.list(&PODS);
    pods.retain(|pod| {
        pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null()
    });
    pods
}

async fn end(world: &World, pod: &Value, code: i32) {
    let phase = if code == 0 { "Succeeded" } else { "Failed" };
    let finished = world.env.wall().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let status = json!({"status": {"phase": phase, "containerStatuses": [{"name": "main", "image": "", "imageID": "", "ready": false,
        "restartCount": 0, "state": {"terminated": {"exitCode": code, "finishedAt": finished}}}]}});
    let name = pod["metadata"]["name"].as_str().unwrap();
    world
        .client()
        .resource(&PODS)
        .namespace("default")
        .patch_status(name, Patch::Merge(status))
        .await
        .unwrap();
}

/// Ends the pods that work, until the Job is finished.
async fn work(world: &World, code: impl Fn(&Value) -> i32) {
    for _ in 0..4000 {
        if !condition_of(&now(world), "Complete").is_null()
            || !condition_of(&now(world), "Failed").is_null()
        {
            return;
        }
        for pod in working(world) {
            end(world, &pod, code(&pod)).await;
        }
        world.env.sleep(std::time::Duration::from_millis(300)).await;
    }
    panic!("the job never ended: {:#}", now(world));
}

#[test]
fn a_job_runs_to_completion() {
    run(controllers(), |world| async move {
        world
            .create(&JOBS, job(json!({"parallelism": 3, "completions": 8})))
            .await;
        world
            .until("three work", |world| working(world).len() == 3)
            .await;
        assert_eq!(
            working(&world)[0]["metadata"]["finalizers"],
            json!([TRACKING])
        );
        work(&world, |_| 0).await;
        let job = now(&world);
        assert_eq!(job["status"]["succeeded"], 8);
        assert!(job["status"]["active"].is_null() && job["status"]["failed"].is_null());
        assert_eq!(job["status"]["uncountedTerminatedPods"], json!({}));
        let complete = condition_of(&job, "Complete");
        assert_eq!(
            (&complete["status"], &complete["reason"]),
            (&json!("True"), &json!("CompletionsReached"))
        );
        assert_eq!(
            condition_of(&job, "SuccessCriteriaMet")["message"],
            "Reached expected number of succeeded pods"
        );
        assert!(
            job["status"]["completionTime"].is_string() && job["status"]["startTime"].is_string()
        );
        assert_eq!(world.list(&PODS).len(), 8);
        assert!(
            world
                .list(&PODS)
                .iter()
                .all(|pod| pod["metadata"]["finalizers"] == json!([]))
        );
        world.sleep(1).await;
        assert_eq!(world.events("work", "Completed"), ["Job completed"]);
        world.stop().await;
    });
}

#[test]
fn failures_are_tried_again_later_and_later_up_to_the_limit() {
    run(controllers(), |world| async move {
        world.create(&JOBS, job(json!({"backoffLimit": 2}))).await;
        work(&world, |_| 1).await;
        let job = now(&world);
        assert_eq!(job["status"]["failed"], 3);
        let failed = condition_of(&job, "Failed");
        assert_eq!(
            (&failed["reason"], &failed["message"]),
            (
                &json!("BackoffLimitExceeded"),
                &json!("Job has reached the specified backoff limit")
            )
        );
        assert_eq!(condition_of(&job, "FailureTarget")["status"], "True");
        // Ten seconds after the first failure, twenty after the second.
        let took = world.env.now().since_start().as_secs();
        assert!((30..40).contains(&took), "{took}");
        world.stop().await;
    });
}

#[test]
fn every_index_is_done_once() {
    run(controllers(), |world| async move {
        world
            .create(
                &JOBS,
                job(json!({"parallelism": 4, "completions": 5, "completionMode": "Indexed"})),
            )
            .await;
        world
            .until("four work", |world| working(world).len() == 4)
            .await;
        let pod = &working(&world)[0];
        let index = pod["metadata"]["annotations"][COMPLETION_INDEX]
            .as_str()
            .unwrap();
        assert_eq!(pod["metadata"]["labels"][COMPLETION_INDEX], index);
        assert_eq!(pod["spec"]["hostname"], format!("work-{index}"));
        assert!(
            pod["metadata"]["name"]
                .as_str()
                .unwrap()
                .starts_with(&format!("work-{index}-"))
        );
        assert_eq!(
            pod["spec"]["containers"][0]["env"][0]["name"],
            "JOB_COMPLETION_INDEX"
        );
        // The second try of index 2 succeeds.
        let failed = std::sync::atomic::AtomicBool::new(false);
        work(&world, |pod| {
            let two = pod["metadata"]["annotations"][COMPLETION_INDEX] == "2";
            i32::from(
                two && !failed.swap(
                    two || failed.load(std::sync::atomic::Ordering::Relaxed),
                    std::sync::atomic::Ordering::Relaxed,
                ),
            )
        })
        .await;
        let job = now(&world);
        assert_eq!(job["status"]["completedIndexes"], "0-4");
        assert_eq!(
            (&job["status"]["succeeded"], &job["status"]["failed"]),
            (&json!(5), &json!(1))
        );
        world.stop().await;
    });
}

#[test]
fn a_deadline_ends_it() {
    run(controllers(), |world| async move {
        world
            .create(&JOBS, job(json!({"activeDeadlineSeconds": 20})))
            .await;
        world
            .until("it works", |world| working(world).len() == 1)
            .await;
        world
            .until("it has failed", |world| {
                condition_of(&now(world), "Failed")["reason"] == "DeadlineExceeded"
            })
            .await;
        assert_eq!(now(&world)["status"]["failed"], 1);
        assert!(working(&world).is_empty());
        world.sleep(1).await;
        assert_eq!(
            world.events("work", "DeadlineExceeded"),
            ["Job was active longer than specified deadline"]
        );
        world.stop().await;
    });
}

#[test]
fn it_can_be_suspended_and_resumed() {
    run(controllers(), |world| async move {
        world
            .create(&JOBS, job(json!({"parallelism": 2, "completions": 2})))
            .await;
        world
            .until("two work", |world| working(world).len() == 2)
            .await;
        world
            .patch(&JOBS, "work", json!({"spec": {"suspend": true}}))
            .await;
        world
            .until("it is suspended", |world| {
                condition_of(&now(world), "Suspended")["status"] == "True"
                    && world.list(&PODS).is_empty()
            })
            .await;
        assert!(now(&world)["status"]["startTime"].is_null());
        world
            .patch(&JOBS, "work", json!({"spec": {"suspend": false}}))
            .await;
        world
            .until("it works again", |world| working(world).len() == 2)
            .await;
        assert_eq!(
            condition_of(&now(&world), "Suspended")["reason"],
            "JobResumed"
        );
        work(&world, |_| 0).await;
        assert_eq!(now(&world)["status"]["succeeded"], 2);
        world.stop().await;
    });
}

#[test]
fn a_policy_can_fail_it_at_once_or_forgive() {
    run(controllers(), |world| async move {
        let rules = json!([
            {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [9]}},
            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]);
        world
            .create(
                &JOBS,
                job(json!({"backoffLimit": 0, "podFailurePolicy": {"rules": rules}})),
            )
            .await;
        world
            .until("it works", |world| working(world).len() == 1)
            .await;
        end(&world, &working(&world)[0], 9).await;
        world
            .until("it works again", |world| working(world).len() == 1)
            .await;
        end(&world, &working(&world)[0], 42).await;
        world
            .until("it has failed", |world| {
                condition_of(&now(world), "Failed")["reason"] == "PodFailurePolicy"
            })
            .await;
        assert_eq!(now(&world)["status"]["failed"], 1);
        world.stop().await;
    });
}

#[test]
fn it_goes_when_its_time_has_passed() {
    run(controllers(), |world| async move {
        world
            .create(&JOBS, job(json!({"ttlSecondsAfterFinished": 30})))
            .await;
        work(&world, |_| 0).await;
        world.sleep(25).await;
        assert!(world.get(&JOBS, "work").is_some());
        world
            .until("it is gone with its pods", |world| {
                world.get(&JOBS, "work").is_none() && world.list(&PODS).is_empty()
            })
            .await;
        world.stop().await;
    });
}

#[test]
fn a_job_that_is_deleted_leaves_no_pods_behind() {
    run(controllers(), |world| async move {
        for propagation in [Propagation::Background, Propagation::Foreground] {
            world
                .create(&JOBS, job(json!({"parallelism": 3, "completions": 3})))
                .await;
            world
                .until("three work", |world| working(world).len() == 3)
                .await;
            let options = DeleteOptions {
                propagation: Some(propagation),
                ..DeleteOptions::default()
            };
            world
                .client()
                .resource(&JOBS)
                .namespace("default")
                .delete("work", options)
                .await
                .unwrap();
            world
                .until("nothing is left", |world| {
                    world.list(&PODS).is_empty() && world.list(&JOBS).is_empty()
                })
                .await;
        }
        world.stop().await;
    });
}

#[test]
fn an_index_has_a_limit_of_its_own() {
    run(controllers(), |world| async move {
        let spec = json!({"parallelism": 3, "completions": 3, "completionMode": "Indexed", "backoffLimit": i32::MAX, "backoffLimitPerIndex": 1});
        world.create(&JOBS, job(spec)).await;
        work(&world, |pod| {
            i32::from(pod["metadata"]["annotations"][COMPLETION_INDEX] == "1")
        })
        .await;
        let job = now(&world);
        assert_eq!(condition_of(&job, "Failed")["reason"], "FailedIndexes");
        assert_eq!(
            (
                &job["status"]["completedIndexes"],
                &job["status"]["failedIndexes"]
            ),
            (&json!("0,2"), &json!("1"))
        );
        assert_eq!(job["status"]["failed"], 2);
        world.stop().await;
    });
}
