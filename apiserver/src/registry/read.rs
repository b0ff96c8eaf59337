//! GET: of one object and of a collection.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use orlop_api::fields;
use orlop_core::client::{Freshness, ListOptions};
use orlop_core::object::Object;
use orlop_core::revision::Revision;
use orlop_core::selector::{field, label};
use orlop_core::status::Status;
use orlop_core::store::{KeyRange, RangeRequest, StoreError};
use serde::{Deserialize, Serialize};

use super::context::At;
use super::{Registry, keys, storage_kind};
use crate::cache::{Selection, store_status};

/// How many objects are read from the store at once while a page is looked for.
const CHUNK: usize = 1_000;

/// A page of a collection.
#[derive(Debug, Default)]
pub(crate) struct ListPage {
    /// The objects, as they are stored.
    pub(crate) items: Vec<Object>,
    /// The revision that the list shows.
    pub(crate) revision: Revision,
    /// Where the next page begins; empty on the last.
    pub(crate) continue_token: String,
    /// How many come after, where that is known.
    pub(crate) remaining: Option<u64>,
}

/// What a continue token says.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Token {
    v: String,
    /// The revision of the list; -1 for "whatever is there now".
    rv: i64,
    /// The key to begin at, relative to the collection.
    start: String,
}

const TOKEN_VERSION: &str = "meta.k8s.io/v1";

impl Token {
    fn encode(revision: i64, last: &str) -> String {
        // The next possible key is the last one with a zero byte behind it.
        let token = Token {
            v: TOKEN_VERSION.to_owned(),
            rv: revision,
            start: format!("/{last}\0"),
        };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
    }

    fn decode(text: &str) -> Result<Self, Status> {
        let refuse = |why: String| {
            Status::bad_request(format!(
                "invalid continue token: continue key is not valid: {why}"
            ))
        };
        let bytes = URL_SAFE_NO_PAD
            .decode(text.trim_end_matches('='))
            .map_err(|error| refuse(error.to_string()))?;
        let token: Token = serde_json::from_slice(&bytes).map_err(|_| {
            // What a client sees who sends text that only looks like a token.
            let first = String::from_utf8_lossy(&bytes).chars().next();
            match first {
                Some('{') => refuse("unexpected end of JSON input".to_owned()),
                Some(c) => refuse(format!(
                    "invalid character '{c}' looking for beginning of value"
                )),
                None => refuse("unexpected end of JSON input".to_owned()),
            }
        })?;
        if token.v != TOKEN_VERSION {
            return Err(refuse(format!(
                "server does not recognize this encoded version \"{}\"",
                token.v
            )));
        }
        if token.start.is_empty() {
            return Err(refuse(
                "encoded start key empty (version meta.k8s.io/v1)".to_owned(),
            ));
        }
        if token.start.split('/').any(|part| part == "..") {
            return Err(refuse(format!(
                "the encoded start key is not canonical: {}",
                token.start
            )));
        }
        Ok(token)
    }
}

impl Registry {
    /// What a list or watch selects, from its texts.
    pub(crate) fn selection(at: &At, labels: &str, fields: &str) -> Result<Arc<Selection>, Status> {
        let labels = label::Selector::parse(labels)
            .map_err(|error| Status::bad_request(error.to_string()))?;
        let parsed = field::Selector::parse(fields)
            .map_err(|error| Status::bad_request(error.to_string()))?;
        let kind = at.info.resource.gvk();
        let mut terms = Vec::new();
        for term in parsed.terms() {
            let field = fields::canonical(&kind, &term.field)
                .map_err(|error| Status::bad_request(error.to_string()))?;
            terms.push(field::Term {
                field: super::convert::stored_field(at.info, field),
                ..term.clone()
            });
        }
        if !at.name.is_empty() {
            terms.push(field::Term {
                field: "metadata.name".to_owned(),
                negated: false,
                value: at.name.clone(),
            });
        }
        let fields = field::Selector::new(terms);
        Ok(Arc::new(Selection {
            namespace: at.namespace.clone(),
            labels,
            fields,
            kind: Some(storage_kind(at.info)),
        }))
    }

    /// One object.
    pub(crate) async fn get(&self, at: &At, freshness: Freshness) -> Result<Object, Status> {
        let cache = self.cache(at.info)?;
        let found = match freshness {
            Freshness::Consistent => self.current(at.info, &at.namespace, &at.name).await?,
            Freshness::Any => cache.get(&at.namespace, &at.name),
            Freshness::NotOlderThan(revision) | Freshness::Exact(revision) => {
                self.caches.wait_for(revision).await?;
                cache.get(&at.namespace, &at.name)
            }
        };
        found.ok_or_else(|| Status::not_found(&at.info.resource, &at.name))
    }

    /// A collection, or a page of it.
    pub(crate) async fn list(&self, at: &At, options: &ListOptions) -> Result<ListPage, Status> {
        let selection = Self::selection(at, &options.label_selector, &options.field_selector)?;
        if !options.continue_token.is_empty() {
            if options.freshness != Freshness::Consistent && options.freshness != Freshness::Any {
                return Err(Status::bad_request(
                    "specifying resource version is not allowed when using continue",
                ));
            }
            let token = Token::decode(&options.continue_token)?;
            let at_revision = u64::try_from(token.rv).ok().map(Revision);
            let start = token.start.trim_start_matches('/').to_owned();
            return self
                .list_from_store(at, &selection, at_revision, Some(start), options)
                .await;
        }
        if let Freshness::Exact(revision) = options.freshness {
            return self
                .list_from_store(at, &selection, Some(revision), None, options)
                .await;
        }
        let cache = self.cache(at.info)?;
        match options.freshness {
            Freshness::Any => {}
            Freshness::NotOlderThan(revision) => self.caches.wait_for(revision).await?,
            Freshness::Consistent | Freshness::Exact(_) => {
                self.caches.wait_until_current().await?;
            }
        }
        // Read before the objects: what the list shows is not older.
        let applied = self.caches.applied();
        let mut items = cache.select(&selection);
        let newest = items.iter().map(Object::revision).max().unwrap_or_default();
        let revision = applied.max(newest);
        let selective = !selection.has_no_selectors();
        if selective {
            items.retain(|object| selection.matches(object));
        }
        let mut page = ListPage {
            items,
            revision,
            ..ListPage::default()
        };
        // A list that need not be consistent is served whole.
        let limit = if options.freshness == Freshness::Any {
            0
        } else {
            options.limit
        };
        if limit > 0 && page.items.len() > limit {
            if !selective {
                page.remaining = Some((page.items.len() - limit) as u64);
            }
            page.items.truncate(limit);
            let last = page
                .items
                .last()
                .map(|object| relative_key(at, object))
                .unwrap_or_default();
            page.continue_token =
                Token::encode(i64::try_from(revision.0).unwrap_or(i64::MAX), &last);
        }
        Ok(page)
    }

    /// A page at a revision of the past (or now, for `None`), read from the store.
    async fn list_from_store(
        &self,
        at: &At,
        selection: &Selection,
        revision: Option<Revision>,
        start: Option<String>,
        options: &ListOptions,
    ) -> Result<ListPage, Status> {
        let prefix = keys::prefix(at.info.storage());
        let collection = if at.namespace.is_empty() {
            prefix.clone()
        } else {
            format!("{prefix}{}/", at.namespace)
        };
        let range = KeyRange::prefix(collection.clone());
        // The token names the first key that may come; the store wants the last one that may not.
        let mut after =
            start.map(|start| Bytes::from(format!("{collection}{}", start.trim_end_matches('\0'))));
        let selective = !selection.has_no_selectors();
        let mut page = ListPage::default();
        let mut at_revision = revision;
        loop {
            let want = if options.limit == 0 || selective {
                CHUNK
            } else {
                options.limit
            };
            let mut request = RangeRequest::new(range.clone()).page(want, after.take());
            request.revision = at_revision;
            let chunk = self
                .store
                .range(request)
                .await
                .map_err(|error| expired(error, at, options))?;
            let shown = *at_revision.get_or_insert(chunk.revision);
            page.revision = shown;
            let more = chunk.remaining;
            let mut last_key = None;
            let count = chunk.items.len();
            for (index, kv) in chunk.items.into_iter().enumerate() {
                let object =
                    Object::from_stored(kv.value, kv.mod_revision).map_err(Status::internal)?;
                last_key = Some(kv.key.clone());
                if selection.matches(&object) {
                    page.items.push(object);
                }
                if options.limit > 0
                    && page.items.len() == options.limit
                    && (index + 1 < count || more > 0)
                {
                    let last = String::from_utf8_lossy(&kv.key[collection.len()..]).into_owned();
                    page.continue_token =
                        Token::encode(i64::try_from(shown.0).unwrap_or(i64::MAX), &last);
                    page.remaining = (!selective).then_some(more + (count - index - 1) as u64);
                    return Ok(page);
                }
            }
            if more == 0 {
                return Ok(page);
            }
            after = last_key;
        }
    }
}

/// The key of an object as a continue token of this collection names it.
fn relative_key(at: &At, object: &Object) -> String {
    if at.info.resource.namespaced && at.namespace.is_empty() {
        format!("{}/{}", object.namespace(), object.name())
    } else {
        object.name().to_owned()
    }
}

/// History no longer has the revision of the list: the client may go on with what is there now, or begin again.
fn expired(error: StoreError, at: &At, options: &ListOptions) -> Status {
    if !matches!(error, StoreError::Compacted { .. }) || options.continue_token.is_empty() {
        return store_status(error);
    }
    let mut status = Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the \
         continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing \
         with the provided token results in an inconsistent list - objects that were created, modified, or deleted between \
         the time the first chunk was returned and now may show up in the list.",
    );
    if let Ok(token) = Token::decode(&options.continue_token) {
        let start = token
            .start
            .trim_start_matches('/')
            .trim_end_matches('\0')
            .to_owned();
        status.metadata.continue_token = Token::encode(-1, &start);
    }
    tracing::debug!(resource = %at.info.resource.plural, "a continue token expired");
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_those_of_kubernetes() {
        let token = Token::encode(282, "p1");
        assert_eq!(
            token,
            "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MjgyLCJzdGFydCI6Ii9wMVx1MDAwMCJ9"
        );
        assert_eq!(Token::decode(&token).unwrap().start, "/p1\0");
        assert_eq!(
            Token::decode("abc").unwrap_err().message,
            "invalid continue token: continue key is not valid: invalid character 'i' looking for beginning of value"
        );
    }
}
