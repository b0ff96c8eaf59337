//! Damage to what is at rest.

use proptest::prelude::*;

use super::*;
use crate::model::Model;

#[tokio::test]
async fn damage_is_reported_with_its_place() {
    for at in 0..40 {
        let disk = SimDisk::new(1);
        let options = written(&disk).await;
        let names = segments(&disk);
        let name = &names[at % (names.len() - 1)];
        let offset = at * 83;
        disk.damage(name, |bytes| bytes[offset] ^= 0x10);
        let error = open(&disk, &options).expect_err("damage in the middle");
        let StoreError::Corrupt(text) = &error else {
            panic!("{error}")
        };
        let (before, place) = text.split_once(" at offset ").expect("an offset");
        let place: usize = place
            .split(':')
            .next()
            .and_then(|digits| digits.parse().ok())
            .expect("a number");
        assert_eq!(before, name.as_str());
        assert!(
            place <= offset && offset < place + 400,
            "{text}, and the damage is at {offset}"
        );
    }
}

#[tokio::test]
async fn damage_in_the_newest_segment_is_not_taken_for_a_torn_write() {
    let disk = SimDisk::new(1);
    let options = written(&disk).await;
    let name = segments(&disk).pop().expect("a segment");
    disk.damage(&name, |bytes| bytes[60] ^= 1);
    let error = open(&disk, &options)
        .expect_err("damage before whole frames")
        .to_string();
    assert!(error.contains("whole ones follow"), "{error}");
}

#[tokio::test]
async fn a_missing_segment_is_reported() {
    for gone in 0..3 {
        let disk = SimDisk::new(1);
        let options = written(&disk).await;
        let names = segments(&disk);
        disk.remove(&names[gone]).expect("it is there");
        let error = open(&disk, &options).expect_err("a segment is missing");
        assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
    }
}

#[tokio::test]
async fn a_torn_tail_is_cut_off() {
    let disk = SimDisk::new(1);
    let options = written(&disk).await;
    let name = segments(&disk).pop().expect("a segment");
    let mut end = 0;
    disk.damage(&name, |bytes| {
        end = bytes.iter().rposition(|&byte| byte != 0).expect("frames") + 1;
        bytes[end - 3] ^= 1;
        bytes[end..end + 40].fill(0xee);
    });
    let store = open(&disk, &options).expect("the tail is cut off");
    assert_eq!(store.revision().await.expect("the revision"), Revision(50));
    store.commit(put("/new", "x")).await.expect("a commit");
    drop(store);
    let store = open(&disk, &options).expect("the store again");
    assert_eq!(value(&store, "/new").await.as_deref(), Some(b"x".as_ref()));
    assert_eq!(store.revision().await.expect("the revision"), Revision(51));
}

#[tokio::test]
async fn a_damaged_checkpoint_is_reported() {
    let disk = SimDisk::new(1);
    let store = open(&disk, &small()).expect("a store");
    until_checkpoint(&store, &disk).await;
    store.close().await;
    drop(store);
    disk.crash();
    let name = disk
        .list()
        .expect("names")
        .into_iter()
        .find(|name| name.starts_with("checkpoint-"));
    let name = name.expect("a checkpoint was made");
    for offset in [0, 10, 30, 500, 2000] {
        disk.damage(&name, |bytes| bytes[offset] ^= 4);
        let error = open(&disk, &small()).expect_err("a damaged checkpoint");
        assert!(
            matches!(&error, StoreError::Corrupt(text) if text.contains(&name)),
            "{error}"
        );
        disk.damage(&name, |bytes| bytes[offset] ^= 4);
    }
    let length = disk
        .open(&name)
        .expect("the file")
        .len()
        .expect("its length");
    disk.damage(&name, |bytes| bytes.truncate(length as usize - 1));
    assert!(matches!(open(&disk, &small()), Err(StoreError::Corrupt(_))));
}

/// A store with a checkpoint and segments after it, at rest, and all its states.
async fn with_checkpoint(disk: &SimDisk) -> Model {
    let options = small();
    let store = open(disk, &options).expect("a store");
    let mut model = Model::new();
    for n in 0..130u32 {
        let txn = put(&format!("/{}", n % 30), vec![n as u8; 200 + n as usize]);
        store.commit(txn.clone()).await.expect("a commit");
        model.commit(&txn);
    }
    store.close().await;
    drop(store);
    disk.crash();
    drop(open(disk, &options).expect("the store again"));
    disk.crash();
    model
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// One bit anywhere. It is reported, or it was in what nobody needs; but nobody can tell damage in the very last frame from a write
    /// that a crash interrupted.
    #[test]
    fn rot_is_never_read_as_data(file: prop::sample::Index, place: prop::sample::Index, bit in 0..8u8) {
        runtime().block_on(async {
            let disk = SimDisk::new(3);
            let model = with_checkpoint(&disk).await;
            let names = disk.list().expect("names");
            let name = file.get(&names).clone();
            disk.damage(&name, |bytes| {
                let at = place.index(bytes.len());
                bytes[at] ^= 1 << bit;
            });
            match open(&disk, &small()) {
                Err(StoreError::Corrupt(text)) => assert!(text.contains(&format!("{name} at offset ")), "{text} is not {name}"),
                Err(error) => panic!("{error}"),
                Ok(store) => {
                    let revision = store.revision().await.expect("the revision");
                    let newest = segments(&disk).pop().expect("a segment") == name;
                    let lost = model.revision().0 - revision.0;
                    assert!(lost == 0 || newest && lost == 1, "{lost} commits are lost by damage to {name}");
                    let read = store.range(RangeRequest::new(KeyRange::prefix(""))).await.expect("a read");
                    let wanted: Vec<_> = model.at(revision).values().cloned().collect();
                    assert!(read.items == wanted, "what is read is not what was written");
                }
            }
        });
    }
}
