//! What people write themselves: another amount for a line, and bonuses.

use std::collections::BTreeMap;

use domain::booking::State;
use domain::ids::{LineId, PayoutId};
use domain::journal::{Adjusted, Change, Entry, What};
use domain::line::{Line, LineError};
use domain::money::Minor;
use domain::payout::OpenPayout;
use domain::program::{Partner, Program};
use jiff::Timestamp;
use store::{StoreError, Transaction};

use crate::changes::{OpenPayouts, until_fresh, write};
use crate::context::{Beginning, Context};
use crate::error::{Refusal, Result};
use crate::history::{History, Step};
use crate::ingest::MAX_LINES;

const ADJUST: &str = "adjust line";
const BONUS: &str = "bonus";

/// Sets another gross amount. While its payout, if it is in one, may still change, the line itself changes; afterwards another line is
/// written with the difference. Returns the line that changed or was written. With `seen`, only while the line is of this version.
pub async fn adjust(
    context: &Context,
    id: &LineId,
    seen: Option<u32>,
    gross: Minor,
    why: &str,
    by: &str,
) -> Result<Line> {
    until_fresh(|| async {
        let line = context.store.line(ADJUST, id).await?.ok_or(Refusal::NotFound("commission"))?;
        Refusal::unless_seen(seen, line.version)?;
        line.unless_fixed()?;
        let now = context.now();
        match &line.conversion {
            Some(conversion) => {
                let history = History::read(context, ADJUST, conversion).await?;
                Box::pin(of_conversion(context, &history, &line, gross, why, by, now)).await
            }
            None => of_bonus(context, &line, gross, why, by, now).await,
        }
    })
    .await
}

/// The lines of one origin after the adjustment, and which of them it is.
pub(crate) fn adjusted(
    lines: &[Line],
    id: &LineId,
    gross: Minor,
    by: &str,
    open: &BTreeMap<PayoutId, OpenPayout>,
    now: Timestamp,
) -> Result<(Vec<Line>, LineId)> {
    let line = lines.iter().find(|line| line.id == *id).ok_or(Refusal::NotFound("commission"))?;
    let token = line.payout().and_then(|(payout, _)| open.get(payout));
    let mut after = lines.to_vec();
    match line.clone().adjust(gross, by, token) {
        Ok(changed) => {
            for other in after.iter_mut().filter(|other| other.id == *id) {
                *other = changed.clone();
            }
            Ok((after, id.clone()))
        }
        Err(error @ (LineError::PayoutClosed | LineError::Illegal { .. })) if line.payout().is_none() => {
            Err(error.into())
        }
        Err(LineError::PayoutClosed | LineError::Illegal { .. } | LineError::BadAdjustment(_))
            if line.payout().is_some() =>
        {
            let earlier = || lines.iter().filter(|other| other.of.as_ref() == Some(id));
            let present = Minor::total([line.amount].into_iter().chain(earlier().map(|other| other.amount)))?;
            if token.is_some() {
                return Err(LineError::BadAdjustment(line.amount_money()).into());
            }
            let written = line.adjustment(gross, present, by, earlier().count() + 1, now)?;
            let id = written.id.clone();
            after.push(written);
            Ok((after, id))
        }
        Err(error) => Err(error.into()),
    }
}

async fn of_conversion(
    context: &Context,
    history: &History,
    line: &Line,
    gross: Minor,
    why: &str,
    by: &str,
    now: Timestamp,
) -> Result<Line> {
    let store = &context.store;
    let program = store.program(ADJUST, &line.program).await?.ok_or(Refusal::NotFound("program"))?;
    let order = history.order()?.ok_or_else(|| StoreError::Corrupt(format!("{} has no sale", line.id)))?;
    let lines = history.lines(context, ADJUST).await?;
    let open = OpenPayouts::of(store, ADJUST, &lines).await?;
    open.settle_first(context).await?;
    let (decided, id) = adjusted(&lines, &line.id, gross, by, &open.tokens, now)?;
    let position = history.next_position();
    let mut entry = Entry::new(line.stream(), position, now, by, What::Adjust);
    entry.why = Some(why.to_owned());
    entry.adjusted = Some(Adjusted { line: line.id.clone(), amount: gross });
    let conversion = line.conversion.as_ref().ok_or(Refusal::NotFound("conversion"))?;
    let state = State { order: Some(&order), attribution: history.attribution() };
    let step = Step {
        operation: ADJUST,
        program: &program,
        conversion,
        order: line.order.as_deref().unwrap_or_default(),
        before: state,
        after: state,
        lines: &lines,
        decided,
        accruing: None,
        open: &open,
        unless_rewarded: None,
        received_at: now,
        now,
    };
    let written = step.write(context, Transaction::new(ADJUST), entry, MAX_LINES).await?;
    let changed = written.lines.into_iter().find(|line| line.id == id);
    changed.ok_or_else(|| StoreError::Corrupt(format!("{id} did not change")).into())
}

async fn of_bonus(context: &Context, line: &Line, gross: Minor, why: &str, by: &str, now: Timestamp) -> Result<Line> {
    let store = &context.store;
    let chain = store.chain(ADJUST, line.stream()).await?;
    let created = chain.iter().flat_map(|sealed| &sealed.entry.lines).filter(|change| change.from.is_none());
    let ids: Vec<_> = created.map(|change| change.id.clone()).collect();
    let lines = store.lines(ADJUST, &ids).await?;
    let open = OpenPayouts::of(store, ADJUST, &lines).await?;
    open.settle_first(context).await?;
    let (after, id) = adjusted(&lines, &line.id, gross, by, &open.tokens, now)?;
    let position = chain.last().map_or(1, |sealed| sealed.entry.position + 1);
    let mut entry = Entry::new(line.stream(), position, now, by, What::Adjust);
    entry.why = Some(why.to_owned());
    entry.adjusted = Some(Adjusted { line: line.id.clone(), amount: gross });
    let changes = domain::reversal::changes(&lines, after);
    entry.note_seen(&lines, &changes);
    let written = write(store, Transaction::new(ADJUST), ADJUST, entry, changes, &open).await?;
    for payout in &written.cancelled {
        crate::payouts::follow_later(context, payout).await;
    }
    let changed = written.lines.into_iter().find(|line| line.id == id);
    changed.ok_or_else(|| StoreError::Corrupt(format!("{id} did not change")).into())
}

/// A line for no conversion: a bonus, or what a person takes back. It may have been written before by the same request.
pub async fn bonus(
    context: &Context,
    program: &Program,
    partner: &Partner,
    amount: Minor,
    why: &str,
    by: &str,
    begun: &Beginning,
) -> Result<Line> {
    let now = begun.at;
    let origin = format!("bonus:{}", begun.uuid);
    let line = Line::bonus(partner, program.currency, amount, &origin, by, now);
    if begun.again
        && let Some(written) = context.store.line(BONUS, &line.id).await?
    {
        return Ok(written);
    }
    let mut entry = Entry::new(line.stream(), 1, now, by, What::Bonus);
    entry.why = Some(why.to_owned());
    let changes = vec![Change::new(line)];
    let written =
        write(&context.store, Transaction::new(BONUS), BONUS, entry, changes, &OpenPayouts::default()).await?;
    written.lines.into_iter().next().ok_or_else(|| StoreError::Corrupt("a bonus was not written".to_owned()).into())
}
