//! A merchant's partner program, and the partners who earn in it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use serde::{Deserialize, Serialize};

use crate::anomaly::AnomalyRules;
use crate::attribution::Attribution;
use crate::conversion::Code;
use crate::ids::{Hash, PartnerId, ProgramId};
use crate::money::{Currency, Minor};
use crate::remittance::{VENMO, VENMO_PRIVACY};
use crate::tax::{Country, TaxSettings};

/// The longest hold period, and the latest slice.
pub const MAX_HOLD_DAYS: u16 = 3_650;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Program {
    pub id: ProgramId,
    pub name: String,
    pub currency: Currency,
    pub time_zone: Zone,
    /// Days between the sale and the earliest payout.
    pub hold_days: u16,
    /// Days between the report of a sale and the earliest payout, whatever its date: a guard for imports and late reports.
    pub min_hold_days: u16,
    pub approval: ApprovalMode,
    /// Zero: any amount is paid.
    pub minimum_payout: Minor,
    /// From this sum per partner and 30 days on, a payout takes two people.
    pub large_payout_limit: Minor,
    /// Whether a rule set needs a second person's sign-off before it is published.
    pub rule_sign_off: bool,
    /// How long after a change of payout details nothing is paid to the new ones.
    pub cooling_off_days: u16,
    pub schedule: Schedule,
    /// Sales whose hold period is over that a partner needs before anything is paid; zero: none.
    #[serde(default)]
    pub minimum_sales: u32,
    /// A scheduled run pays what does not reach the minimum all the same, once the oldest of it has been payable for so many days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dust_sweep_days: Option<u16>,
    /// A scheduled run writes off what a partner owes once all of it is so many days old and nothing else of the partner is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debt_write_off_days: Option<u16>,
    #[serde(default)]
    pub attribution: Attribution,
    #[serde(default)]
    pub anomaly_rules: AnomalyRules,
    /// Where a payer in the United States pays. It is said once: what was paid before would count for no year.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tax: Option<TaxSettings>,
    /// Where a referral link leads unless it says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub landing_page: Option<String>,
    /// Hosts that referral links may lead to, besides the landing page's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_hosts: Vec<String>,
    pub created_at: Timestamp,
    pub created_by: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalMode {
    Manual,
    Automatic,
}

/// A time zone of the IANA database, by name. The database is compiled in, so every machine computes the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a time zone of the IANA database")]
pub struct UnknownZone(String);

impl Zone {
    pub fn name(&self) -> &str {
        &self.0
    }

    pub fn time_zone(&self) -> TimeZone {
        // The name was checked on the way in, and the database cannot change under us.
        TimeZoneDatabase::bundled().get(&self.0).unwrap_or(TimeZone::UTC)
    }
}

impl TryFrom<String> for Zone {
    type Error = UnknownZone;
    fn try_from(name: String) -> Result<Self, UnknownZone> {
        if TimeZoneDatabase::bundled().get(&name).is_ok() {
            Ok(Self(name))
        } else {
            Err(UnknownZone(name.chars().take(60).collect()))
        }
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> Self {
        zone.0
    }
}

/// When payout runs happen. See [`crate::schedule`] for the calendar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    pub frequency: Frequency,
    /// Day of the month (monthly, quarterly; clamped to the month's end) or of the week (weekly, Monday is 1).
    pub run_day: i8,
    /// A day on which a bi-weekly run happens.
    pub anchor: Date,
    /// A scheduled run claims what matured before the run date less these days.
    pub cut_off_days: u16,
    /// The pay date is the run date plus these days.
    pub pay_days: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Frequency {
    Monthly,
    SemiMonthly,
    Biweekly,
    Weekly,
    Quarterly,
    OnDemand,
    /// Trusted partners are paid as soon as something becomes payable to them; others by hand or on demand.
    Instant,
}

impl Frequency {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Monthly => "monthly",
            Self::SemiMonthly => "semi_monthly",
            Self::Biweekly => "biweekly",
            Self::Weekly => "weekly",
            Self::Quarterly => "quarterly",
            Self::OnDemand => "on_demand",
            Self::Instant => "instant",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Partner {
    pub id: PartnerId,
    pub program: ProgramId,
    pub name: String,
    /// Oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_names: Vec<FormerName>,
    pub email: String,
    pub code: Code,
    /// `affiliate`, `referral`, `reseller` or the merchant's own word.
    #[serde(rename = "type")]
    pub kind: String,
    pub group: Option<String>,
    /// The partner's own id as a customer: a sale to it is a self-referral.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer_id: Option<String>,
    /// Where the partner lives, if they said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<Country>,
    /// Overrides the program's minimum payout.
    pub minimum_payout: Option<Minor>,
    /// What the partner is paid in, where that is not the program's currency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payout_currency: Option<Currency>,
    /// May be paid instantly, where the program allows that.
    pub trusted: bool,
    pub status: PartnerStatus,
    /// When the partner was suspended, oldest first; the last one has no end while they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suspensions: Vec<Suspension>,
    pub payout_methods: Vec<PayoutMethod>,
    /// Payout details were given before: whatever is given now changes them, even where none stand at present.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub had_details: bool,
    /// Over how many partitions new lines are spread. Raising it needs no migration.
    pub shards: u8,
    /// Counts changes, from 1.
    #[serde(default = "first")]
    pub version: u32,
    pub created_at: Timestamp,
    pub created_by: String,
}

/// What a partner was called before, so that a statement of that time comes out the same for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerName {
    pub name: String,
    pub until: Timestamp,
}

/// Sales that occurred in it earn the partner nothing, whenever they are told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspension {
    /// Inclusive.
    pub from: Timestamp,
    /// Exclusive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// How often a partner may be suspended.
pub const MAX_SUSPENSIONS: usize = 50;

/// How often a partner's name may change.
pub const MAX_FORMER_NAMES: usize = 50;

const fn first() -> u32 {
    1
}

impl Partner {
    /// Takes another name, and remembers the one before.
    pub fn rename(&mut self, name: String, now: Timestamp) {
        if name != self.name {
            let name = std::mem::replace(&mut self.name, name);
            self.former_names.push(FormerName { name, until: now });
        }
    }

    /// Suspends or activates; being so already changes nothing.
    pub fn set_status(&mut self, status: PartnerStatus, now: Timestamp) {
        if status == self.status {
            return;
        }
        self.status = status;
        match status {
            PartnerStatus::Suspended => self.suspensions.push(Suspension { from: now, until: None }),
            PartnerStatus::Active => {
                for open in self.suspensions.iter_mut().filter(|suspension| suspension.until.is_none()) {
                    open.until = Some(now);
                }
            }
        }
    }

    /// Whether a sale that occurred then earns the partner nothing. One who was suspended before it was remembered since when, always was.
    pub fn was_suspended(&self, moment: Timestamp) -> bool {
        let within =
            |suspension: &Suspension| suspension.from <= moment && suspension.until.is_none_or(|until| moment < until);
        let unknown = self.status == PartnerStatus::Suspended && self.suspensions.is_empty();
        unknown || self.suspensions.iter().any(within)
    }

    pub fn name_at(&self, moment: Timestamp) -> &str {
        self.former_names.iter().find(|former| moment < former.until).map_or(&self.name, |former| &former.name)
    }

    /// The method payouts use unless a request names another.
    pub fn preferred_method(&self) -> Option<&PayoutMethod> {
        self.payout_methods.iter().find(|method| method.preferred).or(self.payout_methods.first())
    }

    /// The partner's own minimum payout, else the program's.
    pub fn minimum_payout_in(&self, program: &Program) -> Minor {
        self.minimum_payout.unwrap_or(program.minimum_payout)
    }

    /// Other payout methods in the place of these. Details that differ from the present ones are marked as changed; only the first that are
    /// ever given are not.
    pub fn give_details(&mut self, mut methods: Vec<PayoutMethod>, by: &str, at: Timestamp) {
        let first = !self.had_details && self.payout_methods.is_empty();
        for method in &mut methods {
            let same = self.method(method.kind).filter(|known| known.details == method.details);
            method.changed = match same {
                Some(known) => known.changed.clone(),
                None if first => None,
                None => Some(DetailsChange { by: by.to_owned(), at }),
            };
        }
        self.had_details = !first;
        self.payout_methods = methods;
    }

    pub fn method(&self, kind: MethodKind) -> Option<&PayoutMethod> {
        self.payout_methods.iter().find(|method| method.kind == kind)
    }

    /// SHA-256 of the trimmed, lower-cased address in hexadecimal, as customers' addresses are hashed: equal hashes are a
    /// partner buying through their own link.
    pub fn email_hash(&self) -> String {
        email_hash(&self.email)
    }
}

/// How e-mail addresses are kept where only equality matters.
pub fn email_hash(address: &str) -> String {
    use sha2::{Digest, Sha256};
    data_encoding::HEXLOWER.encode(&Sha256::digest(address.trim().to_lowercase().as_bytes()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartnerStatus {
    Active,
    Suspended,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PayoutMethod {
    pub kind: MethodKind,
    #[serde(default)]
    pub details: BTreeMap<String, String>,
    #[serde(default)]
    pub preferred: bool,
    /// Who changed the details last, and when. The first details of a partner are no change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<DetailsChange>,
}

/// Payout details are a way to steal: a change waits out the cooling-off days, and whoever made it must not approve what is paid to them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetailsChange {
    pub by: String,
    pub at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MethodKind {
    Quickbooks,
    Paypal,
    Wise,
    Bank,
    Manual,
}

impl PayoutMethod {
    /// A hash by which an approval notices that the destination changed, without holding it.
    pub fn fingerprint(&self) -> Hash {
        let details: Vec<_> = self.details.iter().collect();
        Hash::of(serde_json::json!([self.kind, details]).to_string().as_bytes())
    }

    /// Refuses details that could not be paid to.
    pub fn check(&self) -> Result<(), UnusableDetails> {
        let given = |field: &str| self.details.get(field).is_some_and(|value| !value.trim().is_empty());
        let email = |field: &str| {
            self.details
                .get(field)
                .is_some_and(|address| is_email(address))
                .then_some(())
                .ok_or(UnusableDetails(self.kind, "needs a valid e-mail address"))
        };
        match self.kind {
            MethodKind::Quickbooks | MethodKind::Manual => Ok(()),
            MethodKind::Paypal if given("wallet") || given("venmoPrivacy") => self.check_wallet(given),
            MethodKind::Paypal if given("payerId") && !given("email") => Ok(()),
            MethodKind::Paypal => email("email"),
            MethodKind::Wise if given("name") => email("email"),
            MethodKind::Bank if given("name") && given("iban") => {
                let iban = self.details.get("iban").map(String::as_str).unwrap_or_default();
                if is_iban(iban) {
                    Ok(())
                } else {
                    Err(UnusableDetails(self.kind, "has an IBAN whose check digits are wrong"))
                }
            }
            MethodKind::Bank if given("name") && given("accountNumber") && given("routingNumber") => Ok(()),
            MethodKind::Wise => Err(UnusableDetails(self.kind, "needs a name and an e-mail address")),
            MethodKind::Bank => {
                Err(UnusableDetails(self.kind, "needs a name and either an IBAN or account and routing number"))
            }
        }
    }
}

impl PayoutMethod {
    /// `PayPal` pays into two wallets; Venmo knows people by phone number and handle, too.
    fn check_wallet(&self, given: impl Fn(&str) -> bool) -> Result<(), UnusableDetails> {
        let said = |field: &str| self.details.get(field).map_or("", String::as_str);
        let unusable = |why| Err(UnusableDetails(self.kind, why));
        let venmo = said("wallet") == VENMO;
        if given("wallet") && !venmo && said("wallet") != "PAYPAL" {
            return unusable("has a wallet that is neither PAYPAL nor VENMO");
        }
        if given("venmoPrivacy") && !VENMO_PRIVACY.contains(&said("venmoPrivacy")) {
            return unusable("has a venmoPrivacy that is none of PRIVATE, FRIENDS_ONLY and PUBLIC");
        }
        if given("email") {
            return if is_email(said("email")) { Ok(()) } else { unusable("needs a valid e-mail address") };
        }
        if venmo && (given("phone") || given("venmoHandle")) || given("payerId") {
            Ok(())
        } else {
            unusable("names no recipient")
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the payout method {0:?} {1}")]
pub struct UnusableDetails(pub MethodKind, pub &'static str);

/// Whether mail could be sent there: one `@`, something before it, a dotted domain after it.
pub fn is_email(address: &str) -> bool {
    let Some((local, domain)) = address.split_once('@') else { return false };
    let clean =
        |part: &str| !part.is_empty() && part.chars().all(|c| !c.is_whitespace() && !c.is_control() && c != '@');
    address.len() <= 254
        && clean(local)
        && clean(domain)
        && domain.contains('.')
        && !domain.starts_with('.')
        && !domain.ends_with('.')
}

/// Length, alphabet and the check digits of ISO 13616 (mod 97).
fn is_iban(text: &str) -> bool {
    let iban: String = text.chars().filter(|c| *c != ' ').collect::<String>().to_uppercase();
    if !(15..=34).contains(&iban.len()) || !iban.bytes().all(|c| c.is_ascii_alphanumeric()) {
        return false;
    }
    let (head, tail) = iban.split_at(4);
    let remainder = tail
        .chars()
        .chain(head.chars())
        .filter_map(|c| c.to_digit(36))
        .fold(0_u32, |acc, digit| if digit < 10 { (acc * 10 + digit) % 97 } else { (acc * 100 + digit) % 97 });
    remainder == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_zones_of_the_database_are_taken() {
        assert!(Zone::try_from("Europe/Berlin".to_owned()).is_ok());
        for bad in ["", "Mars/Olympus", "+02:00", "../etc/passwd"] {
            assert!(Zone::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn details_that_cannot_be_paid_to_are_refused() {
        let method = |kind, details: &[(&str, &str)]| PayoutMethod {
            kind,
            details: details.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            preferred: false,
            changed: None,
        };
        use MethodKind::{Bank, Manual, Paypal, Quickbooks, Wise};
        for fine in [
            method(Manual, &[]),
            method(Quickbooks, &[]),
            method(Paypal, &[("email", "pay@partner.example")]),
            method(Paypal, &[("payerId", "QYR5Z8XDVJNXQ")]),
            method(Paypal, &[("email", "pay@partner.example"), ("wallet", "PAYPAL")]),
            method(Paypal, &[("phone", "2125550100"), ("wallet", "VENMO"), ("venmoPrivacy", "PUBLIC")]),
            method(Wise, &[("name", "Partner"), ("email", "pay@partner.example")]),
            method(Bank, &[("name", "Partner"), ("iban", "DE89 3704 0044 0532 0130 00")]),
            method(Bank, &[("name", "Partner"), ("accountNumber", "12345678"), ("routingNumber", "021000021")]),
        ] {
            assert_eq!(fine.check(), Ok(()), "{fine:?}");
        }
        for bad in [
            method(Paypal, &[]),
            method(Paypal, &[("email", "nobody")]),
            method(Paypal, &[("email", "nobody"), ("wallet", "VENMO")]),
            method(Paypal, &[("wallet", "VENMO")]),
            method(Paypal, &[("phone", "2125550100"), ("wallet", "PAYPAL")]),
            method(Paypal, &[("email", "pay@partner.example"), ("wallet", "CASH")]),
            method(Paypal, &[("email", "pay@partner.example"), ("venmoPrivacy", "ALL")]),
            method(Wise, &[("email", "pay@partner.example")]),
            method(Bank, &[("name", "Partner")]),
            method(Bank, &[("name", "Partner"), ("iban", "DE88 3704 0044 0532 0130 00")]),
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_fingerprint_changes_with_the_destination_only() {
        let to = |email: &str, preferred| PayoutMethod {
            kind: MethodKind::Paypal,
            details: BTreeMap::from([("email".to_owned(), email.to_owned())]),
            preferred,
            changed: None,
        };
        assert_eq!(to("a@x.example", true).fingerprint(), to("a@x.example", false).fingerprint());
        assert_ne!(to("a@x.example", true).fingerprint(), to("b@x.example", true).fingerprint());
    }
}
