//! The event payloads that AWS hands to functions, made here as AWS makes them.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Method, Uri};
use serde_json::{Value, json};

use crate::token::Claims;

/// An HTTP API's proxy event, payload format 2.0.
pub fn http_event(method: &Method, uri: &Uri, headers: &HeaderMap, body: &Bytes, claims: Option<&Claims>) -> Value {
    let mut joined: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        joined.entry(name.as_str().to_owned()).and_modify(|all| *all = format!("{all},{value}")).or_insert(value);
    }
    // API Gateway hands cookies over apart from the other headers.
    let cookies = joined.remove("cookie");
    let cookies: Option<Vec<&str>> = cookies.as_deref().map(|all| all.split("; ").collect());
    // It hands bodies over as text only where the content type says so.
    let kind = joined.get("content-type").map(String::as_str).unwrap_or_default();
    let textual = kind.starts_with("text/") || kind.contains("json") || kind.contains("x-www-form-urlencoded");
    let text = std::str::from_utf8(body).ok().filter(|_| textual);
    let authorizer = claims.map(|claims| json!({"jwt": {"claims": claims, "scopes": null}}));
    json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": uri.path(),
        "rawQueryString": uri.query().unwrap_or_default(),
        "cookies": cookies,
        "headers": joined,
        "requestContext": {
            "accountId": embedded::ACCOUNT, "apiId": "local", "domainName": "127.0.0.1", "domainPrefix": "local",
            "http": {
                "method": method.as_str(), "path": uri.path(), "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1",
                "userAgent": joined.get("user-agent").cloned().unwrap_or_default(),
            },
            "requestId": "local", "routeKey": "$default", "stage": "$default", "timeEpoch": 0,
            "authorizer": authorizer,
        },
        "body": text.map_or_else(|| STANDARD.encode(body), str::to_owned),
        "isBase64Encoded": text.is_none(),
    })
}

/// A queue's event, as its event source mapping sends it.
pub fn sqs_event(queue: &str, messages: &[aws_sdk_sqs::types::Message]) -> Value {
    let records: Vec<_> = messages
        .iter()
        .map(|message| {
            json!({
                "messageId": message.message_id(), "receiptHandle": message.receipt_handle(), "body": message.body(),
                "attributes": message.attributes().map(|attributes| {
                    attributes.iter().map(|(name, value)| (name.as_str().to_owned(), value.clone())).collect::<BTreeMap<_, _>>()
                }),
                "messageAttributes": {}, "md5OfBody": message.md5_of_body(), "eventSource": "aws:sqs",
                "eventSourceARN": format!("arn:aws:sqs:{}:{}:{queue}", embedded::REGION, embedded::ACCOUNT),
                "awsRegion": embedded::REGION,
            })
        })
        .collect();
    json!({ "Records": records })
}

/// A table's stream event: the records as the stream gives them, with the name of the stream they came from.
pub fn stream_event(stream: &str, records: Vec<Value>) -> Value {
    let records: Vec<_> = records
        .into_iter()
        .map(|mut record| {
            record["eventSourceARN"] = json!(stream);
            record
        })
        .collect();
    json!({ "Records": records })
}

/// What the scheduler sends where a schedule gives no input of its own.
pub fn schedule_event(function: &str, now: jiff::Timestamp) -> Value {
    json!({
        "version": "0", "id": format!("{function}-{now}"), "detail-type": "Scheduled Event", "source": "aws.scheduler",
        "account": embedded::ACCOUNT, "time": now.to_string(), "region": embedded::REGION, "resources": [], "detail": "{}",
    })
}
