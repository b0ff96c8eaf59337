//! Requests as bytes: what kubectl never sends, and what it does not show.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use orlop::core::env::Env;
use orlop::wire::kubeconfig::{ClientConfig, Credentials};
use orlop::wire::remote::RemoteClient;
use serde_json::Value;

use super::Server;

/// A client of a server that says exactly what it is told.
pub(crate) struct Raw {
    client: RemoteClient,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// The JSON documents of a watch, one a line.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.text()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The `message` of a `Status`, after its code was checked.
    #[track_caller]
    pub(crate) fn refusal(&self, code: u16) -> String {
        assert_eq!(self.status, code, "{:?}", self.body);
        let status = self.json();
        assert_eq!(
            (&status["kind"], &status["code"]),
            (&Value::from("Status"), &Value::from(code))
        );
        status["message"].as_str().unwrap_or_default().to_owned()
    }
}

impl Raw {
    /// The administrator.
    pub(crate) fn admin(server: &Server) -> Self {
        Self::with(&server.config())
    }

    /// Somebody with nothing but this.
    pub(crate) fn with_credentials(server: &Server, credentials: Credentials) -> Self {
        let mut config = server.config();
        config.credentials = credentials;
        Self::with(&config)
    }

    fn with(config: &ClientConfig) -> Self {
        Self {
            client: RemoteClient::new(config, &Env::tokio()).unwrap(),
        }
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self
            .client
            .send(request.body(body.into()).unwrap())
            .await
            .unwrap();
        let (parts, body) = response.into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(
            Method::POST,
            path,
            &[("content-type", "application/json")],
            body.to_string(),
        )
        .await
    }
}
