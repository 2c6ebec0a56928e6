//! The sample events in `events/`, and the world they were made for.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::{Plan, World, percent};

const PROGRAM: &str = "prg_sample0program000000000000";
const PARTNER: &str = "par_sample0partner000000000000";
const SOURCE: &str = "src_sample0source0000000000000";
const SECRET: &str = "sample-secret";
/// When the order comes in, and when the schedules of the samples fire.
const BEFORE: &str = "2026-01-15T14:15:00Z";
pub const NOW: &str = "2026-02-01T00:20:00Z";

/// Where a year's file stands in which nobody was paid.
const EMPTY_FILE: &str = "tax/2026/returns-18ckeuv8lo6uslfi4ig05cnvqeu3ikloqjt2ajuk98098ip8b240.csv";

/// Every sample, and what its function answers in the world it was made for.
pub fn expected() -> Vec<(&'static str, Value)> {
    vec![
        ("storefront-webhook/shopify-order-paid.json", json!(200)),
        ("storefront-webhook/unknown-source.json", json!(401)),
        ("payouts-api/list-pending-payouts.json", json!(200)),
        ("payouts-api/report-sale.json", json!(202)),
        ("payouts-api/approve-payouts.json", json!(200)),
        ("payouts-api/without-token.json", json!(401)),
        ("ingest-conversions/shopify-order-paid.json", json!({"batchItemFailures": []})),
        ("ingest-conversions/unreadable-body.json", json!({"batchItemFailures": []})),
        (
            "ingest-conversions/not-a-delivery.json",
            json!({"batchItemFailures": [{"itemIdentifier": "11111111-0000-4000-8000-000000000002"}]}),
        ),
        ("mature-commissions/hourly.json", json!({"lines": 0, "failed": 0, "unfinished": false})),
        (
            "batch-payouts/hourly.json",
            json!({"runsStarted": 1, "runsCompleted": 0, "payoutsResumed": 0, "instant": 0, "failed": 0, "unfinished": false}),
        ),
        ("fetch-rates/daily.json", json!({"new": 0, "known": 0, "refused": 0, "unknown": 0})),
        ("draft-payout/one-partner.json", json!({"batchItemFailures": []})),
        (
            "submit-payouts/approved-payout.json",
            json!({"batchItemFailures": [{"itemIdentifier": "11111111-0000-4000-8000-000000000001"}]}),
        ),
        ("paypal-webhook/payment-made.json", json!(401)),
        ("publish-changes/sale-booked.json", json!({"batchItemFailures": []})),
        ("publish-changes/run-completed.json", json!({"batchItemFailures": []})),
        ("render-documents/statement-of-a-month.json", json!(406)),
        (
            "tax-filing/year.json",
            json!({"year": 2026, "key": EMPTY_FILE, "returns": 0, "withoutNumber": 0, "excluded": 0}),
        ),
        ("track-click/referral-link.json", json!(302)),
        ("track-click/unknown-code.json", json!(404)),
    ]
}

pub fn events() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../events")
}

pub fn sample(file: &str) -> Value {
    let text = std::fs::read_to_string(events().join(file)).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// A world whose program, partner and source have the ids that stand in the samples.
pub async fn sampled() -> World {
    let world = World {
        system: Plan::new().at(BEFORE).system().await,
        program: PROGRAM.to_owned(),
        partner: PARTNER.to_owned(),
    };
    let context = &world.system.context;
    let made = json!({"createdAt": "2026-01-01T00:00:00Z", "createdBy": "ann", "name": "Sample"});
    let of = |fields: Value| {
        let mut all = made.clone();
        fields.as_object().unwrap().iter().for_each(|(name, value)| all[name] = value.clone());
        all
    };
    let program = of(json!({
        "id": PROGRAM, "currency": "USD", "timeZone": "UTC", "holdDays": 0, "minHoldDays": 0, "approval": "automatic",
        "minimumPayout": 0, "largePayoutLimit": 100_000, "ruleSignOff": true, "coolingOffDays": 3,
        "schedule": {"frequency": "monthly", "runDay": 1, "anchor": "2026-01-05", "cutOffDays": 0, "payDays": 0},
        "landingPage": "https://shop.example/",
    }));
    workflows::setup::create_program(context, &serde_json::from_value(program).unwrap()).await.unwrap();
    let partner = of(json!({
        "id": PARTNER, "program": PROGRAM, "email": "anna@partners.example", "code": "ANNA10", "type": "affiliate",
        "group": null, "minimumPayout": null, "trusted": false, "status": "active", "shards": 1,
        "payoutMethods": [{"kind": "manual"}],
    }));
    workflows::setup::create_partner(context, &serde_json::from_value(partner).unwrap()).await.unwrap();
    let source = of(json!({"id": SOURCE, "program": PROGRAM, "kind": "shopify"}));
    let secret = serde_json::from_value(json!({"current": SECRET})).unwrap();
    workflows::setup::create_source(context, &serde_json::from_value(source).unwrap(), &secret).await.unwrap();
    world.publish(&[percent("10")]).await;
    world
}
