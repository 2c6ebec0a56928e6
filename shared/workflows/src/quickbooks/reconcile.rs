//! Every night, and when somebody asks: what QuickBooks has against what is here. What changed there since the last time is held against
//! what is known here; only payouts that differ are looked at, in their turn like all calls there: at once where nobody else calls, else from
//! the queue. Then every open payout is held against its Bill. What still differs after a look is an exception with both sides, and so is a Bill
//! that names a payout which does not know it.

use std::collections::{BTreeMap, BTreeSet};

use domain::ids::PayoutId;
use domain::money::{Minor, Money};
use domain::payout::{Payout, PayoutState};
use jiff::{SignedDuration, Timestamp};
use quickbooks::{Amount, Bill, BillPayment, Change, Changes, Entity, Query};
use serde::Serialize;
use store::{
    ExceptionCode, QuickbooksBill, QuickbooksConnection, QuickbooksDay, QuickbooksDifference, QuickbooksKind,
    QuickbooksReport, QuickbooksState, StoreError, Transaction, UnpaidPosition,
};

use super::Failed;
use super::bills::minor_of;
use super::connection::{company, connected, seen};
use super::session::Session;
use crate::context::Context;
use crate::error::{Refusal, Result};
use crate::exceptions::file_in;
use crate::queues::SubmissionPayout;
use crate::rails::{Done, Rails, attend};

const OPERATION: &str = "reconcile quickbooks";
/// Payouts compared in one query.
const PAGE: i32 = 100;
/// Differences and orphans told in one report; all are exceptions.
const TOLD: usize = 200;
/// Changes looked into together.
const CHUNK: usize = 100;
/// How old paid payouts are whose Bills are looked for where deletions may not have been told.
const PAID_BACK: SignedDuration = SignedDuration::from_hours(24 * 366);
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
    let mut run = Run {
        context,
        rails,
        session,
        report,
        days: BTreeMap::new(),
        counted: BTreeSet::new(),
        looked: BTreeMap::new(),
        defers: false,
        unseen: None,
    };
    let told = Box::pin(run.changed(since, time_left)).await?;
    // Whatever becomes of the rest, changes that were looked into are not looked into again.
    let until = run.unseen.map_or(now - OVERLAP, |unseen| unseen.min(now - OVERLAP));
    seen(context, &rails.quickbooks, realm, &company, until).await?;
    let compared = match Box::pin(run.open(time_left)).await {
        Ok(compared) => compared,
        Err(Failed::Api(error)) if error.is_transient() => {
            tracing::warn!(realm, %error, "open payouts were not compared to the end");
            false
        }
        Err(failed) => return Err(failed.into()),
    };
    let mut report = run.report;
    report.finished = told && compared;
    report.days = run.days.into_values().collect();
    let mut transaction = Transaction::new(OPERATION);
    transaction.add_quickbooks_report(&report)?;
    context.store.commit(transaction).await?;
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
    /// Payouts that are in these days.
    counted: BTreeSet<PayoutId>,
    /// Payouts that differed, and whether they were looked at; else their look waits in the queue.
    looked: BTreeMap<PayoutId, bool>,
    /// A look failed: others wait in the queue, too.
    defers: bool,
    /// The first change that was not looked into.
    unseen: Option<Timestamp>,
}

/// Something that changed in a company.
struct News {
    at: Timestamp,
    what: What,
}

enum What {
    Bill(Change<Bill>),
    Payment(Change<BillPayment>),
}

/// What is here of a payout whose Bill or payment changed.
struct Ours {
    payout: Payout,
    record: QuickbooksBill,
}

impl Run<'_> {
    /// What changed since then, oldest first: payouts that differ from it are looked at, and Bills that nobody knows are told. Whether all
    /// of it was looked into.
    async fn changed(&mut self, since: Timestamp, time_left: &impl Fn() -> bool) -> Result<bool, Failed> {
        let mut changes = self.session.changes_since(since).await?;
        let is_cut = changes.is_cut;
        if is_cut {
            self.cut(&mut changes, since).await?;
        }
        let mut news: Vec<News> = changes
            .bills
            .into_iter()
            .map(What::Bill)
            .chain(changes.payments.into_iter().map(What::Payment))
            .map(|what| News { at: what.at().unwrap_or(since).max(since), what })
            .collect();
        news.sort_by_key(|news| news.at);
        for some in news.chunks(CHUNK) {
            if !time_left() {
                self.not_seen(some[0].at);
                return Ok(false);
            }
            self.look_into(some, time_left).await?;
        }
        if is_cut && !self.missing(time_left).await? {
            self.not_seen(since);
            return Ok(false);
        }
        Ok(true)
    }

    fn not_seen(&mut self, at: Timestamp) {
        self.unseen = Some(self.unseen.map_or(at, |unseen| unseen.min(at)));
    }

    async fn look_into(&mut self, news: &[News], time_left: &impl Fn() -> bool) -> Result<(), Failed> {
        let mut about = Vec::with_capacity(news.len());
        for News { what, .. } in news {
            about.push(self.payouts_of(what).await?);
        }
        let ids: Vec<PayoutId> = about.iter().flatten().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        let store = &self.context.store;
        let payouts = store.payouts(OPERATION, &ids).await?;
        let records = store.quickbooks_bills(OPERATION, &ids).await?;
        let ours: BTreeMap<PayoutId, Ours> = payouts
            .into_iter()
            .filter_map(|payout| {
                let record = records.iter().find(|record| record.payout == payout.id)?.clone();
                Some((payout.id.clone(), Ours { payout, record }))
            })
            .collect();
        for (News { at, what }, about) in news.iter().zip(&about) {
            for id in about {
                let known = ours.get(id);
                let agrees = match known {
                    Some(ours) => what.agrees_with(ours)?,
                    None => false,
                };
                if !agrees && !self.look(id, time_left).await? {
                    self.not_seen(*at);
                }
            }
        }
        for (News { what, .. }, about) in news.iter().zip(&about) {
            let What::Bill(Change::Is(bill)) = what else { continue };
            for id in about {
                let now = match ours.get(id) {
                    Some(ours) if !self.looked.contains_key(id) => Some(ours.payout.clone()),
                    _ => store.payout(OPERATION, id).await?,
                };
                // What is still open is counted when all that is open is.
                if let Some(payout) = now.filter(|payout| payout.state == PayoutState::Paid) {
                    self.count(&payout, Some(bill))?;
                }
            }
        }
        Ok(())
    }

    /// The payouts that a change is about. A Bill of nobody's is told where it names one.
    async fn payouts_of(&mut self, what: &What) -> Result<BTreeSet<PayoutId>, Failed> {
        let mut payouts = BTreeSet::new();
        match what {
            What::Bill(Change::Is(bill)) => {
                payouts.extend(self.owners(QuickbooksKind::Bill, &bill.id).await?);
                if payouts.is_empty() {
                    self.orphan(bill).await?;
                }
            }
            What::Bill(Change::Deleted { id, .. }) => payouts.extend(self.owners(QuickbooksKind::Bill, id).await?),
            What::Payment(Change::Is(payment)) => {
                for bill in payment.bills() {
                    payouts.extend(self.owners(QuickbooksKind::Bill, bill).await?);
                }
                payouts.extend(self.owners(QuickbooksKind::Payment, &payment.id).await?);
            }
            What::Payment(Change::Deleted { id, .. }) => {
                payouts.extend(self.owners(QuickbooksKind::Payment, id).await?);
            }
        }
        Ok(payouts)
    }

    /// More changed than one answer holds. What is there is read page by page; what is gone, from a time so short that it is told whole:
    /// an older deletion of an open Bill is found when open payouts are compared, and of a paid one by [`Run::missing`].
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
        let payments = Query::of(BillPayment::NAME).at_least("MetaData.LastUpdatedTime", &from).ordered_by("Id");
        changes.payments.retain(|change| matches!(change, Change::Deleted { .. }));
        changes.payments.extend(self.session.query(&payments).await?.into_iter().map(Change::Is));
        Ok(())
    }

    /// Paid payouts of the last year whose Bill is not there any more: they are looked at. Whether there was time for all.
    async fn missing(&mut self, time_left: &impl Fn() -> bool) -> Result<bool, Failed> {
        let (store, oldest) = (&self.context.store, self.context.now() - PAID_BACK);
        let mut after: Option<String> = None;
        loop {
            let programs = store.programs(OPERATION, after.as_deref(), PAGE).await?;
            for program in &programs.items {
                let mut at: Option<String> = None;
                loop {
                    if !time_left() {
                        return Ok(false);
                    }
                    let page = store.program_payouts(OPERATION, &program.id, at.as_deref(), PAGE).await?;
                    let is_old = page.items.last().is_some_and(|payout| payout.created_at < oldest);
                    let paid = page.items.iter().filter(|payout| payout.state == PayoutState::Paid);
                    let ids: Vec<_> = paid.map(|payout| payout.id.clone()).collect();
                    let records = self.records(&ids).await?;
                    let there = self.bills_of(&records).await?;
                    for record in records.iter().filter(|record| !there.contains_key(&record.payout)) {
                        if !self.look(&record.payout, time_left).await? {
                            return Ok(false);
                        }
                    }
                    at = page.after;
                    if at.is_none() || is_old {
                        break;
                    }
                }
            }
            after = programs.after;
            if after.is_none() {
                return Ok(true);
            }
        }
    }

    /// What was sent to this company of these payouts, and is known to be there.
    async fn records(&self, payouts: &[PayoutId]) -> Result<Vec<QuickbooksBill>, Failed> {
        let mut records = self.context.store.quickbooks_bills(OPERATION, payouts).await?;
        records.retain(|record| record.realm == self.session.realm && record.bill.is_some());
        Ok(records)
    }

    /// The Bills that are there, by their payouts: in one query.
    async fn bills_of(&self, records: &[QuickbooksBill]) -> Result<BTreeMap<PayoutId, Bill>, Failed> {
        let ids: Vec<_> = records.iter().filter_map(|record| record.bill.as_deref()).collect();
        if ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        let bills = self.session.query::<Bill>(&Query::of(Bill::NAME).among("Id", ids)).await?;
        let of = |record: &QuickbooksBill| {
            let bill = bills.iter().find(|bill| record.bill.as_ref() == Some(&bill.id))?;
            Some((record.payout.clone(), bill.clone()))
        };
        Ok(records.iter().filter_map(of).collect())
    }

    async fn owners(&self, kind: QuickbooksKind, id: &str) -> Result<BTreeSet<PayoutId>> {
        let owners = self.context.store.quickbooks_owners(OPERATION, &self.session.realm, kind, id).await?;
        Ok(owners.iter().filter_map(|owner| owner.parse().ok()).collect())
    }

    /// Whether a payout that differs was looked at. Otherwise its look waits in the queue for its turn.
    async fn look(&mut self, id: &PayoutId, time_left: &impl Fn() -> bool) -> Result<bool> {
        if let Some(looked) = self.looked.get(id) {
            return Ok(*looked);
        }
        let looked = if self.defers || !time_left() {
            self.context.queues.send_submission(id).await?;
            false
        } else {
            let asked = SubmissionPayout { id: id.clone(), slot: None };
            match Box::pin(attend(self.context, self.rails, &asked)).await {
                Ok(done) => done != Done::Waits,
                Err(error) => {
                    tracing::warn!(payout = %id, %error, "a look waits in the queue");
                    self.defers = true;
                    self.context.queues.send_submission(id).await?;
                    false
                }
            }
        };
        self.looked.insert(id.clone(), looked);
        Ok(looked)
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
            let records = self.records(&ids).await?;
            self.compare(&open, &records, time_left).await?;
            at = next;
        }
        Ok(true)
    }

    async fn compare(
        &mut self,
        payouts: &[Payout],
        records: &[QuickbooksBill],
        time_left: &impl Fn() -> bool,
    ) -> Result<(), Failed> {
        let bills = self.bills_of(records).await?;
        for record in records {
            let Some(payout) = payouts.iter().find(|payout| payout.id == record.payout) else { continue };
            let bill = bills.get(&payout.id);
            self.report.compared += 1;
            self.count(payout, bill)?;
            if bill.is_some_and(|bill| stands(bill, payout).unwrap_or_default()) && record.trouble.is_none() {
                continue;
            }
            let looked = self.look(&payout.id, time_left).await?;
            let now = self.context.store.quickbooks_bill(OPERATION, &payout.id).await?;
            let differs = !looked || now.is_some_and(|now| now.trouble.is_some());
            if differs && self.report.differing.len() < TOLD {
                let theirs = bill.map_or_else(
                    || "not there".to_owned(),
                    |bill| {
                        let amount = |amount: Option<Amount>| amount.unwrap_or_default().0;
                        format!("{} in all, {} open", amount(bill.total_amt), amount(bill.balance))
                    },
                );
                let pays = payout.pays()?;
                let ours = format!("{pays} in all, {} paid", Money::new(payout.paid, pays.currency));
                self.report.differing.push(QuickbooksDifference {
                    payout: Some(payout.id.clone()),
                    bill: record.bill.clone().unwrap_or_default(),
                    ours,
                    theirs,
                });
            }
        }
        Ok(())
    }

    /// Once each, in the sums of its Bill's day, and in how long it took.
    fn count(&mut self, payout: &Payout, bill: Option<&Bill>) -> Result<(), Failed> {
        if !self.counted.insert(payout.id.clone()) {
            return Ok(());
        }
        let took = payout.approved_at.zip(payout.submitted_at).map(|(from, to)| to.duration_since(from).as_secs());
        self.report.slowest_submission_seconds = self.report.slowest_submission_seconds.max(took);
        let Some((bill, date)) = bill.and_then(|bill| Some((bill, bill.txn_date?))) else { return Ok(()) };
        let pays = payout.pays()?;
        let total = bill.total_amt.and_then(|total| minor_of(total, pays.currency));
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
        Ok(())
    }
}

impl What {
    fn at(&self) -> Option<Timestamp> {
        let meta = match self {
            Self::Bill(Change::Deleted { at, .. }) | Self::Payment(Change::Deleted { at, .. }) => return *at,
            Self::Bill(Change::Is(bill)) => &bill.meta_data,
            Self::Payment(Change::Is(payment)) => &payment.meta_data,
        };
        meta.as_ref()?.changed_at()
    }

    /// Whether it tells nothing that is not known here.
    fn agrees_with(&self, ours: &Ours) -> Result<bool, Failed> {
        let Ours { payout, record } = ours;
        if record.trouble.is_some() {
            return Ok(false);
        }
        Ok(match self {
            Self::Bill(Change::Is(bill)) => {
                let paid_by = bill.linked_txn.iter().filter(|linked| linked.txn_type.starts_with("BillPayment"));
                let paid_by: BTreeSet<_> = paid_by.map(|linked| &linked.txn_id).collect();
                let known: BTreeSet<_> = moved(record).map(|(id, _)| id).collect();
                record.bill.as_ref() == Some(&bill.id)
                    && record.vendor == bill.vendor_ref.value
                    && paid_by == known
                    && stands(bill, payout)?
            }
            Self::Bill(Change::Deleted { .. }) => payout.state == PayoutState::Void,
            Self::Payment(Change::Is(payment)) => {
                let cash = payment.cash_to(record.bill.as_deref().unwrap_or_default());
                let known = record.payments.get(&payment.id).copied().unwrap_or_default();
                minor_of(cash, payout.paid_in()) == Some(known)
            }
            Self::Payment(Change::Deleted { id, .. }) => moved(record).all(|(known, _)| known != id),
        })
    }
}

/// The payments that are known to have brought a Bill money.
fn moved(record: &QuickbooksBill) -> impl Iterator<Item = (&String, &Minor)> {
    record.payments.iter().filter(|(_, amount)| !amount.is_zero())
}

/// Whether a Bill comes to what its payout pays, and is open as far as that is not paid.
fn stands(bill: &Bill, payout: &Payout) -> Result<bool, Failed> {
    use PayoutState::{Paid, PartiallyPaid, Submitted, Void};
    let pays = payout.pays()?;
    let minor = |amount: Option<Amount>| amount.and_then(|amount| minor_of(amount, pays.currency));
    let (total, open) = (minor(bill.total_amt), minor(bill.balance));
    Ok(match payout.state {
        Submitted | PartiallyPaid | Paid => total == Some(pays.amount) && open == Some(pays.amount.minus(payout.paid)?),
        Void => total == Some(Minor::ZERO),
        _ => false,
    })
}
