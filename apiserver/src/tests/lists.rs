//! Lists: pages, versions and what may be asked together.

use super::*;

async fn fill(cluster: &Cluster, count: usize) {
    for number in 0..count {
        let map = config_map(&format!("m{number:02}"), json!({"pg": "1"}));
        cluster.post(CONFIG_MAPS, &map).await.expect(201);
    }
}

#[test]
fn pages_show_one_version_whatever_is_written_between() {
    with_cluster(11, |cluster| async move {
        fill(&cluster, 7).await;
        let page = |token: &str| format!("{CONFIG_MAPS}?limit=3&continue={token}");
        let first = cluster.get(&page("")).await.expect(200);
        let version = revision(&first);
        let remaining = first["metadata"]["remainingItemCount"].as_u64().unwrap();
        cluster
            .delete(&format!("{CONFIG_MAPS}/m05"), None)
            .await
            .expect(200);
        cluster
            .post(CONFIG_MAPS, &config_map("m04a", json!({})))
            .await
            .expect(201);
        let mut seen: Vec<String> = names(&first).into_iter().map(str::to_owned).collect();
        let mut token = first["metadata"]["continue"].as_str().unwrap().to_owned();
        while !token.is_empty() {
            let next = cluster.get(&page(&token)).await.expect(200);
            assert_eq!(revision(&next), version);
            seen.extend(names(&next).into_iter().map(str::to_owned));
            token = next["metadata"]["continue"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
        }
        assert_eq!(seen.len() as u64, 3 + remaining);
        assert!(seen.contains(&"m05".to_owned()) && !seen.contains(&"m04a".to_owned()));
        let mixed = format!("{CONFIG_MAPS}?continue=abc&resourceVersion=5");
        assert_eq!(cluster.get(&mixed).await.code, 400);
    });
}

#[test]
fn an_old_page_can_be_taken_up_where_it_ended() {
    with_cluster(12, |cluster| async move {
        fill(&cluster, 4).await;
        let first = cluster
            .get(&format!("{CONFIG_MAPS}?limit=2&labelSelector=pg"))
            .await
            .expect(200);
        let token = first["metadata"]["continue"].as_str().unwrap();
        cluster
            .delete(&format!("{CONFIG_MAPS}/m03"), None)
            .await
            .expect(200);
        // History is forgotten after a while.
        cluster.env.sleep(Duration::from_secs(1_000)).await;
        let late = format!("{CONFIG_MAPS}?limit=2&labelSelector=pg&continue={token}");
        let gone = cluster.get(&late).await.expect(410);
        assert_eq!(gone["reason"], "Expired");
        let token = gone["metadata"]["continue"].as_str().unwrap();
        let rest = format!("{CONFIG_MAPS}?limit=2&labelSelector=pg&continue={token}");
        let rest = cluster.get(&rest).await.expect(200);
        assert_eq!(names(&rest), ["m02"]);
        // The watch cache remembers longer than the store: only what it does not have either is too old.
        let exact = format!("{CONFIG_MAPS}?resourceVersion=1&resourceVersionMatch=Exact");
        assert_eq!(cluster.get(&exact).await.code, 410);
    });
}

#[test]
fn a_version_that_has_not_happened_is_waited_for() {
    with_cluster(13, |cluster| async move {
        let list = cluster.get(CONFIG_MAPS).await.expect(200);
        let next = revision(&list) + 1;
        let wait = format!("{CONFIG_MAPS}?resourceVersion={next}");
        let (waited, _) = futures::future::join(cluster.get(&wait), async {
            cluster.env.sleep(Duration::from_secs(1)).await;
            let map = config_map("late", json!({}));
            cluster.post(CONFIG_MAPS, &map).await.expect(201);
        })
        .await;
        assert!(names(&waited.expect(200)).contains(&"late"));
        let never = format!("{CONFIG_MAPS}?resourceVersion=99999999");
        let answer = cluster.get(&never).await;
        assert!(
            answer
                .refused(504)
                .starts_with("Timeout: Too large resource version")
        );
        assert_eq!(answer.headers["retry-after"], "1");
    });
}
