//! Balances: the fold of the journal per partner and currency, and the reasons why money in them is not paid yet.
//!
//! A balance authorizes nothing; the states of the lines do.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::line::{Line, LineKind, StateName};
use crate::money::{Currency, Minor, Money, MoneyError};
use crate::tax;

/// Where an amount stands. `Accrued` is the contra side: minus the sum of all lines' amounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bucket {
    Accrued,
    Pending,
    Approved,
    Payable,
    Held,
    InPayout,
    Paid,
    Reversed,
    Rejected,
    /// Tax kept back from payouts: no part of what was earned, in payout or paid.
    Withheld,
}

impl Bucket {
    pub const ALL: [Self; 10] = [
        Self::Accrued,
        Self::Pending,
        Self::Approved,
        Self::Payable,
        Self::Held,
        Self::InPayout,
        Self::Paid,
        Self::Reversed,
        Self::Rejected,
        Self::Withheld,
    ];

    pub const fn of(state: StateName) -> Self {
        match state {
            StateName::Pending => Self::Pending,
            StateName::Approved => Self::Approved,
            StateName::Payable => Self::Payable,
            StateName::InPayout => Self::InPayout,
            StateName::Paid => Self::Paid,
            StateName::Held => Self::Held,
            StateName::Rejected => Self::Rejected,
            StateName::Reversed => Self::Reversed,
        }
    }

    /// Where what is left of a line stands.
    pub fn holding(line: &Line) -> Self {
        if line.kind == LineKind::Withholding { Self::Withheld } else { Self::of(line.state.name()) }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accrued => "accrued",
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Payable => "payable",
            Self::Held => "held",
            Self::InPayout => "in_payout",
            Self::Paid => "paid",
            Self::Reversed => "reversed",
            Self::Rejected => "rejected",
            Self::Withheld => "withheld",
        }
    }
}

/// Sums per bucket and counts of lines per state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Balance {
    amounts: BTreeMap<Bucket, Minor>,
    counts: BTreeMap<StateName, i64>,
}

/// A difference between two balances.
pub type BalanceChange = Balance;

impl Balance {
    pub fn amount(&self, bucket: Bucket) -> Minor {
        self.amounts.get(&bucket).copied().unwrap_or_default()
    }

    pub fn lines(&self, state: StateName) -> i64 {
        self.counts.get(&state).copied().unwrap_or_default()
    }

    /// What one line is in the balance. A tax that is not kept back after all leaves no trace: nothing was taken from the partner.
    pub fn of_line(line: &Line) -> Result<Self, MoneyError> {
        let mut balance = Self::default();
        let reversed = if line.kind == LineKind::Withholding { Minor::ZERO } else { line.taken_back };
        balance.add_amount(Bucket::holding(line), line.net()?)?;
        balance.add_amount(Bucket::Reversed, reversed)?;
        balance.add_amount(Bucket::Accrued, line.net()?.plus(reversed)?.negated())?;
        balance.count(None, line.state.name());
        Ok(balance)
    }

    /// All buckets with the contra side: always zero.
    pub fn total(&self) -> Result<Minor, MoneyError> {
        Minor::total(self.amounts.values().copied())
    }

    pub fn amounts(&self) -> impl Iterator<Item = (Bucket, Minor)> + '_ {
        self.amounts.iter().map(|(bucket, amount)| (*bucket, *amount)).filter(|(_, amount)| !amount.is_zero())
    }

    pub fn counts(&self) -> impl Iterator<Item = (StateName, i64)> + '_ {
        self.counts.iter().map(|(state, count)| (*state, *count)).filter(|(_, count)| *count != 0)
    }

    pub fn is_zero(&self) -> bool {
        self.amounts().next().is_none() && self.counts().next().is_none()
    }

    pub fn add_amount(&mut self, bucket: Bucket, amount: Minor) -> Result<(), MoneyError> {
        let sum = self.amounts.entry(bucket).or_default();
        *sum = sum.plus(amount)?;
        Ok(())
    }

    pub fn add_count(&mut self, state: StateName, count: i64) {
        *self.counts.entry(state).or_default() += count;
    }

    pub(crate) fn shift(&mut self, from: Bucket, to: Bucket, amount: Minor) -> Result<(), MoneyError> {
        self.add_amount(from, amount.negated())?;
        self.add_amount(to, amount)
    }

    pub(crate) fn count(&mut self, before: Option<StateName>, after: StateName) {
        if let Some(before) = before {
            self.add_count(before, -1);
        }
        self.add_count(after, 1);
    }

    pub fn apply(&mut self, change: &BalanceChange) -> Result<(), MoneyError> {
        for (bucket, amount) in change.amounts() {
            self.add_amount(bucket, amount)?;
        }
        for (state, count) in change.counts() {
            self.add_count(state, count);
        }
        Ok(())
    }

    /// All but rejected and reversed.
    pub fn earned(&self) -> Result<Minor, MoneyError> {
        self.sum(&[Bucket::Pending, Bucket::Approved, Bucket::Payable, Bucket::Held, Bucket::InPayout, Bucket::Paid])
    }

    /// Not yet due: waiting, in review or held.
    pub fn reserve(&self) -> Result<Minor, MoneyError> {
        self.sum(&[Bucket::Pending, Bucket::Approved, Bucket::Held])
    }

    pub fn due(&self) -> Result<Minor, MoneyError> {
        self.sum(&[Bucket::Payable, Bucket::InPayout])
    }

    pub fn unpaid(&self) -> Result<Minor, MoneyError> {
        self.reserve()?.plus(self.due()?)
    }

    fn sum(&self, buckets: &[Bucket]) -> Result<Minor, MoneyError> {
        Minor::total(buckets.iter().map(|bucket| self.amount(*bucket)))
    }
}

/// What about a partner decides whether payable money is paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub currency: Currency,
    pub suspended: bool,
    /// What tax asks of the next payout.
    pub tax: tax::Terms,
    pub has_method: bool,
    /// The partner's own minimum payout, else the program's.
    pub minimum: Minor,
    pub next_run: Option<Date>,
    /// When the next waiting line matures.
    pub next_due: Option<Timestamp>,
    /// When the first of the payouts under way is to be paid.
    pub pay_on: Option<Date>,
    /// How much of what is payable too few sales hold back, and how many more it takes for any of it.
    pub blocked: Minor,
    pub missing_sales: u32,
    /// Sales that count, up to what is needed; and the program's minimum, where a line's rule has no other.
    pub sales: u32,
    pub minimum_sales: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotPayableCode {
    InPayout,
    Held,
    AwaitingReview,
    HoldPeriod,
    PartnerSuspended,
    TaxFormMissing,
    NoPayoutMethod,
    MinimumSales,
    NegativeBalance,
    BelowThreshold,
    NextRun,
}

/// Why something is not paid yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reason {
    pub code: NotPayableCode,
    /// A moment or a date, where one is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// What is missing to the minimum payout, or to minimum sales.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<Missing>,
}

/// One reason why an amount is not paid yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotPayable {
    #[serde(flatten)]
    pub reason: Reason,
    pub amount: Money,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Missing {
    Amount(Money),
    Sales(u32),
}

impl Reason {
    const fn of(code: NotPayableCode) -> Self {
        Self { code, until: None, missing: None }
    }

    fn until(self, until: Option<impl ToString>) -> Self {
        Self { until: until.map(|until| until.to_string()), ..self }
    }

    fn missing(self, missing: Missing) -> Self {
        Self { missing: Some(missing), ..self }
    }
}

impl Standing {
    /// What stands in the way of all that is payable, the first that applies; `free` is what of it no minimum sales hold back.
    fn in_the_way(&self, free: Minor) -> Result<Option<NotPayableCode>, MoneyError> {
        let payable = free.plus(self.blocked)?;
        Ok(if self.suspended {
            Some(NotPayableCode::PartnerSuspended)
        } else if self.tax.block(free) || (self.tax.block_every_cent() && payable.is_positive()) {
            Some(NotPayableCode::TaxFormMissing)
        } else if !self.has_method {
            Some(NotPayableCode::NoPayoutMethod)
        } else {
            None
        })
    }

    fn of_line(&self, line: &Line, free: Minor, until: Option<Date>) -> Result<Reason, MoneyError> {
        if let Some(code) = self.in_the_way(free)? {
            return Ok(Reason::of(code));
        }
        if line.lacks_sales(self.sales, self.minimum_sales) {
            let missing = line.minimum_sales.unwrap_or(self.minimum_sales) - self.sales;
            return Ok(Reason::of(NotPayableCode::MinimumSales).missing(Missing::Sales(missing)));
        }
        let reason = self.free(free)?;
        Ok(if reason.code == NotPayableCode::NextRun { Reason::of(reason.code).until(until) } else { reason })
    }

    /// Why what is payable and not held back otherwise is not paid yet; `free` is the sum of it.
    fn free(&self, free: Minor) -> Result<Reason, MoneyError> {
        Ok(if free.is_negative() {
            Reason::of(NotPayableCode::NegativeBalance)
        } else if free < self.minimum && !free.is_zero() {
            let missing = Money::new(self.minimum.minus(free)?, self.currency);
            Reason::of(NotPayableCode::BelowThreshold).missing(Missing::Amount(missing))
        } else {
            Reason::of(NotPayableCode::NextRun).until(self.next_run)
        })
    }
}

/// Why each unpaid cent is unpaid. Every cent appears once, under the first reason that applies, so the sum is the unpaid total.
pub fn not_payable_because(balance: &Balance, standing: &Standing) -> Result<Vec<NotPayable>, MoneyError> {
    use NotPayableCode as Code;
    let payable = balance.amount(Bucket::Payable);
    let mut reasons = vec![
        (Reason::of(Code::InPayout).until(standing.pay_on), balance.amount(Bucket::InPayout)),
        (Reason::of(Code::Held), balance.amount(Bucket::Held)),
        (Reason::of(Code::AwaitingReview), balance.amount(Bucket::Pending)),
        (Reason::of(Code::HoldPeriod).until(standing.next_due), balance.amount(Bucket::Approved)),
    ];
    let free = payable.minus(standing.blocked)?;
    if let Some(code) = standing.in_the_way(free)? {
        reasons.push((Reason::of(code), payable));
    } else {
        let waits = Reason::of(Code::MinimumSales).missing(Missing::Sales(standing.missing_sales));
        reasons.extend([(waits, standing.blocked), (standing.free(free)?, free)]);
    }
    reasons.retain(|(_, amount)| !amount.is_zero());
    let told = |(reason, amount)| NotPayable { reason, amount: Money::new(amount, standing.currency) };
    Ok(reasons.into_iter().map(told).collect())
}

/// Why a line is not paid yet; `None` where it is paid, or never will be. Lines stand under the reasons of their partner's balance, and
/// their sum by reason is the balance's. A payable line needs to know how its partner stands, and what is payable and not held back in sum;
/// `until` is when the line's payout is to be paid, or when the next run is that takes it.
pub fn line_not_payable_because(
    line: &Line,
    of_partner: Option<(&Standing, Minor)>,
    until: Option<Date>,
) -> Result<Option<Reason>, MoneyError> {
    use NotPayableCode as Code;
    if line.kind == LineKind::Withholding {
        return Ok(None);
    }
    Ok(Some(match line.state.name() {
        StateName::Paid | StateName::Rejected | StateName::Reversed => return Ok(None),
        StateName::InPayout => Reason::of(Code::InPayout).until(until),
        StateName::Held => Reason::of(Code::Held),
        StateName::Pending => Reason::of(Code::AwaitingReview),
        StateName::Approved => Reason::of(Code::HoldPeriod).until(Some(line.due_at)),
        StateName::Payable => {
            let Some((standing, free)) = of_partner else { return Ok(None) };
            standing.of_line(line, free, until)?
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversion::tests::minor;
    use proptest::prelude::*;

    fn standing() -> Standing {
        Standing {
            currency: "USD".parse().unwrap(),
            suspended: false,
            tax: tax::Terms::Clear,
            has_method: true,
            minimum: minor(5_000),
            next_run: Some("2026-12-01".parse().unwrap()),
            next_due: None,
            pay_on: None,
            blocked: Minor::ZERO,
            missing_sales: 0,
            sales: 0,
            minimum_sales: 0,
        }
    }

    fn payable(amount: i64) -> Balance {
        let mut balance = Balance::default();
        balance.shift(Bucket::Accrued, Bucket::Payable, minor(amount)).unwrap();
        balance
    }

    fn code(amount: i64, standing: &Standing) -> Option<NotPayableCode> {
        not_payable_because(&payable(amount), standing).unwrap().first().map(|told| told.reason.code)
    }

    #[test]
    fn payable_money_stands_under_the_first_reason_that_applies() {
        use NotPayableCode::{
            BelowThreshold, NegativeBalance, NextRun, NoPayoutMethod, PartnerSuspended, TaxFormMissing,
        };
        assert_eq!(code(5_000, &standing()), Some(NextRun));
        assert_eq!(code(4_999, &standing()), Some(BelowThreshold));
        assert_eq!(code(-500, &standing()), Some(NegativeBalance));
        assert_eq!(code(0, &standing()), None);
        assert_eq!(code(9_000, &Standing { has_method: false, ..standing() }), Some(NoPayoutMethod));
        let suspended = Standing { suspended: true, has_method: false, ..standing() };
        assert_eq!(code(9_000, &suspended), Some(PartnerSuspended));
        let taxed = |from| Standing { tax: tax::Terms::Blocked { from: minor(from) }, ..standing() };
        assert_eq!(code(9_000, &Standing { has_method: false, ..taxed(9_000) }), Some(TaxFormMissing));
        assert_eq!(code(9_000, &taxed(9_001)), Some(NextRun));
        assert_eq!(code(9_000, &Standing { blocked: minor(1), ..taxed(9_000) }), Some(NotPayableCode::MinimumSales));
        assert_eq!(code(9_000, &Standing { blocked: minor(9_000), ..taxed(0) }), Some(TaxFormMissing));
        assert_eq!(code(-500, &taxed(0)), Some(NegativeBalance));
        assert_eq!(code(9_000, &Standing { suspended: true, ..taxed(0) }), Some(PartnerSuspended));
        let reasons = not_payable_because(&payable(4_000), &standing()).unwrap();
        assert_eq!(reasons[0].reason.missing, Some(Missing::Amount(Money::new(minor(1_000), standing().currency))));
        let gated = Standing { blocked: minor(3_000), missing_sales: 2, ..standing() };
        let reasons = not_payable_because(&payable(9_000), &gated).unwrap();
        let told: Vec<_> = reasons.iter().map(|told| (told.reason.code, told.amount.amount.units())).collect();
        assert_eq!(told, [(NotPayableCode::MinimumSales, 3_000), (NextRun, 6_000)]);
        assert_eq!(reasons[0].reason.missing, Some(Missing::Sales(2)));
    }

    /// A line of an amount, in one of the states that a number stands for, that needs so many sales.
    fn some_line(amount: i64, state: u8, needs: u32) -> Line {
        use crate::line::{LineState, tests as lines};
        let payout = crate::payout::tests::payout(1).id;
        let state = match state {
            0 => LineState::Pending,
            1 => LineState::Approved,
            2 => LineState::Held { reviewed: true, why: "?".into() },
            3 => LineState::InPayout { payout, page: 0 },
            4 => LineState::Paid { payout, page: 0 },
            5 => LineState::Rejected { why: "no".into(), refunded: Minor::ZERO, whole: false },
            _ => LineState::Payable,
        };
        Line { minimum_sales: Some(needs), ..lines::line(amount, state, lines::now()) }
    }

    proptest! {
        #[test]
        fn lines_and_balance_agree_on_every_reason(
            lines in prop::collection::vec((-5_000_i64..9_000, 0_u8..10, 0_u32..4), 0..20),
            sales in 0_u32..4, suspended: bool, has_method: bool, minimum in 0_i64..9_000,
            from in proptest::option::of(0_i64..9_000),
        ) {
            let lines: Vec<_> = lines.into_iter().map(|(amount, state, needs)| some_line(amount, state, needs)).collect();
            let mut balance = Balance::default();
            for line in &lines {
                balance.apply(&Balance::of_line(line).unwrap()).unwrap();
            }
            let blocked = lines.iter().filter(|line| line.state.name() == StateName::Payable && line.lacks_sales(sales, 0));
            let blocked = Minor::total(blocked.map(|line| line.net().unwrap())).unwrap();
            let tax = from.map_or(tax::Terms::Clear, |from| tax::Terms::Blocked { from: minor(from) });
            let standing = Standing { suspended, has_method, tax, minimum: minor(minimum), sales, blocked, ..standing() };
            let free = balance.amount(Bucket::Payable).minus(blocked).unwrap();
            let mut by_line: BTreeMap<NotPayableCode, Minor> = BTreeMap::new();
            for line in &lines {
                if let Some(reason) = line_not_payable_because(line, Some((&standing, free)), None).unwrap() {
                    let sum = by_line.entry(reason.code).or_default();
                    *sum = sum.plus(line.net().unwrap()).unwrap();
                }
            }
            by_line.retain(|_, sum| !sum.is_zero());
            let told = not_payable_because(&balance, &standing).unwrap();
            let by_balance: BTreeMap<_, _> = told.iter().map(|told| (told.reason.code, told.amount.amount)).collect();
            prop_assert_eq!(by_line, by_balance);
        }

        #[test]
        fn a_run_carries_a_partner_for_a_reason_that_the_balance_gives(
            lines in prop::collection::vec((-5_000_i64..9_000, 0_u32..4), 1..12),
            sales in 0_u32..4, suspended: bool, has_method: bool, minimum in 0_i64..9_000,
            from in proptest::option::of(0_i64..9_000),
        ) {
            use crate::selection::{CarriedBecause, CutOff, Selection, Terms, select};
            let lines: Vec<_> = lines.into_iter().map(|(amount, needs)| some_line(amount, 9, needs)).collect();
            let mut balance = Balance::default();
            for line in &lines {
                balance.apply(&Balance::of_line(line).unwrap()).unwrap();
            }
            let blocked = lines.iter().filter(|line| line.lacks_sales(sales, 0));
            let blocked = Minor::total(blocked.map(|line| line.net().unwrap())).unwrap();
            let tax = from.map_or(tax::Terms::Clear, |from| tax::Terms::Blocked { from: minor(from) });
            let standing = Standing { suspended, has_method, tax: tax.clone(), minimum: minor(minimum), sales, blocked, ..standing() };
            let told: Vec<_> = not_payable_because(&balance, &standing).unwrap().iter().map(|told| told.reason.code).collect();
            let terms = Terms {
                cut_off: CutOff::UpTo(crate::line::tests::now()), payable_by: None, limit: None, minimum: Some(minor(minimum)),
                swept_since: None, suspended, excluded: false, has_method, tax, sales, minimum_sales: 0,
            };
            let expected = match select(lines, &terms).unwrap() {
                Selection::Lines { .. } => return Ok(()),
                Selection::Carried { because, .. } => match because {
                    CarriedBecause::PartnerSuspended => NotPayableCode::PartnerSuspended,
                    CarriedBecause::TaxFormMissing => NotPayableCode::TaxFormMissing,
                    CarriedBecause::NoPayoutMethod => NotPayableCode::NoPayoutMethod,
                    CarriedBecause::MinimumSales => NotPayableCode::MinimumSales,
                    CarriedBecause::NegativeBalance => NotPayableCode::NegativeBalance,
                    CarriedBecause::BelowThreshold => NotPayableCode::BelowThreshold,
                    _ => return Ok(()),
                },
            };
            prop_assert!(told.is_empty() || told.contains(&expected), "{expected:?} is not among {told:?}");
        }

        #[test]
        fn every_unpaid_cent_has_one_reason(amounts in prop::array::uniform8(-5_000_i64..9_000), suspended: bool, has_method: bool, from in proptest::option::of(0_i64..9_000)) {
            let tax = from.map_or(tax::Terms::Clear, |from| tax::Terms::Blocked { from: minor(from) });
            let mut balance = Balance::default();
            for (bucket, amount) in Bucket::ALL[1..].iter().zip(amounts) {
                balance.shift(Bucket::Accrued, *bucket, minor(amount)).unwrap();
            }
            let reasons = not_payable_because(&balance, &Standing { suspended, tax, has_method, ..standing() }).unwrap();
            let sum = Minor::total(reasons.iter().map(|reason| reason.amount.amount)).unwrap();
            prop_assert_eq!(sum, balance.unpaid().unwrap());
            let codes: Vec<_> = reasons.iter().map(|told| told.reason.code).collect();
            prop_assert!(codes.is_sorted() && codes.windows(2).all(|pair| pair[0] != pair[1]));
        }
    }
}
