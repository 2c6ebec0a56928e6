//! Referral links: a code that leads to a program's shop, and tells whose customers come by it.

use store::{Link, Transaction};

use crate::changes::until_fresh;
use crate::context::Context;
use crate::error::{Refusal, Result};

const OPERATION: &str = "create link";

/// The link's code also becomes a referral code of its partner: a shop that is told only the code knows whom to name.
pub async fn create(context: &Context, link: &Link) -> Result<()> {
    until_fresh(async || {
        let store = &context.store;
        match store.link(OPERATION, &link.code).await? {
            // Made before by the same request.
            Some(known) if known == *link => return Ok(()),
            Some(_) => return Err(Refusal::Illegal("another link has this code".to_owned())),
            None => {}
        }
        let mut transaction = Transaction::new(OPERATION);
        transaction.create_link(link)?;
        match store.partner_with_code(OPERATION, &link.program, &link.code).await? {
            None => transaction.claim_code(link)?,
            Some(owner) if owner.id == link.partner => {}
            Some(_) => return Err(Refusal::Illegal("another partner of the program has this code".to_owned())),
        }
        Ok(store.commit(transaction).await?)
    })
    .await
}
