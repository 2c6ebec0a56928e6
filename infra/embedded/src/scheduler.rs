//! `EventBridge` Scheduler, by its REST protocol: keeps definitions of schedules, in the one group `default`.
//!
//! What it never does: fire them. The local system reads them ([`crate::Embedded::schedules`]) and fires by its own
//! clock.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::aws_json::{parse, response};
use crate::clock::Millis;
use crate::state::Call;
use crate::{ACCOUNT, REGION};

const JSON: &str = "application/json";
const GROUP: &str = "default";
const GROUPS_PATH: &str = "/schedule-groups";
const SCHEDULES_PATH: &str = "/schedules";

/// The definition of a schedule, with the names it has on the wire. What is not typed here is in `rest`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Schedule {
    #[serde(default)]
    pub name: String,
    /// `rate(...)`, `cron(...)` or `at(...)`.
    pub schedule_expression: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_expression_timezone: Option<String>,
    #[serde(default)]
    pub state: ScheduleState,
    pub target: ScheduleTarget,
    pub flexible_time_window: Value,
    #[serde(default)]
    creation_date: f64,
    #[serde(default)]
    last_modification_date: f64,
    /// Start, end, description and what else was given.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// What a schedule calls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ScheduleTarget {
    pub arn: String,
    pub role_arn: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// Retry policy, dead-letter queue and what else was given.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ScheduleState {
    #[default]
    Enabled,
    Disabled,
}

#[derive(Debug, thiserror::Error)]
enum SchedulerError {
    #[error("Schedule {0} already exists.")]
    Conflict(String),
    #[error("{0} does not exist.")]
    NotFound(String),
    #[error("{0}")]
    Validation(String),
    #[error("Unknown operation.")]
    UnknownOperation,
}

impl SchedulerError {
    fn kind(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Conflict(_) => (StatusCode::CONFLICT, "ConflictException"),
            Self::NotFound(_) => (StatusCode::NOT_FOUND, "ResourceNotFoundException"),
            Self::Validation(_) => (StatusCode::BAD_REQUEST, "ValidationException"),
            Self::UnknownOperation => (StatusCode::NOT_FOUND, "UnknownOperationException"),
        }
    }
}

/// Whether a path without a target header is one of this service.
pub(crate) fn owns(path: &str) -> bool {
    path.starts_with(SCHEDULES_PATH) || path == GROUPS_PATH
}

pub(crate) fn handle(call: &mut Call<'_>, method: &Method, uri: &Uri, body: &[u8]) -> Response<Bytes> {
    match dispatch(call, method, uri, body) {
        Ok(answer) => response(StatusCode::OK, JSON, answer.to_string().into()),
        Err(error) => {
            let (status, kind) = error.kind();
            let body = json!({ "Message": error.to_string() }).to_string();
            let mut response = response(status, JSON, body.into());
            let name = HeaderName::from_static("x-amzn-errortype");
            response.headers_mut().insert(name, HeaderValue::from_static(kind));
            response
        }
    }
}

fn dispatch(call: &mut Call<'_>, method: &Method, uri: &Uri, body: &[u8]) -> Result<Value, SchedulerError> {
    let path = uri.path();
    if *method == Method::GET && path == GROUPS_PATH {
        let arn = format!("arn:aws:scheduler:{REGION}:{ACCOUNT}:schedule-group/{GROUP}");
        return Ok(json!({ "ScheduleGroups": [{ "Name": GROUP, "Arn": arn, "State": "ACTIVE" }] }));
    }
    if *method == Method::GET && path == SCHEDULES_PATH {
        return list(call, uri);
    }
    let name = path.strip_prefix("/schedules/").filter(|name| !name.is_empty() && !name.contains('/'));
    let name = name.ok_or(SchedulerError::UnknownOperation)?;
    if query(uri, "groupName").is_some_and(|group| group != GROUP) {
        return Err(SchedulerError::NotFound("The schedule group".to_owned()));
    }
    match *method {
        Method::POST => create(call, name, read(name, body)?),
        Method::GET => write(found(call, name)?),
        Method::PUT => update(call, name, read(name, body)?),
        Method::DELETE => {
            found(call, name)?;
            call.services.schedules.remove(name);
            Ok(json!({}))
        }
        _ => Err(SchedulerError::UnknownOperation),
    }
}

fn create(call: &mut Call<'_>, name: &str, mut schedule: Schedule) -> Result<Value, SchedulerError> {
    if call.services.schedules.contains_key(name) {
        return Err(SchedulerError::Conflict(name.to_owned()));
    }
    schedule.creation_date = call.now.timestamp();
    Ok(store(call, schedule))
}

fn update(call: &mut Call<'_>, name: &str, mut schedule: Schedule) -> Result<Value, SchedulerError> {
    schedule.creation_date = found(call, name)?.creation_date;
    Ok(store(call, schedule))
}

fn store(call: &mut Call<'_>, mut schedule: Schedule) -> Value {
    schedule.last_modification_date = Millis::timestamp(call.now);
    let answer = json!({ "ScheduleArn": arn(&schedule.name) });
    call.services.schedules.insert(schedule.name.clone(), schedule);
    answer
}

fn list(call: &Call<'_>, uri: &Uri) -> Result<Value, SchedulerError> {
    let group = query(uri, "ScheduleGroup").unwrap_or(GROUP);
    let prefix = query(uri, "NamePrefix").unwrap_or_default();
    let listed =
        call.services.schedules.values().filter(|schedule| group == GROUP && schedule.name.starts_with(prefix));
    let mut summaries = Vec::new();
    for schedule in listed {
        let mut summary = write(schedule)?;
        if query(uri, "State").is_some_and(|state| summary["State"] != state) {
            continue;
        }
        summary["Target"] = json!({ "Arn": schedule.target.arn });
        summaries.push(summary);
    }
    Ok(json!({ "Schedules": summaries }))
}

fn found<'a>(call: &'a Call<'_>, name: &str) -> Result<&'a Schedule, SchedulerError> {
    call.services.schedules.get(name).ok_or_else(|| SchedulerError::NotFound(format!("Schedule {name}")))
}

fn read(name: &str, body: &[u8]) -> Result<Schedule, SchedulerError> {
    let mut schedule: Schedule = parse(body).map_err(|error| SchedulerError::Validation(error.to_string()))?;
    let kinds = ["rate(", "cron(", "at("];
    if !kinds.iter().any(|kind| schedule.schedule_expression.starts_with(kind)) {
        return Err(SchedulerError::Validation("Invalid schedule expression.".to_owned()));
    }
    name.clone_into(&mut schedule.name);
    schedule.rest.remove("ClientToken");
    let group = schedule.rest.remove("GroupName");
    if group.is_some_and(|group| group != GROUP) {
        return Err(SchedulerError::NotFound("The schedule group".to_owned()));
    }
    Ok(schedule)
}

fn write(schedule: &Schedule) -> Result<Value, SchedulerError> {
    let mut value = serde_json::to_value(schedule).map_err(|error| SchedulerError::Validation(error.to_string()))?;
    value["Arn"] = arn(&schedule.name).into();
    value["GroupName"] = GROUP.into();
    Ok(value)
}

fn arn(name: &str) -> String {
    format!("arn:aws:scheduler:{REGION}:{ACCOUNT}:schedule/{GROUP}/{name}")
}

/// A query parameter. Names of schedules need no percent-encoding, so none is undone.
fn query<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    let mut pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}
