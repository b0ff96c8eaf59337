//! Reads.

use bytes::Bytes;
use orlop_core::revision::Revision;
use orlop_core::store::{KeyValue, RangeRequest, RangeResult, StoreError};

use super::RANGE;
use super::cluster::Kind;
use super::convert::{count, key_values, revision, wire_range, wire_revision};
use super::feed::{End, Feed, open};
use super::refusal::Refusal;
use crate::etcd::proto::kv;

/// About how large a page is to be. It bounds what one message holds.
const PAGE_BYTES: usize = 8 << 20;

/// How many keys the first page holds, when nothing is known yet of how large they are, and how many a page holds at most.
const FIRST_PAGE: usize = 1000;
const LARGEST_PAGE: usize = 10_000;

/// How often a read of the newest state begins again when compaction overtakes it.
const TRIES: usize = 3;

/// What one page gave.
struct Page {
    at: Revision,
    items: Vec<KeyValue>,
    remaining: u64,
}

/// Reads a range, in pages of one revision.
pub(super) async fn range(feed: &Feed, request: &RangeRequest) -> Result<RangeResult, StoreError> {
    let asked = request.revision.filter(|revision| !revision.is_zero());
    let mut tries = 0;
    loop {
        match pages(feed, request, asked).await {
            Ok(result) => return Ok(result),
            Err(Refusal::Compacted) => match asked {
                Some(asked) => return Err(compacted(feed, asked).await),
                // The caller named no revision, so it is for us to choose a later one.
                None if tries < TRIES => tries += 1,
                None => {
                    return Err(StoreError::Unavailable(
                        "compaction overtook the read again and again".to_owned(),
                    ));
                }
            },
            Err(Refusal::FutureRevision) => {
                return Err(StoreError::FutureRevision {
                    requested: asked.unwrap_or_default(),
                    newest: feed.revision(feed.cluster().timeout()).await?,
                });
            }
            Err(refusal) => return Err(refusal.into_error()),
        }
    }
}

async fn pages(
    feed: &Feed,
    request: &RangeRequest,
    asked: Option<Revision>,
) -> Result<RangeResult, Refusal> {
    let wanted = match (request.count_only, request.limit) {
        (true, _) => 0,
        (false, 0) => usize::MAX,
        (false, limit) => limit,
    };
    let mut page = page(
        feed,
        request,
        request.after.as_ref(),
        asked,
        wanted.min(FIRST_PAGE),
    )
    .await?;
    let mut result = RangeResult {
        revision: page.at,
        items: Vec::new(),
        remaining: 0,
    };
    // A range that cannot be read in one piece is read as it was at its first page.
    let at = asked.unwrap_or(page.at);
    loop {
        let limit = fitting(&page.items);
        if result.items.is_empty() {
            result.items = page.items;
        } else {
            result.items.append(&mut page.items);
        }
        result.remaining = page.remaining;
        let missing = wanted - result.items.len();
        if page.remaining == 0 || missing == 0 {
            return Ok(result);
        }
        let Some(last) = result.items.last().map(|kv| kv.key.clone()) else {
            return Ok(result);
        };
        page = self::page(feed, request, Some(&last), Some(at), limit.min(missing)).await?;
    }
}

/// How many keys make a page, if they are as large as these.
fn fitting(items: &[KeyValue]) -> usize {
    let bytes: usize = items
        .iter()
        .map(|kv| kv.key.len() + kv.value.len() + 32)
        .sum();
    let each = bytes / items.len().max(1);
    (PAGE_BYTES / each.max(1)).clamp(1, LARGEST_PAGE)
}

/// Reads up to `limit` keys; none for zero.
async fn page(
    feed: &Feed,
    request: &RangeRequest,
    after: Option<&Bytes>,
    at: Option<Revision>,
    limit: usize,
) -> Result<Page, Refusal> {
    let wire = wire_range(&request.keys, after);
    let empty = wire.is_none();
    // Even where no key can be, the revision is asked for.
    let (key, range_end) = wire.map_or_else(
        || (feed.probe(), Bytes::new()),
        |wire| (wire.key, wire.range_end),
    );
    let message = kv::RangeRequest {
        key,
        range_end,
        limit: i64::try_from(limit).unwrap_or(i64::MAX),
        revision: at.map_or(0, wire_revision),
        count_only: empty || limit == 0,
        ..kv::RangeRequest::default()
    };
    let answer: kv::RangeResponse = feed.cluster().call(RANGE, Kind::Read, message).await?;
    let items = key_values(&answer.kvs);
    let remaining = if empty {
        0
    } else {
        count(answer.count).saturating_sub(items.len() as u64)
    };
    Ok(Page {
        at: revision(answer.header.map_or(0, |header| header.revision)),
        items,
        remaining,
    })
}

/// The error for a revision that is gone. etcd tells the oldest that is left only to those who watch from one that is not.
pub(super) async fn compacted(feed: &Feed, requested: Revision) -> StoreError {
    let known = feed.history.read().compacted();
    let mut oldest = known;
    if known <= requested.0 {
        let cluster = feed.cluster();
        let asking = async {
            let mut opened = open(cluster, cluster.current(), feed.keys(), requested.0)
                .await
                .ok()?;
            loop {
                match opened.next().await {
                    Ok(response) if response.events.is_empty() => {}
                    Err(End::Compacted(oldest)) => return Some(oldest),
                    _ => return None,
                }
            }
        };
        // If it cannot be learnt, the next is the least that it can be.
        oldest = cluster
            .env()
            .timeout(cluster.timeout(), asking)
            .await
            .ok()
            .flatten()
            .unwrap_or(requested.0 + 1);
        feed.set_compacted(oldest);
    }
    StoreError::Compacted {
        requested,
        oldest: Revision(oldest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_fit_what_they_hold() {
        let kv = |size: usize| KeyValue {
            key: "k".into(),
            value: vec![0; size].into(),
            create_revision: Revision(2),
            mod_revision: Revision(2),
            version: 1,
            lease: None,
        };
        assert_eq!(fitting(&[]), LARGEST_PAGE);
        assert_eq!(fitting(&[kv(10), kv(20)]), LARGEST_PAGE);
        assert_eq!(fitting(&[kv(1 << 20)]), 7);
        assert_eq!(fitting(&[kv(100 << 20)]), 1);
    }
}
