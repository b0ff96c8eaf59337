//! The tasks.

use crate::programs::{has_cargo, is_on_path, read, root, run};

/// End-to-end tests that drive the real kubectl are in this module of the root package's test binary.
const KUBECTL_TESTS: &str = "kubectl::";

/// Runs all tests. Those that need a program which is not here are named as skipped.
pub(crate) fn test() -> Result<(), String> {
    let kubectl = is_on_path("kubectl");
    let without_kubectl = format!("not test(/^{KUBECTL_TESTS}/)");
    if has_cargo("nextest") {
        let mut arguments = vec!["nextest", "run", "--workspace"];
        if !kubectl {
            arguments.extend(["-E", &without_kubectl]);
        }
        run(&arguments, &[])?;
    } else {
        println!("cargo-nextest is not installed: `cargo test` takes its place");
        let mut arguments = vec!["test", "--workspace", "--lib", "--bins", "--tests"];
        if !kubectl {
            arguments.extend(["--", "--skip", KUBECTL_TESTS]);
        }
        run(&arguments, &[])?;
    }
    run(&["test", "--workspace", "--doc"], &[])?;
    if !kubectl {
        name_skipped()?;
    }
    Ok(())
}

/// Names the tests that were not run, last, where it is seen.
fn name_skipped() -> Result<(), String> {
    let listed = read(&[
        "test",
        "--quiet",
        "--package",
        "orlop",
        "--test",
        "suite",
        "--",
        "--list",
        "--format",
        "terse",
        KUBECTL_TESTS,
    ])?;
    let names: Vec<_> = listed
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .filter(|name| name.starts_with(KUBECTL_TESTS))
        .collect();
    println!(
        "=== {} tests SKIPPED: kubectl is not on the path",
        names.len()
    );
    for name in names {
        println!("SKIPPED {name}");
    }
    Ok(())
}

/// Everything that must hold before a change is taken.
pub(crate) fn ci() -> Result<(), String> {
    run(&["fmt", "--all", "--check"], &[])?;
    run(
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
        &[],
    )?;
    // The rooms by themselves, without the features that the whole asks of them.
    run(
        &[
            "clippy",
            "--package",
            "orlop-core",
            "--package",
            "orlop-store",
            "--",
            "-D",
            "warnings",
        ],
        &[],
    )?;
    test()?;
    examples()?;
    run(
        &["doc", "--workspace", "--no-deps", "--all-features"],
        &[("RUSTDOCFLAGS", "-D warnings")],
    )?;
    if has_cargo("deny") {
        run(&["deny", "check", "licenses", "bans", "sources"], &[])
    } else {
        println!("=== SKIPPED licences and duplicates: cargo-deny is not installed");
        Ok(())
    }
}

/// Runs every example, because the documents show them. Each ends by itself.
fn examples() -> Result<(), String> {
    let directory = root().join("examples");
    let entries = std::fs::read_dir(&directory)
        .map_err(|error| format!("{}: {error}", directory.display()))?;
    let mut names: Vec<_> = entries
        .filter_map(|entry| entry.ok()?.path().file_name()?.to_str().map(str::to_owned))
        .filter_map(|name| name.strip_suffix(".rs").map(str::to_owned))
        .collect();
    names.sort();
    for name in names {
        run(&["run", "--quiet", "--example", &name], &[])?;
    }
    Ok(())
}
