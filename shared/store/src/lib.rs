//! The single table: keys, items, conditional transactions, and what they cost.
//!
//! The seam to the outside is the AWS SDK's client; there is no interface of ours to mock. Whoever wants another
//! DynamoDB gives the client another endpoint or another HTTP connector.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod cursor;
mod items;
mod keys;
mod meter;
mod rehearsal;
mod schema;
mod table;
mod transaction;

pub use cursor::{BadCursor, CursorKey};
pub use items::customer::{KnownCustomer, Purchase};
pub use items::everything::Everything;
pub use items::exception::{Exception, ExceptionCode, ExceptionStatus};
pub use items::export::{Export, ExportFile, ExportPage, ExportProgress, ExportRow, LeftOut, LeftOutBecause, Whose};
pub use items::idempotency::{Answer, Remembered};
pub use items::journal::Chain;
pub use items::lines::LinePosition;
pub use items::link::Link;
pub use items::membership::Membership;
pub use items::payouts::{DraftLock, UnpaidPosition};
pub use items::paypal::{PaypalConnection, PaypalEnvironment};
pub use items::program::{partner_position, program_position};
pub use items::pulse::StoredPulse;
pub use items::quickbooks::{
    CONSENT_MINUTES, QuickbooksApp, QuickbooksBill, QuickbooksCompany, QuickbooksConnection, QuickbooksConsent,
    QuickbooksDated, QuickbooksDay, QuickbooksDifference, QuickbooksEnvironment, QuickbooksKind, QuickbooksLease,
    QuickbooksLink, QuickbooksPace, QuickbooksReport, QuickbooksSettings, QuickbooksState, QuickbooksVendor,
};
pub use items::rate::ToldRate;
pub use items::run::{CarriedSum, Decision, Outcome, PayoutRequest, Run, RunProgress, RunSummary, run_position};
pub use items::source::{CodeClaim, EventClaim, Source};
pub use items::tally::{ReadTallies, StoredTally};
pub use items::tax::{Departures, Payer, TaxYear};
pub use items::unrewarded::{Because, Unrewarded};
pub use keys::Key;
pub use meter::{Meter, Units};
pub use schema::{LIST_INDEX, WORK_INDEX, create_table};
pub use table::{Listing, Store, StoreError};
pub use transaction::Transaction;
