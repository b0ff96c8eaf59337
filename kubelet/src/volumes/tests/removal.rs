//! What is removed, and what never is.

use super::*;

/// Mounts that are only written down. Those that are stuck cannot be ended.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<BTreeMap<PathBuf, u32>>>);

impl Mounter for Paper {
    fn tmpfs(&self, _: &Path, _: Option<u64>) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn bind(&self, _: BorrowedFd<'_>, at: &Path) -> io::Result<()> {
        self.0.lock().insert(at.to_owned(), 0);
        Ok(())
    }

    fn unmount(&self, at: &Path) -> io::Result<()> {
        let mut mounts = self.0.lock();
        let Some(busy) = mounts.get_mut(at) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        if *busy == 0 {
            mounts.remove(at);
            return Ok(());
        }
        *busy -= 1;
        Err(io::ErrorKind::ResourceBusy.into())
    }

    fn at_or_below(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mounts = self.0.lock();
        Ok(mounts
            .keys()
            .rev()
            .filter(|at| at.starts_with(dir))
            .cloned()
            .collect())
    }
}

#[test]
fn nothing_is_deleted_behind_a_mount_that_does_not_end() {
    let paper = Paper::default();
    run_with(paper.clone(), |room| async move {
        let pod = pod(json!([{"name": "v", "emptyDir": {}}]), json!({}));
        room.manager.set_up(&pod).await.unwrap();
        let root = std::fs::canonicalize(room.root.path()).unwrap();
        let dir = root.join("pods/u/volumes/kubernetes.io~empty-dir/v");
        std::fs::write(dir.join("data"), "precious").unwrap();
        // A neighbour whose name begins the same is none of ours.
        let other = root.join("pods/u2/x");
        paper.0.lock().insert(dir.clone(), 100);
        paper.0.lock().insert(other.clone(), 0);
        let begin = room.env.now();
        let error = room.manager.tear_down("u").await.unwrap_err();
        assert!(error.message.contains("resource busy"), "{error}");
        assert!(error.event.is_empty());
        let waited = room.env.now().since(begin);
        assert!(waited >= std::time::Duration::from_millis(700) && waited.as_secs() < 3);
        assert_eq!(read(&dir.join("data")), "precious");
        // It ends at the third try.
        paper.0.lock().insert(dir.clone(), 2);
        room.manager.tear_down("u").await.unwrap();
        assert!(!dir.exists());
        assert_eq!(paper.0.lock().keys().collect::<Vec<_>>(), [&other]);
    });
}

#[test]
fn names_that_are_no_names_reach_no_directory() {
    run(|room| async move {
        for uid in ["", ".", "..", "../x", "a/b"] {
            assert!(room.manager.tear_down(uid).await.is_err(), "{uid:?}");
            assert_eq!(room.manager.usage(uid).await, []);
        }
        let error = room.fails(json!({"name": "..", "emptyDir": {}})).await;
        assert!(
            error.message.ends_with("invalid volume name \"..\""),
            "{error}"
        );
    });
}

#[test]
fn a_tree_is_removed_without_leaving_it() {
    let temp = tempfile::tempdir().unwrap();
    let outside = temp.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("precious"), "data").unwrap();
    let top = temp.path().join("top");
    std::fs::create_dir_all(top.join("..deep-0/x")).unwrap();
    // Deeper than a path can be long, and than directories are held open.
    let mut dir = rustix::fs::open(
        &top,
        rustix::fs::OFlags::DIRECTORY,
        rustix::fs::Mode::empty(),
    )
    .unwrap();
    for n in 0..320 {
        let name = format!("directory-{n}");
        rustix::fs::mkdirat(&dir, &name, rustix::fs::Mode::RWXU).unwrap();
        rustix::fs::symlinkat(&outside, &dir, "link").unwrap();
        let flags = rustix::fs::OFlags::DIRECTORY;
        dir = rustix::fs::openat(&dir, &name, flags, rustix::fs::Mode::empty()).unwrap();
    }
    drop(dir);
    tree::remove(&top).unwrap();
    tree::remove(&top).unwrap();
    assert!(!top.exists());
    assert_eq!(read(&outside.join("precious")), "data");
    std::os::unix::fs::symlink(&outside, &top).unwrap();
    tree::remove(&top).unwrap();
    assert_eq!(read(&outside.join("precious")), "data");
}
