//! `orlop down`: nothing is left of the real nodes of a cluster.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, directory, nodes};

/// What `orlop down` can be told.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where the cluster is kept [default: ~/.local/share/orlop]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Removes the nodes.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let directory = match &options.data_dir {
        Some(directory) => directory.clone(),
        None => directory::default()?,
    };
    let directory = directory.canonicalize().map_err(|error| {
        Failure::new(format!(
            "cannot use the directory {}: {error}",
            directory.display()
        ))
    })?;
    let lock = directory::lock(&directory).map_err(|failure| {
        Failure::new(format!(
            "{failure}: stop it first (the nodes go on until then)"
        ))
    })?;
    if nodes::remove(&directory)? {
        println!(
            "the nodes are gone, with all that ran on them; the cluster's objects are still in {}",
            directory.display()
        );
    } else {
        println!(
            "there are no real nodes of the cluster in {}",
            directory.display()
        );
    }
    drop(lock);
    Ok(())
}
