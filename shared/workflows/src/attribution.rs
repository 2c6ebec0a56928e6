//! Finding the partners a sale is due to, and attributing it by hand.

use std::collections::BTreeMap;

use domain::accrual::{Circumstances, Credited, Terms};
use domain::attribution::Touch;
use domain::booking::{Accruing, Booking, State};
use domain::conversion::{Action, Code, ConversionEvent, Impossible, PartnerRef, Sale};
use domain::ids::{ClickId, ConversionId, PartnerId, VisitorId};
use domain::journal::{Entry, What};
use domain::line::Evidence;
use domain::order::Order;
use domain::program::{Partner, Program};
use domain::rating::Standing;
use domain::rules::{RuleSet, in_force};
use jiff::Timestamp;
use store::{KnownCustomer, StoreError, Transaction};

use crate::changes::{OpenPayouts, until_fresh};
use crate::context::Context;
use crate::error::{Refusal, Result};
use crate::history::{History, Step};
use crate::ingest::{MAX_LINES, NotBooked, UnknownPartner, exchange};

const OPERATION: &str = "accrue";
const BY_HAND: &str = "attribute";
/// Browsers of one customer that are looked at.
const MAX_VISITORS: usize = 5;

/// Whom a sale is due to, and how that was found.
#[derive(Debug, Clone)]
pub struct Found {
    pub evidence: Evidence,
    pub touches: Vec<Touch>,
    pub partners: Vec<(Partner, u64)>,
}

impl Found {
    fn one(partner: Partner, evidence: Evidence) -> Self {
        Self { evidence, touches: Vec::new(), partners: vec![(partner, 1)] }
    }

    pub fn credited(&self) -> Vec<Credited> {
        let credited = |(partner, part): &(Partner, u64)| Credited::new(partner, *part).by_touch(&self.touches);
        self.partners.iter().map(credited).collect()
    }

    /// Partners with their parts, as a customer remembers them.
    pub fn parts(&self) -> Vec<(PartnerId, u64)> {
        self.partners.iter().map(|(partner, part)| (partner.id.clone(), *part)).collect()
    }
}

/// A sale whose partners are looked for.
#[derive(Debug, Clone, Copy)]
pub struct Search<'a> {
    pub program: &'a Program,
    pub sale: &'a Sale,
    pub occurred_at: Timestamp,
    pub customer: &'a KnownCustomer,
    pub unknown_partner: UnknownPartner,
}

/// What the search can refuse.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    #[error(transparent)]
    Impossible(#[from] Impossible),
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl From<StoreError> for SearchError {
    fn from(error: StoreError) -> Self {
        Self::Refused(error.into())
    }
}

/// The partner named outright, else by coupon, else by the click, else by the customer's touches; a renewal at last by the
/// customer's first sale. `None`: it is due to nobody.
pub async fn find(context: &Context, search: &Search<'_>) -> Result<Option<Found>, SearchError> {
    if let Some(found) = named(context, search).await? {
        check_partner(&found.0, search.sale, search.occurred_at)?;
        return Ok(Some(Found::one(found.0, found.1)));
    }
    if let Some(found) = by_click(context, search).await? {
        return Ok(Some(found));
    }
    if let Some(found) = by_touches(context, search).await? {
        return Ok(Some(found));
    }
    by_first_sale(context, search).await
}

async fn named(context: &Context, search: &Search<'_>) -> Result<Option<(Partner, Evidence)>, SearchError> {
    let program = &search.program.id;
    if let Some(named) = &search.sale.partner {
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
            None if search.unknown_partner == UnknownPartner::Refuse => {
                let field = if matches!(named, PartnerRef::Id(_)) { "/partner/id" } else { "/partner/code" };
                return Err(Refusal::invalid(field, "no partner of the program has it").into());
            }
            None => {}
        }
    }
    for code in search.sale.coupon_codes() {
        if let Some(partner) = context.store.partner_with_code(OPERATION, program, &code).await? {
            return Ok(Some((partner, Evidence::Coupon(code.as_str().to_owned()))));
        }
    }
    Ok(None)
}

async fn by_click(context: &Context, search: &Search<'_>) -> Result<Option<Found>, SearchError> {
    let click = search.sale.click_id.as_deref().and_then(|click| click.parse::<ClickId>().ok());
    let Some(click) = click else { return Ok(None) };
    let Some(touch) = context.store.touch(OPERATION, &search.program.id, &click).await? else { return Ok(None) };
    let Some(partner) = context.store.partner(OPERATION, &touch.partner).await? else { return Ok(None) };
    // Who could not earn then is passed over, as among touches.
    if partner.was_suspended(search.occurred_at) {
        return Ok(None);
    }
    check_partner(&partner, search.sale, search.occurred_at)?;
    Ok(Some(Found { evidence: Evidence::Click(click), touches: vec![touch], partners: vec![(partner, 1)] }))
}

async fn by_touches(context: &Context, search: &Search<'_>) -> Result<Option<Found>, SearchError> {
    let attribution = &search.program.attribution;
    let told = search.sale.visitor_id.as_deref().and_then(|visitor| visitor.parse::<VisitorId>().ok());
    let mut visitors: Vec<_> = told.iter().chain(search.customer.visitors()).collect();
    visitors.sort();
    visitors.dedup();
    let start = attribution.window_start(search.occurred_at);
    let mut touches = Vec::new();
    for visitor in visitors.into_iter().take(MAX_VISITORS) {
        touches.extend(context.store.touches(OPERATION, &search.program.id, visitor, start, search.occurred_at).await?);
    }
    if touches.is_empty() {
        return Ok(None);
    }
    let mut ids: Vec<_> = touches.iter().map(|touch| touch.partner.clone()).collect();
    ids.sort();
    ids.dedup();
    let mut partners = context.store.partners_by_id(OPERATION, &ids).await?;
    // Who could not earn then is passed over; the others touched the customer all the same.
    partners.retain(|partner| partner.program == search.program.id && !partner.was_suspended(search.occurred_at));
    let strangers: Vec<_> = partners.iter().filter(|partner| !is_customer(partner, search.sale)).cloned().collect();
    if let (true, Some(partner)) = (strangers.is_empty(), partners.first()) {
        check_partner(partner, search.sale, search.occurred_at)?;
    }
    touches.retain(|touch| strangers.iter().any(|partner| partner.id == touch.partner));
    let credits = attribution.share(&touches, search.occurred_at);
    let with_part = |partner: &PartnerId, part| {
        strangers.iter().find(|stranger| stranger.id == *partner).map(|stranger| (stranger.clone(), part))
    };
    let found: Vec<_> = credits.iter().filter_map(|credit| with_part(&credit.partner, credit.part)).collect();
    let evidence = Evidence::Touches { model: attribution.model, window_days: attribution.window_days };
    touches.retain(|touch| credits.iter().any(|credit| credit.partner == touch.partner));
    touches.sort_by(|a, b| (a.at, &a.click).cmp(&(b.at, &b.click)));
    Ok(if found.is_empty() { None } else { Some(Found { evidence, touches, partners: found }) })
}

async fn by_first_sale(context: &Context, search: &Search<'_>) -> Result<Option<Found>, SearchError> {
    let first = search.customer.first_partners().filter(|_| search.sale.action == Action::Renewal);
    let Some(first) = first else { return Ok(None) };
    let ids: Vec<_> = first.iter().map(|(partner, _)| partner.clone()).collect();
    let partners = context.store.partners_by_id(OPERATION, &ids).await?;
    let mut partners: Vec<_> =
        partners.into_iter().filter(|partner| !partner.was_suspended(search.occurred_at)).collect();
    // As with touches: whoever renews an own purchase is passed over, and alone refused.
    if let (true, Some(partner)) = (partners.iter().all(|partner| is_customer(partner, search.sale)), partners.first())
    {
        check_partner(partner, search.sale, search.occurred_at)?;
    }
    partners.retain(|partner| !is_customer(partner, search.sale));
    let part = |partner: &Partner| first.iter().find(|(id, _)| *id == partner.id).map_or(0, |(_, part)| *part);
    let partners: Vec<_> =
        partners.into_iter().map(|partner| (part(&partner), partner)).map(|(part, partner)| (partner, part)).collect();
    Ok(if partners.is_empty() {
        None
    } else {
        Some(Found { evidence: Evidence::Customer, touches: Vec::new(), partners })
    })
}

fn is_customer(partner: &Partner, sale: &Sale) -> bool {
    let same_id = partner.customer_id.is_some() && partner.customer_id == sale.customer.id;
    same_id || sale.customer.email_hash.as_deref() == Some(partner.email_hash().as_str())
}

fn check_partner(partner: &Partner, sale: &Sale, occurred_at: Timestamp) -> Result<(), Impossible> {
    if partner.was_suspended(occurred_at) {
        let why = format!("the partner was suspended at {occurred_at}");
        return Err(Impossible { field: "/partner", why });
    }
    if is_customer(partner, sale) {
        let by_id = partner.customer_id.is_some() && partner.customer_id == sale.customer.id;
        let field = if by_id { "/customer/id" } else { "/customer/emailHash" };
        return Err(Impossible { field, why: "the partner is the customer".to_owned() });
    }
    Ok(())
}

/// The rule set version in force at a moment.
pub async fn rules_in_force(
    context: &Context,
    operation: &'static str,
    program: &Program,
    at: Timestamp,
) -> Result<Option<RuleSet>> {
    let sets = context.store.rule_sets(operation, &program.id).await?;
    Ok(in_force(&sets, at).cloned())
}

/// What a conversion is rated by, with the version that does: for a renewal that of the customer's first attributed sale, where each rule
/// that would rate it there says so.
pub async fn in_version(
    context: &Context,
    operation: &'static str,
    program: &Program,
    conversion: &ConversionId,
    order: &Order,
    circumstances: Circumstances,
) -> Result<Circumstances> {
    let is_renewal = order.parts().first().is_some_and(|part| part.sale.action == Action::Renewal);
    let Some(first) = circumstances.customer.first_attributed.filter(|_| is_renewal) else { return Ok(circumstances) };
    let Some(set) = rules_in_force(context, operation, program, first).await? else { return Ok(circumstances) };
    let rules = set.draft.resolve(program.currency).map_err(Refusal::Invalid)?;
    let begun = Circumstances { rule_set: set.version, ..circumstances.clone() };
    let booking = Booking {
        program,
        conversion,
        order: "",
        rules: &BTreeMap::from([(set.version, rules)]),
        before: State::default(),
        after: State { order: Some(order), attribution: 0 },
        open: &BTreeMap::new(),
        cause: "",
        received_at: first,
        now: first,
    };
    let keeps = booking.keeps_version(&Accruing { circumstances: &begun, by_hand: None })?;
    Ok(if keeps { begun } else { circumstances })
}

/// A partner's part of a conversion, as a person says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub partner: PartnerId,
    pub part: u64,
}

/// A person says whom a conversion is due to. What it earned others is taken back whole, and it is rated anew by the rules in force when
/// it occurred.
pub async fn by_hand(
    context: &Context,
    conversion: &ConversionId,
    seen: Option<u32>,
    parts: &[Part],
    why: &str,
    by: &str,
) -> Result<()> {
    until_fresh(|| async {
        let now = context.now();
        let history = History::read(context, BY_HAND, conversion).await?;
        Refusal::unless_seen(seen, history.next_position() - 1)?;
        let Some(sale_entry) = history.sale() else { return Err(unless_known(&history)) };
        let (Some(event), Some(order)) = (&sale_entry.event, history.order()?) else {
            return Err(unless_known(&history));
        };
        let ConversionEvent { id: order_id, occurred_at, body } = event;
        let Some(sale) = body.sale() else { return Err(unless_known(&history)) };
        let (program, partners) = partners_of(context, parts).await?;
        if domain::ids::ConversionId::derive(
            &program.id,
            &sale_entry.by.parse().map_err(|_| unless_known(&history))?,
            order_id,
        ) != *conversion
        {
            return Err(Refusal::invalid("/partnerId", "is a partner of another program"));
        }
        for (partner, _) in &partners {
            check_partner(partner, sale, *occurred_at)
                .map_err(|impossible| Refusal::invalid("/partnerId", impossible.why))?;
        }
        let set = rules_in_force(context, BY_HAND, &program, *occurred_at).await?;
        let set =
            set.ok_or_else(|| Refusal::Illegal(format!("no published rule set was in force at {occurred_at}")))?;
        // As it was rated before, if it was.
        let exchange = match history.circumstances() {
            Some(rated) => rated.exchange.clone(),
            None => exchange(context, BY_HAND, &program, sale, *occurred_at).await.map_err(|error| match error {
                NotBooked::Refused(refusal) => refusal,
                missing => Refusal::Illegal(missing.to_string()),
            })?,
        };
        let customer = context.store.customer(BY_HAND, &program.id, &sale.customer).await?;
        let circumstances = Circumstances {
            rule_set: set.version,
            terms: Terms::of(&program),
            evidence: Evidence::ByHand,
            touches: Vec::new(),
            partners: partners.iter().map(|(partner, part)| Credited::new(partner, *part)).collect(),
            customer: if sale.action.is_purchase() { customer.standing(conversion) } else { Standing::default() },
            exchange,
            objection: None,
        };
        let circumstances = in_version(context, BY_HAND, &program, conversion, &order, circumstances).await?;
        let lines = history.lines(context, BY_HAND).await?;
        let open = OpenPayouts::of(&context.store, BY_HAND, &lines).await?;
        open.settle_first(context).await?;
        let position = history.next_position();
        let mut entry = Entry::new(conversion.as_str(), position, now, by, What::Attribute);
        entry.why = Some(why.to_owned());
        let mut transaction = Transaction::new(BY_HAND);
        if sale.action.is_purchase() {
            let parts: Vec<_> = partners.iter().map(|(partner, part)| (partner.id.clone(), *part)).collect();
            transaction.remember_attribution(&customer, conversion, *occurred_at, &parts)?;
        }
        if let Some(listed) = context.store.listed_unrewarded(BY_HAND, conversion).await? {
            transaction.unlist_unrewarded(&listed)?;
        }
        let step = Step {
            operation: BY_HAND,
            program: &program,
            conversion,
            order: order_id,
            before: State { order: Some(&order), attribution: history.attribution() },
            after: State { order: Some(&order), attribution: position },
            lines: &lines,
            decided: lines.clone(),
            accruing: Some(Accruing { circumstances: &circumstances, by_hand: Some(by) }),
            open: &open,
            unless_rewarded: None,
            received_at: sale_entry.received_at.unwrap_or(now),
            now,
        };
        step.write(context, transaction, entry, MAX_LINES).await.map(drop)
    })
    .await
}

fn unless_known(history: &History) -> Refusal {
    if history.chain.is_empty() {
        Refusal::NotFound("conversion")
    } else {
        Refusal::Illegal("the sale itself has not arrived".to_owned())
    }
}

async fn partners_of(context: &Context, parts: &[Part]) -> Result<(Program, Vec<(Partner, u64)>)> {
    let mut partners: Vec<(Partner, u64)> = Vec::with_capacity(parts.len());
    for part in parts {
        let found = context.store.partner(BY_HAND, &part.partner).await?;
        let partner = found.ok_or_else(|| Refusal::invalid("/partnerId", "there is no such partner"))?;
        if partners.iter().any(|(other, _)| other.id == partner.id) {
            return Err(Refusal::invalid("/shares", "a partner is named twice"));
        }
        if partners.iter().any(|(other, _)| other.program != partner.program) {
            return Err(Refusal::invalid("/shares", "the partners are of several programs"));
        }
        partners.push((partner, part.part));
    }
    let program = partners.first().map(|(partner, _)| partner.program.clone());
    let program = program.ok_or_else(|| Refusal::invalid("/shares", "at least one partner is needed"))?;
    let program = context.store.program(BY_HAND, &program).await?.ok_or(Refusal::NotFound("program"))?;
    Ok((program, partners))
}
