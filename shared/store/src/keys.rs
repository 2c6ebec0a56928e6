//! Where everything stands in the table. One place, so that the layout can be read at a glance.
//!
//! | noun | pk | sk |
//! |---|---|---|
//! | program | `PRG#<program>` | `PRG` |
//! | rule set version | `PRG#<program>` | `RUL#<version>` |
//! | rule set version that was published first | `PRG#<program>` | `FST` |
//! | claim of a referral code | `PRG#<program>` | `COD#<code>` |
//! | exchange rate | `FXR#<date>` | `<from>#<to>` |
//! | referral link | `LNK#<code>` | `LNK` |
//! | touch: a visit by a link | `VIS#<visitor>` | `<time and hash>` |
//! | connection to PayPal | `PRG#<program>` | `PPL` |
//! | registration with Intuit; QuickBooks settings of programs without their own | `QBO` | `APP`, `SET` |
//! | QuickBooks settings of a program | `PRG#<program>` | `QBO` |
//! | consent that is awaited | `QBS#<hash>` | `QBS` |
//! | company in QuickBooks: connection, lease of its tokens, pace of calls | `QBO#<realm>` | `CON`, `LEASE`, `PACE` |
//! | vendor that a partner is | `PAR#<partner>` | `QBV#<realm>#<currency>` |
//! | Bill of a payout | `PAY#<payout>` | `QBO` |
//! | comparison with a company in QuickBooks | `QBR#<realm>` | `<time>` |
//! | whose a Bill, payment or vendor is | `QBL#<realm>#<kind>#<id>` | `<payout or partner>` |
//! | source | `SRC#<source>` | `SRC` |
//! | use of an event's id, but for sales | `REF#<source>#<hash of kind and id>` | `REF` |
//! | customer | `CUS#<program>#<hash>` | `CUS` |
//! | conversion that made no line | `CNV#<conversion>` | `CNV` |
//! | partner | `PAR#<partner>` | `PAR` |
//! | balance shard | `PAR#<partner>` | `BAL#<currency>#<shard>` |
//! | tally of a rule and window | `PAR#<partner>` or `PRG#<program>` | `TLY#<rule>#<window>` |
//! | pulse for anomaly rules | `PAR#<partner>` | `PUL` |
//! | tax form, and its earlier versions | `PAR#<partner>` | `TAX`, `TXF#<version>` |
//! | count of payouts let go below a tax limit | `PAR#<partner>` | `DEP` |
//! | partner who gave a tax number | `TIN#<keyed hash>` | `<partner>` |
//! | payer of taxes | `TAX` | `TAX` |
//! | what a partner was paid in a year | `TAX#<year>#<bucket>` | `<partner>` |
//! | draft lock | `PAR#<partner>` | `DRF#<currency>` |
//! | payout | `PAR#<partner>` | `PAY#<time and hash>` |
//! | page of a payout | `PAY#<payout>` | `PAG#<number>` |
//! | lines a payout is to claim | `PAY#<payout>` | `PLN#<number>` |
//! | line | `LIN#<partner>#<shard>` | `<time and hash>` |
//! | journal entry | `JRN#<stream>` | `<position>` |
//! | run | `RUN#<run>` | `RUN` |
//! | a run's decision about a partner | `RUN#<run>` | `PAR#<partner>` |
//! | export batch, and its pages of rows | `EXP#<export>` | `EXP`, `PAG#<number>` |
//! | exception, and the body it came with in parts | `EXC#<exception>` | `EXC`, `BODY#<number>` |
//! | whose data a signed-in person may see | `MEM#<subject>` | `MEM` |
//! | remembered answer | `IDM#<hash>` | `IDM` |
//!
//! A line's and a payout's id *is* its address, so neither needs an index to be found or to be listed by partner.
//! Nothing but journal entries has a partition key starting with `JRN#`: IAM denies updating and deleting those.
//!
//! Two sparse indexes, both keys only, since what is found is always read again from the table:
//! `list` (programs; partners, links, payouts and runs of a program; exceptions by status; exchange rates by pair; companies in QuickBooks) and
//! `work` (approved lines by due date, payable lines by partner, runs and payouts that are under way, payouts that wait to be
//! paid, exports being gathered; each leaves it when nothing is to be done with it).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::conversion::{Code, EventKind};
use domain::ids::{
    ClickId, ConversionId, ExceptionId, ExportId, Hash, LineId, PartnerId, PayoutId, ProgramId, RunId, SourceId,
    VisitorId,
};
use domain::line::{Line, LineState};
use domain::money::Currency;
use domain::payout::Payout;
use domain::tally::{Owner, TallyKey};
use domain::tax::PayeeKey;
use jiff::civil::Date;
use sha2::{Digest, Sha256};

use crate::items::quickbooks::QuickbooksKind;
use crate::table::StoreError;

/// Over how many partitions the due index is spread.
pub const DUE_BUCKETS: u8 = 8;
/// Over how many partitions payouts are spread that something is to be done with: a run drafts one for every partner.
pub const PAYOUT_BUCKETS: u8 = 8;
/// Over how many partitions what was paid in a year is spread.
pub const TAX_YEAR_BUCKETS: u8 = 8;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub pk: String,
    pub sk: String,
}

impl Key {
    fn new(pk: String, sk: impl Into<String>) -> Self {
        Self { pk, sk: sk.into() }
    }

    pub fn program(id: &ProgramId) -> Self {
        Self::new(program_partition(id), "PRG")
    }

    pub fn rule_set(program: &ProgramId, version: u32) -> Self {
        Self::new(program_partition(program), format!("{RULE_SETS}{version:06}"))
    }

    pub fn first_published(program: &ProgramId) -> Self {
        Self::new(program_partition(program), "FST")
    }

    pub fn paypal(program: &ProgramId) -> Self {
        Self::new(program_partition(program), "PPL")
    }

    pub fn quickbooks_app() -> Self {
        Self::new("QBO".to_owned(), "APP")
    }

    pub fn quickbooks_consent(state: &Hash) -> Self {
        Self::new(format!("QBS#{state}"), "QBS")
    }

    pub fn quickbooks_settings(program: Option<&ProgramId>) -> Self {
        match program {
            Some(program) => Self::new(program_partition(program), "QBO"),
            None => Self::new("QBO".to_owned(), "SET"),
        }
    }

    pub fn quickbooks_connection(realm: &str) -> Self {
        Self::new(quickbooks_partition(realm), "CON")
    }

    pub fn quickbooks_lease(realm: &str) -> Self {
        Self::new(quickbooks_partition(realm), "LEASE")
    }

    pub fn quickbooks_pace(realm: &str) -> Self {
        Self::new(quickbooks_partition(realm), "PACE")
    }

    pub fn quickbooks_vendor(partner: &PartnerId, realm: &str, currency: Currency) -> Self {
        Self::new(partner_partition(partner), format!("{}{currency}", quickbooks_vendors_prefix(realm)))
    }

    pub fn quickbooks_bill(payout: &PayoutId) -> Self {
        Self::new(page_partition(payout), "QBO")
    }

    pub fn quickbooks_report(realm: &str, at: jiff::Timestamp) -> Self {
        Self::new(quickbooks_reports_partition(realm), sortable(at))
    }

    pub fn quickbooks_link(realm: &str, kind: QuickbooksKind, id: &str, of: &str) -> Self {
        Self::new(quickbooks_link_partition(realm, kind, id), of)
    }

    pub fn code(program: &ProgramId, code: &Code) -> Self {
        Self::new(program_partition(program), format!("COD#{}", code.as_str()))
    }

    pub fn rate(date: Date, from: Currency, to: Currency) -> Self {
        Self::new(rates_partition(date), format!("{from}#{to}"))
    }

    pub fn link(code: &Code) -> Self {
        Self::new(format!("LNK#{}", code.as_str()), "LNK")
    }

    pub fn touch(click: &ClickId) -> Self {
        Self::new(visitor_partition(&click.visitor()), click.position())
    }

    pub fn source(id: &SourceId) -> Self {
        Self::new(format!("SRC#{id}"), "SRC")
    }

    /// Hashed: the id is a storefront's text.
    pub fn event(source: &SourceId, kind: EventKind, id: &str) -> Self {
        Self::new(format!("REF#{source}#{}", hashed(&[kind.as_str(), id])), "REF")
    }

    pub fn partner(id: &PartnerId) -> Self {
        Self::new(partner_partition(id), "PAR")
    }

    pub fn balance(partner: &PartnerId, currency: Currency, shard: &str) -> Self {
        Self::new(partner_partition(partner), format!("{BALANCES}{currency}#{shard}"))
    }

    pub fn tally(program: &ProgramId, key: &TallyKey) -> Self {
        let partition = match &key.owner {
            Owner::Partner(partner) => partner_partition(partner),
            Owner::Program => program_partition(program),
        };
        Self::new(partition, format!("TLY#{}#{}", key.rule, key.window.as_str()))
    }

    pub fn pulse(partner: &PartnerId) -> Self {
        Self::new(partner_partition(partner), "PUL")
    }

    /// Hashed: the identity is a storefront's text.
    pub fn customer(program: &ProgramId, identity: &str) -> Self {
        Self::new(format!("CUS#{program}#{}", hashed(&[identity])), "CUS")
    }

    pub fn unrewarded(conversion: &ConversionId) -> Self {
        Self::new(format!("CNV#{conversion}"), "CNV")
    }

    pub fn tax_form(partner: &PartnerId) -> Self {
        Self::new(partner_partition(partner), "TAX")
    }

    pub fn departures(partner: &PartnerId) -> Self {
        Self::new(partner_partition(partner), "DEP")
    }

    pub fn earlier_tax_form(partner: &PartnerId, version: u32) -> Self {
        Self::new(partner_partition(partner), format!("{EARLIER_TAX_FORMS}{version:06}"))
    }

    pub fn payee(payee: &PayeeKey, partner: &PartnerId) -> Self {
        Self::new(payee_partition(payee), partner.as_str())
    }

    pub fn payer() -> Self {
        Self::new("TAX".to_owned(), "TAX")
    }

    pub fn tax_year(partner: &PartnerId, year: i16) -> Self {
        let bucket = Sha256::digest(partner.as_str())[0] % TAX_YEAR_BUCKETS;
        Self::new(tax_year_partition(year, bucket), partner.as_str())
    }

    pub fn draft_lock(partner: &PartnerId, currency: Currency) -> Self {
        Self::new(partner_partition(partner), format!("DRF#{currency}"))
    }

    pub fn payout(id: &PayoutId) -> Self {
        Self::new(partner_partition(&id.partner()), format!("{PAYOUTS}{}", id.position()))
    }

    pub fn page(payout: &PayoutId, number: u32) -> Self {
        Self::new(page_partition(payout), format!("{PAGES}{number:05}"))
    }

    pub fn plan(payout: &PayoutId, number: u32) -> Self {
        Self::new(page_partition(payout), format!("{PLANS}{number:05}"))
    }

    pub fn line(id: &LineId) -> Self {
        Self::new(line_partition(&id.partner(), id.shard()), id.position())
    }

    pub fn entry(stream: &str, position: u32) -> Self {
        Self::new(journal_partition(stream), format!("{position:06}"))
    }

    pub fn run(id: &RunId) -> Self {
        Self::new(run_partition(id), "RUN")
    }

    pub fn decision(run: &RunId, partner: &PartnerId) -> Self {
        Self::new(run_partition(run), format!("{DECISIONS}{partner}"))
    }

    pub fn export(id: &ExportId) -> Self {
        Self::new(export_partition(id), "EXP")
    }

    pub fn export_page(id: &ExportId, number: u32) -> Self {
        Self::new(export_partition(id), format!("{PAGES}{number:05}"))
    }

    pub fn exception(id: &ExceptionId) -> Self {
        Self::new(exception_partition(id), "EXC")
    }

    pub fn exception_body(id: &ExceptionId, part: u32) -> Self {
        Self::new(exception_partition(id), format!("{BODIES}{part:03}"))
    }

    pub fn membership(subject: &str) -> Self {
        Self::new(format!("MEM#{subject}"), "MEM")
    }

    /// Hashed: the key is a client's text of any length.
    pub fn idempotency(caller: &str, key: &str) -> Self {
        Self::new(format!("IDM#{}", hashed(&[caller, key])), "IDM")
    }
}

fn hashed(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    URL_SAFE_NO_PAD.encode(hasher.finalize())
}

pub const EARLIER_TAX_FORMS: &str = "TXF#";
pub const RULE_SETS: &str = "RUL#";
pub const BALANCES: &str = "BAL#";
pub const PAYOUTS: &str = "PAY#";
pub const PAGES: &str = "PAG#";
pub const PLANS: &str = "PLN#";
pub const BODIES: &str = "BODY#";
pub const DECISIONS: &str = "PAR#";

pub fn program_partition(id: &ProgramId) -> String {
    format!("PRG#{id}")
}

fn quickbooks_partition(realm: &str) -> String {
    format!("QBO#{realm}")
}

pub fn quickbooks_reports_partition(realm: &str) -> String {
    format!("QBR#{realm}")
}

/// What the sort keys of a partner's vendors in one company begin with.
pub fn quickbooks_vendors_prefix(realm: &str) -> String {
    format!("QBV#{realm}#")
}

pub fn quickbooks_link_partition(realm: &str, kind: QuickbooksKind, id: &str) -> String {
    format!("QBL#{realm}#{}#{id}", kind.as_str())
}

pub fn partner_partition(id: &PartnerId) -> String {
    format!("PAR#{id}")
}

pub fn rates_partition(date: Date) -> String {
    format!("FXR#{date}")
}

pub fn payee_partition(payee: &PayeeKey) -> String {
    format!("TIN#{}", payee.0)
}

pub fn tax_year_partition(year: i16, bucket: u8) -> String {
    format!("TAX#{year}#{bucket}")
}

pub fn visitor_partition(id: &VisitorId) -> String {
    format!("VIS#{id}")
}

/// Whose partition it is.
pub fn partner_of(partition: &str) -> Result<PartnerId, StoreError> {
    partition.strip_prefix("PAR#").unwrap_or_default().parse().map_err(StoreError::corrupt)
}

pub fn line_partition(partner: &PartnerId, shard: &str) -> String {
    format!("LIN#{partner}#{shard}")
}

pub fn page_partition(payout: &PayoutId) -> String {
    format!("PAY#{payout}")
}

pub fn journal_partition(stream: &str) -> String {
    format!("JRN#{stream}")
}

pub fn exception_partition(id: &ExceptionId) -> String {
    format!("EXC#{id}")
}

pub fn export_partition(id: &ExportId) -> String {
    format!("EXP#{id}")
}

pub fn run_partition(run: &RunId) -> String {
    format!("RUN#{run}")
}

/// Where an item stands in an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub pk: String,
    pub sk: String,
}

impl Place {
    pub fn new(pk: impl Into<String>, sk: impl Into<String>) -> Self {
        Self { pk: pk.into(), sk: sk.into() }
    }
}

/// What a line waits for, if anything is to be done with it.
pub fn work_place(line: &Line) -> Option<Place> {
    let order = format!("{}#{}", sortable(line.due_at), line.id);
    match line.state {
        LineState::Approved => Some(Place::new(due_partition(due_bucket(&line.partner, line.id.shard())), order)),
        // Debts first: however much is payable, what is owed is found.
        LineState::Payable => {
            let place = if line.settles_debts() { "debt" } else { "earned" };
            Some(Place::new(payable_partition(&line.partner), format!("{place}#{order}")))
        }
        _ => None,
    }
}

/// By partner and shard, so that what matures together is found together and shares a transaction.
pub fn due_bucket(partner: &PartnerId, shard: &str) -> u8 {
    Sha256::digest(line_partition(partner, shard))[0] % DUE_BUCKETS
}

pub fn due_partition(bucket: u8) -> String {
    format!("DUE#{bucket}")
}

pub fn payable_partition(partner: &PartnerId) -> String {
    format!("PAYABLE#{partner}")
}

/// Sorts after every id behind a moment.
pub const AFTER_IDS: &str = "#~";

/// A moment whose text sorts as it does: always with nine decimals.
pub fn sortable(moment: jiff::Timestamp) -> String {
    format!("{moment:.9}")
}

pub const UNFINISHED_RUNS: &str = "RUNS";
pub const UNFINISHED_EXPORTS: &str = "EXPORTS";

fn payout_bucket(payout: &Payout) -> u8 {
    Sha256::digest(payout.id.as_str())[0] % PAYOUT_BUCKETS
}

/// Where a payout stands while its lines are claimed, or follow it to its end.
pub fn unfinished_place(payout: &Payout) -> Place {
    Place::new(unfinished_partition(payout_bucket(payout)), payout.id.as_str())
}

pub fn unfinished_partition(bucket: u8) -> String {
    format!("PAYOUTS#{bucket}")
}

/// Where a payout stands while it waits for somebody to approve or pay it: the oldest first.
pub fn unpaid_place(payout: &Payout) -> Place {
    Place::new(unpaid_partition(payout_bucket(payout)), format!("{}#{}", sortable(payout.created_at), payout.id))
}

pub fn unpaid_partition(bucket: u8) -> String {
    format!("UNPAID#{bucket}")
}

pub const PROGRAMS_LIST: &str = "PRG";
pub const QUICKBOOKS_LIST: &str = "QBO";

pub fn partners_list(program: &ProgramId) -> String {
    format!("PAR#{program}")
}

pub fn payouts_list(program: &ProgramId) -> String {
    format!("PAY#{program}")
}

pub fn runs_list(program: &ProgramId) -> String {
    format!("RUN#{program}")
}

pub fn rates_list(from: Currency, to: Currency) -> String {
    format!("FXR#{from}#{to}")
}

pub fn exports_list(program: &ProgramId) -> String {
    format!("EXP#{program}")
}

pub fn sources_list(program: &ProgramId) -> String {
    format!("SRC#{program}")
}

pub fn links_list(program: &ProgramId) -> String {
    format!("LNK#{program}")
}

/// What the places of a partner's links begin with in their program's list.
pub fn links_of(partner: &PartnerId) -> String {
    format!("{partner}#")
}

pub fn unrewarded_list(program: &ProgramId, because: &str) -> String {
    format!("UNR#{program}#{because}")
}

/// What the sort keys of a rule's tallies start with.
pub fn tally_prefix(key: &Key) -> &str {
    key.sk.rsplit_once('#').map_or("", |(rule, _)| rule)
}

pub fn exceptions_list(status: &str) -> String {
    format!("EXC#{status}")
}
