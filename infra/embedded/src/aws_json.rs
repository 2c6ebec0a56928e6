//! What the awsJson 1.0 and 1.1 services share: reading the target header and the request, writing answers and errors.

use std::fmt;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(crate) const JSON_1_0: &str = "application/x-amz-json-1.0";
pub(crate) const JSON_1_1: &str = "application/x-amz-json-1.1";
const TARGET: &str = "x-amz-target";

/// An error a service can answer with; its `Display` is the message on the wire.
pub(crate) trait Fault: fmt::Display {
    /// The shape's absolute name, such as `com.amazonaws.sqs#QueueDoesNotExist`.
    fn shape(&self) -> &'static str;

    fn status(&self) -> StatusCode {
        StatusCode::BAD_REQUEST
    }

    /// The code the service had in its former query protocol. SDKs of such services read this one, not the shape.
    fn query_code(&self) -> Option<&'static str> {
        None
    }
}

/// Why a request got no answer: in this layer, or in the service.
#[derive(Debug)]
pub(crate) enum Failure<E> {
    Malformed(serde_json::Error),
    UnknownOperation,
    Service(E),
}

impl<E: Fault> From<E> for Failure<E> {
    fn from(fault: E) -> Self {
        Self::Service(fault)
    }
}

/// A request or an answer without members.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Empty {}

/// The service and the operation a request is for, such as `AmazonSQS` and `SendMessage`.
pub(crate) fn target(headers: &HeaderMap) -> Option<(&str, &str)> {
    headers.get(TARGET)?.to_str().ok()?.split_once('.')
}

/// Reads the request, runs the operation and writes its answer.
pub(crate) fn run<Request, Answer, E>(
    body: &[u8],
    operation: impl FnOnce(Request) -> Result<Answer, E>,
) -> Result<Bytes, Failure<E>>
where
    Request: DeserializeOwned,
    Answer: Serialize,
    E: Fault,
{
    let answer = operation(parse(body).map_err(Failure::Malformed)?)?;
    serde_json::to_vec(&answer).map(Bytes::from).map_err(Failure::Malformed)
}

/// Reads a body; none at all stands for a request without members.
pub(crate) fn parse<Request: DeserializeOwned>(body: &[u8]) -> Result<Request, serde_json::Error> {
    serde_json::from_slice(if body.is_empty() { b"{}" } else { body })
}

pub(crate) fn respond<E: Fault>(content_type: &'static str, result: Result<Bytes, Failure<E>>) -> Response<Bytes> {
    match result {
        Ok(body) => response(StatusCode::OK, content_type, body),
        Err(Failure::UnknownOperation) => unknown_operation(content_type),
        Err(Failure::Malformed(error)) => {
            let shape = "com.amazon.coral.service#SerializationException";
            failure(StatusCode::BAD_REQUEST, content_type, shape, &error.to_string())
        }
        Err(Failure::Service(fault)) => {
            let mut response = failure(fault.status(), content_type, fault.shape(), &fault.to_string());
            if let Some(code) = fault.query_code()
                && let Ok(value) = HeaderValue::from_str(&format!("{code};Sender"))
            {
                response.headers_mut().insert(HeaderName::from_static("x-amzn-query-error"), value);
            }
            response
        }
    }
}

pub(crate) fn unknown_operation(content_type: &'static str) -> Response<Bytes> {
    let shape = "com.amazon.coral.service#UnknownOperationException";
    let message = "This endpoint answers AWS JSON requests for DynamoDB, DynamoDB Streams, SQS, EventBridge, Secrets \
                   Manager and KMS by X-Amz-Target, Scheduler by path, and S3 by its signature; this operation is none it knows.";
    failure(StatusCode::BAD_REQUEST, content_type, shape, message)
}

pub(crate) fn internal_failure(content_type: &'static str, message: &str) -> Response<Bytes> {
    let shape = "com.amazon.coral.service#InternalFailure";
    failure(StatusCode::INTERNAL_SERVER_ERROR, content_type, shape, message)
}

fn failure(status: StatusCode, content_type: &'static str, shape: &str, message: &str) -> Response<Bytes> {
    let body = serde_json::json!({ "__type": shape, "message": message });
    response(status, content_type, body.to_string().into())
}

pub(crate) fn response(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
