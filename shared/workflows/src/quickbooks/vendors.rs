//! Partners as vendors: found by what we wrote into them or by their name, else made.

use domain::ids::{Hash, PartnerId};
use domain::money::Currency;
use domain::program::{Partner, is_email};
use quickbooks::{ApiError, Email, Entity, Query, Ref, Vendor};
use store::{QuickbooksCompany, QuickbooksKind, QuickbooksSettings, QuickbooksVendor, Transaction};

use super::bills::explained;
use super::session::Session;
use super::{Failed, Quickbooks};
use crate::changes::until_fresh;
use crate::context::Context;
use crate::error::{Refusal, Result};

const OPERATION: &str = "quickbooks vendor";
/// Characters of a display name: QuickBooks takes 500. What tells two of the same name apart comes within.
const NAME_CHARS: usize = 500;
const EMAIL_CHARS: usize = 100;
/// Characters of what is printed on checks.
const CHECK_CHARS: usize = 110;
/// What QuickBooks puts behind the name of somebody who was made inactive.
const INACTIVE: &str = " (deleted)";

/// What a partner's vendor is looked for by, and made with.
pub struct Wanted<'a> {
    pub partner: &'a Partner,
    pub currency: Currency,
    pub company: &'a QuickbooksCompany,
    pub settings: &'a QuickbooksSettings,
    /// The vendor that the payout details name, where they do.
    pub named: Option<&'a str>,
}

/// The vendor that a partner is. One call to QuickBooks at least, unless it was found before.
pub async fn of(session: &Session<'_>, wanted: &Wanted<'_>) -> Result<String, Failed> {
    let Wanted { partner, currency, named, .. } = *wanted;
    let known = session.context.store.quickbooks_vendor(OPERATION, &partner.id, &session.realm, currency).await?;
    let version = known.as_ref().map_or(0, |known| known.version);
    let fits = |vendor: &str| !vendor.is_empty() && named.is_none_or(|named| named == vendor);
    if let Some(known) = known.filter(|known| fits(&known.vendor)) {
        return Ok(known.vendor);
    }
    let vendor = match named {
        Some(id) => chosen(session, id, wanted).await?,
        None => match found(session, wanted).await? {
            Some(vendor) => vendor.id,
            None => made(session, wanted, version).await?,
        },
    };
    remember(session.context, &session.realm, &partner.id, currency, &vendor).await?;
    Ok(vendor)
}

pub async fn remember(
    context: &Context,
    realm: &str,
    partner: &PartnerId,
    currency: Currency,
    vendor: &str,
) -> Result<()> {
    until_fresh(async || {
        let read = context.store.quickbooks_vendor(OPERATION, partner, realm, currency).await?;
        if read.as_ref().is_some_and(|read| read.vendor == vendor) {
            return Ok(());
        }
        let new = QuickbooksVendor {
            partner: partner.clone(),
            realm: realm.to_owned(),
            currency,
            vendor: vendor.to_owned(),
            version: read.as_ref().map_or(1, |read| read.version + 1),
        };
        let mut transaction = Transaction::new(OPERATION);
        transaction.set_quickbooks_vendor(&new, read.as_ref())?;
        Ok(context.store.commit(transaction).await?)
    })
    .await
}

/// The vendor is not there any more: the partner's is looked for anew.
pub async fn forget(context: &Context, realm: &str, partner: &PartnerId, currency: Currency) -> Result<()> {
    remember(context, realm, partner, currency, "").await
}

/// One vendor is said to have gone into another. If it is gone, whoever was the one is the other from now on.
pub async fn merged(context: &Context, quickbooks: &Quickbooks, realm: &str, from: &str, into: &str) -> Result<()> {
    let gone = async {
        let session = Session::open(context, quickbooks, realm).await?;
        let vendor = session.read::<Vendor>(from).await?;
        Ok(vendor.is_none_or(|vendor| vendor.active == Some(false)))
    };
    match gone.await {
        Ok(true) => {}
        Ok(false) | Err(Failed::Unusable(_)) => return Ok(()),
        Err(failed) => return Err(Refusal::from(failed)),
    }
    for owner in context.store.quickbooks_owners(OPERATION, realm, QuickbooksKind::Vendor, from).await? {
        let Ok(partner) = owner.parse::<PartnerId>() else { continue };
        let known = context.store.quickbooks_vendors(OPERATION, &partner, realm).await?;
        for known in known.iter().filter(|known| known.vendor == from) {
            remember(context, realm, &partner, known.currency, into).await?;
            tracing::info!(realm, %partner, from, into, "a partner's vendor was merged");
        }
    }
    Ok(())
}

/// Somebody chose the vendor: it must be there, in use, and of the right currency.
async fn chosen(session: &Session<'_>, id: &str, wanted: &Wanted<'_>) -> Result<String, Failed> {
    let vendor = session.read::<Vendor>(id).await?;
    let vendor = vendor.ok_or_else(|| {
        Failed::Permanent(format!(
            "the partner's payout details name vendor {id}, which is not in QuickBooks: put it back there and retry, or name another \
             in the details and void this payout"
        ))
    })?;
    usable(&vendor, wanted.currency)?;
    Ok(vendor.id)
}

/// Refuses a vendor that somebody made inactive: they had a reason.
pub fn usable(vendor: &Vendor, currency: Currency) -> Result<(), Failed> {
    let Vendor { id, display_name, .. } = vendor;
    if vendor.active == Some(false) {
        let why = format!(
            "vendor {id} ({display_name}) is inactive in QuickBooks: make it active there and retry; if it is not the partner, give it another name \
             there and retry; or name another vendor in the partner's payout details and void this payout"
        );
        return Err(Failed::Permanent(why));
    }
    match &vendor.currency_ref {
        Some(is) if is.value != currency.code() => Err(Failed::Permanent(format!(
            "vendor {id} ({display_name}) is paid in {}, and a vendor's currency cannot be changed: the payout is in {currency}; name a vendor of \
             that currency in the partner's payout details, and void this payout",
            is.value
        ))),
        _ => Ok(()),
    }
}

fn of_currency(wanted: &Wanted<'_>, vendor: &Vendor) -> bool {
    vendor.currency_ref.as_ref().is_none_or(|currency| currency.value == wanted.currency.code())
}

/// The one with our reference in it.
async fn by_reference(session: &Session<'_>, wanted: &Wanted<'_>) -> Result<Option<Vendor>, Failed> {
    let reference = reference(&wanted.partner.id);
    let query = Query::of(Vendor::NAME).equal("AcctNum", &reference).active_or_not();
    let found = match session.query::<Vendor>(&query).await {
        Ok(found) => found.into_iter().find(|vendor| of_currency(wanted, vendor)),
        // Where this field cannot be asked for, the name is enough.
        Err(Failed::Api(ApiError::Refused(fault))) if fault.code.is_any(&["4000", "4001"]) => None,
        Err(error) => return Err(error),
    };
    if let Some(vendor) = &found {
        usable(vendor, wanted.currency)?;
    }
    Ok(found)
}

/// Ours by the reference in it, or else by its name, where nothing in it says that it is somebody else.
async fn found(session: &Session<'_>, wanted: &Wanted<'_>) -> Result<Option<Vendor>, Failed> {
    if let Some(vendor) = by_reference(session, wanted).await? {
        return Ok(Some(vendor));
    }
    let (reference, names) = (reference(&wanted.partner.id), names(wanted));
    let of_currency = |vendor: &Vendor| of_currency(wanted, vendor);
    let inactive: Vec<_> = names.iter().map(|name| format!("{name}{INACTIVE}")).collect();
    let all = names.iter().chain(&inactive).map(String::as_str);
    let by_name = Query::of(Vendor::NAME).among("DisplayName", all).active_or_not();
    let found = session.query::<Vendor>(&by_name).await?;
    let is_ours = |vendor: &&Vendor| vendor.acct_num.as_deref() == Some(reference.as_str()) && of_currency(vendor);
    if let Some(ours) = found.iter().find(is_ours) {
        usable(ours, wanted.currency)?;
        return Ok(Some(ours.clone()));
    }
    let ours = email(wanted.partner).map(str::to_lowercase);
    let may_be_ours = |vendor: &&Vendor| {
        let theirs = vendor.primary_email_addr.as_ref().map(|email| email.address.to_lowercase());
        let same = theirs.is_none() || theirs == ours;
        vendor.acct_num.as_deref().unwrap_or_default().is_empty() && same && of_currency(vendor)
    };
    let named = |name: &String| {
        let called = found.iter().filter(may_be_ours).find(|vendor| vendor.display_name.eq_ignore_ascii_case(name));
        called.filter(|vendor| vendor.active != Some(false))
    };
    // In the order of the names: the plain one first.
    if let Some(by_name) = names.iter().find_map(named) {
        return Ok(Some(by_name.clone()));
    }
    // Whoever made it inactive had a reason, and another beside it would go round that.
    match found.iter().filter(may_be_ours).find(|vendor| vendor.active == Some(false)) {
        Some(inactive) => usable(inactive, wanted.currency).map(|()| None),
        None => Ok(None),
    }
}

/// Under the first of its names that nobody has: vendors, customers and employees share them. `version` is that of what is remembered.
async fn made(session: &Session<'_>, wanted: &Wanted<'_>, version: u32) -> Result<String, Failed> {
    let mut refused = String::new();
    for name in names(wanted) {
        let vendor = Vendor {
            display_name: name.clone(),
            print_on_check_name: Some(cut(&legal(&wanted.partner.name), CHECK_CHARS)),
            primary_email_addr: email(wanted.partner).map(|address| Email { address: address.to_owned() }),
            acct_num: Some(reference(&wanted.partner.id)),
            currency_ref: wanted.company.multi_currency.then(|| Ref::to(wanted.currency.code())),
            ..Vendor::default()
        };
        let body = serde_json::to_string(&vendor).map_err(|error| Failed::Permanent(error.to_string()))?;
        // What was asked before is answered as before, with a vendor that may be gone: whoever forgot one asks for another.
        let asked = format!("{}/{version}/{body}", session.realm);
        let request = format!("v{}", &Hash::of(asked.as_bytes()).as_str()[..40]);
        match session.create::<Vendor>(&body, &request).await {
            Ok(vendor) => return Ok(vendor.id),
            Err(Failed::Api(ApiError::Refused(fault))) if fault.code.is("6240") => {
                // Perhaps by the very vendor, made a moment ago.
                if let Some(ours) = by_reference(session, wanted).await? {
                    return Ok(ours.id);
                }
                refused = fault.to_string();
            }
            Err(Failed::Api(ApiError::Refused(fault))) if !is_unknown(&fault) => {
                let why = explained(&fault);
                return Err(Failed::Permanent(format!("the partner could not be made a vendor: {why}")));
            }
            Err(error) => return Err(error),
        }
    }
    Err(Failed::Permanent(format!(
        "every name for the partner as a vendor is taken: {refused}; give whoever has it another name there, and retry"
    )))
}

/// Whether only a look tells what became of it.
pub fn is_unknown(fault: &quickbooks::Fault) -> bool {
    ApiError::Refused(fault.clone()).may_have_been_done()
}

/// What stands in the vendor as its account number, and says whose it is: 15 characters, of which 12 are chance.
fn reference(partner: &PartnerId) -> String {
    let id = partner.as_str();
    format!("PP-{}", id[id.len().saturating_sub(12)..].to_uppercase())
}

/// The names a partner may have as a vendor, the best first.
fn names(wanted: &Wanted<'_>) -> Vec<String> {
    let Wanted { partner, currency, company, settings, .. } = *wanted;
    let email = &partner.email;
    let pattern = [("{name}", partner.name.as_str()), ("{code}", partner.code.as_str()), ("{email}", email)];
    let rendered = legal(&pattern.iter().fold(settings.vendor_name.clone(), |text, (what, by)| text.replace(what, by)));
    let rendered = if rendered.is_empty() { legal(&partner.name) } else { rendered };
    // A vendor has one currency: who is paid in another than the company's is another vendor.
    let foreign = if currency == company.currency { String::new() } else { format!(" {currency}") };
    let suffixes = [String::new(), format!(" ({})", partner.code.as_str()), format!(" ({})", reference(&partner.id))];
    let named = |suffix: String| {
        let suffix = legal(&format!("{suffix}{foreign}"));
        let room = NAME_CHARS - INACTIVE.len() - suffix.chars().count() - 1;
        let name = cut(&rendered, room);
        if suffix.is_empty() { name } else { format!("{name} {suffix}") }
    };
    suffixes.into_iter().map(named).collect()
}

/// Without what names must not have: colons, tabs, line breaks and other control characters, and doubled blanks.
fn legal(name: &str) -> String {
    let clean: String = name.chars().map(|c| if c.is_control() || c == ':' { ' ' } else { c }).collect();
    clean.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn cut(text: &str, chars: usize) -> String {
    text.chars().take(chars).collect::<String>().trim_end().to_owned()
}

/// Where QuickBooks would take it.
fn email(partner: &Partner) -> Option<&str> {
    let address = partner.email.as_str();
    (is_email(address) && address.chars().count() <= EMAIL_CHARS).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_legal() {
        for (name, expect) in [
            ("Anna  Smith", "Anna Smith"),
            ("Smith: Anna\tand\nSons ", "Smith Anna and Sons"),
            ("O'Neil \\ Sons", "O'Neil \\ Sons"),
            ("\u{7}", ""),
        ] {
            assert_eq!(legal(name), expect, "{name:?}");
        }
        assert_eq!(cut("abc def", 4), "abc");
    }
}
