//! Refusals as the caller sees them: RFC 9457 problem details, with JSON pointers to the fields. Nothing internal leaks.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::rules::FieldError;
use serde::Serialize;
use store::StoreError;
use workflows::Refusal;
use workflows::ingest::NotBooked;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Stable; clients may match on it.
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub title: &'static str,
    pub status: u16,
    pub detail: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

pub type Answer<T> = Result<T, Problem>;

/// Faults told in one answer: a body of 1 MiB can have more than a function may answer with.
const MAX_ERRORS: usize = 100;

/// Seconds after which what was in the way may be gone.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");

impl Problem {
    fn new(kind: &'static str, title: &'static str, status: StatusCode, detail: impl Into<String>) -> Self {
        Self { kind, title, status: status.as_u16(), detail: detail.into(), errors: Vec::new() }
    }

    pub fn malformed(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self {
            errors: vec![FieldError::new(pointer, detail.clone())],
            ..Self::new("/problems/malformed", "The request cannot be read", StatusCode::BAD_REQUEST, detail)
        }
    }

    pub fn invalid(mut errors: Vec<FieldError>) -> Self {
        errors.truncate(MAX_ERRORS);
        let detail = errors.first().map_or_else(String::new, ToString::to_string);
        Self {
            errors,
            ..Self::new("/problems/invalid", "The request is not acceptable", StatusCode::UNPROCESSABLE_ENTITY, detail)
        }
    }

    pub fn invalid_field(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::invalid(vec![FieldError::new(pointer, detail)])
    }

    pub fn unauthorized() -> Self {
        let detail = "a bearer token is needed, and this one was not accepted";
        Self::new("/problems/unauthorized", "Not signed in", StatusCode::UNAUTHORIZED, detail)
    }

    pub fn forbidden() -> Self {
        let detail = "your role does not include this";
        Self::new("/problems/forbidden", "Not allowed", StatusCode::FORBIDDEN, detail)
    }

    pub fn not_found(what: &str) -> Self {
        let detail = format!("there is no such {what}");
        Self::new("/problems/not-found", "Not found", StatusCode::NOT_FOUND, detail)
    }

    pub fn method_not_allowed() -> Self {
        let detail = "this route does not take this method";
        Self::new("/problems/method-not-allowed", "Method not allowed", StatusCode::METHOD_NOT_ALLOWED, detail)
    }

    pub fn too_large() -> Self {
        let detail = "the body is larger than 1 MiB";
        Self::new("/problems/too-large", "Too large", StatusCode::PAYLOAD_TOO_LARGE, detail)
    }

    pub fn not_json() -> Self {
        let detail = "send the body as application/json";
        Self::new("/problems/not-json", "Not JSON", StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
    }

    pub fn not_csv() -> Self {
        let detail = "send the file as text/csv";
        Self::new("/problems/not-csv", "Not CSV", StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
    }

    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new("/problems/conflict", "Its state does not allow this", StatusCode::CONFLICT, detail)
    }

    pub fn no_printer() -> Self {
        let detail = "no PDF is made here: build the renderer with `cargo build --release --manifest-path \
                      functions/render-documents/Cargo.toml --package documents` and start again; the same statement is there as JSON and CSV";
        Self::new("/problems/no-printer", "No PDF is made here", StatusCode::NOT_ACCEPTABLE, detail)
    }

    pub fn still_running() -> Self {
        let detail = "a request with this Idempotency-Key is still running; ask again in a moment";
        Self::new("/problems/still-running", "Still running", StatusCode::CONFLICT, detail)
    }

    pub fn reused_key() -> Self {
        let detail = "this Idempotency-Key was used with another request";
        Self::new("/problems/reused-key", "Idempotency-Key reused", StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    fn throttled() -> Self {
        let detail = "too much was asked for at once; nothing was lost, try again in a moment";
        Self::new("/problems/throttled", "Too many requests", StatusCode::TOO_MANY_REQUESTS, detail)
    }

    fn unavailable() -> Self {
        let detail = "nothing was lost; try again in a moment";
        Self::new("/problems/unavailable", "Temporarily unavailable", StatusCode::SERVICE_UNAVAILABLE, detail)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound(what) => Self::not_found(what),
            Refusal::Illegal(detail) => Self::conflict(detail),
            Refusal::Stale(differences) => Self {
                errors: differences.iter().map(|difference| FieldError::new("", difference)).collect(),
                ..Self::new(
                    "/problems/stale",
                    "It changed since you looked",
                    StatusCode::PRECONDITION_FAILED,
                    differences.join("; "),
                )
            },
            Refusal::Invalid(errors) => Self::invalid(errors),
            Refusal::Store(StoreError::TooLarge(_)) => Self::invalid_field("", "touches too much to be done at once"),
            Refusal::Store(_) | Refusal::Service(..) => {
                // What went wrong inside is for the log.
                tracing::error!(%refusal, "request failed");
                match refusal {
                    Refusal::Store(error) if error.is_throttled() => Self::throttled(),
                    _ => Self::unavailable(),
                }
            }
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Refusal::from(error).into()
    }
}

impl From<NotBooked> for Problem {
    fn from(not_booked: NotBooked) -> Self {
        match not_booked {
            NotBooked::Impossible(impossible) => Self::invalid_field(impossible.field, impossible.why),
            NotBooked::NoExchangeRate { .. } | NotBooked::OtherCurrency { .. } => {
                Self::invalid_field("/amount/currency", not_booked.to_string())
            }
            NotBooked::Contradiction => Self::conflict(not_booked.to_string()),
            NotBooked::NoRules(_) => Self::invalid_field("/occurredAt", not_booked.to_string()),
            NotBooked::Refused(refusal) => refusal.into(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let asks_again =
            matches!(self.kind, "/problems/still-running" | "/problems/throttled" | "/problems/unavailable");
        let mut response = (status, axum::Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if asks_again {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
