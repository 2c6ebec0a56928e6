//! Every night, and when somebody asks: what QuickBooks has against what is here. Each difference is looked into at once; what remains is an
//! exception with both sides. Bills that name a payout which does not know them are told, too.

use std::collections::{BTreeMap, BTreeSet};

use domain::ids::PayoutId;
use domain::money::{Minor, Money};
use domain::payout::{Payout, PayoutState};
use jiff::{SignedDuration, Timestamp};
use quickbooks::{Bill, Change, Changes, Entity, Query};
use serde::Serialize;
use store::{
    ExceptionCode, QuickbooksBill, QuickbooksConnection, QuickbooksDay, QuickbooksDifference, QuickbooksKind,
    QuickbooksReport, QuickbooksState, StoreError, Transaction, UnpaidPosition,
};

use super::Failed;
use super::bills::minor_of;
use super::connection::{company, connected};
use super::session::Session;
use crate::context::Context;
use crate::error::{Refusal, Result};
use crate::exceptions::file_in;
use crate::queues::SubmissionPayout;
use crate::rails::{Rails, attend};

const OPERATION: &str = "reconcile quickbooks";
/// Payouts compared in one query.
const PAGE: i32 = 100;
/// Differences and orphans told in one report; all are exceptions.
const TOLD: usize = 200;
/// Changes can be asked for 30 days back.
const CHANGES_BACK: SignedDuration = SignedDuration::from_hours(24 * 29);
/// Clocks differ, and what changes while changes are read is read again.
const OVERLAP: SignedDuration = SignedDuration::from_mins(10);

/// What a night's run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reconciled {
    pub companies: usize,
    pub compared: usize,
    pub differing: usize,
    pub orphans: usize,
    /// Companies that could not be reached, or not to the end.
    pub failed: usize,
}

/// All companies that can be reached. One whose subscription ended is tried: it may have been renewed.
pub async fn reconcile_all(context: &Context, rails: &Rails, time_left: impl Fn() -> bool) -> Result<Reconciled> {
    let mut done = Reconciled::default();
    let mut after: Option<String> = None;
    loop {
        let page = context.store.quickbooks_connections(OPERATION, after.as_deref(), 50).await?;
        for connection in &page.items {
            if !matches!(connection.state, QuickbooksState::Connected | QuickbooksState::Suspended) {
                continue;
            }
            done.companies += 1;
            match Box::pin(reconcile(context, rails, &connection.realm, &time_left)).await {
                Ok(report) => {
                    done.compared += report.compared as usize;
                    done.differing += report.differing.len();
                    done.orphans += report.orphans.len();
                    done.failed += usize::from(!report.finished);
                }
                Err(error) => {
                    tracing::error!(realm = connection.realm, %error, "not reconciled");
                    done.failed += 1;
                }
            }
        }
        after = page.after;
        if after.is_none() {
            return Ok(done);
        }
    }
}

/// One company.
pub async fn reconcile(
    context: &Context,
    rails: &Rails,
    realm: &str,
    time_left: &impl Fn() -> bool,
) -> Result<QuickbooksReport> {
    let connection = context.store.quickbooks_connection(OPERATION, realm).await?;
    let connection = connection.ok_or(Refusal::NotFound("connection to QuickBooks"))?;
    if !matches!(connection.state, QuickbooksState::Connected | QuickbooksState::Suspended) {
        return Err(Refusal::Illegal("the company is not connected".to_owned()));
    }
    let now = context.now();
    let since = connection.seen_until.max(now - CHANGES_BACK);
    let session = Session::open(context, &rails.quickbooks, realm).await?;
    let company = company(&session).await?;
    if connection.state == QuickbooksState::Suspended {
        back_again(context, &connection).await?;
    }
    let report = QuickbooksReport {
        realm: realm.to_owned(),
        at: now,
        since,
        finished: false,
        compared: 0,
        differing: Vec::new(),
        orphans: Vec::new(),
        days: Vec::new(),
        slowest_submission_seconds: None,
    };
    let mut run = Run { context, rails, session, report, days: BTreeMap::new(), seen: BTreeSet::new() };
    Box::pin(run.changed(since)).await?;
    let finished = Box::pin(run.open(time_left)).await?;
    let mut report = run.report;
    report.finished = finished;
    report.days = run.days.into_values().collect();
    keep(context, &report, &connection, company, now).await?;
    Ok(report)
}

async fn back_again(context: &Context, connection: &QuickbooksConnection) -> Result<()> {
    connected(context, &connection.realm, |read, _| QuickbooksConnection {
        state: QuickbooksState::Connected,
        why: None,
        trouble: None,
        version: read.map_or(1, |read| read.version + 1),
        ..read.unwrap_or(connection).clone()
    })
    .await
    .map(drop)
}

struct Run<'a> {
    context: &'a Context,
    rails: &'a Rails,
    session: Session<'a>,
    report: QuickbooksReport,
    days: BTreeMap<(jiff::civil::Date, String), QuickbooksDay>,
    /// Payouts looked at because something of theirs changed.
    seen: BTreeSet<PayoutId>,
}

impl Run<'_> {
    /// What changed since then: its payouts are looked at, and Bills that nobody knows are told.
    async fn changed(&mut self, since: Timestamp) -> Result<(), Failed> {
        let mut changes = self.session.changes_since(since).await?;
        if changes.is_cut {
            self.cut(&mut changes, since).await?;
        }
        let mut payouts = BTreeSet::new();
        for change in &changes.bills {
            let (Change::Is(Bill { id, .. }) | Change::Deleted { id }) = change;
            let owners = self.owners(QuickbooksKind::Bill, id).await?;
            if let (Change::Is(bill), true) = (change, owners.is_empty()) {
                self.orphan(bill).await?;
            }
            payouts.extend(owners);
        }
        for change in &changes.payments {
            let id = match change {
                Change::Is(payment) => {
                    for bill in payment.bills() {
                        payouts.extend(self.owners(QuickbooksKind::Bill, bill).await?);
                    }
                    &payment.id
                }
                Change::Deleted { id } => id,
            };
            payouts.extend(self.owners(QuickbooksKind::Payment, id).await?);
        }
        for id in payouts {
            self.look(&id).await?;
            self.seen.insert(id);
        }
        Ok(())
    }

    /// More changed than one answer holds. What is there is read page by page; what is gone, from a time so short that it is told whole:
    /// an older deletion of an open Bill is found when open payouts are compared.
    async fn cut(&self, changes: &mut Changes, since: Timestamp) -> Result<(), Failed> {
        let now = self.context.now();
        let mut window = now.duration_since(since);
        while changes.is_cut && window > OVERLAP {
            window /= 2;
            *changes = self.session.changes_since(now - window).await?;
        }
        let from = since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let bills = Query::of(Bill::NAME).at_least("MetaData.LastUpdatedTime", &from).ordered_by("Id");
        changes.bills.retain(|change| matches!(change, Change::Deleted { .. }));
        changes.bills.extend(self.session.query::<Bill>(&bills).await?.into_iter().map(Change::Is));
        let payments =
            Query::of(quickbooks::BillPayment::NAME).at_least("MetaData.LastUpdatedTime", &from).ordered_by("Id");
        changes.payments.retain(|change| matches!(change, Change::Deleted { .. }));
        changes.payments.extend(self.session.query(&payments).await?.into_iter().map(Change::Is));
        Ok(())
    }

    async fn owners(&self, kind: QuickbooksKind, id: &str) -> Result<BTreeSet<PayoutId>> {
        let owners = self.context.store.quickbooks_owners(OPERATION, &self.session.realm, kind, id).await?;
        Ok(owners.iter().filter_map(|owner| owner.parse().ok()).collect())
    }

    async fn look(&self, id: &PayoutId) -> Result<()> {
        // It has its turn already: the report is read beside others that call.
        let asked = SubmissionPayout { id: id.clone(), slot: Some(self.context.now()) };
        Box::pin(attend(self.context, self.rails, &asked)).await.map(drop)
    }

    /// A Bill that names a payout which does not know it.
    async fn orphan(&mut self, bill: &Bill) -> Result<()> {
        let note = bill.private_note.as_deref().unwrap_or_default();
        let named = note.rsplit_once('[').and_then(|(_, rest)| rest.split_once(']'));
        let Some(payout) = named.and_then(|(id, _)| id.parse::<PayoutId>().ok()) else { return Ok(()) };
        let known = self.context.store.payout(OPERATION, &payout).await?;
        // One that is being made, under the payout's own number, may not be known for a moment.
        let number = bill.doc_number.as_deref();
        if known.as_ref().is_some_and(|payout| {
            payout.state == PayoutState::Submitting && number == Some(payout.id.number().as_str())
        }) {
            return Ok(());
        }
        let total = bill.total_amt.unwrap_or_default().0;
        let ours = known.as_ref().map_or_else(
            || "no such payout".to_owned(),
            |payout| format!("payout {} is {}, with another Bill or none", payout.id.number(), payout.state.as_str()),
        );
        let theirs = format!("Bill {} of {total}, memo {note:?}", bill.id);
        let detail =
            format!("{theirs} in QuickBooks, and here: {ours}; delete it there unless it is paid, and then ask why");
        let mut transaction = Transaction::new(OPERATION);
        let about = ["orphan", &self.session.realm, &bill.id];
        let program = known.as_ref().map(|payout| &payout.program);
        file_in(self.context, &mut transaction, ExceptionCode::BillOrphaned, program, &about, detail)?;
        match self.context.store.commit(transaction).await {
            Ok(()) | Err(StoreError::Stale) => {}
            Err(error) => return Err(error.into()),
        }
        if self.report.orphans.len() < TOLD {
            let bill = bill.id.clone();
            self.report.orphans.push(QuickbooksDifference { payout: Some(payout), bill, ours, theirs });
        }
        Ok(())
    }

    /// Every payout that is a Bill and not paid, against its Bill. Whether all were compared.
    async fn open(&mut self, time_left: &impl Fn() -> bool) -> Result<bool, Failed> {
        let mut at = Some(UnpaidPosition::default());
        while let Some(position) = at {
            if !time_left() {
                return Ok(false);
            }
            let (payouts, next) = self.context.store.unpaid_payouts(OPERATION, &position, PAGE).await?;
            let open: Vec<_> = payouts
                .into_iter()
                .filter(|payout| matches!(payout.state, PayoutState::Submitted | PayoutState::PartiallyPaid))
                .collect();
            let ids: Vec<_> = open.iter().map(|payout| payout.id.clone()).collect();
            let mut records = self.context.store.quickbooks_bills(OPERATION, &ids).await?;
            records.retain(|record| record.realm == self.session.realm && record.bill.is_some());
            self.compare(&open, &records).await?;
            at = next;
        }
        Ok(true)
    }

    async fn compare(&mut self, payouts: &[Payout], records: &[QuickbooksBill]) -> Result<(), Failed> {
        let ids: Vec<_> = records.iter().filter_map(|record| record.bill.as_deref()).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let bills = self.session.query::<Bill>(&Query::of(Bill::NAME).among("Id", ids)).await?;
        for record in records {
            let Some(payout) = payouts.iter().find(|payout| payout.id == record.payout) else { continue };
            let id = record.bill.clone().unwrap_or_default();
            let bill = bills.iter().find(|bill| bill.id == id);
            let (pays, paid) = (payout.pays()?, payout.paid);
            let minor = |amount: Option<quickbooks::Amount>| amount.and_then(|amount| minor_of(amount, pays.currency));
            let total = bill.and_then(|bill| minor(bill.total_amt));
            let open = bill.and_then(|bill| minor(bill.balance));
            self.report.compared += 1;
            self.day(bill, pays, total);
            self.latency(payout);
            let agrees = total == Some(pays.amount) && open == Some(pays.amount.minus(paid)?);
            if agrees && record.trouble.is_none() {
                continue;
            }
            if !self.seen.contains(&payout.id) {
                self.look(&payout.id).await?;
            }
            let now = self.context.store.quickbooks_bill(OPERATION, &payout.id).await?;
            if now.is_some_and(|now| now.trouble.is_some()) && self.report.differing.len() < TOLD {
                let theirs = match (bill, total, open) {
                    (Some(bill), ..) => format!(
                        "{} in all, {} open",
                        bill.total_amt.unwrap_or_default().0,
                        bill.balance.unwrap_or_default().0
                    ),
                    (None, ..) => "not there".to_owned(),
                };
                let ours = format!("{pays} in all, {} paid", Money::new(paid, pays.currency));
                self.report.differing.push(QuickbooksDifference {
                    payout: Some(payout.id.clone()),
                    bill: id,
                    ours,
                    theirs,
                });
            }
        }
        Ok(())
    }

    fn day(&mut self, bill: Option<&Bill>, pays: Money, total: Option<Minor>) {
        let Some(date) = bill.and_then(|bill| bill.txn_date) else { return };
        let key = (date, pays.currency.code().to_owned());
        let day = self.days.entry(key).or_insert(QuickbooksDay {
            date,
            currency: pays.currency,
            bills: 0,
            ours: Minor::ZERO,
            theirs: Minor::ZERO,
        });
        day.bills += 1;
        day.ours = day.ours.plus(pays.amount).unwrap_or(day.ours);
        day.theirs = day.theirs.plus(total.unwrap_or_default()).unwrap_or(day.theirs);
    }

    fn latency(&mut self, payout: &Payout) {
        let took = payout.approved_at.zip(payout.submitted_at).map(|(from, to)| to.duration_since(from).as_secs());
        self.report.slowest_submission_seconds = self.report.slowest_submission_seconds.max(took);
    }
}

/// The report, and how far changes were seen: the next run begins there.
async fn keep(
    context: &Context,
    report: &QuickbooksReport,
    read: &QuickbooksConnection,
    company: store::QuickbooksCompany,
    now: Timestamp,
) -> Result<()> {
    let mut transaction = Transaction::new(OPERATION);
    transaction.add_quickbooks_report(report)?;
    context.store.commit(transaction).await?;
    let Some(connection) = context.store.quickbooks_connection(OPERATION, &read.realm).await? else { return Ok(()) };
    let seen = QuickbooksConnection {
        company,
        seen_until: connection.seen_until.max(now - OVERLAP),
        version: connection.version + 1,
        ..connection.clone()
    };
    let mut transaction = Transaction::new(OPERATION);
    transaction.set_quickbooks_connection(&seen, Some(&connection))?;
    match context.store.commit(transaction).await {
        // Somebody changed it meanwhile; the next run reads the same changes again.
        Ok(()) | Err(StoreError::Stale) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
