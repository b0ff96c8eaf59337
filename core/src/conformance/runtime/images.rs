//! Images.

use super::{Checked, Context, checks, ensure, same};
use crate::runtime::{ImageSpec, PullRequest};

checks!(
    are_pulled_and_removed,
    are_found_by_name_and_by_id,
    bad_names_are_refused,
);

async fn are_pulled_and_removed(c: &Context) -> Checked {
    let runtime = c.runtime();
    let request = PullRequest::new(&c.subject.image);
    let id = runtime.pull_image(&request).await?;
    same(
        runtime.pull_image(&request).await?,
        id.clone(),
        "the id of an image that is pulled again",
    )?;
    let images = runtime.images().await?;
    same(
        images.iter().filter(|image| image.id == id).count(),
        1,
        "how often a pulled image is listed",
    )?;
    for _ in 0..2 {
        runtime.remove_image(&c.image()).await?;
        ensure(
            runtime.image(&c.image()).await?.is_none(),
            "an image that was removed is still there",
        )?;
    }
    Ok(())
}

async fn are_found_by_name_and_by_id(c: &Context) -> Checked {
    let id = c
        .runtime()
        .pull_image(&PullRequest::new(&c.subject.image))
        .await?;
    for spec in [c.image(), ImageSpec::from(&id)] {
        let found = c.runtime().image(&spec).await?.map(|image| image.id);
        same(
            found,
            Some(id.clone()),
            &format!("the image {:?}", spec.image),
        )?;
    }
    let unknown = ImageSpec::new("conformance.invalid/never/pulled:1");
    ensure(
        c.runtime().image(&unknown).await?.is_none(),
        "an image that was never pulled is there",
    )
}

async fn bad_names_are_refused(c: &Context) -> Checked {
    for name in ["", "UPPER CASE", "a//b"] {
        let pulled = c.runtime().pull_image(&PullRequest::new(name)).await;
        ensure(pulled.is_err(), format_args!("{name:?} was pulled"))?;
    }
    Ok(())
}
