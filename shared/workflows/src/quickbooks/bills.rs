//! One Bill for one payout: made, found again, and read.

use std::sync::atomic::{AtomicBool, Ordering};

use domain::exchange::ExchangeRate;
use domain::ids::Hash;
use domain::money::{Currency, Minor, Money};
use domain::payout::{Payout, PayoutState, Teller};
use domain::program::Program;
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use quickbooks::{Amount, ApiError, Bill, BillLine, BillPayment, Entity, Fault, Query, Ref, Vendor};
use rust_decimal::Decimal;
use store::{
    ExceptionCode, QuickbooksBill, QuickbooksConnection, QuickbooksDated as Dated, QuickbooksSettings, QuickbooksState,
    Transaction,
};

use super::pace::Slot;
use super::session::Session;
use super::vendors::{self, Wanted, is_unknown, usable};
use super::{Failed, Quickbooks, settings_of};
use crate::changes::until_fresh;
use crate::context::Context;
use crate::error::{Refusal, Result};
use crate::exceptions::{file_in, resolve_in};
use crate::payouts;
use crate::rails::{Done, Found, Order, Rail, Sent, look_after, submit};

const OPERATION: &str = "quickbooks bill";
/// How many vendors of a partner are tried that turn out to be gone.
const MOST_VENDORS: u32 = 5;
/// Whoever the record says settled what is as it was sent again.
const ACTOR: &str = "quickbooks";
/// How long somebody has a Bill to themselves: a function has two minutes and a call half a one, and what a call that was given up still
/// does is done by then. Whoever has not come back after this is dead.
const HELD: SignedDuration = SignedDuration::from_secs(180);
/// Calls that a payout takes: a look and a Bill, or a Bill and its payments.
const CALLS: i32 = 2;
/// Calls that it takes besides where its partner's vendor is not known yet: two looks for it, and making it.
const VENDOR_CALLS: i32 = 3;
/// Payments asked for in one query.
const PAYMENTS: usize = 100;
/// Characters of a memo: QuickBooks takes 4,000, and the payout's id comes within.
const MEMO_CHARS: usize = 3_800;

/// A payout's books: the company, and what is to be written there.
struct Books<'a> {
    session: Session<'a>,
    connection: QuickbooksConnection,
    /// `None` where nothing is to be made any more.
    settings: Option<QuickbooksSettings>,
    payout: Payout,
    /// It was looked for a moment ago, and was not there.
    looked: AtomicBool,
    /// The Bill was there already: it may have been paid meanwhile, and nobody will tell it again.
    adopted: AtomicBool,
}

/// Submits an approved payout, goes on with one that is on its way, and looks after one that is a Bill. `slot`: the moment it was told to
/// wait for, if it was.
pub(crate) async fn attend(
    context: &Context,
    quickbooks: &Quickbooks,
    payout: Payout,
    slot: Option<Timestamp>,
) -> Result<Done> {
    use PayoutState::{Approved, Paid, PartiallyPaid, Submitted, Submitting, Void};
    if !matches!(payout.state, Approved | Submitting | Submitted | PartiallyPaid | Paid | Void) {
        return Ok(Done::Nothing);
    }
    let to_send = matches!(payout.state, Approved | Submitting);
    let bill = context.store.quickbooks_bill(OPERATION, &payout.id).await?;
    let settings = if to_send { settings_of(context, OPERATION, &payout.program).await? } else { None };
    let realm = match (&bill, &settings) {
        // What was begun in a company stays there.
        (Some(bill), _) => bill.realm.clone(),
        (None, Some(settings)) if payout.state == Submitting || settings.enabled => settings.realm.clone(),
        _ => return Ok(Done::Nothing),
    };
    let connection = context.store.quickbooks_connection(OPERATION, &realm).await?;
    let Some(connection) = connection.filter(|connection| connection.state == QuickbooksState::Connected) else {
        return Ok(Done::Waits);
    };
    let calls = if to_send && bill.is_none() { calls_to_send(context, &payout, &realm).await? } else { CALLS };
    if let Slot::At(slot) = quickbooks.pace.turn(context, &realm, slot, calls).await? {
        context.queues.send_submission_at(&payout.id, slot, context.now()).await?;
        return Ok(Done::Waits);
    }
    let session = match Session::open(context, quickbooks, &realm).await {
        Ok(session) => session,
        Err(Failed::Unusable(why)) => {
            tracing::info!(payout = %payout.id, why, "waits for the company to be connected again");
            return Ok(Done::Waits);
        }
        Err(failed) => return Err(failed.into()),
    };
    let books = Books::new(session, connection, settings, payout.clone());
    if !to_send {
        // Somebody may have ended it while its Bill was being made: that is a Bill to look at all the same.
        let processor = payout.processor.clone().or_else(|| bill.and_then(|record| record.bill));
        return look_after(context, &books, Payout { processor, ..payout }).await;
    }
    // The look comes first: where the company cannot be reached, nothing was begun, and the payout waits as it is.
    match books.look_before().await {
        Ok(()) => {}
        Err(Failed::Unusable(why)) => {
            tracing::info!(payout = %payout.id, why, "waits for the company to be connected again");
            return Ok(Done::Waits);
        }
        Err(failed) => return Err(failed.into()),
    }
    let done = Box::pin(submit(context, &books, payout)).await?;
    if done == Done::Submitted && books.adopted.load(Ordering::Relaxed) {
        context.queues.send_submission(&books.payout.id).await?;
    }
    Ok(done)
}

async fn calls_to_send(context: &Context, payout: &Payout, realm: &str) -> Result<i32> {
    let vendor = context.store.quickbooks_vendor(OPERATION, &payout.partner, realm, payout.paid_in()).await?;
    Ok(if vendor.is_some_and(|known| !known.vendor.is_empty()) { CALLS } else { CALLS + VENDOR_CALLS })
}

/// Ends a payout that failed, where QuickBooks shows that no money can have moved: no Bill of it is there, or one of zero.
pub(crate) async fn void(
    context: &Context,
    quickbooks: &Quickbooks,
    payout: Payout,
    why: &str,
    by: &str,
) -> Result<Payout> {
    const OPERATION: &str = "void quickbooks payout";
    // What else becomes of it, QuickBooks tells.
    if payout.state != PayoutState::Failed {
        return payouts::void(context, &payout.id, why, Teller::Person(by)).await;
    }
    // Without a record, nothing was ever sent.
    if let Some(record) = context.store.quickbooks_bill(OPERATION, &payout.id).await? {
        let connection = context.store.quickbooks_connection(OPERATION, &record.realm).await?;
        let connection = connection.filter(|connection| connection.state == QuickbooksState::Connected);
        let connection = connection.ok_or_else(|| {
            Refusal::Illegal(format!(
                "whether its Bill is in QuickBooks must be seen first, and the company {} is not connected: connect it, and void it again",
                record.realm
            ))
        })?;
        let session = Session::open(context, quickbooks, &record.realm).await?;
        let books = Books::new(session, connection, None, payout.clone());
        books.has_nothing_to_pay().await?;
    }
    payouts::void_as_seen(context, &payout, why, by).await
}

impl Rail for Books<'_> {
    /// It is found by its number and its memo, however long ago it was sent.
    const REMEMBERS: Option<SignedDuration> = None;

    async fn send(&self, order: &Order<'_>) -> Sent {
        let named = order.what.details.get("vendorId").map(String::as_str);
        match self.bill(named).await {
            Ok(bill) => Sent::Taken(bill),
            Err(Failed::Permanent(why)) => Sent::Refused(why),
            Err(Failed::Unusable(why)) => Sent::Waits(why),
            Err(busy @ Failed::Busy(until)) => {
                let context = self.context();
                match context.queues.send_submission_at(&self.payout.id, until, context.now()).await {
                    Ok(()) => Sent::Waits(busy.to_string()),
                    Err(error) => Sent::Again(error.to_string()),
                }
            }
            Err(failed) => Sent::Again(failed.to_string()),
        }
    }

    async fn look(&self, bill: &str) -> Result<Found> {
        Ok(self.became(bill).await?)
    }
}

impl<'a> Books<'a> {
    const fn new(
        session: Session<'a>,
        connection: QuickbooksConnection,
        settings: Option<QuickbooksSettings>,
        payout: Payout,
    ) -> Self {
        let (looked, adopted) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { session, connection, settings, payout, looked, adopted }
    }

    const fn context(&self) -> &Context {
        self.session.context
    }

    async fn look_before(&self) -> Result<(), Failed> {
        if self.payout.state == PayoutState::Approved {
            self.looked.store(self.numbered().await?.is_empty(), Ordering::Relaxed);
        }
        Ok(())
    }

    async fn numbered(&self) -> Result<Vec<Bill>, Failed> {
        self.session.query::<Bill>(&Query::of(Bill::NAME).equal("DocNumber", &self.payout.id.number())).await
    }

    /// Refuses while there is a Bill that may be paid for it.
    async fn has_nothing_to_pay(&self) -> Result<()> {
        let number = self.payout.id.number();
        for bill in self.numbered().await? {
            let (id, total) = (&bill.id, bill.total_amt.unwrap_or_default().0);
            if !is_marked(&bill, &self.payout) {
                return Err(Refusal::Illegal(format!(
                    "Bill {id} in QuickBooks has the number {number} and may have been made by hand for this payout: delete it there or give \
                     it another number, and void it again"
                )));
            }
            if bill.total_amt.is_none_or(|total| !total.0.is_zero()) {
                return Err(Refusal::Illegal(format!(
                    "Bill {id} in QuickBooks is this payout's and comes to {total}: retry takes it over; or delete it there, and void it again"
                )));
            }
        }
        Ok(())
    }

    // --- Making it ------------------------------------------------------------------------------------------------

    /// The Bill's id: of the one that is there, or that is made now.
    async fn bill(&self, named: Option<&str>) -> Result<String, Failed> {
        let stored = self.context().store.quickbooks_bill(OPERATION, &self.payout.id).await?;
        if let Some(bill) = stored.as_ref().and_then(|stored| stored.bill.clone()) {
            return Ok(bill);
        }
        let now = self.context().now();
        if let Some(until) = stored.as_ref().and_then(|stored| stored.held_until).filter(|until| *until > now) {
            return Err(Failed::Busy(until));
        }
        if stored.is_some() {
            // Somebody may have sent it since it was looked for.
            self.looked.store(false, Ordering::Relaxed);
        }
        let mut record = match stored {
            Some(stored) if stored.attempt == self.payout.attempts => self.hold(&stored).await?,
            // A refusal ended the attempt before: whatever was set right since is taken up.
            stored => self.write(named, Dated::BeforeCutOff, stored.as_ref()).await?,
        };
        let sent = self.send_held(named, &mut record).await;
        if let Err(failed) = &sent
            && !matches!(failed, Failed::Api(error) if error.may_have_been_done())
        {
            self.let_go(&record).await;
        }
        sent
    }

    /// Has it to ourselves: where requests and numbers are forgotten, two who look and send at once would make two.
    async fn hold(&self, read: &QuickbooksBill) -> Result<QuickbooksBill, Failed> {
        let held = QuickbooksBill { held_until: Some(self.hold_until()), version: read.version + 1, ..read.clone() };
        self.set(&held, Some(read)).await?;
        Ok(held)
    }

    fn hold_until(&self) -> Timestamp {
        self.context().now() + HELD
    }

    /// What cannot be let go ends by itself.
    async fn let_go(&self, held: &QuickbooksBill) {
        let free = QuickbooksBill { held_until: None, version: held.version + 1, ..held.clone() };
        if let Err(error) = self.set(&free, Some(held)).await {
            tracing::info!(payout = %self.payout.id, %error, "a Bill was not let go");
        }
    }

    async fn send_held(&self, named: Option<&str>, record: &mut QuickbooksBill) -> Result<String, Failed> {
        loop {
            if let Some(bill) = self.find(record).await? {
                self.adopted.store(true, Ordering::Relaxed);
                return self.keep(record, &bill).await;
            }
            let fault = match self.session.create::<Bill>(&record.body, &record.request).await {
                Ok(made) => {
                    self.is_ours(record, &made).await?;
                    return self.keep(record, &made).await;
                }
                Err(Failed::Api(ApiError::Refused(fault))) if !is_unknown(&fault) => fault,
                Err(error) => return Err(error),
            };
            match self.refused(named, record, &fault).await? {
                Next::Send(anew) => *record = *anew,
                Next::Take(bill) => {
                    self.adopted.store(true, Ordering::Relaxed);
                    return self.keep(record, &bill).await;
                }
                Next::Fail => return Err(Failed::Permanent(explained(&fault))),
            }
        }
    }

    /// What to do after a refusal, which had no effect.
    async fn refused(&self, named: Option<&str>, record: &QuickbooksBill, fault: &Fault) -> Result<Next, Failed> {
        match fault.code.0.trim_start_matches('0') {
            "6140" => self.same_number(record, fault).await,
            "6200" | "6210" if record.dated == Dated::BeforeCutOff => {
                Ok(Next::Send(Box::new(self.write(named, Dated::WhenApproved, Some(record)).await?)))
            }
            "610" | "2500" => {
                let currency = self.payout.paid_in();
                match self.session.read::<Vendor>(&record.vendor).await? {
                    Some(vendor) => usable(&vendor, currency).map(|()| Next::Fail),
                    // It went into another, or was never there in this company. Somebody may remember it once more who found it before.
                    None if record.anew < MOST_VENDORS => {
                        vendors::forget(self.context(), &self.session.realm, &self.payout.partner, currency).await?;
                        Ok(Next::Send(Box::new(self.write(named, record.dated, Some(record)).await?)))
                    }
                    None => Ok(Next::Fail),
                }
            }
            _ => Ok(Next::Fail),
        }
    }

    /// The number is taken, which the look before did not see: by the very Bill, made a moment ago, or by one that is not ours.
    async fn same_number(&self, record: &QuickbooksBill, fault: &Fault) -> Result<Next, Failed> {
        let Some((_, id)) = fault.detail.rsplit_once("TxnId=") else { return Ok(Next::Fail) };
        let Some(other) = self.session.read::<Bill>(id.trim()).await? else { return Ok(Next::Fail) };
        self.is_ours(record, &other).await?;
        Ok(Next::Take(Box::new(other)))
    }

    /// The Bill that has our number, if it is there. One that is not ours is no reason to make another under the same number: somebody may
    /// have typed it in by hand.
    async fn find(&self, record: &QuickbooksBill) -> Result<Option<Bill>, Failed> {
        // Once: whatever is sent after this makes another look necessary.
        if self.looked.swap(false, Ordering::Relaxed) {
            return Ok(None);
        }
        let found = self.numbered().await?;
        for bill in &found {
            self.is_ours(record, bill).await?;
        }
        match <[Bill; 1]>::try_from(found) {
            Ok([bill]) => Ok(Some(bill)),
            Err(none) if none.is_empty() => Ok(None),
            Err(several) => {
                let ids: Vec<_> = several.iter().map(|bill| bill.id.as_str()).collect();
                Err(Failed::Permanent(format!(
                    "QuickBooks has several Bills for this payout: {}; delete all but one, and retry",
                    ids.join(", ")
                )))
            }
        }
    }

    /// Refuses a Bill of another vendor or amount, or without our marker.
    async fn is_ours(&self, record: &QuickbooksBill, bill: &Bill) -> Result<(), Failed> {
        let Bill { id, .. } = bill;
        let number = self.payout.id.number();
        let pays = self.payout.pays()?;
        if !is_marked(bill, &self.payout) {
            return Err(Failed::Permanent(format!(
                "Bill {id} in QuickBooks has the number {number} already, and is not this payout's: if somebody made it by hand for this payout, \
                 put {} into its memo, else give it another number; then retry",
                self.payout.id
            )));
        }
        let total = bill.total_amt.and_then(|total| minor_of(total, pays.currency));
        if total != Some(pays.amount) {
            let is = bill.total_amt.map_or_else(|| "nothing".to_owned(), |total| total.0.to_string());
            return Err(Failed::Permanent(format!(
                "Bill {id} in QuickBooks is this payout's, but comes to {is} instead of {pays}: set it right there, and retry"
            )));
        }
        if bill.vendor_ref.value != record.vendor {
            let currency = self.payout.paid_in();
            let store = &self.context().store;
            let now = store.quickbooks_vendor(OPERATION, &self.payout.partner, &self.session.realm, currency).await?;
            if now.is_none_or(|now| now.vendor != bill.vendor_ref.value) {
                return Err(Failed::Permanent(format!(
                    "Bill {id} in QuickBooks is this payout's, but of vendor {} instead of {}: set it right there, and retry",
                    bill.vendor_ref.value, record.vendor
                )));
            }
        }
        Ok(())
    }

    /// Writes down that it is there.
    async fn keep(&self, record: &QuickbooksBill, bill: &Bill) -> Result<String, Failed> {
        let there = QuickbooksBill {
            vendor: bill.vendor_ref.value.clone(),
            bill: Some(bill.id.clone()),
            held_until: None,
            version: record.version + 1,
            ..record.clone()
        };
        self.set(&there, Some(record)).await?;
        Ok(bill.id.clone())
    }

    async fn set(&self, new: &QuickbooksBill, read: Option<&QuickbooksBill>) -> Result<(), Failed> {
        let mut transaction = Transaction::new(OPERATION);
        transaction.set_quickbooks_bill(new, read)?;
        Ok(self.context().store.commit(transaction).await?)
    }

    /// Writes down what is going to be sent. Whatever is sent again is this, whatever changes here meanwhile.
    async fn write(
        &self,
        named: Option<&str>,
        dated: Dated,
        read: Option<&QuickbooksBill>,
    ) -> Result<QuickbooksBill, Failed> {
        let context = self.context();
        let settings = self.settings.as_ref();
        let settings =
            settings.ok_or_else(|| Failed::Permanent("no accounts are chosen for its program".to_owned()))?;
        // Accounts of one company mean nothing in another.
        if settings.realm != self.session.realm {
            return Err(Failed::Permanent(format!(
                "it was begun in the company {} ({}), where its Bill may be, and its program's accounts are of the company {} now: choose \
                 those of {} again and retry; or void it, so that its commissions are paid by a payout in the other",
                self.connection.company.name, self.session.realm, settings.realm, self.session.realm
            )));
        }
        let program = context.store.program(OPERATION, &self.payout.program).await?;
        let program = program.ok_or(Refusal::NotFound("program"))?;
        let partner = context.store.partner(OPERATION, &self.payout.partner).await?;
        let partner = partner.ok_or(Refusal::NotFound("partner"))?;
        let (company, currency) = (&self.connection.company, self.payout.paid_in());
        if currency != company.currency && !company.multi_currency {
            return Err(Failed::Permanent(format!(
                "the payout is in {currency}, and {} keeps its books in {} alone: switch on multicurrency there, connect it again, and retry",
                company.name, company.currency
            )));
        }
        let vendor =
            vendors::of(&self.session, &Wanted { partner: &partner, currency, company, settings, named }).await?;
        let date = self.date(&program, dated).await?;
        let rate = if currency == company.currency { None } else { Some(self.exchange_rate(currency, date).await?) };
        let bill = Bill {
            vendor_ref: Ref::to(&vendor),
            ap_account_ref: settings.payable_account.as_deref().map(Ref::to),
            sales_term_ref: settings.term.as_deref().map(Ref::to),
            currency_ref: company.multi_currency.then(|| Ref::to(currency.code())),
            exchange_rate: rate.as_ref().map(|rate| Amount((rate.rate / rate.per).round_dp(6))),
            // Outside the United States a Bill must say how it is taxed; what partners earn is not.
            global_tax_calculation: (company.country != "US").then(|| "NotApplicable".to_owned()),
            txn_date: Some(date),
            due_date: self.payout.pay_on.map(|due| due.max(date)),
            doc_number: Some(self.payout.id.number()),
            private_note: Some(self.memo(&program, &partner.name, settings)),
            line: self.lines(&program, settings)?,
            ..Bill::default()
        };
        let body = serde_json::to_string(&bill).map_err(|error| Failed::Permanent(error.to_string()))?;
        let attempt = self.payout.attempts;
        let anew = read.filter(|read| read.attempt == attempt).map_or(0, |read| read.anew + 1);
        let record = QuickbooksBill {
            payout: self.payout.id.clone(),
            realm: self.session.realm.clone(),
            vendor,
            attempt,
            anew,
            request: request_of(&self.payout, anew),
            dated,
            body,
            held_until: Some(self.hold_until()),
            bill: None,
            payments: read.map(|read| read.payments.clone()).unwrap_or_default(),
            trouble: None,
            version: read.map_or(1, |read| read.version + 1),
        };
        self.set(&record, read).await?;
        Ok(record)
    }

    /// Commissions with what was taken back of them, and the tax that is kept back of both.
    fn lines(&self, program: &Program, settings: &QuickbooksSettings) -> Result<Vec<BillLine>, Failed> {
        let pays = self.payout.pays()?;
        let withheld = self.withheld()?;
        let gross = Money::new(pays.amount.plus(withheld)?, pays.currency);
        let number = self.payout.id.number();
        let commissions = match self.commissions() {
            1 => "1 commission".to_owned(),
            count => format!("{count} commissions"),
        };
        let text = cut_to(&format!("{}, {number}: {commissions}", program.name), MEMO_CHARS);
        let mut lines = vec![BillLine::expense(amount_of(gross), &settings.expense_account, text)];
        if !withheld.is_zero() {
            let account = settings.withholding_account.as_deref().ok_or_else(|| {
                Failed::Permanent(
                    "tax is kept back of it, and no account for that is chosen: choose one, and retry".to_owned(),
                )
            })?;
            let amount = amount_of(Money::new(withheld.negated(), pays.currency));
            lines.push(BillLine::expense(amount, account, format!("Tax withheld, {number}")));
        }
        Ok(lines)
    }

    /// How many it pays: what is kept back of them is a line of the payout, too.
    fn commissions(&self) -> u32 {
        self.payout.line_count.saturating_sub(u32::from(!self.payout.withheld.is_zero()))
    }

    /// In the currency that is paid.
    fn withheld(&self) -> Result<Minor, Failed> {
        Ok(match &self.payout.conversion {
            Some(rate) => rate.convert(self.payout.withheld)?.amount,
            None => self.payout.withheld,
        })
    }

    fn memo(&self, program: &Program, partner: &str, settings: &QuickbooksSettings) -> String {
        let (number, lines) = (self.payout.id.number(), self.commissions().to_string());
        let pattern =
            [("{program}", program.name.as_str()), ("{partner}", partner), ("{number}", &number), ("{lines}", &lines)];
        let text = pattern.iter().fold(settings.memo.clone(), |text, (what, by)| text.replace(what, by));
        // The id is what it is known by again, so it comes last and whole.
        format!("{} [{}]", cut_to(&text, MEMO_CHARS), self.payout.id).trim_start().to_owned()
    }

    async fn date(&self, program: &Program, dated: Dated) -> Result<Date, Failed> {
        let zone = program.time_zone.time_zone();
        let moment = match dated {
            Dated::WhenApproved => self.payout.approved_at.unwrap_or_else(|| self.context().now()),
            Dated::BeforeCutOff => {
                let run = self.context().store.run(OPERATION, &self.payout.run).await?;
                let cut_off = run.map_or(self.payout.created_at, |run| run.cut_off);
                cut_off - SignedDuration::from_nanos(1)
            }
        };
        Ok(moment.to_zoned(zone).date())
    }

    /// QuickBooks would take one for one.
    async fn exchange_rate(&self, currency: Currency, date: Date) -> Result<ExchangeRate, Failed> {
        let home = self.connection.company.currency;
        let rate = crate::exchange::rate(self.context(), OPERATION, currency, home, date).await?;
        rate.ok_or_else(|| {
            Failed::Permanent(format!(
                "there is no exchange rate from {currency} to {home} of {date}: tell one, and retry"
            ))
        })
    }

    // --- What became of it ----------------------------------------------------------------------------------------

    async fn became(&self, id: &str) -> Result<Found, Failed> {
        let pays = self.payout.pays()?;
        let bill = match self.session.read::<Bill>(id).await? {
            Some(bill) => Some(bill),
            // "Not found" is also what Intuit says where something that it names was made inactive; and whoever takes a Bill for gone pays
            // its commissions again.
            None => self.session.query::<Bill>(&Query::of(Bill::NAME).equal("Id", id)).await?.into_iter().next(),
        };
        let Some(bill) = bill else {
            self.note(id, None, &[], None).await?;
            return Ok(Found::Gone(format!("Bill {id} was deleted in QuickBooks")));
        };
        let total = bill.total_amt.ok_or_else(|| ApiError::Unreadable(format!("Bill {id} without a total")));
        let total = total.map_err(Failed::Api)?;
        if total.0.is_zero() {
            self.note(id, None, &[], None).await?;
            return Ok(Found::Gone(format!("Bill {id} was set to zero in QuickBooks")));
        }
        let payments = self.payments(&bill).await?;
        let cash: Decimal = payments.iter().map(|payment| payment.cash_to(id).0).sum();
        let cash = minor_of(Amount(cash), pays.currency).unwrap_or_default();
        let vendor = self.vendor_of(&bill).await?;
        let differs = self.differs(&bill, total, cash, vendor.as_deref(), pays);
        self.note(id, Some(&bill), &payments, differs.as_deref()).await?;
        let last = payments.iter().filter(|payment| !payment.cash_to(id).0.is_zero()).max_by_key(|one| one.txn_date);
        Ok(Found::Cash {
            amount: cash.min(pays.amount),
            reference: last.map(|last| last.id.clone()),
            at: self.paid_at(last).await?,
        })
    }

    /// What pays it, read from QuickBooks.
    async fn payments(&self, bill: &Bill) -> Result<Vec<BillPayment>, Failed> {
        let linked = bill.linked_txn.iter().filter(|linked| linked.txn_type.starts_with("BillPayment"));
        let ids: Vec<_> = linked.map(|linked| linked.txn_id.as_str()).collect();
        let mut payments = Vec::new();
        for ids in ids.chunks(PAYMENTS) {
            let query = Query::of(BillPayment::NAME).among("Id", ids.iter().copied());
            payments.extend(self.session.query::<BillPayment>(&query).await?);
        }
        Ok(payments)
    }

    /// A vendor that went into another took the Bill along. `Some`: it is another's for no such reason.
    async fn vendor_of(&self, bill: &Bill) -> Result<Option<String>, Failed> {
        let (store, realm, is) = (&self.context().store, &self.session.realm, &bill.vendor_ref.value);
        let record = store.quickbooks_bill(OPERATION, &self.payout.id).await?;
        let Some(record) = record.filter(|record| record.vendor != *is) else { return Ok(None) };
        let (partner, currency) = (&self.payout.partner, self.payout.paid_in());
        let known = store.quickbooks_vendor(OPERATION, partner, realm, currency).await?;
        if known.as_ref().is_some_and(|known| known.vendor == *is) {
            return Ok(None);
        }
        if self.session.read::<Vendor>(&record.vendor).await?.is_none() {
            vendors::remember(self.context(), realm, partner, currency, is).await?;
            return Ok(None);
        }
        Ok(Some(record.vendor))
    }

    /// In words, what is not as it was sent, or was settled otherwise than with money.
    fn differs(&self, bill: &Bill, total: Amount, cash: Minor, vendor: Option<&str>, pays: Money) -> Option<String> {
        let Bill { id, .. } = bill;
        let number = self.payout.id.number();
        let of = |what: String| format!("Bill {id} in QuickBooks, of payout {number}: {what}");
        if self.payout.state == PayoutState::Void {
            return Some(of(format!(
                "the payout is void and its commissions may be paid by another, but the Bill is there and comes to {}: delete it",
                total.0
            )));
        }
        if minor_of(total, pays.currency) != Some(pays.amount) {
            return Some(of(format!("it was sent as {pays} and comes to {} now: set it back", total.0)));
        }
        if let Some(vendor) = vendor {
            return Some(of(format!("it was sent for vendor {vendor} and is of vendor {} now", bill.vendor_ref.value)));
        }
        let open = bill.balance.unwrap_or_default();
        let settled = minor_of(Amount(total.0 - open.0), pays.currency).unwrap_or(pays.amount);
        if cash < settled {
            let cash = Money::new(cash, pays.currency);
            let open = if open.0.is_zero() { "nothing".to_owned() } else { open.0.to_string() };
            return Some(of(format!(
                "{open} is open of its {pays}, but only {cash} was paid with money, the rest by credits: take the credits off, or pay the \
                 partner what is missing"
            )));
        }
        None
    }

    /// Keeps what was seen: links of payments, the vendor it is of, and an exception while something differs.
    async fn note(
        &self,
        id: &str,
        bill: Option<&Bill>,
        payments: &[BillPayment],
        differs: Option<&str>,
    ) -> Result<(), Failed> {
        let (context, currency) = (self.context(), self.payout.paid_in());
        until_fresh(async || {
            let Some(read) = context.store.quickbooks_bill(OPERATION, &self.payout.id).await? else { return Ok(()) };
            let mut new = read.clone();
            if let Some(bill) = bill {
                new.vendor.clone_from(&bill.vendor_ref.value);
            }
            for paid in new.payments.values_mut() {
                *paid = Minor::ZERO;
            }
            for payment in payments {
                let cash = minor_of(payment.cash_to(id), currency).unwrap_or_default();
                new.payments.insert(payment.id.clone(), cash);
            }
            let mut transaction = Transaction::new(OPERATION);
            self.trouble(&mut transaction, &read, &mut new, differs).await?;
            if new == read {
                return Ok(());
            }
            new.version += 1;
            transaction.set_quickbooks_bill(&new, Some(&read))?;
            Ok(context.store.commit(transaction).await?)
        })
        .await
        .map_err(Failed::Refusal)
    }

    async fn trouble(
        &self,
        transaction: &mut Transaction,
        read: &QuickbooksBill,
        new: &mut QuickbooksBill,
        differs: Option<&str>,
    ) -> Result<()> {
        let context = self.context();
        let filed = match &read.trouble {
            Some(filed) => context.store.exception(OPERATION, filed).await?,
            None => None,
        };
        // Told already. Who resolved it by hand knows, and is not told again of the very same.
        let is_told = filed.is_some() == read.trouble.is_some();
        if is_told && filed.as_ref().map(|filed| filed.detail.as_str()) == differs {
            return Ok(());
        }
        if let Some(former) = &read.trouble {
            let how = if differs.is_some() { "it differs otherwise now" } else { "it is as it was sent again" };
            resolve_in(context, transaction, OPERATION, former, ACTOR, how).await?;
        }
        new.trouble = match differs {
            // What differs as it did before, and was settled in between, is told again.
            Some(differs) => {
                let about = ["bill", self.payout.id.as_str(), differs, &read.version.to_string()];
                let (code, program) = (ExceptionCode::BillDiffers, Some(&self.payout.program));
                Some(file_in(context, transaction, code, program, &about, differs.to_owned())?)
            }
            None => None,
        };
        Ok(())
    }

    /// The day that stands on the last payment, in the program's calendar: today's is now.
    async fn paid_at(&self, last: Option<&BillPayment>) -> Result<Timestamp, Failed> {
        let now = self.context().now();
        let Some(dated) = last.and_then(|last| last.txn_date) else { return Ok(now) };
        let program = self.context().store.program(OPERATION, &self.payout.program).await?;
        let zone = program.ok_or(Refusal::NotFound("program"))?.time_zone.time_zone();
        if dated >= now.to_zoned(zone.clone()).date() {
            return Ok(now);
        }
        let noon = dated.at(12, 0, 0, 0).to_zoned(zone).map_or(now, |noon| noon.timestamp());
        Ok(noon.clamp(self.payout.created_at.min(now), now))
    }
}

/// What follows a refusal.
enum Next {
    /// This instead.
    Send(Box<QuickbooksBill>),
    /// Nothing: it is there.
    Take(Box<Bill>),
    Fail,
}

/// Intuit's words, and what to do about them.
pub(super) fn explained(fault: &Fault) -> String {
    let what = match fault.code.0.trim_start_matches('0') {
        "6200" | "6210" => "open the period there, or set its closing date back, and retry",
        "610" | "2500" => "see that the vendor, the accounts and the term that were chosen are in use there, and retry",
        "6140" => "give the other transaction another number, and retry",
        _ => "set right what it names, and retry",
    };
    format!("{fault}; {what}")
}

/// The request's name: at most 50 characters, and another for whatever else is sent.
fn request_of(payout: &Payout, anew: u32) -> String {
    let name = format!("{}/{}/{anew}", payout.id, payout.attempts);
    format!("b{}", &Hash::of(name.as_bytes()).as_str()[..40])
}

/// Whether the memo names the payout.
pub(super) fn is_marked(bill: &Bill, payout: &Payout) -> bool {
    bill.private_note.as_deref().is_some_and(|note| note.contains(payout.id.as_str()))
}

fn amount_of(money: Money) -> Amount {
    Amount(Decimal::from_str_exact(&money.decimal()).unwrap_or_default())
}

/// `None` where it has more decimals than the currency.
pub(super) fn minor_of(amount: Amount, currency: Currency) -> Option<Minor> {
    let units = amount.0.checked_mul(Decimal::from(10_i64.checked_pow(currency.exponent())?))?;
    if units.fract().is_zero() { Minor::round(units).ok() } else { None }
}

fn cut_to(text: &str, chars: usize) -> String {
    text.chars().take(chars).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_come_back_as_they_were_sent() {
        for (code, units, text) in [("USD", 2_000, "20.00"), ("JPY", 500, "500"), ("KWD", -1_234, "-1.234")] {
            let currency: Currency = code.parse().unwrap();
            let money = Money::new(Minor::new(units).unwrap(), currency);
            assert_eq!(amount_of(money).0.to_string(), text);
            assert_eq!(minor_of(amount_of(money), currency), Some(money.amount));
        }
        assert_eq!(minor_of(Amount("1.005".parse().unwrap()), "USD".parse().unwrap()), None);
    }
}
