//! Answers about one object, and `If-Match`, by which a change is made only of what the caller has seen.

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

/// `If-Match`: left out, or a `*`, is any.
#[derive(Debug)]
pub enum IfMatch {
    Any,
    Tags(Vec<String>),
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get(IF_MATCH) else { return Ok(Self::Any) };
        let malformed = || Problem::malformed("", "If-Match is * or a list of tags, each in quotes as its ETag was");
        let value = value.to_str().map_err(|_| malformed())?.trim();
        if value == "*" { Ok(Self::Any) } else { tags(value).map(Self::Tags).ok_or_else(malformed) }
    }
}

/// The tags of a list as RFC 9110 writes it, which may have none; `None` of anything else.
fn tags(mut list: &str) -> Option<Vec<String>> {
    let mut tags = Vec::new();
    if list.is_empty() {
        return Some(tags);
    }
    loop {
        let (tag, rest) = list.strip_prefix("W/").unwrap_or(list).strip_prefix('"')?.split_once('"')?;
        if !tag.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        tags.push(list[..list.len() - rest.len()].to_owned());
        let rest = rest.trim_start();
        if rest.is_empty() {
            return Some(tags);
        }
        list = rest.strip_prefix(',')?.trim_start();
    }
}

impl IfMatch {
    /// Refuses unless the header is left out, names this tag among others, or is `*`.
    pub fn check(&self, tag: &str) -> Result<(), Problem> {
        match self {
            Self::Tags(seen) if !seen.iter().any(|seen| seen == tag) => {
                Err(Refusal::Stale(vec![format!("its ETag is {tag}")]).into())
            }
            Self::Any | Self::Tags(_) => Ok(()),
        }
    }

    /// The same of a version. It is returned where it must still be so when the change is written.
    pub fn check_version(&self, version: u32) -> Result<Option<u32>, Problem> {
        self.check(&tag(version))?;
        Ok(matches!(self, Self::Tags(_)).then_some(version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_as_they_are_written() {
        for (list, expect) in [
            (r#""2""#, Some(vec![r#""2""#])),
            (r#""a,b" ,  W/"2""#, Some(vec![r#""a,b""#, r#"W/"2""#])),
            (r#""""#, Some(vec![r#""""#])),
            ("", Some(vec![])),
            ("2", None),
            (r#""2"#, None),
            (r#""2" "3""#, None),
            (r#""2","#, None),
            (r#""2 3""#, None),
            (r#"*, "2""#, None),
        ] {
            let expect = expect.map(|tags| tags.into_iter().map(str::to_owned).collect());
            assert_eq!(tags(list), expect, "{list}");
        }
    }
}
