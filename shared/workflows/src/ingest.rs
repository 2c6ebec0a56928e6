//! Ingest: one accepted event, one effect, whatever the order, the duplicates and the crashes.
//!
//! A conversion is the stream of its events. Each is appended at the next free position, so two writers cannot both
//! believe they saw all of it: a refund that arrives first takes position 1, and its sale, finding it, takes 2.

use domain::accrual::{Circumstances, Terms};
use domain::anomaly::Beat;
use domain::booking::{Accruing, State};
use domain::conversion::{ConversionEvent, EventBody, EventKind, Impossible, Sale};
use domain::exchange::ExchangeRate;
use domain::ids::{ConversionId, LineId, SourceId};
use domain::journal::{Entry, What};
use domain::money::{Currency, Minor};
use domain::order::Order;
use domain::program::Program;
use domain::rating::Standing;
use jiff::Timestamp;
use jiff::civil::Date;
use store::{Because, EventClaim, ExceptionCode, KnownCustomer, Purchase, Transaction, Unrewarded};

use crate::attribution::{Found, Search, SearchError, find, in_version, rules_in_force};
use crate::changes::{OpenPayouts, until_fresh, write};
use crate::context::Context;
use crate::error::{Refusal, Result};
use crate::exceptions::Trouble;
use crate::history::{History, Step};

const OPERATION: &str = "accrue";
const REFUND: &str = "refund";
const EDIT: &str = "edit";
/// Lines of one conversion: they are written in one transaction.
pub const MAX_LINES: usize = 36;
/// An accepted event is one journal entry, and so one item.
const MAX_EVENT_BYTES: usize = 100_000;

/// What becomes of a sale that names a partner the program does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownPartner {
    /// It is refused: the caller can mend it.
    Refuse,
    /// It is kept unattributed, and filed for a person: it was meant for somebody.
    File,
    /// It is kept unattributed: storefronts pass on whatever stands in a link.
    Ignore,
}

/// An event whose source and program are known.
#[derive(Debug, Clone)]
pub struct Incoming<'a> {
    pub program: &'a Program,
    pub source: &'a SourceId,
    pub event: &'a ConversionEvent,
    pub received_at: Timestamp,
    pub unknown_partner: UnknownPartner,
    /// As received, to be kept with an exception: headers that reading it needs, and body.
    pub headers: &'a [(String, String)],
    pub body: Option<&'a str>,
}

/// What an event did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ingested {
    /// Booked; which lines came of it or changed.
    Applied { lines: Vec<LineId> },
    /// Seen before, with the same content.
    AlreadyApplied,
    /// A refund, edit or withdrawal whose sale has not arrived.
    AwaitingSale,
    /// A sale whose partner is not known.
    Unattributed,
}

impl Ingested {
    /// Its name in answers.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Applied { .. } => "applied",
            Self::AlreadyApplied => "already_applied",
            Self::AwaitingSale => "awaiting_sale",
            Self::Unattributed => "unattributed",
        }
    }
}

/// Why an event was not booked.
#[derive(Debug, thiserror::Error)]
pub enum NotBooked {
    #[error(transparent)]
    Impossible(#[from] Impossible),
    #[error("no rate from {from} to {to} was published for {date} or the 7 days before it")]
    NoExchangeRate { from: Currency, to: Currency, date: Date },
    #[error("the order is in {sale}, this in {event}")]
    OtherCurrency { sale: Currency, event: Currency },
    #[error("an event with this id was accepted before, with other content")]
    Contradiction,
    #[error("no published rule set was in force at {0}")]
    NoRules(Timestamp),
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl NotBooked {
    /// What to file it as; `None` where trying again is the answer.
    pub const fn exception(&self) -> Option<ExceptionCode> {
        match self {
            Self::Impossible(_) => Some(ExceptionCode::Impossible),
            Self::NoExchangeRate { .. } => Some(ExceptionCode::ExchangeRateMissing),
            Self::OtherCurrency { .. } => Some(ExceptionCode::OtherCurrency),
            Self::Contradiction => Some(ExceptionCode::Contradiction),
            Self::NoRules(_) => Some(ExceptionCode::NoRules),
            Self::Refused(refusal) if refusal.is_transient() => None,
            Self::Refused(_) => Some(ExceptionCode::Impossible),
        }
    }
}

impl From<SearchError> for NotBooked {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::Impossible(impossible) => Self::Impossible(impossible),
            SearchError::Refused(refusal) => Self::Refused(refusal),
        }
    }
}

impl From<store::StoreError> for NotBooked {
    fn from(error: store::StoreError) -> Self {
        Self::Refused(error.into())
    }
}

pub fn conversion_id(incoming: &Incoming<'_>) -> ConversionId {
    ConversionId::derive(&incoming.program.id, incoming.source, incoming.event.order())
}

pub async fn ingest(context: &Context, incoming: Incoming<'_>) -> Result<Ingested, NotBooked> {
    incoming.event.check(context.now())?;
    if serde_json::json!(incoming.event).to_string().len() > MAX_EVENT_BYTES {
        return Err(Impossible { field: "", why: "the event is larger than 100 kB".to_owned() }.into());
    }
    until_fresh(|| async {
        match Box::pin(attempt(context, &incoming)).await {
            // Only what is overtaken is tried again; everything else goes out as it is.
            Err(NotBooked::Refused(refusal)) => Err(refusal),
            other => Ok(other),
        }
    })
    .await?
}

const fn operation(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Sale => OPERATION,
        EventKind::Edit => EDIT,
        EventKind::Refund | EventKind::Withdrawal => REFUND,
    }
}

async fn attempt(context: &Context, incoming: &Incoming<'_>) -> Result<Ingested, NotBooked> {
    let conversion = conversion_id(incoming);
    let event = incoming.event;
    let kind = event.body.kind();
    let history = History::read(context, operation(kind), &conversion).await?;
    if let Some(seen) = history.same(event) {
        return if seen.content() == event.content() {
            Ok(Ingested::AlreadyApplied)
        } else {
            Err(NotBooked::Contradiction)
        };
    }
    if kind != EventKind::Sale
        && let Some(claim) = context.store.event_claim(operation(kind), incoming.source, kind, &event.id).await?
    {
        // Either the id stands for another order, or this very event was accepted since the history was read.
        let elsewhere = claim.conversion != conversion;
        return Err(if elsewhere { NotBooked::Contradiction } else { store::StoreError::Stale.into() });
    }
    if let (Some(sale), Some(event)) =
        (history.sale().and_then(|entry| entry.event.as_ref()?.currency()), event.currency())
        && sale != event
    {
        return Err(NotBooked::OtherCurrency { sale, event });
    }
    let order = history.order_with(event).map_err(NotBooked::from)?;
    match (&event.body, &order) {
        (EventBody::Sale(sale), Some(order)) => {
            Box::pin(accrue(context, incoming, &conversion, &history, sale, order)).await
        }
        (_, None) => park(context, incoming, &conversion, &history).await,
        (_, Some(order)) => Box::pin(change(context, incoming, &conversion, &history, order)).await,
    }
}

fn entry(incoming: &Incoming<'_>, conversion: &ConversionId, history: &History, what: What, now: Timestamp) -> Entry {
    let mut entry = Entry::new(conversion.as_str(), history.next_position(), now, incoming.source.as_str(), what);
    entry.event = Some(incoming.event.clone());
    entry.received_at = Some(incoming.received_at);
    entry
}

async fn accrue(
    context: &Context,
    incoming: &Incoming<'_>,
    conversion: &ConversionId,
    history: &History,
    sale: &Sale,
    order: &Order,
) -> Result<Ingested, NotBooked> {
    let now = context.now();
    let program = incoming.program;
    let occurred_at = incoming.event.occurred_at;
    let exchange = exchange(context, OPERATION, program, sale, occurred_at).await?;
    let net = in_program_currency(sale, exchange.as_ref())?;
    if order.other_currency {
        let detail = "a refund or edit that came before the sale is in another currency; it moved nothing";
        file_trouble(context, incoming, ExceptionCode::OtherCurrency, detail).await?;
    }
    let mut entry = entry(incoming, conversion, history, What::Accrue, now);
    let mut transaction = Transaction::new(OPERATION);
    let customer = context.store.customer(OPERATION, &program.id, &sale.customer).await?;
    let search = Search { program, sale, occurred_at, customer: &customer, unknown_partner: incoming.unknown_partner };
    let found = find(context, &search).await?;
    let purchase = Purchase {
        conversion: conversion.clone(),
        source: incoming.source.clone(),
        total: sale.total,
        currency: sale.currency,
        at: occurred_at,
    };
    if sale.action.is_purchase() {
        let parts = found.as_ref().map(Found::parts).unwrap_or_default();
        let visitor = sale.visitor_id.as_deref().and_then(|visitor| visitor.parse().ok());
        transaction.remember_purchase(&customer, &purchase, &parts, visitor.as_ref())?;
    }
    let Some(found) = found else {
        entry.note = Some("unattributed".to_owned());
        if sale.partner.is_some() && incoming.unknown_partner == UnknownPartner::File {
            let detail = "the sale names a partner the program does not have; it is kept unattributed";
            file_trouble(context, incoming, ExceptionCode::UnknownPartner, detail).await?;
        }
        let listed = unrewarded(incoming, conversion, sale, Because::Unattributed);
        transaction.list_unrewarded(&Unrewarded { objection: duplicate(sale, &purchase, &customer), ..listed })?;
        write(&context.store, transaction, OPERATION, entry, vec![], &OpenPayouts::default()).await?;
        return Ok(Ingested::Unattributed);
    };
    let set = rules_in_force(context, OPERATION, program, occurred_at).await?.ok_or(NotBooked::NoRules(occurred_at))?;
    let is_back = is_back(history.events().chain([incoming.event]));
    let sold = Sold { sale, net, purchase: &purchase, customer: &customer, is_back };
    let objection = objection(context, incoming, &mut transaction, &sold, &found).await?;
    let circumstances = Circumstances {
        rule_set: set.version,
        terms: Terms::of(program),
        evidence: found.evidence.clone(),
        touches: found.touches.clone(),
        weights: found.weights.clone(),
        partners: found.credited(),
        customer: if sale.action.is_purchase() { customer.standing(conversion) } else { Standing::default() },
        exchange,
        objection,
    };
    let circumstances = in_version(context, OPERATION, program, conversion, order, circumstances).await?;
    // Refunds and edits that were waiting for this sale apply before anything is written.
    file_excess(context, incoming, order).await?;
    let step = Step {
        operation: OPERATION,
        program,
        conversion,
        order: incoming.event.order(),
        before: State::default(),
        after: State { order: Some(order), attribution: 0 },
        lines: &[],
        decided: Vec::new(),
        accruing: Some(Accruing { circumstances: &circumstances, by_hand: None }),
        open: &OpenPayouts::default(),
        unless_rewarded: Some(unrewarded(incoming, conversion, sale, Because::NoRule)),
        received_at: incoming.received_at,
        now,
    };
    let written = step.write(context, transaction, entry, MAX_LINES).await.map_err(too_many)?;
    Ok(Ingested::Applied { lines: written.lines.into_iter().map(|line| line.id).collect() })
}

/// How a sale in another currency than the program's is converted. One that nobody is known to have caused needs it, too: whoever attributes
/// it later finds it.
pub async fn exchange(
    context: &Context,
    operation: &'static str,
    program: &Program,
    sale: &Sale,
    occurred_at: Timestamp,
) -> Result<Option<ExchangeRate>, NotBooked> {
    let (from, to) = (sale.currency, program.currency);
    if from == to {
        return Ok(None);
    }
    let date = crate::exchange::day_of(occurred_at);
    let rate = crate::exchange::rate(context, operation, from, to, date).await?;
    rate.ok_or(NotBooked::NoExchangeRate { from, to, date }).map(Some)
}

/// What the goods of a sale come to.
fn in_program_currency(sale: &Sale, exchange: Option<&ExchangeRate>) -> Result<Minor, NotBooked> {
    let net = sale.net().map_err(Refusal::from)?;
    let Some(rate) = exchange else { return Ok(net) };
    let converted = rate.convert(net).map(|money| money.amount).ok().filter(|amount| amount.is_credible());
    converted.ok_or_else(|| {
        let why = format!("is more than 10^12 minor units of {}", rate.to);
        Impossible { field: "/amount/total", why }.into()
    })
}

fn unrewarded(incoming: &Incoming<'_>, conversion: &ConversionId, sale: &Sale, because: Because) -> Unrewarded {
    Unrewarded {
        conversion: conversion.clone(),
        because,
        program: incoming.program.id.clone(),
        source: incoming.source.clone(),
        order: incoming.event.order().to_owned(),
        total: sale.total,
        currency: sale.currency,
        occurred_at: incoming.event.occurred_at,
        objection: None,
        attributed: false,
    }
}

/// A sale that another source may have told already.
fn duplicate(sale: &Sale, purchase: &Purchase, customer: &KnownCustomer) -> Option<String> {
    let other = customer.duplicate(purchase).filter(|_| sale.action.is_purchase())?;
    let other = &other.conversion;
    Some(format!("possible_duplicate: conversion {other} from another source is for the same customer and amount"))
}

/// A sale as it may be objected to.
struct Sold<'a> {
    sale: &'a Sale,
    /// In the program's currency.
    net: Minor,
    purchase: &'a Purchase,
    customer: &'a KnownCustomer,
    /// Something of it went back before it was known.
    is_back: bool,
}

/// What makes its lines stop at once: a sale that another source may have told already, or what the program's anomaly rules object to.
async fn objection(
    context: &Context,
    incoming: &Incoming<'_>,
    transaction: &mut Transaction,
    sold: &Sold<'_>,
    found: &Found,
) -> Result<Option<String>, NotBooked> {
    let &Sold { sale, net, purchase, customer, is_back } = sold;
    let mut objection = duplicate(sale, purchase, customer);
    let rules = &incoming.program.anomaly_rules;
    if rules.is_off() {
        return Ok(objection);
    }
    let beat = Beat {
        at: incoming.event.occurred_at,
        customer: sale.customer.id.clone().or_else(|| sale.customer.email_hash.clone()),
        visitor: sale.visitor_id.clone(),
    };
    for (partner, _) in &found.partners {
        let read = context.store.pulse(OPERATION, &partner.id).await?;
        if objection.is_none() {
            let found = read.pulse.objection(rules, &beat, net).map_err(Refusal::from)?;
            objection = found.map(|why| format!("anomaly: {why}"));
        }
        let pulse = read.pulse.clone().with(beat.clone(), net).map_err(Refusal::from)?;
        transaction.pulse(&read, if is_back { pulse.refunded() } else { pulse })?;
    }
    Ok(objection)
}

/// Too many lines are the order's fault, not the caller's.
fn too_many(refusal: Refusal) -> NotBooked {
    match refusal {
        Refusal::Invalid(errors) if errors.first().is_some_and(|error| error.pointer == "/items") => {
            let why = errors.into_iter().next().map(|error| error.detail).unwrap_or_default();
            Impossible { field: "/items", why }.into()
        }
        other => other.into(),
    }
}

/// A transaction of something other than a sale, which takes its id for this conversion.
fn claiming(incoming: &Incoming<'_>, conversion: &ConversionId) -> Result<Transaction, NotBooked> {
    let kind = incoming.event.body.kind();
    let mut transaction = Transaction::new(operation(kind));
    transaction.claim_event(&EventClaim {
        source: incoming.source.clone(),
        kind,
        id: incoming.event.id.clone(),
        conversion: conversion.clone(),
    })?;
    Ok(transaction)
}

async fn park(
    context: &Context,
    incoming: &Incoming<'_>,
    conversion: &ConversionId,
    history: &History,
) -> Result<Ingested, NotBooked> {
    let entry = entry(incoming, conversion, history, What::AwaitSale, context.now());
    let operation = operation(incoming.event.body.kind());
    write(&context.store, claiming(incoming, conversion)?, operation, entry, vec![], &OpenPayouts::default()).await?;
    Ok(Ingested::AwaitingSale)
}

/// A refund, edit or withdrawal of an order that is known.
async fn change(
    context: &Context,
    incoming: &Incoming<'_>,
    conversion: &ConversionId,
    history: &History,
    order: &Order,
) -> Result<Ingested, NotBooked> {
    let now = context.now();
    let kind = incoming.event.body.kind();
    let operation = operation(kind);
    let before = history.order().map_err(NotBooked::from)?;
    let lines = history.lines(context, operation).await?;
    let open = OpenPayouts::of(&context.store, operation, &lines).await?;
    open.settle_first(context).await?;
    file_excess(context, incoming, order).await?;
    let what = match kind {
        EventKind::Sale => What::Accrue,
        EventKind::Refund => What::Refund,
        EventKind::Edit => What::Edit,
        EventKind::Withdrawal => What::Withdraw,
    };
    let mut transaction = claiming(incoming, conversion)?;
    note_refund(context, incoming, history, &mut transaction).await?;
    // An edit is rated as the sale was: the same partners, the same version.
    let circumstances = history.circumstances().filter(|_| kind == EventKind::Edit);
    let attribution = history.attribution();
    let step = Step {
        operation,
        program: incoming.program,
        conversion,
        order: incoming.event.order(),
        before: State { order: before.as_ref(), attribution },
        after: State { order: Some(order), attribution },
        lines: &lines,
        decided: lines.clone(),
        accruing: circumstances.map(|circumstances| Accruing { circumstances, by_hand: None }),
        open: &open,
        unless_rewarded: None,
        received_at: incoming.received_at,
        now,
    };
    let entry = entry(incoming, conversion, history, what, now);
    let written = step.write(context, transaction, entry, MAX_LINES).await.map_err(too_many)?;
    Ok(Ingested::Applied { lines: written.lines.into_iter().map(|line| line.id).collect() })
}

/// Whether a refund of the sale stands among the events. One in another currency measures nothing.
fn is_back<'a>(events: impl Iterator<Item = &'a ConversionEvent>) -> bool {
    let events: Vec<_> = events.collect();
    let sold_in = events.iter().find_map(|event| event.body.sale()).map(|sale| sale.currency);
    let is_withdrawn = |id: &str| {
        events.iter().any(|event| matches!(&event.body, EventBody::Withdrawal(withdrawal) if withdrawal.refund == id))
    };
    let mut refunds = events.iter().filter(|event| event.body.kind() == EventKind::Refund);
    refunds.any(|refund| refund.currency() == sold_in && !is_withdrawn(&refund.id))
}

/// A conversion of which something went back counts in the refund rate of the partners whose conversions it counts among, where anybody
/// asks for that; and no more once no refund of it stands.
async fn note_refund(
    context: &Context,
    incoming: &Incoming<'_>,
    history: &History,
    transaction: &mut Transaction,
) -> Result<(), NotBooked> {
    let before = is_back(history.events());
    let after = is_back(history.events().chain([incoming.event]));
    if before == after || incoming.program.anomaly_rules.is_off() {
        return Ok(());
    }
    let counted = history.sale().and_then(|sale| sale.circumstances.as_ref());
    for credited in counted.iter().flat_map(|circumstances| &circumstances.partners) {
        let read = context.store.pulse(REFUND, &credited.partner).await?;
        let pulse = read.pulse.clone();
        transaction.pulse(&read, if after { pulse.refunded() } else { pulse.not_refunded() })?;
    }
    Ok(())
}

/// A refund beyond the charge is clamped, and somebody should look. Filed before the reversal is written, so that a crash
/// between the two files it again rather than never.
async fn file_excess(context: &Context, incoming: &Incoming<'_>, order: &Order) -> Result<(), NotBooked> {
    if order.beyond_charge {
        let detail = "more was refunded than was charged; no more than the whole commission was taken back";
        file_trouble(context, incoming, ExceptionCode::RefundBeyondCharge, detail).await?;
    }
    Ok(())
}

async fn file_trouble(
    context: &Context,
    incoming: &Incoming<'_>,
    code: ExceptionCode,
    detail: &str,
) -> Result<(), NotBooked> {
    let trouble = Trouble {
        code,
        detail: detail.to_owned(),
        program: Some(&incoming.program.id),
        source: Some(incoming.source),
        order: Some(incoming.event.order()),
        received_at: incoming.received_at,
        headers: incoming.headers,
        body: incoming.body,
    };
    crate::exceptions::file(context, trouble).await?;
    Ok(())
}
