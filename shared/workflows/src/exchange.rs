//! Exchange rates: told by files, fetched from a source, and looked up for a day.

use domain::exchange::{ExchangeRate, rate_of_day};
use domain::money::Currency;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use store::{ToldRate, Transaction};

use crate::changes::until_fresh;
use crate::context::Context;
use crate::error::{Refusal, Result};

/// A rate is good for its day and this many days after it: over weekends and holidays, and no longer.
pub const GOOD_DAYS: u8 = 7;

/// The day whose rate counts at a moment: that of UTC, whatever the program's time zone, since one table serves all programs.
pub fn day_of(moment: Timestamp) -> Date {
    moment.to_zoned(TimeZone::UTC).date()
}

/// The rate that counts on a day: that of the latest day, it or one of the seven before, for which one is told or follows from what is
/// ([`rate_of_day`]). Costs one read for each day looked at.
pub async fn rate(
    context: &Context,
    operation: &'static str,
    from: Currency,
    to: Currency,
    day: Date,
) -> Result<Option<ExchangeRate>> {
    for back in 0..=GOOD_DAYS {
        let Ok(date) = day.checked_sub(Span::new().days(back)) else { break };
        let told = context.store.rates_of_day(operation, date).await?;
        let told: Vec<_> = told.into_iter().map(|told| told.rate).collect();
        if let Some(rate) = rate_of_day(&told, from, to) {
            return Ok(Some(rate));
        }
    }
    Ok(None)
}

/// What became of a rate that was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    New,
    /// It had been told, and was the same.
    Known,
}

/// Takes a rate into the table. Another one for a day that was told is a contradiction, whoever told it: commissions may have been rated
/// by it.
pub async fn tell(context: &Context, rate: ExchangeRate, by: &str) -> Result<Taken> {
    const OPERATION: &str = "tell exchange rate";
    let ExchangeRate { date, from, to, .. } = rate;
    until_fresh(async || {
        let Some(known) = context.store.rate(OPERATION, date, from, to).await? else {
            let told = ToldRate { rate: rate.clone(), told_by: by.to_owned(), told_at: context.now() };
            let mut transaction = Transaction::new(OPERATION);
            transaction.create_rate(&told)?;
            context.store.commit(transaction).await?;
            return Ok(Taken::New);
        };
        let known = known.rate;
        if known.rate == rate.rate {
            return Ok(Taken::Known);
        }
        let why = format!("contradicts what {} told for that day, {known}: what was told stays", known.source);
        Err(Refusal::invalid("/rate", why))
    })
    .await
}
