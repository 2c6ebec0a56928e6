//! Exchange rates: told by files and fetched from sources, and looked up for a day.

use domain::exchange::ExchangeRate;
use domain::money::Currency;
use domain::rules::FieldError;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use rust_decimal::Decimal;
use store::{StoreError, ToldRate, Transaction};

use crate::context::Context;
use crate::error::{Refusal, Result};

const OPERATION: &str = "exchange rate";
/// A rate is good for its day and this many days after it: over weekends and holidays, and no longer.
const GOOD_DAYS: i64 = 7;
/// What is not told directly is computed through this one: central banks tell what one euro is worth.
const THROUGH: &str = "EUR";
/// No currency is worth more than this many of another.
const MAX_RATE: u64 = 1_000_000_000_000;

/// The day whose rate counts at a moment: that of UTC, whatever the program's time zone, since one table serves all programs.
pub fn day_of(moment: Timestamp) -> Date {
    moment.to_zoned(TimeZone::UTC).date()
}

/// The rate of a day: the last one published on it or within the 7 days before it. As it was told; else the reverse of the opposite rate;
/// else through the euro, dated by the older of the two rates. `None`: none of these is known.
pub async fn rate(context: &Context, from: Currency, to: Currency, date: Date) -> Result<Option<ExchangeRate>> {
    if let Some(direct) = either_way(context, from, to, date).await? {
        return Ok(Some(direct));
    }
    let through: Currency = THROUGH.parse().map_err(Refusal::from)?;
    if through == from || through == to {
        return Ok(None);
    }
    let (first, second) =
        (either_way(context, from, through, date).await?, either_way(context, through, to, date).await?);
    let (Some(first), Some(second)) = (first, second) else { return Ok(None) };
    let overflow = || Refusal::from(domain::money::MoneyError::Overflow);
    let source =
        if first.source == second.source { first.source } else { format!("{}, {}", first.source, second.source) };
    Ok(Some(ExchangeRate {
        from,
        to,
        rate: first.rate.checked_mul(second.rate).ok_or_else(overflow)?.normalize(),
        source,
        date: first.date.min(second.date),
    }))
}

async fn either_way(context: &Context, from: Currency, to: Currency, date: Date) -> Result<Option<ExchangeRate>> {
    if let Some(told) = last_told(context, from, to, date).await? {
        return Ok(Some(told));
    }
    let Some(opposite) = last_told(context, to, from, date).await? else { return Ok(None) };
    let reverse = Decimal::ONE.checked_div(opposite.rate);
    let reverse = reverse.ok_or_else(|| Refusal::from(domain::money::MoneyError::Overflow))?;
    Ok(Some(ExchangeRate { from, to, rate: reverse.normalize(), ..opposite }))
}

async fn last_told(context: &Context, from: Currency, to: Currency, date: Date) -> Result<Option<ExchangeRate>> {
    let told = context.store.last_rate(OPERATION, from, to, date).await?.map(|told| told.rate);
    let oldest = date.checked_sub(Span::new().days(GOOD_DAYS)).unwrap_or(date);
    Ok(told.filter(|rate| rate.date >= oldest))
}

/// What became of a rate that was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    New,
    /// It had been told, and was the same.
    Known,
}

/// Takes a rate into the table. A day's rate that was told otherwise is a contradiction: lines may have been rated by it.
pub async fn tell(context: &Context, rate: ExchangeRate, by: &str) -> Result<Taken> {
    check(context, &rate)?;
    let told = ToldRate { rate, told_by: by.to_owned(), told_at: context.now() };
    let mut transaction = Transaction::new(OPERATION);
    transaction.create_rate(&told)?;
    match context.store.commit(transaction).await {
        Ok(()) => Ok(Taken::New),
        Err(StoreError::Stale) => {
            let ExchangeRate { from, to, date, .. } = told.rate;
            let known = context.store.rate(OPERATION, from, to, date).await?.ok_or(StoreError::Stale)?;
            if known.rate.rate == told.rate.rate {
                return Ok(Taken::Known);
            }
            let why = format!(
                "{} told {} for {date} before; a rate that was told stays",
                known.rate.source,
                known.rate.rate.normalize()
            );
            Err(Refusal::invalid("/rate", why))
        }
        Err(error) => Err(error.into()),
    }
}

fn check(context: &Context, rate: &ExchangeRate) -> Result<()> {
    let mut errors = Vec::new();
    if rate.from == rate.to {
        errors.push(FieldError::new("/to", "is the currency itself"));
    }
    if rate.rate <= Decimal::ZERO || rate.rate > Decimal::from(MAX_RATE) {
        errors.push(FieldError::new("/rate", "must be more than zero and at most 10^12"));
    }
    if rate.date > day_of(context.now()) {
        errors.push(FieldError::new("/date", "lies in the future"));
    }
    if errors.is_empty() { Ok(()) } else { Err(Refusal::Invalid(errors)) }
}
