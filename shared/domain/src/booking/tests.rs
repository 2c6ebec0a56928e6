//! Laws of the engine as a whole: a book of conversions that is kept in memory, one event after the other.

use jiff::SignedDuration;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::accrual::Credited;
use crate::attribution::Model;
use crate::conversion::tests::{minor, refund, sale};
use crate::conversion::{ConversionEvent, Edit, EventBody, Sale, Withdrawal};
use crate::exchange::ExchangeRate;
use crate::exchange::tests::rate;
use crate::explain::{BaseParts, Known, explain};
use crate::ids::{ClickId, PartnerId, SourceId, VisitorId};
use crate::line::{Evidence, StateName};
use crate::money::Minor;
use crate::program::ApprovalMode;
use crate::rating::tests::{partner, program, rules};
use crate::rating::{Basis, Cap, Standing};
use crate::tally::{Tally, WindowKey};

/// One program's conversions, by order.
pub(crate) struct Book {
    pub(crate) program: Program,
    rules: RulesByVersion,
    partners: Vec<Credited>,
    conversions: BTreeMap<String, (Vec<ConversionEvent>, Vec<Line>)>,
    tallies: BTreeMap<TallyKey, Tally>,
    /// What sales are told in is worth so much.
    pub(crate) exchange: Option<ExchangeRate>,
    /// Why somebody should look at what is sold.
    objection: Option<String>,
    /// How whose it is was found.
    evidence: Evidence,
    /// What happened, as a journal keeps it.
    journal: Vec<Written>,
    /// Tallies as an entry tells them, where it is done again.
    told: Option<String>,
    pub(crate) now: Timestamp,
}

/// One entry: the order, when it was, what it was, and the tallies that were read for it.
struct Written {
    order: String,
    before: Timestamp,
    what: String,
    tallies: String,
}

impl Book {
    pub(crate) fn new(rule: serde_json::Value) -> Self {
        Self {
            program: program(|program| program.approval = ApprovalMode::Automatic),
            rules: BTreeMap::from([(1, rules(json!([rule])))]),
            partners: vec![Credited::new(&partner(), 1)],
            conversions: BTreeMap::new(),
            tallies: BTreeMap::new(),
            exchange: None,
            objection: None,
            evidence: Evidence::PartnerId,
            journal: Vec::new(),
            told: None,
            now: "2026-06-01T00:00:00Z".parse().unwrap(),
        }
    }

    pub(crate) fn among(mut self, parts: &[u64]) -> Self {
        let with = |(n, part): (usize, &u64)| Credited {
            partner: PartnerId::from_uuid(n as u128 + 1),
            ..Credited::new(&partner(), *part)
        };
        self.partners = parts.iter().enumerate().map(with).collect();
        self
    }

    pub(crate) fn accept(&mut self, order: &str, body: EventBody) {
        let id = match &body {
            EventBody::Sale(_) => order.to_owned(),
            _ => format!("e{}", self.conversions.get(order).map_or(0, |(events, _)| events.len())),
        };
        self.accept_as(order, &id, body);
    }

    pub(crate) fn accept_as(&mut self, order: &str, id: &str, body: EventBody) {
        let before_it = self.now;
        self.now += SignedDuration::from_secs(1);
        let (events, lines) = self.conversions.remove(order).unwrap_or_default();
        let before = Order::of(&events).unwrap();
        let mut events = events;
        let event = ConversionEvent { id: id.to_owned(), occurred_at: self.now, body };
        self.note(order, before_it, json!(event).to_string());
        events.push(event);
        let after = Order::of(&events).unwrap();
        let lines = self.step(order, &lines, lines.clone(), before.as_ref(), after.as_ref(), id);
        self.conversions.insert(order.to_owned(), (events, lines));
    }

    fn step(
        &mut self,
        order: &str,
        lines: &[Line],
        decided: Vec<Line>,
        before: Option<&Order>,
        after: Option<&Order>,
        cause: &str,
    ) -> Vec<Line> {
        self.step_between(
            lines,
            decided,
            (order, cause),
            [State { order: before, attribution: 0 }, State { order: after, attribution: 0 }],
        )
    }

    /// A person gives an order to whom the book's sales are credited to now.
    fn attribute(&mut self, order: &str, attribution: u32) {
        self.now += SignedDuration::from_secs(1);
        let (events, lines) = self.conversions.remove(order).unwrap();
        let whole = Order::of(&events).unwrap();
        let states = [attribution - 1, attribution].map(|attribution| State { order: whole.as_ref(), attribution });
        let lines = self.step_between(&lines, lines.clone(), (order, "attribute"), states);
        self.conversions.insert(order.to_owned(), (events, lines));
    }

    fn step_between(
        &mut self,
        lines: &[Line],
        decided: Vec<Line>,
        (order, cause): (&str, &str),
        [before, after]: [State<'_>; 2],
    ) -> Vec<Line> {
        let source = SourceId::of_api(&self.program.id);
        let circumstances = Circumstances {
            rule_set: 1,
            terms: Terms::of(&self.program),
            evidence: self.evidence.clone(),
            touches: vec![],
            weights: None,
            partners: self.partners.clone(),
            customer: Standing::default(),
            exchange: self.exchange.clone(),
            objection: self.objection.clone(),
        };
        let conversion = ConversionId::derive(&self.program.id, &source, order);
        let booking = Booking {
            program: &self.program,
            conversion: &conversion,
            order,
            rules: &self.rules,
            before,
            after,
            open: &BTreeMap::new(),
            cause,
            received_at: self.now,
            now: self.now,
        };
        let accruing = Accruing { circumstances: &circumstances, by_hand: None };
        let mut read = BTreeMap::new();
        for (first, last) in booking.reads(lines, Some(&accruing)).unwrap() {
            read.extend(self.tallies.range(first..=last).map(|(key, tally)| (key.clone(), tally.clone())));
        }
        if let Some(told) = &self.told {
            let told: Vec<(TallyKey, Tally)> = serde_json::from_str(told).unwrap();
            read = told.into_iter().collect();
        }
        if let Some(written) = self.journal.last_mut() {
            written.tallies = json!(read.iter().collect::<Vec<_>>()).to_string();
        }
        let mut tallies = Tallies::new(read);
        let changes = booking.book(lines, decided, Some(&accruing), &mut tallies).unwrap();
        for (key, step) in tallies.steps() {
            let sum = self.tallies.remove(key).unwrap_or_default().plus(step).unwrap();
            self.tallies.insert(key.clone(), sum);
        }
        let mut lines = lines.to_vec();
        for change in changes {
            match lines.iter_mut().find(|line| line.id == change.after.id) {
                Some(line) => *line = change.after,
                None => lines.push(change.after),
            }
        }
        lines
    }

    pub(crate) fn sell(&mut self, order: &str, total: i64) {
        self.accept(order, EventBody::Sale(sale(total, 0, &[])));
    }

    pub(crate) fn refund(&mut self, order: &str, total: i64) {
        self.accept(order, EventBody::Refund(refund(total)));
    }

    /// What happens is written down; which tallies are read for it is told once they are.
    fn note(&mut self, order: &str, before: Timestamp, what: String) {
        self.journal.push(Written { order: order.to_owned(), before, what, tallies: "[]".to_owned() });
    }

    /// Everything done again from what was written down.
    fn again(&self) -> Self {
        let mut again = Self {
            program: self.program.clone(),
            ..Self::new(json!({"name": "t", "reward": {"kind": "flat", "amount": "1"}}))
        };
        (again.rules, again.partners, again.exchange) =
            (self.rules.clone(), self.partners.clone(), self.exchange.clone());
        for Written { order, before, what, tallies } in &self.journal {
            (again.now, again.told) = (*before, Some(tallies.clone()));
            match what.as_str() {
                "pay" => again.pay(order),
                "reject" => again.reject(order),
                event => {
                    let ConversionEvent { id, body, .. } = serde_json::from_str(event).unwrap();
                    again.accept_as(order, &id, body);
                }
            }
        }
        again
    }

    /// A person decides about the lines of an order.
    fn decide(&mut self, order: &str, decision: impl Fn(Line) -> Line) {
        self.now += SignedDuration::from_secs(1);
        let Some((events, lines)) = self.conversions.remove(order) else { return };
        let decided = lines.iter().cloned().map(decision).collect();
        let state = Order::of(&events).unwrap();
        let cause = format!("decide{}", self.now);
        let lines = self.step(order, &lines, decided, state.as_ref(), state.as_ref(), &cause);
        self.conversions.insert(order.to_owned(), (events, lines));
    }

    /// A person rejects every line of an order that may be.
    fn reject(&mut self, order: &str) {
        if self.conversions.contains_key(order) {
            self.note(order, self.now, "reject".to_owned());
        }
        self.decide(order, |line| line.clone().reject("no", None).unwrap_or(line));
    }

    fn reinstate(&mut self, order: &str) {
        self.decide(order, |line| line.clone().reinstate("ann").unwrap_or(line));
    }

    /// A payout takes an order's lines, and is paid.
    pub(crate) fn pay(&mut self, order: &str) {
        self.note(order, self.now, "pay".to_owned());
        let payout = crate::payout::tests::payout(1).id;
        let Some((_, lines)) = self.conversions.get_mut(order) else { return };
        for line in lines.iter_mut() {
            if matches!(line.state, LineState::Approved | LineState::Payable) {
                let payable = Line { state: LineState::Payable, ..line.clone() };
                *line = payable.claim(&payout, 0).unwrap().pay(&payout, self.now).unwrap();
            }
        }
    }

    pub(crate) fn with(mut self, rules_of_one_version: serde_json::Value) -> Self {
        self.rules.insert(1, rules(rules_of_one_version));
        self
    }

    /// As [`Self::among`], each in a group of its own: `a`, `b`, ...
    pub(crate) fn in_groups(mut self, parts: &[u64]) -> Self {
        self = self.among(parts);
        for (credited, group) in self.partners.iter_mut().zip(["a", "b", "c"]) {
            credited.group = Some(group.to_owned());
        }
        self
    }

    pub(crate) fn rule(&self) -> Rule {
        self.rules[&1][0].clone()
    }

    /// The lines of an order, in the order in which they were written.
    pub(crate) fn lines_of(&self, order: &str) -> &[Line] {
        &self.conversions[order].1
    }

    fn lines(&self) -> impl Iterator<Item = &Line> {
        self.conversions.values().flat_map(|(_, lines)| lines)
    }

    pub(crate) fn nets(&self, order: &str) -> Vec<i64> {
        self.conversions[order].1.iter().map(|line| line.net().unwrap().units()).collect()
    }

    pub(crate) fn total(&self) -> i64 {
        let standing = self.lines().filter(|line| line.state.name() != StateName::Rejected);
        standing.map(|line| line.net().unwrap().units()).sum()
    }

    pub(crate) fn tally(&self, window: &str) -> &Tally {
        let of = |(key, _): &(&TallyKey, &Tally)| key.window.as_str() == window;
        self.tallies.iter().find(of).map(|(_, tally)| tally).unwrap()
    }
}

pub(crate) fn tiered(metric: &str, shape: &str, tiers: serde_json::Value) -> serde_json::Value {
    json!({"name": "t", "reward": {"kind": "tiered", "metric": metric, "window": "lifetime", "shape": shape, "tiers": tiers}})
}

pub(crate) fn by_count(amounts: [&str; 3]) -> serde_json::Value {
    let [a, b, c] = amounts;
    tiered(
        "count",
        "retroactive",
        json!([{"after": "0", "amount": a}, {"after": "2", "amount": b}, {"after": "4", "amount": c}]),
    )
}

#[test]
fn a_retroactive_tier_re_rates_what_was_sold_before_it() {
    let mut book = Book::new(by_count(["250", "275", "300"]));
    let mut totals = Vec::new();
    for n in 1..=5 {
        book.sell(&n.to_string(), 10_000);
        totals.push(book.total());
    }
    assert_eq!(totals, [25_000, 50_000, 82_500, 110_000, 150_000]);
    let kinds: Vec<_> = book.conversions["3"].1.iter().map(|line| (line.kind, line.amount.units())).collect();
    assert_eq!(kinds, [(LineKind::Commission, 27_500), (LineKind::TrueUp, 5_000)]);
}

#[test]
fn of_three_one_refunded_leaves_two_at_the_lower_tier_paid_or_not() {
    for paid in [false, true] {
        let mut book = Book::new(by_count(["250", "275", "300"]));
        (1..=3).for_each(|n| book.sell(&n.to_string(), 10_000));
        if paid {
            (1..=3).for_each(|n| book.pay(&n.to_string()));
        }
        book.refund("1", 10_000);
        assert_eq!(book.total(), 50_000);
        assert_eq!(book.tally("life").count, 2);
    }
}

#[test]
fn a_partial_refund_of_an_amount_is_not_given_again() {
    let mut book = Book::new(by_count(["250", "275", "300"]));
    (1..=3).for_each(|n| book.sell(&n.to_string(), 10_000));
    book.refund("2", 5_000);
    assert_eq!(book.total(), 82_500 - 12_500);
}

#[test]
fn a_rejected_conversion_gives_its_position_back() {
    let mut book = Book::new(by_count(["250", "275", "300"]));
    (1..=3).for_each(|n| book.sell(&n.to_string(), 10_000));
    book.reject("2");
    // Rejected is only what was pending; an approved line is rejected, too.
    assert_eq!(book.total(), 50_000);
}

#[test]
fn what_a_cap_leaves_is_clamped_and_a_freed_cap_serves_later_sales_only() {
    let mut rule = json!({"name": "t", "reward": {"kind": "percent", "rate": "10"}});
    rule["caps"] = json!({"perPartnerMonth": "15.00"});
    let mut book = Book::new(rule);
    (1..=3).for_each(|n| book.sell(&n.to_string(), 10_000));
    assert_eq!([book.nets("1"), book.nets("2"), book.nets("3")], [[1_000], [500], [0]]);
    book.refund("1", 10_000);
    book.sell("4", 10_000);
    assert_eq!([book.nets("2"), book.nets("3"), book.nets("4")], [[500], [0], [1_000]]);
    let month = WindowKey::month(book.now.to_zoned(jiff::tz::TimeZone::UTC).date());
    assert_eq!(book.tally(month.as_str()).commission, minor(1_500));
}

#[test]
fn what_is_attributed_anew_is_earned_where_it_was_given_up() {
    let mut capped = json!({"name": "t", "reward": {"kind": "percent", "rate": "10"}});
    capped["caps"] = json!({"perProgramMonth": "15.00"});
    let mut book = Book::new(capped);
    book.sell("1", 10_000);
    book = book.among(&[1, 1]);
    book.attribute("1", 1);
    assert_eq!(book.nets("1"), [0, 500, 500], "of 15.00 nothing else is used");
    let mut book = Book::new(tiered(
        "count",
        "marginal_by_order",
        json!([{"after": "0", "rate": "10"}, {"after": "1", "rate": "20"}]),
    ));
    book.sell("1", 10_000);
    book.attribute("1", 1);
    assert_eq!((book.nets("1"), book.tally("life").count), (vec![0, 1_000], 1), "it is number one again");
}

#[test]
fn what_is_shared_is_re_rated_by_its_share() {
    let mut book = Book::new(by_count(["250", "275", "300"])).among(&[1, 1]);
    (1..=3).for_each(|n| book.sell(&n.to_string(), 10_000));
    assert_eq!(book.nets("3"), [13_750, 2_500, 13_750, 2_500], "half of 275.00 three times, less half of 775.00");
    // One that is all the first partner's, and one in three parts.
    let partners = std::mem::take(&mut book.partners);
    book.partners = vec![Credited { part: 1, ..partners[0].clone() }];
    book.sell("4", 10_000);
    assert_eq!(book.nets("4"), [27_500]);
    book = book.among(&[1, 1, 1]);
    book.sell("5", 10_000);
    let first = book.lines_of("5").iter().filter(|line| line.partner == partners[0].partner);
    let first: Vec<_> = first.map(|line| line.amount.units()).collect();
    // 300.00 for one, three halves and a third are 850.00, of which 412.50, 275.00 and 100.00 were earned.
    assert_eq!(first, [10_000, 6_250]);
    book.refund("5", 10_000);
    assert_eq!(book.total(), 82_500 + 27_500);
}

#[test]
fn what_an_edit_frees_of_a_cap_is_not_for_what_it_adds() {
    let mut capped = json!({"name": "t", "reward": {"kind": "percent", "rate": "10"}});
    capped["caps"] = json!({"perPartnerMonth": "10.00"});
    let mut book = Book::new(capped);
    book.accept("1", EventBody::Sale(sale(0, 0, &[("A", 10_000)])));
    book.accept("1", restated(&sale(0, 0, &[("A", 5_000), ("B", 5_000)])));
    assert_eq!(book.nets("1"), [500, 0]);
}

#[test]
fn what_is_attributed_anew_counts_without_what_went_back() {
    let tiers = json!([{"after": "0", "rate": "10"}, {"after": "1000", "rate": "20"}]);
    let mut book = Book::new(tiered("revenue", "marginal_by_order", tiers));
    book.sell("1", 10_000);
    book.refund("1", 4_000);
    assert_eq!(book.tally("life").revenue, minor(6_000));
    book.attribute("1", 1);
    assert_eq!((book.tally("life").revenue, book.total()), (minor(6_000), 600));
}

#[test]
fn what_is_trued_up_for_a_sale_that_somebody_should_look_at_waits_with_it() {
    let mut book = Book::new(by_count(["300", "275", "250"]));
    (1..=2).for_each(|n| book.sell(&n.to_string(), 10_000));
    book.refund("3", 10_000);
    book.objection = Some("velocity".to_owned());
    book.sell("3", 10_000);
    let states: Vec<_> = book.lines_of("3").iter().map(|line| (line.amount.units(), line.state.name())).collect();
    let expect = [(27_500, StateName::Reversed), (-5_000, StateName::Payable), (5_000, StateName::Held)];
    assert_eq!(states, expect, "it crossed, went back, and what crossing took returns");
    assert_eq!(book.lines_of("3")[2].approved_at, None);
}

#[test]
fn a_true_up_is_of_the_partner_and_told_by_the_sale_itself() {
    let mut book = Book::new(by_count(["250", "275", "300"])).among(&[1, 1]);
    (1..=3).for_each(|n| book.sell(&n.to_string(), 10_000));
    let before = book.lines_of("3").len();
    book.accept("3", restated(&sale(12_000, 0, &[])));
    book.refund("3", 12_000);
    let lines = book.lines_of("3");
    let true_ups: Vec<_> = lines[before..].iter().filter(|line| line.kind == LineKind::TrueUp).collect();
    let whose: BTreeSet<_> = true_ups.iter().map(|line| line.partner.clone()).collect();
    assert_eq!((true_ups.len(), whose.len()), (2, 2));
    assert!(true_ups.iter().all(|line| line.edit.is_none() && line.amount == minor(-2_500)), "{true_ups:?}");
    assert!(lines.iter().any(|line| line.edit.is_some()));
}

#[test]
fn what_one_partner_loses_is_trued_up_for_that_partner() {
    let mut book = Book::new(by_count(["250", "275", "300"])).among(&[1, 1]);
    (1..=3).for_each(|n| book.sell(&n.to_string(), 10_000));
    let (before, first) = (book.lines_of("3").len(), book.lines_of("3")[0].clone());
    book.decide("3", |line| if line.id == first.id { line.clone().reject("no", None).unwrap_or(line) } else { line });
    let [true_up] = &book.lines_of("3")[before..] else { panic!() };
    assert_eq!((&true_up.partner, true_up.amount), (&first.partner, minor(-2_500)));
}

#[test]
fn what_an_edits_addition_loses_is_trued_up_by_the_sale_itself() {
    let tiers = json!([{"after": "0", "rate": "10"}, {"after": "100", "rate": "20"}]);
    let mut book = Book::new(tiered("revenue", "retroactive", tiers));
    book.sell("1", 6_000);
    book.accept("1", restated(&sale(18_000, 0, &[])));
    assert_eq!(book.nets("1"), [600, 2_400, 600]);
    let added = |line: &Line| line.edit.is_some() && line.kind == LineKind::Commission;
    book.decide("1", |line| if added(&line) { line.clone().reject("no", None).unwrap_or(line) } else { line });
    let true_up = &book.lines_of("1")[3];
    assert_eq!((true_up.amount, true_up.edit.as_deref()), (minor(-600), None));
}

#[test]
fn what_a_decision_causes_is_noted_with_the_line_of_its_partner_and_rule() {
    let mut book = Book::new(by_count(["250", "275", "300"])).among(&[1, 1]);
    (1..=3).for_each(|n| book.sell(&n.to_string(), 10_000));
    let line = |n: usize| book.lines_of("3")[n].clone();
    let (own, true_up, other) = (line(0), line(1), line(2));
    let mut elsewhere = own.clone();
    elsewhere.basis.as_mut().unwrap().rule = "another".to_owned();
    let decided = |line: &Line| Change::of(line.clone(), line.clone());
    let mut changes = vec![
        decided(&elsewhere),
        decided(&other),
        Change::new(own.clone()),
        decided(&own),
        Change::new(true_up.clone()),
        decided(&Line { partner: other.partner.clone(), ..true_up.clone() }),
    ];
    note_true_ups(&mut changes);
    let noted: Vec<_> = changes.iter().map(|change| change.after.true_ups.clone()).collect();
    assert_eq!(noted, [vec![], vec![], vec![], vec![true_up.id], vec![], vec![]]);
}

#[test]
fn what_a_cap_kept_back_is_not_trued_up_by_a_refund() {
    let mut rule = by_count(["2.50", "2.75", "3.00"]);
    rule["caps"] = json!({"perPartnerMonth": "9.00"});
    let mut book = Book::new(rule);
    (1..=4).for_each(|n| book.sell(&n.to_string(), 10_000));
    assert_eq!(book.total(), 900, "of 11.00");
    book.refund("2", 3_000);
    assert_eq!(book.total(), 900 - 75);
}

#[test]
fn what_a_month_has_nothing_left_of_of_a_true_up_after_a_withdrawal_stays_so() {
    let mut rule = json!({"name": "t", "reward": {
        "kind": "tiered", "metric": "count", "window": "month", "shape": "retroactive",
        "tiers": [{"after": "0", "rate": "10"}, {"after": "2", "rate": "15"}]}});
    rule["caps"] = json!({"perProgramMonth": "20.00"});
    let mut book = Book::new(rule);
    book.sell("1", 10_000);
    book.sell("2", 5_000);
    book.accept_as("2", "r", EventBody::Refund(refund(5_000)));
    book.sell("3", 5_000);
    let withdrawal = Withdrawal { conversion: "2".into(), refund: "r".into(), reason: None };
    book.accept_as("2", "w", EventBody::Withdrawal(withdrawal));
    assert_eq!(book.total(), 2_000, "of 30.00");
    let true_up = book.conversions["2"].1.iter().find(|line| line.kind == LineKind::TrueUp).unwrap();
    let Basis { caps, kept_back, .. } = true_up.basis.clone().unwrap();
    let caps: Vec<_> = caps.iter().map(|capped| (capped.cap, capped.from.units(), capped.to.units())).collect();
    assert_eq!((true_up.amount, caps), (Minor::ZERO, vec![(Cap::PerProgramMonth, 1_000, 0)]));
    assert_eq!(json!(kept_back), json!({"2": 1_000}));
    book.refund("3", 2_500);
    assert_eq!(book.total(), 1_750);
}

#[test]
fn a_won_dispute_gives_back_what_was_clawed_back_and_no_more() {
    let mut book = Book::new(json!({"name": "t", "reward": {"kind": "percent", "rate": "10"}}));
    book.sell("1", 10_000);
    book.pay("1");
    book.accept_as("1", "dp", EventBody::Refund(refund(10_000)));
    let won = |refund: &str| {
        EventBody::Withdrawal(Withdrawal { conversion: "1".into(), refund: refund.into(), reason: None })
    };
    book.accept_as("1", "w", won("dp"));
    assert_eq!(book.nets("1"), [1_000, -1_000, 1_000]);
    let last = book.conversions["1"].1.last().unwrap().clone();
    assert_eq!((last.kind, last.due_at), (LineKind::Reinstatement, book.conversions["1"].1[0].due_at));
    book.accept_as("1", "w2", won("dp"));
    assert_eq!(book.nets("1").iter().sum::<i64>(), 1_000);
}

pub(crate) fn restated(to: &Sale) -> EventBody {
    let Sale { currency, total, tax, shipping, discount, store_credit, items, .. } = to.clone();
    EventBody::Edit(Edit { conversion: "1".into(), currency, total, tax, shipping, discount, store_credit, items })
}

#[test]
fn an_edit_down_is_a_refund_and_an_edit_up_an_extra_earning_without_a_position() {
    let tiers = json!([{"after": "0", "rate": "10"}, {"after": "1", "rate": "20"}]);
    let mut book = Book::new(tiered("count", "marginal_by_order", tiers));
    book.sell("1", 10_000);
    book.sell("2", 10_000);
    book.accept_as("1", "up", restated(&sale(15_000, 0, &[])));
    assert_eq!(book.nets("1"), [1_000, 500], "rated where the order was");
    assert_eq!(book.tally("life").count, 2);
    book.accept_as("1", "down", restated(&sale(8_000, 0, &[])));
    assert_eq!(book.nets("1").iter().sum::<i64>(), 800);
    let mut flat = Book::new(json!({"name": "f", "reward": {"kind": "flat", "amount": "5"}}));
    flat.sell("1", 10_000);
    flat.accept_as("1", "up", restated(&sale(15_000, 0, &[])));
    assert_eq!(flat.nets("1"), [500, 0]);
}

#[test]
fn equal_rewards_are_divided_and_others_rated_by_weight() {
    let mut book = Book::new(json!({"name": "t", "reward": {"kind": "flat", "amount": "10"}})).among(&[1, 1, 1]);
    book.sell("1", 10_000);
    assert_eq!(book.nets("1"), [334, 333, 333]);
}

#[test]
fn what_a_person_sets_no_true_up_undoes() {
    let mut book = Book::new(by_count(["250", "275", "300"]));
    (1..=3).for_each(|n| book.sell(&n.to_string(), 10_000));
    book.decide("1", |line| line.adjust(minor(40_000), "ann", None).unwrap());
    assert_eq!((book.nets("1"), book.total()), (vec![40_000], 82_500 + 15_000));
    book.sell("4", 10_000);
    assert_eq!(book.nets("4"), [27_500]);
}

#[test]
fn a_slice_that_is_rejected_or_refunded_does_not_come_back_as_a_true_up() {
    let slices = json!([{"share": "40", "days": 0}, {"share": "60", "days": 60}]);
    for mut rule in [
        by_count(["100", "275", "300"]),
        tiered("revenue", "retroactive", json!([{"after": "0", "rate": "100"}, {"after": "500", "rate": "50"}])),
    ] {
        rule["slices"] = slices.clone();
        let mut book = Book::new(rule.clone());
        book.sell("1", 10_000);
        book.decide("1", |line| if line.slice == Some(2) { line.reject("no", None).unwrap() } else { line });
        assert_eq!((book.lines_of("1").len(), book.total()), (2, 4_000), "{rule}");
        let mut book = Book::new(rule.clone());
        book.sell("1", 10_000);
        book.refund("1", 6_000);
        assert_eq!(book.nets("1"), [4_000, 0], "{rule}");
    }
}

#[test]
fn under_a_cap_what_a_rejection_took_returns_and_no_more() {
    for (cap, rejected, total) in [("1000", "3", 82_500), ("800", "1", 80_000)] {
        let mut rule = by_count(["250", "275", "300"]);
        rule["caps"] = json!({"perPartnerMonth": cap});
        let mut book = Book::new(rule);
        (1..=3).for_each(|n| book.sell(&n.to_string(), 10_000));
        assert_eq!(book.total(), total);
        book.reject(rejected);
        assert!(book.total() < total);
        book.reinstate(rejected);
        assert_eq!(book.total(), total, "under a cap of {cap}");
    }
}

#[test]
fn a_shared_sale_is_rated_at_the_tier_that_the_partners_own_part_reaches() {
    let tiers = json!([{"after": "0", "rate": "10"}, {"after": "60", "rate": "20"}]);
    let mut book = Book::new(tiered("revenue", "retroactive", tiers)).among(&[1, 1]);
    book.sell("1", 10_000);
    assert_eq!(book.nets("1"), [500, 500], "each has come to 50.00");
    book.sell("2", 10_000);
    assert_eq!(book.nets("2"), [1_000, 500, 1_000, 500], "each has come to 100.00, and the first 50.00 are re-rated");
}

/// Everything a property does to a book.
#[derive(Debug, Clone)]
enum Act {
    Sell(u8, i64),
    Refund(u8, i64),
    Edit(u8, i64),
    Withdraw(u8, u8),
    Pay(u8),
    Reject(u8),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let order = || 0_u8..4;
    let act = prop_oneof![
        4 => (order(), 1_i64..20_000).prop_map(|(order, total)| Act::Sell(order, total)),
        3 => (order(), 1_i64..12_000).prop_map(|(order, total)| Act::Refund(order, total)),
        2 => (order(), 1_i64..30_000).prop_map(|(order, total)| Act::Edit(order, total)),
        1 => (order(), 0_u8..6).prop_map(|(order, event)| Act::Withdraw(order, event)),
        1 => order().prop_map(Act::Pay),
        1 => order().prop_map(Act::Reject),
    ];
    prop::collection::vec(act, 1..20)
}

fn play(book: &mut Book, acts: &[Act]) {
    for act in acts {
        let known = |order: &u8| book.conversions.contains_key(&order.to_string());
        match act {
            Act::Sell(order, total) if !known(order) => book.sell(&order.to_string(), *total),
            Act::Refund(order, total) if known(order) => book.refund(&order.to_string(), *total),
            Act::Edit(order, total) if known(order) => book.accept(&order.to_string(), restated(&sale(*total, 0, &[]))),
            Act::Withdraw(order, event) if known(order) => {
                let withdrawal =
                    Withdrawal { conversion: order.to_string(), refund: format!("e{event}"), reason: None };
                book.accept(&order.to_string(), EventBody::Withdrawal(withdrawal));
            }
            Act::Pay(order) => book.pay(&order.to_string()),
            Act::Reject(order) => book.reject(&order.to_string()),
            _ => {}
        }
    }
}

/// Tiers ascend in all of them.
fn uncapped() -> impl Strategy<Value = serde_json::Value> {
    let tiers = || json!([{"after": "0", "rate": "10"}, {"after": "2", "rate": "15"}, {"after": "120", "rate": "20"}]);
    prop_oneof![
        Just(json!({"name": "p", "reward": {"kind": "percent", "rate": "12.5"}})),
        Just(json!({"name": "s", "reward": {"kind": "percent", "rate": "33.3"},
            "slices": [{"share": "40", "days": 0}, {"share": "60", "days": 60}]})),
        Just(tiered("count", "marginal_by_order", tiers())),
        Just(tiered("revenue", "marginal_by_order", tiers())),
        Just(tiered("revenue", "marginal_by_amount", tiers())),
        Just(tiered("commission", "marginal_by_amount", tiers())),
        Just(tiered("revenue", "retroactive", tiers())),
        Just(tiered("count", "retroactive", tiers())),
        Just(tiered("commission", "retroactive", tiers())),
        Just(by_count(["2.50", "2.75", "3.00"])),
    ]
}

fn any_rule() -> impl Strategy<Value = serde_json::Value> {
    let cap = |most: i64| {
        prop::option::weighted(0.3, (1..most).prop_map(|cents| format!("{}.{:02}", cents / 100, cents % 100)))
    };
    (uncapped(), any::<bool>(), [cap(2_000), cap(4_000), cap(6_000)]).prop_map(|(mut rule, gross, caps)| {
        let [order, partner, program] = caps;
        rule["caps"] = json!({"perOrder": order, "perPartnerMonth": partner, "perProgramMonth": program});
        rule["base"] = json!(if gross { "gross" } else { "net" });
        rule
    })
}

/// Whose the sales are: one partner's, or several partners'.
fn any_parts() -> impl Strategy<Value = Vec<u64>> {
    prop_oneof![Just(vec![1]), prop::collection::vec(1_u64..5, 2..4)]
}

proptest! {
    /// Whatever happens, each tally is the sum of what its earnings contribute, and a retroactive window that is open has earned exactly
    /// what its tier says.
    #[test]
    fn tallies_are_the_sum_of_contributions(rule in any_rule(), parts in any_parts(), acts in acts()) {
        let mut book = Book::new(rule).among(&parts);
        play(&mut book, &acts);
        let mut sums: BTreeMap<TallyKey, Tally> = BTreeMap::new();
        let rule = book.rules[&1][0].clone();
        for (events, lines) in book.conversions.values() {
            let order = Order::of(events).unwrap().unwrap();
            for of in heads(lines) {
                let part = share(&order, 0, of).unwrap();
                let own = lines.iter().filter(|line| line.earning() == of.earning());
                let step = contribution(own, part, rule.retroactive()).unwrap();
                for key in tallies_of(of) {
                    let sum = sums.remove(&key).unwrap_or_default().plus(&step).unwrap();
                    sums.insert(key, sum);
                }
            }
            for line in lines.iter().filter(|line| line.kind == LineKind::TrueUp) {
                for key in tallies_of(&Line { kind: LineKind::Commission, ..line.clone() }) {
                    let step = crate::accrual::true_up_step(1, line.basis.as_ref().unwrap());
                    let sum = sums.remove(&key).unwrap_or_default().plus(&step).unwrap();
                    sums.insert(key, sum);
                }
            }
        }
        sums.retain(|_, tally| !tally.is_zero());
        book.tallies.retain(|_, tally| !tally.is_zero());
        prop_assert_eq!(&sums, &book.tallies);
        let stood_still = acts.iter().all(|act| !matches!(act, Act::Edit(..)));
        if let (Some(tiers), true) = (rule.retroactive(), stood_still) {
            for (_, tally) in book.tallies.iter().filter(|(key, _)| key.window.as_str() == "life") {
                let rounding = i64::try_from(acts.len()).unwrap();
                prop_assert!(tally.outstanding(tiers, 1).unwrap().units().abs() <= rounding);
            }
        }
    }

    /// A conversion that was refunded whole has earned nothing, whatever happened in between and however it was paid.
    #[test]
    fn a_full_refund_leaves_nothing(rule in any_rule(), parts in any_parts(), acts in acts()) {
        let mut book = Book::new(rule).among(&parts);
        let retroactive = book.rules[&1][0].retroactive().is_some();
        play(&mut book, &acts);
        let orders: Vec<_> = book.conversions.keys().cloned().collect();
        for order in &orders {
            book.accept_as(order, "the last", EventBody::Refund(refund(1_000_000)));
        }
        for order in &orders {
            let own = book.conversions[order].1.iter().filter(|line| line.kind != LineKind::TrueUp);
            let left: i64 = own.filter(|line| line.state.name() != StateName::Rejected).map(|line| line.net().unwrap().units()).sum();
            let rejected = book.conversions[order].1.iter().any(|line| line.state.name() == StateName::Rejected);
            prop_assert!(rejected || left == 0, "{order}: {left}");
        }
        if retroactive && acts.iter().all(|act| !matches!(act, Act::Reject(_))) {
            // Of a month that is capped a true-up gives back no more than true-ups took of the sale, so that what rounding took stays.
            let caps = book.rule().caps;
            let is_capped = caps.per_partner_month.is_some() || caps.per_program_month.is_some();
            let rounding = i64::try_from(if is_capped { parts.len() * acts.len() } else { 0 }).unwrap();
            prop_assert!((-rounding..=0).contains(&book.total()), "{} with the true-ups", book.total());
        }
    }

    /// While tiers ascend, no refund makes any partner earn more in all: what caps kept back they keep.
    #[test]
    fn a_refund_never_raises_what_anybody_earns(
        rule in any_rule(), parts in any_parts(), acts in acts(), order in 0_u8..4, back in 1_i64..12_000,
    ) {
        let mut book = Book::new(rule).among(&parts);
        play(&mut book, &acts);
        let order = order.to_string();
        prop_assume!(book.conversions.contains_key(&order));
        let earned = |book: &Book| {
            let mut sums: BTreeMap<PartnerId, i64> = BTreeMap::new();
            for line in book.lines().filter(|line| line.state.name() != StateName::Rejected) {
                *sums.entry(line.partner.clone()).or_default() += line.net().unwrap().units();
            }
            sums
        };
        let before = earned(&book);
        book.refund(&order, back);
        // What a window owes is rounded once, and what it has earned once for each sale and each refund: half a cent each.
        let rule = book.rule();
        let rounding = if rule.retroactive().is_some() { i64::try_from(acts.len()).unwrap() } else { 0 };
        for (partner, after) in earned(&book) {
            prop_assert!(after <= before[&partner] + rounding, "{partner}: {} became {after}", before[&partner]);
        }
    }

    /// Whatever happened, the journal's entries alone make it again: each by what it tells, and by the tallies that it says were read.
    #[test]
    fn what_was_written_down_makes_it_again(rule in any_rule(), parts in any_parts(), acts in acts()) {
        let mut book = Book::new(rule).among(&parts);
        play(&mut book, &acts);
        let again = book.again();
        for (order, (_, lines)) in &book.conversions {
            prop_assert_eq!(json!(lines).to_string(), json!(again.conversions[order].1).to_string());
        }
        prop_assert_eq!(book.tallies, again.tallies);
    }

    /// A refund, its withdrawal and others come to the same cents in any order, as long as nothing was paid in between.
    #[test]
    fn what_went_back_does_not_depend_on_the_order_of_arrival(
        total in 100_i64..20_000, backs in prop::collection::vec(1_i64..9_000, 1..5), withdrawn in 0_usize..5, seed: u64,
    ) {
        let events = |shuffled: bool| {
            let mut events: Vec<(String, EventBody)> = vec![("1".to_owned(), EventBody::Sale(sale(total, 0, &[])))];
            events.extend(backs.iter().enumerate().map(|(n, back)| (format!("r{n}"), EventBody::Refund(refund(*back)))));
            let withdrawal = Withdrawal { conversion: "1".into(), refund: format!("r{withdrawn}"), reason: None };
            events.push(("w".to_owned(), EventBody::Withdrawal(withdrawal)));
            if shuffled {
                let mut seed = seed;
                for n in (1..events.len()).rev() {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    events.swap(n, usize::try_from(seed >> 33).unwrap() % (n + 1));
                }
            }
            events
        };
        let earned = |events: Vec<(String, EventBody)>| {
            let mut book = Book::new(json!({"name": "s", "reward": {"kind": "percent", "rate": "33.3"},
                "slices": [{"share": "40", "days": 0}, {"share": "60", "days": 60}]}));
            for (id, body) in events {
                book.accept_as("1", &id, body);
            }
            book.nets("1")
        };
        prop_assert_eq!(earned(events(false)), earned(events(true)));
    }

    /// Shares by any weights sum to the whole reward, and slices to their earning.
    #[test]
    fn parts_sum_to_the_whole(total in 0_i64..1_000_000, weights in prop::collection::vec(1_u64..100, 1..6)) {
        let mut shared = Book::new(json!({"name": "s", "reward": {"kind": "percent", "rate": "10"},
            "slices": [{"share": "33.3", "days": 0}, {"share": "66.7", "days": 9}]})).among(&weights);
        shared.sell("1", total);
        let whole = crate::money::Percent::new(10.into()).of(minor(total)).unwrap();
        prop_assert_eq!(shared.total(), whole.units());
    }

    /// However a period's revenue is cut into orders, tiers by amount pay the same to within half a cent an order.
    #[test]
    fn tiers_by_amount_do_not_depend_on_how_revenue_is_cut(orders in prop::collection::vec(1_i64..9_000, 1..8)) {
        let tiers = json!([{"after": "0", "rate": "10"}, {"after": "50", "rate": "12"}, {"after": "100", "rate": "15"}]);
        let mut cut = Book::new(tiered("revenue", "marginal_by_amount", tiers.clone()));
        for (n, total) in orders.iter().enumerate() {
            cut.sell(&n.to_string(), *total);
        }
        let mut whole = Book::new(tiered("revenue", "marginal_by_amount", tiers));
        whole.sell("1", orders.iter().sum());
        let most = i64::try_from(orders.len()).unwrap() / 2 + 1;
        prop_assert!((cut.total() - whole.total()).abs() <= most);
    }
}

/// One sentence for each way a line comes to be. `UPDATE_GOLDEN=1 cargo test -p domain` writes them anew; read the difference.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn golden_explanations() {
    let mut told: Vec<String> = Vec::new();
    let mut tell = |title: &str, book: &Book, order: &str| {
        told.push(format!("## {title}"));
        let (events, lines) = &book.conversions[order];
        let order = Order::of(events).unwrap().unwrap();
        for line in lines {
            let named = |key: Option<&String>| book.rules[&1].iter().find(|rule| Some(&rule.key) == key);
            let basis = line.basis.as_ref();
            let rule = named(basis.map(|basis| &basis.rule));
            let base = rule.and_then(|rule| BaseParts::of(&order, line.attribution, line, rule).unwrap());
            let beaten = named(basis.and_then(|basis| basis.won_over.as_ref()).map(|over| &over.rule));
            let known = Known { rule, beaten, base: base.as_ref(), ..Known::default() };
            told.push(explain(line, &known).unwrap().sentence);
        }
    };
    let plain = |reward: serde_json::Value| json!({"name": "Rule", "reward": reward});
    for (title, rule) in [
        ("percent", plain(json!({"kind": "percent", "rate": "12.5"}))),
        ("flat", plain(json!({"kind": "flat", "amount": "5"}))),
        ("flat per unit", plain(json!({"kind": "flat_per_unit", "amount": "1"}))),
        ("of gross", json!({"name": "Rule", "base": "gross", "reward": {"kind": "percent", "rate": "10"}})),
        (
            "milestones",
            json!({"name": "Rule", "reward": {"kind": "percent", "rate": "10"},
            "slices": [{"share": "40", "days": 0}, {"share": "60", "days": 60}]}),
        ),
        (
            "capped per order",
            json!({"name": "Rule", "reward": {"kind": "percent", "rate": "10"}, "caps": {"perOrder": "4"}}),
        ),
        (
            "capped per month",
            json!({"name": "Rule", "reward": {"kind": "percent", "rate": "10"}, "caps": {"perPartnerMonth": "4"}}),
        ),
        ("tier by count", tiered("count", "marginal_by_order", json!([{"after": "0", "rate": "10"}]))),
        ("tier by revenue", tiered("revenue", "marginal_by_order", json!([{"after": "0", "rate": "10"}]))),
        (
            "split by amount",
            tiered(
                "revenue",
                "marginal_by_amount",
                json!([{"after": "0", "rate": "10"}, {"after": "60", "rate": "12"}]),
            ),
        ),
    ] {
        let mut book = Book::new(rule);
        book.sell("1001", 10_000);
        tell(title, &book, "1001");
    }
    let mut book = Book::new(by_count(["250", "275", "300"]));
    (1..=3).for_each(|n| book.sell(&n.to_string(), 10_000));
    tell("a tier is reached", &book, "3");
    book.refund("1", 10_000);
    tell("a tier is left", &book, "1");
    let named = |name: &str, more: serde_json::Value| {
        let mut rule = plain(json!({"kind": "percent", "rate": "10"}));
        rule["name"] = json!(name);
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rule
    };
    let product = || json!({"match": {"products": ["A"]}});
    for (title, rules_of) in [
        ("more specific", json!([named("Default", json!({})), named("Product", product())])),
        ("of a higher priority", json!([named("First", json!({"priority": 1})), named("Second", json!({}))])),
        ("newer", json!([named("Older", product()), named("Newer", product())])),
    ] {
        let mut book = Book::new(plain(json!({"kind": "flat", "amount": "10"})));
        book.rules.insert(1, rules(rules_of));
        book.accept("1001", EventBody::Sale(sale(10_000, 0, &[("A", 10_000)])));
        tell(title, &book, "1001");
    }
    let mut book = Book::new(named("Rule", json!({"excludeStoreCredit": true})));
    let mut order = sale(13_300, 1_800, &[("A", 10_000), ("CARD", 1_000)]);
    order.items[1].gift_card = true;
    (order.shipping, order.discount, order.store_credit) = (minor(500), minor(700), minor(6_650));
    book.accept("1001", EventBody::Sale(order));
    tell("with tax, shipping, a gift card, a discount and store credit", &book, "1001");
    let mut shared = Book::new(plain(json!({"kind": "flat", "amount": "10"}))).among(&[1, 1, 1]);
    shared.sell("1001", 10_000);
    tell("three partners", &shared, "1001");
    let mut book = Book::new(plain(json!({"kind": "percent", "rate": "10"})));
    book.sell("1001", 10_000);
    book.refund("1001", 4_000);
    tell("refunded in part", &book, "1001");
    book.accept_as("1001", "up", restated(&sale(15_000, 0, &[])));
    tell("edited", &book, "1001");
    book.pay("1001");
    book.accept_as("1001", "dp", EventBody::Refund(refund(11_000)));
    let won = Withdrawal { conversion: "1001".into(), refund: "dp".into(), reason: None };
    book.accept_as("1001", "won", EventBody::Withdrawal(won));
    tell("clawed back, and given back", &book, "1001");
    let own = json!(partner().id);
    for (why, matches) in [
        ("product", json!({"products": ["A"]})),
        ("category", json!({"categories": ["plans"]})),
        ("group", json!({"groups": ["gold"]})),
        ("partner", json!({"partners": [own]})),
        ("campaign", json!({"campaigns": ["autumn"]})),
    ] {
        let other = json!({"name": "Other", "reward": {"kind": "percent", "rate": "50"}});
        let rule = json!({"name": "Rule", "match": matches, "reward": {"kind": "percent", "rate": "10"}});
        let mut book = Book::new(rule.clone()).with(json!([rule, other])).in_groups(&[]);
        book.partners = vec![Credited { group: Some("gold".into()), ..Credited::new(&partner(), 1) }];
        let mut order = sale(0, 0, &[("A", 10_000)]);
        order.items[0].category = Some("plans".into());
        order.campaign = Some("autumn".into());
        book.accept("1001", EventBody::Sale(order));
        tell(&format!("won by {why}"), &book, "1001");
    }
    for (found, evidence) in [
        ("by code", Evidence::Code("ANNA".into())),
        ("by coupon", Evidence::Coupon("SAVE5".into())),
        ("by click", Evidence::Click(ClickId::derive(&VisitorId::from_uuid(1), book.now, 1))),
        ("by touches", Evidence::Touches { model: Model::PositionBased, window_days: 30 }),
        ("by the first sale", Evidence::Customer),
        ("by hand", Evidence::ByHand),
    ] {
        let mut book = Book::new(plain(json!({"kind": "percent", "rate": "10"})));
        book.evidence = evidence;
        book.sell("1001", 10_000);
        tell(&format!("found {found}"), &book, "1001");
    }
    let mut converted = Book::new(plain(json!({"kind": "percent", "rate": "10"}))).among(&[1, 1]);
    converted.exchange = Some(rate("EUR", "USD", "1.5"));
    converted.accept("1001", EventBody::Sale(Sale { currency: "EUR".parse().unwrap(), ..sale(667, 0, &[]) }));
    tell("in another currency, shared", &converted, "1001");
    let mut kept =
        tiered("revenue", "retroactive", json!([{"after": "0", "rate": "10"}, {"after": "200", "rate": "12"}]));
    kept["caps"] = json!({"perPartnerMonth": "10.00"});
    let mut kept = Book::new(kept);
    kept.sell("1", 20_000);
    kept.now += SignedDuration::from_hours(24 * 31);
    kept.sell("2", 1_000);
    tell("a tier is reached, and a month before kept something back", &kept, "2");
    let bonus = Line::bonus(&partner(), book.program.currency, minor(2_000), "b", "ann", book.now);
    let why = Known { why: Some("best of the quarter"), ..Known::default() };
    told.extend(["## bonus".to_owned(), explain(&bonus, &why).unwrap().sentence]);
    let told = told.join("\n") + "\n";

    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/explanations.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &told).unwrap();
    }
    assert_eq!(told, std::fs::read_to_string(path).unwrap(), "UPDATE_GOLDEN=1 writes it anew");
}

#[test]
fn the_same_accrual_again_gives_the_same_lines() {
    let mut book = Book::new(by_count(["250", "275", "300"]));
    (1..=2).for_each(|n| book.sell(&n.to_string(), 10_000));
    let mut again = Book::new(by_count(["250", "275", "300"]));
    (1..=2).for_each(|n| again.sell(&n.to_string(), 10_000));
    let bytes = |book: &Book| book.lines().map(|line| json!(line).to_string()).collect::<Vec<_>>();
    assert_eq!(bytes(&book), bytes(&again));
    assert_eq!(book.lines().map(|line| line.amount).max(), Some(minor(25_000)));
    assert_eq!(Minor::total(book.lines().map(|line| line.amount)).unwrap(), minor(50_000));
}
