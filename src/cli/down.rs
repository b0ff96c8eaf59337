//! `orlop down`: nothing is left of the real nodes of a cluster.

use std::path::PathBuf;

use clap::Args;
use orlop::core::env::Env;

use super::{Failure, directory, host, nodes};

/// What `orlop down` can be told.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where the cluster is kept [default: ~/.local/share/orlop]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Removes the nodes.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let directory = match options.data_dir {
        Some(directory) => directory,
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
    let env = Env::tokio();
    let namespaces = nodes::remove(&directory, &env).await?;
    let host = host::remove(&directory, &env).await?;
    let kept = format!("the cluster's objects are still in {}", directory.display());
    if namespaces {
        println!("the nodes are gone, with all that ran on them; {kept}");
    }
    if host {
        println!("this machine is no node any more, and what ran on it has ended; {kept}");
    }
    if !namespaces && !host {
        println!(
            "there are no real nodes of the cluster in {}",
            directory.display()
        );
    }
    drop(lock);
    Ok(())
}
