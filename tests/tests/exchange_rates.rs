//! Money in other currencies: the table of rates, what is told and fetched into it, and what is converted by it. The arithmetic is in
//! `tests/examples/currencies.json`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use http::Method;
use lambda_runtime::LambdaEvent;
use local::import::{Import, Kind, import};
use outbound::{Limits, Outbound};
use proptest::prelude::*;
use serde_json::{Value, json};
use tests::{ADMIN, FINANCE, Plan, Reply, Request, Who, World, percent};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use workflows::fetch_rates::Source;

const HEADER: &str = "date,from,to,rate,source\n";

async fn send(world: &World, who: Who<'_>, dry_run: bool, rows: &str) -> Reply {
    let file = Request::new(Method::POST, &format!("/exchange-rates/import?dryRun={dry_run}"));
    let file = file.header("content-type", "text/csv").body(format!("{HEADER}{rows}"));
    world.send(world.by(who, file).await).await
}

async fn told(world: &World, rows: &str) -> Value {
    send(world, FINANCE, false, rows).await.ok()
}

/// Applied, already there, refused.
fn counts(report: &Value) -> [u64; 3] {
    ["applied", "alreadyApplied", "refused"].map(|count| report[count].as_u64().unwrap())
}

/// Line, column and a part of what is said of it.
fn faults(report: &Value) -> Vec<(u64, String)> {
    let faults = report["errors"].as_array().unwrap().iter();
    faults.map(|fault| (fault["line"].as_u64().unwrap(), fault["column"].as_str().unwrap().to_owned())).collect()
}

/// Date, sides of the rate, and source, of each.
async fn rates(world: &World, query: &str) -> Vec<String> {
    let rates = world.all(FINANCE, &format!("/exchange-rates?{query}")).await;
    let text = |rate: &Value, field: &str| rate[field].as_str().unwrap().to_owned();
    let words = |rate: &Value| {
        let [date, per, from, number, to, source] =
            ["date", "per", "from", "rate", "to", "source"].map(|field| text(rate, field));
        format!("{date}: {per} {from} = {number} {to}, {source}")
    };
    rates.iter().map(words).collect()
}

fn in_euros(world: &World, order: &str, total: &str) -> Value {
    let mut event = world.sale_event(order, total);
    event["amount"]["currency"] = json!("EUR");
    event
}

// --- The table ----------------------------------------------------------------------------------------------------

#[tokio::test]
async fn what_was_told_of_a_day_stays() {
    let world = Plan::new().at("2026-01-03T00:00:00Z").start().await;
    let file = "2026-01-02,EUR,USD,1.10,ECB\n2026-01-02,EUR,GBP,0.85,ECB\n2026-01-03,EUR,USD,1.12,ECB\n";
    let rehearsed = send(&world, FINANCE, true, file).await.ok();
    assert_eq!(counts(&rehearsed), [3, 0, 0]);
    assert_eq!(rates(&world, "date=2026-01-02").await, [] as [String; 0], "a dry run writes nothing");
    assert_eq!(counts(&told(&world, file).await), [3, 0, 0]);
    // The same again, also written otherwise and by another source, is no change.
    assert_eq!(counts(&told(&world, &format!("{file}2026-01-02,EUR,USD,1.1000,Bank\n")).await), [0, 4, 0]);
    for dry_run in [true, false] {
        let report =
            send(&world, FINANCE, dry_run, "2026-01-02,EUR,USD,1.11,ECB\n2026-01-02,USD,EUR,0.9,ECB\n").await.ok();
        assert_eq!((counts(&report), faults(&report)), ([1, 0, 1], vec![(2, "rate".to_owned())]));
        let why = report["errors"][0]["detail"].as_str().unwrap();
        assert!(why.contains("ECB") && why.contains("1 EUR = 1.1 USD"), "{why}");
    }
    let expect = ["2026-01-03: 1 EUR = 1.12 USD, ECB", "2026-01-02: 1 EUR = 1.1 USD, ECB"];
    assert_eq!(rates(&world, "from=EUR&to=USD").await, expect);
    assert_eq!(rates(&world, "from=EUR&to=USD&limit=1").await, expect);
    let of_day =
        ["2026-01-02: 1 EUR = 0.85 GBP, ECB", "2026-01-02: 1 EUR = 1.1 USD, ECB", "2026-01-02: 1 USD = 0.9 EUR, ECB"];
    assert_eq!(rates(&world, "date=2026-01-02").await, of_day);
    let shown = &world.all(FINANCE, "/exchange-rates?date=2026-01-03").await[0];
    assert_eq!((&shown["toldBy"], &shown["toldAt"]), (&json!(FINANCE.subject), &json!("2026-01-03T00:00:00Z")));
    world.audit_holds().await;
}

#[tokio::test]
async fn the_rate_of_a_day_is_shown_as_a_sale_of_that_day_would_be_converted() {
    let world = Plan::new().at("2026-01-31T00:00:00Z").start().await;
    told(&world, "2026-01-02,EUR,USD,1.08,ECB\n2026-01-02,EUR,CAD,1.47,ECB\n2026-01-05,EUR,USD,1.09,ECB\n").await;
    for (query, expect) in [
        ("from=EUR&to=USD&date=2026-01-01", None),
        ("from=EUR&to=USD&date=2026-01-04", Some("2026-01-02: 1 EUR = 1.08 USD, ECB")),
        ("from=EUR&to=USD&date=2026-01-12", Some("2026-01-05: 1 EUR = 1.09 USD, ECB")),
        ("from=EUR&to=USD&date=2026-01-13", None),
        ("from=USD&to=EUR&date=2026-01-05", Some("2026-01-05: 1.09 USD = 1 EUR, ECB")),
        ("from=USD&to=CAD&date=2026-01-05", Some("2026-01-02: 1.08 USD = 1.47 CAD, ECB")),
        ("from=USD&to=GBP&date=2026-01-05", None),
    ] {
        assert_eq!(rates(&world, query).await, expect.into_iter().collect::<Vec<_>>(), "{query}");
    }
    for query in ["", "?from=EUR", "?to=EUR&date=2026-01-01", "?from=EUR&to=XYZ", "?date=June", "?day=2026-01-01"] {
        world.get(FINANCE, &format!("/exchange-rates{query}")).await.refused(400);
    }
}

#[tokio::test]
async fn a_bad_row_is_told_by_line_and_column_and_stops_no_other() {
    let world = Plan::new().start().await;
    for (row, columns) in [
        ("2026-01-02,EUR,USD,1.1,ECB", vec!["date"]),
        ("yesterday,EUR,USD,1.1,ECB", vec!["date"]),
        ("2025-12-31,XYZ,USD,1.1,ECB", vec!["from"]),
        ("2025-12-31,EUR,dollars,1.1,ECB", vec!["to"]),
        ("2025-12-31,EUR,EUR,1.1,ECB", vec!["to"]),
        ("2025-12-31,EUR,USD,0,ECB", vec!["rate"]),
        ("2025-12-31,EUR,USD,-1.1,ECB", vec!["rate"]),
        ("2025-12-31,EUR,USD,\"1,1\",ECB", vec!["rate"]),
        ("2025-12-31,EUR,USD,1.1,", vec!["source"]),
        ("2025-12-31,EUR,USD", vec![""]),
        (",,,,x", vec!["date", "from", "to", "rate"]),
    ] {
        let world = world.clone();
        let text = format!("2025-12-30,EUR,USD,1.1,ECB\n{row}\n2025-12-29,EUR,USD,1.1,ECB\n");
        let report = told(&world, &text).await;
        let expect: Vec<_> = columns.iter().map(|column| (3, (*column).to_owned())).collect();
        assert_eq!((counts(&report)[2], faults(&report)), (1, expect), "{row}");
    }
    assert_eq!(rates(&world, "from=EUR&to=USD").await.len(), 2);
    let unknown = Request::new(Method::POST, &format!("/exchange-rates/import?programId={}", world.program));
    let unknown = unknown.header("content-type", "text/csv").body(HEADER);
    world.send(world.by(FINANCE, unknown).await).await.refused(400);
}

#[tokio::test]
async fn rates_are_imported_from_the_command_line_too() {
    let world = Plan::new().at("2026-12-31T00:00:00Z").start().await;
    let path = tests::temporary_directory("exchange-rates");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let day = |n: i64| jiff::civil::date(2026, 1, 1).checked_add(jiff::Span::new().days(n)).unwrap();
    let rows = (0..250).map(|n| format!("{},EUR,USD,1.{},ECB\n", day(n), 1_000 + n)).collect::<Vec<_>>().concat();
    std::fs::write(&path, format!("{HEADER}{rows}")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let wanted = Import {
        url: format!("http://{}", listener.local_addr().unwrap()),
        token: world.token(FINANCE).await,
        program: None,
        kind: Kind::ExchangeRates,
        file: path.clone(),
        dry_run: false,
        from_line: 1,
    };
    let served = tokio::spawn(local::serve(Arc::clone(&world.system), listener, std::future::pending()));
    let counts = import(&wanted, &mut Vec::new()).await.unwrap();
    assert_eq!([counts.rows, counts.applied, counts.already_applied, counts.refused], [250, 250, 0, 0]);
    let again = Import { from_line: 100, ..wanted.clone() };
    let counts = import(&again, &mut Vec::new()).await.unwrap();
    assert_eq!([counts.rows, counts.applied, counts.already_applied, counts.refused], [152, 0, 152, 0]);
    for (kind, program) in [(Kind::Conversions, None), (Kind::ExchangeRates, Some(world.program.clone()))] {
        let wrong = import(&Import { kind, program, ..wanted.clone() }, &mut Vec::new()).await.unwrap_err();
        assert!(wrong.to_string().contains("--program"), "{wrong}");
    }
    assert_eq!(rates(&world, "from=EUR&to=USD").await.len(), 250);
    std::fs::remove_file(path).unwrap();
    served.abort();
}

// --- Fetching -----------------------------------------------------------------------------------------------------

/// Answers each of some connections with the next of these bodies.
async fn publisher(answers: Vec<(&'static str, String)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/daily.xml", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for (status, body) in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        }
    });
    url
}

fn daily(day: &str, dollars: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<gesmes:Envelope xmlns:gesmes=\"http://www.gesmes.org/xml/2002-08-01\">\
         <Cube><Cube time='{day}'><Cube currency='USD' rate='{dollars}'/><Cube currency='JPY' rate='163.53'/></Cube></Cube>\
         </gesmes:Envelope>"
    )
}

fn counted(new: usize, known: usize, refused: usize) -> Value {
    json!({"new": new, "known": known, "refused": refused, "unknown": 0})
}

#[tokio::test]
async fn what_the_source_publishes_is_taken_once_and_what_contradicts_is_filed() {
    let world = Plan::new().at("2026-01-02T16:30:00Z").start().await;
    let url = publisher(vec![
        ("200 OK", daily("2026-01-02", "1.0837")),
        ("200 OK", daily("2026-01-02", "1.0837")),
        ("200 OK", daily("2026-01-02", "1.0838")),
        ("200 OK", daily("2026-01-02", "1.0838")),
        ("200 OK", "<html>moved</html>".to_owned()),
        ("302 Found", daily("2026-01-02", "1.0837")),
        ("200 OK", "x".repeat(70_000)),
    ])
    .await;
    let source = Source::over(url, Outbound::loopback(Limits::SMALL).unwrap());
    let fetch = async || {
        let event = LambdaEvent::new(json!({}), lambda_runtime::Context::default());
        let fetched = fetch_rates::handle(&world.system.context, Some(&source), event).await;
        fetched.map(|fetched| json!(fetched)).map_err(|error| error.to_string())
    };
    assert_eq!(fetch().await, Ok(counted(2, 0, 0)));
    assert_eq!(fetch().await, Ok(counted(0, 2, 0)));
    for _ in 0..2 {
        assert_eq!(fetch().await, Ok(counted(0, 1, 1)));
    }
    assert_eq!(world.exception_codes().await, ["exchange_rate_refused"]);
    for part in ["no rates", "302", "bytes"] {
        let why = fetch().await.unwrap_err();
        assert!(why.contains(part), "{why}");
    }
    let expect = ["2026-01-02: 1 EUR = 163.53 JPY, ECB", "2026-01-02: 1 EUR = 1.0837 USD, ECB"];
    assert_eq!(rates(&world, "date=2026-01-02").await, expect);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_source_that_is_inside_is_never_called() {
    let world = Plan::new().start().await;
    let url = publisher(vec![("200 OK", daily("2026-01-01", "1.0837"))]).await;
    for url in [url.clone(), url.replace("http:", "https:"), "https://169.254.169.254/latest/meta-data/".to_owned()] {
        let source = Source::new(url).unwrap();
        let event = LambdaEvent::new(json!({}), lambda_runtime::Context::default());
        let refused = fetch_rates::handle(&world.system.context, Some(&source), event).await.unwrap_err();
        assert!(refused.to_string().contains("the call was not made"), "{refused}");
    }
    assert_eq!(rates(&world, "date=2026-01-01").await, [] as [String; 0]);
}

#[tokio::test]
async fn without_a_source_nothing_is_fetched() {
    let world = Plan::new().start().await;
    assert_eq!(world.fire("fetch-rates").await, counted(0, 0, 0));
}

#[tokio::test]
async fn the_local_system_fetches_from_a_server_beside_it() {
    let url = publisher(vec![("200 OK", daily("2026-01-01", "1.0837"))]).await;
    let options = local::Options {
        storage: local::Storage::Memory,
        clock: local::LocalClock::standing_at("2026-01-01T17:00:00Z".parse().unwrap()),
        aws: None,
        paypal: None,
        quickbooks: local::QuickbooksOptions::default(),
    };
    let system = local::System::start(options).await.unwrap().with_rates_from(&url).unwrap();
    assert_eq!(system.fire("fetch-rates").await.unwrap(), counted(2, 0, 0));
}

// --- Accrual ------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_converted_commission_says_by_which_rate_of_whom_and_when_and_can_be_computed_again() {
    let world = Plan::new().start().await;
    told(&world, "2025-12-31,USD,EUR,0.92,ECB\n").await;
    world.report(&in_euros(&world, "o1", "92.00")).await.ok();
    let line = world.line_id("o1").await;
    let told = world.get(ADMIN, &format!("/commissions/{line}/explanation")).await.ok();
    let rate = json!({"from": "EUR", "to": "USD", "rate": "1", "per": "0.92", "source": "ECB", "date": "2025-12-31"});
    assert_eq!(told["calculation"]["exchange"], json!({"told": 9_200, "rate": rate}));
    assert_eq!((&told["calculation"]["base"], &told["amount"]["minor"]), (&json!(10_000), &json!(1_000)));
    assert_eq!(told["agrees"], true);
    let sentence = told["sentence"].as_str().unwrap();
    let part = "10 % of 100.00 USD (92.00 EUR, converted at 0.92 EUR = 1 USD as ECB published for 2025-12-31)";
    assert!(sentence.contains(part), "{sentence}");
    let replayed = world.get(ADMIN, &format!("/audit/replay?programId={}", world.program)).await.ok();
    assert_eq!((&replayed["lines"], &replayed["differing"]), (&json!(1), &json!([])), "{replayed}");
    world.audit_holds().await;
}

#[tokio::test]
async fn a_dry_run_of_rules_converts_as_the_sales_were_converted() {
    let world = Plan::new().start().await;
    told(&world, "2026-01-01,EUR,USD,1.1,ECB\n").await;
    world.report(&in_euros(&world, "o1", "100.00")).await.ok();
    world.clock_at("2026-01-02T00:00:00Z");
    told(&world, "2026-01-02,EUR,USD,1.5,ECB\n").await;
    let draft = json!({"rationale": "dearer", "effectiveFrom": "2026-02-01T00:00:00Z", "rules": [percent("20")]});
    let sets = format!("/programs/{}/rule-sets", world.program);
    let version = world.post(ADMIN, &sets, &draft).await.ok()["version"].clone();
    let period = json!({"from": "2026-01-01T00:00:00Z", "to": "2026-02-01T00:00:00Z"});
    let dry = world.post(ADMIN, &format!("{sets}/{version}/dry-run"), &period).await.ok();
    assert_eq!(
        (&dry["total"]["before"]["minor"], &dry["total"]["after"]["minor"]),
        (&json!(1_100), &json!(2_200)),
        "{dry}"
    );
}

#[tokio::test]
async fn anomaly_rules_look_at_the_programs_currency() {
    let rules = json!({"outlier": {"times": "5", "afterConversions": 10}});
    let world = Plan::new().program("anomalyRules", rules).start().await;
    told(&world, "2026-01-01,JPY,USD,0.01,ECB\n").await;
    let in_yen = |order: &str, total: &str| {
        let mut event = world.sale_event(order, total);
        event["amount"]["currency"] = json!("JPY");
        event
    };
    for n in 0..12 {
        world.sale(&format!("o{n}"), "100.00").await;
    }
    // As many yen as that are a hundred dollars; ten times as many are no longer usual.
    world.report(&in_yen("usual", "10000")).await.ok();
    world.report(&in_yen("unusual", "100000")).await.ok();
    assert_eq!(world.line_of("usual").await["state"], "payable");
    assert_eq!(world.line_of("unusual").await["state"], "held");
}

#[tokio::test]
async fn an_amount_that_is_too_large_once_converted_is_refused() {
    let world = Plan::new().start().await;
    told(&world, "2026-01-01,EUR,USD,1000,ECB\n").await;
    let refused = world.report(&in_euros(&world, "o1", "9999999999.99")).await.refused(422);
    assert_eq!(refused.pointers(), ["/amount/total"]);
}

#[tokio::test]
async fn a_sale_in_the_programs_currency_costs_no_read_of_rates() {
    let reads = async |currency: &str| {
        let world = Plan::new().start().await;
        told(&world, "2026-01-01,EUR,USD,1.1,ECB\n").await;
        let mut event = world.sale_event("o1", "100.00");
        event["amount"]["currency"] = json!(currency);
        let before = world.system.context.store.meter().totals();
        world.report(&event).await.ok();
        let read = |totals: &std::collections::BTreeMap<&'static str, store::Units>| {
            totals.get("accrue").map_or(0, |units| units.calls)
        };
        read(&world.system.context.store.meter().totals()) - read(&before)
    };
    assert_eq!(reads("EUR").await, reads("USD").await + 1, "one day was looked at");
}

// --- Payouts ------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_run_carries_whom_it_has_no_rate_for_and_says_so_beforehand() {
    let world = Plan::new().partner("payoutCurrency", "JPY").start().await;
    world.sale("o1", "100.00").await;
    let preview = json!({"programId": world.program, "preview": true});
    let shown = world.post(FINANCE, "/runs", &preview).await.ok();
    assert_eq!(shown["carried"][0]["reason"], "exchange_rate_missing");
    let run = world.post(FINANCE, "/runs", &json!({"programId": world.program})).await.id();
    world.settle().await;
    let report = world.get(FINANCE, &format!("/runs/{run}")).await.ok();
    assert_eq!((&report["state"], &report["payouts"]), (&json!("completed"), &json!([])));
    assert_eq!(report["carried"][0]["reason"], "exchange_rate_missing");
    let refused = world.request_payout_with(&json!({})).await.refused(409);
    assert!(refused.text.contains("exchange rate"), "{}", refused.text);
    told(&world, "2026-01-01,USD,JPY,151.52,ECB\n").await;
    world.post(FINANCE, "/runs", &json!({"programId": world.program})).await.id();
    world.settle().await;
    let payout = world.only_payout().await;
    assert_eq!(payout["pays"], json!({"amount": "1515", "minor": 1_515, "currency": "JPY"}));
    assert_eq!(payout["amount"]["amount"], "10.00");
    let rate = json!({"from": "USD", "to": "JPY", "rate": "151.52", "per": "1", "source": "ECB", "date": "2026-01-01"});
    assert_eq!(payout["exchangeRate"], rate);
    world.audit_holds().await;
}

/// The cells of the last row that opens so, by column.
fn row_of(csv: &str, opens: &str) -> std::collections::BTreeMap<String, String> {
    let mut rows = csv.split("\r\n").map(|row| row.split(',').map(str::to_owned).collect::<Vec<_>>());
    let columns = rows.next().unwrap();
    let row = rows.filter(|row| row[0].starts_with(opens)).last().unwrap();
    assert_eq!(row.len(), columns.len(), "{row:?}");
    columns.into_iter().zip(row).collect()
}

#[tokio::test]
async fn files_for_accounting_say_the_whole_rate_as_it_was_published() {
    for (rates, rate, per, pays) in [
        ("2025-12-31,USD,EUR,0.92,ECB\n", "0.92", "1", "92.00"),
        ("2025-12-31,EUR,USD,1.0837,ECB\n", "1", "1.0837", "92.28"),
        ("2025-12-31,GBP,USD,1.25,ECB\n2025-12-31,GBP,EUR,1.15,ECB\n", "1.15", "1.25", "92.00"),
    ] {
        let world = Plan::new().partner("payoutCurrency", "EUR").start().await;
        told(&world, rates).await;
        world.sale("o1", "1000.00").await;
        let id = world.pay_everything().await;
        let statement = format!("/payouts/{}/statement.csv", id.as_str().unwrap());
        for (path, opens, rate_column, amount) in [
            ("/payouts/export?format=accounting", "2026", "exchangeRate", "pays"),
            (statement.as_str(), "sent", "rate", "net"),
        ] {
            let row = row_of(&world.get(FINANCE, path).await.text, opens);
            let per_column = format!("{rate_column}Per");
            let found = [rate_column, &per_column, "rateSource", "rateDate", amount].map(|column| row[column].as_str());
            assert_eq!(found, [rate, per, "ECB", "2025-12-31", pays], "{rates} {path}");
            let number = |text: &str| text.parse::<rust_decimal::Decimal>().unwrap();
            let again = (number("100.00") * number(found[0]) / number(found[1])).round_dp(2);
            assert_eq!(again, number(pays), "an accountant comes to the same");
        }
        let payout = row_of(&world.get(FINANCE, &statement).await.text, "payout");
        assert_eq!([&payout["rate"], &payout["ratePer"], &payout["rateSource"]], ["", "", ""], "of what is sent alone");
    }
}

#[tokio::test]
async fn what_is_worth_less_than_the_least_of_the_other_currency_is_carried_with_its_draft() {
    let world = Plan::new().partner("payoutCurrency", "JPY").minimum("0").start().await;
    told(&world, "2026-01-01,USD,JPY,0.01,ECB\n").await;
    world.sale("o1", "100.00").await;
    let run = world.post(FINANCE, "/runs", &json!({"programId": world.program})).await.id();
    world.settle().await;
    let report = world.get(FINANCE, &format!("/runs/{run}")).await.ok();
    assert_eq!((&report["state"], &report["payouts"]), (&json!("completed"), &json!([])));
    assert_eq!(report["summary"]["amount"]["minor"], 0);
    assert_eq!(
        (&report["carried"][0]["reason"], &report["carried"][0]["payable"]["minor"]),
        (&json!("below_threshold"), &json!(1_000))
    );
    assert_eq!(world.only_payout().await["state"], "cancelled");
    assert_eq!(world.buckets().await, [("payable", 1_000)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn what_is_paid_is_told_in_the_currency_that_is_paid() {
    let world = Plan::new().partner("payoutCurrency", "JPY").start().await;
    told(&world, "2026-01-01,USD,JPY,151.52,ECB\n").await;
    world.sale("o1", "100.00").await;
    let id = world.request_payout().await["id"].clone();
    assert_eq!(world.approve_payout(ADMIN, &id).await, 200);
    for (amount, status) in [("10.50", 422), ("1515.5", 422), ("1516", 422), ("15", 200), ("1500", 200)] {
        let part = json!({"reference": amount, "amount": amount});
        assert_eq!(world.payout_call(FINANCE, "mark-paid", &id, &part).await, status, "{amount}");
    }
    world.settle().await;
    let paid = world.payout(&id).await;
    assert_eq!(paid["state"], "paid");
    assert_eq!(paid["paid"], json!({"amount": "1515", "minor": 1_515, "currency": "JPY"}));
    assert_eq!(world.events("payout.paid")[0]["detail"]["payout"]["paid"]["currency"], "JPY");
    assert_eq!(world.buckets().await, [("paid", 1_000)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn debts_that_cancel_earnings_out_need_no_rate_where_nothing_can_be_paid() {
    let world = Plan::new().partner("payoutCurrency", "JPY").partner("payoutMethods", json!([])).start().await;
    world.sale("o1", "100.00").await;
    world.refund("r1", "o1", "100.00").await;
    world.request_payout_with(&json!({})).await.refused(409);
    world.audit_holds().await;
}

#[tokio::test]
async fn the_payout_currency_of_a_partner_is_set_changed_and_cleared() {
    let world = Plan::new().start().await;
    let path = format!("/partners/{}", world.partner);
    let patch = async |currency: Value| {
        let change = Request::patch(&path, &json!({"payoutCurrency": currency}));
        world.send(world.by(ADMIN, change).await).await
    };
    assert_eq!(world.get(ADMIN, &path).await.ok()["payoutCurrency"], Value::Null);
    assert_eq!(patch(json!("EUR")).await.ok()["payoutCurrency"], "EUR");
    assert_eq!(patch(json!("euro")).await.refused(422).pointers(), ["/payoutCurrency"]);
    assert_eq!(world.get(ADMIN, &path).await.ok()["payoutCurrency"], "EUR");
    // The program's own is no other.
    assert_eq!(patch(json!("USD")).await.ok()["payoutCurrency"], Value::Null);
    assert_eq!(patch(json!("KWD")).await.ok()["payoutCurrency"], "KWD");
    assert_eq!(patch(Value::Null).await.ok()["payoutCurrency"], Value::Null);
    let partner = json!({"programId": world.program, "name": "Ben", "email": "ben@partners.example", "code": "BEN", "payoutCurrency": "XYZ"});
    assert_eq!(world.post(ADMIN, "/partners", &partner).await.refused(422).pointers(), ["/payoutCurrency"]);
}

// --- Whatever happens ---------------------------------------------------------------------------------------------

#[test]
fn partial_refunds_of_converted_sales_leave_no_remainder() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let world = runtime.block_on(Plan::new().rules([percent("12.5")]).start());
    let pairs = [("EUR", 2), ("JPY", 0), ("KWD", 3)];
    runtime.block_on(told(
        &world,
        "2026-01-01,EUR,USD,1.0837,x\n2026-01-01,USD,JPY,151.52,x\n2026-01-01,USD,KWD,0.3071,x\n",
    ));
    let number = std::cell::Cell::new(0);
    let strategy = (0..pairs.len(), 1_i64..5_000_000, prop::collection::vec(1_u32..100, 0..5));
    proptest!(ProptestConfig::with_cases(24), |((pair, total, shares) in strategy)| {
        let (currency, exponent) = pairs[pair];
        let amount = |minor: i64| rust_decimal::Decimal::new(minor, exponent).to_string();
        number.set(number.get() + 1);
        let order = format!("o{}", number.get());
        runtime.block_on(async {
            let mut sale = world.sale_event(&order, &amount(total));
            sale["amount"]["currency"] = json!(currency);
            world.report(&sale).await.ok();
            let earned = world.line_of(&order).await["amount"]["minor"].as_i64().unwrap();
            let mut back = 0;
            let parts = shares.iter().map(|share| total * i64::from(*share) / 200).chain([total]);
            for (n, part) in parts.enumerate() {
                let part = part.min(total - back);
                back += part;
                let mut refund = world.refund_event(&format!("{order}-{n}"), &order, &amount(part));
                refund["amount"]["currency"] = json!(currency);
                world.report(&refund).await.ok();
                let left = world.line_of(&order).await["net"]["minor"].as_i64().unwrap();
                // Half away from zero, in whole numbers.
                let target = (2 * i128::from(earned) * i128::from(back) + i128::from(total)) / (2 * i128::from(total));
                assert_eq!(i128::from(left), i128::from(earned) - target, "{currency} {total}: {back} back");
            }
        });
    });
    runtime.block_on(world.audit_holds());
}
