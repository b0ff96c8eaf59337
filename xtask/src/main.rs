//! The project's own tasks: `cargo xtask test`, `cargo xtask ci`.

mod programs;
mod tasks;

use std::process::ExitCode;

const HELP: &str = "\
Usage: cargo xtask <TASK>

  test   run all tests: unit, end to end, and those of the documentation
  ci     everything that must hold before a change is taken: format, lints, tests, documentation, examples, licences";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let done = match (arguments.next().as_deref(), arguments.next()) {
        (Some("test"), None) => tasks::test(),
        (Some("ci"), None) => tasks::ci(),
        (Some("help" | "--help" | "-h"), None) => {
            println!("{HELP}");
            Ok(())
        }
        _ => Err(HELP.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}
