//! What a webhook says changed is a reason to look: at the Bills it may be about, and at nothing it says of them. So an event that comes
//! twice, late or out of order does no harm.

use std::collections::BTreeSet;

use domain::ids::PayoutId;
use quickbooks::BillPayment;
use quickbooks::webhook::{Notification, Operation};
use store::{QuickbooksKind, QuickbooksState};

use super::pace::Slot;
use super::session::Session;
use super::{Failed, Quickbooks, vendors};
use crate::context::Context;
use crate::error::{Refusal, Result};
use crate::queues::{QuickbooksEvent, SubmissionPayout};
use crate::rails::{Rails, attend};

const OPERATION: &str = "apply quickbooks event";

/// Kinds of entities that are looked at.
const ABOUT: [&str; 3] = ["bill", "billpayment", "vendor"];

/// Of what a webhook tells, what is to be looked at: once each, whatever happened to it how often. That a Bill was made is told by whoever
/// made it: ours is known from the answer, or is looked for, and one that is not ours is none of our business.
pub fn to_look_at(told: Vec<Notification>) -> Vec<Notification> {
    let mut seen = BTreeSet::new();
    let mut look = told;
    look.retain(|one| {
        let merged = one.merged.clone().unwrap_or_default();
        let is_news = one.entity != "bill" || one.operation != Operation::Create;
        ABOUT.contains(&one.entity.as_str())
            && is_news
            && seen.insert((one.realm.clone(), one.entity.clone(), one.id.clone(), merged))
    });
    look
}

/// Looks at what an event is about. An error asks to be called again.
pub async fn apply(context: &Context, rails: &Rails, event: &QuickbooksEvent) -> Result<()> {
    let QuickbooksEvent { notification, slot } = event;
    let Notification { realm, entity, id, operation, merged, .. } = notification;
    let connection = context.store.quickbooks_connection(OPERATION, realm).await?;
    // What changes while a company cannot be reached is read when it can.
    if connection.is_none_or(|connection| connection.state != QuickbooksState::Connected) {
        return Ok(());
    }
    // The vendor of a partner that went into this one.
    let merged = merged.as_deref().filter(|_| entity == "vendor" && *operation == Operation::Merge);
    let merged = match merged {
        Some(from) => {
            let owners = context.store.quickbooks_owners(OPERATION, realm, QuickbooksKind::Vendor, from).await?;
            Some(from).filter(|_| !owners.is_empty())
        }
        None => None,
    };
    // Bills are looked at in their own turns.
    if (entity == "billpayment" || merged.is_some())
        && let Slot::At(slot) = rails.quickbooks.pace.turn(context, realm, *slot, 1).await?
    {
        let later = QuickbooksEvent { notification: notification.clone(), slot: Some(slot) };
        return context.queues.send_quickbooks_event_at(&later, slot, context.now()).await;
    }
    if let Some(from) = merged {
        return vendors::merged(context, &rails.quickbooks, realm, from, id).await;
    }
    let payouts = match entity.as_str() {
        "bill" => owners(context, realm, QuickbooksKind::Bill, id).await?,
        "billpayment" => paid_by(context, &rails.quickbooks, realm, id).await?,
        _ => BTreeSet::new(),
    };
    for id in payouts {
        let done = Box::pin(attend(context, rails, &SubmissionPayout { id: id.clone(), slot: None })).await?;
        tracing::info!(payout = %id, ?done, "looked at");
    }
    Ok(())
}

async fn owners(context: &Context, realm: &str, kind: QuickbooksKind, id: &str) -> Result<BTreeSet<PayoutId>> {
    let owners = context.store.quickbooks_owners(OPERATION, realm, kind, id).await?;
    Ok(owners.iter().filter_map(|owner| owner.parse().ok()).collect())
}

/// The payouts of the Bills that a payment pays, or paid when it was last seen.
async fn paid_by(context: &Context, quickbooks: &Quickbooks, realm: &str, id: &str) -> Result<BTreeSet<PayoutId>> {
    let mut payouts = owners(context, realm, QuickbooksKind::Payment, id).await?;
    let payment = async {
        let session = Session::open(context, quickbooks, realm).await?;
        session.read::<BillPayment>(id).await
    };
    match payment.await {
        Ok(Some(payment)) => {
            for bill in payment.bills() {
                payouts.extend(owners(context, realm, QuickbooksKind::Bill, bill).await?);
            }
        }
        Ok(None) | Err(Failed::Unusable(_)) => {}
        Err(failed) => return Err(Refusal::from(failed)),
    }
    Ok(payouts)
}
