//! A real file system that runs full. It takes a right to mount one.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::*;

/// A file system of 8 MiB, mounted for as long as it lives.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        quiet(Command::new("umount").arg(&self.0));
    }
}

type Mount = fn(&Path) -> Option<Mounted>;

fn quiet(command: &mut Command) -> bool {
    let command = command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// ext4 in a file, where that can be mounted.
fn ext4(dir: &Path) -> Option<Mounted> {
    let (image, at) = (dir.join("image"), dir.join("ext4"));
    std::fs::create_dir(&at).expect("a directory");
    std::fs::File::create(&image)
        .and_then(|file| file.set_len(8 << 20))
        .expect("a file");
    let made = quiet(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))
        && quiet(
            Command::new("mount")
                .args(["-o", "loop"])
                .arg(&image)
                .arg(&at),
        );
    made.then_some(Mounted(at))
}

fn tmpfs(dir: &Path) -> Option<Mounted> {
    let at = dir.join("tmpfs");
    std::fs::create_dir(&at).expect("a directory");
    let options = ["-t", "tmpfs", "-o", "size=8m", "none"];
    quiet(Command::new("mount").args(options).arg(&at)).then_some(Mounted(at))
}

#[tokio::test]
async fn a_full_file_system_refuses_writes_until_there_is_room() {
    let dir = tempfile::tempdir().expect("a directory");
    let kinds: [(&str, Mount); 2] = [("ext4", ext4), ("tmpfs", tmpfs)];
    for (kind, mount) in kinds {
        match mount(dir.path()) {
            Some(mounted) => fill(&mounted.0).await,
            None => println!(
                "skipped: a_full_file_system_refuses_writes_until_there_is_room: no {kind} can be mounted here"
            ),
        }
    }
}

async fn fill(at: &Path) {
    let options = DurableOptions {
        segment_bytes: 1 << 20,
        checkpoint_bytes: 2 << 20,
        ..DurableOptions::default()
    };
    let ballast = at.join("ballast");
    std::fs::write(&ballast, vec![1; 3 << 20]).expect("room");
    let path = at.join("store");
    let store = DurableStore::open(&path, options.clone(), Env::tokio()).expect("a store");
    let mut written = 0u32;
    let refusal = loop {
        let txn = put(&format!("/{written}"), vec![written as u8; 50_000]);
        match store.commit(txn).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 1000, "it never runs full");
    };
    assert!(matches!(refusal, StoreError::NoSpace(_)), "{refusal}");
    assert!(written > 20, "{written} writes fit");
    assert!(matches!(store.healthy().await, Err(StoreError::NoSpace(_))));
    let check = async |store: &DurableStore, until: u32| {
        for n in 0..until {
            let found = value(store, &format!("/{n}")).await;
            assert!(
                found.is_some_and(|value| value == vec![n as u8; 50_000]),
                "/{n}"
            );
        }
    };
    check(&store, written).await;
    let saved = store.backup(at.join("backup"), false).await;
    assert!(matches!(saved, Err(StoreError::NoSpace(_))), "{saved:?}");
    assert!(!at.join("backup.unfinished").exists());

    std::fs::remove_file(&ballast).expect("the ballast");
    for n in written..written + 10 {
        store
            .commit(put(&format!("/{n}"), vec![n as u8; 50_000]))
            .await
            .expect("there is room again");
    }
    written += 10;
    store.healthy().await.expect("all is well again");
    check(&store, written).await;
    store.close().await;
    drop(store);
    let store = DurableStore::open(&path, options, Env::tokio()).expect("the store again");
    check(&store, written).await;
    let revision = store.revision().await.expect("the revision");
    assert_eq!(revision, Revision(u64::from(written) + 1));
    store.close().await;
}
