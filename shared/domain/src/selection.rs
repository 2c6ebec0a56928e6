//! Selection: which payable lines a payout takes, or why a partner is carried over to the next run.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::line::Line;
use crate::money::{Minor, MoneyError};
use crate::tax;

/// Lines one payout takes at most. The rest is paid by the next run.
pub const MAX_LINES: usize = 20_000;

/// What a run, and a request if there is one, say about paying a partner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    pub cut_off: CutOff,
    /// A requested amount: at most this much.
    pub limit: Option<Minor>,
    /// The minimum payout, unless somebody decided that it does not matter this time.
    pub minimum: Option<Minor>,
    pub suspended: bool,
    /// The run is not about this partner.
    pub excluded: bool,
    pub has_method: bool,
    /// What tax asks of the payout.
    pub tax: tax::Terms,
    /// Sales that count towards minimum sales.
    pub sales: u32,
    /// The program's minimum sales, where a line's rule has no other.
    pub minimum_sales: u32,
}

/// Up to when lines must be due to be paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutOff {
    /// Strictly before: scheduled runs.
    Before(Timestamp),
    /// The moment itself counts: runs by hand and requests, which are as of now.
    UpTo(Timestamp),
}

impl CutOff {
    fn admits(self, due_at: Timestamp) -> bool {
        match self {
            Self::Before(moment) => due_at < moment,
            Self::UpTo(moment) => due_at <= moment,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    Lines { lines: Vec<Line>, total: Minor },
    Carried { because: CarriedBecause, payable: Minor },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CarriedBecause {
    NothingPayable,
    NegativeBalance,
    BelowThreshold,
    PartnerSuspended,
    /// Tax forbids to pay so much, or anything, before there is a form.
    TaxFormMissing,
    NoPayoutMethod,
    /// Too few sales yet for what is payable to be paid.
    MinimumSales,
    /// The partner is paid in another currency, and no rate of the day is known.
    ExchangeRateMissing,
    Excluded,
    DraftInProgress,
}

/// Selects from everything that is payable to a partner.
pub fn select(payable: Vec<Line>, terms: &Terms) -> Result<Selection, MoneyError> {
    let all = total(&payable)?;
    let carried = |because| Ok(Selection::Carried { because, payable: all });
    if terms.suspended {
        return carried(CarriedBecause::PartnerSuspended);
    }
    if terms.excluded {
        return carried(CarriedBecause::Excluded);
    }
    let blocked = payable.iter().any(|line| line.lacks_sales(terms.sales, terms.minimum_sales));
    let mut lines = within(payable, terms)?;
    // Before anything is judged by them.
    lines.truncate(MAX_LINES);
    let total = total(&lines)?;
    if total.is_negative() {
        return carried(CarriedBecause::NegativeBalance);
    }
    if total.is_zero() && lines.iter().any(|line| line.amount.is_negative()) {
        // Debts and earnings cancel out: settled without a rail, so without a method or a minimum, too.
        return Ok(Selection::Lines { lines, total });
    }
    if blocked && total.is_zero() && terms.tax.block_every_cent() {
        return carried(CarriedBecause::TaxFormMissing);
    }
    if total.is_zero() {
        return carried(if blocked { CarriedBecause::MinimumSales } else { CarriedBecause::NothingPayable });
    }
    if terms.tax.block(total) {
        return carried(CarriedBecause::TaxFormMissing);
    }
    if !terms.has_method {
        return carried(CarriedBecause::NoPayoutMethod);
    }
    if terms.minimum.is_some_and(|minimum| total < minimum) {
        return carried(CarriedBecause::BelowThreshold);
    }
    Ok(Selection::Lines { lines, total })
}

fn total(lines: &[Line]) -> Result<Minor, MoneyError> {
    Minor::total(lines.iter().map(Line::net).collect::<Result<Vec<_>, _>>()?)
}

/// Every negative line whatever the cut-off, and the positive ones up to it; with a requested amount the oldest of those,
/// stopping before it would be exceeded.
fn within(payable: Vec<Line>, terms: &Terms) -> Result<Vec<Line>, MoneyError> {
    let (mut lines, mut positive): (Vec<_>, Vec<_>) = payable.into_iter().partition(|line| line.amount.is_negative());
    positive.retain(|line| terms.cut_off.admits(line.due_at) && !line.lacks_sales(terms.sales, terms.minimum_sales));
    positive.sort_by(|a, b| (a.occurred_at, &a.id).cmp(&(b.occurred_at, &b.id)));
    let Some(limit) = terms.limit else {
        lines.extend(positive);
        return Ok(lines);
    };
    let mut sum = total(&lines)?;
    for line in positive {
        let next = sum.plus(line.net()?)?;
        if next > limit {
            break;
        }
        sum = next;
        lines.push(line);
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversion::tests::minor;
    use crate::line::LineState;
    use crate::line::tests::{line, now};
    use jiff::SignedDuration;

    fn terms() -> Terms {
        Terms {
            cut_off: CutOff::UpTo(now()),
            limit: None,
            minimum: Some(minor(5_000)),
            suspended: false,
            excluded: false,
            has_method: true,
            tax: tax::Terms::Clear,
            sales: 0,
            minimum_sales: 0,
        }
    }

    /// Lines of these amounts, each a second younger than the one before, all due now.
    fn payable(amounts: &[i64]) -> Vec<Line> {
        let lines = (0..).zip(amounts).map(|(n, amount)| Line {
            occurred_at: now() + SignedDuration::from_secs(n),
            ..line(*amount, LineState::Payable, now())
        });
        lines.collect()
    }

    fn taken(amounts: &[i64], terms: &Terms) -> Result<Vec<i64>, CarriedBecause> {
        match select(payable(amounts), terms).unwrap() {
            Selection::Lines { lines, .. } => Ok(lines.iter().map(|line| line.amount.units()).collect()),
            Selection::Carried { because, .. } => Err(because),
        }
    }

    #[test]
    fn a_partner_is_carried_for_the_first_reason_that_applies() {
        use CarriedBecause::{
            BelowThreshold, Excluded, NegativeBalance, NoPayoutMethod, NothingPayable, PartnerSuspended, TaxFormMissing,
        };
        let blocked = |from| tax::Terms::Blocked { from: minor(from) };
        for (amounts, terms, expect) in [
            (&[5_000][..], terms(), Ok(vec![5_000])),
            (&[4_999], terms(), Err(BelowThreshold)),
            (&[4_999], Terms { minimum: None, ..terms() }, Ok(vec![4_999])),
            (&[1], Terms { minimum: Some(minor(0)), ..terms() }, Ok(vec![1])),
            (&[], terms(), Err(NothingPayable)),
            (&[0, 0], Terms { minimum: None, ..terms() }, Err(NothingPayable)),
            (&[1_000, -1_500], terms(), Err(NegativeBalance)),
            (&[1_000, -1_000], Terms { has_method: false, ..terms() }, Ok(vec![-1_000, 1_000])),
            (&[9_000], Terms { has_method: false, ..terms() }, Err(NoPayoutMethod)),
            (&[9_000], Terms { has_method: false, tax: blocked(9_000), ..terms() }, Err(TaxFormMissing)),
            (&[9_000], Terms { tax: blocked(9_001), ..terms() }, Ok(vec![9_000])),
            (&[4_000], Terms { tax: blocked(0), ..terms() }, Err(TaxFormMissing)),
            (&[1_000, -1_000], Terms { tax: blocked(0), ..terms() }, Ok(vec![-1_000, 1_000])),
            (&[-1_000], Terms { tax: blocked(0), ..terms() }, Err(NegativeBalance)),
            (&[9_000], Terms { suspended: true, tax: blocked(0), ..terms() }, Err(PartnerSuspended)),
            (&[9_000], Terms { excluded: true, has_method: false, ..terms() }, Err(Excluded)),
            (&[9_000], Terms { suspended: true, excluded: true, ..terms() }, Err(PartnerSuspended)),
        ] {
            assert_eq!(taken(amounts, &terms), expect, "{amounts:?}");
        }
    }

    #[test]
    fn the_cut_off_holds_back_earnings_and_never_debts() {
        let scheduled = Terms { cut_off: CutOff::Before(now()), minimum: None, ..terms() };
        assert_eq!(taken(&[5_000], &scheduled), Err(CarriedBecause::NothingPayable), "due at the cut-off itself");
        assert_eq!(taken(&[5_000, -10], &scheduled), Err(CarriedBecause::NegativeBalance));
        let later = Terms { cut_off: CutOff::Before(now() + SignedDuration::from_nanos(1)), ..scheduled };
        assert_eq!(taken(&[5_000, -10], &later), Ok(vec![-10, 5_000]));
    }

    #[test]
    fn too_few_sales_hold_back_earnings_and_never_debts() {
        let gated = |sales| Terms { sales, minimum_sales: 3, minimum: None, ..terms() };
        assert_eq!(taken(&[5_000], &gated(2)), Err(CarriedBecause::MinimumSales));
        assert_eq!(taken(&[5_000], &gated(3)), Ok(vec![5_000]));
        assert_eq!(taken(&[5_000, -10], &gated(2)), Err(CarriedBecause::NegativeBalance));
        let mut free = payable(&[5_000, 700]);
        free[1].minimum_sales = Some(0);
        let Selection::Lines { total, .. } = select(free, &gated(2)).unwrap() else { panic!() };
        assert_eq!(total, minor(700), "a rule may ask for other minimum sales");
    }

    #[test]
    fn a_requested_amount_takes_debts_then_the_oldest_and_is_never_exceeded() {
        let up_to = |limit| Terms { limit: Some(minor(limit)), minimum: None, ..terms() };
        assert_eq!(taken(&[400, 500, 300, -100], &up_to(800)), Ok(vec![-100, 400, 500]));
        assert_eq!(taken(&[400, 500, 300, -100], &up_to(799)), Ok(vec![-100, 400]));
        assert_eq!(taken(&[400, 500], &up_to(399)), Err(CarriedBecause::NothingPayable));
    }
}
