//! A conversion as its stream tells it, and the one way its money is moved.

use std::collections::{BTreeMap, BTreeSet};

use domain::accrual::Circumstances;
use domain::booking::{Accruing, Booking, RulesByVersion, State};
use domain::conversion::ConversionEvent;
use domain::ids::{ConversionId, LineId, PayoutId};
use domain::journal::{Entry, Sealed, What};
use domain::line::Line;
use domain::order::Order;
use domain::payout::OpenPayout;
use domain::program::Program;
use domain::rules::Rule;
use jiff::Timestamp;
use store::{StoreError, Transaction, Unrewarded};

use crate::changes::{OpenPayouts, Written, unless_overtaken, write};
use crate::context::Context;
use crate::error::{Refusal, Result};

/// The entries of one conversion, in order.
#[derive(Debug)]
pub struct History {
    pub chain: Vec<Sealed>,
}

impl History {
    pub async fn read(context: &Context, operation: &'static str, conversion: &ConversionId) -> Result<Self> {
        Ok(Self { chain: context.store.chain(operation, conversion.as_str()).await? })
    }

    pub fn next_position(&self) -> u32 {
        self.chain.last().map_or(1, |sealed| sealed.entry.position + 1)
    }

    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.chain.iter().map(|sealed| &sealed.entry)
    }

    pub fn events(&self) -> impl Iterator<Item = &ConversionEvent> {
        self.entries().filter_map(|entry| entry.event.as_ref())
    }

    /// `None` until the sale has arrived.
    pub fn order(&self) -> Result<Option<Order>> {
        Ok(Order::of(self.events())?)
    }

    /// The order once one more event is accepted.
    pub fn order_with(&self, event: &ConversionEvent) -> Result<Option<Order>> {
        Ok(Order::of(self.events().chain([event]))?)
    }

    /// The event of this kind and id that was accepted before.
    pub fn same(&self, event: &ConversionEvent) -> Option<&ConversionEvent> {
        self.events().find(|seen| seen.id == event.id && seen.body.kind() == event.body.kind())
    }

    /// The entry that tells of the sale, if it has arrived.
    pub fn sale(&self) -> Option<&Entry> {
        self.entries().find(|entry| entry.event.as_ref().is_some_and(|event| event.body.sale().is_some()))
    }

    /// The position of the entry by which a person last attributed it; zero: nobody had to.
    pub fn attribution(&self) -> u32 {
        let by_hand = self.entries().filter(|entry| entry.what == What::Attribute);
        by_hand.map(|entry| entry.position).max().unwrap_or_default()
    }

    /// What the sale was last rated by; `None` while it is due to nobody.
    pub fn circumstances(&self) -> Option<&Circumstances> {
        self.entries().filter_map(|entry| entry.circumstances.as_ref()).last()
    }

    /// The lines its own entries made.
    fn made(&self) -> Vec<LineId> {
        let created = self.entries().flat_map(|entry| &entry.lines).filter(|line| line.from.is_none());
        created.map(|line| line.id.clone()).collect()
    }

    /// Every line the conversion ever made, with the true-ups that decisions about them caused.
    pub async fn lines(&self, context: &Context, operation: &'static str) -> Result<Vec<Line>> {
        Ok(Self::lines_of_all(context, operation, &[self]).await?.pop().unwrap_or_default())
    }

    /// The same of several, read together.
    pub async fn lines_of_all(
        context: &Context,
        operation: &'static str,
        histories: &[&Self],
    ) -> Result<Vec<Vec<Line>>> {
        let made: Vec<_> = histories.iter().map(|history| history.made()).collect();
        let ids: Vec<_> = made.iter().flatten().cloned().collect();
        let mut lines: BTreeMap<_, _> = BTreeMap::new();
        let mut of = |read: Vec<Line>| lines.extend(read.into_iter().map(|line| (line.id.clone(), line)));
        let read = context.store.lines(operation, &ids).await?;
        let beside: Vec<_> = read.iter().flat_map(|line| &line.true_ups).cloned().collect();
        of(read);
        if !beside.is_empty() {
            of(context.store.lines(operation, &beside).await?);
        }
        let each = made.into_iter().map(|ids| {
            let own: Vec<_> = ids.iter().filter_map(|id| lines.get(id).cloned()).collect();
            let beside: Vec<_> = own.iter().flat_map(|line| &line.true_ups).filter_map(|id| lines.get(id)).collect();
            let beside: Vec<_> = beside.into_iter().cloned().collect();
            [own, beside].concat()
        });
        Ok(each.collect())
    }
}

/// The order as some of its entries tell it (`None` until the sale has arrived), and the position of the one by which a person last
/// attributed it (zero: nobody had to).
pub fn order_of(entries: &[&Entry]) -> Result<(Option<Order>, u32)> {
    let order = Order::of(entries.iter().filter_map(|entry| entry.event.as_ref()))?;
    let by_hand = entries.iter().filter(|entry| entry.what == What::Attribute);
    Ok((order, by_hand.map(|entry| entry.position).max().unwrap_or_default()))
}

/// A conversion before and after one of its entries, from what its entries say: for doing again what was done.
#[derive(Debug)]
pub struct Moment<'a> {
    entry: &'a Entry,
    order: &'a str,
    before: (Option<Order>, u32),
    after: (Option<Order>, u32),
    received_at: Timestamp,
}

impl<'a> Moment<'a> {
    /// The moment of the last of a conversion's entries.
    pub fn of(entries: &[&'a Entry]) -> Result<Option<Self>> {
        let Some((entry, earlier)) = entries.split_last() else { return Ok(None) };
        let sale = entries.iter().find(|entry| entry.event.as_ref().is_some_and(|event| event.body.sale().is_some()));
        Ok(Some(Self {
            entry,
            order: sale.and_then(|sale| sale.event.as_ref()).map_or("", |event| event.order()),
            before: order_of(earlier)?,
            after: order_of(entries)?,
            received_at: entry.received_at.or(sale.and_then(|sale| sale.received_at)).unwrap_or(entry.at),
        }))
    }

    /// When the sale occurred.
    pub fn sold_at(&self) -> Option<Timestamp> {
        self.after.0.as_ref()?.parts().first().map(|sale| sale.occurred_at)
    }

    pub const fn has_order_before(&self) -> bool {
        self.before.0.is_some()
    }

    pub fn accruing(&self) -> Option<Accruing<'a>> {
        let by_hand = (self.entry.what == What::Attribute).then_some(self.entry.by.as_str());
        self.entry.circumstances.as_ref().map(|circumstances| Accruing { circumstances, by_hand })
    }

    pub fn booking<'b>(
        &'b self,
        program: &'b Program,
        conversion: &'b ConversionId,
        rules: &'b RulesByVersion,
        open: &'b BTreeMap<PayoutId, OpenPayout>,
        cause: &'b str,
    ) -> Booking<'b> {
        Booking {
            program,
            conversion,
            order: self.order,
            rules,
            before: State { order: self.before.0.as_ref(), attribution: self.before.1 },
            after: State { order: self.after.0.as_ref(), attribution: self.after.1 },
            open,
            cause,
            received_at: self.received_at,
            now: self.entry.at,
        }
    }
}

/// One step of a conversion: an event that was accepted, or a person's decision.
#[derive(Debug)]
pub struct Step<'a> {
    pub operation: &'static str,
    pub program: &'a Program,
    pub conversion: &'a ConversionId,
    /// The source's own id of the order.
    pub order: &'a str,
    pub before: State<'a>,
    pub after: State<'a>,
    pub lines: &'a [Line],
    /// The lines after what a person decided about them.
    pub decided: Vec<Line>,
    pub accruing: Option<Accruing<'a>>,
    pub open: &'a OpenPayouts,
    /// What to list it as if no rule makes a line of it.
    pub unless_rewarded: Option<Unrewarded>,
    pub received_at: Timestamp,
    pub now: Timestamp,
}

impl Step<'_> {
    /// Books the step and writes it with its entry, which must not be sealed yet.
    pub async fn write(
        self,
        context: &Context,
        mut transaction: Transaction,
        mut entry: Entry,
        most: usize,
    ) -> Result<Written> {
        let versions = self.lines.iter().filter(|line| domain::booking::tallies_of(line).next().is_some());
        let versions =
            versions.filter_map(|line| line.rule_set).chain(self.accruing.map(|of| of.circumstances.rule_set));
        let rules = rules_of(context, self.operation, self.program, versions.collect()).await?;
        let booking = Booking {
            program: self.program,
            conversion: self.conversion,
            order: self.order,
            rules: &rules,
            before: self.before,
            after: self.after,
            open: &self.open.tokens,
            cause: &entry.cause(),
            received_at: self.received_at,
            now: self.now,
        };
        let reads = booking.reads(self.lines, self.accruing.as_ref())?;
        let read = context.store.tallies(self.operation, &self.program.id, &reads).await?;
        let mut tallies = read.tallies();
        let changes = booking.book(self.lines, self.decided, self.accruing.as_ref(), &mut tallies)?;
        let created = changes.iter().filter(|change| change.before.is_none()).count();
        if created > most {
            let why = format!("the rules would make {created} commissions of it; {most} is the most");
            return Err(Refusal::invalid("/items", why));
        }
        if let (0, Some(unrewarded)) = (created, &self.unless_rewarded) {
            entry.note = Some("no rule applies".to_owned());
            transaction.list_unrewarded(unrewarded)?;
        }
        entry.circumstances = self.accruing.map(|of| of.circumstances.clone());
        entry.tallies = read.known();
        entry.note_seen(self.lines, &changes);
        if !reads.is_empty() {
            unless_overtaken(&context.store, self.operation, &entry.seen).await?;
        }
        transaction.tallies(&self.program.id, &read, &tallies)?;
        let written = write(&context.store, transaction, self.operation, entry, changes, self.open).await?;
        for payout in &written.cancelled {
            // Boxed: seldom, and large.
            Box::pin(crate::payouts::follow_later(context, payout)).await;
        }
        Ok(written)
    }
}

/// The resolved rules of some versions.
pub async fn rules_of(
    context: &Context,
    operation: &'static str,
    program: &Program,
    versions: BTreeSet<u32>,
) -> Result<RulesByVersion> {
    let mut rules = BTreeMap::new();
    for version in versions {
        let set = context.store.rule_set(operation, &program.id, version).await?;
        let set = set.ok_or_else(|| StoreError::Corrupt(format!("rule set version {version} is missing")))?;
        let resolved: Vec<Rule> = set.draft.resolve(program.currency).map_err(Refusal::Invalid)?;
        rules.insert(version, resolved);
    }
    Ok(rules)
}
