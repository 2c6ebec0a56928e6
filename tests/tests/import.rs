//! Files of conversions and partners: what becomes of each row, sent once, twice, in halves, or only rehearsed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use aws_sdk_dynamodb::types::AttributeValue;
use http::Method;
use local::import::{Import, ImportError, Kind, import};
use serde_json::{Value, json};
use tests::{ADMIN, FINANCE, MANAGER, Plan, REVIEWER, Reply, Request, Who, World};
use tokio::net::TcpListener;

/// One of everything that a row can be, but for what is refused.
const CONVERSIONS: &str = "\
id,type,occurredAt,partnerCode,coupon,customerId,customerNew,total,tax,shipping,currency,sku,quantity,conversion,refund,reason,metadata.plan\r
o1,sale,2026-01-01T00:00:00Z,anna10,,c1,true,118.00,18.00,,USD,A-1,2,,,,pro\r
r1,refund,2026-01-01T00:00:00Z,,,,,59.00,9.00,0,USD,A-1,1,o1,,\"broken,\r
\"\"badly\"\"\",\r
w1,refund_withdrawn,2026-01-01T00:00:00Z,,,,,,,,,,,o1,r1,,\r
e1,edit,2026-01-01T00:00:00Z,,,,,236.00,36.00,,USD,A-1,4,o1,,,\r
o2,sale,2026-01-01T00:00:00Z,,,,,10.00,,,USD,,,,,,\r
o3,sale,2026-01-01T00:00:00Z,,ANNA10,,,20.00,,5.00,USD,,,,,,\r
r9,refund,2026-01-01T00:00:00Z,,,,,5.00,,,USD,,,o9,,,\r
o3,sale,2026-01-01T00:00:00Z,,ANNA10,,,20.00,,5.00,USD,,,,,,\r
";

const PARTNERS: &str = "\
code,name,email,type,group,customerId,minimumPayout,trusted,methodKind,method.email
BEN20,Ben,ben@partners.example,affiliate,gold,c7,25.00,true,paypal,pay@partners.example
CARA,Cara,cara@partners.example,,,,,,,
";

fn file(kind: &str, program: &str, dry_run: bool, text: &str) -> Request {
    Request::new(Method::POST, &format!("/{kind}/import?programId={program}&dryRun={dry_run}"))
        .header("content-type", "text/csv; charset=utf-8")
        .body(text.to_owned())
}

async fn send(world: &World, who: Who<'_>, kind: &str, dry_run: bool, text: &str) -> Reply {
    world.send(world.by(who, file(kind, &world.program, dry_run, text)).await).await
}

/// Applied, already there, waiting for their sale, due to nobody, refused.
fn counts(report: &Value) -> [u64; 5] {
    let count = |name: &str| report[name].as_u64().unwrap();
    let all = ["applied", "alreadyApplied", "awaitingSale", "unattributed", "refused"].map(count);
    assert_eq!(all.iter().sum::<u64>(), count("rows"), "{report}");
    all
}

/// Line and column of each fault.
fn faults(report: &Value) -> Vec<(u64, String)> {
    let told = report["errors"].as_array().unwrap().iter();
    told.map(|error| (error["line"].as_u64().unwrap(), error["column"].as_str().unwrap().to_owned())).collect()
}

async fn imported(world: &World, kind: &str, text: &str) -> Value {
    send(world, ADMIN, kind, false, text).await.ok()
}

/// Every item of the table by its key, as it stands there.
async fn table(world: &World) -> BTreeMap<String, HashMap<String, AttributeValue>> {
    let client = aws_sdk_dynamodb::Client::new(&world.system.embedded.sdk_config());
    let pages = client.scan().table_name(local::TABLE).into_paginator().items().send();
    let items = pages.collect::<Result<Vec<_>, _>>().await.unwrap();
    items.into_iter().map(|item| (format!("{:?} {:?}", item["pk"], item["sk"]), item)).collect()
}

#[tokio::test]
async fn a_row_does_what_its_event_would_do() {
    let world = Plan::new().start().await;
    assert_eq!(counts(&imported(&world, "conversions", CONVERSIONS).await), [5, 1, 1, 1, 0]);
    // Ten percent of 100.00, of which half went and came back; of 100.00 more after the edit; and of 15.00.
    assert_eq!(world.buckets().await, [("payable", 2_150)]);
    let same = world.event(json!({
        "id": "o1", "type": "sale", "partner": {"code": "ANNA10"}, "customer": {"id": "c1", "new": true},
        "occurredAt": "2026-01-01T00:00:00Z", "amount": {"total": "118.00", "tax": "18.00"}, "metadata": {"plan": "pro"},
        "items": [{"sku": "A-1", "quantity": 2, "amount": "100.00"}],
    }));
    assert_eq!(world.report(&same).await.ok()["outcome"], "already_applied");
    world.audit_holds().await;
}

#[tokio::test]
async fn a_file_may_be_sent_again_and_after_a_half_of_it() {
    let lines: Vec<_> = CONVERSIONS.split_inclusive("\r\n").collect();
    for half in [2, 5, 8] {
        let world = Plan::new().start().await;
        let cut_off = lines[..half].concat();
        send(&world, ADMIN, "conversions", false, &cut_off).await.ok();
        imported(&world, "conversions", CONVERSIONS).await;
        assert_eq!(world.buckets().await, [("payable", 2_150)], "after {half} lines");
        let before = table(&world).await;
        let again = imported(&world, "conversions", CONVERSIONS).await;
        assert_eq!((counts(&again), faults(&again)), ([0, 8, 0, 0, 0], vec![]), "after {half} lines");
        assert_eq!(table(&world).await, before);
        world.audit_holds().await;
    }
}

#[tokio::test]
async fn a_dry_run_tells_what_would_happen_and_writes_nothing() {
    let world = Plan::new().start().await;
    let contradiction = "o3,sale,2026-01-01T00:00:00Z,,ANNA10,,,21.00,,5.00,USD,,,,,,\r\n";
    let unknown = "o4,sale,2026-01-01T00:00:00Z,NOBODY,,,,21.00,,,USD,,,,,,\r\n";
    let conversions = [CONVERSIONS, contradiction, unknown].concat();
    let others = "DORA,Dora,dora@partners.example,,,,,,,\nDORA,Dora,other@partners.example,,,,,,,\n";
    let partners = [PARTNERS, others].concat();
    for (kind, text) in [("conversions", &conversions), ("partners", &partners)] {
        let before = table(&world).await;
        let mut rehearsed = send(&world, ADMIN, kind, true, text).await.ok();
        assert_eq!(table(&world).await, before, "{kind}");
        assert_eq!(rehearsed["dryRun"], true);
        rehearsed["dryRun"] = json!(false);
        assert_eq!(imported(&world, kind, text).await, rehearsed, "{kind}");
        assert_ne!(table(&world).await, before, "{kind}");
    }
    assert_eq!(world.exception_codes().await, ["contradiction"]);
    world.audit_holds().await;
}

#[tokio::test]
async fn a_dry_run_knows_what_is_there_already() {
    let world = Plan::new().start().await;
    imported(&world, "conversions", CONVERSIONS).await;
    assert_eq!(counts(&send(&world, ADMIN, "conversions", true, CONVERSIONS).await.ok()), [0, 8, 0, 0, 0]);
    let refund = "id,type,occurredAt,total,currency,conversion\nr2,refund,2026-01-01T00:00:00Z,23.60,USD,o1\n";
    assert_eq!(counts(&send(&world, ADMIN, "conversions", true, refund).await.ok()), [1, 0, 0, 0, 0]);
    assert_eq!(world.buckets().await, [("payable", 2_150)]);
    world.audit_holds().await;
}

#[tokio::test]
async fn one_bad_row_stops_no_other_and_is_told_by_line_and_column() {
    const HEADER: &str = "id,type,occurredAt,partnerId,partnerCode,customerEmailHash,customerNew,total,tax,shipping,currency,\
                          sku,quantity,country,conversion";
    let good = "x,sale,2026-01-01T00:00:00Z,,ANNA10,,,1.00,,,USD,,,,";
    for (row, column) in [
        (",sale,2026-01-01T00:00:00Z,,ANNA10,,,1.00,,,USD,,,,", "id"),
        ("o,sell,2026-01-01T00:00:00Z,,ANNA10,,,1.00,,,USD,,,,", "type"),
        ("o,sale,yesterday,,ANNA10,,,1.00,,,USD,,,,", "occurredAt"),
        ("o,sale,2026-01-01T01:00:00Z,,ANNA10,,,1.00,,,USD,,,,", "occurredAt"),
        ("o,sale,2019-01-01T00:00:00Z,,ANNA10,,,1.00,,,USD,,,,", "occurredAt"),
        ("o,sale,2026-01-01T00:00:00Z,,NOBODY,,,1.00,,,USD,,,,", "partnerCode"),
        ("o,sale,2026-01-01T00:00:00Z,nobody,,,,1.00,,,USD,,,,", "partnerId"),
        ("o,sale,2026-01-01T00:00:00Z,,ANNA10,abc,,1.00,,,USD,,,,", "customerEmailHash"),
        ("o,sale,2026-01-01T00:00:00Z,,ANNA10,,maybe,1.00,,,USD,,,,", "customerNew"),
        ("o,sale,2026-01-01T00:00:00Z,,ANNA10,,,1.005,,,USD,,,,", "total"),
        ("o,sale,2026-01-01T00:00:00Z,,ANNA10,,,\"1,00\",,,USD,,,,", "total"),
        ("o,sale,2026-01-01T00:00:00Z,,ANNA10,,,-1.00,,,USD,,,,", "total"),
        ("o,sale,2026-01-01T00:00:00Z,,ANNA10,,,1.00,2.00,,USD,,,,", "total"),
        ("o,sale,2026-01-01T00:00:00Z,,ANNA10,,,1.00,2.00,,USD,A,,,", "total"),
        ("o,sale,2026-01-01T00:00:00Z,,ANNA10,,,1.00,x,,USD,,,,", "tax"),
        ("o,sale,2026-01-01T00:00:00Z,,ANNA10,,,1.00,,,,,,,", "currency"),
        ("o,sale,2026-01-01T00:00:00Z,,ANNA10,,,1.00,,,EUR,,,,", "currency"),
        ("o,sale,2026-01-01T00:00:00Z,,ANNA10,,,1.00,,,USD,A,-1,,", "quantity"),
        ("o,sale,2026-01-01T00:00:00Z,,ANNA10,,,1.00,,,USD,,,Germany,", "country"),
        ("o,refund,2026-01-01T00:00:00Z,,,,,1.00,,,USD,,,,", "conversion"),
        ("o,refund,2026-01-01T00:00:00Z,,,,,1.00,,0,USD,A,1,,x", "tax"),
        ("x,sale,2026-01-01T00:00:00Z,,ANNA10,,,2.00,,,USD,,,,", "id"),
        ("o,sale", ""),
    ] {
        let world = Plan::new().start().await;
        let text = format!("{HEADER}\n{good}\n\n{row}\n{}\n", good.replacen('x', "\"y\"", 1));
        let report = imported(&world, "conversions", &text).await;
        assert_eq!((counts(&report), faults(&report)), ([2, 0, 0, 0, 1], vec![(4, column.to_owned())]), "{row}");
        assert_eq!(world.lines().await.len(), 2, "{row}");
        world.audit_holds().await;
    }
}

#[tokio::test]
async fn a_row_that_is_no_utf8_is_refused_alone() {
    let world = Plan::new().start().await;
    let request = file("partners", &world.program, false, "");
    let text = b"\xef\xbb\xbfcode,name,email\nBEN20,B\xe9n,ben@partners.example\nCARA,Cara,cara@partners.example\n";
    let report = world.send(world.by(ADMIN, request.body(&text[..])).await).await.ok();
    assert_eq!((counts(&report), faults(&report)), ([1, 0, 0, 0, 1], vec![(2, String::new())]));
}

#[tokio::test]
async fn a_file_that_is_none_of_ours_is_refused_whole() {
    let world = Plan::new().start().await;
    let row = "o,sale,2026-01-01T00:00:00Z\n";
    let rows = |count: usize| format!("id,type,occurredAt\n{}", row.repeat(count));
    for (text, status) in [
        (String::new(), 422),
        ("id,type\n".to_owned(), 422),
        ("id,type,occurredAt,color\n".to_owned(), 422),
        ("id,type,occurredAt,id\n".to_owned(), 422),
        (rows(201), 422),
        (rows(200), 200),
        (rows(0), 200),
        (format!("id,type,occurredAt\n{}", "x".repeat(1024 * 1024)), 413),
    ] {
        let reply = send(&world, ADMIN, "conversions", false, &text).await;
        assert_eq!(reply.status, status, "{}", reply.text);
    }
    let unknown = send(&world, ADMIN, "conversions", false, "id,type,occurredAt,color\n").await;
    assert!(unknown.text.contains("color"), "{}", unknown.text);
    let json = file("conversions", &world.program, false, "{}").header("content-type", "application/json");
    world.send(world.by(ADMIN, json).await).await.refused(415);
    for program in ["nonsense", "prg_00000000000000000000000000"] {
        world.send(world.by(ADMIN, file("conversions", program, false, &rows(0))).await).await.refused(422);
    }
    for query in ["", "?dryRun=true", "?programId=x&dryRun=perhaps", "?programId=x&color=red"] {
        let request = file("conversions", "", false, "").at(&format!("/api/v1/conversions/import{query}"));
        world.send(world.by(ADMIN, request).await).await.refused(400);
    }
    assert_eq!(world.lines().await, [] as [Value; 0]);
}

#[tokio::test]
async fn who_may_report_conversions_and_make_partners_may_import_them() {
    let world = Plan::new().start().await;
    for (who, conversions, partners) in
        [(ADMIN, 200, 200), (MANAGER, 403, 200), (REVIEWER, 403, 403), (FINANCE, 403, 403)]
    {
        for dry_run in [true, false] {
            assert_eq!(
                send(&world, who, "conversions", dry_run, CONVERSIONS).await.status,
                conversions,
                "{}",
                who.role
            );
            assert_eq!(send(&world, who, "partners", dry_run, PARTNERS).await.status, partners, "{}", who.role);
            // The role first, whatever is sent.
            let nonsense = send(&world, who, "conversions", dry_run, "nonsense").await;
            assert_eq!(nonsense.status, if conversions == 200 { 422 } else { 403 }, "{}", who.role);
        }
    }
}

#[tokio::test]
async fn a_partner_is_made_once_by_code_and_another_under_the_same_code_is_refused_by_field() {
    let world = Plan::new().start().await;
    assert_eq!(counts(&imported(&world, "partners", PARTNERS).await), [2, 0, 0, 0, 0]);
    assert_eq!(counts(&imported(&world, "partners", PARTNERS).await), [0, 2, 0, 0, 0]);
    let partners = world.all(ADMIN, &format!("/partners?programId={}", world.program)).await;
    let ben = partners.iter().find(|partner| partner["code"] == "BEN20").unwrap();
    let expect = json!({
        "name": "Ben", "email": "ben@partners.example", "type": "affiliate", "group": "gold", "trusted": true,
        "payoutMethods": [{"kind": "paypal", "details": {"email": "pay@partners.example"}, "preferred": true}],
    });
    expect.as_object().unwrap().iter().for_each(|(field, value)| assert_eq!(ben[field], *value));
    assert_eq!(ben["minimumPayout"]["amount"], "25.00");
    for (from, to, column) in [
        ("Ben,", "Benjamin,", "name"),
        ("ben@", "benjamin@", "email"),
        ("affiliate", "reseller", "type"),
        ("gold", "silver", "group"),
        ("c7", "c8", "customerId"),
        ("25.00", "26.00", "minimumPayout"),
        ("true", "false", "trusted"),
        ("pay@", "payment@", "methodKind"),
        ("25.00", "x", "minimumPayout"),
        ("true", "yes", "trusted"),
        ("paypal", "cheque", "methodKind"),
        ("paypal", "", "methodKind"),
        ("pay@partners.example", "nobody", "method"),
        ("ben@partners.example", "ben", "email"),
    ] {
        let report = imported(&world, "partners", &PARTNERS.replace(from, to)).await;
        assert_eq!((counts(&report), faults(&report)), ([0, 1, 0, 0, 1], vec![(2, column.to_owned())]), "{from} {to}");
    }
    world.audit_holds().await;
}

// --- cargo local import -------------------------------------------------------------------------------------------

/// Serves the world after breaking off this many connections.
async fn served(world: &World, broken: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let system = Arc::clone(&world.system);
    tokio::spawn(async move {
        for _ in 0..broken {
            drop(listener.accept().await.unwrap());
        }
        local::serve(system, listener, std::future::pending()).await.unwrap();
    });
    url
}

fn large_file(name: &str, rows: usize) -> std::path::PathBuf {
    let path = tests::temporary_directory(name);
    let sale = |n: usize| match n {
        // A cell of two lines, a blank line, and two rows that are refused.
        3 => "o3,sale,2026-01-01T00:00:00Z,ANNA10,1.00,USD,\"a\n\nb\"\n\n".to_owned(),
        7 | 305 => format!("o{n},sale,2026-01-01T00:00:00Z,NOBODY,1.00,USD,\n"),
        _ => format!("o{n},sale,2026-01-01T00:00:00Z,ANNA10,1.00,USD,\n"),
    };
    let rows: String = (0..rows).map(sale).collect();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, format!("id,type,occurredAt,partnerCode,total,currency,channel\n{rows}")).unwrap();
    path
}

#[tokio::test]
async fn a_large_file_goes_over_in_parts_with_the_lines_of_the_whole_file() {
    let world = Plan::new().start().await;
    let path = large_file("large", 420);
    let wanted = Import {
        url: served(&world, 2).await,
        token: world.token(ADMIN).await,
        program: Some(world.program.clone()),
        kind: Kind::Conversions,
        file: path.clone(),
        dry_run: true,
        from_line: 1,
    };
    let refused = "line 12: partnerCode: no partner of the program has it\n\
                   line 310: partnerCode: no partner of the program has it\n";
    for (dry_run, from_line, expect) in [
        (true, 1, [420, 418, 0, 2]),
        (false, 204, [221, 220, 0, 1]),
        (false, 1, [420, 198, 220, 2]),
        (false, 1, [420, 0, 418, 2]),
    ] {
        let mut out = Vec::new();
        let wanted = Import { dry_run, from_line, ..wanted.clone() };
        let counts = import(&wanted, &mut out).await.unwrap();
        let told = String::from_utf8(out).unwrap();
        assert_eq!([counts.rows, counts.applied, counts.already_applied, counts.refused], expect, "{told}");
        assert!(told.starts_with(if from_line == 1 { refused } else { &refused[55..] }), "{told}");
    }
    assert_eq!(world.buckets().await, [("payable", 418 * 10)]);
    std::fs::remove_file(path).unwrap();
    world.audit_holds().await;
}

#[tokio::test]
async fn an_import_that_is_refused_says_where_to_go_on() {
    let world = Plan::new().start().await;
    let path = large_file("refused", 10);
    let wanted = Import {
        url: served(&world, 0).await,
        token: world.token(REVIEWER).await,
        program: Some(world.program.clone()),
        kind: Kind::Conversions,
        file: path.clone(),
        dry_run: false,
        from_line: 8,
    };
    let stopped = import(&wanted, &mut Vec::new()).await.unwrap_err();
    assert!(matches!(stopped, ImportError::Stopped { line: 9, .. }), "{stopped}");
    assert!(stopped.to_string().contains("--from-line 9"), "{stopped}");
    std::fs::remove_file(path).unwrap();
}
