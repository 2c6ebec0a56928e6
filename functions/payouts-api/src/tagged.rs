//! Answers about one object, and `If-Match`, by which a change is made only of what the caller has seen.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::header::{ETAG, IF_MATCH};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use domain::ids::Hash;
use serde_json::Value;
use workflows::Refusal;

use crate::problem::Problem;

/// An answer about one object, with the tag that `If-Match` names it by.
#[derive(Debug)]
pub struct Tagged {
    pub tag: String,
    pub shown: Value,
}

impl Tagged {
    /// By the number that every change of it raises.
    pub fn version(version: u32, shown: Value) -> Self {
        Self { tag: tag(version), shown }
    }

    /// By what is shown, of what has no such number.
    pub fn whole(shown: Value) -> Self {
        let hash = Hash::of(shown.to_string().as_bytes());
        Self { tag: format!("\"{hash}\""), shown }
    }
}

/// The tag of a version.
pub fn tag(version: u32) -> String {
    format!("\"{version}\"")
}

impl IntoResponse for Tagged {
    fn into_response(self) -> Response {
        ([(ETAG, self.tag)], axum::Json(self.shown)).into_response()
    }
}

/// `If-Match`, if it was sent.
#[derive(Debug)]
pub struct IfMatch(Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let value = parts.headers.get(IF_MATCH).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        Ok(Self(value))
    }
}

impl IfMatch {
    /// Refuses unless the header is left out, names this tag among others, or is `*`.
    pub fn check(&self, tag: &str) -> Result<(), Problem> {
        let seen = self.0.as_deref().unwrap_or("*");
        if seen.split(',').any(|seen| seen.trim() == "*" || seen.trim() == tag) {
            Ok(())
        } else {
            Err(Refusal::Stale(vec![format!("its ETag is {tag}")]).into())
        }
    }

    /// The same of a version. It is returned where it must still be so when the change is written.
    pub fn check_version(&self, version: u32) -> Result<Option<u32>, Problem> {
        self.check(&tag(version))?;
        let any = self.0.as_deref().is_none_or(|seen| seen.split(',').any(|seen| seen.trim() == "*"));
        Ok((!any).then_some(version))
    }
}
