//! What the documents show is true.

use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The Markdown files that users and contributors read.
fn documents() -> Vec<PathBuf> {
    let found: Vec<_> = [root().to_owned(), root().join("docs")]
        .iter()
        .flat_map(|directory| std::fs::read_dir(directory).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    assert!(found.len() >= 4, "the documents have gone: {found:?}");
    found
}

/// Lines without what is before and after them, as one text.
fn plain(lines: &str) -> String {
    let lines: Vec<_> = lines.lines().map(str::trim).collect();
    lines.join("\n").trim().to_owned()
}

#[test]
fn the_readme_shows_the_quickstart() {
    let readme = read(&root().join("README.md"));
    let (_, after) = readme.split_once("```rust\n").unwrap();
    let (shown, _) = after.split_once("```").unwrap();
    assert!(shown.lines().count() <= 15, "fifteen lines are promised");
    let example = plain(&read(&root().join("examples/quickstart.rs")));
    assert!(
        example.contains(&plain(shown)),
        "the README shows what examples/quickstart.rs does not have:\n{shown}"
    );
}

#[test]
fn links_lead_somewhere() {
    let mut links = 0;
    for document in documents() {
        let text = read(&document);
        for link in text.split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            links += 1;
            let path = document.parent().unwrap().join(target);
            assert!(
                path.exists(),
                "{} links to {target}, which is not there",
                document.display()
            );
        }
    }
    assert!(links > 10, "only {links} links were found");
}
