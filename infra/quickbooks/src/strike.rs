//! What befalls one request, and no other: for going through every fault at every step.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use jiff::Timestamp;
use serde_json::Value;

use crate::company::{Company, name_of};
use crate::fault::Refusal;
use crate::query::Query;

/// Something befalls the request number `nth`, counted from 0, of a step like `create Bill` or `query Vendor by AcctNum`.
#[derive(Debug, Clone)]
pub struct Strike {
    pub step: String,
    pub nth: usize,
    pub blow: Blow,
}

/// What somebody does in a company.
pub type Act = Arc<dyn Fn(&mut Company, Timestamp) + Send + Sync>;

#[derive(Clone)]
pub enum Blow {
    /// No connection is made.
    Unreachable,
    /// The connection breaks before the request did anything.
    LostBefore,
    /// It breaks after.
    LostAfter,
    /// A server on the way answers with a page, and what was asked is not done.
    PageBefore,
    /// The same, and it is done.
    PageAfter,
    /// Too many requests.
    Throttled,
    /// The token ended, in the gateway's spelling or the API server's; of a sign-in, the client is refused.
    Unauthorized { lower_case: bool },
    /// The refresh token is not good any more; of anything but a sign-in, the access token.
    InvalidGrant,
    /// A refusal by its code, without effect; 503: one that a server which failed tells, and which therefore says nothing.
    Refused(&'static str),
    /// It comes twice, the request id is not remembered, and the second answer is the one that arrives.
    Twice,
    /// Somebody does this a moment before.
    Meanwhile(Act),
}

impl fmt::Debug for Blow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "Unreachable",
            Self::LostBefore => "LostBefore",
            Self::LostAfter => "LostAfter",
            Self::PageBefore => "PageBefore",
            Self::PageAfter => "PageAfter",
            Self::Throttled => "Throttled",
            Self::Unauthorized { .. } => "Unauthorized",
            Self::InvalidGrant => "InvalidGrant",
            Self::Refused(code) => code,
            Self::Twice => "Twice",
            Self::Meanwhile(_) => "Meanwhile",
        })
    }
}

/// A request that came, and what was answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Exchange {
    pub step: String,
    pub at: Timestamp,
    /// The body, where it is JSON.
    pub sent: Value,
    /// What arrived, where that is JSON.
    pub answered: Value,
    /// `None`: nothing arrived.
    pub status: Option<u16>,
}

/// What came since somebody began to watch, and what is still to befall what comes.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    pub strikes: Vec<Strike>,
    pub seen: Vec<Exchange>,
    counts: BTreeMap<String, usize>,
}

impl Watch {
    pub fn over(strikes: Vec<Strike>) -> Self {
        Self { strikes, ..Self::default() }
    }

    /// What befalls the next request of a step.
    pub fn next(&mut self, step: &str) -> Option<Blow> {
        let count = self.counts.entry(step.to_owned()).or_default();
        let nth = *count;
        *count += 1;
        let at = self.strikes.iter().position(|strike| strike.step == step && strike.nth == nth)?;
        Some(self.strikes.remove(at).blow)
    }
}

/// What a request is about, in the words of [`Strike::step`].
pub(crate) fn step_of(request: &Request<Bytes>) -> String {
    let path = request.uri().path();
    let form = |text: &[u8], name: &str| crate::parameters(text).remove(name).unwrap_or_default();
    let query = request.uri().query().unwrap_or_default().as_bytes();
    match path {
        "/oauth2/v1/tokens/bearer" => form(request.body(), "grant_type").replace('_', " "),
        "/v2/oauth2/tokens/revoke" => "revoke".to_owned(),
        _ => {
            let mut parts = path.strip_prefix("/v3/company/").unwrap_or_default().split('/').skip(1);
            let (entity, id) = (parts.next().unwrap_or_default(), parts.next());
            let name = name_of(entity).unwrap_or_default();
            match (request.method(), entity, id) {
                (_, "query", None) => query_step(&form(query, "query")),
                (_, "cdc" | "batch", None) => entity.to_owned(),
                (&Method::GET, _, Some(_)) => format!("read {name}"),
                (&Method::POST, _, None) => {
                    let body = serde_json::from_slice::<Value>(request.body()).unwrap_or_default();
                    let verb = match form(query, "operation").as_str() {
                        "delete" => "delete",
                        _ if body["Id"].is_null() => "create",
                        _ => "update",
                    };
                    format!("{verb} {name}")
                }
                _ => path.to_owned(),
            }
        }
    }
}

fn query_step(text: &str) -> String {
    let Ok(query) = Query::parse(text) else { return "query".to_owned() };
    let by = query.conditions.first().map(|condition| format!(" by {}", condition.field)).unwrap_or_default();
    format!("query {}{by}", query.entity)
}

/// A refusal as Intuit words it, about nothing in particular.
pub(crate) fn refusal(code: &str) -> Refusal {
    match code {
        "600" => Refusal::duplicate_request(),
        "610" => Refusal::gone(),
        "3100" => Refusal::not_connected(),
        "5010" => Refusal::stale(),
        "6140" => Refusal::duplicate_number("1", "999999"),
        "6190" => Refusal::subscription(),
        "6210" => Refusal::books_closed(),
        "6240" => Refusal::duplicate_name("999999"),
        "10000" => Refusal::system(),
        "503" => Refusal { status: StatusCode::SERVICE_UNAVAILABLE, ..Refusal::business("a server failed") },
        _ => Refusal::business(code),
    }
}
