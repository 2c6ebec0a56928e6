//! What requests bring: bodies, ids and queries, refused precisely where they are wrong.

use std::convert::Infallible;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use domain::money::{Currency, Minor};
use domain::rules::FieldError;
use serde::de::DeserializeOwned;

use crate::problem::Problem;

/// A JSON body, or why it is none: told only when it is asked for, so that a handler checks the caller's role first.
#[derive(Debug)]
pub struct Body<T>(Result<T, Problem>);

impl<T> Body<T> {
    pub fn get(self) -> Result<T, Problem> {
        self.0
    }
}

/// A JSON body that may be left out: then it is the empty object.
#[derive(Debug)]
pub struct OptionalBody<T>(Result<T, Problem>);

impl<T> OptionalBody<T> {
    pub fn get(self) -> Result<T, Problem> {
        self.0
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for OptionalBody<T> {
    type Rejection = Infallible;

    async fn from_request(request: Request, state: &S) -> Result<Self, Infallible> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| unreadable(&rejection));
        Ok(Self(bytes.and_then(|bytes| parse(if bytes.is_empty() { b"{}" } else { &bytes }))))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Infallible;

    async fn from_request(request: Request, state: &S) -> Result<Self, Infallible> {
        Ok(Self(raw(request, state, is_json, Problem::not_json).await.and_then(|bytes| parse(&bytes))))
    }
}

/// The bytes of a JSON body, for what reads them by itself.
#[derive(Debug)]
pub struct RawJson(Result<Bytes, Problem>);

impl RawJson {
    pub fn get(self) -> Result<Bytes, Problem> {
        self.0
    }
}

impl<S: Send + Sync> FromRequest<S> for RawJson {
    type Rejection = Infallible;

    async fn from_request(request: Request, state: &S) -> Result<Self, Infallible> {
        Ok(Self(raw(request, state, is_json, Problem::not_json).await))
    }
}

/// The bytes of a body of the right content type.
pub async fn raw<S: Send + Sync>(
    request: Request,
    state: &S,
    is_right: fn(&str) -> bool,
    wrong: fn() -> Problem,
) -> Result<Bytes, Problem> {
    if !is_right(&content_type(request.headers())) {
        return Err(wrong());
    }
    Bytes::from_request(request, state).await.map_err(|rejection| unreadable(&rejection))
}

fn content_type(headers: &HeaderMap) -> String {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn is_json(kind: &str) -> bool {
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

fn unreadable(rejection: &BytesRejection) -> Problem {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        Problem::too_large()
    } else {
        Problem::malformed("", "the body broke off")
    }
}

pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // Serde would also take a list, as the fields in the order they are declared in; and it reads over what it has no field for, even
    // where that is no text (half of a surrogate pair, which RFC 8259, section 8.2, calls unpredictable).
    let mut whole = serde_json::from_slice::<serde_json::Value>(bytes);
    let mut rewritten = None;
    if let Ok(body) = &mut whole {
        if let Some(pointer) = list_for_object("", "", body) {
            return Err(Problem::malformed(pointer, "must be an object, not a list"));
        }
        rewritten = written_whole(body).then(|| body.to_string().into_bytes());
    }
    let mut deserializer = serde_json::Deserializer::from_slice(rewritten.as_deref().unwrap_or(bytes));
    let parsed = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let pointer = if path == "." { String::new() } else { pointer(&path) };
        Problem::malformed(pointer, error.into_inner().to_string())
    })?;
    deserializer.end().map_err(|_| Problem::malformed("", "something follows the JSON value"))?;
    whole.map_err(|error| Problem::malformed("", error.to_string()))?;
    Ok(parsed)
}

/// To JSON Schema, and to some clients, `2.0` is an integer like `2`. Whether there was one.
fn written_whole(value: &mut serde_json::Value) -> bool {
    match value {
        serde_json::Value::Number(number) => {
            let integer = number.to_string().strip_suffix(".0").and_then(|text| text.parse::<i64>().ok());
            integer.inspect(|integer| *value = (*integer).into()).is_some()
        }
        serde_json::Value::Array(entries) => {
            entries.iter_mut().map(written_whole).filter(|written| *written).count() > 0
        }
        serde_json::Value::Object(fields) => {
            fields.values_mut().map(written_whole).filter(|written| *written).count() > 0
        }
        _ => false,
    }
}

/// Fields of bodies that hold an object, as `/amount`. Entries of a list have its name with `[]`, and the body itself has none.
const OBJECTS: &[&str] = include!(concat!(env!("OUT_DIR"), "/objects.rs"));

/// Where there is a list in the place of an object.
fn list_for_object(pointer: &str, name: &str, value: &serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::Array(_) if OBJECTS.contains(&name) => Some(pointer.to_owned()),
        serde_json::Value::Array(entries) => {
            let mut entries = entries.iter().enumerate();
            entries.find_map(|(n, entry)| list_for_object(&format!("{pointer}/{n}"), &format!("{name}[]"), entry))
        }
        serde_json::Value::Object(fields) => {
            let mut fields = fields.iter();
            fields.find_map(|(name, field)| list_for_object(&format!("{pointer}/{name}"), &format!("/{name}"), field))
        }
        _ => None,
    }
}

/// `rules[0].reward` as `/rules/0/reward`.
fn pointer(path: &str) -> String {
    format!("/{}", path.replace("].", "/").replace(['.', '['], "/").replace(']', ""))
}

/// An id in the path. A malformed one names nothing, like an unknown one.
#[derive(Debug)]
pub struct Id<T>(pub T);

impl<T, S> FromRequestParts<S> for Id<T>
where
    T: std::str::FromStr + Send,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = Path::<String>::from_request_parts(parts, state).await.map(|Path(text)| text);
        let id = text.ok().and_then(|text| text.parse().ok());
        id.map(Self).ok_or_else(|| Problem::not_found("resource"))
    }
}

/// An id in the path, and the number or the name of something of it. What is malformed names nothing here, too.
#[derive(Debug)]
pub struct PartOf<T, P>(pub T, pub P);

impl<T, P, S> FromRequestParts<S> for PartOf<T, P>
where
    T: std::str::FromStr + Send,
    P: std::str::FromStr + Send,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await.map(|Path(path)| path);
        let both = path.ok().and_then(|(id, part)| Some(Self(id.parse().ok()?, part.parse().ok()?)));
        both.ok_or_else(|| Problem::not_found("resource"))
    }
}

/// What a query asks for. That it has no parameter which is not known, `document` sees to.
#[derive(Debug)]
pub struct Filter<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Filter<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(filter)) => Ok(Self(filter)),
            Err(rejection) => Err(Problem::malformed("", rejection.body_text())),
        }
    }
}

const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 100;

/// Which page of a list is wanted.
#[derive(Debug)]
pub struct Paging {
    pub limit: usize,
    pub cursor: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Paging {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut paging = Self { limit: DEFAULT_LIMIT, cursor: None };
        for (name, value) in form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()) {
            match &*name {
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
                    let range = || Problem::malformed("", format!("limit must be from 1 to {MAX_LIMIT}"));
                    paging.limit = limit.ok_or_else(range)?;
                }
                "cursor" => paging.cursor = Some(value.into_owned()),
                _ => {}
            }
        }
        Ok(paging)
    }
}

/// Collects refusals of fields, so that a caller learns all of them at once.
#[derive(Debug, Default)]
pub struct Fields(Vec<FieldError>);

impl Fields {
    pub fn refuse(&mut self, pointer: &str, detail: impl Into<String>) {
        self.0.push(FieldError::new(pointer, detail));
    }

    pub fn check(&mut self, fine: bool, pointer: &str, detail: &str) {
        if !fine {
            self.refuse(pointer, detail);
        }
    }

    /// The value, or its refusal and nothing.
    pub fn take<T, E: std::fmt::Display>(&mut self, pointer: &str, parsed: Result<T, E>) -> Option<T> {
        parsed.map_err(|error| self.refuse(pointer, error.to_string())).ok()
    }

    /// An amount that is not negative.
    pub fn amount(&mut self, pointer: &str, text: &str, currency: Currency) -> Minor {
        let amount = self.take(pointer, Minor::parse(text, currency)).unwrap_or_default();
        self.check(!amount.is_negative(), pointer, "must not be negative");
        amount
    }

    /// Text a person wrote: not empty, not endless.
    pub fn text(&mut self, pointer: &str, text: &str) -> String {
        let text = text.trim();
        self.check((1..=200).contains(&text.chars().count()), pointer, "needs 1 to 200 characters");
        text.to_owned()
    }

    pub fn done(self) -> Result<(), Problem> {
        if self.0.is_empty() { Ok(()) } else { Err(Problem::invalid(self.0)) }
    }
}

/// Ends a request that was parsed field by field.
pub fn finish<T>(fields: Fields, value: Option<T>) -> Result<T, Problem> {
    fields.done()?;
    value.ok_or_else(|| Problem::malformed("", "a field is missing"))
}
