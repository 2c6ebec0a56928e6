//! Tax: what is asked of a partner's next payout, and whether that still holds before the money leaves.

pub mod filing;
pub mod forms;
pub mod totals;

use domain::ids::PayoutId;
use domain::money::{Minor, Money};
use domain::payout::{Payout, PayoutState};
use domain::program::{MethodKind, Partner, Program};
use domain::tax::{self, Payee, Position, Terms, YearRules, counted};
use jiff::{SignedDuration, Timestamp};
use store::{Departures, StoreError, TaxYear};

use crate::changes::STALE_TRIES;
use crate::context::Context;
use crate::error::Result;

const OPERATION: &str = "tax";
/// Payouts that are on their way for longer than this are not looked for.
const ON_THEIR_WAY: SignedDuration = SignedDuration::from_hours(366 * 24);

/// What tax asks of the partner's next payout by this method, as of now. Reads nothing where the program has no payer of taxes.
pub async fn terms(
    context: &Context,
    program: &Program,
    partner: &Partner,
    method: Option<MethodKind>,
) -> Result<Terms> {
    Ok(asked(context, program, partner, method, context.now(), None).await?.0)
}

/// How a payout leaves.
#[derive(Debug, Clone, Copy)]
pub struct Leaving {
    /// When it is paid.
    pub at: Timestamp,
    /// What else of the partner, before tax, leaves in the same moment.
    pub along: Minor,
}

/// A payout that is about to leave, and what leaves along with it: it is not on its way itself.
type Besides<'a> = Option<(&'a Payout, Minor)>;

/// What is asked, and which departures that is true after, where it depends on them.
async fn asked(
    context: &Context,
    program: &Program,
    partner: &Partner,
    method: Option<MethodKind>,
    at: Timestamp,
    besides: Besides<'_>,
) -> Result<(Terms, Option<Departures>)> {
    let Some(settings) = program.tax else { return Ok((Terms::Clear, None)) };
    let today = at.to_zoned(program.time_zone.time_zone()).date();
    let form = context.store.tax_form(OPERATION, &partner.id).await?;
    let payee = Payee::of(form.as_ref(), partner.country, today);
    let payer = match payee {
        // Their terms depend on nothing else.
        Payee::Identified | Payee::ForeignUndocumented => None,
        Payee::Foreign { .. } | Payee::Unidentified => context.store.payer(OPERATION).await?,
    };
    let years = payer.map(|payer| payer.years).unwrap_or_default();
    let rules = YearRules::of(today.year(), &years)?;
    let (position, departures) = match payee {
        Payee::Unidentified if !method.is_some_and(MethodKind::is_reported_by_processor) => {
            // Before what they count is looked at; a payout that is only drafted does not leave.
            let departures = match besides {
                Some(_) => Some(context.store.departures(OPERATION, &partner.id).await?),
                None => None,
            };
            (position(context, partner, &years, today.year(), besides).await?, departures)
        }
        _ => (Position::default(), None),
    };
    Ok((tax::terms(&payee, settings, &rules, &position, method)?, departures))
}

/// Where a partner without a tax number stands: nobody else's payments can be theirs.
async fn position(
    context: &Context,
    partner: &Partner,
    years: &[YearRules],
    year: i16,
    besides: Besides<'_>,
) -> Result<Position> {
    let of = |year| [(partner.id.clone(), year)];
    let (this, last) = (of(year), of(year - 1));
    let (store, counted) =
        (&context.store, |years: &[TaxYear]| years.first().map(|year| year.counted).unwrap_or_default());
    let paid = || async {
        let both = futures::try_join!(store.tax_years(OPERATION, &this), store.tax_years(OPERATION, &last));
        both.map(|(this_year, last_year)| (counted(&this_year), counted(&last_year)))
    };
    // A payout that is sent once more, after a part of it arrived, counts whole itself.
    let (along, own) = match besides {
        Some((payout, along)) => (along, arrived(payout)?),
        None => (Minor::ZERO, Minor::ZERO),
    };
    let mut before = paid().await?;
    for _ in 0..STALE_TRIES {
        let on_their_way = on_their_way(context, partner, besides.map(|(payout, _)| &payout.id)).await?;
        let after = paid().await?;
        // What arrived in between would be neither on its way nor paid.
        if before != after {
            before = after;
            continue;
        }
        let (this_year, last_year) = after;
        return Ok(Position {
            this_year: this_year.direct.minus(own)?.plus(on_their_way)?.plus(along)?,
            reported_last_year: last_year.is_reportable(&YearRules::of(year - 1, years)?),
        });
    }
    Err(StoreError::Contention.into())
}

/// What of a payout is known to have arrived, before tax, in all years.
fn arrived(payout: &Payout) -> Result<Minor> {
    Ok(Minor::total(counted(payout)?.values().map(|counted| counted.direct))?)
}

/// What has left, or may have, and is not known to have arrived: it will count for this year or the next.
async fn on_their_way(context: &Context, partner: &Partner, besides: Option<&PayoutId>) -> Result<Minor> {
    let since = context.now() - ON_THEIR_WAY;
    let (mut sum, mut after) = (Minor::ZERO, None);
    loop {
        let page = context.store.partner_payouts(OPERATION, &partner.id, after.as_deref(), 50).await?;
        for payout in &page.items {
            let under_way =
                matches!(payout.state, PayoutState::Submitting | PayoutState::Submitted | PayoutState::PartiallyPaid);
            if under_way && besides != Some(&payout.id) && !payout.method.is_reported_by_processor() {
                sum = sum.plus(payout.gross()?.minus(arrived(payout)?)?)?;
            }
        }
        let past = page.items.last().is_none_or(|last| last.created_at < since);
        after = page.after.filter(|_| !past);
        if after.is_none() {
            return Ok(sum);
        }
    }
}

/// Whether what a payout keeps back is still what tax asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Validity {
    /// Unless other payouts of the partner depart first, where that is said.
    Stands(Option<Departures>),
    /// It must be retallied under these terms, and approved again.
    Changed { terms: Terms, why: String },
    /// It must not be paid before there is a form.
    Blocked { why: String },
}

/// To be asked before the first byte of a payout leaves: a form may have ended since it was drafted, or come in, and other payouts may
/// have brought the partner to a limit. Reads nothing where the program has no payer of taxes.
pub async fn valid_for(
    context: &Context,
    program: &Program,
    partner: &Partner,
    payout: &Payout,
    leaving: Leaving,
) -> Result<Validity> {
    let besides = Some((payout, leaving.along));
    let (terms, departures) = asked(context, program, partner, Some(payout.method), leaving.at, besides).await?;
    let gross = payout.gross()?;
    let money = |amount| Money::new(amount, payout.currency);
    if terms.block(gross) {
        let why = "tax forbids to pay this before the partner gives a tax form: none is valid".to_owned();
        return Ok(Validity::Blocked { why });
    }
    let withheld = terms.withheld(gross)?;
    if withheld == payout.withheld {
        return Ok(Validity::Stands(departures));
    }
    let why = format!(
        "the partner's tax changed since it was drafted: {} is to be withheld, not {}",
        money(withheld),
        money(payout.withheld)
    );
    Ok(Validity::Changed { terms, why })
}
