use domain::conversion::{Action, EventBody, PartnerRef};
use serde_json::{Value, json};
use storefronts::standard::parse;
use storefronts::{Kind, Unreadable, read};

use crate::{amounts, code, edit, headers, minor, only, refund, sale, told, with, withdrawal};

const SALE: &str = include_str!("../fixtures/standard/sale.json");
const REFUND: &str = include_str!("../fixtures/standard/refund.json");
const EDIT: &str = include_str!("../fixtures/standard/edit.json");
const WITHDRAWAL: &str = include_str!("../fixtures/standard/refund_withdrawn.json");

/// Where a well-formed event is refused.
fn invalid(body: &str) -> Vec<String> {
    match parse(body.as_bytes()) {
        Err(Unreadable::Invalid(problems)) => problems.into_iter().map(|problem| problem.pointer).collect(),
        other => panic!("{other:?}"),
    }
}

fn malformed(body: &str) -> Vec<String> {
    match parse(body.as_bytes()) {
        Err(Unreadable::Malformed(problems)) => problems.into_iter().map(|problem| problem.pointer).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_sale_reads_as_written() {
    let own = parse(SALE.as_bytes()).unwrap();
    assert_eq!(own.program_id, None);
    let named = SALE.replacen('{', r#"{"programId": "prg_1","#, 1);
    assert_eq!(parse(named.as_bytes()).unwrap().program_id.as_deref(), Some("prg_1"));
    assert_eq!(own.event, only(read(Kind::Standard, &headers(&[]), SALE.as_bytes())));
    let sale = sale(&own.event);
    assert_eq!(
        (sale.action, amounts(sale), sale.partner.clone()),
        (Action::Sale, [11_800, 1_800, 0, 0], code("ANNA10"))
    );
    assert_eq!(told(&sale.items), [(Some("A-1"), Some("Starter"), "2".into(), 10_000)]);
    assert_eq!((sale.customer.id.as_deref(), sale.customer.new), (Some("c_9"), Some(true)));
    assert_eq!((sale.channel.as_deref(), sale.country.as_deref()), (Some("web"), Some("DE")));
    assert_eq!(sale.metadata["plan"], "starter");
}

#[test]
fn what_is_left_out_takes_its_default() {
    let body = json!({"id": "o", "type": "sale", "occurredAt": "2026-11-20T11:00:00+01:00",
        "amount": {"total": "5", "currency": "USD"}, "items": [{"amount": "5.0000"}], "unknown": 1});
    let own = parse(body.to_string().as_bytes()).unwrap();
    assert_eq!((own.program_id, own.event.occurred_at), (None, "2026-11-20T10:00:00Z".parse().unwrap()));
    let EventBody::Sale(sale) = own.event.body else { panic!() };
    assert_eq!((amounts(&sale), sale.partner.clone(), sale.coupons.len()), ([500, 0, 0, 0], None, 0));
    assert_eq!(told(&sale.items), [(None, None, "1".into(), 500)]);
}

#[test]
fn a_refund_leaves_unknown_what_is_not_told() {
    let own = parse(REFUND.as_bytes()).unwrap();
    let back = refund(&own.event);
    assert_eq!((own.event.id.as_str(), back.conversion.as_str()), ("ref_77", "ord_1001"));
    assert_eq!((back.total, back.tax, back.shipping, &back.items), (minor(4_000), None, None, &None));
    assert_eq!(back.reason.as_deref(), Some("returned"));
    let told = with(REFUND, &[("/amount/tax", json!("0.00")), ("/items", json!([]))]);
    let own = parse(told.as_bytes()).unwrap();
    assert_eq!((refund(&own.event).tax, &refund(&own.event).items), (Some(minor(0)), &None));
}

#[test]
fn a_chargeback_is_a_refund_the_bank_took() {
    let own = parse(with(REFUND, &[("/type", json!("chargeback")), ("/id", json!("dp_1"))]).as_bytes()).unwrap();
    let taken = refund(&own.event);
    assert_eq!((own.event.id.as_str(), own.event.order(), taken.chargeback), ("dp_1", "ord_1001", true));
    assert_eq!((taken.total, taken.reason.as_deref()), (minor(4_000), Some("returned")));
    assert!(!refund(&parse(REFUND.as_bytes()).unwrap().event).chargeback);
}

#[test]
fn an_edit_states_the_whole_order() {
    let event = only(read(Kind::Standard, &headers(&[]), EDIT.as_bytes()));
    assert_eq!((event.id.as_str(), event.order()), ("edit_3", "ord_1001"));
    let edit = edit(&event);
    assert_eq!(
        [edit.total, edit.tax, edit.shipping, edit.discount].map(domain::money::Minor::units),
        [17_700, 2_700, 0, 500]
    );
    assert_eq!(
        told(&edit.items),
        [(Some("A-1"), Some("Starter"), "2".into(), 10_000), (Some("B-2"), None, "1".into(), 5_000)]
    );
    assert_eq!((edit.net().unwrap(), edit.items[1].gift_card), (minor(15_000), false));
    // Without items the amounts alone tell it.
    let plain = with(EDIT, &[("/items", json!(null)), ("/amount/tax", json!(null))]);
    let plain = parse(plain.as_bytes()).unwrap().event;
    assert_eq!((super::edit(&plain).items.len(), super::edit(&plain).net().unwrap()), (0, minor(17_700)));
}

#[test]
fn a_withdrawal_names_what_does_not_stand() {
    for kind in ["refund_withdrawn", "dispute_won"] {
        let body = with(WITHDRAWAL, &[("/type", json!(kind))]);
        let event = only(read(Kind::Standard, &headers(&[]), body.as_bytes()));
        assert_eq!((event.id.as_str(), event.order(), event.currency()), ("w_1", "ord_1001", None));
        let back = withdrawal(&event);
        assert_eq!((back.refund.as_str(), back.reason.as_deref()), ("ref_77", Some("the bank refused it")));
    }
}

#[test]
fn other_actions_are_sales_that_may_be_worth_nothing() {
    for (name, action) in
        [("lead", Action::Lead), ("sign_up", Action::SignUp), ("custom", Action::Custom), ("renewal", Action::Renewal)]
    {
        let body = with(SALE, &[("/type", json!(name))]);
        assert_eq!(sale(&parse(body.as_bytes()).unwrap().event).action, action);
    }
    let free = json!({"id": "l", "type": "lead", "occurredAt": "2026-11-20T10:00:00Z", "amount": {"currency": "USD"}});
    assert_eq!(sale(&parse(free.to_string().as_bytes()).unwrap().event).total, minor(0));
}

#[test]
fn partners_are_named_by_id_or_code() {
    let named = |partner: Value| {
        let body = with(SALE, &[("/partner", partner)]);
        sale(&parse(body.as_bytes()).unwrap().event).partner.clone()
    };
    assert_eq!(named(json!({"id": "par_1"})), Some(PartnerRef::Id("par_1".into())));
    assert_eq!(named(json!({"id": null, "code": " BEN20 "})), code("BEN20"));
    assert_eq!(named(json!({})), None);
    assert_eq!(invalid(&with(SALE, &[("/partner", json!({"id": "par_1", "code": "BEN20"}))])), ["/partner"]);
}

#[test]
fn all_faults_are_told_together() {
    let body = with(
        SALE,
        &[
            ("/id", json!("")),
            ("/occurredAt", json!("today")),
            ("/amount/total", json!("1.001")),
            ("/amount/tax", json!("-1")),
            ("/items/0/amount", json!(null)),
            ("/country", json!("Germany")),
            ("/customer/emailHash", json!("zoe@example.com")),
        ],
    );
    let mut faults = invalid(&body);
    faults.sort();
    let expect =
        ["/amount/tax", "/amount/total", "/country", "/customer/emailHash", "/id", "/items/0/amount", "/occurredAt"];
    assert_eq!(faults, expect);
}

#[test]
fn well_formed_but_refused() {
    for (pointer, value, expect) in [
        ("/type", json!("edited"), "/type"),
        ("/type", json!("gift"), "/type"),
        ("/type", json!(null), "/type"),
        ("/id", json!("x".repeat(201)), "/id"),
        ("/amount", json!(null), "/amount"),
        ("/amount/currency", json!("usd"), "/amount/currency"),
        ("/amount/total", json!(null), "/amount/total"),
        ("/amount/total", json!("99999999999.99"), "/amount/total"),
        ("/amount/total", json!("1e3"), "/amount/total"),
        ("/items/0/quantity", json!(-1), "/items/0/quantity"),
        ("/coupon", json!("x".repeat(201)), "/coupon"),
    ] {
        assert_eq!(invalid(&with(SALE, &[(pointer, value)])), [expect], "{pointer}");
    }
    assert_eq!(invalid(&with(REFUND, &[("/conversion", json!(null))])), ["/conversion"]);
    assert_eq!(invalid("{}"), ["/id", "/occurredAt", "/type"]);
    for (body, pointer, expect) in [
        (EDIT, "/conversion", "/conversion"),
        (EDIT, "/amount", "/amount"),
        (EDIT, "/amount/total", "/amount/total"),
        (EDIT, "/amount/currency", "/amount/currency"),
        (EDIT, "/items/0/amount", "/items/0/amount"),
        (WITHDRAWAL, "/conversion", "/conversion"),
        (WITHDRAWAL, "/refund", "/refund"),
    ] {
        assert_eq!(invalid(&with(body, &[(pointer, json!(null))])), [expect]);
    }
    for (pointer, value) in [("/conversion", json!(" ")), ("/refund", json!("x".repeat(201)))] {
        assert_eq!(invalid(&with(WITHDRAWAL, &[(pointer, value)])), [pointer]);
    }
    // What an order without goods, or a negative part of one, would be is the same for an edit as for a sale.
    assert_eq!(invalid(&with(EDIT, &[("/amount/shipping", json!("-1"))])), ["/amount/shipping"]);
}

#[test]
fn another_json_type_is_malformed() {
    for (pointer, value) in [
        ("/amount/total", json!(118)),
        ("/items", json!({})),
        ("/items/0/quantity", json!([])),
        ("/customer/new", json!("yes")),
        ("/metadata/plan", json!(1)),
        ("/id", json!(1_001)),
    ] {
        assert_eq!(malformed(&with(SALE, &[(pointer, value)])), [pointer]);
    }
    for body in ["", "{", "[]", "null", "{}{}", "\u{0}", r#"{"id":"a","id":"b"}"#] {
        assert_eq!(malformed(body).len(), 1, "{body}");
    }
}

#[test]
fn free_text_is_cut() {
    let body = with(REFUND, &[("/reason", json!("é".repeat(500)))]);
    let own = parse(body.as_bytes()).unwrap();
    assert_eq!(refund(&own.event).reason.as_ref().unwrap().chars().count(), 200);
    let body = with(SALE, &[("/metadata/plan", json!("x".repeat(500)))]);
    assert_eq!(sale(&parse(body.as_bytes()).unwrap().event).metadata["plan"].len(), 200);
}
