//! Rails: whoever moves the money of an approved payout, and what became of it there.
//!
//! The order of things is the same for every rail that a program asks: `submitting` is written before the first byte leaves; while the
//! outcome is unknown the payout stays so and is asked for again under the same name; only a refusal for good fails it. What a rail
//! reports later is read from the rail, never believed from a message.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use aws_sdk_secretsmanager::error::ProvideErrorMetadata;
use domain::ids::{PayoutId, ProgramId};
use domain::money::Minor;
use domain::payout::{Payout, PayoutState, Teller};
use domain::program::{MethodKind, PayoutMethod};
use domain::remittance::{PaypalItem, PaypalReceiver, Remittance};
use jiff::{SignedDuration, Timestamp};
use outbound::Outbound;
use paypal::{ApiError, Client, Credentials, Environment, Item, ItemStatus, Recipient, Secret, Wallet};
use store::{ExceptionCode, PaypalConnection, PaypalEnvironment, StoreError, Transaction};

use crate::context::Context;
use crate::error::{Refusal, Result};
use crate::payouts;
use crate::queues::SubmissionPayout;
use crate::quickbooks::Quickbooks;

const OPERATION: &str = "submit payout";
/// Whoever the journal says did it.
const ACTOR: &str = "submit-payouts";
/// PayPal knows a name again for 30 days.
const RESEND_FOR: SignedDuration = SignedDuration::from_hours(25 * 24);
/// How long a connection is kept before it is read again.
const KEPT: Duration = Duration::from_mins(1);
/// Payments younger than this are looked after by every tick, older ones once a day.
const YOUNG: SignedDuration = SignedDuration::from_hours(24);

/// How long an approved payout may wait for its turn before the next tick asks for it once more.
const QUEUED: SignedDuration = SignedDuration::from_mins(30);

/// A system that moves money when it is asked to.
pub trait Rail {
    /// How long it knows a name again. Before that ends, nothing is sent a second time whose first outcome is unknown. `None`: for ever.
    const REMEMBERS: Option<SignedDuration>;

    /// Asks it to pay. The same name again is the same payment, whatever became of the first time.
    fn send(&self, order: &Order<'_>) -> impl Future<Output = Sent> + Send;

    /// What became of a payment it took.
    fn look(&self, taken_as: &str) -> impl Future<Output = Result<Found>> + Send;
}

/// What a rail is asked to pay.
#[derive(Debug)]
pub struct Order<'a> {
    /// The payment's own name: the payout and the attempt. An attempt ends only with the rail's word that no money moved.
    pub name: &'a str,
    pub what: Remittance<'a>,
}

/// What a rail says to an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// It took it; under which name of its own.
    Taken(String),
    /// It refuses for good, and nothing moved.
    Refused(String),
    /// Nobody knows, or nothing was sent: to be asked again.
    Again(String),
    /// The same, but only once somebody has done something about it: the next tick after that asks again.
    Waits(String),
}

/// What a rail says of a payment it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    UnderWay,
    /// The recipient has it; the rail's reference.
    Paid(String),
    /// No money moved, and none will.
    Failed(String),
    /// It moved, and is back.
    CameBack(String),
    /// So much of it is paid in all, nothing or everything: the rail's reference, and when.
    Cash {
        amount: Minor,
        reference: Option<String>,
        at: Timestamp,
    },
    /// The rail no longer knows it, and so will not pay it; what it had paid came back.
    Gone(String),
}

impl Rail for Client {
    const REMEMBERS: Option<SignedDuration> = Some(RESEND_FOR);

    async fn send(&self, order: &Order<'_>) -> Sent {
        let item = match order.what.paypal_item() {
            Ok(item) => item,
            Err(unfit) => return Sent::Refused(unfit.to_string()),
        };
        match self.pay(&paypal_order(order, item)).await {
            Ok(batch) => Sent::Taken(batch),
            Err(ApiError::Refused(refusal)) => Sent::Refused(refusal.to_string()),
            Err(error) => Sent::Again(error.to_string()),
        }
    }

    async fn look(&self, batch: &str) -> Result<Found> {
        let became = self.payment(batch).await.map_err(|error| Refusal::Service("PayPal", error.to_string()))?;
        let became = became.ok_or_else(|| Refusal::Service("PayPal", format!("it knows no batch {batch}")))?;
        let why = |what: &str| if became.why.is_empty() { what.to_owned() } else { format!("{what}: {}", became.why) };
        Ok(match became.status {
            ItemStatus::Success => Found::Paid(became.transaction.clone().unwrap_or_else(|| batch.to_owned())),
            ItemStatus::Failed => Found::Failed(why("PayPal could not send it")),
            ItemStatus::Blocked => Found::Failed(why("PayPal blocked it")),
            ItemStatus::Denied => Found::Failed(why("PayPal denied it")),
            ItemStatus::Canceled => Found::Failed(why("it was cancelled at PayPal")),
            ItemStatus::Returned => Found::CameBack(why("nobody claimed it, so PayPal sent it back")),
            ItemStatus::Refunded => Found::CameBack(why("the recipient sent it back")),
            ItemStatus::Reversed => Found::CameBack(why("PayPal took it back")),
            ItemStatus::Pending | ItemStatus::Unclaimed | ItemStatus::Onhold | ItemStatus::New => Found::UnderWay,
        })
    }
}

fn paypal_order(order: &Order<'_>, item: PaypalItem) -> Item {
    let recipient = match item.receiver_kind {
        PaypalReceiver::Email => Recipient::Email(item.receiver),
        PaypalReceiver::PayerId => Recipient::PayerId(item.receiver),
        PaypalReceiver::Phone => Recipient::Phone(item.receiver),
        PaypalReceiver::VenmoHandle => Recipient::Handle(item.receiver),
    };
    Item {
        name: order.name.to_owned(),
        recipient,
        wallet: if item.venmo { Wallet::Venmo } else { Wallet::Paypal },
        value: item.value,
        currency: order.what.pays.currency.code().to_owned(),
        note: item.note,
    }
}

/// The way to PayPal, and the connections that were used lately.
#[derive(Debug)]
pub struct Paypal {
    outbound: Outbound,
    /// Instead of PayPal's own address: where a counterpart is, in the local system and tests.
    endpoint: Option<String>,
    /// With the moment they were read, until they are doubted.
    known: Mutex<BTreeMap<ProgramId, (Option<Instant>, Connected)>>,
}

/// A program's connection, ready to be used.
#[derive(Debug, Clone)]
pub struct Connected {
    pub client: Client,
    pub webhook_id: String,
}

impl Paypal {
    pub const fn new(outbound: Outbound, endpoint: Option<String>) -> Self {
        Self { outbound, endpoint, known: Mutex::new(BTreeMap::new()) }
    }

    /// `None` where a program has none: its payouts wait for a file.
    pub async fn connected(&self, context: &Context, program: &ProgramId) -> Result<Option<Connected>> {
        let known = self.known.lock().ok().and_then(|known| known.get(program).cloned());
        let is_fresh = |(since, _): &&(Option<Instant>, Connected)| since.is_some_and(|since| since.elapsed() < KEPT);
        if let Some((_, connected)) = known.as_ref().filter(is_fresh) {
            return Ok(Some(connected.clone()));
        }
        let connection = context.store.paypal(OPERATION, program).await?;
        let Some(connection) = connection.filter(|connection| connection.enabled) else {
            return Ok(None);
        };
        let Some(secret) = secret(context, program).await? else { return Ok(None) };
        let environment = match (&self.endpoint, connection.environment) {
            (Some(endpoint), _) => Environment(endpoint.clone()),
            (None, PaypalEnvironment::Live) => Environment::live(),
            (None, PaypalEnvironment::Sandbox) => Environment::sandbox(),
        };
        let credentials = Credentials { id: connection.client_id, secret };
        // The same connection keeps its access token.
        let client =
            known.map(|(_, connected)| connected.client).filter(|client| client.is_for(&environment, &credentials));
        let client = client.unwrap_or_else(|| Client::new(self.outbound.clone(), environment, credentials));
        let connected = Connected { client, webhook_id: connection.webhook_id };
        if let Ok(mut known) = self.known.lock() {
            known.insert(program.clone(), (Some(Instant::now()), connected.clone()));
        }
        Ok(Some(connected))
    }
}

impl Paypal {
    /// Has a connection read again before it is used again: it may have been changed a moment ago.
    fn doubt(&self, program: &ProgramId) {
        if let Ok(mut known) = self.known.lock()
            && let Some((since, _)) = known.get_mut(program)
        {
            *since = None;
        }
    }
}

fn secret_name(context: &Context, program: &ProgramId) -> String {
    format!("{}/paypal/{program}", context.secret_prefix)
}

async fn secret(context: &Context, program: &ProgramId) -> Result<Option<Secret>> {
    match context.secrets.get_secret_value().secret_id(secret_name(context, program)).send().await {
        Ok(value) => Ok(value.secret_string.map(Secret::new)),
        Err(error) if error.code() == Some("ResourceNotFoundException") => Ok(None),
        Err(error) => Err(Refusal::Service("Secrets Manager", error.code().unwrap_or("no answer").to_owned())),
    }
}

/// Connects a program to PayPal, or changes how. The secret first: it alone does nothing.
pub async fn connect_paypal(
    context: &Context,
    new: &PaypalConnection,
    read: Option<&PaypalConnection>,
    secret: Option<&str>,
) -> Result<()> {
    if let Some(secret) = secret {
        let name = secret_name(context, &new.program);
        let refused = |code: Option<&str>| Refusal::Service("Secrets Manager", code.unwrap_or("no answer").to_owned());
        match context.secrets.create_secret().name(&name).secret_string(secret).send().await {
            Ok(_) => {}
            Err(error) if error.code() == Some("ResourceExistsException") => {
                let put = context.secrets.put_secret_value().secret_id(&name).secret_string(secret).send().await;
                put.map_err(|error| refused(error.code()))?;
            }
            Err(error) => return Err(refused(error.code())),
        }
    }
    let mut transaction = Transaction::new("connect PayPal");
    transaction.set_paypal(new, read)?;
    match context.store.commit(transaction).await {
        Err(StoreError::Stale) => Err(Refusal::Stale(vec!["somebody changed the connection meanwhile".to_owned()])),
        other => Ok(other?),
    }
}

/// What was done about a payout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Done {
    /// It is none of a rail's business: not approved, ended, or waiting for a file or a person.
    Nothing,
    /// It may not be sent now, and waits.
    Waits,
    Submitted,
    Failed,
    /// The rail was asked, and says the same as before or something new.
    Looked,
}

/// The ways to all rails that can be asked.
#[derive(Debug)]
pub struct Rails {
    pub paypal: Paypal,
    pub quickbooks: Quickbooks,
}

/// Submits an approved payout where its rail can be asked, goes on with one that is on its way, and looks after one that a rail has. Safe to
/// repeat, and to run twice at once. An error asks to be called again.
pub async fn attend(context: &Context, rails: &Rails, asked: &SubmissionPayout) -> Result<Done> {
    let (id, paypal) = (&asked.id, &rails.paypal);
    let payout = context.store.payout(OPERATION, id).await?.ok_or(Refusal::NotFound("payout"))?;
    if payout.method == MethodKind::Quickbooks {
        return Box::pin(crate::quickbooks::attend(context, &rails.quickbooks, payout, asked.slot)).await;
    }
    let connected = match payout.method {
        MethodKind::Paypal => paypal.connected(context, &payout.program).await?,
        _ => None,
    };
    let program = payout.program.clone();
    let done = match (payout.state, connected) {
        (PayoutState::Submitting, _) if payout.is_sent_by_people() => {
            payouts::hand_over(context, &payout).await.map(|_| Done::Submitted)
        }
        (PayoutState::Approved | PayoutState::Submitting, Some(connected)) => {
            submit(context, &connected.client, payout).await
        }
        // Switched off while it was on its way: PayPal may have paid it, so nobody else does before PayPal can be asked again.
        (PayoutState::Submitting, None) => Ok(Done::Waits),
        (_, Some(connected)) => look_after(context, &connected.client, payout).await,
        _ => Ok(Done::Nothing),
    };
    if done.is_err() {
        paypal.doubt(&program);
    }
    done
}

pub(crate) async fn submit<R: Rail + Sync>(context: &Context, rail: &R, read: Payout) -> Result<Done> {
    let was_submitting = read.state == PayoutState::Submitting;
    // An attempt before this one failed or came back by somebody's word: the rail's own word comes before another is sent.
    if was_submitting
        && let Some(earlier) = &read.processor
        && let Found::UnderWay | Found::Paid(_) = rail.look(earlier).await?
    {
        return still_there(context, rail, &read, earlier).await;
    }
    let (payout, destination) = match payouts::begin_submit(context, &read.id, ACTOR).await {
        Ok(begun) => begun,
        Err(refusal) if refusal.is_transient() => return Err(refusal),
        Err(refusal) => {
            tracing::info!(payout = %read.id, %refusal, "not sent now");
            return Ok(Done::Waits);
        }
    };
    let since = payout.submitting_at.unwrap_or(payout.created_at);
    let is_forgotten = R::REMEMBERS.is_some_and(|time| context.now().duration_since(since) > time);
    if was_submitting && is_forgotten {
        let why = format!(
            "nobody knows since {since} whether it was sent, and the rail will not know it again: look there for {}, and retry it only \
             if it is not to be found",
            name_of(&payout)
        );
        payouts::fail_as_seen(context, &payout, &why, ACTOR).await?;
        return Ok(Done::Failed);
    }
    match send(context, rail, &payout, &destination).await? {
        Sent::Taken(processor) => {
            payouts::taken(context, &payout.id, &processor, ACTOR).await?;
            Ok(Done::Submitted)
        }
        Sent::Refused(why) => {
            payouts::fail_as_seen(context, &payout, &why, ACTOR).await?;
            Ok(Done::Failed)
        }
        // It stays `submitting`, and is asked for again under the same name.
        Sent::Again(why) => Err(Refusal::Service("the rail", why)),
        Sent::Waits(why) => {
            tracing::info!(payout = %payout.id, why, "waits");
            Ok(Done::Waits)
        }
    }
}

/// What stands for the payment at the rail: the payout, and how often it was begun anew after an end without money.
fn name_of(payout: &Payout) -> String {
    format!("{}-{}", payout.id, payout.attempts + 1)
}

/// The payout that a payment's name stands for.
pub fn payout_named(name: &str) -> Option<PayoutId> {
    name.rsplit_once('-')?.0.parse().ok()
}

async fn send<R: Rail>(context: &Context, rail: &R, payout: &Payout, destination: &PayoutMethod) -> Result<Sent> {
    let program = context.store.program(OPERATION, &payout.program).await?.ok_or(Refusal::NotFound("program"))?;
    let order = Order {
        name: &name_of(payout),
        what: Remittance {
            payout: payout.id.as_str(),
            number: &payout.id.number(),
            program: &program.name,
            partner: payout.partner.as_str(),
            details: &destination.details,
            // A part may have been paid by hand before an earlier attempt failed.
            pays: payout.unsent()?,
            source_currency: payout.currency,
            approved_at: payout.approved_at,
        },
    };
    Ok(rail.send(&order).await)
}

/// Somebody said that a payment failed, and the rail says it did not: what the rail says goes, and a person is told.
async fn still_there<R: Rail>(context: &Context, rail: &R, payout: &Payout, processor: &str) -> Result<Done> {
    let detail = format!(
        "payout {} was to be sent again, but the rail has not given up {processor}: it is left there and not sent twice",
        payout.id.number()
    );
    payouts::taken(context, &payout.id, processor, ACTOR).await?;
    report_contradiction(context, payout, &detail).await?;
    let payout = context.store.payout(OPERATION, &payout.id).await?.ok_or(Refusal::NotFound("payout"))?;
    look_after(context, rail, payout).await
}

async fn report_contradiction(context: &Context, payout: &Payout, detail: &str) -> Result<()> {
    let mut transaction = Transaction::new(OPERATION);
    let about = ["rail", payout.id.as_str(), &payout.attempts.to_string(), payout.state.as_str()];
    let code = ExceptionCode::PayoutContradicted;
    crate::exceptions::file_in(context, &mut transaction, code, Some(&payout.program), &about, detail.to_owned())?;
    match context.store.commit(transaction).await {
        Ok(()) | Err(StoreError::Stale) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Reads at the rail what became of a payment, and takes it over.
pub(crate) async fn look_after<R: Rail>(context: &Context, rail: &R, payout: Payout) -> Result<Done> {
    use PayoutState::{Failed, Paid, PartiallyPaid, Returned, Submitted, Void};
    let Some(processor) = &payout.processor else { return Ok(Done::Nothing) };
    if !matches!(payout.state, Submitted | PartiallyPaid | Paid | Failed | Returned | Void) {
        return Ok(Done::Nothing);
    }
    let found = rail.look(processor).await?;
    let (id, ends) = (&payout.id, payout.state);
    match found {
        Found::UnderWay => {}
        Found::Cash { amount, reference, at } if matches!(ends, Submitted | PartiallyPaid | Paid) => {
            payouts::report(context, id, amount, reference.as_deref(), at, ACTOR).await?;
        }
        Found::Gone(why) if matches!(ends, Submitted | PartiallyPaid | Paid) => {
            payouts::report(context, id, Minor::ZERO, None, context.now(), ACTOR).await?;
            payouts::void(context, id, &why, Teller::Rail(ACTOR)).await?;
        }
        Found::Paid(reference) if matches!(ends, Submitted | PartiallyPaid) => {
            let all = payout.pays()?.amount;
            payouts::report(context, id, all, Some(&reference), context.now(), ACTOR).await?;
        }
        Found::Failed(why) if matches!(ends, Submitted | PartiallyPaid) => {
            payouts::fail_as_seen(context, &payout, &why, ACTOR).await?;
        }
        Found::CameBack(why) if matches!(ends, Submitted | PartiallyPaid | Paid) => {
            payouts::come_back_as_seen(context, &payout, &why, ACTOR).await?;
        }
        // Money moved for what is said not to have been paid: nobody may pay that again before looking.
        Found::Paid(reference) if matches!(ends, Failed | Returned | Void) => {
            let detail = format!(
                "payout {} is {}, but the rail paid it as {reference}: have the money sent back, or mark it paid before anything else is \
                 paid to the partner",
                payout.id.number(),
                ends.as_str()
            );
            report_contradiction(context, &payout, &detail).await?;
        }
        _ => {}
    }
    Ok(Done::Looked)
}

/// Ends a payout of which no money moved. Of Bills, QuickBooks is asked; of everything else, it is the word of whoever ends it.
pub async fn void(context: &Context, rails: &Rails, id: &PayoutId, why: &str, by: &str) -> Result<Payout> {
    let payout = context.store.payout(OPERATION, id).await?.ok_or(Refusal::NotFound("payout"))?;
    if payout.method == MethodKind::Quickbooks {
        Box::pin(crate::quickbooks::void(context, &rails.quickbooks, payout, why, by)).await
    } else {
        payouts::void(context, id, why, Teller::Person(by)).await
    }
}

/// Whether the program has some rail asked.
pub async fn has_any(context: &Context, operation: &'static str, program: &ProgramId) -> Result<bool> {
    let paypal = context.store.paypal(operation, program).await?.is_some();
    Ok(paypal || crate::quickbooks::settings_of(context, operation, program).await?.is_some())
}

/// Puts every payout that a rail must be asked about into the queue: for what was missed while something was down.
pub async fn redrive(context: &Context, programs: &[ProgramId], time_left: impl Fn() -> bool) -> Result<usize> {
    let (mut sent, mut at) = (0, Some(store::UnpaidPosition::default()));
    let now = context.now();
    while let Some(position) = at.filter(|_| time_left()) {
        let (payouts, next) = context.store.unpaid_payouts(OPERATION, &position, 100).await?;
        for payout in payouts.iter().filter(|payout| programs.contains(&payout.program) && is_due(payout, now)) {
            context.queues.send_submission(&payout.id).await?;
            sent += 1;
        }
        at = next;
    }
    Ok(sent)
}

fn is_due(payout: &Payout, now: Timestamp) -> bool {
    let taken = || {
        let age = now.duration_since(payout.submitted_at.unwrap_or(payout.created_at));
        payout.processor.is_some() && (age < YOUNG || age.as_hours() % 24 == 0)
    };
    match (payout.method, payout.state) {
        (MethodKind::Paypal, PayoutState::Approved) => true,
        (MethodKind::Paypal, PayoutState::Submitted | PayoutState::PartiallyPaid) => taken(),
        // What was approved a moment ago waits in the queue for its turn. What became of Bills, `reconcile` reads.
        (MethodKind::Quickbooks, PayoutState::Approved | PayoutState::Submitting) => {
            payout.approved_at.is_none_or(|since| now.duration_since(since) >= QUEUED)
        }
        _ => false,
    }
}
