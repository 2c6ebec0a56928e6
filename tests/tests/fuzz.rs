//! Whatever arrives from outside is answered and finished: no panic, no 5xx, nothing that fails for ever.
//!
//! `PROPTEST_CASES` raises the number of cases; each test takes its share of it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use aws_sdk_sqs::types::QueueAttributeName;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use domain::ids::ConversionId;
use http::{HeaderName, HeaderValue, Method};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::FileFailurePersistence::WithSource;
use serde_json::{Value, json};
use tests::samples::sample;
use tests::sign::Connection;
use tests::{ADMIN, Plan, Reply, Request, World};
use tokio::runtime::Runtime;
use workflows::queues::Delivery;

const SHOPIFY_ORDER: &str = include_str!("../../shared/storefronts/tests/fixtures/shopify/order.json");
const SHOPIFY_REFUND: &str = include_str!("../../shared/storefronts/tests/fixtures/shopify/refund.json");
const WOO_ORDER: &str = include_str!("../../shared/storefronts/tests/fixtures/woocommerce/order_refunded_twice.json");
const STRIPE_SESSION: &str = include_str!("../../shared/storefronts/tests/fixtures/stripe/session_paid.json");
const STRIPE_INVOICE: &str = include_str!("../../shared/storefronts/tests/fixtures/stripe/invoice_renewal.json");
const OWN_SALE: &str = include_str!("../../shared/storefronts/tests/fixtures/standard/sale.json");
const OWN_REFUND: &str = include_str!("../../shared/storefronts/tests/fixtures/standard/refund.json");

/// Kind, topic and body, and the ids in it that make it another order or refund.
type Payload = (&'static str, &'static str, &'static str, &'static [&'static str]);

const PAYLOADS: [Payload; 7] = [
    ("shopify", "orders/paid", SHOPIFY_ORDER, &["9007199254740993"]),
    ("shopify", "refunds/create", SHOPIFY_REFUND, &["9007199254740993", "509562969"]),
    ("woocommerce", "order.updated", WOO_ORDER, &["727", "730", "731"]),
    ("stripe", "", STRIPE_SESSION, &["cs_test_a1CagZ1X"]),
    ("stripe", "", STRIPE_INVOICE, &["in_1MhUT5"]),
    ("standard", "", OWN_SALE, &["ord_1001"]),
    ("standard", "", OWN_REFUND, &["ord_1001", "ref_77"]),
];

/// What a function can answer; more is a 5xx of the gateway's.
const LARGEST_ANSWER: usize = 6 * 1024 * 1024;

/// This percentage of the cases that are asked for: some are slow, and some have more to find.
fn percent(percent: u32) -> ProptestConfig {
    let asked = ProptestConfig::default();
    ProptestConfig {
        cases: (asked.cases * percent).div_ceil(100),
        failure_persistence: Some(Box::new(WithSource("proptest-regressions"))),
        source_file: Some(file!()),
        max_shrink_iters: 500,
        ..asked
    }
}

fn runtime() -> Runtime {
    Runtime::new().unwrap()
}

// --- What comes ---------------------------------------------------------------------------------------------------

/// JSON that a parser may stumble over, as text: most of it cannot be said by a JSON value.
const STRANGE: [&str; 40] = [
    "null",
    "true",
    "0",
    "-0",
    "-1",
    "1E2",
    "1e-7",
    "1e300",
    "1e999",
    "0.000000000000000000000000000000001",
    "340282366920938463463374607431768211456",
    "9223372036854775807",
    "-9223372036854775808",
    "99999999999.99",
    "NaN",
    "[]",
    "{}",
    "[[{}]]",
    r#"{"": ""}"#,
    r#""""#,
    r#"" ""#,
    r#""NaN""#,
    r#""Infinity""#,
    r#""1e3""#,
    r#""-79228162514264337593543950335""#,
    r#""1234567890123.45""#,
    "\"\u{661}\u{662}\"",
    r#""\u0000""#,
    r#""\ud800""#,
    "\"\u{1F4B8}\u{202e}\"",
    r#""2026-02-30T00:00:00Z""#,
    r#""-009999-01-02T01:59:59Z""#,
    r#""9999-12-30T22:00:00.999999999Z""#,
    r#""9999-12-31""#,
    r#""-009999-01-01""#,
    r#""par_00000000000000000000000000""#,
    r#""USD""#,
    r#""JPY""#,
    "65535",
    "4294967295",
];

/// Arbitrary JSON: any nesting, any field twice.
fn json_text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        8 => select(STRANGE.to_vec()).prop_map(str::to_owned),
        1 => any::<i64>().prop_map(|number| number.to_string()),
        1 => any::<f64>().prop_map(|number| json!(number).to_string()),
        2 => ".{0,20}".prop_map(|text| json!(text).to_string()),
    ];
    let tree = leaf.prop_recursive(3, 20, 5, |inner| {
        let field = ("id|items|amount|total|.{0,8}", inner.clone())
            .prop_map(|(name, value)| format!("{}:{value}", json!(name)));
        prop_oneof![
            prop::collection::vec(inner, 0..5).prop_map(|list| format!("[{}]", list.join(","))),
            prop::collection::vec(field, 0..5).prop_map(|fields| format!("{{{}}}", fields.join(","))),
        ]
    });
    let large = prop_oneof![
        // Deeper than an item may be, and deeper than serde goes.
        (20..300_usize).prop_map(|depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth))),
        (200..2_000_usize).prop_map(|length| format!("\"{}\"", "\u{e9}".repeat(length))),
        Just(format!("\"{}\"", "x".repeat(340_000))),
        Just(format!("[{}{{}}]", "{},".repeat(100_000))),
    ];
    prop_oneof![12 => tree, 1 => large]
}

#[derive(Debug, Clone)]
enum Edit {
    Drop,
    Replace(String),
    /// The field again, with another value.
    Twice(String),
}

fn edits() -> impl Strategy<Value = Vec<(Index, Edit)>> {
    let edit = prop_oneof![
        1 => Just(Edit::Drop),
        4 => json_text().prop_map(Edit::Replace),
        1 => json_text().prop_map(Edit::Twice),
    ];
    prop::collection::vec((any::<Index>(), edit), 0..4)
}

/// Where the values of a body are, as JSON pointers.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Array(list) => {
            for (n, value) in list.iter().enumerate() {
                pointers(value, &format!("{at}/{n}"), found);
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                pointers(value, &format!("{at}/{name}"), found);
            }
        }
        _ => {}
    }
}

/// A body with changes that a value cannot hold. They are put into its text where place holders stand.
fn edited(body: &Value, edits: &[(Index, Edit)]) -> String {
    let mut body = body.clone();
    let mut texts = Vec::new();
    for (n, (index, edit)) in edits.iter().enumerate() {
        let mut found = Vec::new();
        pointers(&body, "", &mut found);
        let pointer = index.get(&found);
        let (parent, name) = pointer.rsplit_once('/').unwrap_or_default();
        let place = json!(format!("place {n}"));
        let old = body.pointer(pointer).unwrap().to_string();
        let text = match edit {
            Edit::Replace(text) => text.clone(),
            Edit::Twice(text) if body.pointer(parent).is_some_and(Value::is_object) && !pointer.is_empty() => {
                format!("{old},{}:{text}", json!(name))
            }
            Edit::Twice(text) => format!("{old},{text}"),
            Edit::Drop => {
                match body.pointer_mut(parent).filter(|_| !pointer.is_empty()) {
                    Some(Value::Object(fields)) => drop(fields.remove(name)),
                    Some(Value::Array(list)) => drop(list.remove(name.parse().unwrap())),
                    _ => {}
                }
                continue;
            }
        };
        *body.pointer_mut(pointer).unwrap() = place.clone();
        texts.push((place.to_string(), text));
    }
    // The last change may hold the place of an earlier one.
    texts.iter().rev().fold(body.to_string(), |body, (place, text)| body.replace(place, text))
}

/// A body as it should be, changed a little or a lot.
#[derive(Debug, Clone)]
enum Body {
    Edited(Vec<(Index, Edit)>),
    Json(String),
    Text(String),
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        8 => edits().prop_map(Body::Edited),
        1 => json_text().prop_map(Body::Json),
        1 => any::<String>().prop_map(Body::Text),
    ]
}

impl Body {
    fn of(&self, fine: &Value) -> String {
        match self {
            Self::Edited(edits) => edited(fine, edits),
            Self::Json(text) | Self::Text(text) => text.clone(),
        }
    }
}

/// A part of a path or query: whatever may stand in a URI, escaped or not.
fn uri_text() -> impl Strategy<Value = String> {
    let some = "([a-zA-Z0-9_.~!$'()*,;:@+-]|%[0-9a-fA-F]{2}|%){0,30}";
    prop_oneof![8 => some, 1 => Just("%00".to_owned()), 1 => Just("x".repeat(5_000)), 1 => Just("%ff".repeat(1_000))]
}

fn header_value() -> impl Strategy<Value = HeaderValue> {
    let any = prop::collection::vec(any::<u8>().prop_filter("allowed", |byte| *byte >= 32 && *byte != 127), 0..300);
    any.prop_map(|bytes| HeaderValue::from_bytes(&bytes).unwrap())
}

// --- What becomes of it -------------------------------------------------------------------------------------------

#[track_caller]
fn is_answered(reply: &Reply) {
    assert!(reply.status < 500, "{} {}", reply.status, reply.text);
    assert!(reply.text.len() <= LARGEST_ANSWER, "{} with {} bytes", reply.status, reply.text.len());
    if reply.status >= 400 {
        assert_eq!(reply.headers["content-type"], "application/problem+json", "{}", reply.text);
        assert_eq!(reply.body["status"], reply.status, "{}", reply.text);
    }
}

/// Deliveries that wait, or that failed and will come again.
async fn undone(world: &World) -> u32 {
    use QueueAttributeName::{ApproximateNumberOfMessages, ApproximateNumberOfMessagesNotVisible};
    let queues = &world.system.context.queues;
    let asked = queues.sqs.get_queue_attributes().queue_url(&queues.conversions_url);
    let counts = [ApproximateNumberOfMessages, ApproximateNumberOfMessagesNotVisible];
    let counts = asked.set_attribute_names(Some(counts.to_vec())).send().await.unwrap().attributes.unwrap();
    counts.values().map(|count| count.parse::<u32>().unwrap()).sum()
}

/// Works off what is in the queue. What fails would fail for ever; it is thrown away, to tell it from the next.
async fn is_finished(world: &World) {
    world.settle().await;
    let failed = undone(world).await;
    let queues = &world.system.context.queues;
    queues.sqs.purge_queue().queue_url(&queues.conversions_url).send().await.unwrap();
    assert_eq!(failed, 0, "the delivery comes again for ever");
}

async fn late_in_2026() -> World {
    Plan::new().at("2026-12-01T00:00:00Z").start().await
}

async fn connections(world: &World) -> Vec<Connection> {
    let mut connections = Vec::new();
    for kind in ["shopify", "woocommerce", "stripe", "standard"] {
        connections.push(world.connect(kind, (kind != "standard").then_some("a secret of the storefront")).await);
    }
    connections
}

fn of_kind<'a>(connections: &'a [Connection], kind: &str) -> &'a Connection {
    connections.iter().find(|connection| connection.kind == kind).unwrap()
}

// --- Webhooks -----------------------------------------------------------------------------------------------------

#[test]
fn any_signed_delivery_is_booked_ignored_or_filed() {
    let runtime = runtime();
    let world = runtime.block_on(late_in_2026());
    let connections = runtime.block_on(connections(&world));
    proptest!(percent(100), |((kind, topic, fine, ids) in select(PAYLOADS.to_vec()), number in 0..20, body in body())| {
        let numbered = |text: String, id: &&str| text.replace(*id, &format!("{id}{number}"));
        let fine = ids.iter().fold(fine.to_owned(), numbered);
        let text = body.of(&serde_json::from_str(&fine).unwrap());
        runtime.block_on(async {
            let reply = world.send(of_kind(&connections, kind).delivery(topic, &text)).await;
            let expect = if text.len() > storefront_webhook::MAX_BODY { 413 } else { 200 };
            assert_eq!((reply.status, reply.text.as_str()), (expect, ""));
            is_finished(&world).await;
        });
    });
    runtime.block_on(world.audit_holds());
}

#[test]
fn no_header_and_no_path_opens_a_webhook() {
    const HEADERS: [&str; 11] = [
        "x-shopify-hmac-sha256",
        "x-shopify-topic",
        "x-wc-webhook-signature",
        "x-wc-webhook-topic",
        "stripe-signature",
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
        "content-type",
        "content-encoding",
        "x-amzn-trace-id",
    ];
    let shaped = prop_oneof![
        header_value(),
        ("t=[0-9]{0,22},v1=[0-9a-f]{0,70}|v1,[A-Za-z0-9+/=]{0,60}|-?[0-9]{0,22}")
            .prop_map(|text| text.parse::<HeaderValue>().unwrap()),
    ];
    let headers = prop::collection::vec((select(HEADERS.to_vec()), shaped), 0..6);
    let runtime = runtime();
    let world = runtime.block_on(late_in_2026());
    let connections = runtime.block_on(connections(&world));
    proptest!(percent(400), |(
        connection in prop::option::weighted(0.8, select(connections)),
        id in uri_text(),
        headers in headers,
        bytes in prop::collection::vec(any::<u8>(), 0..100),
    )| {
        let id = connection.map_or(id, |connection| connection.id);
        let mut request = Request::new(Method::POST, &format!("/webhooks/{id}")).body(bytes);
        request.headers = headers.into_iter().map(|(name, value)| (name.parse().unwrap(), value)).collect();
        let reply = runtime.block_on(world.send(request));
        assert_eq!((reply.status, reply.text.as_str()), (401, ""));
    });
    runtime.block_on(async {
        assert_eq!(undone(&world).await, 0);
        world.audit_holds().await;
    });
}

#[test]
fn no_link_and_no_header_lead_anywhere_but_to_the_shop() {
    const PIECES: [&str; 24] = [
        "https:",
        "https://",
        "http://",
        "//",
        "/",
        "\\",
        ":",
        "@",
        ".",
        "?",
        "#",
        "&",
        "\t",
        "\n",
        " ",
        "\u{0}",
        "\u{3002}",
        "%2f",
        "%5c",
        "shop.example",
        "evil.example",
        "javascript:",
        "443",
        "xn--",
    ];
    // Not `host` and `x-forwarded-proto`, which API Gateway writes itself.
    const HEADERS: [&str; 8] =
        ["cookie", "user-agent", "referer", "x-forwarded-host", "sec-purpose", "purpose", "sec-fetch-dest", "x-moz"];
    const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0";
    let pieces = || prop::collection::vec(select(PIECES.to_vec()), 0..6).prop_map(|pieces| pieces.concat());
    let to = prop_oneof![
        pieces(),
        pieces().prop_map(|rest| format!("https://shop.example{rest}")),
        Just("https://shop.example/shoes?x=1#y".to_owned()),
        any::<String>(),
    ];
    let header = prop_oneof![header_value(), "pp_visitor=vis_[0-9a-z]{24,28}".prop_map(|text| text.parse().unwrap())];
    let headers = prop::collection::vec((select(HEADERS.to_vec()), header), 0..4);
    let runtime = runtime();
    let world = runtime.block_on(Plan::new().program("landingPage", "https://shop.example/").start());
    proptest!(percent(800), |(
        code in prop_oneof![4 => Just("ANNA10".to_owned()), 1 => uri_text()],
        to in prop::option::of(to),
        more in uri_text(),
        headers in headers,
    )| {
        let encoded: Vec<_> = to.unwrap_or_default().bytes().map(|byte| format!("%{byte:02x}")).collect();
        let path = format!("/r/{code}?to={}&campaign={more}&channel={more}&{more}={more}", encoded.concat());
        let mut request = Request::get("").at(&path).header("user-agent", BROWSER);
        request.headers.extend(headers.into_iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value)));
        let reply = runtime.block_on(world.send(request));
        match reply.headers.get("location") {
            Some(location) => {
                assert_eq!(reply.status, 302);
                let location = location.to_str().unwrap();
                assert!(location.starts_with("https://shop.example/"), "{path} leads to {location}");
            }
            None => assert!([400, 404].contains(&reply.status), "{path}: {}", reply.text),
        }
    });
    runtime.block_on(world.audit_holds());
}

// --- The API ------------------------------------------------------------------------------------------------------

/// Everything there is one of, so that routes have something to work on.
struct Furnished {
    world: World,
    token: String,
    commission: String,
    payout: Value,
    run: String,
    exception: String,
    conversion: String,
}

async fn furnished() -> Furnished {
    let world = Plan::new().start().await;
    let source = world.connect("standard", None).await;
    for _ in 0..2 {
        world.deliver(&source, "", &format!("nonsense {}", world.exceptions().await.len())).await;
    }
    world.post(ADMIN, "/programs", &json!({"name": "Another"})).await.ok();
    world.add_partner(&json!({"code": "OTHER"})).await;
    let conversion = world.report(&world.sale_event("o1", "100.00")).await.id();
    world.sale("o2", "50.00").await;
    let payout = world.request_payout().await;
    world.sale("o3", "10.00").await;
    world.request_payout().await;
    let mut run = String::new();
    for _ in 0..2 {
        run = world.post(ADMIN, "/runs", &json!({"programId": world.program})).await.id();
    }
    world.settle().await;
    world.sale("o4", "70.00").await;
    let exception = world.exceptions().await[0]["id"].as_str().unwrap().to_owned();
    let commission = world.line_id("o4").await;
    let token = world.token(ADMIN).await;
    Furnished { world, token, commission, payout, run, exception, conversion }
}

impl Furnished {
    async fn send(&self, request: Request) -> Reply {
        self.world.send(request.token(&self.token)).await
    }

    /// Every route that takes a body, with one it accepts.
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn posts(&self) -> Vec<(String, Value)> {
        let Self { world, payout, exception, .. } = self;
        let (program, partner, payout_id) = (&world.program, &world.partner, &payout["id"]);
        let reasons = json!({"payouts": [{"id": payout_id, "reason": "test"}]});
        let mut posts = vec![
            (
                "/programs".to_owned(),
                json!({
                    "name": "P", "currency": "USD", "timeZone": "Europe/Berlin", "holdDays": 30, "minHoldDays": 1,
                    "coolingOffDays": 3, "approval": "manual", "minimumPayout": "50.00", "largePayoutLimit": "1000.00",
                    "minimumSales": 0, "ruleSignOff": true, "attribution": {"model": "last_touch"},
                    "schedule": {"frequency": "biweekly", "runDay": 1, "anchor": "2026-01-05", "cutOffDays": 1, "payDays": 1},
                    "landingPage": "https://shop.example/", "allowedHosts": ["blog.example"],
                }),
            ),
            (
                format!("/programs/{program}/rule-sets"),
                json!({
                    "rationale": "r", "effectiveFrom": "2026-06-01T00:00:00Z",
                    "rules": [
                        {
                            "key": "k", "name": "R", "priority": 1, "holdDays": 5, "minimumSales": 0, "base": "gross",
                            "match": {"products": ["A"], "minOrder": "1.00", "actions": ["sale"], "metadata": {"a": "b"}},
                            "reward": {"kind": "percent", "rate": "10"}, "recurrence": "always",
                            "slices": [{"share": "40", "days": 0}, {"share": "60", "days": 60}], "caps": {},
                        },
                        {"name": "Ladder", "reward": {
                            "kind": "tiered", "metric": "count", "window": "lifetime", "shape": "marginal_by_order",
                            "tiers": [{"after": "0", "rate": "5"}, {"after": "10", "rate": "7"}],
                        }},
                        {"name": "Flat", "reward": {"kind": "flat", "amount": "1.00"}},
                    ],
                    "examples": [{
                        "input": {
                            "id": "e", "type": "sale", "occurredAt": "2026-01-01T00:00:00Z", "metadata": {"a": "c"},
                            "amount": {"total": "118.00", "tax": "18.00", "currency": "USD"}, "unknown": 1,
                        },
                        "expect": ["5.00"],
                    }],
                }),
            ),
            (format!("/programs/{program}/rule-sets/1/sign-off"), json!({})),
            (format!("/programs/{program}/rule-sets/1/publish"), json!({})),
            (
                "/partners".to_owned(),
                json!({
                    "programId": program, "name": "Ben", "email": "ben@partners.example", "code": "BEN10",
                    "type": "affiliate", "group": "gold", "minimumPayout": "1.00", "trusted": true,
                    "payoutMethods": [
                        {"kind": "paypal", "details": {"email": "ben@partners.example"}, "preferred": true},
                    ],
                }),
            ),
            (
                "/sources".to_owned(),
                json!({"programId": program, "kind": "shopify", "name": "Shop", "secret": "12345678"}),
            ),
            (
                "/conversions".to_owned(),
                world.event(json!({
                    "id": "o9", "type": "sale", "coupon": "ANNA10", "clickId": "c", "visitorId": "v", "country": "DE",
                    "amount": {"total": "118.00", "tax": "18.00", "shipping": "0.00", "discount": "1.00"},
                    "items": [{"sku": "A", "product": "1", "category": "C", "quantity": 2, "amount": "100.00"}],
                    "customer": {"id": "7", "new": true}, "metadata": {"a": "b"}, "channel": "web",
                })),
            ),
            ("/conversions".to_owned(), world.refund_event("r1", "o1", "10.00")),
            (
                "/runs".to_owned(),
                json!({
                    "programId": program, "cutOff": "2026-01-01T00:00:00Z", "include": [partner], "exclude": [partner],
                    "preview": true,
                }),
            ),
            (
                "/payouts".to_owned(),
                json!({
                    "partnerId": partner, "programId": program, "amount": "1.00", "method": "manual",
                    "override": {"reason": "test"},
                }),
            ),
            ("/payouts/approve".to_owned(), json!({"payoutIds": [payout_id]})),
            (
                "/payouts/approve".to_owned(),
                json!({"payouts": [{
                    "id": payout_id, "version": payout["version"], "amount": "15.00", "linesHash": payout["linesHash"],
                }]}),
            ),
            (
                "/payouts/mark-paid".to_owned(),
                json!({"payouts": [{
                    "id": payout_id, "reference": "wire", "paidAt": "2026-01-01T00:00:00Z", "amount": "1.00",
                }]}),
            ),
            ("/payouts/send-back".to_owned(), reasons.clone()),
            ("/payouts/cancel".to_owned(), reasons),
            (format!("/exceptions/{exception}/resolve"), json!({"resolution": "done"})),
            (format!("/exceptions/{exception}/replay"), json!({})),
        ];
        posts.extend(self.verdicts());
        posts.push(("/links".to_owned(), self.link()));
        posts
    }

    fn verdicts(&self) -> [(String, Value); 5] {
        let ids = json!({"ids": [self.commission], "reason": "test", "atomic": false});
        let verdicts = ["hold", "release", "approve", "reject", "reinstate"];
        verdicts.map(|verdict| (format!("/commissions/{verdict}"), ids.clone()))
    }

    fn link(&self) -> Value {
        json!({
            "partnerId": self.world.partner, "code": "SPRING", "campaign": "spring", "channel": "mail",
            "destination": "https://shop.example/",
        })
    }

    /// Every list, with filters that find more than one.
    fn lists(&self) -> Vec<String> {
        let (program, partner) = (&self.world.program, &self.world.partner);
        vec![
            "/programs?".to_owned(),
            format!("/partners?programId={program}"),
            format!("/sources?programId={program}"),
            format!("/links?programId={program}"),
            format!("/commissions?partnerId={partner}"),
            format!("/commissions?programId={program}"),
            "/commissions?".to_owned(),
            format!("/runs?programId={program}"),
            format!("/payouts?partnerId={partner}"),
            format!("/payouts?programId={program}"),
            "/payouts?".to_owned(),
            "/exceptions?status=open".to_owned(),
            format!("/exceptions?code=unreadable&programId={program}"),
            format!("/balances?programId={program}"),
        ]
    }

    /// Every route that reads one thing.
    fn reads(&self) -> Vec<String> {
        let Self { world, commission, payout, run, exception, conversion, .. } = self;
        vec![
            format!("/programs/{}", world.program),
            format!("/programs/{}/rule-sets", world.program),
            format!("/programs/{}/rule-sets/1", world.program),
            format!("/partners/{}", world.partner),
            format!("/conversions/{conversion}"),
            format!("/commissions/{commission}"),
            format!("/commissions/{commission}/explanation"),
            format!("/runs/{run}"),
            format!("/payouts/{}", payout["id"].as_str().unwrap()),
            format!("/payouts/{}/lines", payout["id"].as_str().unwrap()),
            format!("/exceptions/{exception}"),
        ]
    }
}

#[test]
fn any_body_gets_an_answer_or_a_problem() {
    let runtime = runtime();
    let api = runtime.block_on(furnished());
    let header = || prop::option::weighted(0.2, prop_oneof![header_value(), Just(HeaderValue::from_static("key"))]);
    proptest!(percent(400), |(
        (path, fine) in select(api.posts()),
        body in body(),
        key in header(),
        seen in header(),
    )| {
        let mut request = Request::post(&path, &Value::Null).body(body.of(&fine));
        request.headers.extend(key.map(|key| (HeaderName::from_static("idempotency-key"), key)));
        request.headers.extend(seen.map(|seen| (http::header::IF_MATCH, seen)));
        is_answered(&runtime.block_on(api.send(request)));
    });
    runtime.block_on(async {
        api.world.settle().await;
        api.world.audit_holds().await;
    });
}

#[test]
fn bytes_that_are_no_text_are_a_problem() {
    let runtime = runtime();
    let api = runtime.block_on(furnished());
    let posts = api.posts().into_iter().filter(|(_, fine)| *fine != json!({})).collect::<Vec<_>>();
    proptest!(percent(100), |((path, _) in select(posts), bytes in prop::collection::vec(any::<u8>(), 0..100))| {
        let reply = runtime.block_on(api.send(Request::post(&path, &Value::Null).body([b"\xff", &bytes[..]].concat())));
        is_answered(&reply);
        assert_eq!(reply.status, 400, "{}", reply.text);
    });
}

/// Text that is nearly a file of ours.
fn csv_text() -> impl Strategy<Value = String> {
    const CELLS: [&str; 25] = [
        "id",
        "type",
        "occurredAt",
        "total",
        "currency",
        "metadata.a",
        "partnerCode",
        "code",
        "name",
        "email",
        "methodKind",
        "o1",
        "sale",
        "refund",
        "2026-01-01T00:00:00Z",
        "1.00",
        "USD",
        "ANNA10",
        "ben@partners.example",
        "2026-01-01",
        "from",
        "rate",
        "EUR",
        "1.0837",
        "ECB",
    ];
    let cell = prop_oneof![6 => select(CELLS.to_vec()).prop_map(str::to_owned), 1 => any::<String>(), 1 => "[\"\r\n,.0-9]{0,6}"];
    let row = prop::collection::vec(cell, 0..8).prop_map(|cells| cells.join(","));
    let rows = prop::collection::vec(row, 0..6).prop_map(|rows| rows.join("\n"));
    let headers = [
        "",
        "\u{feff}id,type,occurredAt,partnerCode,total,currency,sku,quantity\n",
        "id,type,occurredAt\r\n",
        "code,name,email,methodKind,method.email\n",
        "date,from,to,rate,source\n",
        "date,from,to,rate,source\n2026-01-01,EUR,USD,",
    ];
    (select(headers.to_vec()), rows).prop_map(|(header, rows)| format!("{header}{rows}"))
}

#[test]
fn any_file_gets_an_answer_or_a_problem() {
    let runtime = runtime();
    let api = runtime.block_on(furnished());
    let kinds = select(vec![("conversions", true), ("partners", true), ("exchange-rates", false)]);
    proptest!(percent(200), |((kind, of_program) in kinds, dry_run in any::<bool>(), text in csv_text(), bytes in any::<Vec<u8>>())| {
        let program = if of_program { format!("&programId={}", api.world.program) } else { String::new() };
        let path = format!("/{kind}/import?dryRun={dry_run}{program}");
        let request = Request::new(Method::POST, &path).header("content-type", "text/csv");
        is_answered(&runtime.block_on(api.send(request.clone().body(text.clone()))));
        is_answered(&runtime.block_on(api.send(request.body([text.as_bytes(), &bytes].concat()))));
    });
    runtime.block_on(api.world.audit_holds());
}

#[test]
fn any_path_and_any_query_gets_an_answer_or_a_problem() {
    const NAMES: [&str; 11] =
        ["limit", "cursor", "programId", "partnerId", "status", "state", "payment", "atomic", "preview", "%00", "x"];
    let runtime = runtime();
    let api = runtime.block_on(furnished());
    let imports =
        ["/conversions/import?", "/partners/import?", "/exchange-rates/import?", "/exchange-rates?"].map(str::to_owned);
    let posts = api.posts().into_iter().map(|(path, _)| path);
    let paths: Vec<_> = api.reads().into_iter().chain(api.lists()).chain(posts).chain(imports).collect();
    let words = ["0", "1", "100", "101", "-1", "18446744073709551616", "open", "resolved", "paid", "due", "true", ""];
    let ids = [api.world.program.clone(), api.world.partner.clone()];
    let value = prop_oneof![2 => uri_text(), 2 => select(words.map(str::to_owned).to_vec()), 1 => select(ids.to_vec())];
    let query = prop::collection::vec((select(NAMES.to_vec()), value), 0..4);
    proptest!(percent(400), |(
        path in select(paths),
        segment in prop::option::of((any::<Index>(), uri_text())),
        query in query,
        post in any::<bool>(),
    )| {
        let (path, filters) = path.split_once('?').unwrap_or((&path, ""));
        let mut segments: Vec<_> = path.split('/').collect();
        if let Some((index, text)) = &segment {
            let at = 1 + index.index(segments.len() - 1);
            segments[at] = text;
        }
        let query: Vec<_> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let method = if post { Method::POST } else { Method::GET };
        let request = Request::new(method, &format!("{}?{filters}&{}", segments.join("/"), query.join("&")));
        is_answered(&runtime.block_on(api.send(request)));
    });
    runtime.block_on(api.world.audit_holds());
}

// --- Cursors ------------------------------------------------------------------------------------------------------

#[derive(Debug, Clone)]
enum Spoil {
    Cut(Index),
    Flip(Index, u8),
    Append(String),
    Other(Index),
    Instead(String),
}

#[test]
fn only_the_cursor_of_the_same_query_goes_on() {
    let runtime = runtime();
    let api = runtime.block_on(furnished());
    let mut cursors = Vec::new();
    for list in api.lists() {
        let page = runtime.block_on(api.send(Request::get(&format!("{list}&limit=1")))).ok();
        let cursor = page["nextCursor"].as_str().unwrap_or_else(|| panic!("{list} has one page")).to_owned();
        let next = runtime.block_on(api.send(Request::get(&format!("{list}&limit=1&cursor={cursor}"))));
        assert_eq!(next.status, 200, "{list}: {}", next.text);
        cursors.push((list, cursor));
    }
    let spoil = prop_oneof![
        any::<Index>().prop_map(Spoil::Cut),
        (any::<Index>(), 1..=255_u8).prop_map(|(at, bits)| Spoil::Flip(at, bits)),
        "[A-Za-z0-9_=-]{1,8}".prop_map(Spoil::Append),
        any::<Index>().prop_map(Spoil::Other),
        uri_text().prop_map(Spoil::Instead),
    ];
    proptest!(percent(200), |((list, cursor) in select(cursors.clone()), spoil in spoil)| {
        let spoiled = match spoil {
            Spoil::Cut(at) => cursor[..at.index(cursor.len())].to_owned(),
            Spoil::Flip(at, bits) => {
                use base64::engine::general_purpose::URL_SAFE_NO_PAD;
                let mut bytes = URL_SAFE_NO_PAD.decode(&cursor).unwrap();
                let at = at.index(bytes.len());
                bytes[at] ^= bits;
                URL_SAFE_NO_PAD.encode(bytes)
            }
            Spoil::Append(text) => format!("{cursor}{text}"),
            Spoil::Other(other) => other.get(&cursors).1.clone(),
            Spoil::Instead(text) => text,
        };
        prop_assume!(spoiled != cursor);
        let reply = runtime.block_on(api.send(Request::get(&format!("{list}&limit=1&cursor={spoiled}"))));
        is_answered(&reply);
        assert_eq!(reply.status, 400, "{list} with {spoiled}");
    });
}

// --- Queues and the stream ----------------------------------------------------------------------------------------

fn records(bodies: &[(&str, String)]) -> Value {
    let records = bodies.iter().map(|(id, body)| json!({"messageId": id, "body": body, "eventSource": "aws:sqs"}));
    json!({"Records": records.collect::<Vec<_>>()})
}

/// The ids of records that come again: at most the one between its neighbors.
fn failed(answer: &Value) -> Vec<&str> {
    let failures = answer["batchItemFailures"].as_array().unwrap().iter();
    failures.map(|failure| failure["itemIdentifier"].as_str().unwrap()).collect()
}

#[track_caller]
fn neighbors_are_done(answer: &Value) {
    assert!([vec![], vec!["between"]].contains(&failed(answer)), "{answer}");
}

#[test]
fn any_message_fails_at_most_itself() {
    let runtime = runtime();
    let world = runtime.block_on(late_in_2026());
    let source = runtime.block_on(world.connect("standard", None));
    let orders = std::cell::Cell::new(0);
    let delivery = |payload: &[u8]| {
        let delivery = Delivery {
            source: source.id.parse().unwrap(),
            received_at: "2026-12-01T00:00:00Z".parse().unwrap(),
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: STANDARD.encode(payload),
        };
        json!(delivery)
    };
    let sale = || {
        orders.set(orders.get() + 1);
        let order = format!("order {}", orders.get());
        let text = delivery(world.sale_event(&order, "10.00").to_string().as_bytes()).to_string();
        (text, ConversionId::derive(&world.program.parse().unwrap(), &source.id.parse().unwrap(), &order))
    };
    proptest!(percent(20), |(body in body(), bytes in prop::collection::vec(any::<u8>(), 0..100))| {
        let ((first, before), (last, after)) = (sale(), sale());
        let bodies = [("first", first), ("between", body.of(&delivery(&bytes))), ("last", last)];
        runtime.block_on(async {
            let answer = world.system.invoke("ingest-conversions", records(&bodies)).await.unwrap();
            neighbors_are_done(&answer);
            for conversion in [before, after] {
                world.get(ADMIN, &format!("/conversions/{conversion}")).await.ok();
            }
        });
    });
    runtime.block_on(world.audit_holds());
}

#[test]
fn any_request_to_draft_fails_at_most_itself() {
    let runtime = runtime();
    let world = runtime.block_on(Plan::new().start());
    let asked = json!({"programId": world.program, "include": [world.partner]});
    proptest!(percent(10), |(body in body())| {
        runtime.block_on(async {
            let mut runs = Vec::new();
            for _ in 0..3 {
                runs.push(world.post(ADMIN, "/runs", &asked).await.id());
            }
            let message = |run: &String| json!({"run": run, "partner": world.partner});
            let bodies = [
                ("first", message(&runs[0]).to_string()),
                ("between", body.of(&message(&runs[1]))),
                ("last", message(&runs[2]).to_string()),
            ];
            let answer = world.system.invoke("draft-payout", records(&bodies)).await.unwrap();
            neighbors_are_done(&answer);
            for run in [&runs[0], &runs[2]] {
                assert_eq!(world.get(ADMIN, &format!("/runs/{run}")).await.ok()["state"], "completed");
            }
            world.settle().await;
        });
    });
    runtime.block_on(world.audit_holds());
}

/// An attribute as a stream gives it; only its content is arbitrary.
fn attribute() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        ".{0,20}".prop_map(|text| json!({"S": text})),
        select(vec!["0", "-1", "1E+125", "-9.9999999999999999999999999999999999999E+125", "1E-130"])
            .prop_map(|number| json!({"N": number})),
        any::<bool>().prop_map(|yes| json!({"BOOL": yes})),
        Just(json!({"NULL": true})),
        prop::collection::vec(any::<u8>(), 0..9).prop_map(|bytes| json!({"B": STANDARD.encode(bytes)})),
        Just(json!({"SS": ["a", "b"]})),
        Just(json!({"NS": ["1", "2.5"]})),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|list| json!({"L": list})),
            prop::collection::btree_map(".{0,6}", inner, 0..4).prop_map(|map| json!({"M": map})),
        ]
    })
}

#[test]
fn any_image_is_published_passed_over_or_reported() {
    let runtime = runtime();
    let world = runtime.block_on(Plan::new().start());
    let event = sample("publish-changes/sale-booked.json");
    let record = &event["Records"][0];
    let text: Value = serde_json::from_str(record["dynamodb"]["NewImage"]["text"]["S"].as_str().unwrap()).unwrap();
    let field = select(vec!["pk", "sk", "text", "hash", "rev", "position", "another"]);
    let image = prop::collection::vec((field, prop::option::weighted(0.8, attribute())), 0..3);
    let name = prop_oneof![4 => Just("INSERT"), 1 => select(vec!["MODIFY", "REMOVE"])];
    proptest!(percent(40), |(entry in prop::option::of(body()), image in image, name in name)| {
        let mut strange = record.clone();
        strange["eventName"] = json!(name);
        strange["dynamodb"]["SequenceNumber"] = json!("between");
        let attributes = strange["dynamodb"]["NewImage"].as_object_mut().unwrap();
        if let Some(entry) = entry {
            attributes["text"] = json!({"S": entry.of(&text)});
        }
        for (name, value) in image {
            match value {
                Some(value) => drop(attributes.insert(name.to_owned(), value)),
                None => drop(attributes.remove(name)),
            }
        }
        let before = world.events("commission.accrued").len();
        let batch = json!({"Records": [record, strange, record]});
        let answer = runtime.block_on(world.system.invoke("publish-changes", batch)).unwrap();
        neighbors_are_done(&answer);
        // A stream goes on from the record that failed.
        let published = if failed(&answer).is_empty() { 2 } else { 1 };
        assert!(world.events("commission.accrued").len() >= before + published);
    });
}

// --- Found this way -----------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_version_in_a_path_that_is_no_text_is_not_found() {
    let world = Plan::new().start().await;
    let sets = format!("/programs/{}/rule-sets", world.program);
    for request in [
        Request::get("/programs/%8A/rule-sets/1"),
        Request::get(&format!("{sets}/%ff")),
        Request::post(&format!("{sets}/%ff/sign-off"), &json!({})),
        Request::post(&format!("{sets}/%ff/publish"), &json!({})),
    ] {
        let reply = world.send(world.by(ADMIN, request).await).await.refused(404);
        is_answered(&reply);
    }
}

#[tokio::test]
async fn what_an_item_cannot_hold_is_refused() {
    let world = Plan::new().start().await;
    let group = json!({
        "programId": world.program, "name": "B", "email": "b@partners.example", "code": "B", "group": "x".repeat(410_000),
    });
    let reply = world.post(ADMIN, "/partners", &group).await.refused(422);
    assert_eq!(reply.pointers(), ["/group"]);
    let sets = format!("/programs/{}/rule-sets", world.program);
    let rules = json!({
        "rationale": "r", "effectiveFrom": "2026-06-01T00:00:00Z",
        "rules": [{"name": "R", "reward": {"kind": "percent", "rate": "10"}}],
        "examples": [{"expect": ["10.00"], "input": {
            "id": "e", "type": "sale", "occurredAt": "2026-01-01T00:00:00Z", "amount": {"total": "100", "currency": "USD"},
        }}],
    });
    let mut large = rules.clone();
    large["rationale"] = json!("x".repeat(410_000));
    assert_eq!(world.post(ADMIN, &sets, &large).await.refused(422).pointers(), [""]);
    let deep = (0..40).fold(json!(1), |inner, _| json!([inner]));
    for strange in [json!(1e300), json!(1e-200), deep] {
        let mut rules = rules.clone();
        rules["examples"][0]["input"]["unknown"] = strange;
        let reply = world.post(ADMIN, &sets, &rules).await.refused(422);
        assert_eq!(reply.pointers(), ["/examples/0/input"]);
    }
    world.post(ADMIN, &sets, &rules).await.ok();
}

#[tokio::test]
async fn a_body_with_very_many_faults_is_told_the_first_of_them() {
    let world = Plan::new().start().await;
    let source = world.connect("standard", None).await;
    let mut sale = world.sale_event("o1", "1.00");
    sale["items"] = json!(vec![json!({}); 100_000]);
    let reply = world.send(source.delivery("", &sale.to_string())).await;
    assert_eq!(reply.status, 200);
    is_finished(&world).await;
    assert_eq!(world.exception_codes().await, ["unreadable"]);
    sale["items"] = json!(vec![json!({}); 300_000]);
    is_answered(&world.report(&sale).await.refused(422));
    let run = json!({"programId": world.program, "include": vec!["x"; 200_000]});
    is_answered(&world.post(ADMIN, "/runs", &run).await.refused(422));
    world.audit_holds().await;
}
