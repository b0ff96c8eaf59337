//! The `orlop` program: a Kubernetes control plane in one process.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
