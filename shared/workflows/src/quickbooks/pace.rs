//! Intuit lets an app make ten calls a second and 500 a minute to a company. Whoever is to call takes a slot first, and waits for it in the
//! queue: no function sleeps, and none runs into the limit.

use jiff::{SignedDuration, Timestamp};
use store::{QuickbooksPace, Transaction};

use crate::changes::until_fresh;
use crate::context::Context;
use crate::error::Result;

const OPERATION: &str = "pace quickbooks";
/// 480 calls a minute: the rest is for what cannot wait, such as people who connect a company.
const APART: SignedDuration = SignedDuration::from_millis(125);
/// Slots this near are as good as now, since queues know whole seconds only.
const NEAR: SignedDuration = SignedDuration::from_millis(500);
/// How long Intuit wants to be left alone after it said that it was asked too often.
const HOLD_UP: SignedDuration = SignedDuration::from_secs(60);

/// Whether calls are paced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// By Intuit's limits.
    Limited,
    /// Not at all: a counterpart without limits, at a time that stands still.
    Unlimited,
}

/// When calls may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    Now,
    At(Timestamp),
}

impl Pace {
    /// The turn of whoever is to make so many calls to a company: that of the slot it waited for, or a new one where it has none, or where
    /// Intuit asked to be left alone meanwhile.
    pub async fn turn(self, context: &Context, realm: &str, slot: Option<Timestamp>, calls: i32) -> Result<Slot> {
        match slot {
            Some(slot) if slot > context.now() => Ok(Slot::At(slot)),
            Some(_) if !self.is_held_up(context, realm).await? => Ok(Slot::Now),
            _ => self.take(context, realm, calls).await,
        }
    }

    async fn is_held_up(self, context: &Context, realm: &str) -> Result<bool> {
        if self == Self::Unlimited {
            return Ok(false);
        }
        let read = context.store.quickbooks_pace(OPERATION, realm).await?;
        Ok(read.and_then(|read| read.held_until).is_some_and(|until| until > context.now()))
    }

    /// Takes a slot for so many calls to a company.
    async fn take(self, context: &Context, realm: &str, calls: i32) -> Result<Slot> {
        if self == Self::Unlimited {
            return Ok(Slot::Now);
        }
        let slot = until_fresh(async || {
            let read = context.store.quickbooks_pace(OPERATION, realm).await?;
            let now = context.now();
            let slot = read.as_ref().map_or(now, |read| read.next.max(now));
            let held_until = read.as_ref().and_then(|read| read.held_until);
            set(context, realm, read.as_ref(), slot + APART * calls, held_until).await?;
            Ok(slot)
        })
        .await?;
        Ok(if slot <= context.now() + NEAR { Slot::Now } else { Slot::At(slot) })
    }

    /// Nobody calls within the next minute, whatever slots were given out.
    pub async fn hold_up(self, context: &Context, realm: &str) -> Result<()> {
        if self == Self::Unlimited {
            return Ok(());
        }
        until_fresh(async || {
            let read = context.store.quickbooks_pace(OPERATION, realm).await?;
            let until = context.now() + HOLD_UP;
            let next = read.as_ref().map_or(until, |read| read.next.max(until));
            set(context, realm, read.as_ref(), next, Some(until)).await
        })
        .await
    }
}

async fn set(
    context: &Context,
    realm: &str,
    read: Option<&QuickbooksPace>,
    next: Timestamp,
    held_until: Option<Timestamp>,
) -> Result<()> {
    let version = read.map_or(1, |read| read.version + 1);
    let mut transaction = Transaction::new(OPERATION);
    let pace = QuickbooksPace { realm: realm.to_owned(), next, held_until, version };
    transaction.set_quickbooks_pace(&pace, read)?;
    Ok(context.store.commit(transaction).await?)
}
