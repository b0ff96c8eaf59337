//! Which form of an answer a client wants, and which form a body has.

use orlop_core::status::{Status, StatusDetails, reason};

/// The encoding of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Yaml,
    Protobuf,
}

impl Encoding {
    /// The media type of an object in it.
    pub(crate) const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    /// The media type of a watch in it.
    pub(crate) const fn stream_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml;stream=watch",
            Self::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        }
    }
}

/// What of an object a client wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// All of it.
    Whole,
    /// A row of a table.
    Table,
    /// The metadata.
    Metadata,
}

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) encoding: Encoding,
    pub(crate) shape: Shape,
}

/// One choice of an `Accept` header.
#[derive(Debug)]
struct Choice<'a> {
    media_type: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    quality: f32,
}

impl Choice<'_> {
    fn parameter(&self, name: &str) -> &str {
        self.parameters
            .iter()
            .find(|(other, _)| *other == name)
            .map_or("", |(_, value)| value)
    }
}

fn choices(accept: &str) -> Vec<Choice<'_>> {
    let mut all: Vec<Choice<'_>> = accept
        .split(',')
        .filter_map(|choice| {
            let mut parts = choice.split(';').map(str::trim);
            let media_type = parts.next().filter(|media_type| !media_type.is_empty())?;
            let parameters: Vec<(&str, &str)> =
                parts.filter_map(|part| part.split_once('=')).collect();
            let quality = parameters
                .iter()
                .find(|(name, _)| *name == "q")
                .and_then(|(_, q)| q.parse().ok())
                .unwrap_or(1.0);
            Some(Choice {
                media_type,
                parameters,
                quality,
            })
        })
        .collect();
    // Stable: of the same quality, the first one wins.
    all.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    all
}

fn encoding(media_type: &str) -> Option<Encoding> {
    Some(match media_type.to_ascii_lowercase().as_str() {
        "application/json" | "*/*" | "application/*" => Encoding::Json,
        "application/yaml" => Encoding::Yaml,
        "application/vnd.kubernetes.protobuf" => Encoding::Protobuf,
        _ => return None,
    })
}

/// Chooses the form of an answer. `list` says whether it is a collection.
///
/// # Errors
/// 406 where nothing fits.
pub(crate) fn accept(header: &str, list: bool) -> Result<Accepted, Status> {
    if header.trim().is_empty() {
        return Ok(Accepted {
            encoding: Encoding::Json,
            shape: Shape::Whole,
        });
    }
    for choice in choices(header) {
        let Some(encoding) = encoding(choice.media_type) else {
            continue;
        };
        let meta = choice.parameter("g") == "meta.k8s.io"
            && matches!(choice.parameter("v"), "v1" | "v1beta1");
        let shape = match choice.parameter("as") {
            "" => Shape::Whole,
            "Table" if meta && encoding != Encoding::Protobuf => Shape::Table,
            "PartialObjectMetadata" if meta && !list => Shape::Metadata,
            "PartialObjectMetadataList" if meta && list => Shape::Metadata,
            // A watch of metadata names the single object.
            _ => continue,
        };
        return Ok(Accepted { encoding, shape });
    }
    Err(not_acceptable())
}

/// 406 with what there is.
fn not_acceptable() -> Status {
    Status::failure(
        406,
        reason::NOT_ACCEPTABLE,
        "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, \
         application/vnd.kubernetes.protobuf, application/json;stream=watch, \
         application/vnd.kubernetes.protobuf;stream=watch",
    )
    .with_details(StatusDetails::default())
}

/// Chooses the form of a watch's events.
///
/// # Errors
/// 406 where nothing fits.
pub(crate) fn accept_watch(header: &str) -> Result<Accepted, Status> {
    // YAML has no form for streams.
    let streamable: Vec<&str> = header
        .split(',')
        .filter(|choice| {
            let media_type = choice.split(';').next().unwrap_or_default();
            encoding(media_type.trim()) != Some(Encoding::Yaml)
        })
        .collect();
    if streamable.is_empty() {
        return Err(not_acceptable());
    }
    let streams = streamable.join(",");
    accept(&streams, false).or_else(|_| accept(&streams, true))
}

/// The media type of a header, without its parameters.
pub(crate) fn media_type(header: &str) -> String {
    let media_type = header.split(';').next().unwrap_or_default();
    media_type.trim().to_ascii_lowercase()
}

/// The encoding of a request's body.
///
/// # Errors
/// 415 for one that is not known.
pub(crate) fn content_type(header: &str) -> Result<Encoding, Status> {
    match media_type(header).as_str() {
        "" | "application/json" => Ok(Encoding::Json),
        "application/yaml" => Ok(Encoding::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(Encoding::Protobuf),
        _ => Err(unsupported(&[
            "application/json",
            "application/yaml",
            "application/vnd.kubernetes.protobuf",
        ])),
    }
}

/// 415 with what is known.
pub(crate) fn unsupported(accepted: &[&str]) -> Status {
    Status::failure(
        415,
        reason::UNSUPPORTED_MEDIA_TYPE,
        format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_what_they_prefer() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(accept(kubectl, true).unwrap().shape, Shape::Table);
        let typed = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(accept(typed, false).unwrap().encoding, Encoding::Protobuf);
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
        assert_eq!(
            accept(metadata, true).unwrap(),
            Accepted {
                encoding: Encoding::Protobuf,
                shape: Shape::Metadata
            }
        );
        assert_eq!(
            accept("text/html;q=0.9, */*;q=0.1", false)
                .unwrap()
                .encoding,
            Encoding::Json
        );
        assert_eq!(accept("text/foo", false).unwrap_err().code, 406);
        assert_eq!(accept_watch("application/yaml").unwrap_err().code, 406);
        let either = accept_watch("application/yaml, application/json").unwrap();
        assert_eq!(either.encoding, Encoding::Json);
        assert_eq!(
            content_type("Application/JSON; charset=utf-8"),
            Ok(Encoding::Json)
        );
        assert_eq!(accept_watch("").unwrap().encoding, Encoding::Json);
        assert_eq!(
            accept("application/yaml;q=0.5,application/json;q=0.4", false)
                .unwrap()
                .encoding,
            Encoding::Yaml
        );
    }
}
