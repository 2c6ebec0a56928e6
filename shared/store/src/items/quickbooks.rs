//! QuickBooks Online: our registration, companies that are connected, what programs chose there, and what of ours is there. Never a
//! token: those are in Secrets Manager.

use std::collections::BTreeMap;

use domain::ids::{ExceptionId, Hash, PartnerId, PayoutId, ProgramId};
use domain::money::{Currency, Minor};
use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::keys::{
    Key, Place, QUICKBOOKS_LIST, partner_partition, quickbooks_link_partition, quickbooks_reports_partition,
    quickbooks_vendors_prefix,
};
use crate::table::{Item, Listing, Order, Range, Store, StoreError};
use crate::transaction::Transaction;

/// Minutes within which somebody who was sent to Intuit must come back.
pub const CONSENT_MINUTES: i64 = 15;

/// Our registration with Intuit: everything but its secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QuickbooksApp {
    pub environment: QuickbooksEnvironment,
    pub client_id: String,
    /// Where Intuit sends people back to, as it is registered there.
    pub redirect_uri: String,
    pub changed_at: Timestamp,
    pub changed_by: String,
    pub version: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuickbooksEnvironment {
    Production,
    Sandbox,
}

impl Item for QuickbooksApp {
    fn key(&self) -> Key {
        Key::quickbooks_app()
    }

    fn revision(&self) -> u32 {
        self.version
    }
}

/// Somebody was sent to Intuit to consent, and may come back once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuickbooksConsent {
    /// Of what they bring back: who reads the table cannot come in their place.
    pub state_hash: Hash,
    pub by: String,
    pub at: Timestamp,
}

impl Item for QuickbooksConsent {
    fn key(&self) -> Key {
        Key::quickbooks_consent(&self.state_hash)
    }

    fn expires(&self) -> Option<i64> {
        Some(self.at.as_second() + CONSENT_MINUTES * 60)
    }
}

/// A company that was connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QuickbooksConnection {
    pub realm: String,
    pub state: QuickbooksState,
    /// Why it is not connected, in Intuit's words where there are some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What was filed about that, until it is connected again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<ExceptionId>,
    pub company: QuickbooksCompany,
    pub connected_at: Timestamp,
    pub connected_by: String,
    /// Until when it stays connected without being used.
    pub refresh_until: Timestamp,
    /// When somebody must consent again, whatever happens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consent_until: Option<Timestamp>,
    /// What was filed because one of these is near.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<ExceptionId>,
    /// Up to when what changed there has been looked at.
    pub seen_until: Timestamp,
    pub version: u32,
}

/// What of a company decides how its Bills must look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QuickbooksCompany {
    pub name: String,
    /// ISO 3166, two letters.
    pub country: String,
    pub currency: Currency,
    pub multi_currency: bool,
    /// Nothing dated up to this day changes any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub books_closed: Option<Date>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuickbooksState {
    Connected,
    /// Somebody must consent again.
    ReauthorizationRequired,
    /// The company's subscription has ended.
    Suspended,
    /// Somebody here ended it.
    Disconnected,
}

impl Item for QuickbooksConnection {
    fn key(&self) -> Key {
        Key::quickbooks_connection(&self.realm)
    }

    fn revision(&self) -> u32 {
        self.version
    }

    fn list_place(&self) -> Option<Place> {
        Some(Place::new(QUICKBOOKS_LIST, &self.realm))
    }
}

/// Held while a company's tokens are renewed: a refresh token must not be used twice at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuickbooksLease {
    pub realm: String,
    pub holder: String,
    pub until: Timestamp,
    pub version: u32,
}

impl Item for QuickbooksLease {
    fn key(&self) -> Key {
        Key::quickbooks_lease(&self.realm)
    }

    fn revision(&self) -> u32 {
        self.version
    }
}

/// When the next call to a company may be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuickbooksPace {
    pub realm: String,
    pub next: Timestamp,
    /// Intuit asked to be left alone until then: slots given out before do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_until: Option<Timestamp>,
    pub version: u32,
}

impl Item for QuickbooksPace {
    fn key(&self) -> Key {
        Key::quickbooks_pace(&self.realm)
    }

    fn revision(&self) -> u32 {
        self.version
    }
}

/// What to write into a company's books, and where: of a program, or of all that have no settings of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QuickbooksSettings {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<ProgramId>,
    pub realm: String,
    pub expense_account: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withholding_account: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payable_account: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<String>,
    /// With `{name}`, `{code}` and `{email}` of the partner.
    pub vendor_name: String,
    /// With `{program}`, `{partner}`, `{number}` and `{lines}`.
    pub memo: String,
    /// Off: approved payouts wait.
    pub enabled: bool,
    pub changed_at: Timestamp,
    pub changed_by: String,
    pub version: u32,
}

impl Item for QuickbooksSettings {
    fn key(&self) -> Key {
        Key::quickbooks_settings(self.program.as_ref())
    }

    fn revision(&self) -> u32 {
        self.version
    }
}

/// Who a partner is in a company's books. A vendor has one currency for ever, so there is one for each currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuickbooksVendor {
    pub partner: PartnerId,
    pub realm: String,
    pub currency: Currency,
    pub vendor: String,
    pub version: u32,
}

impl Item for QuickbooksVendor {
    fn key(&self) -> Key {
        Key::quickbooks_vendor(&self.partner, &self.realm, self.currency)
    }

    fn revision(&self) -> u32 {
        self.version
    }
}

/// A payout's Bill: written before it is sent, so that whatever is sent again is the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QuickbooksBill {
    pub payout: PayoutId,
    pub realm: String,
    pub vendor: String,
    /// Which attempt of the payout it was made for, and how often it was made anew within it, because what was sent before was refused
    /// without effect. Both name the request.
    pub attempt: u32,
    pub anew: u32,
    pub request: String,
    /// Which day stands on it.
    #[serde(default)]
    pub dated: QuickbooksDated,
    /// What is sent.
    pub body: String,
    /// Somebody is looking for it and sending it: until then nobody else does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_until: Option<Timestamp>,
    /// Its id there, once it is known to be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bill: Option<String>,
    /// How much each payment brought it, by the payment's id. One that is voided or deleted does not tell any more what it paid.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub payments: BTreeMap<String, Minor>,
    /// What was filed because it is not there as it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<ExceptionId>,
    pub version: u32,
}

/// How a Bill is dated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuickbooksDated {
    /// On the last day before the cut-off: when what it pays was earned.
    #[default]
    BeforeCutOff,
    /// On the day it was approved, where that day is in a closed period.
    WhenApproved,
}

impl Item for QuickbooksBill {
    fn key(&self) -> Key {
        Key::quickbooks_bill(&self.payout)
    }

    fn revision(&self) -> u32 {
        self.version
    }
}

/// What in a company's books belongs to whom here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuickbooksLink {
    pub realm: String,
    pub kind: QuickbooksKind,
    pub id: String,
    /// The id of a payout, or of a vendor's partner.
    pub of: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuickbooksKind {
    Bill,
    Payment,
    Vendor,
}

impl QuickbooksKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bill => "bill",
            Self::Payment => "payment",
            Self::Vendor => "vendor",
        }
    }
}

impl Item for QuickbooksLink {
    fn key(&self) -> Key {
        Key::quickbooks_link(&self.realm, self.kind, &self.id, &self.of)
    }
}

/// What a comparison of a company with the books here came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QuickbooksReport {
    pub realm: String,
    pub at: Timestamp,
    /// What changed there since then was looked at.
    pub since: Timestamp,
    /// Whether every open payout was compared, and every change looked into.
    pub finished: bool,
    pub compared: u32,
    pub differing: Vec<QuickbooksDifference>,
    /// Bills that name a payout which does not know them.
    pub orphans: Vec<QuickbooksDifference>,
    pub days: Vec<QuickbooksDay>,
    /// Seconds from approval to the Bill, of the payout among those that are open or were paid meanwhile that took longest.
    #[serde(default)]
    pub slowest_submission_seconds: Option<i64>,
}

/// Both sides of a difference, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QuickbooksDifference {
    pub payout: Option<PayoutId>,
    pub bill: String,
    pub ours: String,
    pub theirs: String,
}

/// Bills of one date: those that are open, and those that were paid since the last comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QuickbooksDay {
    pub date: Date,
    pub currency: Currency,
    pub bills: u32,
    pub ours: Minor,
    pub theirs: Minor,
}

impl Item for QuickbooksReport {
    fn key(&self) -> Key {
        Key::quickbooks_report(&self.realm, self.at)
    }
}

impl Transaction {
    /// A report of the same moment is replaced.
    pub fn add_quickbooks_report(&mut self, report: &QuickbooksReport) -> Result<(), StoreError> {
        self.write(report)
    }

    /// Fails unless it is as it was read; `None`: unless there is none. The same of all that follow.
    pub fn set_quickbooks_app(&mut self, new: &QuickbooksApp, read: Option<&QuickbooksApp>) -> Result<(), StoreError> {
        self.set(new, read)
    }

    pub fn set_quickbooks_connection(
        &mut self,
        new: &QuickbooksConnection,
        read: Option<&QuickbooksConnection>,
    ) -> Result<(), StoreError> {
        self.set(new, read)
    }

    pub fn set_quickbooks_settings(
        &mut self,
        new: &QuickbooksSettings,
        read: Option<&QuickbooksSettings>,
    ) -> Result<(), StoreError> {
        self.set(new, read)
    }

    pub fn set_quickbooks_lease(
        &mut self,
        new: &QuickbooksLease,
        read: Option<&QuickbooksLease>,
    ) -> Result<(), StoreError> {
        self.set(new, read)
    }

    pub fn set_quickbooks_pace(
        &mut self,
        new: &QuickbooksPace,
        read: Option<&QuickbooksPace>,
    ) -> Result<(), StoreError> {
        self.set(new, read)
    }

    pub fn set_quickbooks_vendor(
        &mut self,
        new: &QuickbooksVendor,
        read: Option<&QuickbooksVendor>,
    ) -> Result<(), StoreError> {
        self.set(new, read)?;
        self.write(&QuickbooksLink {
            realm: new.realm.clone(),
            kind: QuickbooksKind::Vendor,
            id: new.vendor.clone(),
            of: new.partner.to_string(),
        })
    }

    /// With it, whatever is known to be there is found by its id.
    pub fn set_quickbooks_bill(
        &mut self,
        new: &QuickbooksBill,
        read: Option<&QuickbooksBill>,
    ) -> Result<(), StoreError> {
        self.set(new, read)?;
        let link = |kind, id: &String| QuickbooksLink {
            realm: new.realm.clone(),
            kind,
            id: id.clone(),
            of: new.payout.to_string(),
        };
        let known = |id: &&String| read.is_some_and(|read| read.payments.contains_key(*id));
        if let Some(bill) = new.bill.as_ref().filter(|_| read.is_none_or(|read| read.bill != new.bill)) {
            self.write(&link(QuickbooksKind::Bill, bill))?;
        }
        for payment in new.payments.keys().filter(|id| !known(id)) {
            self.write(&link(QuickbooksKind::Payment, payment))?;
        }
        Ok(())
    }

    pub fn begin_quickbooks_consent(&mut self, consent: &QuickbooksConsent) -> Result<(), StoreError> {
        self.create(consent)
    }

    /// Fails if somebody came back with it before.
    pub fn end_quickbooks_consent(&mut self, consent: &QuickbooksConsent) {
        self.delete_if(consent.key(), "by", &consent.by);
    }

    /// Fails unless this holder has it.
    pub fn release_quickbooks_lease(&mut self, lease: &QuickbooksLease) {
        self.delete_if(lease.key(), "holder", &lease.holder);
    }

    fn set<T: Item>(&mut self, new: &T, read: Option<&T>) -> Result<(), StoreError> {
        match read {
            None => self.create(new),
            Some(read) => self.replace(new, read.revision()),
        }
    }
}

impl Store {
    pub async fn quickbooks_app(&self, operation: &'static str) -> Result<Option<QuickbooksApp>, StoreError> {
        self.get(operation, &Key::quickbooks_app()).await
    }

    pub async fn quickbooks_consent(
        &self,
        operation: &'static str,
        state_hash: &Hash,
    ) -> Result<Option<QuickbooksConsent>, StoreError> {
        self.get(operation, &Key::quickbooks_consent(state_hash)).await
    }

    pub async fn quickbooks_connection(
        &self,
        operation: &'static str,
        realm: &str,
    ) -> Result<Option<QuickbooksConnection>, StoreError> {
        self.get(operation, &Key::quickbooks_connection(realm)).await
    }

    /// By realm.
    pub async fn quickbooks_connections(
        &self,
        operation: &'static str,
        after: Option<&str>,
        limit: i32,
    ) -> Result<Listing<QuickbooksConnection>, StoreError> {
        let keys =
            self.list(operation, Range { after, limit: Some(limit), ..Range::all(QUICKBOOKS_LIST.to_owned()) }).await?;
        Ok(Listing { items: self.get_many(operation, &keys.items).await?, after: keys.after })
    }

    /// Newest first.
    pub async fn quickbooks_reports(
        &self,
        operation: &'static str,
        realm: &str,
        after: Option<&str>,
        limit: i32,
    ) -> Result<Listing<QuickbooksReport>, StoreError> {
        let range = Range {
            after,
            order: Order::Backward,
            limit: Some(limit),
            ..Range::all(quickbooks_reports_partition(realm))
        };
        self.query(operation, range).await
    }

    pub async fn quickbooks_lease(
        &self,
        operation: &'static str,
        realm: &str,
    ) -> Result<Option<QuickbooksLease>, StoreError> {
        self.get(operation, &Key::quickbooks_lease(realm)).await
    }

    pub async fn quickbooks_pace(
        &self,
        operation: &'static str,
        realm: &str,
    ) -> Result<Option<QuickbooksPace>, StoreError> {
        self.get(operation, &Key::quickbooks_pace(realm)).await
    }

    /// Those of exactly this program, or those of all without their own.
    pub async fn quickbooks_settings(
        &self,
        operation: &'static str,
        program: Option<&ProgramId>,
    ) -> Result<Option<QuickbooksSettings>, StoreError> {
        self.get(operation, &Key::quickbooks_settings(program)).await
    }

    pub async fn quickbooks_vendor(
        &self,
        operation: &'static str,
        partner: &PartnerId,
        realm: &str,
        currency: Currency,
    ) -> Result<Option<QuickbooksVendor>, StoreError> {
        self.get(operation, &Key::quickbooks_vendor(partner, realm, currency)).await
    }

    /// One for each currency the partner was paid in.
    pub async fn quickbooks_vendors(
        &self,
        operation: &'static str,
        partner: &PartnerId,
        realm: &str,
    ) -> Result<Vec<QuickbooksVendor>, StoreError> {
        self.query_all(operation, Range::prefix(partner_partition(partner), &quickbooks_vendors_prefix(realm))).await
    }

    pub async fn quickbooks_bill(
        &self,
        operation: &'static str,
        payout: &PayoutId,
    ) -> Result<Option<QuickbooksBill>, StoreError> {
        self.get(operation, &Key::quickbooks_bill(payout)).await
    }

    /// Those of these payouts that have one, in no order.
    pub async fn quickbooks_bills(
        &self,
        operation: &'static str,
        payouts: &[PayoutId],
    ) -> Result<Vec<QuickbooksBill>, StoreError> {
        let keys: Vec<_> = payouts.iter().map(Key::quickbooks_bill).collect();
        self.get_many(operation, &keys).await
    }

    /// Whose it is: payouts, or a vendor's partners.
    pub async fn quickbooks_owners(
        &self,
        operation: &'static str,
        realm: &str,
        kind: QuickbooksKind,
        id: &str,
    ) -> Result<Vec<String>, StoreError> {
        let links: Vec<QuickbooksLink> =
            self.query_all(operation, Range::all(quickbooks_link_partition(realm, kind, id))).await?;
        Ok(links.into_iter().map(|link| link.of).collect())
    }
}
