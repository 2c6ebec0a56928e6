//! Requests as clients make them, and the replies they get.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;

/// Somebody who signs in: a role, and a name for the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Who<'a> {
    pub role: &'a str,
    pub subject: &'a str,
}

impl<'a> Who<'a> {
    pub const fn new(role: &'a str, subject: &'a str) -> Self {
        Self { role, subject }
    }
}

pub const ADMIN: Who<'static> = Who::new("admin", "ann");
pub const SECOND_ADMIN: Who<'static> = Who::new("admin", "ben");
pub const MANAGER: Who<'static> = Who::new("program-manager", "mia");
pub const REVIEWER: Who<'static> = Who::new("reviewer", "rita");
pub const APPROVER: Who<'static> = Who::new("approver", "paul");
pub const FINANCE: Who<'static> = Who::new("finance", "fay");
pub const ANALYST: Who<'static> = Who::new("analyst", "al");

/// A request, built up step by step. Paths are below `/api/v1` unless they start with `/webhooks`.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Request {
    pub fn new(method: Method, path: &str) -> Self {
        let path = if path.starts_with("/webhooks/") { path.to_owned() } else { format!("/api/v1{path}") };
        Self { method, path, headers: HeaderMap::new(), body: Bytes::new() }
    }

    pub fn get(path: &str) -> Self {
        Self::new(Method::GET, path)
    }

    pub fn post(path: &str, body: &Value) -> Self {
        Self::new(Method::POST, path).header("content-type", "application/json").body(body.to_string())
    }

    pub fn patch(path: &str, body: &Value) -> Self {
        Self::new(Method::PATCH, path).header("content-type", "application/json").body(body.to_string())
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().unwrap();
        self.headers.insert(name, HeaderValue::from_str(value).unwrap());
        self
    }

    /// The same request to a path as it is, outside of `/api/v1`.
    #[must_use]
    pub fn at(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// The value of a header that is set.
    pub fn header_of(&self, name: &str) -> String {
        self.headers[name].to_str().unwrap().to_owned()
    }

    #[must_use]
    pub fn token(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }
}

/// An answer; its body is null where it is not JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    pub body: Value,
}

impl Reply {
    /// The body of a success.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!((200..300).contains(&self.status), "{} {}", self.status, self.text);
        self.body
    }

    #[track_caller]
    pub fn refused(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }

    /// The fields a problem names.
    pub fn pointers(&self) -> Vec<&str> {
        let errors = self.body["errors"].as_array().into_iter().flatten();
        errors.filter_map(|error| error["pointer"].as_str()).collect()
    }
}
