use proptest::prelude::*;

use super::*;
use crate::conversion::tests::minor;
use crate::exchange::ExchangeRate;
use crate::line::LineState;
use crate::line::tests::{line, now};
use crate::payout::tests::payout;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn step(moment: &str, what: What, state: StateName, amount: i64, net: i64) -> LineStep {
    let facts = LineFacts { state, amount: minor(amount), net: minor(net) };
    LineStep { at: at(moment), what, why: None, facts }
}

fn paid_step(moment: &str, what: What, state: PayoutState, amount: i64, paid: i64) -> PayoutStep {
    PayoutStep {
        at: at(moment),
        what,
        why: Some("wire 7".to_owned()),
        state,
        amount: minor(amount),
        withheld: Minor::ZERO,
        paid: minor(paid),
        paid_at: None,
    }
}

fn statement(month: &str) -> Statement {
    let period = month.parse::<Month>().unwrap().period(&TimeZone::UTC).unwrap();
    Statement::new(period, "USD".parse().unwrap())
}

/// What was owed, earned, taken back, paid, withheld and is owed.
fn sums(statement: &Statement) -> [i64; 6] {
    let Statement { opening, earned, taken_back, paid, withheld, closing, .. } = statement;
    [opening, earned, taken_back, paid, withheld, closing].map(|amount| amount.units())
}

#[test]
fn a_month_begins_and_ends_at_midnight_of_the_program() {
    let berlin = TimeZone::get("Europe/Berlin").unwrap();
    let march: Month = "2026-03".parse().unwrap();
    let period = march.period(&berlin).unwrap();
    assert_eq!((period.from, period.until), (at("2026-02-28T23:00:00Z"), at("2026-03-31T22:00:00Z")), "summer time");
    assert_eq!(Month::of(at("2026-02-28T23:00:00Z"), &berlin), march);
    assert_eq!("2026-12".parse::<Month>().unwrap().next().unwrap().to_string(), "2027-01");
    for bad in ["2026", "2026-13", "2026-1", "26-01", "2026-01-01", "+026-01", ""] {
        assert!(bad.parse::<Month>().is_err(), "{bad}");
    }
}

#[test]
fn a_sale_a_refund_and_a_payment_add_up_month_by_month() {
    use StateName::{Approved, InPayout, Paid, Payable};
    let sale = line(1_000, LineState::Payable, now());
    let life = [
        step("2026-01-10T00:00:00Z", What::Accrue, Approved, 1_000, 1_000),
        step("2026-02-03T00:00:00Z", What::Refund, Approved, 1_000, 700),
        step("2026-02-10T00:00:00Z", What::Mature, Payable, 1_000, 700),
        step("2026-03-01T00:00:00Z", What::Claim, InPayout, 1_000, 700),
        step("2026-03-05T00:00:01Z", What::Settle, Paid, 1_000, 700),
    ];
    let payout = payout(700);
    let payment = [
        paid_step("2026-03-01T00:00:00Z", What::Claim, PayoutState::Pending, 700, 0),
        paid_step("2026-03-05T00:00:00Z", What::MarkPaid, PayoutState::Paid, 700, 700),
    ];
    let of = |month| {
        let mut statement = statement(month);
        statement.add_line(&sale, &life, None).unwrap();
        statement.add_payout(&payout, &payment).unwrap();
        statement.in_order()
    };
    let january = of("2026-01");
    assert_eq!(sums(&january), [0, 1_000, 0, 0, 0, 1_000]);
    assert_eq!(january.of_closing, Parts { waiting: minor(1_000), ..Parts::default() });
    let february = of("2026-02");
    assert_eq!(sums(&february), [1_000, 0, -300, 0, 0, 700]);
    assert_eq!(february.of_closing, Parts { ready: minor(700), ..Parts::default() });
    assert_eq!(february.lines[0].reason, "A refund took back 3.00 USD.");
    let march = of("2026-03");
    assert_eq!(sums(&march), [700, 0, 0, -700, 0, 0]);
    assert_eq!(march.of_closing, Parts::default());
    assert_eq!((march.lines.len(), march.payments[0].reference.as_deref()), (0, Some("wire 7")));
}

#[test]
fn a_declined_line_leaves_what_is_owed_and_says_why() {
    let sale = line(1_000, LineState::Payable, now());
    let mut life = vec![
        step("2026-01-10T00:00:00Z", What::Accrue, StateName::Pending, 1_000, 1_000),
        step("2026-01-11T00:00:00Z", What::Reject, StateName::Rejected, 1_000, 1_000),
    ];
    life[1].why = Some("Own order.".to_owned());
    life.push(step("2026-02-01T00:00:00Z", What::Reinstate, StateName::Pending, 1_000, 1_000));
    let of = |month| {
        let mut statement = statement(month);
        statement.add_line(&sale, &life, None).unwrap();
        statement
    };
    assert_eq!(sums(&of("2026-01")), [0, 1_000, -1_000, 0, 0, 0]);
    assert_eq!(of("2026-01").lines[0].reason, "A bonus, written by hand; declined: Own order.");
    assert_eq!(sums(&of("2026-02")), [0, 1_000, 0, 0, 0, 1_000]);
    assert_eq!(of("2026-02").of_closing.in_review, minor(1_000));
}

#[test]
fn what_is_paid_in_part_is_owed_in_part_and_what_comes_back_is_owed_again() {
    let payout = payout(1_000);
    let payment = [
        paid_step("2026-01-02T00:00:00Z", What::MarkPaid, PayoutState::PartiallyPaid, 1_000, 400),
        paid_step("2026-02-02T00:00:00Z", What::MarkPaid, PayoutState::Paid, 1_000, 1_000),
        paid_step("2026-03-02T00:00:00Z", What::Settle, PayoutState::Returned, 1_000, 0),
    ];
    let paid = |month| {
        let mut statement = statement(month);
        statement.add_payout(&payout, &payment).unwrap();
        (statement.paid.units(), statement.payments[0].kind)
    };
    assert_eq!(paid("2026-01"), (-400, MovementKind::Payment));
    assert_eq!(paid("2026-02"), (-600, MovementKind::Payment));
    assert_eq!(paid("2026-03"), (1_000, MovementKind::PaymentReturned));
    let receipts = Receipt::all(&payout, &payment).unwrap();
    let told: Vec<_> = receipts
        .iter()
        .map(|receipt| (receipt.number, receipt.paid.amount.units(), receipt.open.amount.units(), receipt.came_back))
        .collect();
    let back = Some(at("2026-03-02T00:00:00Z"));
    assert_eq!(told, [(1, 400, 600, back), (2, 600, 0, back)]);
}

#[test]
fn a_payment_in_another_currency_and_its_tax_are_told_in_both() {
    let mut payout = payout(1_000);
    payout.conversion = Some(ExchangeRate {
        from: "USD".parse().unwrap(),
        to: "JPY".parse().unwrap(),
        rate: "150.5".parse().unwrap(),
        per: "1".parse().unwrap(),
        source: "ecb".to_owned(),
        date: "2026-01-02".parse().unwrap(),
    });
    let payment = [
        paid_step("2026-01-02T00:00:00Z", What::MarkPaid, PayoutState::PartiallyPaid, 1_000, 500),
        PayoutStep {
            withheld: minor(240),
            ..paid_step("2026-01-03T00:00:00Z", What::MarkPaid, PayoutState::Paid, 1_000, 1_505)
        },
    ];
    let mut statement = statement("2026-01");
    statement.add_payout(&payout, &payment).unwrap();
    assert_eq!((statement.paid, statement.withheld, statement.closing), (minor(-1_000), minor(-240), minor(-1_240)));
    let told: Vec<_> = statement
        .payments
        .iter()
        .map(|movement| (movement.kind, movement.change.units(), movement.money.to_string()))
        .collect();
    let expect = [
        (MovementKind::Payment, -332, "500 JPY".to_owned()),
        (MovementKind::Payment, -668, "1005 JPY".to_owned()),
        (MovementKind::TaxWithheld, -240, "2.40 USD".to_owned()),
    ];
    assert_eq!(told, expect);
}

#[test]
fn a_payout_is_its_earnings_less_what_was_taken_back_carried_over_and_withheld() {
    let run = |date: &str| Decided { at: at(date), cut_off: at(date), inclusive: false };
    let (last, this) = (run("2026-07-01T00:00:00Z"), run("2026-08-01T00:00:00Z"));
    let with = |amount, taken, created: &str| {
        let mut line = line(amount, LineState::Payable, at(created));
        (line.created_at, line.taken_back) = (at(created), minor(taken));
        line
    };
    let mut tax = with(-120, 0, "2026-08-01T00:00:00Z");
    tax.kind = LineKind::Withholding;
    let lines = [
        with(1_000, 300, "2026-07-10T00:00:00Z"),
        with(-50, 0, "2026-07-11T00:00:00Z"),
        with(-480, 0, "2026-06-11T00:00:00Z"),
        with(400, 100, "2026-06-12T00:00:00Z"),
        tax,
    ];
    let mut breakdown = Breakdown::new(&this, Some(&last));
    for line in &lines {
        breakdown.add(line, Some(&last), None, None).unwrap();
    }
    let Breakdown { earnings, taken_back, carried_over, withheld, .. } = &breakdown;
    let parts = [earnings, taken_back, carried_over, withheld].map(|amount| amount.units());
    assert_eq!((parts, breakdown.total().unwrap().units()), ([1_000, -350, -180, -120], 350));
    assert_eq!(breakdown.since, Some(at("2026-07-01T00:00:00Z")));
    let first = Breakdown::new(&this, None);
    assert_eq!(first.since, None);
}

const STATES: [StateName; 8] = StateName::ALL;

/// A line's entries at these hours of the year, some of them a little before the one they follow.
fn any_life() -> impl Strategy<Value = Vec<LineStep>> {
    prop::collection::vec((1..2_000_i64, 0..8_usize, -9_000..9_000_i64, -9_000..9_000_i64, -60..60_i64), 0..7).prop_map(
        |mut steps| {
            steps.sort_by_key(|step| step.0);
            let begin = at("2026-01-01T00:00:00Z").as_second();
            steps
                .into_iter()
                .map(|(hour, state, amount, net, skew)| {
                    let state = STATES[state];
                    let net = if state == StateName::Reversed { 0 } else { net };
                    let facts = LineFacts { state, amount: minor(amount), net: minor(net) };
                    let at = Timestamp::from_second(begin + hour * 3_600 + skew).unwrap();
                    LineStep { at, what: What::Refund, why: None, facts }
                })
                .collect()
        },
    )
}

fn any_payments() -> impl Strategy<Value = Vec<PayoutStep>> {
    prop::collection::vec((1..2_000_i64, 0..11_usize, 0..1_000_i64, -60..60_i64), 0..6).prop_map(|mut steps| {
        steps.sort_by_key(|step| step.0);
        let begin = at("2026-01-01T00:00:00Z").as_second();
        steps
            .into_iter()
            .map(|(hour, state, paid, skew)| PayoutStep {
                at: Timestamp::from_second(begin + hour * 3_600 + skew).unwrap(),
                what: What::MarkPaid,
                why: None,
                state: PayoutState::ALL[state],
                amount: minor(1_000),
                withheld: minor(paid % 7),
                paid: minor(paid),
                paid_at: None,
            })
            .collect()
    })
}

fn of(month: &str, lives: &[Vec<LineStep>], payments: &[Vec<PayoutStep>]) -> Statement {
    let mut statement = statement(month);
    let line = line(1_000, LineState::Pending, now());
    let payout = payout(1_000);
    for life in lives {
        statement.add_line(&line, life, None).unwrap();
    }
    for steps in payments {
        statement.add_payout(&payout, steps).unwrap();
    }
    statement
}

proptest! {
    #[test]
    fn opening_and_what_happened_is_closing_and_the_next_opening(
        lives in prop::collection::vec(any_life(), 0..6), payments in prop::collection::vec(any_payments(), 0..3),
    ) {
        let mut last = 0;
        for month in ["2026-01", "2026-02", "2026-03", "2026-04"] {
            let statement = of(month, &lives, &payments);
            let [opening, earned, taken_back, paid, withheld, closing] = sums(&statement);
            prop_assert_eq!(opening, last);
            prop_assert_eq!(opening + earned + taken_back + paid + withheld, closing);
            prop_assert!(earned >= 0 && taken_back <= 0);
            let rows: i64 = statement.lines.iter().map(|row| row.earned.units() + row.taken_back.units()).sum();
            let moved: i64 = statement.payments.iter().map(|movement| movement.change.units()).sum();
            prop_assert_eq!(opening + rows + moved, closing);
            let Parts { in_review, waiting, held, ready, being_paid } = statement.of_closing;
            let parts: i64 = [in_review, waiting, held, ready, being_paid].iter().map(|part| part.units()).sum();
            prop_assert_eq!(parts, closing);
            last = closing;
        }
    }

    #[test]
    fn nothing_that_is_written_later_changes_a_closed_month(
        lives in prop::collection::vec(any_life(), 0..6), payments in prop::collection::vec(any_payments(), 0..3),
    ) {
        let whole = of("2026-01", &lives, &payments);
        // All that had been written at the end of the month, give or take the clocks.
        let end = at("2026-02-01T00:00:00Z");
        let then: Vec<_> = lives.iter().map(|life| life[..before(life, |step| step.at, end)].to_vec()).collect();
        let paid: Vec<_> =
            payments.iter().map(|steps| steps[..before(steps, |step| step.at, end)].to_vec()).collect();
        prop_assert_eq!(of("2026-01", &then, &paid), whole);
    }
}
