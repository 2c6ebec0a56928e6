//! One company's books: create, read, query, batch, and what changed since.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request, StatusCode};
use jiff::Timestamp;
use outbound::{CallError, Outbound};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use serde_json::value::RawValue;

use crate::entities::{Bill, BillPayment, Entity, MetaData, Preferences, Vendor};
use crate::fault::{ApiError, error_of, fault_in, of_fault};
use crate::query::{MAX_RESULTS, Query};
use crate::secret::Secret;

/// Every company is on it since August 2025; it is said all the same.
const MINOR_VERSION: &str = "75";
/// Items of one batch.
pub const MAX_BATCH: usize = 30;
/// Changes one answer holds of one kind of entity. One that holds so many may have left some out.
pub const MAX_CHANGES: usize = 1_000;

/// Where companies are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment(pub String);

impl Environment {
    pub fn production() -> Self {
        Self("https://quickbooks.api.intuit.com".to_owned())
    }

    pub fn sandbox() -> Self {
        Self("https://sandbox-quickbooks.api.intuit.com".to_owned())
    }
}

/// A company, by its realm id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Company {
    pub environment: Environment,
    pub realm: String,
}

/// Calls in the name of one company, with an access token that is good for a while.
#[derive(Clone)]
pub struct Client {
    outbound: Outbound,
    company: Company,
    access: Secret,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("company", &self.company).finish_non_exhaustive()
    }
}

/// An answer, with Intuit's own id of the exchange, by which their support finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told<T> {
    pub of: T,
    pub tid: String,
}

/// One part of a batch, told apart by its name (at most 10 characters).
#[derive(Debug, Clone)]
pub enum BatchItem<'a> {
    Create { name: String, entity: &'static str, body: &'a RawValue },
    Query { name: String, query: &'a Query },
}

/// What came of one part of a batch.
#[derive(Debug, Clone)]
pub struct BatchOutcome {
    pub name: String,
    pub result: Result<Part, ApiError>,
}

/// An object whose members are kept as they were written: amounts are read from their digits.
type Object = BTreeMap<String, Box<RawValue>>;

/// A part of a batch's answer.
#[derive(Debug, Clone)]
pub struct Part(Object);

impl Part {
    /// What was created.
    pub fn entity<E: Entity>(&self) -> Result<E, ApiError> {
        member(&self.0, E::NAME)
    }

    /// What a query found.
    pub fn found<E: Entity>(&self) -> Result<Vec<E>, ApiError> {
        found(&member(&self.0, "QueryResponse")?)
    }
}

/// An entity that changed, or that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<E> {
    Is(E),
    Deleted { id: String, at: Option<Timestamp> },
}

/// What changed since a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    pub bills: Vec<Change<Bill>>,
    pub payments: Vec<Change<BillPayment>>,
    pub vendors: Vec<Change<Vendor>>,
    /// One of these may be longer than was told: ask for a shorter time.
    pub is_cut: bool,
}

impl Client {
    pub const fn new(outbound: Outbound, company: Company, access: Secret) -> Self {
        Self { outbound, company, access }
    }

    /// Creates what the body says, once for one `request_id` (at most 50 characters), however often this is called. Intuit does not say how
    /// long it remembers the id, so a call whose outcome is unknown is looked up before it is repeated.
    pub async fn create<E: Entity>(&self, body: &str, request_id: &str) -> Result<Told<E>, ApiError> {
        let path = format!("/{}", E::NAME.to_lowercase());
        let answer = self.send(Method::POST, &path, &[("requestid", request_id)], body.to_owned()).await?;
        one(answer)
    }

    /// `None`: there is none, or none any more.
    pub async fn read<E: Entity>(&self, id: &str) -> Result<Option<Told<E>>, ApiError> {
        // An id goes into the path; what is no number cannot be one of theirs.
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Ok(None);
        }
        match self.send(Method::GET, &format!("/{}/{id}", E::NAME.to_lowercase()), &[], String::new()).await {
            Ok(answer) => {
                let gone = is_deleted(&member::<Box<RawValue>>(&read(&answer.of)?, E::NAME)?);
                if gone { Ok(None) } else { one(answer).map(Some) }
            }
            Err(error) if error.is_code("610") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All that a query finds, page by page.
    pub async fn query<E: Entity>(&self, query: &Query) -> Result<Vec<E>, ApiError> {
        let mut all = Vec::new();
        loop {
            let text = query.text(all.len() + 1, MAX_RESULTS);
            let answer = self.send(Method::GET, "/query", &[("query", &text)], String::new()).await?;
            let page: Vec<E> = Part(read(&answer.of)?).found()?;
            let last = page.len() < MAX_RESULTS;
            all.extend(page);
            if last {
                return Ok(all);
            }
        }
    }

    pub async fn preferences(&self) -> Result<Preferences, ApiError> {
        let found = self.query::<Preferences>(&Query::of(Preferences::NAME)).await?;
        found.into_iter().next().ok_or_else(|| ApiError::Unreadable("no preferences".to_owned()))
    }

    /// Up to [`MAX_BATCH`] at once, in no order, each with an outcome of its own. `request_id` has at most 36 characters.
    pub async fn batch(&self, items: &[BatchItem<'_>], request_id: &str) -> Result<Vec<BatchOutcome>, ApiError> {
        let parts: Vec<_> = items
            .iter()
            .map(|item| match item {
                BatchItem::Create { name, entity, body } => {
                    format!(r#"{{"bId":{},"operation":"create",{}:{body}}}"#, json!(name), json!(entity))
                }
                BatchItem::Query { name, query } => {
                    json!({"bId": name, "Query": query.text(1, MAX_RESULTS)}).to_string()
                }
            })
            .collect();
        let body = format!(r#"{{"BatchItemRequest":[{}]}}"#, parts.join(","));
        let answer = self.send(Method::POST, "/batch", &[("requestid", request_id)], body).await?;
        let items: Vec<Box<RawValue>> = member(&read(&answer.of)?, "BatchItemResponse")?;
        items
            .iter()
            .map(|item| {
                let part: Object = read(item.get().as_bytes())?;
                let name = member(&part, "bId")?;
                let result = match fault_in(item.get().as_bytes()) {
                    Some((fault, kind)) => Err(of_fault(StatusCode::BAD_REQUEST, fault, &kind)),
                    None => Ok(Part(part)),
                };
                Ok(BatchOutcome { name, result })
            })
            .collect()
    }

    /// Bills, payments and vendors that changed since then: at most 30 days back.
    pub async fn changes_since(&self, since: Timestamp) -> Result<Changes, ApiError> {
        let entities = [Bill::NAME, BillPayment::NAME, Vendor::NAME].join(",");
        let since = since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let answer =
            self.send(Method::GET, "/cdc", &[("entities", &entities), ("changedSince", &since)], String::new()).await?;
        let responses: Vec<Object> = member(&read(&answer.of)?, "CDCResponse")?;
        let parts = responses.iter().map(|response| member::<Vec<Object>>(response, "QueryResponse"));
        let parts: Vec<_> = parts.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
        let bills = changed(&parts)?;
        let payments = changed(&parts)?;
        let vendors = changed(&parts)?;
        let is_cut = [bills.len(), payments.len(), vendors.len()].into_iter().any(|count| count >= MAX_CHANGES);
        Ok(Changes { bills, payments, vendors, is_cut })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: String,
    ) -> Result<Told<Bytes>, ApiError> {
        let Company { environment, realm } = &self.company;
        let query: String = form_urlencoded::Serializer::new(String::new())
            .append_pair("minorversion", MINOR_VERSION)
            .extend_pairs(query)
            .finish();
        let url = format!("{}/v3/company/{realm}{path}?{query}", environment.0);
        let mut request = Request::builder()
            .method(&method)
            .uri(url)
            .header(ACCEPT, "application/json")
            .header(AUTHORIZATION, format!("Bearer {}", self.access.expose()));
        if method == Method::POST {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Bytes::from(body)).map_err(|error| ApiError::NotSent(error.to_string()))?;
        let answer = match self.outbound.call(request).await {
            Ok(answer) => answer,
            Err(CallError::NotSent(why)) => return Err(ApiError::NotSent(why)),
            // Reading changes nothing, so there is nothing to be unsure about.
            Err(CallError::Unknown(why)) if method == Method::GET => return Err(ApiError::NotSent(why)),
            Err(CallError::Unknown(why)) => return Err(ApiError::Unknown(why)),
        };
        let status = answer.status();
        let tid = answer.headers().get("intuit_tid").and_then(|tid| tid.to_str().ok()).unwrap_or_default().to_owned();
        tracing::info!(intuit_tid = tid, realm, path, status = status.as_u16(), "QuickBooks call");
        let body = answer.into_body();
        if status != StatusCode::OK {
            return Err(error_of(status, &body));
        }
        // A fault may come with a 200, too.
        match fault_in(&body) {
            Some((fault, kind)) => Err(of_fault(status, fault, &kind)),
            None => Ok(Told { of: body, tid }),
        }
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::Unreadable(error.to_string()))
}

fn member<T: DeserializeOwned>(object: &Object, name: &str) -> Result<T, ApiError> {
    let raw = object.get(name).ok_or_else(|| ApiError::Unreadable(format!("there is no {name}")))?;
    read(raw.get().as_bytes())
}

/// What a query found; where it found nothing, not even the list is there.
fn found<E: Entity>(response: &Object) -> Result<Vec<E>, ApiError> {
    if response.contains_key(E::NAME) { member(response, E::NAME) } else { Ok(Vec::new()) }
}

/// `{"Bill": {...}, "time": "..."}`.
fn one<E: Entity>(answer: Told<Bytes>) -> Result<Told<E>, ApiError> {
    Ok(Told { of: member(&read(&answer.of)?, E::NAME)?, tid: answer.tid })
}

/// What is left of something deleted: its id, and that it is.
#[derive(Deserialize)]
struct Gone {
    status: String,
    #[serde(rename = "Id", default)]
    id: String,
    #[serde(rename = "MetaData", default)]
    meta_data: MetaData,
}

fn gone(raw: &RawValue) -> Option<Gone> {
    serde_json::from_str::<Gone>(raw.get()).ok().filter(|gone| gone.status == "Deleted")
}

fn is_deleted(raw: &RawValue) -> bool {
    gone(raw).is_some()
}

fn changed<E: Entity>(parts: &[Object]) -> Result<Vec<Change<E>>, ApiError> {
    let mut changes = Vec::new();
    for part in parts.iter().filter(|part| part.contains_key(E::NAME)) {
        for raw in member::<Vec<Box<RawValue>>>(part, E::NAME)? {
            changes.push(match gone(&raw) {
                Some(Gone { id, meta_data, .. }) => Change::Deleted { id, at: meta_data.changed_at() },
                None => Change::Is(read(raw.get().as_bytes())?),
            });
        }
    }
    Ok(changes)
}
