//! Selection: which payable lines a payout takes, or why a partner is carried over to the next run.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::balance::Balance;
use crate::line::{Line, StateName};
use crate::money::{Minor, MoneyError};
use crate::tax;

/// Lines one payout takes at most. The rest is paid by the next run.
pub const MAX_LINES: usize = 20_000;

/// What a run, and a request if there is one, say about paying a partner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    pub cut_off: CutOff,
    /// Since when earnings must have been payable, at the latest: what became so after the run was planned waits for the next.
    pub payable_by: Option<Timestamp>,
    /// A requested amount: at most this much.
    pub limit: Option<Minor>,
    /// The minimum payout, unless somebody decided that it does not matter this time.
    pub minimum: Option<Minor>,
    /// What does not reach the minimum is paid all the same if some of it has been payable since then or longer.
    pub swept_since: Option<Timestamp>,
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
    Lines {
        lines: Vec<Line>,
        total: Minor,
        /// It does not reach the minimum, and is paid because it has waited long enough.
        swept: bool,
    },
    Carried {
        because: CarriedBecause,
        payable: Minor,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
    // In the order in which balances name reasons.
    let unless_unpayable = |because| if terms.has_method { because } else { CarriedBecause::NoPayoutMethod };
    if total.is_negative() {
        let untaxed = terms.tax.block_every_cent() && all.is_positive();
        let owes = unless_unpayable(CarriedBecause::NegativeBalance);
        return carried(if untaxed { CarriedBecause::TaxFormMissing } else { owes });
    }
    if total.is_zero() && lines.iter().any(|line| line.amount.is_negative()) {
        // Debts and earnings cancel out: settled without a rail, so without a method or a minimum, too.
        return Ok(Selection::Lines { lines, total, swept: false });
    }
    if blocked && total.is_zero() && terms.tax.block_every_cent() {
        return carried(CarriedBecause::TaxFormMissing);
    }
    if total.is_zero() {
        let waits_for_sales = unless_unpayable(CarriedBecause::MinimumSales);
        return carried(if blocked { waits_for_sales } else { CarriedBecause::NothingPayable });
    }
    if terms.tax.block(total) {
        return carried(CarriedBecause::TaxFormMissing);
    }
    if !terms.has_method {
        return carried(CarriedBecause::NoPayoutMethod);
    }
    let below = terms.minimum.is_some_and(|minimum| total < minimum);
    let waited = |since| lines.iter().any(|line| line.amount.is_positive() && line.first_payable() <= since);
    if below && !terms.swept_since.is_some_and(waited) {
        return carried(CarriedBecause::BelowThreshold);
    }
    Ok(Selection::Lines { lines, total, swept: below })
}

/// How much a run writes off of what a partner owes: all of it, or nothing. Every debt must be as old as `since` or older, and nothing
/// else of the partner may be under way from which it could be taken: neither waiting, in review, held or in a payout, nor payable
/// beyond what the run takes.
pub fn write_off(
    payable: &[Line],
    balance: &Balance,
    terms: &Terms,
    since: Timestamp,
) -> Result<Option<Minor>, MoneyError> {
    const ELSEWHERE: [StateName; 4] = [StateName::Pending, StateName::Approved, StateName::Held, StateName::InPayout];
    let elsewhere = ELSEWHERE.into_iter().any(|state| balance.lines(state) != 0);
    let unseen = balance.lines(StateName::Payable) != i64::try_from(payable.len()).unwrap_or(i64::MAX);
    let fresh = payable.iter().any(|line| line.amount.is_negative() && line.due_at > since);
    if terms.suspended || terms.excluded || elsewhere || unseen || fresh {
        return Ok(None);
    }
    let taken = within(payable.to_vec(), terms)?;
    let total = total(&taken)?;
    Ok((taken.len() == payable.len() && total.is_negative()).then_some(total.negated()))
}

fn total(lines: &[Line]) -> Result<Minor, MoneyError> {
    Minor::total(lines.iter().map(Line::net).collect::<Result<Vec<_>, _>>()?)
}

/// Every negative line whatever the cut-off, with what writes debts off, and the positive ones up to it that were payable in time; with a requested amount the oldest of those,
/// stopping before it would be exceeded.
fn within(payable: Vec<Line>, terms: &Terms) -> Result<Vec<Line>, MoneyError> {
    let (mut lines, mut positive): (Vec<_>, Vec<_>) = payable.into_iter().partition(Line::settles_debts);
    positive.retain(|line| {
        terms.cut_off.admits(line.due_at)
            && line.is_payable_by(terms.payable_by)
            && !line.lacks_sales(terms.sales, terms.minimum_sales)
    });
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
            payable_by: None,
            limit: None,
            minimum: Some(minor(5_000)),
            suspended: false,
            excluded: false,
            has_method: true,
            tax: tax::Terms::Clear,
            sales: 0,
            minimum_sales: 0,
            swept_since: None,
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
            (&[1_000, -1_500], Terms { has_method: false, ..terms() }, Err(NoPayoutMethod)),
            (&[1_000, -1_000], Terms { has_method: false, ..terms() }, Ok(vec![-1_000, 1_000])),
            (&[9_000], Terms { has_method: false, ..terms() }, Err(NoPayoutMethod)),
            (&[9_000], Terms { has_method: false, tax: blocked(9_000), ..terms() }, Err(TaxFormMissing)),
            (&[9_000], Terms { tax: blocked(9_001), ..terms() }, Ok(vec![9_000])),
            (&[4_000], Terms { tax: blocked(0), ..terms() }, Err(TaxFormMissing)),
            (&[1_000, -1_000], Terms { tax: blocked(0), ..terms() }, Ok(vec![-1_000, 1_000])),
            (&[-1_000], Terms { tax: blocked(0), ..terms() }, Err(NegativeBalance)),
            (&[10_000, -1_000], Terms { minimum_sales: 1, tax: blocked(0), ..terms() }, Err(TaxFormMissing)),
            (&[10_000, -1_000], Terms { minimum_sales: 1, tax: blocked(1), ..terms() }, Err(NegativeBalance)),
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
    fn what_became_payable_after_the_run_was_planned_waits_and_debts_do_not() {
        let later = now() + SignedDuration::from_secs(1);
        let planned = |by| Terms { payable_by: Some(by), minimum: None, ..terms() };
        let mut lines = payable(&[5_000, 700, -10, -20]);
        for line in &mut lines[1..3] {
            line.back_at = Some(later);
        }
        let total = |terms: &Terms| match select(lines.clone(), terms).unwrap() {
            Selection::Lines { total, .. } => total.units(),
            Selection::Carried { because, .. } => panic!("{because:?}"),
        };
        assert_eq!(total(&planned(now())), 4_970);
        assert_eq!(total(&planned(later)), 5_670, "the moment itself counts");
        assert_eq!(total(&Terms { minimum: None, ..terms() }), 5_670);
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

    #[test]
    fn dust_is_swept_once_the_oldest_of_it_has_been_payable_long_enough() {
        let since = |seconds| Terms { swept_since: Some(now() + SignedDuration::from_secs(seconds)), ..terms() };
        let swept = |amounts: &[i64], terms: &Terms| match select(payable(amounts), terms).unwrap() {
            Selection::Lines { swept, total, .. } => Some((swept, total.units())),
            Selection::Carried { .. } => None,
        };
        assert_eq!(swept(&[300], &since(-1)), None);
        assert_eq!(swept(&[300], &since(0)), Some((true, 300)), "the moment itself counts");
        assert_eq!(swept(&[5_000], &since(0)), Some((false, 5_000)), "what reaches the minimum needs no policy");
        assert_eq!(swept(&[300, -400], &since(0)), None, "a debt is no dust");
        let mut late = payable(&[300]);
        late[0].approved_at = Some(now() + SignedDuration::from_secs(9));
        let carried = select(late, &since(8)).unwrap();
        assert!(matches!(carried, Selection::Carried { .. }), "it is not payable before it is approved");
    }

    #[test]
    fn a_debt_is_written_off_whole_when_it_is_old_and_nothing_else_is_under_way() {
        let balance = |lines: &[Line]| {
            let mut balance = Balance::default();
            for line in lines {
                balance.apply(&Balance::of_line(line).unwrap()).unwrap();
            }
            balance
        };
        let given_up = |lines: &[Line], terms: &Terms, since| {
            let all = balance(lines);
            let payable: Vec<_> = lines.iter().filter(|line| line.state == LineState::Payable).cloned().collect();
            write_off(&payable, &all, terms, since).unwrap().map(Minor::units)
        };
        let debts = payable(&[300, -400, -50]);
        assert_eq!(given_up(&debts, &terms(), now()), Some(150));
        assert_eq!(given_up(&debts, &terms(), now() - SignedDuration::from_nanos(1)), None, "too fresh");
        assert_eq!(given_up(&payable(&[300]), &terms(), now()), None);
        assert_eq!(given_up(&payable(&[400, -400]), &terms(), now()), None, "that nets by itself");
        let suspended = Terms { suspended: true, ..terms() };
        assert_eq!(given_up(&debts, &suspended, now()), None);
        for state in [LineState::Pending, LineState::Approved, LineState::Held { reviewed: true, why: "?".into() }] {
            let more = [debts.clone(), vec![line(10, state, now())]].concat();
            assert_eq!(given_up(&more, &terms(), now()), None, "the partner may still earn what is owed");
        }
        let mut later = debts.clone();
        later[0].due_at = now() + SignedDuration::from_secs(60);
        assert_eq!(given_up(&later, &terms(), now()), None, "the next run may take it from what this one does not");
    }
}
