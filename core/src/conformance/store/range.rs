//! Reads.

use bytes::Bytes;

use super::{Checked, Context, checks, ensure, same, wanted};
use crate::revision::Revision;
use crate::store::{KeyRange, RangeRequest, StoreError, Txn};

checks!(
    order_and_bounds,
    to_the_end,
    keys_of_any_bytes,
    pages,
    counts,
    the_past,
    the_past_in_pages,
    the_future,
    large_values,
    own_writes,
);

async fn names(c: &Context, request: RangeRequest) -> Result<String, super::Failure> {
    let read = c.read(request).await?;
    Ok(read
        .items
        .iter()
        .map(|kv| c.name(&kv.key))
        .collect::<Vec<_>>()
        .join(" "))
}

async fn order_and_bounds(c: &Context) -> Checked {
    for name in ["b", "a/2", "a", "a/1", "c", "a0", "a/10"] {
        c.put(name, "x").await?;
    }
    let key = |name: &str| c.key(name);
    let cases = [
        (c.all(), "a a/1 a/10 a/2 a0 b c"),
        (KeyRange::Key(key("a")), "a"),
        (KeyRange::Key(key("none")), ""),
        (KeyRange::Prefix(key("a/")), "a/1 a/10 a/2"),
        (KeyRange::Prefix(key("a")), "a a/1 a/10 a/2 a0"),
        (KeyRange::Prefix(key("none")), ""),
        (KeyRange::Span(key("a/1"), key("a/2")), "a/1 a/10"),
        (KeyRange::Span(key("a/11"), key("bb")), "a/2 a0 b"),
        (KeyRange::Span(key("b"), key("b")), ""),
        (KeyRange::Span(key("c"), key("a")), ""),
    ];
    for (keys, wanted) in cases {
        same!(
            names(c, RangeRequest::new(keys.clone())).await?,
            wanted,
            format!("the keys of {keys:?}")
        );
    }
    Ok(())
}

async fn to_the_end(c: &Context) -> Checked {
    for name in ["a", "b", "b/1", "c"] {
        c.put(name, "x").await?;
    }
    // Others may have left keys behind this check's.
    let end = c
        .read(RangeRequest::new(KeyRange::From(c.key("c/"))))
        .await?;
    let behind: Vec<_> = end.items.iter().map(|kv| c.name(&kv.key)).collect();
    ensure!(
        !c.subject.fresh || behind.is_empty(),
        "behind all keys stands {behind:?}"
    );
    let from = |name: &str| RangeRequest::new(KeyRange::From(c.key(name)));
    let cases = [
        (from(""), "a b b/1 c"),
        (from("a"), "a b b/1 c"),
        (from("a0"), "b b/1 c"),
        (from("b/1"), "b/1 c"),
        (from("b").page(0, Some(c.key("b"))), "b/1 c"),
        (from("b").page(0, Some(c.key("a"))), "b b/1 c"),
    ];
    for (request, wanted) in cases {
        let found = names(c, request.clone()).await?;
        let mut wanted: Vec<_> = wanted.split(' ').map(str::to_owned).collect();
        wanted.extend(behind.iter().cloned());
        same!(found, wanted.join(" "), format!("the keys of {request:?}"));
    }
    let first = c.read(from("").page(2, None)).await?;
    same!(
        (first.items.len(), first.remaining),
        (2, 2 + behind.len() as u64),
        "a page of a range without an end"
    );
    Ok(())
}

async fn keys_of_any_bytes(c: &Context) -> Checked {
    let tails: [&[u8]; 6] = [b"\0", b"\0\0", b"\x01", b"\x7f", b"\xff", b"\xff\xff"];
    let keys: Vec<Bytes> = tails
        .iter()
        .map(|tail| [c.key("").as_ref(), tail].concat().into())
        .collect();
    for key in keys.iter().rev() {
        c.apply(Txn::create(key.clone(), key.clone())).await?;
    }
    let read = c.read(RangeRequest::new(c.all())).await?;
    same!(
        read.items
            .iter()
            .map(|kv| kv.key.clone())
            .collect::<Vec<_>>(),
        keys,
        "the keys in the order of their bytes"
    );
    ensure!(
        read.items.iter().all(|kv| kv.key == kv.value),
        "a value is not what was written"
    );
    let read = c
        .read(RangeRequest::new(KeyRange::Prefix(keys[4].clone())))
        .await?;
    same!(
        read.items.len(),
        2,
        "the keys below a prefix that ends in 0xff"
    );
    c.apply(Txn::put(c.key("empty"), "")).await?;
    same!(
        c.get("empty").await?.map(|kv| kv.value),
        Some(Bytes::new()),
        "an empty value"
    );
    Ok(())
}

async fn pages(c: &Context) -> Checked {
    for n in 0..25 {
        c.put(&format!("k{n:02}"), "x").await?;
    }
    c.delete("k11").await?;
    c.put("z", "outside").await?;
    let keys = KeyRange::Prefix(c.key("k"));
    let mut after = None;
    let mut found = Vec::new();
    let mut sizes = Vec::new();
    loop {
        let page = c
            .read(RangeRequest::new(keys.clone()).page(7, after.clone()))
            .await?;
        found.extend(page.items.iter().map(|kv| c.name(&kv.key)));
        sizes.push((page.items.len(), page.remaining));
        after = page.items.last().map(|kv| kv.key.clone());
        if page.remaining == 0 {
            break;
        }
    }
    same!(
        sizes,
        [(7, 17), (7, 10), (7, 3), (3, 0)],
        "the sizes of the pages, and what remains after each"
    );
    let wanted: Vec<_> = (0..25)
        .filter(|&n| n != 11)
        .map(|n| format!("k{n:02}"))
        .collect();
    same!(found, wanted, "the keys of all pages");
    let cases = [
        (
            RangeRequest::new(keys.clone()).page(0, Some(c.key("k22"))),
            "k23 k24",
            "all after a key",
        ),
        (
            RangeRequest::new(keys.clone()).page(1, Some(c.key("a"))),
            "k00",
            "after a key before the range",
        ),
        (
            RangeRequest::new(keys.clone()).page(0, Some(c.key("y"))),
            "",
            "after a key behind the range",
        ),
        (
            RangeRequest::new(keys.clone()).page(2, Some(c.key("k11"))),
            "k12 k13",
            "after a key that is gone",
        ),
        (
            RangeRequest::new(KeyRange::Key(c.key("z"))).page(0, Some(c.key("z"))),
            "",
            "one key after itself",
        ),
        (
            RangeRequest::new(KeyRange::Key(c.key("z"))).page(0, Some(c.key("y"))),
            "z",
            "one key after another",
        ),
    ];
    for (request, wanted, what) in cases {
        same!(names(c, request).await?, wanted, what);
    }
    let exact = c.read(RangeRequest::new(keys).page(24, None)).await?;
    same!(
        (exact.items.len(), exact.remaining),
        (24, 0),
        "a limit that is met exactly"
    );
    Ok(())
}

async fn counts(c: &Context) -> Checked {
    for n in 0..10 {
        c.put(&format!("k{n}"), "x").await?;
    }
    c.delete("k3").await?;
    let count = |request: RangeRequest| RangeRequest {
        count_only: true,
        ..request
    };
    let cases = [
        (RangeRequest::new(c.all()), 9),
        (RangeRequest::new(c.all()).page(2, None), 9),
        (RangeRequest::new(c.all()).page(0, Some(c.key("k4"))), 5),
        (RangeRequest::new(KeyRange::Key(c.key("k1"))), 1),
        (RangeRequest::new(KeyRange::Key(c.key("k3"))), 0),
        (RangeRequest::new(KeyRange::Prefix(c.key("none"))), 0),
    ];
    for (request, wanted) in cases {
        let read = c.read(count(request.clone())).await?;
        ensure!(read.items.is_empty(), "a count returned keys");
        same!(read.remaining, wanted, format!("the count of {request:?}"));
    }
    Ok(())
}

async fn the_past(c: &Context) -> Checked {
    let before = c.store().revision().await?;
    let mut revisions = Vec::new();
    let mut wanted = Vec::new();
    let mut state = std::collections::BTreeMap::new();
    for n in 0..30 {
        let name = format!("k{}", n % 4);
        let revision = if n % 5 == 4 && state.contains_key(&name) {
            state.remove(&name);
            c.delete(&name).await?
        } else {
            state.insert(name.clone(), n.to_string());
            c.put(&name, &n.to_string()).await?
        };
        revisions.push(revision);
        wanted.push(state.clone().into_iter().collect::<Vec<_>>());
    }
    let newest = c.store().revision().await?;
    for (revision, wanted) in revisions.iter().zip(&wanted) {
        let read = c.read(RangeRequest::new(c.all()).at(*revision)).await?;
        same!(
            &c.short(&read.items),
            wanted,
            format!("the state at {revision}")
        );
        same!(
            read.revision,
            newest,
            "the store's revision with a read of the past"
        );
        for name in ["k0", "k1", "k2", "k3"] {
            let read = c
                .read(RangeRequest::new(KeyRange::Key(c.key(name))).at(*revision))
                .await?;
            let wanted: Vec<_> = wanted
                .iter()
                .filter(|(key, _)| key == name)
                .cloned()
                .collect();
            same!(
                c.short(&read.items),
                wanted,
                format!("{name} at {revision}")
            );
        }
    }
    let read = c.read(RangeRequest::new(c.all()).at(before)).await?;
    ensure!(
        read.items.is_empty(),
        "keys were there before they were made: {:?}",
        read.items
    );
    let read = c
        .read(RangeRequest::new(c.all()).at(Revision::ZERO))
        .await?;
    same!(
        Some(&c.short(&read.items)),
        wanted.last(),
        "a read at revision zero, which is the newest"
    );
    Ok(())
}

async fn the_past_in_pages(c: &Context) -> Checked {
    for n in 0..20 {
        c.put(&format!("k{n:02}"), "old").await?;
    }
    let first = c.read(RangeRequest::new(c.all()).page(8, None)).await?;
    let mut found = c.short(&first.items);
    // What happens between the pages does not show in pages of the first page's revision.
    for n in 0..20 {
        match n % 3 {
            0 => c.put(&format!("k{n:02}"), "new").await?,
            1 => c.delete(&format!("k{n:02}")).await?,
            _ => c.put(&format!("k{n:02}x"), "new").await?,
        };
    }
    loop {
        let after = found.last().map(|(name, _)| c.key(name));
        let page = c
            .read(RangeRequest::new(c.all()).at(first.revision).page(8, after))
            .await?;
        found.extend(c.short(&page.items));
        if page.remaining == 0 {
            break;
        }
    }
    let wanted: Vec<_> = (0..20)
        .map(|n| (format!("k{n:02}"), "old".to_owned()))
        .collect();
    same!(found, wanted, "the pages of a past revision");
    Ok(())
}

async fn the_future(c: &Context) -> Checked {
    let newest = c.put("a", "1").await?;
    let ahead = newest.next();
    let error = c.store().range(RangeRequest::new(c.all()).at(ahead)).await;
    let (requested, known) = wanted!(
        error,
        Err(StoreError::FutureRevision { requested, newest }) => (requested, newest),
        "a read at a revision to come"
    );
    same!((requested, known), (ahead, newest), "what the error says");
    c.read(RangeRequest::new(c.all()).at(newest)).await?;
    Ok(())
}

async fn large_values(c: &Context) -> Checked {
    let value = Bytes::from(
        (0..1 << 20)
            .map(|n: u32| (n * 31 % 251) as u8)
            .collect::<Vec<_>>(),
    );
    let revision = c.apply(Txn::create(c.key("large"), value.clone())).await?;
    let found = c.get("large").await?;
    ensure!(
        found.as_ref().is_some_and(|kv| kv.value == value),
        "a value of 1 MiB is not what was written"
    );
    c.put("large", "small").await?;
    let past = c
        .read(RangeRequest::new(KeyRange::Key(c.key("large"))).at(revision))
        .await?;
    ensure!(
        past.items.first().is_some_and(|kv| kv.value == value),
        "a value of 1 MiB is lost to the past"
    );
    Ok(())
}

async fn own_writes(c: &Context) -> Checked {
    for n in 0..50 {
        let revision = c.put("a", &n.to_string()).await?;
        let read = c.read(RangeRequest::new(c.all())).await?;
        same!(
            c.short(&read.items),
            [("a".to_owned(), n.to_string())],
            "what was just written"
        );
        ensure!(
            read.revision >= revision,
            "a read at {} after a commit at {revision}",
            read.revision
        );
    }
    Ok(())
}
