//! What is asked of a container or a port, read from a query: `PodLogOptions`, `PodExecOptions`, `PodAttachOptions`,
//! `PodPortForwardOptions`, and the path behind a proxy.

use jiff::Timestamp;
use orlop_core::field::{FieldError, Path, quote};
use orlop_core::status::Status;
use serde_json::{Value, json};

use crate::http::{Query, percent_encode, percent_encode_path};

/// A whole number in a query, in the words of Kubernetes where it is none.
fn number(query: &Query, name: &str) -> Result<Option<i64>, Status> {
    if !query.has(name) {
        return Ok(None);
    }
    let text = query.get(name);
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => {
            let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
            let why = if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
                "value out of range"
            } else {
                "invalid syntax"
            };
            Err(Status::bad_request(format!(
                "strconv.ParseInt: parsing {}: {why}",
                quote(text)
            )))
        }
    }
}

/// A query being written.
#[derive(Default)]
struct Parameters(String);

impl Parameters {
    fn add(&mut self, name: &str, value: &str) {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(&percent_encode(name));
        self.0.push('=');
        self.0.push_str(&percent_encode(value));
    }
}

/// What is wanted of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LogOptions {
    pub(super) container: String,
    follow: bool,
    previous: bool,
    timestamps: bool,
    since_seconds: Option<i64>,
    since_time: Option<Timestamp>,
    tail_lines: Option<i64>,
    limit_bytes: Option<i64>,
    stream: Option<String>,
}

impl LogOptions {
    pub(super) fn parse(query: &Query) -> Result<Self, Status> {
        let since = query.get("sinceTime");
        let since_time = match since {
            "" | "null" => None,
            text => Some(text.parse().map_err(|_| {
                Status::bad_request(format!(
                    "parsing time {0} as \"2006-01-02T15:04:05Z07:00\": cannot parse {0} as \"2006\"",
                    quote(text)
                ))
            })?),
        };
        Ok(Self {
            container: query.get("container").to_owned(),
            follow: query.flag("follow"),
            previous: query.flag("previous"),
            timestamps: query.flag("timestamps"),
            since_seconds: number(query, "sinceSeconds")?,
            since_time,
            tail_lines: number(query, "tailLines")?,
            limit_bytes: number(query, "limitBytes")?,
            stream: query
                .has("stream")
                .then(|| query.get("stream").to_owned())
                .filter(|stream| !stream.is_empty()),
        })
    }

    pub(super) fn validate(&self, name: &str) -> Result<(), Status> {
        let mut errors = Vec::new();
        if let Some(lines) = self.tail_lines.filter(|lines| *lines < 0) {
            let path = Path::new("tailLines");
            let why = "must be greater than or equal to 0";
            errors.push(FieldError::invalid(&path, lines, why));
        }
        if let Some(limit) = self.limit_bytes.filter(|limit| *limit < 1) {
            let path = Path::new("limitBytes");
            errors.push(FieldError::invalid(&path, limit, "must be greater than 0"));
        }
        match self.since_seconds {
            Some(_) if self.since_time.is_some() => errors.push(FieldError::forbidden(
                &Path::new(""),
                "at most one of `sinceTime` or `sinceSeconds` may be specified",
            )),
            Some(seconds) if seconds < 1 => {
                let path = Path::new("sinceSeconds");
                errors.push(FieldError::invalid(
                    &path,
                    seconds,
                    "must be greater than 0",
                ));
            }
            _ => {}
        }
        match self.stream.as_deref() {
            None | Some("All") => {}
            Some("Stdout" | "Stderr") if self.tail_lines.is_none() => {}
            Some("Stdout" | "Stderr") => errors.push(FieldError::forbidden(
                &Path::new(""),
                "`tailLines` and specific `stream` are mutually exclusive for now",
            )),
            Some(other) => errors.push(FieldError::not_supported(
                &Path::new("stream"),
                other,
                &["All", "Stderr", "Stdout"],
            )),
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Status::invalid("", "PodLogOptions", name, &errors))
        }
    }

    /// A path of a kubelet with these options.
    pub(super) fn uri(&self, path: &str) -> String {
        let mut parameters = Parameters::default();
        let flags = [
            ("follow", self.follow),
            ("previous", self.previous),
            ("timestamps", self.timestamps),
        ];
        for (name, _) in flags.into_iter().filter(|(_, on)| *on) {
            parameters.add(name, "true");
        }
        if let Some(since) = self.since_time {
            // Whole seconds, as Kubernetes passes them on.
            let since = Timestamp::from_second(since.as_second()).unwrap_or(since);
            parameters.add("sinceTime", &since.to_string());
        }
        let numbers = [
            ("sinceSeconds", self.since_seconds),
            ("tailLines", self.tail_lines),
            ("limitBytes", self.limit_bytes),
        ];
        for (name, number) in numbers {
            if let Some(number) = number {
                parameters.add(name, &number.to_string());
            }
        }
        if let Some(stream) = self.stream.as_deref().filter(|stream| *stream != "All") {
            parameters.add("stream", stream);
        }
        format!("{path}{}", parameters.0)
    }
}

/// What is wanted of a container's streams, or of a pod's ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StreamOptions {
    /// A command's, or those of the container's own program.
    Process {
        /// Whether it is the container's own program.
        attach: bool,
        container: String,
        command: Vec<String>,
        stdin: bool,
        stdout: bool,
        stderr: bool,
        tty: bool,
    },
    /// Ports', which may also be named later, stream by stream.
    Ports(Vec<i32>),
}

impl StreamOptions {
    /// Reads the options of a subresource.
    pub(super) fn parse(subresource: &str, query: &Query) -> Result<Self, Status> {
        if subresource == "portforward" {
            let ports = query.all("ports").iter().flat_map(|text| text.split(','));
            let ports: Result<Vec<i32>, Status> = ports
                .map(|text| {
                    text.parse().map_err(|_| {
                        Status::bad_request(format!(
                            "strconv.ParseInt: parsing {}: invalid syntax",
                            quote(text)
                        ))
                    })
                })
                .collect();
            return Ok(Self::Ports(ports?));
        }
        Ok(Self::Process {
            attach: subresource == "attach",
            container: query.get("container").to_owned(),
            command: query.all("command").to_vec(),
            stdin: query.flag("stdin"),
            stdout: query.flag("stdout"),
            stderr: query.flag("stderr"),
            tty: query.flag("tty"),
        })
    }

    /// The options as the object that admission sees.
    pub(super) fn document(&self) -> Value {
        match self {
            Self::Ports(ports) => {
                json!({"apiVersion": "v1", "kind": "PodPortForwardOptions", "ports": ports})
            }
            Self::Process {
                attach,
                container,
                command,
                stdin,
                stdout,
                stderr,
                tty,
            } => {
                let kind = if *attach {
                    "PodAttachOptions"
                } else {
                    "PodExecOptions"
                };
                let mut document = json!({"apiVersion": "v1", "kind": kind});
                let flags = [
                    ("stdin", stdin),
                    ("stdout", stdout),
                    ("stderr", stderr),
                    ("tty", tty),
                ];
                for (name, _) in flags.into_iter().filter(|(_, on)| **on) {
                    document[name] = true.into();
                }
                if !container.is_empty() {
                    document["container"] = container.as_str().into();
                }
                if !attach {
                    document["command"] = command.as_slice().into();
                }
                document
            }
        }
    }

    /// The options that admission made of these.
    pub(super) fn admitted(&self, document: Value) -> Result<Self, Status> {
        let numbers = |name: &str| -> Option<Vec<i32>> {
            let values = document.get(name)?.as_array()?;
            values
                .iter()
                .map(|value| value.as_i64().and_then(|number| number.try_into().ok()))
                .collect()
        };
        let flag = |name: &str| document.get(name).and_then(Value::as_bool).unwrap_or(false);
        match self {
            Self::Ports(_) => numbers("ports")
                .map(Self::Ports)
                .ok_or_else(|| Status::internal("admission made nonsense of the ports")),
            Self::Process { attach, .. } => Ok(Self::Process {
                attach: *attach,
                container: document
                    .get("container")
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned(),
                command: document
                    .get("command")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .filter_map(|word| word.as_str().map(str::to_owned))
                    .collect(),
                stdin: flag("stdin"),
                stdout: flag("stdout"),
                stderr: flag("stderr"),
                tty: flag("tty"),
            }),
        }
    }

    /// The container that is asked for, if it is one's (empty for the only one).
    pub(super) fn container(&self) -> Option<&str> {
        match self {
            Self::Process { container, .. } => Some(container),
            Self::Ports(_) => None,
        }
    }

    /// The first word of the kubelet's path.
    pub(super) fn endpoint(&self) -> &'static str {
        match self {
            Self::Process { attach: true, .. } => "attach",
            Self::Process { attach: false, .. } => "exec",
            Self::Ports(_) => "portForward",
        }
    }

    /// A path of a kubelet with these options, by the names that kubelets know.
    pub(super) fn uri(&self, path: &str) -> String {
        let mut parameters = Parameters::default();
        match self {
            Self::Ports(ports) => {
                let ports: Vec<String> = ports.iter().map(i32::to_string).collect();
                if !ports.is_empty() {
                    parameters.add("port", &ports.join(","));
                }
            }
            Self::Process {
                command,
                stdin,
                stdout,
                stderr,
                tty,
                ..
            } => {
                for word in command {
                    parameters.add("command", word);
                }
                let flags = [
                    ("input", stdin),
                    ("output", stdout),
                    ("error", stderr),
                    ("tty", tty),
                ];
                for (name, _) in flags.into_iter().filter(|(_, on)| **on) {
                    parameters.add(name, "1");
                }
            }
        }
        format!("{path}{}", parameters.0)
    }
}

/// The kind of a proxy's options, by the resource that is reached.
pub(super) fn proxy_kind(plural: &str) -> &'static str {
    match plural {
        "pods" => "PodProxyOptions",
        "services" => "ServiceProxyOptions",
        _ => "NodeProxyOptions",
    }
}

/// A proxy's options, as the object that admission sees. The path has no escapes there.
pub(super) fn proxy_document(kind: &str, path: &str) -> Value {
    let plain = crate::http::percent_decode(path).unwrap_or_else(|| path.to_owned());
    json!({"apiVersion": "v1", "kind": kind, "path": plain})
}

/// The path behind the proxy: as the client wrote it, unless admission has changed it.
pub(super) fn proxy_path(document: &Value, asked: String) -> String {
    let now = document
        .get("path")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if crate::http::percent_decode(&asked).as_deref() == Some(now) {
        asked
    } else {
        percent_encode_path(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(query: &str) -> Result<String, Status> {
        let options = LogOptions::parse(&Query::parse(query))?;
        options.validate("web")?;
        Ok(options.uri("/l"))
    }

    #[test]
    fn log_options_reach_the_kubelet() {
        assert_eq!(log("container=c").unwrap(), "/l");
        assert_eq!(
            log("follow=true&previous=false&timestamps&tailLines=0").unwrap(),
            "/l?follow=true&timestamps=true&tailLines=0"
        );
        assert_eq!(
            log("sinceTime=2026-01-02T03:04:05.5%2B01:00&limitBytes=7").unwrap(),
            "/l?sinceTime=2026-01-02T02%3A04%3A05Z&limitBytes=7"
        );
        assert_eq!(log("stream=All&tailLines=1").unwrap(), "/l?tailLines=1");
        assert_eq!(log("stream=Stderr").unwrap(), "/l?stream=Stderr");
    }

    #[test]
    fn log_options_are_refused_in_known_words() {
        for (query, code, message) in [
            (
                "tailLines=x",
                400,
                "strconv.ParseInt: parsing \"x\": invalid syntax",
            ),
            (
                "tailLines=99999999999999999999",
                400,
                "strconv.ParseInt: parsing \"99999999999999999999\": value out of range",
            ),
            (
                "tailLines=-1",
                422,
                "PodLogOptions \"web\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                "limitBytes=0",
                422,
                "PodLogOptions \"web\" is invalid: limitBytes: Invalid value: 0: must be greater than 0",
            ),
            (
                "sinceSeconds=0",
                422,
                "PodLogOptions \"web\" is invalid: sinceSeconds: Invalid value: 0: must be greater than 0",
            ),
        ] {
            let status = log(query).unwrap_err();
            assert_eq!((status.code, status.message.as_str()), (code, message));
        }
        for (query, words) in [
            (
                "sinceSeconds=1&sinceTime=2026-01-02T03:04:05Z",
                "at most one of `sinceTime` or `sinceSeconds` may be specified",
            ),
            ("stream=Both", "Unsupported value: \"Both\""),
            ("stream=Stdout&tailLines=1", "mutually exclusive"),
        ] {
            let status = log(query).unwrap_err();
            assert_eq!(status.code, 422);
            assert!(status.message.contains(words), "{}", status.message);
        }
        assert_eq!(log("sinceTime=soon").unwrap_err().code, 400);
    }

    #[test]
    fn streams_reach_the_kubelet_by_its_own_names() {
        let exec = "container=c&command=sh&command=-c&command=echo+%22a%26b%22&stdin=true&stdout=1&stderr=false&tty=true";
        let options = StreamOptions::parse("exec", &Query::parse(exec)).unwrap();
        assert_eq!(
            options.uri("/exec/n/p/c"),
            "/exec/n/p/c?command=sh&command=-c&command=echo%20%22a%26b%22&input=1&output=1&tty=1"
        );
        assert_eq!(options.admitted(options.document()).unwrap(), options);
        let ports = StreamOptions::parse("portforward", &Query::parse("ports=80,81&ports=82"));
        let ports = ports.unwrap();
        assert_eq!(ports.uri("/p"), "/p?port=80%2C81%2C82");
        assert_eq!(ports.admitted(ports.document()).unwrap(), ports);
        let bad = StreamOptions::parse("portforward", &Query::parse("ports=http"));
        assert_eq!(bad.unwrap_err().code, 400);
    }

    #[test]
    fn a_path_keeps_its_escapes() {
        let document = proxy_document("PodProxyOptions", "/a%2Fb/c");
        assert_eq!(document["path"], "/a/b/c");
        assert_eq!(proxy_path(&document, "/a%2Fb/c".to_owned()), "/a%2Fb/c");
        let other = json!({"path": "/x y"});
        assert_eq!(proxy_path(&other, "/a".to_owned()), "/x%20y");
    }
}
