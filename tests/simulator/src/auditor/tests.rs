//! Entries made by hand: the rules' worked examples pass, and what breaks a rule is found under the right name.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::rates::{self, Ratio, Sold, Standing};
use super::{Auditor, Checked, Invariant, hash};
use crate::told::{
    About, Anomalies, Answer, Asked, Attribution, Call, Caps, Command, Customer, Edit, Item, Match, Metric, Model,
    Named, Partner, Pay, Payment, Program, Rate, Recurrence, Refund, Reward, Rule, RuleSet, Said, Sale, Shape, Tiers,
    Told, Touch, Window, Withdrawal,
};
use crate::ways::{Way, Ways};

const PARTNER: &str = "par_00000000000000000000000001";
const SOURCE: &str = "src_api";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn now() -> Timestamp {
    at("2026-06-01T00:00:00Z")
}

fn percent(rate: u32) -> Reward {
    Reward::Percent(rate * 100)
}

fn rule(reward: Reward) -> Rule {
    let key = "base".to_owned();
    Rule {
        key,
        matches: Match::default(),
        priority: 0,
        hold_days: None,
        minimum_sales: None,
        gross: false,
        reward,
        slices: vec![],
        caps: Caps::default(),
        recurrence: Recurrence::Always,
        excludes_credit: false,
        keeps_renewals: false,
    }
}

fn tiered(metric: Metric, shape: Shape, tiers: &[(i64, Pay)]) -> Reward {
    Reward::Tiered(Tiers { metric, window: Window::Lifetime, shape, steps: tiers.to_vec() })
}

fn sale(total: i64, tax: i64, items: &[(&'static str, i64)]) -> Sale {
    let item = |(product, amount): &(&'static str, i64)| Item { product, category: "", quantity: 1, amount: *amount };
    Sale {
        program: 0,
        source: SOURCE.to_owned(),
        order: "o1".to_owned(),
        action: "sale",
        occurred_at: now(),
        named: Named::Code("CODE".to_owned()),
        coupon: None,
        click: None,
        visitor: None,
        customer: Customer::default(),
        channel: None,
        campaign: None,
        country: None,
        plan: None,
        currency: "USD",
        items: items.iter().map(item).collect(),
        total,
        tax,
        shipping: 0,
        discount: 0,
        store_credit: 0,
        accepted: true,
    }
}

fn refund(id: &str, total: i64) -> Refund {
    Refund {
        program: 0,
        currency: "USD",
        source: SOURCE.to_owned(),
        order: "o1".to_owned(),
        id: id.to_owned(),
        occurred_at: now(),
        total,
        tax: None,
        shipping: None,
        items: None,
        chargeback: false,
        accepted: true,
    }
}

fn line(n: u32) -> String {
    format!("com_{}00{n:016}", &PARTNER[4..])
}

/// Planned at the beginning of the epoch.
fn payout(n: u32) -> String {
    format!("pay_{}00000000{n:08}", &PARTNER[4..])
}

type Facts = (&'static str, i64, i64);

/// A line's change as an entry tells it: which line, what it was, what it is.
type Step = (u32, Option<Facts>, Facts);

fn postings(steps: &[Step]) -> Vec<Value> {
    let mut postings = Vec::new();
    for (_, from, (to, amount, net)) in steps {
        let taken = amount - net - from.map_or(0, |(_, amount, net)| amount - net);
        let from = from.map_or("accrued", |(state, ..)| state);
        let moves = [(from, "reversed", taken), (from, *to, *net)];
        for (from, to, amount) in moves.into_iter().filter(|(from, to, amount)| from != to && *amount != 0) {
            postings.push(json!({"partner": PARTNER, "from": from, "to": to, "amount": amount}));
        }
    }
    postings
}

/// A world with one program, and its auditor.
struct Book {
    told: Told,
    auditor: Auditor,
    positions: BTreeMap<String, u64>,
    /// The latest entry of each line and payout.
    latest: BTreeMap<String, String>,
}

impl Book {
    fn new(rule: Rule) -> Self {
        let rule_set = RuleSet { version: 1, effective_from: Timestamp::UNIX_EPOCH, rules: vec![rule] };
        let program = Program {
            id: "prg_1".to_owned(),
            currency: "USD",
            exponent: 2,
            time_zone: "UTC",
            hold_days: 0,
            min_hold_days: 0,
            anomalies: Anomalies::default(),
            approves_automatically: true,
            minimum_payout: 1_000,
            large_payout_limit: 100_000,
            withholds: None,
            frequency: "monthly",
            run_day: 1,
            cut_off_days: 0,
            pay_days: 0,
            dust_sweep_days: None,
            debt_write_off_days: None,
            minimum_sales: 0,
            attribution: Attribution { model: Model::LastTouch, window_days: 30 },
            rule_sets: vec![rule_set],
        };
        let partner = Partner {
            id: PARTNER.to_owned(),
            program: 0,
            code: "CODE".to_owned(),
            group: None,
            country: None,
            email_hash: "own".to_owned(),
            minimum_payout: None,
            quiet: false,
            trusted: false,
            ways: vec![Ways { since: 0, all: vec![Way::new("manual", &[])] }],
            paid_in: None,
            suspended: Vec::new(),
        };
        let told = Told { programs: vec![program], partners: vec![partner], ..Told::default() };
        Self { told, auditor: Auditor::default(), positions: BTreeMap::new(), latest: BTreeMap::new() }
    }

    fn command(&mut self, by: &str, about: About, verb: &'static str, id: &str) {
        let answer = Some(Answer { status: 200, done: vec![] });
        let (by, ids, reason) = (by.to_owned(), vec![id.to_owned()], None);
        let payment = |id: &String| Payment { payout: id.clone(), reference: None, amount: None, at: None };
        let payments = ids.iter().filter(|_| verb == "mark-paid").map(payment).collect();
        self.told.commands.push(Command {
            by,
            about,
            verb,
            ids,
            reason,
            amount: None,
            versions: vec![],
            payments,
            format: None,
            method: None,
            ways: Vec::new(),
            run: None,
            at: now(),
            answer,
        });
    }

    /// Somebody asks for the same about several at once.
    fn call(&mut self, verb: &'static str, ids: &[&str], atomic: bool) -> &mut Call {
        let asked = ids.iter().map(|id| Asked::about((*id).to_owned())).collect();
        let (by, reason) = ("ann".to_owned(), format!("because {}", self.told.calls.len()));
        self.told.calls.push(Call { by, verb, asked, atomic, reason, at: now(), since: 0, said: None });
        self.told.calls.last_mut().unwrap()
    }

    /// Has the auditor read an entry, changed at will before it is sealed.
    fn read(&mut self, mut entry: Value, steps: &[Step], change: impl FnOnce(&mut Value)) -> Checked {
        let lines: Vec<_> = steps
            .iter()
            .map(|(n, from, to)| {
                let facts = |(state, amount, net): &Facts| json!({"state": state, "amount": amount, "net": net});
                let after = from.and_then(|_| self.latest.get(&line(*n)));
                json!({"id": line(*n), "from": from.as_ref().map(facts), "to": facts(to), "after": after})
            })
            .collect();
        for payout in entry["payouts"].as_array_mut().into_iter().flatten() {
            payout["after"] = json!(self.latest.get(payout["id"].as_str().unwrap()));
            payout["currency"] = json!("USD");
        }
        let stream = entry["stream"].as_str().unwrap().to_owned();
        let position = self.positions.get(&stream).copied().unwrap_or_default() + 1;
        if entry["at"].is_null() {
            entry["at"] = json!(now());
        }
        entry["position"] = json!(position);
        entry["lines"] = json!(lines);
        entry["postings"] = json!(postings(steps));
        change(&mut entry);
        let text = entry.to_string();
        let hash = hash(text.as_bytes());
        let stored = json!({
            "pk": format!("JRN#{stream}"), "sk": format!("{position:06}"), "stream": stream, "position": position,
            "hash": hash, "text": text,
        });
        self.auditor.read(&self.told, now(), &stored)?;
        let reference = format!("{stream}/{position}/{hash}");
        for changed in ["lines", "payouts"].iter().flat_map(|field| super::list(&entry, field)) {
            self.latest.insert(super::text(changed, "id").to_owned(), reference.clone());
        }
        self.positions.insert(stream, position);
        Ok(())
    }

    /// The sale's entry, as the system would write it.
    fn sell(&mut self, sale: &Sale, steps: &[Step]) -> Checked {
        self.told.sales.push(sale.clone());
        self.read(sale_entry(sale), steps, |_| {})
    }

    fn refund(&mut self, refund: &Refund, what: &str, steps: &[Step]) -> Checked {
        self.told.refunds.push(refund.clone());
        self.read(refund_entry(refund, what), steps, |_| {})
    }

    /// Drafts payout 1 of these lines, all of which fit one page.
    fn draft(&mut self, steps: &[Step], amount: i64) -> Checked {
        let id = payout(1);
        self.read(payout_entry(1, "draft", "draft-payout", None, ("pending", amount, 0)), steps, |_| {})?;
        for (by, verb) in [("ann", "approve"), ("ben", "approve"), ("ann", "mark-paid"), ("ann", "cancel")] {
            self.command(by, About::Payouts, verb, &id);
        }
        Ok(())
    }

    fn approve(&mut self, by: &str, amount: i64) -> Checked {
        self.read(payout_entry(1, "approve_payout", by, Some("pending"), ("approved", amount, 0)), &[], |_| {})
    }
}

fn sale_entry(sale: &Sale) -> Value {
    let items: Vec<_> = sale
        .items
        .iter()
        .map(|item| json!({"product": item.product, "quantity": item.quantity.to_string(), "amount": item.amount}))
        .collect();
    let event = json!({
        "type": "sale", "id": sale.order, "occurredAt": sale.occurred_at, "partner": {"code": "code"}, "total": sale.total,
        "tax": sale.tax, "storeCredit": sale.store_credit, "currency": sale.currency, "items": items,
    });
    json!({
        "stream": format!("cnv_{}", sale.order), "what": "accrue", "by": SOURCE, "event": event, "receivedAt": sale.occurred_at,
    })
}

fn refund_entry(refund: &Refund, what: &str) -> Value {
    let event = json!({
        "type": "refund", "id": refund.id, "conversion": refund.order, "occurredAt": refund.occurred_at, "total": refund.total,
        "currency": refund.currency,
    });
    json!({
        "stream": format!("cnv_{}", refund.order), "what": what, "by": SOURCE, "event": event, "receivedAt": refund.occurred_at,
    })
}

fn payout_entry(n: u32, what: &str, by: &str, from: Option<&str>, (to, amount, paid): Facts) -> Value {
    let change = json!({"id": payout(n), "from": from, "to": to, "amount": amount, "paid": paid, "version": 1});
    json!({"stream": payout(n), "what": what, "by": by, "payouts": [change]})
}

fn broken(checked: Checked) -> Invariant {
    checked.unwrap_err().invariant
}

// --- Worked examples ------------------------------------------------------------------------------------------------

/// What sales of these amounts earn one after the other, without true-ups.
fn in_turn(reward: Reward, amounts: &[i64]) -> Vec<i128> {
    let rule = rule(reward);
    let metric = match &rule.reward {
        Reward::Tiered(tiers) => tiers.metric,
        _ => Metric::Count,
    };
    let mut before = 0;
    let earn = |amount: &i64| {
        let sold = Sold { base: i128::from(*amount).into(), units: 1 };
        let earned = rates::reward(&rule, sold, Ratio::new(1, 1), before, false).1.round();
        before += match metric {
            Metric::Count => 1,
            Metric::Revenue => i128::from(*amount),
            Metric::Commission => earned,
        };
        earned
    };
    amounts.iter().map(earn).collect()
}

#[test]
fn percent_and_flat() {
    let earned = |reward: Reward, amount: i64| in_turn(reward, &[amount])[0];
    for (rate, amount, expect) in [
        (3_000, 10_000, 3_000),
        (2_000, 7, 1),
        (2_000, 2, 0),
        (2_000, 3, 1),
        (1_000, 15, 2),
        (5_000, 1, 1),
        (290, 500, 15),
        (1_500, 1_005, 151),
    ] {
        assert_eq!(earned(Reward::Percent(rate), amount), expect, "{rate} of {amount}");
    }
    assert_eq!((earned(Reward::Flat(1_500), 5_000), earned(Reward::Flat(1_500), 50_000)), (1_500, 1_500));
}

#[test]
fn items_under_one_rule_are_rated_together() {
    let mut book = Book::new(rule(percent(10)));
    let order = sale(45, 0, &[("a", 15), ("b", 15), ("c", 15)]);
    assert_eq!(book.sell(&order, &[(1, None, ("payable", 5, 5))]), Ok(()));
}

#[test]
fn the_more_specific_rule_rates_an_item() {
    let of = |key: &str, rate| Rule { key: key.to_owned(), ..rule(percent(rate)) };
    let mut product = Rule { matches: Match { products: vec!["a"], ..Match::default() }, ..of("product", 1) };
    let personal =
        Rule { matches: Match { partners: vec![PARTNER.to_owned()], ..Match::default() }, ..of("personal", 2) };
    let book = Book::new(rule(percent(1)));
    let won = |rules: &[Rule]| {
        let order = sale(200, 0, &[("a", 100), ("b", 100)]);
        let (partner, zone) = (&book.told.partners[0], jiff::tz::TimeZone::UTC);
        let groups = rates::groups(&order, &order.items, rules, partner, Standing::default(), &zone, 1.into());
        groups.into_iter().map(|(rule, items)| (rule.key.clone(), items)).collect::<Vec<_>>()
    };
    let told = |won: &[(&str, &[usize])]| {
        won.iter().map(|(key, items)| ((*key).to_owned(), items.to_vec())).collect::<Vec<_>>()
    };
    assert_eq!(won(&[product.clone(), of("default", 50)]), told(&[("product", &[0]), ("default", &[1])]));
    assert_eq!(won(&[personal, product.clone(), of("default", 50)]), told(&[("personal", &[0, 1])]));
    assert_eq!(won(&[of("older", 1), of("newer", 2)]), told(&[("newer", &[0, 1])]));
    product.priority = 9;
    assert_eq!(won(&[Rule { priority: 1, ..of("first", 1) }, of("second", 2)]), told(&[("first", &[0, 1])]));
}

#[test]
fn ten_percent_for_the_first_hundred_then_fifteen() {
    let tiers = tiered(Metric::Count, Shape::MarginalByOrder, &[(0, Pay::Rate(1_000)), (100, Pay::Rate(1_500))]);
    let earned = in_turn(tiers, &[1_000; 150]);
    assert_eq!(earned.iter().sum::<i128>(), 17_500);
    assert_eq!((earned[99], earned[100]), (100, 150));
}

#[test]
fn an_order_that_crosses_is_split() {
    let tiers = [(0, Pay::Rate(1_000)), (5_000, Pay::Rate(1_200))];
    let by_revenue = tiered(Metric::Revenue, Shape::MarginalByAmount, &tiers);
    assert_eq!(in_turn(by_revenue, &[4_000, 5_000, 6_000]), [400, 580, 720]);
    assert_eq!(
        [4_000, 5_000, 6_000]
            .map(|amount| in_turn(tiered(Metric::Revenue, Shape::MarginalByAmount, &tiers), &[amount])[0]),
        [400, 500, 620]
    );
    // 10 % until 100.00 are earned, then 5 %: of 2,000.00 after 95.00, 50.00 at 10 % and 1,950.00 at 5 %.
    let by_commission =
        tiered(Metric::Commission, Shape::MarginalByAmount, &[(0, Pay::Rate(1_000)), (10_000, Pay::Rate(500))]);
    assert_eq!(in_turn(by_commission, &[95_000, 200_000]), [9_500, 500 + 9_750]);
    // By order, all of it at the tier where it starts.
    assert_eq!(in_turn(tiered(Metric::Revenue, Shape::MarginalByOrder, &tiers), &[4_999, 100, 100]), [500, 10, 12]);
}

#[test]
fn crossing_a_retroactive_tier_brings_the_window_up_to_date() {
    let pay = [(0, Pay::Amount(25_000)), (2, Pay::Amount(27_500)), (4, Pay::Amount(30_000))];
    let mut book = Book::new(rule(tiered(Metric::Count, Shape::Retroactive, &pay)));
    let order = |n: u32| Sale { order: format!("o{n}"), ..sale(100_000, 0, &[]) };
    let of = |n, amount: i64| (n, None, ("payable", amount, amount));
    // Sales 250 / after 2: 275 / after 4: 300: two sales 500, three 825, five 1,500.
    assert_eq!(book.sell(&order(1), &[of(1, 25_000)]), Ok(()));
    assert_eq!(book.sell(&order(2), &[of(2, 25_000)]), Ok(()));
    assert_eq!(book.sell(&order(3), &[of(3, 27_500), of(4, 5_000)]), Ok(()));
    // Of three, one refunded: 500.
    let back = Refund { order: "o1".to_owned(), ..refund("r1", 100_000) };
    let steps = [(1, Some(("payable", 25_000, 25_000)), ("reversed", 25_000, 0)), of(5, -7_500)];
    assert_eq!(book.refund(&back, "refund", &steps), Ok(()));
    assert_eq!(book.sell(&order(4), &[of(6, 27_500), of(7, 5_000)]), Ok(()));
    assert_eq!(book.sell(&order(5), &[of(8, 27_500)]), Ok(()));
    assert_eq!(book.sell(&order(6), &[of(9, 30_000), of(10, 10_000)]), Ok(()));
    let sum: i128 = book.auditor.lines.values().map(super::Line::net).sum();
    assert_eq!(sum, 150_000);
}

#[test]
fn a_cap_leaves_what_is_left_and_frees_for_later_sales_only() {
    let caps = Caps { order: Some(800), partner_month: Some(1_000), program_month: None };
    let mut book = Book::new(Rule { caps, ..rule(percent(10)) });
    let order = |n: u32| Sale { order: format!("o{n}"), ..sale(10_000, 0, &[]) };
    let of = |n, amount: i64| (n, None, ("payable", amount, amount));
    assert_eq!(book.sell(&order(1), &[of(1, 800)]), Ok(()));
    assert_eq!(book.sell(&order(2), &[of(2, 200)]), Ok(()));
    // In proportion to what was earned: half of 8.00.
    let half = [(1, Some(("payable", 800, 800)), ("payable", 800, 400))];
    assert_eq!(book.refund(&refund("r1", 5_000), "refund", &half), Ok(()));
    assert_eq!(book.sell(&order(3), &[of(3, 400)]), Ok(()));
    assert_eq!(book.sell(&order(4), &[of(4, 0)]), Ok(()));
}

#[test]
fn goods_bear_as_much_store_credit_as_the_total_where_the_rule_excludes_it() {
    for (excludes_credit, earned) in [(false, 3_000), (true, 1_983)] {
        let mut book = Book::new(Rule { excludes_credit, ..rule(percent(30)) });
        let order = Sale { store_credit: 4_000, ..sale(11_800, 1_800, &[]) };
        assert_eq!(book.sell(&order, &[(1, None, ("payable", earned, earned))]), Ok(()));
    }
}

#[test]
fn nobody_earns_of_what_was_sold_while_they_were_suspended() {
    let hour = jiff::SignedDuration::from_hours(1);
    for (ago, earns) in [(hour * 2, true), (hour, false), (hour / 2, false), (jiff::SignedDuration::ZERO, true)] {
        let mut book = Book::new(rule(percent(10)));
        book.told.partners[0].suspended.push((now() - hour, now()));
        let order = Sale { occurred_at: now() - ago, ..sale(1_000, 0, &[]) };
        let sold = book.sell(&order, &[(1, None, ("payable", 100, 100))]);
        assert_eq!(
            sold.map_err(|violation| violation.invariant),
            if earns { Ok(()) } else { Err(Invariant::ExactCents) }
        );
    }
}

#[test]
fn a_renewal_is_rated_by_the_version_of_the_first_sale_where_the_rule_there_keeps_it() {
    for (keeps_renewals, earned) in [(false, 200), (true, 100)] {
        let actions = Match { actions: vec!["sale", "renewal"], ..Match::default() };
        let of = |rate| Rule { matches: actions.clone(), keeps_renewals, ..rule(percent(rate)) };
        let mut book = Book::new(of(10));
        let later = now() - jiff::SignedDuration::from_hours(1);
        let second = RuleSet { version: 2, effective_from: later, rules: vec![of(20)] };
        book.told.programs[0].rule_sets.push(second);
        let customer = Customer { id: Some("c".to_owned()), ..Customer::default() };
        let order = |order: &str, action, at| Sale {
            order: order.to_owned(),
            action,
            occurred_at: at,
            customer: customer.clone(),
            ..sale(1_000, 0, &[])
        };
        let first = order("o1", "sale", later - jiff::SignedDuration::from_hours(1));
        assert_eq!(book.sell(&first, &[(1, None, ("payable", 100, 100))]), Ok(()));
        let renewal = order("o2", "renewal", now());
        assert_eq!(book.sell(&renewal, &[(2, None, ("payable", earned, earned))]), Ok(()));
        let again = order("o3", "sale", now());
        assert_eq!(book.sell(&again, &[(3, None, ("payable", 200, 200))]), Ok(()));
    }
}

#[test]
fn the_first_sale_only_and_so_many_months() {
    for (recurrence, second, third) in
        [(Recurrence::FirstSale, vec![], vec![]), (Recurrence::Months(1), vec![1_000], vec![])]
    {
        let mut book = Book::new(Rule { recurrence, ..rule(percent(10)) });
        let customer = Customer { id: Some("c".to_owned()), ..Customer::default() };
        let order = |n: u32, at: &str| Sale {
            order: format!("o{n}"),
            occurred_at: self::at(at),
            customer: customer.clone(),
            ..sale(10_000, 0, &[])
        };
        let of = |n, amounts: &[i64]| {
            amounts.iter().map(|amount| (n, None, ("payable", *amount, *amount))).collect::<Vec<_>>()
        };
        assert_eq!(book.sell(&order(1, "2026-01-31T10:00:00Z"), &of(1, &[1_000])), Ok(()));
        // The end of a month clamps, and is excluded.
        assert_eq!(book.sell(&order(2, "2026-02-28T09:59:59Z"), &of(2, &second)), Ok(()));
        assert_eq!(book.sell(&order(3, "2026-02-28T10:00:00Z"), &of(3, &third)), Ok(()));
    }
}

#[test]
fn three_partners_share_ten_to_the_cent() {
    assert_eq!(rates::divide(1_000, &[1, 1, 1]), [334, 333, 333]);
    let partners: Vec<_> = (0..3)
        .map(|n| Partner { id: format!("p{n}"), ..Book::new(rule(percent(1))).told.partners[0].clone() })
        .collect();
    let touch = |partner: usize, hour: i64| Touch {
        visitor: "v".to_owned(),
        click: Some(format!("c{hour}")),
        partner,
        at: now() - jiff::SignedDuration::from_hours(hour),
        channel: Some(if partner == 0 { "web" } else { "mail" }),
    };
    let touches = [touch(2, 100), touch(0, 50), touch(1, 20), touch(2, 1)];
    let with: Vec<_> = touches.iter().map(|touch| (touch, &partners[touch.partner])).collect();
    let shares = |model, window_days| {
        let shares = rates::shared(&Attribution { model, window_days }, &with, now());
        shares.into_iter().map(|(id, part)| format!("{id}:{part}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(shares(Model::FirstTouch, 30), "p2:1");
    assert_eq!(shares(Model::LastTouch, 30), "p2:1");
    assert_eq!(shares(Model::Linear, 30), "p2:1 p0:1 p1:1");
    assert_eq!(shares(Model::Linear, 3), "p0:1 p1:1 p2:1");
    assert_eq!(shares(Model::PositionBased([40, 20, 40]), 30), "p2:40 p0:20 p1:40");
    assert_eq!(shares(Model::Custom(vec![("web", 3), ("mail", 1)]), 30), "p2:1 p0:3 p1:1");
}

#[test]
fn a_rate_is_told_else_turned_round_else_of_two_by_one_source() {
    let rate = |date: &str, from, to, units, decimals, source| Rate {
        date: date.parse().unwrap(),
        from,
        to,
        units,
        decimals,
        source,
        since: 0,
    };
    let told = [
        rate("2026-05-01", "EUR", "USD", 12, 1, "ecb"),
        rate("2026-05-01", "EUR", "JPY", 150, 0, "ecb"),
        rate("2026-05-01", "EUR", "KWD", 33, 2, "bank"),
        rate("2026-05-02", "USD", "JPY", 130, 0, "bank"),
    ];
    let of = |from, to, day: &str| rates::exchange(told.iter(), from, to, day.parse().unwrap());
    // In minor units: a yen is one, a cent is a hundredth.
    assert_eq!(of("EUR", "USD", "2026-05-01"), Some(Ratio::new(12, 10)));
    assert_eq!(of("USD", "EUR", "2026-05-01"), Some(Ratio::new(10, 12)));
    assert_eq!(of("USD", "JPY", "2026-05-01"), Some(Ratio::new(150 * 10, 12 * 100)));
    assert_eq!(of("USD", "JPY", "2026-05-09"), Some(Ratio::new(130, 100)));
    assert_eq!(of("EUR", "USD", "2026-05-08"), Some(Ratio::new(12, 10)));
    assert_eq!(of("EUR", "USD", "2026-05-09"), None);
    assert_eq!(of("KWD", "USD", "2026-05-01"), None);
    assert_eq!(of("USD", "USD", "2020-01-01"), Some(1.into()));
}

#[test]
fn a_sale_is_converted_by_the_rate_of_its_day_and_a_payout_by_that_of_its_draft() {
    let mut book = Book::new(rule(percent(10)));
    let rate = |date: &str, from, to, units| Rate {
        date: date.parse().unwrap(),
        from,
        to,
        units,
        decimals: 1,
        source: "ecb",
        since: 0,
    };
    book.told.rates = vec![rate("2026-05-30", "EUR", "USD", 12), rate("2026-05-30", "USD", "KWD", 3)];
    let euros = Sale { currency: "EUR", ..sale(10_000, 0, &[]) };
    assert_eq!(book.sell(&euros, &[(1, None, ("payable", 1_200, 1_200))]), Ok(()));
    // Refunds are shares in the sale's own currency, and in another they are none.
    let back = Refund { currency: "EUR", ..refund("r1", 5_000) };
    let step = (1, Some(("payable", 1_200, 1_200)), ("payable", 1_200, 600));
    assert_eq!(book.refund(&back, "refund", &[step]), Ok(()));
    book.told.partners[0].paid_in = Some("KWD");
    book.told.programs[0].minimum_payout = 0;
    let claim = (1, Some(("payable", 1_200, 600)), ("in_payout", 1_200, 600));
    let mut entry = payout_entry(1, "draft", "draft-payout", None, ("pending", 600, 0));
    entry["payouts"][0]["paidIn"] = json!("KWD");
    assert_eq!(book.read(entry, &[claim], |_| {}), Ok(()));
    // 6.00 USD is 1.800 KWD.
    assert_eq!(book.auditor.open(&payout(1)), Some((1_800, "KWD")));
    let dollars = refund("r2", 5_000);
    assert_eq!(broken(book.refund(&dollars, "refund", &[])), Invariant::ExactCents);
    book.told.rates.clear();
    let late = Sale { order: "o2".to_owned(), ..euros };
    assert_eq!(broken(book.sell(&late, &[(2, None, ("payable", 1_200, 1_200))])), Invariant::ExactCents);
}

#[test]
fn a_tier_counts_what_is_neither_rejected_nor_reversed() {
    let tiers = [(0, Pay::Rate(1_000)), (1, Pay::Rate(2_000))];
    let mut book = Book::new(rule(tiered(Metric::Count, Shape::MarginalByOrder, &tiers)));
    let order = |n: &str| Sale { order: n.to_owned(), ..sale(1_000, 0, &[]) };
    assert_eq!(book.sell(&order("o1"), &[(1, None, ("payable", 100, 100))]), Ok(()));
    assert_eq!(book.sell(&order("o2"), &[(2, None, ("payable", 200, 200))]), Ok(()));
    let full = [(1, Some(("payable", 100, 100)), ("reversed", 100, 0))];
    assert_eq!(book.refund(&refund("r1", 1_000), "refund", &full), Ok(()));
    let key = (PARTNER.to_owned(), "base".to_owned(), "life".to_owned());
    assert_eq!(book.auditor.tallies[&key].count, 1);
    assert_eq!(broken(book.sell(&order("o3"), &[(3, None, ("payable", 100, 100))])), Invariant::ExactCents);
}

#[test]
fn slices_sum_to_the_whole() {
    let quarters = Rule { slices: vec![(2_500, 0); 4], ..rule(percent(100)) };
    let amounts =
        |rule: &Rule, earned| rates::slices(earned, rule).iter().map(|(amount, _)| *amount).collect::<Vec<_>>();
    assert_eq!(amounts(&quarters, 2), [1, 0, 1, 0]);
    let milestones = Rule { slices: vec![(4_000, 0), (6_000, 60)], ..rule(percent(100)) };
    assert_eq!(amounts(&milestones, 333), [133, 200]);
    let mut book = Book::new(milestones);
    let lines = [(1, None, ("payable", 400, 400)), (2, None, ("approved", 600, 600))];
    assert_eq!(book.sell(&sale(1_000, 0, &[]), &lines), Ok(()));
    assert_eq!(book.auditor.lines[&line(2)].due_at, at("2026-07-31T00:00:00Z"));
    // The newest slice first, then the next newest.
    let back = [
        (2, Some(("approved", 600, 600)), ("reversed", 600, 0)),
        (1, Some(("payable", 400, 400)), ("payable", 400, 300)),
    ];
    assert_eq!(book.refund(&refund("r1", 700), "refund", &back), Ok(()));
}

#[test]
fn a_hold_period_is_days_of_24_hours() {
    let mut book = Book::new(Rule { hold_days: Some(30), ..rule(percent(10)) });
    let order = Sale { occurred_at: at("2026-03-28T23:30:00Z"), ..sale(1_000, 0, &[]) };
    assert_eq!(book.sell(&order, &[(1, None, ("payable", 100, 100))]), Ok(()));
    assert_eq!(book.auditor.lines[&line(1)].due_at, at("2026-04-27T23:30:00Z"));
}

#[test]
fn refunds_take_back_the_cumulative_target() {
    // 30 % of 118.00 with 18.00 tax, 40.00 refunded: 10.17; 25 % of 100.00: 10.00; earning 2 of 3 cents, refund 1: 1.
    for (rate, total, tax, back, earned, rest) in
        [(30, 11_800, 1_800, 4_000, 3_000, 1_983), (25, 10_000, 0, 4_000, 2_500, 1_500), (67, 3, 0, 1, 2, 1)]
    {
        let mut book = Book::new(rule(percent(rate)));
        assert_eq!(book.sell(&sale(total, tax, &[]), &[(1, None, ("payable", earned, earned))]), Ok(()));
        let part = [(1, Some(("payable", earned, earned)), ("payable", earned, rest))];
        assert_eq!(book.refund(&refund("r1", back), "refund", &part), Ok(()), "{total}");
        // Whatever is left is taken back by the rest, to the cent.
        let rest = [(1, Some(("payable", earned, rest)), ("reversed", earned, 0))];
        assert_eq!(book.refund(&refund("r2", total - back), "refund", &rest), Ok(()), "{total}");
    }
}

#[test]
fn shipping_and_tax_alone_take_nothing_back() {
    let mut book = Book::new(rule(percent(10)));
    assert_eq!(book.sell(&sale(11_800, 1_800, &[]), &[(1, None, ("payable", 1_000, 1_000))]), Ok(()));
    let tax = Refund { tax: Some(1_800), shipping: Some(0), ..refund("r1", 1_800) };
    book.told.refunds.push(tax.clone());
    let told = |entry: &mut Value| (entry["event"]["tax"], entry["event"]["shipping"]) = (json!(1_800), json!(0));
    assert_eq!(book.read(refund_entry(&tax, "refund"), &[], told), Ok(()));
}

#[test]
fn a_refund_that_came_first_applies_when_its_sale_arrives() {
    let mut book = Book::new(rule(percent(25)));
    assert_eq!(book.refund(&refund("r1", 4_000), "await_sale", &[]), Ok(()));
    assert_eq!(book.sell(&sale(10_000, 0, &[]), &[(1, None, ("payable", 2_500, 1_500))]), Ok(()));
}

#[test]
fn an_edit_takes_back_what_fell_and_adds_what_rose() {
    let mut book = Book::new(rule(percent(10)));
    let order = Sale { occurred_at: at("2026-05-31T00:00:00Z"), ..sale(10_000, 0, &[("a", 6_000), ("b", 4_000)]) };
    assert_eq!(book.sell(&order, &[(1, None, ("payable", 1_000, 1_000))]), Ok(()));
    let item = |product, amount| Item { product, category: "", quantity: 1, amount };
    let edit = |id: &str, items: Vec<Item>, second: i64| Edit {
        program: 0,
        currency: "USD",
        source: SOURCE.to_owned(),
        order: "o1".to_owned(),
        id: id.to_owned(),
        occurred_at: now() + jiff::SignedDuration::from_secs(second),
        total: items.iter().map(|item| item.amount).sum(),
        items,
        tax: 0,
        shipping: 0,
        discount: 0,
        store_credit: 0,
        accepted: true,
    };
    let mut write = |edit: &Edit, steps: &[Step]| {
        book.told.edits.push(edit.clone());
        let items: Vec<_> = edit
            .items
            .iter()
            .map(|item| json!({"product": item.product, "quantity": item.quantity.to_string(), "amount": item.amount}))
            .collect();
        let mut entry = refund_entry(&refund(&edit.id, edit.total), "edit");
        entry["event"]["type"] = json!("edit");
        entry["event"]["occurredAt"] = json!(edit.occurred_at);
        entry["event"]["items"] = json!(items);
        book.read(entry, steps, |_| {})
    };
    // a falls by 10.00, b rises by 20.00.
    let steps = [(1, Some(("payable", 1_000, 1_000)), ("payable", 1_000, 900)), (2, None, ("payable", 200, 200))];
    assert_eq!(write(&edit("e2", vec![item("a", 5_000), item("b", 6_000)], -10), &steps), Ok(()));
    // An older one that comes later says nothing new.
    assert_eq!(write(&edit("e1", vec![item("a", 1)], -20), &[]), Ok(()));
}

#[test]
fn what_was_clawed_back_is_reinstated_when_the_refund_is_withdrawn() {
    let mut book = paid();
    assert_eq!(book.refund(&refund("r1", 10_000), "refund", &[(2, None, ("payable", -1_000, -1_000))]), Ok(()));
    book.told.withdrawals.push(Withdrawal {
        program: 0,
        source: SOURCE.to_owned(),
        order: "o1".to_owned(),
        id: "w1".to_owned(),
        kind: "dispute_won",
        refund: "r1".to_owned(),
        occurred_at: now(),
        accepted: true,
    });
    let mut entry = refund_entry(&refund("w1", 0), "withdraw");
    (entry["event"]["type"], entry["event"]["refund"]) = (json!("withdrawal"), json!("r1"));
    assert_eq!(book.read(entry, &[(3, None, ("payable", 1_000, 1_000))], |_| {}), Ok(()));
}

#[test]
fn what_was_paid_comes_back_as_a_clawback() {
    let mut book = paid();
    assert_eq!(book.refund(&refund("r1", 10_000), "refund", &[(2, None, ("payable", -1_000, -1_000))]), Ok(()));
    let balance = book.auditor.balances[PARTNER].clone().trimmed().amounts;
    assert_eq!(
        (balance.get("paid"), balance.get("payable"), balance.get("accrued")),
        (Some(&1_000), Some(&-1_000), None)
    );
}

/// 10.00 accrued, drafted, approved and paid.
fn paid() -> Book {
    let mut book = drafted();
    assert_eq!(book.approve("ann", 1_000), Ok(()));
    let entry = payout_entry(1, "mark_paid", "ann", Some("approved"), ("paid", 1_000, 1_000));
    let line = [(1, Some(("in_payout", 1_000, 1_000)), ("paid", 1_000, 1_000))];
    assert_eq!(book.read(entry, &line, |_| {}), Ok(()));
    book
}

fn drafted() -> Book {
    let mut book = Book::new(rule(percent(10)));
    assert_eq!(book.sell(&sale(10_000, 0, &[]), &[(1, None, ("payable", 1_000, 1_000))]), Ok(()));
    assert_eq!(book.draft(&[CLAIM], 1_000), Ok(()));
    book
}

const CLAIM: Step = (1, Some(("payable", 1_000, 1_000)), ("in_payout", 1_000, 1_000));

#[test]
fn a_change_inside_retallies_and_cancels_below_the_minimum() {
    let mut book = drafted();
    book.told.refunds.push(refund("r1", 5_000));
    let mut entry = refund_entry(&refund("r1", 5_000), "refund");
    let change = json!({"id": payout(1), "from": "pending", "to": "cancelled", "amount": 500, "paid": 0, "version": 2});
    entry["payouts"] = json!([change]);
    let line = [(1, Some(("in_payout", 1_000, 1_000)), ("in_payout", 1_000, 500))];
    assert_eq!(book.read(entry, &line, |_| {}), Ok(()));
    // Its lines follow.
    let mut entry = payout_entry(1, "settle", "settlement", Some("cancelled"), ("cancelled", 500, 0));
    entry["payouts"][0]["version"] = json!(2);
    book.positions.insert(payout(1), 2);
    let free = [(1, Some(("in_payout", 1_000, 500)), ("payable", 1_000, 500))];
    assert_eq!(book.read(entry, &free, |_| {}), Ok(()));
}

#[test]
fn debts_are_carried_or_netted() {
    for (debt, expect) in [(-1_500, Err(Invariant::PayoutIsItsLines)), (-1_000, Ok(()))] {
        let mut book = paid();
        book.told.programs[0].rule_sets[0].rules[0].reward = Reward::Flat(-debt);
        let two = Sale { order: "o2".to_owned(), ..sale(10_000, 0, &[]) };
        assert_eq!(book.sell(&two, &[(2, None, ("payable", -debt, -debt))]), Ok(()));
        assert_eq!(book.refund(&refund("r1", 10_000), "refund", &[(3, None, ("payable", -1_000, -1_000))]), Ok(()));
        let more = [
            (2, Some(("payable", -debt, -debt)), ("in_payout", -debt, -debt)),
            (3, Some(("payable", -1_000, -1_000)), ("in_payout", -1_000, -1_000)),
        ];
        let sum = -debt - 1_000;
        let entry = payout_entry(2, "draft", "draft-payout", None, ("drafting", sum, 0));
        assert_eq!(book.read(entry, &more, |_| {}).map_err(|found| found.invariant), expect, "{debt}");
        if sum == 0 {
            let entry = payout_entry(2, "close_draft", "draft-payout", Some("drafting"), ("paid", 0, 0));
            assert_eq!(book.read(entry, &[], |_| {}), Ok(()));
        }
    }
}

// --- What must be found -----------------------------------------------------------------------------------------------

#[test]
fn a_wrong_cent() {
    let mut book = Book::new(rule(percent(30)));
    let wrong = [(1, None, ("payable", 3_001, 3_001))];
    assert_eq!(broken(book.sell(&sale(11_800, 1_800, &[]), &wrong)), Invariant::ExactCents);
}

#[test]
fn a_second_effect_an_untold_one_and_other_content() {
    let order = sale(10_000, 0, &[]);
    let mut book = Book::new(rule(percent(10)));
    let earned = [(1, None, ("payable", 1_000, 1_000))];
    assert_eq!(broken(book.read(sale_entry(&order), &earned, |_| {})), Invariant::OneEffect, "untold");

    let mut book = Book::new(rule(percent(10)));
    book.told.sales.push(order.clone());
    let other = |entry: &mut Value| entry["event"]["total"] = json!(10_001);
    assert_eq!(broken(book.read(sale_entry(&order), &earned, other)), Invariant::SameContent);

    let mut book = Book::new(rule(percent(10)));
    assert_eq!(book.sell(&order, &earned), Ok(()));
    assert_eq!(broken(book.sell(&order, &[(2, None, ("payable", 1_000, 1_000))])), Invariant::OneEffect);
    let mut again = sale_entry(&order);
    again["stream"] = json!("cnv_other");
    assert_eq!(broken(book.read(again, &[(3, None, ("payable", 1_000, 1_000))], |_| {})), Invariant::OneEffect);

    let taken = [(1, Some(("payable", 1_000, 1_000)), ("payable", 1_000, 900))];
    assert_eq!(book.refund(&refund("r1", 1_000), "refund", &taken), Ok(()));
    let again = [(1, Some(("payable", 1_000, 900)), ("payable", 1_000, 800))];
    assert_eq!(broken(book.refund(&refund("r1", 1_000), "refund", &again)), Invariant::OneEffect);
}

#[test]
fn a_line_in_two_payouts_and_an_amount_that_is_not_the_sum() {
    let mut book = drafted();
    let entry = payout_entry(2, "draft", "draft-payout", None, ("drafting", 1_000, 0));
    assert_eq!(broken(book.read(entry, &[CLAIM], |_| {})), Invariant::OneState);

    let mut book = Book::new(rule(percent(10)));
    assert_eq!(book.sell(&sale(10_000, 0, &[]), &[(1, None, ("payable", 1_000, 1_000))]), Ok(()));
    assert_eq!(broken(book.draft(&[CLAIM], 1_001)), Invariant::PayoutIsItsLines);
}

#[test]
fn a_payout_below_the_minimum() {
    let mut book = Book::new(rule(percent(10)));
    book.told.programs[0].minimum_payout = 5_000;
    assert_eq!(book.sell(&sale(10_000, 0, &[]), &[(1, None, ("payable", 1_000, 1_000))]), Ok(()));
    assert_eq!(broken(book.draft(&[CLAIM], 1_000)), Invariant::PayoutIsItsLines);
}

#[test]
fn broken_postings_and_altered_history() {
    for (change, expect) in [
        ((|entry: &mut Value| entry["postings"][0]["amount"] = json!(999)) as fn(&mut Value), Invariant::Balances),
        (|entry| entry["postings"] = json!([]), Invariant::Balances),
        (|entry| entry["position"] = json!(2), Invariant::History),
        (|entry| entry["at"] = json!("2026-06-01T00:10:00Z"), Invariant::History),
        (|entry| entry["lines"][0]["after"] = json!("cnv_1/1/x"), Invariant::History),
        (|entry| entry["what"] = json!("melt"), Invariant::OneState),
    ] {
        let mut book = Book::new(rule(percent(10)));
        book.told.sales.push(sale(10_000, 0, &[]));
        let earned = [(1, None, ("payable", 1_000, 1_000))];
        assert_eq!(broken(book.read(sale_entry(&sale(10_000, 0, &[])), &earned, change)), expect);
    }
    let altered = json!({"pk": "JRN#a", "sk": "000001", "hash": "x", "text": "{\"at\":\"2026-06-01T00:00:00Z\"}"});
    assert_eq!(broken(Auditor::default().read(&Told::default(), now(), &altered)), Invariant::History);
}

#[test]
fn maturing_before_time_and_steps_the_table_does_not_have() {
    let mut book = Book::new(Rule { hold_days: Some(1), ..rule(percent(10)) });
    assert_eq!(book.sell(&sale(10_000, 0, &[]), &[(1, None, ("approved", 1_000, 1_000))]), Ok(()));
    book.call("release", &[&line(1)], false);
    let due = [(1, Some(("approved", 1_000, 1_000)), ("payable", 1_000, 1_000))];
    let mature = |what, by| json!({"stream": "act_1", "what": what, "by": by});
    assert_eq!(broken(book.read(mature("mature", "mature-commissions"), &due, |_| {})), Invariant::OneState);
    assert_eq!(broken(book.read(mature("release", "ann"), &due, |_| {})), Invariant::OneState);
    assert_eq!(broken(book.read(mature("approve", "ann"), &due, |_| {})), Invariant::Access, "nobody commanded it");
}

#[test]
fn approvals_by_whom_they_must_not_be() {
    let mut book = drafted();
    assert_eq!(broken(book.approve("cleo", 1_000)), Invariant::Access, "nobody commanded it");
    let mut book = drafted();
    book.told.programs[0].large_payout_limit = 1_000;
    assert_eq!(broken(book.approve("ann", 1_000)), Invariant::Access, "a large one takes two");
    let mut book = drafted();
    let payout = book.auditor.payouts.get_mut(&payout(1)).unwrap();
    payout.pages[0][0].hands.insert("ann".to_owned());
    assert_eq!(broken(book.approve("ann", 1_000)), Invariant::Access, "who released a line");
}

/// What is stored after one sale of 100.00 at 10 %.
fn stored(book: &Book) -> BTreeMap<(String, String), Value> {
    let entry = &book.latest[&line(1)];
    let items = [
        (
            "LIN#1",
            "1",
            json!({
                "id": line(1), "program": "prg_1", "partner": PARTNER, "currency": "USD", "kind": "commission",
                "conversion": "cnv_o1", "order": "o1", "slice": 1, "ruleSet": 1, "amount": 1_000, "takenBack": 0, "state": "payable",
                "occurredAt": now(), "dueAt": now(), "version": 1, "rev": 1, "entry": entry, "basis": {"rule": "base"},
                "wpk": format!("PAYABLE#{PARTNER}"),
            }),
        ),
        (
            "PAR#par_00000000000000000000000001",
            "BAL#USD#00",
            json!({"accrued": -1_000, "payable": 1_000, "payable_lines": 1}),
        ),
        ("JRN#cnv_o1", "000001", json!({})),
    ];
    items.into_iter().map(|(pk, sk, item)| ((pk.to_owned(), sk.to_owned()), item)).collect()
}

#[test]
fn what_is_stored_and_published_agrees_with_the_journal() {
    let mut book = Book::new(rule(percent(10)));
    assert_eq!(book.sell(&sale(10_000, 0, &[]), &[(1, None, ("payable", 1_000, 1_000))]), Ok(()));
    let published = vec![json!({"detail": {"id": book.auditor.events[0].1[0]}})];
    assert_eq!(book.auditor.finish(&book.told, now(), &stored(&book), &published), Ok(()));
    for (pk, field, value, expect) in [
        ("LIN#1", "amount", json!(1_001), Invariant::History),
        ("LIN#1", "state", json!("paid"), Invariant::History),
        ("LIN#1", "wpk", Value::Null, Invariant::History),
        ("LIN#1", "basis", json!({"rule": "other"}), Invariant::ExactCents),
        ("PAR#par_00000000000000000000000001", "payable", json!(1_001), Invariant::Balances),
        ("PAR#par_00000000000000000000000001", "payable_lines", json!(2), Invariant::Balances),
    ] {
        let mut items = stored(&book);
        let item = items.iter_mut().find(|(key, _)| key.0 == pk).unwrap().1;
        item[field] = value;
        assert_eq!(broken(book.auditor.compare(&book.told, &items)), expect, "{pk} {field}");
    }
    let finish = |book: &Book, published: &[Value]| book.auditor.finish(&book.told, now(), &stored(book), published);
    assert_eq!(broken(finish(&book, &[])), Invariant::History, "not published");
    book.told.commands.push(Command {
        by: "ann".to_owned(),
        about: About::Payouts,
        verb: "approve",
        ids: vec![payout(1)],
        reason: None,
        amount: None,
        versions: vec![],
        payments: vec![],
        format: None,
        method: None,
        ways: Vec::new(),
        run: None,
        at: now(),
        answer: Some(Answer { status: 200, done: vec![payout(1)] }),
    });
    assert_eq!(broken(finish(&book, &published)), Invariant::Converges, "told as done, and not done");
    book.told.commands.clear();
    book.told.sales.push(Sale { order: "o2".to_owned(), ..sale(10_000, 0, &[]) });
    assert_eq!(broken(finish(&book, &published)), Invariant::RecordsEnd, "accepted, and lost");
}

/// What is stored of payout 1 besides.
fn stored_draft(book: &Book) -> BTreeMap<(String, String), Value> {
    let (id, entry) = (payout(1), &book.latest[&payout(1)]);
    let lines = json!([[line(1), 1_000]]);
    let destination = super::places::fingerprint(Some(&Way::new("manual", &[])));
    let terms = json!(["manual", destination, "USD", null, null]);
    let content = hash((hash(lines.to_string().as_bytes()) + &hash(terms.to_string().as_bytes())).as_bytes());
    let midnight = "1970-01-01T00:00:00Z";
    let items = [
        (
            format!("PAR#{PARTNER}"),
            "PAY#1",
            json!({
                "id": id, "program": "prg_1", "partner": PARTNER, "currency": "USD", "state": "pending", "amount": 1_000,
                "lineCount": 1, "pages": 1, "paid": 0, "contentVersion": 1, "minimum": 1_000, "entries": 1, "rev": 1,
                "entry": entry, "run": "run_1", "payOn": "1970-01-01", "method": "manual", "destination": destination, "linesHash": content,
            }),
        ),
        (format!("PAY#{id}"), "PAG#00000", json!({"lines": [{"id": line(1), "net": 1_000}]})),
        (
            "RUN#run_1".to_owned(),
            "RUN",
            json!({
                "kind": "monthly", "period": "1970-01-01", "plannedAt": midnight, "cutOff": midnight, "payableBy": midnight,
                "createdBy": "batch-payouts", "payOn": "1970-01-01",
            }),
        ),
        (
            "RUN#run_1".to_owned(),
            "PAR#par_00000000000000000000000001",
            json!({"payout": id, "outcome": "payout", "amount": {"minor": 1_000}}),
        ),
    ];
    let mut all = stored(book);
    all.extend(items.into_iter().map(|(pk, sk, item)| ((pk, sk.to_owned()), item)));
    let of_line = all.get_mut(&("LIN#1".to_owned(), "1".to_owned())).unwrap();
    for (field, value) in
        [("state", json!("in_payout")), ("payout", json!(id)), ("page", json!(0)), ("wpk", Value::Null)]
    {
        of_line[field] = value;
    }
    (of_line["version"], of_line["rev"]) = (json!(2), json!(2));
    all.insert((format!("JRN#{id}"), "1".to_owned()), Value::Null);
    let balance = json!({"accrued": -1_000, "in_payout": 1_000, "in_payout_lines": 1});
    all.insert((format!("PAR#{PARTNER}"), "BAL#USD#00".to_owned()), balance);
    all
}

#[test]
fn a_payout_is_what_its_run_had_to_pay() {
    let mut book = drafted();
    // Due and payable before its run's cut-off, as the entries do not tell.
    let due = |book: &mut Book, due_at| book.auditor.payouts.get_mut(&payout(1)).unwrap().claimed[0].due_at = due_at;
    let early = at("1969-12-31T23:59:59Z");
    due(&mut book, early);
    book.auditor.payouts.get_mut(&payout(1)).unwrap().claimed[0].ready_at = early;
    assert_eq!(book.auditor.compare(&book.told, &stored_draft(&book)), Ok(()));
    for (sk, field, value, expect) in [
        ("PAY#1", "amount", json!(1_001), Invariant::PayoutIsItsLines),
        ("PAY#1", "linesHash", json!("other"), Invariant::PayoutIsItsLines),
        ("PAY#1", "approvals", json!([{"by": "ann"}]), Invariant::Access),
        ("PAG#00000", "lines", json!([]), Invariant::PayoutIsItsLines),
        ("RUN", "cutOff", json!("1970-01-02T00:00:00Z"), Invariant::Runs),
        ("RUN", "kind", json!("manual"), Invariant::Runs),
        ("RUN", "payableBy", json!("1970-01-02T00:00:01Z"), Invariant::Runs),
        ("RUN", "payableBy", Value::Null, Invariant::Runs),
        ("PAR#par_00000000000000000000000001", "amount", json!({"minor": 999}), Invariant::Runs),
        ("PAR#par_00000000000000000000000001", "outcome", json!("carried"), Invariant::Runs),
        ("PAR#par_00000000000000000000000001", "payout", json!(payout(2)), Invariant::Runs),
    ] {
        let mut items = stored_draft(&book);
        items.iter_mut().find(|(key, _)| key.1 == sk).unwrap().1[field] = value;
        assert_eq!(broken(book.auditor.compare(&book.told, &items)), expect, "{sk} {field}");
    }
    let mut left = |since| {
        book.auditor.payouts.get_mut(&payout(1)).unwrap().left = vec![(line(2), 500, since, early)];
        book.auditor.compare(&book.told, &stored_draft(&book))
    };
    assert_eq!(left(early), Ok(()), "by a clock that is off, it may have been payable only later");
    assert_eq!(broken(left(at("1969-12-31T23:00:00Z"))), Invariant::Runs, "left out");
    book.auditor.payouts.get_mut(&payout(1)).unwrap().claimed[0].ready_at = at("1970-01-01T00:00:01Z");
    book.auditor.payouts.get_mut(&payout(1)).unwrap().left.clear();
    assert_eq!(broken(book.auditor.compare(&book.told, &stored_draft(&book))), Invariant::Runs, "payable too late");
    book.auditor.payouts.get_mut(&payout(1)).unwrap().claimed[0].ready_at = early;
    due(&mut book, Timestamp::UNIX_EPOCH);
    assert_eq!(broken(book.auditor.compare(&book.told, &stored_draft(&book))), Invariant::Runs, "due at the cut-off");
}

// --- Calls about several --------------------------------------------------------------------------------------------

/// Two sales of 10.00 each, by one partner.
fn sold_twice() -> Book {
    let mut book = Book::new(rule(percent(10)));
    for (n, order) in [(1, "o1"), (2, "o2")] {
        let sale = Sale { order: order.to_owned(), ..sale(10_000, 0, &[]) };
        assert_eq!(book.sell(&sale, &[(n, None, ("payable", 1_000, 1_000))]), Ok(()));
    }
    book.told.tick += 1;
    book
}

fn said(ids: &[(String, u16)]) -> Vec<Said> {
    let said = |(id, status): &(String, u16)| Said { id: id.clone(), status: *status, why: String::new() };
    ids.iter().map(said).collect()
}

const PAYABLE: Facts = ("payable", 1_000, 1_000);

#[test]
fn a_verdict_about_several_is_given_about_all_of_them_or_none() {
    let held = |n| (n, Some(PAYABLE), ("held", 1_000, 1_000));
    let hold = || json!({"stream": "act_1", "what": "hold", "by": "ann", "why": "because 0"});
    for (atomic, expect) in [(false, Ok(())), (true, Err(Invariant::Access))] {
        let mut book = sold_twice();
        book.call("hold", &[&line(1), &line(2)], atomic);
        let read = book.read(hold(), &[held(1)], |_| {});
        assert_eq!(read.map_err(|violation| violation.invariant), expect, "atomic: {atomic}");
    }
    let mut book = sold_twice();
    let since = book.told.tick;
    let call = book.call("hold", &[&line(1), &line(2), "com_nothing", &line(1)], false);
    call.since = since;
    assert_eq!(book.read(hold(), &[held(1)], |_| {}), Ok(()));
    assert_eq!(book.auditor.calls(&book.told), Ok(()), "not answered yet");
    let answer =
        |second, third| said(&[(line(1), 200), (line(2), second), ("com_nothing".to_owned(), third), (line(1), 409)]);
    for (second, third, expect) in [
        (200, 404, Err(Invariant::Converges)),
        (409, 404, Err(Invariant::Converges)),
        (503, 409, Err(Invariant::Converges)),
        (503, 404, Ok(())),
    ] {
        book.told.calls[0].said = Some(answer(second, third));
        let heard = book.auditor.calls(&book.told).map_err(|violation| violation.invariant);
        assert_eq!(heard, expect, "{second} {third}");
    }
}

#[test]
fn what_is_adjusted_together_is_adjusted_at_once() {
    let mut book = sold_twice();
    let call = book.call("adjust", &[&line(2), &line(1)], true);
    call.asked.iter_mut().for_each(|asked| asked.amount = Some(500));
    let entry = |order: &str, n| {
        json!({
            "stream": format!("cnv_{order}"), "what": "adjust", "by": "ann", "why": "because 0", "adjusted": {"line": line(n), "amount": 500},
        })
    };
    let both = vec![(Value::Null, entry("o1", 1)), (Value::Null, entry("o2", 2))];
    let ordered: Vec<_> = super::in_order(&book.told.calls, both).into_iter().map(|(_, entry)| entry).collect();
    assert_eq!(ordered, [entry("o2", 2), entry("o1", 1)], "as they were asked for");
    let less = |n| (n, Some(PAYABLE), ("payable", 500, 500));
    let half = json!([{"partner": PARTNER, "from": "payable", "to": "accrued", "amount": 500}]);
    let moved = |entry: &mut Value| entry["postings"] = half.clone();
    assert_eq!(book.read(entry("o2", 2), &[less(2)], moved), Ok(()));
    assert_eq!(broken(book.auditor.calls(&book.told)), Invariant::OneEffect, "one of the two");
    assert_eq!(book.read(entry("o1", 1), &[less(1)], moved), Ok(()));
    assert_eq!(book.auditor.calls(&book.told), Ok(()));
    book.told.calls[0].said = Some(said(&[(line(2), 200), (line(1), 409)]));
    assert_eq!(broken(book.auditor.calls(&book.told)), Invariant::OneEffect, "not all or nothing");
}

// --- What is unusual ------------------------------------------------------------------------------------------------

/// A book after one sale that may have been refunded, and that refund withdrawn.
fn after_one(anomalies: &Anomalies, refunded: bool, withdrawn: bool) -> Book {
    let mut book = Book::new(rule(percent(10)));
    book.told.programs[0].anomalies = anomalies.clone();
    assert_eq!(book.sell(&sale(10_000, 0, &[]), &[(1, None, PAYABLE)]), Ok(()));
    if refunded {
        let taken = [(1, Some(PAYABLE), ("payable", 1_000, 900))];
        assert_eq!(book.refund(&refund("r1", 1_000), "refund", &taken), Ok(()));
    }
    if withdrawn {
        let withdrawal = Withdrawal {
            program: 0,
            source: SOURCE.to_owned(),
            order: "o1".to_owned(),
            id: "w1".to_owned(),
            kind: "refund_withdrawn",
            refund: "r1".to_owned(),
            occurred_at: now(),
            accepted: true,
        };
        let event = json!({"type": "withdrawal", "id": "w1", "conversion": "o1", "refund": "r1", "occurredAt": now()});
        let entry = json!({"stream": "cnv_o1", "what": "withdraw", "by": SOURCE, "event": event, "receivedAt": now()});
        book.told.withdrawals.push(withdrawal);
        assert_eq!(book.read(entry, &[(1, Some(("payable", 1_000, 900)), PAYABLE)], |_| {}), Ok(()));
    }
    book
}

#[test]
fn sales_are_held_while_many_went_back_or_where_one_is_unlike_the_others() {
    let often = |points, after| Anomalies { refund_rate: Some((points, after)), ..Anomalies::default() };
    let large = Anomalies { outlier: Some((15, 0)), ..Anomalies::default() };
    let hurried = Anomalies { velocity: Some((1, 1)), ..Anomalies::default() };
    for (anomalies, refunded, withdrawn, total, word) in [
        (&often(5_000, 1), false, false, 10_000, ""),
        (&often(5_000, 1), true, false, 10_000, "refund rate"),
        (&often(5_000, 1), true, true, 10_000, ""),
        (&often(10_000, 1), true, false, 10_000, ""),
        (&often(5_000, 2), true, false, 10_000, ""),
        (&large, false, false, 15_000, ""),
        (&large, false, false, 15_010, "outlier"),
        (&hurried, false, false, 10_000, "velocity"),
    ] {
        let next = Sale { order: "o2".to_owned(), ..sale(total, 0, &[]) };
        for said in ["", "refund rate", "outlier", "velocity"] {
            let mut book = after_one(anomalies, refunded, withdrawn);
            book.told.sales.push(next.clone());
            let mut entry = sale_entry(&next);
            let earned = total / 10;
            let state = if said.is_empty() { "payable" } else { "held" };
            if !said.is_empty() {
                entry["circumstances"] = json!({"objection": format!("anomaly: {said}: too much")});
            }
            let read = book.read(entry, &[(2, None, (state, earned, earned))], |_| {});
            assert_eq!(read.is_ok(), said == word, "{anomalies:?} {total}: {word:?} and {said:?}");
        }
    }
}
