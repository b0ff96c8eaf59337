//! Which form of discovery a client asks for.

/// A form of the documents at `/api` and `/apis`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One document for each level, as since the beginning.
    Plain,
    /// Everything in one document, `apidiscovery.k8s.io/v2`.
    V2,
    /// The same under its older name, `apidiscovery.k8s.io/v2beta1`.
    V2Beta1,
}

impl Form {
    /// The media type of an answer in this form.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Plain => "application/json",
            Self::V2 => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            Self::V2Beta1 => {
                "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
            }
        }
    }

    /// The first form that an `Accept` header names and that can be served as JSON; the plain one without a header.
    /// `None` when nothing of it can be served as JSON.
    #[must_use]
    pub fn negotiate(accept: Option<&str>) -> Option<Self> {
        let accept = accept.map(str::trim).filter(|accept| !accept.is_empty());
        let Some(accept) = accept else {
            return Some(Self::Plain);
        };
        accept.split(',').find_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            if !matches!(
                parts.next(),
                Some("application/json" | "application/*" | "*/*")
            ) {
                return None;
            }
            let (mut group, mut version, mut kind) = (None, None, None);
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                match name.trim() {
                    "g" => group = Some(value.trim()),
                    "v" => version = Some(value.trim()),
                    "as" => kind = Some(value.trim()),
                    "q" if value.trim().trim_end_matches(['0', '.']).is_empty() => return None,
                    _ => {}
                }
            }
            match (group, version, kind) {
                (None, None, None) => Some(Self::Plain),
                (Some("apidiscovery.k8s.io"), Some("v2"), Some("APIGroupDiscoveryList")) => {
                    Some(Self::V2)
                }
                (Some("apidiscovery.k8s.io"), Some("v2beta1"), Some("APIGroupDiscoveryList")) => {
                    Some(Self::V2Beta1)
                }
                _ => None,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_can_be_served() {
        let kubectl = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
            application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert_eq!(Form::negotiate(Some(kubectl)), Some(Form::V2));
        assert_eq!(
            Form::negotiate(Some(Form::V2Beta1.media_type())),
            Some(Form::V2Beta1)
        );
        assert_eq!(
            Form::negotiate(Some("application/vnd.kubernetes.protobuf, */*")),
            Some(Form::Plain)
        );
        assert_eq!(
            Form::negotiate(Some(
                "application/json;g=apidiscovery.k8s.io;v=v3;as=APIGroupDiscoveryList,application/json"
            )),
            Some(Form::Plain)
        );
        assert_eq!(Form::negotiate(None), Some(Form::Plain));
        assert_eq!(Form::negotiate(Some("text/foo")), None);
        assert_eq!(Form::negotiate(Some("application/json;q=0")), None);
        assert_eq!(
            Form::negotiate(Some("application/json;q=0.5")),
            Some(Form::Plain)
        );
    }
}
