//! Scheduler by its REST protocol.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::rest;
use serde_json::{Value, json};

fn definition(expression: &str) -> Value {
    json!({
        "ScheduleExpression": expression,
        "FlexibleTimeWindow": { "Mode": "OFF" },
        "Target": {
            "Arn": "arn:aws:lambda:us-east-1:000000000000:function:mature",
            "RoleArn": "arn:aws:iam::000000000000:role/scheduler",
            "Input": "{}",
            "RetryPolicy": { "MaximumRetryAttempts": 2 },
        },
        "Description": "matures lines",
        "ClientToken": "once",
    })
}

#[test]
fn schedules_are_kept_changed_listed_and_deleted() {
    let (embedded, clock) = common::memory();
    let (status, answer) = rest(&embedded, "POST", "/schedules/mature", &definition("rate(5 minutes)"));
    assert!(status.is_success(), "{answer}");
    assert_eq!(answer["ScheduleArn"], "arn:aws:scheduler:us-east-1:000000000000:schedule/default/mature");
    let (status, _) = rest(&embedded, "POST", "/schedules/mature", &definition("rate(5 minutes)"));
    assert_eq!(status.as_u16(), 409);
    clock.advance(10);
    let (status, _) = rest(&embedded, "PUT", "/schedules/mature?groupName=default", &definition("rate(1 hour)"));
    assert!(status.is_success());

    let (_, kept) = rest(&embedded, "GET", "/schedules/mature", &json!({}));
    assert_eq!(kept["ScheduleExpression"], "rate(1 hour)");
    assert_eq!(kept["State"], "ENABLED");
    assert_eq!(kept["Target"]["RetryPolicy"]["MaximumRetryAttempts"], 2);
    assert_eq!(kept["Description"], "matures lines");
    assert_eq!(kept["CreationDate"], 1_700_000_000.0);
    assert_eq!(kept["LastModificationDate"], 1_700_000_010.0);
    assert_eq!(embedded.schedules()[0].target.input.as_deref(), Some("{}"));

    let (_, listed) = rest(&embedded, "GET", "/schedules?NamePrefix=mat", &json!({}));
    assert_eq!(listed["Schedules"][0]["Name"], "mature");
    let (_, groups) = rest(&embedded, "GET", "/schedule-groups", &json!({}));
    assert_eq!(groups["ScheduleGroups"][0]["Name"], "default");

    assert!(rest(&embedded, "DELETE", "/schedules/mature", &json!({})).0.is_success());
    let (status, answer) = rest(&embedded, "GET", "/schedules/mature", &json!({}));
    assert_eq!(status.as_u16(), 404);
    assert_eq!(answer["Message"], "Schedule mature does not exist.");
    assert_eq!(rest(&embedded, "POST", "/schedules/x", &definition("never")).0.as_u16(), 400);
}
