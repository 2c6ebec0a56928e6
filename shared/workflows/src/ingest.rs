//! Ingest: one accepted event, one effect, whatever the order, the duplicates and the crashes.
//!
//! A conversion is the stream of its events. Each is appended at the next free position, so two writers cannot both
//! believe they saw all of it: a refund that arrives first takes position 1, and its sale, finding it, takes 2.

use domain::accrual::Accrual;
use domain::conversion::{Code, ConversionEvent, EventBody, Impossible, PartnerRef, Refund, Refunded, Sale};
use domain::ids::{ConversionId, LineId, PartnerId, SourceId};
use domain::journal::{Change, Entry, Sealed, What};
use domain::line::Evidence;
use domain::program::{Partner, PartnerStatus, Program};
use domain::rules::in_force;
use jiff::Timestamp;
use store::{ExceptionCode, RefundClaim, Transaction};

use crate::changes::{OpenPayouts, counts, move_tallies, until_fresh, write};
use crate::context::Context;
use crate::error::{Refusal, Result};
use crate::exceptions::Trouble;

const OPERATION: &str = "accrue";
const REFUND: &str = "refund";
/// Lines of one conversion: they are written in one transaction.
const MAX_LINES: usize = 36;
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
    /// As received, to be kept with an exception.
    pub body: Option<&'a str>,
}

/// What an event did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ingested {
    /// Booked; which lines came of it or changed.
    Applied { lines: Vec<LineId> },
    /// Seen before, with the same content.
    AlreadyApplied,
    /// A refund whose sale has not arrived.
    AwaitingSale,
    /// A sale whose partner is not known.
    Unattributed,
}

/// Why an event was not booked.
#[derive(Debug, thiserror::Error)]
pub enum NotBooked {
    #[error(transparent)]
    Impossible(#[from] Impossible),
    #[error("the program is in {program}, the event in {event}, and there are no exchange rates yet")]
    ForeignCurrency { program: String, event: String },
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
            Self::ForeignCurrency { .. } => Some(ExceptionCode::ForeignCurrency),
            Self::Contradiction => Some(ExceptionCode::Contradiction),
            Self::NoRules(_) => Some(ExceptionCode::NoRules),
            Self::Refused(refusal) if refusal.is_transient() => None,
            Self::Refused(_) => Some(ExceptionCode::Impossible),
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
    let program = incoming.program.currency;
    if let Some(event) = incoming.event.currency().filter(|event| *event != program) {
        return Err(NotBooked::ForeignCurrency { program: program.to_string(), event: event.to_string() });
    }

    until_fresh(|| async {
        match attempt(context, &incoming).await {
            // Only what is overtaken is tried again; everything else goes out as it is.
            Err(NotBooked::Refused(refusal)) => Err(refusal),
            other => Ok(other),
        }
    })
    .await?
}

/// A conversion as its stream tells it.
struct History {
    chain: Vec<Sealed>,
}

impl History {
    async fn read(context: &Context, operation: &'static str, conversion: &ConversionId) -> Result<Self, NotBooked> {
        Ok(Self { chain: context.store.chain(operation, conversion.as_str()).await? })
    }

    fn next_position(&self) -> u32 {
        self.chain.last().map_or(1, |sealed| sealed.entry.position + 1)
    }

    fn events(&self) -> impl Iterator<Item = &ConversionEvent> {
        self.chain.iter().filter_map(|sealed| sealed.entry.event.as_ref())
    }

    fn sale(&self) -> Option<&Sale> {
        self.events().find_map(|event| event.body.sale())
    }

    fn refunds(&self) -> impl Iterator<Item = &Refund> {
        self.events().filter_map(|event| match &event.body {
            EventBody::Refund(refund) => Some(refund),
            _ => None,
        })
    }

    /// The event of this kind and id that was accepted before.
    fn same(&self, event: &ConversionEvent) -> Option<&ConversionEvent> {
        let kind = std::mem::discriminant(&event.body);
        self.events().find(|seen| seen.id == event.id && std::mem::discriminant(&seen.body) == kind)
    }

    /// Every line the conversion ever made.
    fn lines(&self) -> Vec<LineId> {
        let created = self.chain.iter().flat_map(|sealed| &sealed.entry.lines).filter(|line| line.from.is_none());
        created.map(|line| line.id.clone()).collect()
    }
}

async fn attempt(context: &Context, incoming: &Incoming<'_>) -> Result<Ingested, NotBooked> {
    let conversion = conversion_id(incoming);
    let operation = if matches!(incoming.event.body, EventBody::Sale(_)) { OPERATION } else { REFUND };
    let history = History::read(context, operation, &conversion).await?;
    if let Some(seen) = history.same(incoming.event) {
        return if seen.content() == incoming.event.content() {
            Ok(Ingested::AlreadyApplied)
        } else {
            Err(NotBooked::Contradiction)
        };
    }
    if matches!(incoming.event.body, EventBody::Refund(_))
        && let Some(claim) = context.store.refund_claim(REFUND, incoming.source, &incoming.event.id).await?
    {
        // Either the id stands for another order, or this very refund was accepted since the history was read.
        let elsewhere = claim.conversion != conversion;
        return Err(if elsewhere { NotBooked::Contradiction } else { store::StoreError::Stale.into() });
    }
    match &incoming.event.body {
        EventBody::Sale(sale) => accrue(context, incoming, &conversion, &history, sale).await,
        EventBody::Refund(refund) => match history.sale() {
            Some(sale) => reverse(context, incoming, &conversion, &history, sale, refund).await,
            None => park(context, incoming, &conversion, &history).await,
        },
        EventBody::Edit(_) | EventBody::Withdrawal(_) => {
            Err(Impossible { field: "/type", why: "is not supported yet".to_owned() }.into())
        }
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
) -> Result<Ingested, NotBooked> {
    let now = context.now();
    let mut entry = entry(incoming, conversion, history, What::Accrue, now);
    let mut transaction = Transaction::new(OPERATION);
    let Some((partner, evidence)) = attribute(context, incoming, sale).await? else {
        entry.note = Some("unattributed".to_owned());
        if sale.partner.is_some() && incoming.unknown_partner == UnknownPartner::File {
            let detail = "the sale names a partner the program does not have; it is kept unattributed";
            file_trouble(context, incoming, ExceptionCode::UnknownPartner, detail).await?;
        }
        write(&context.store, transaction, OPERATION, entry, vec![], &OpenPayouts::default()).await?;
        return Ok(Ingested::Unattributed);
    };
    check_partner(&partner, sale)?;
    let sets = context.store.rule_sets(OPERATION, &incoming.program.id).await?;
    let set = in_force(&sets, incoming.event.occurred_at).ok_or(NotBooked::NoRules(incoming.event.occurred_at))?;
    let rules = set.draft.resolve(incoming.program.currency).map_err(Refusal::Invalid)?;

    let mut tallies = Vec::new();
    for rule in rules.iter().filter(|rule| rule.is_tiered()) {
        tallies.push(context.store.tally(OPERATION, &partner.id, &rule.key).await?);
    }
    let accrual = Accrual {
        program: incoming.program,
        partner: &partner,
        evidence: &evidence,
        rule_set: set.version,
        rules: &rules,
        conversion,
        order: incoming.event.order(),
        sale,
        occurred_at: incoming.event.occurred_at,
        received_at: incoming.received_at,
        now,
    };
    let position = |rule: &str| tallies.iter().find(|tally| tally.rule == rule).map_or(0, |tally| tally.count);
    let accrued = accrual.lines(position).map_err(Refusal::from)?;

    // Refunds that were waiting for this sale apply before anything is written.
    let refunded = Refunded::of(sale, history.refunds());
    file_excess(context, incoming, &refunded).await?;
    let mut lines = accrued.lines;
    if lines.len() > MAX_LINES {
        let why = format!("the rules would make {} commissions of it; {MAX_LINES} is the most", lines.len());
        return Err(Impossible { field: "/items", why }.into());
    }
    let none_open = std::collections::BTreeMap::new();
    let reversals = domain::reversal::reverse(sale, &refunded, &lines, &none_open, "", now).map_err(Refusal::from)?;
    for reversal in reversals {
        if let Some(line) = lines.iter_mut().find(|line| line.id == reversal.after.id) {
            *line = reversal.after;
        }
    }
    for tally in tallies.iter().filter(|tally| accrued.counted.contains(&tally.rule)) {
        // A sale that was wholly refunded before it arrived takes no position.
        if lines.iter().any(|line| counts(line, &tally.rule)) {
            transaction.tally(tally, 1)?;
        }
    }
    if lines.is_empty() {
        entry.note = Some("no rule applies".to_owned());
    }
    let changes: Vec<_> = lines.into_iter().map(Change::new).collect();
    let written = write(&context.store, transaction, OPERATION, entry, changes, &OpenPayouts::default()).await?;
    Ok(Ingested::Applied { lines: written.lines.into_iter().map(|line| line.id).collect() })
}

/// A refund's transaction, which takes the refund's id for this conversion.
fn claiming_refund(incoming: &Incoming<'_>, conversion: &ConversionId) -> Result<Transaction, NotBooked> {
    let mut transaction = Transaction::new(REFUND);
    transaction.claim_refund(&RefundClaim {
        source: incoming.source.clone(),
        refund: incoming.event.id.clone(),
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
    write(&context.store, claiming_refund(incoming, conversion)?, REFUND, entry, vec![], &OpenPayouts::default())
        .await?;
    Ok(Ingested::AwaitingSale)
}

async fn reverse(
    context: &Context,
    incoming: &Incoming<'_>,
    conversion: &ConversionId,
    history: &History,
    sale: &Sale,
    refund: &Refund,
) -> Result<Ingested, NotBooked> {
    let now = context.now();
    let lines = context.store.lines(REFUND, &history.lines()).await?;
    let open = OpenPayouts::of(&context.store, REFUND, &lines).await?;
    open.settle_first(context).await?;
    let refunded = Refunded::of(sale, history.refunds().chain([refund]));
    file_excess(context, incoming, &refunded).await?;
    let changes = domain::reversal::reverse(sale, &refunded, &lines, &open.tokens, &incoming.event.id, now)
        .map_err(Refusal::from)?;
    let entry = entry(incoming, conversion, history, What::Refund, now);
    let mut transaction = claiming_refund(incoming, conversion)?;
    move_tallies(&context.store, REFUND, &mut transaction, &lines, &changes).await?;
    let written = write(&context.store, transaction, REFUND, entry, changes, &open).await?;
    for payout in &written.cancelled {
        crate::payouts::follow_later(context, payout).await;
    }
    Ok(Ingested::Applied { lines: written.lines.into_iter().map(|line| line.id).collect() })
}

/// A refund beyond the charge is clamped, and somebody should look. Filed before the reversal is written, so that a crash
/// between the two files it again rather than never.
async fn file_excess(context: &Context, incoming: &Incoming<'_>, refunded: &Refunded) -> Result<(), NotBooked> {
    if refunded.beyond_charge {
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
        body: incoming.body,
    };
    crate::exceptions::file(context, trouble).await?;
    Ok(())
}

/// Finds the partner: named outright before named by coupon. More evidence comes with attribution by touches.
async fn attribute(
    context: &Context,
    incoming: &Incoming<'_>,
    sale: &Sale,
) -> Result<Option<(Partner, Evidence)>, NotBooked> {
    let program = &incoming.program.id;
    if let Some(named) = &sale.partner {
        let found = match named {
            PartnerRef::Id(id) => match id.parse::<PartnerId>() {
                Ok(id) => context.store.partner(OPERATION, &id).await?.map(|partner| (partner, Evidence::PartnerId)),
                Err(_) => None,
            },
            PartnerRef::Code(code) => match code.parse::<Code>() {
                Ok(code) => context
                    .store
                    .partner_with_code(OPERATION, program, &code)
                    .await?
                    .map(|partner| (partner, Evidence::Code(code.as_str().to_owned()))),
                Err(_) => None,
            },
        };
        match found.filter(|(partner, _)| partner.program == *program) {
            Some(found) => return Ok(Some(found)),
            None if incoming.unknown_partner == UnknownPartner::Refuse => {
                let field = if matches!(named, PartnerRef::Id(_)) { "/partner/id" } else { "/partner/code" };
                return Err(Refusal::invalid(field, "no partner of the program has it").into());
            }
            None => {}
        }
    }
    for code in sale.coupon_codes() {
        if let Some(partner) = context.store.partner_with_code(OPERATION, program, &code).await? {
            return Ok(Some((partner, Evidence::Coupon(code.as_str().to_owned()))));
        }
    }
    Ok(None)
}

fn check_partner(partner: &Partner, sale: &Sale) -> Result<(), Impossible> {
    if partner.status == PartnerStatus::Suspended {
        return Err(Impossible { field: "/partner", why: "the partner is suspended".to_owned() });
    }
    if sale.customer.email_hash.as_deref() == Some(partner.email_hash().as_str()) {
        return Err(Impossible { field: "/customer/emailHash", why: "the partner is the customer".to_owned() });
    }
    Ok(())
}
