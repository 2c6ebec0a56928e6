//! What lines say besides their amount, and where rules meet: shares, caps, windows and tiers.

use serde_json::json;

use super::*;
use crate::attribution::Touch;
use crate::booking::tests::{Book, by_count, restated, tiered};
use crate::conversion::EventBody;
use crate::conversion::tests::{minor, refund, sale};
use crate::conversion::{Refund, Sale};
use crate::exchange::tests::rate;
use crate::ids::{ClickId, ProgramId, SourceId, VisitorId};
use crate::rating::tests::{partner, program, rules};

fn now() -> Timestamp {
    "2026-06-01T00:00:00Z".parse().unwrap()
}

fn circumstances(partners: Vec<Credited>) -> Circumstances {
    Circumstances {
        rule_set: 1,
        terms: Terms { hold_days: 30, min_hold_days: 0, approval: ApprovalMode::Automatic },
        evidence: Evidence::PartnerId,
        touches: vec![],
        weights: None,
        partners,
        customer: Standing::default(),
        exchange: None,
        objection: None,
    }
}

/// The lines of a sale under rules, as an edit's addition or by an attribution if one is given.
fn accrued(of: serde_json::Value, sale: &Sale, edit: Option<&str>, attribution: u32) -> Vec<Line> {
    rated(of, sale, &circumstances(vec![Credited::new(&partner(), 1)]), edit, attribution).unwrap()
}

fn rated(
    of: serde_json::Value,
    sale: &Sale,
    circumstances: &Circumstances,
    edit: Option<&str>,
    attribution: u32,
) -> Result<Vec<Line>, MoneyError> {
    let (program, rules) = (program(|_| {}), rules(of));
    let accrual = Accrual {
        program: &program,
        circumstances,
        rules: &rules,
        conversion: &ConversionId::derive(&program.id, &SourceId::from_uuid(9), "1"),
        order: "1",
        sale,
        whole: sale,
        edit,
        attribution,
        by_hand: None,
        sold_at: now(),
        occurred_at: now(),
        received_at: now(),
        now: now(),
        earlier: &EarlierParts::new(),
    };
    accrual.lines(&mut Tallies::default())
}

fn percent(rate: &str) -> serde_json::Value {
    json!({"name": "p", "reward": {"kind": "percent", "rate": rate}})
}

#[test]
fn a_line_names_its_products_by_name_or_sku_and_no_more_than_five() {
    let mut order = sale(0, 0, &[("A", 1), ("B", 1), ("C", 1), ("D", 1), ("E", 1), ("F", 1)]);
    order.items[1].product = Some("Starter".into());
    let lines = accrued(json!([percent("10")]), &order, None, 0);
    assert_eq!(lines[0].products, ["A", "Starter", "C", "D", "E"]);
    assert!(accrued(json!([percent("10")]), &sale(100, 0, &[]), None, 0)[0].products.is_empty());
}

/// Ids are derived from what they name, and kept for ever: another derivation would make a second line of the first retry.
#[test]
fn a_lines_id_tells_its_edit_and_its_attribution_and_stays_for_ever() {
    let id = |edit, attribution| accrued(json!([percent("10")]), &sale(100, 0, &[]), edit, attribution)[0].id.clone();
    let ids = [id(None, 0), id(None, 3), id(None, 4), id(Some("e1"), 0), id(Some("e2"), 0), id(Some("e1"), 3)];
    let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len());
    assert_eq!(ids[0].as_str(), "com_000000000000000000000000080001l1pis07q0r53lv");
}

#[test]
fn a_program_that_approves_by_itself_has_lines_that_wait_for_their_time_only() {
    let terms = |approval| Terms { hold_days: 0, min_hold_days: 0, approval };
    let (past, future) = (now(), now() + jiff::SignedDuration::from_secs(1));
    let automatic = terms(ApprovalMode::Automatic);
    assert_eq!(automatic.gates(past, now()), (LineState::Payable, Some(now())));
    assert_eq!(automatic.gates(future, now()), (LineState::Approved, Some(now())));
    assert_eq!(terms(ApprovalMode::Manual).gates(past, now()), (LineState::Pending, None));
}

#[test]
fn circumstances_are_kept_without_what_goes_without_saying() {
    let mut plain = circumstances(vec![Credited { group: None, ..Credited::new(&partner(), 1) }]);
    let id = partner().id;
    let kept = json!({"ruleSet": 1, "terms": {"holdDays": 30, "approval": "automatic"}, "evidence": "partnerId",
        "partners": [{"partner": id}]});
    assert_eq!(json!(plain), kept);
    plain.terms.min_hold_days = 2;
    plain.customer.new = false;
    plain.partners[0].part = 2;
    plain.partners[0].shards = 3;
    let kept = json!({"ruleSet": 1, "terms": {"holdDays": 30, "minHoldDays": 2, "approval": "automatic"},
        "evidence": "partnerId", "customer": {"new": false}, "partners": [{"partner": id, "part": 2, "shards": 3}]});
    assert_eq!(json!(plain), kept);
    assert_eq!(serde_json::from_value::<Circumstances>(kept).unwrap(), plain);
}

#[test]
fn a_partner_found_by_touches_has_what_its_latest_link_says() {
    let touch = |of: &PartnerId, campaign: &str, channel: &str| Touch {
        click: ClickId::derive(&VisitorId::from_uuid(1), now(), 1),
        partner: of.clone(),
        at: now(),
        code: "C".into(),
        channel: Some(channel.into()),
        campaign: Some(campaign.into()),
        landing_page: None,
        device: None,
        referrer: None,
    };
    let (own, other) = (partner().id, PartnerId::from_uuid(77));
    let touches = [touch(&own, "spring", "web"), touch(&own, "autumn", "mail"), touch(&other, "winter", "video")];
    let credited = Credited::new(&partner(), 1).by_touch(&touches);
    assert_eq!((credited.campaign.as_deref(), credited.channel.as_deref()), (Some("autumn"), Some("mail")));
    let credited = Credited::new(&partner(), 1).by_touch(&touches[2..]);
    assert_eq!((credited.campaign, credited.channel), (None, None));
}

#[test]
fn who_was_found_by_touches_is_found_again_by_them_and_their_weights() {
    let touch = |of: u128, channel: &str| Touch {
        click: ClickId::derive(&VisitorId::from_uuid(of), now(), 1),
        partner: PartnerId::from_uuid(of),
        at: now(),
        code: "C".into(),
        channel: Some(channel.into()),
        campaign: None,
        landing_page: None,
        device: None,
        referrer: None,
    };
    let weights =
        |email: &str| Some([("email", email), ("video", "1")].map(|(a, b)| (a.to_owned(), b.to_owned())).into());
    let found = Circumstances {
        evidence: Evidence::Touches { model: crate::attribution::Model::Custom, window_days: 30 },
        touches: vec![touch(1, "blog"), touch(2, "email"), touch(3, "video")],
        weights: weights("3"),
        ..circumstances(vec![])
    };
    let parts = |of: &Circumstances| {
        let credits = of.by_touches(now())?;
        Some(credits.into_iter().map(|credit| (credit.partner, credit.part / 1_000_000)).collect::<Vec<_>>())
    };
    let by = |email, video| Some(vec![(PartnerId::from_uuid(2), email), (PartnerId::from_uuid(3), video)]);
    assert_eq!(parts(&found), by(3, 1), "a blog weighs nothing");
    assert_eq!(parts(&Circumstances { weights: weights("2"), ..found.clone() }), by(2, 1));
    assert_ne!(parts(&Circumstances { touches: found.touches[1..2].to_vec(), ..found.clone() }), by(3, 1));
    assert_eq!(parts(&Circumstances { evidence: Evidence::ByHand, ..found }), None);
}

#[test]
fn rewards_are_divided_where_one_rule_gives_everybody_the_same_and_else_rounded_for_each() {
    let flat = |amount: &str| json!({"name": "f", "reward": {"kind": "flat", "amount": amount}});
    let mut divided = Book::new(flat("0.01")).among(&[1, 1]);
    divided.sell("1", 100);
    assert_eq!(divided.nets("1"), [1, 0]);
    // The same amount under rules of their own, or for other items, is not the same reward.
    let of_group = |name: &str, amount: &str| json!({"name": name, "match": {"groups": [name]}, "reward": {"kind": "flat", "amount": amount}});
    let mut apart = Book::new(flat("1")).with(json!([of_group("a", "0.01"), of_group("b", "0.01")])).in_groups(&[1, 1]);
    apart.sell("1", 100);
    assert_eq!(apart.nets("1"), [1, 1]);
    let mut apart = Book::new(flat("1")).with(json!([of_group("a", "10"), of_group("b", "10")])).in_groups(&[1, 1]);
    apart.sell("1", 100);
    assert_eq!(apart.nets("1"), [500, 500]);
    // Whom no rule is for takes no part of another's reward.
    let mut alone = Book::new(flat("1")).with(json!([of_group("a", "10")])).in_groups(&[1, 1]);
    alone.sell("1", 100);
    assert_eq!(alone.nets("1"), [500]);
    // One rule, other items: A has both, B's own rule takes one away.
    let all = json!({"name": "all", "reward": {"kind": "flat", "amount": "0.01"}});
    let own = json!({"name": "own", "match": {"groups": ["b"], "products": ["X"]}, "reward": {"kind": "flat", "amount": "0"}});
    let mut items = Book::new(flat("1")).with(json!([all, own])).in_groups(&[1, 1]);
    items.accept("1", EventBody::Sale(sale(0, 0, &[("X", 100), ("Y", 100)])));
    assert_eq!(items.nets("1"), [1, 0, 1], "half a cent each, rounded each for itself");
}

#[test]
fn a_cap_on_an_order_says_what_it_is_and_what_it_clamped() {
    let of_group = |name: &str, rate: &str| json!({"name": name, "match": {"groups": [name]}, "reward": {"kind": "percent", "rate": rate}, "caps": {"perOrder": "20"}});
    let mut book = Book::new(percent("1")).with(json!([of_group("a", "30"), of_group("b", "5")])).in_groups(&[3, 1]);
    book.sell("1", 10_000);
    assert_eq!(book.nets("1"), [1_500, 125], "of 30.00 x 3/4 at most 20.00 x 3/4");
    let caps = |n: usize| book.lines_of("1")[n].basis.clone().unwrap().caps;
    let expect = Capped { cap: Cap::PerOrder, limit: minor(2_000), from: minor(2_250), to: minor(1_500) };
    assert_eq!((caps(0), caps(1)), (vec![expect], vec![]));
}

#[test]
fn an_edits_addition_starts_where_its_sale_did_only_where_orders_are_rated_whole() {
    let tiers = json!([{"after": "0", "rate": "10"}, {"after": "100", "rate": "20"}]);
    let added = |shape: &str| {
        let mut book = Book::new(tiered("revenue", shape, tiers.clone()));
        book.sell("1", 6_000);
        book.accept("1", restated(&sale(18_000, 0, &[])));
        book.nets("1")
    };
    assert_eq!(added("marginal_by_order"), [600, 1_200], "the order started in the first tier");
    assert_eq!(added("marginal_by_amount"), [600, 400 + 1_600], "40.00 up to the tier, 80.00 in it");
    assert_eq!(added("retroactive"), [600, 2_400, 600], "and 6.00 more for what was at 10 %");
}

#[test]
fn an_edit_adds_nothing_to_an_amount_per_sale_whatever_the_tier() {
    let tiers = json!([{"after": "0", "amount": "5"}, {"after": "1", "amount": "7"}]);
    let mut book = Book::new(tiered("count", "marginal_by_order", tiers));
    book.sell("1", 1_000);
    book.accept("1", restated(&sale(2_000, 0, &[])));
    book.sell("2", 1_000);
    assert_eq!((book.nets("1"), book.nets("2")), (vec![500, 0], vec![700]));
}

#[test]
fn a_sale_that_reaches_no_new_tier_has_no_true_up() {
    let mut rule = by_count(["2.50", "2.75", "3.00"]);
    rule["caps"] = json!({"perOrder": "2.60"});
    let mut book = Book::new(rule);
    (1..=4).for_each(|n| book.sell(&n.to_string(), 10_000));
    assert_eq!(
        book.nets("3"),
        [260, 20],
        "0.10 more for each of the first two, which are worth no more than 2.60, either"
    );
    assert_eq!(book.nets("4"), [260]);
}

/// By revenue: a rate, and a higher one after so much, with caps.
fn rising(window: &str, rate: &str, after: &str, higher: &str, caps: serde_json::Value) -> serde_json::Value {
    let mut rule =
        tiered("revenue", "retroactive", json!([{"after": "0", "rate": rate}, {"after": after, "rate": higher}]));
    rule["reward"]["window"] = json!(window);
    rule["caps"] = caps;
    rule
}

#[test]
fn what_a_cap_on_an_order_kept_back_no_refund_and_no_edit_pays() {
    let rule = || rising("lifetime", "10", "1000", "12", json!({"perOrder": "5.00"}));
    let mut book = Book::new(rule());
    book.sell("1", 10_000);
    assert_eq!(json!(book.lines_of("1")[0].basis)["keptBack"], json!({"0": 500, "100000": 700}));
    book.refund("1", 100);
    assert_eq!(book.nets("1"), [495], "of 9.90 as much is kept back");
    let mut book = Book::new(rule());
    book.sell("1", 10_000);
    book.accept("1", restated(&sale(15_000, 0, &[])));
    assert_eq!(book.nets("1"), [500, 0]);
    // At the higher rate each order is worth 5.00 still.
    let mut book = Book::new(rule());
    (1..=11).for_each(|n| book.sell(&n.to_string(), 10_000));
    assert_eq!((book.total(), book.lines_of("11").len()), (5_500, 1));
    book.refund("1", 10_000);
    assert_eq!((book.total(), book.lines_of("1").len()), (5_000, 1));
}

#[test]
fn a_cap_on_an_order_holds_for_all_its_parts_at_every_tier() {
    let rule = || rising("lifetime", "10", "100", "15", json!({"perOrder": "5.00"}));
    let mut book = Book::new(rule());
    book.sell("1", 4_000);
    book.sell("2", 7_000);
    assert_eq!((book.nets("1"), book.nets("2")), (vec![400], vec![500, 100]), "40.00 are worth 6.00, and at most 5.00");
    let mut book = Book::new(rule());
    book.sell("1", 3_000);
    book.accept("1", restated(&sale(6_000, 0, &[])));
    assert_eq!(book.nets("1"), [300, 200]);
    book.sell("2", 5_000);
    assert_eq!(book.nets("2"), [500], "of 4.50 and 4.50 there are 4.50 and 0.50, which is what it has");
    // The sale's own 30.00 went back, and the edit's 30.00 stay at what was left for them.
    book.refund("1", 3_000);
    assert_eq!((book.nets("1"), book.total()), (vec![0, 200], 700));
}

#[test]
fn what_a_month_kept_back_no_later_month_pays() {
    let mut book = Book::new(rising("year", "10", "200", "12", json!({"perPartnerMonth": "10.00"})));
    book.now = "2026-01-10T00:00:00Z".parse().unwrap();
    book.sell("1", 20_000);
    book.now = "2026-02-10T00:00:00Z".parse().unwrap();
    book.sell("2", 1_000);
    assert_eq!((book.nets("1"), book.nets("2")), (vec![1_000], vec![120, 400]), "2 % of 200.00");
    let Some(Basis { reward: Applied::Retroactive { target, had, kept_back, .. }, .. }) = &book.lines_of("2")[1].basis
    else {
        panic!()
    };
    assert_eq!([*target, *had, *kept_back], [2_520, 1_120, 1_000].map(minor));
    book.refund("2", 100);
    // 1.08 of 1.20; 25.08 less 10.00 kept back are 15.08, which is what it has.
    assert_eq!((book.nets("2"), book.total()), (vec![108, 400], 1_508));
}

#[test]
fn a_true_up_that_a_cap_leaves_nothing_of_is_not_owed_later() {
    let mut book = Book::new(rising("year", "10", "200", "50", json!({"perPartnerMonth": "10.00"})));
    book.now = "2026-01-10T00:00:00Z".parse().unwrap();
    book.sell("1", 20_000);
    book.now = "2026-02-10T00:00:00Z".parse().unwrap();
    book.sell("2", 10_000);
    assert_eq!(book.nets("2"), [1_000, 0], "of 50.00 and 80.00");
    book.now = "2026-03-10T00:00:00Z".parse().unwrap();
    book.sell("3", 10_000);
    book.accept("3", restated(&sale(11_000, 0, &[])));
    book.accept("2", restated(&sale(20_000, 0, &[])));
    assert_eq!((book.nets("2"), book.nets("3")), (vec![1_000, 0, 0], vec![1_000, 0]));
    // Below the tier it is as if nobody had reached it: of March's 100.00 the 10.00 that it has, and what its edit and that of February
    // would have earned was kept back there, too.
    book.refund("1", 20_000);
    book.refund("2", 15_000);
    assert_eq!(
        (book.tally("2026").revenue, book.nets("2"), book.nets("3")),
        (minor(16_000), vec![0, 0, 0], vec![1_000, 0])
    );
}

#[test]
fn a_true_up_says_what_it_re_rated_and_is_due_with_the_sale_that_crossed() {
    let mut book = Book::new(by_count(["250", "275", "300"]));
    (1..=3).for_each(|n| book.sell(&n.to_string(), 10_000));
    let [crossing, true_up] = book.lines_of("3") else { panic!() };
    assert_eq!(
        (true_up.kind, true_up.due_at, &true_up.state),
        (LineKind::TrueUp, crossing.due_at, &LineState::Approved)
    );
    let expect = json!({"rule": "t", "wonBy": "program_default", "baseKind": "net", "base": 30_000, "earned": 5_000,
        "counted": [{"window": "life"}], "reward": {"kind": "retroactive", "crossed": true, "window": "life", "conversions": 3,
        "target": 82_500, "had": 77_500, "tier": {"after": 2, "pay": {"amount": 27_500}}}});
    assert_eq!(json!(true_up.basis), expect);
}

#[test]
fn a_true_up_that_takes_back_is_payable_at_once() {
    for approval in [ApprovalMode::Automatic, ApprovalMode::Manual] {
        let mut book = Book::new(by_count(["300", "275", "250"]));
        book.program.approval = approval;
        (1..=3).for_each(|n| book.sell(&n.to_string(), 10_000));
        let true_up = &book.lines_of("3")[1];
        let now = book.now;
        assert_eq!((true_up.amount, &true_up.state), (minor(-5_000), &LineState::Payable));
        assert_eq!((true_up.due_at, true_up.approved_at), (now, Some(now)));
    }
}

#[test]
fn a_true_up_says_nothing_of_the_one_sale_that_caused_it() {
    let mut rule = by_count(["2.50", "2.75", "3.00"]);
    rule["caps"] = json!({"perOrder": "2.60"});
    let mut book = Book::new(rule).among(&[1, 1]);
    book.exchange = Some(rate("EUR", "USD", "1.2"));
    let euros = Sale { currency: "EUR".parse().unwrap(), ..sale(10_000, 0, &[("A", 10_000)]) };
    for order in ["1", "2", "3"] {
        book.accept(order, EventBody::Sale(euros.clone()));
    }
    let back = Refund { currency: euros.currency, ..refund(10_000) };
    book.accept("3", EventBody::Refund(back));
    let said = |line: &Line| {
        let basis = line.basis.clone().unwrap();
        [basis.exchange.is_some(), !basis.items.is_empty(), basis.share.is_some(), !basis.caps.is_empty()]
    };
    let lines = book.lines_of("3");
    let of_kind = |kind: LineKind| lines.iter().filter(move |line| line.kind == kind);
    assert_eq!((of_kind(LineKind::Commission).count(), of_kind(LineKind::TrueUp).count()), (2, 4));
    assert!(of_kind(LineKind::Commission).all(|line| said(line) == [true; 4]));
    assert!(of_kind(LineKind::TrueUp).all(|line| said(line) == [false; 4]));
}

#[test]
fn a_true_up_that_a_cap_clamped_says_so() {
    let mut rule = by_count(["2.50", "2.75", "3.00"]);
    rule["caps"] = json!({"perPartnerMonth": "8.00"});
    let mut book = Book::new(rule);
    (1..=3).for_each(|n| book.sell(&n.to_string(), 10_000));
    let expect = Capped { cap: Cap::PerPartnerMonth, limit: minor(800), from: minor(50), to: minor(25) };
    assert_eq!(book.lines_of("3")[1].basis.clone().unwrap().caps, [expect]);
}

#[test]
fn under_a_cap_what_a_refund_took_by_a_true_up_returns_and_no_more_whoever_else_has_a_part() {
    let mut rule = by_count(["5.00", "5.50", "6.00"]);
    rule["caps"] = json!({"perPartnerMonth": "8.00"});
    let mut book = Book::new(rule).among(&[1, 1]);
    (1..=3).for_each(|n| book.sell(&n.to_string(), 10_000));
    assert_eq!(book.total(), 1_600, "of 8.25 each");
    book.accept_as("2", "r", EventBody::Refund(refund(10_000)));
    assert_eq!(book.total(), 1_000);
    let withdrawn = crate::conversion::Withdrawal { conversion: "2".into(), refund: "r".into(), reason: None };
    book.accept_as("2", "w", EventBody::Withdrawal(withdrawn));
    assert_eq!(book.total(), 1_600);
}

#[test]
fn a_sale_in_another_currency_takes_the_rate_from_it_to_the_programs() {
    let earned = |sold_in: &str, exchange: Option<ExchangeRate>| {
        let sale = Sale { currency: sold_in.parse().unwrap(), ..sale(10_000, 0, &[]) };
        let circumstances = Circumstances { exchange, ..circumstances(vec![Credited::new(&partner(), 1)]) };
        rated(json!([percent("10")]), &sale, &circumstances, None, 0).ok().map(|lines| lines[0].amount)
    };
    assert_eq!(earned("EUR", Some(rate("EUR", "USD", "1.2"))), Some(minor(1_200)));
    assert_eq!(earned("USD", None), Some(minor(1_000)));
    assert_eq!(earned("EUR", None), None);
    assert_eq!(earned("EUR", Some(rate("GBP", "USD", "1.3"))), None);
    assert_eq!(earned("USD", Some(rate("EUR", "USD", "1.2"))), None);
}

#[test]
fn what_a_tally_counts_of_a_converted_base_is_rounded_once() {
    let mut book =
        Book::new(tiered("revenue", "marginal_by_order", json!([{"after": "0", "rate": "10"}]))).among(&[1, 1]);
    book.exchange = Some(rate("EUR", "USD", "1.5"));
    let euros = Sale { currency: "EUR".parse().unwrap(), ..sale(667, 0, &[]) };
    book.accept("1", EventBody::Sale(euros));
    // 10.005 USD, of which half is 5.0025 and not half of 10.01.
    assert_eq!(book.tally("life").revenue, minor(500));
    // So that it does not reach what is after 5.00.
    let mut book = Book::new(rising("lifetime", "10", "5.00", "20", json!({}))).among(&[1, 1]);
    book.exchange = Some(rate("EUR", "USD", "1.5"));
    let euros = Sale { currency: "EUR".parse().unwrap(), ..sale(667, 0, &[]) };
    book.accept("1", EventBody::Sale(euros));
    assert_eq!(book.nets("1"), [50, 50]);
}

#[test]
fn a_true_up_after_a_refund_is_a_line_of_its_own_at_its_own_time() {
    let mut book = Book::new(by_count(["250", "275", "300"]));
    let mut third = sale(10_000, 0, &[("A", 10_000)]);
    third.items[0].product = Some("Kit".into());
    (1..=2).for_each(|n| book.sell(&n.to_string(), 10_000));
    book.accept("3", EventBody::Sale(third));
    book.refund("3", 10_000);
    let true_up = book.lines_of("3").last().unwrap();
    let now = book.now;
    assert_eq!(
        (true_up.kind, true_up.amount),
        (LineKind::TrueUp, minor(-5_000)),
        "twice 250.00 are due, and 550.00 stand"
    );
    assert_eq!((true_up.occurred_at, true_up.due_at, true_up.approved_at), (now, now, Some(now)));
    assert!(true_up.products.is_empty() && true_up.slice.is_none() && true_up.hands.is_empty());
}

#[test]
fn what_returns_and_crosses_again_is_trued_up_when_it_is_due_itself() {
    let mut book = Book::new(by_count(["250", "275", "300"]));
    (1..=3).for_each(|n| book.sell(&n.to_string(), 10_000));
    book.accept_as("3", "r", EventBody::Refund(crate::conversion::tests::refund(10_000)));
    let withdrawn = crate::conversion::Withdrawal { conversion: "3".into(), refund: "r".into(), reason: None };
    book.accept_as("3", "w", EventBody::Withdrawal(withdrawn));
    assert_eq!(book.total(), 82_500);
    let true_up = book.lines_of("3").last().unwrap();
    assert_eq!((true_up.kind, true_up.amount), (LineKind::TrueUp, minor(5_000)));
    assert_eq!((true_up.due_at, &true_up.state), (book.lines_of("3")[0].due_at, &LineState::Approved));
}

#[test]
fn a_rolling_window_counts_its_own_day_and_those_before_it() {
    let tiers = json!([{"after": "0", "rate": "10"}, {"after": "2", "rate": "20"}]);
    let mut rule = tiered("count", "marginal_by_order", tiers);
    rule["reward"]["window"] = json!("rolling:3");
    let mut book = Book::new(rule);
    let mut earned = Vec::new();
    for (n, days) in [0, 1, 1, 1, 3, 0, 0].into_iter().enumerate() {
        book.now += jiff::SignedDuration::from_hours(24 * days);
        book.sell(&n.to_string(), 1_000);
        earned.extend(book.nets(&n.to_string()));
    }
    // Days 0, 1, 2: the third of three days; day 3 reaches back to 1; day 6 to 4, where nothing was.
    assert_eq!(earned, [100, 100, 200, 200, 100, 100, 200]);
}

#[test]
fn months_are_those_of_where_the_program_is() {
    let mut rule = percent("10");
    rule["caps"] = json!({"perPartnerMonth": "15"});
    let mut book = Book::new(rule);
    book.program.time_zone = "America/New_York".to_owned().try_into().unwrap();
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    for (n, time) in ["2026-06-30T12:00:00Z", "2026-07-01T03:30:00Z", "2026-07-01T04:00:00Z"].into_iter().enumerate() {
        book.now = at(time);
        book.sell(&n.to_string(), 10_000);
    }
    assert_eq!([book.nets("0"), book.nets("1"), book.nets("2")], [[1_000], [500], [1_000]]);
}

#[test]
fn a_conversion_knows_its_tallies_before_it_is_rated() {
    let program = program(|_| {});
    let tiers = json!([{"after": "0", "rate": "10"}]);
    let mut rule = tiered("count", "marginal_by_order", tiers);
    rule["reward"]["window"] = json!("rolling:3");
    rule["caps"] = json!({"perPartnerMonth": "1", "perProgramMonth": "2"});
    let (rules, circumstances) = (rules(json!([rule])), circumstances(vec![Credited::new(&partner(), 1)]));
    let sale = sale(100, 0, &[]);
    let accrual = Accrual {
        program: &program,
        circumstances: &circumstances,
        rules: &rules,
        conversion: &ConversionId::derive(&ProgramId::from_uuid(1), &SourceId::from_uuid(9), "1"),
        order: "1",
        sale: &sale,
        whole: &sale,
        edit: None,
        attribution: 0,
        by_hand: None,
        sold_at: now(),
        occurred_at: now(),
        received_at: now(),
        now: now(),
        earlier: &EarlierParts::new(),
    };
    let reads = accrual.reads().unwrap();
    let told = |(from, to): &(TallyKey, TallyKey)| {
        (from.owner == Owner::Program, from.window.as_str().to_owned(), to.window.as_str().to_owned())
    };
    let mut told: Vec<_> = reads.iter().map(told).collect();
    told.sort();
    let same = |program: bool, window: &str| (program, window.to_owned(), window.to_owned());
    let days = (false, "d2026-05-30".to_owned(), "d2026-06-01".to_owned());
    // All days together, too: whoever books on another day meanwhile has changed that.
    assert_eq!(told, [same(false, "2026-06"), days, same(false, "rolling"), same(true, "2026-06")]);
}
