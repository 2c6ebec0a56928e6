//! Export batches: approved payouts that are paid by a file of PayPal, Wise or a bank.
//!
//! A batch takes what is approved, of its payment type, and in no batch yet; page by page, each page one transaction that
//! writes the rows and moves their payouts to `submitted`. So a payout is in exactly one batch, whoever exports at the same
//! time, and a batch that stops half-way goes on where it stopped. Nothing here marks a payout paid.

use std::collections::{BTreeMap, BTreeSet};

use domain::ids::{ExportId, PartnerId, ProgramId};
use domain::journal::{Entry, What};
use domain::money::Minor;
use domain::payout::{PAGE_LINES, Payout, PayoutState};
use domain::program::{Partner, Program};
use domain::remittance::{Remittance, RemittanceFormat};
use store::{
    Departures, Export, ExportPage, ExportProgress, ExportRow, LeftOut, LeftOutBecause, StoreError, Transaction,
    UnpaidPosition, Whose,
};

use crate::changes::until_fresh;
use crate::context::Context;
use crate::error::{Refusal, Result};
use crate::files::{Delivered, Files, Outgoing};
use crate::tax::Leaving;

const OPERATION: &str = "export";
/// Payouts on a page of rows: one transaction moves them all, and each costs it one of a hundred actions.
const PAGE_PAYOUTS: usize = PAGE_LINES;
/// The same where each may cost it two, as its partner's departures change with it.
const TAXED_PAGE_PAYOUTS: usize = PAGE_PAYOUTS / 2;
/// Pages read at once where a file is written.
const READ_PAGES: i32 = 10;

/// A request for a batch. The same program, format and key are the same batch.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub key: &'a str,
    pub program: &'a ProgramId,
    pub format: RemittanceFormat,
    pub whose: Whose,
}

/// Makes the batch, or goes on with it, for as long as there is time. What is left then is done by the next tick of `batch-payouts`.
pub async fn export(context: &Context, asked: &Asked<'_>, by: &str, time_left: impl Fn() -> bool) -> Result<Export> {
    let id = ExportId::derive(asked.program, asked.format.as_str(), asked.key);
    let new = Export {
        id: id.clone(),
        program: asked.program.clone(),
        format: asked.format,
        whose: asked.whose,
        created_at: context.now(),
        created_by: by.to_owned(),
        progress: ExportProgress::Gathering { after: UnpaidPosition::default() },
        pages: 0,
        entries: 0,
        payouts: 0,
        left_out: 0,
        files: Vec::new(),
        changes: 1,
    };
    let mut transaction = Transaction::new(OPERATION);
    transaction.create_export(&new)?;
    match context.store.commit(transaction).await {
        Ok(()) | Err(StoreError::Stale) => {}
        Err(error) => return Err(error.into()),
    }
    gather(context, &id, time_left).await
}

/// Goes on with a batch until all that waited is in it.
pub async fn gather(context: &Context, id: &ExportId, time_left: impl Fn() -> bool) -> Result<Export> {
    loop {
        let (export, gathered) = until_fresh(|| next_page(context, id)).await?;
        if gathered || !time_left() {
            return Ok(export);
        }
    }
}

/// Writes one page. Whether it was the last.
async fn next_page(context: &Context, id: &ExportId) -> Result<(Export, bool)> {
    let read = context.store.export(OPERATION, id).await?.ok_or(Refusal::NotFound("export"))?;
    let ExportProgress::Gathering { after } = &read.progress else { return Ok((read, true)) };
    let program = context.store.program(OPERATION, &read.program).await?.ok_or(Refusal::NotFound("program"))?;
    let mut fits: Vec<(Payout, Partner)> = Vec::new();
    let mut next = Some(after.clone());
    let most = if program.tax.is_some() { TAXED_PAGE_PAYOUTS } else { PAGE_PAYOUTS };
    while fits.len() < most
        && let Some(at) = next
    {
        // Read no further than the page can take, so that the position is that of the last payout taken in.
        let room = i32::try_from(most - fits.len()).unwrap_or(i32::MAX);
        let (payouts, then) = context.store.unpaid_payouts(OPERATION, &at, room).await?;
        fits.extend(fitting(context, &read, payouts).await?);
        next = then;
    }
    let mut export = Export { changes: read.changes + 1, ..read.clone() };
    export.progress = match next {
        Some(after) => ExportProgress::Gathering { after },
        None => ExportProgress::Complete,
    };
    let gathered = export.progress == ExportProgress::Complete;
    let mut transaction = Transaction::new(OPERATION);
    if !fits.is_empty() {
        write_page(context, &mut transaction, &mut export, &program, fits).await?;
    }
    transaction.replace_export(&export, &read)?;
    context.store.commit(transaction).await?;
    Ok((export, gathered))
}

/// The payouts that the batch is to take, with their partners.
async fn fitting(context: &Context, export: &Export, payouts: Vec<Payout>) -> Result<Vec<(Payout, Partner)>> {
    let method = export.format.method();
    let waits = |payout: &Payout| {
        payout.program == export.program
            && payout.state == PayoutState::Approved
            && payout.method == method
            && payout.export.is_none()
    };
    let payouts: Vec<_> = payouts.into_iter().filter(waits).collect();
    let ids: BTreeSet<_> = payouts.iter().map(|payout| payout.partner.clone()).collect();
    let ids: Vec<_> = ids.into_iter().collect();
    let partners = if ids.is_empty() { Vec::new() } else { context.store.partners_by_id(OPERATION, &ids).await? };
    let partners: BTreeMap<PartnerId, Partner> =
        partners.into_iter().map(|partner| (partner.id.clone(), partner)).collect();
    let with_partner = |payout: Payout| {
        let partner = partners.get(&payout.partner)?.clone();
        let prefers = partner.preferred_method().is_some_and(|preferred| preferred.kind == method);
        (export.whose == Whose::All || prefers).then_some((payout, partner))
    };
    Ok(payouts.into_iter().filter_map(with_partner).collect())
}

async fn write_page(
    context: &Context,
    transaction: &mut Transaction,
    export: &mut Export,
    program: &Program,
    fits: Vec<(Payout, Partner)>,
) -> Result<()> {
    let now = context.now();
    let mut page =
        ExportPage { export: export.id.clone(), number: export.pages, rows: Vec::new(), left_out: Vec::new() };
    let mut entry = Entry::new(export.id.as_str(), export.entries + 1, now, &export.created_by, What::Submit);
    let mut moved = Vec::new();
    // The page leaves as one: what tax asks of a payout depends on those of the same partner that go with it.
    let mut along: BTreeMap<PartnerId, Minor> = BTreeMap::new();
    for (payout, partner) in fits {
        let along = along.entry(partner.id.clone()).or_default();
        match row(context, export.format, &payout, &partner, program, *along).await? {
            Err(left_out) => page.left_out.push(left_out),
            Ok((row, departures)) => {
                // Once for all of the partner.
                if let Some(departures) = departures
                    && along.is_zero()
                {
                    transaction.departs(&departures)?;
                }
                *along = along.plus(payout.gross()?)?;
                let mut submitted = payout.clone().submit_in(&export.id, now)?;
                submitted.entries += 1;
                entry = entry.with_payout(Some(&payout), &submitted);
                moved.push((payout, submitted));
                page.rows.push(row);
            }
        }
    }
    export.take_in(&page);
    transaction.create_export_page(&page)?;
    if moved.is_empty() {
        return Ok(());
    }
    let sealed = entry.seal(&mut [])?;
    for (payout, mut submitted) in moved {
        submitted.entry = sealed.at.clone();
        transaction.replace_payout(&submitted, &payout)?;
    }
    transaction.entry(&sealed)?;
    Ok(())
}

/// A payout as its row and the departures of its partner that it follows, or why it must stay.
async fn row(
    context: &Context,
    format: RemittanceFormat,
    payout: &Payout,
    partner: &Partner,
    program: &Program,
    along: Minor,
) -> Result<Result<(ExportRow, Option<Departures>), LeftOut>> {
    let left_out = |because, detail: String| LeftOut { payout: payout.id.clone(), because, detail };
    let now = context.now();
    let destination = match payout.sendable(partner, program, now) {
        Ok(destination) => destination,
        Err(why) => return Ok(Err(left_out(LeftOutBecause::MayNotSubmit, why.to_string()))),
    };
    let departures =
        match crate::payouts::tax_stands(context, program, partner, payout, Leaving { at: now, along }).await {
            Ok(departures) => departures,
            Err(why @ (Refusal::Illegal(_) | Refusal::Stale(_))) => {
                return Ok(Err(left_out(LeftOutBecause::MayNotSubmit, why.to_string())));
            }
            Err(refusal) => return Err(refusal),
        };
    let pays = payout.pays()?;
    let made = format.row(&Remittance {
        payout: payout.id.as_str(),
        number: &payout.id.number(),
        program: &program.name,
        partner: partner.id.as_str(),
        details: &destination.details,
        pays,
        source_currency: payout.currency,
        approved_at: payout.approved_at,
    });
    Ok(match made {
        Ok(cells) => Ok((ExportRow { payout: payout.id.clone(), currency: pays.currency, cells }, departures)),
        Err(unfit) => Err(left_out(unfit.into(), unfit.to_string())),
    })
}

/// One of the batch's files: the same bytes whenever it is asked for.
pub async fn file(context: &Context, files: &Files, id: &ExportId, number: usize) -> Result<Delivered> {
    let export = context.store.export(OPERATION, id).await?.ok_or(Refusal::NotFound("export"))?;
    if export.progress != ExportProgress::Complete {
        return Err(Refusal::Illegal("the export is still being gathered; ask again in a moment".to_owned()));
    }
    let file = export.files.get(number).ok_or(Refusal::NotFound("file"))?;
    let name = format!("{}-{number}.csv", export.id);
    let mut outgoing = Outgoing::new(context, files, &name);
    if let Some(heading) = export.format.heading() {
        outgoing.row(heading).await?;
    }
    let (mut next, mut skip, mut left) = (file.page, file.skip, file.rows);
    while left > 0 && next < export.pages {
        let pages = context.store.export_pages(OPERATION, id, next, READ_PAGES).await?;
        let Some(last) = pages.last() else { break };
        next = last.number + 1;
        for row in pages.iter().flat_map(|page| &page.rows) {
            if file.currency.is_some_and(|currency| currency != row.currency) {
                continue;
            }
            if skip > 0 {
                skip -= 1;
            } else if left > 0 {
                outgoing.row(&row.cells).await?;
                left -= 1;
            }
        }
    }
    if left > 0 {
        return Err(Refusal::Store(StoreError::Corrupt(format!("{id} lacks {left} rows of file {number}"))));
    }
    outgoing.finish().await
}
