//! Tax on payouts, for a payer in the United States: what a payee's form says, what must be kept back or not paid at all, and what
//! counts towards the information returns of a year.
//!
//! Nothing here applies to programs without a [`TaxSettings`]. Limits and rates are dated ([`YearRules`]). A tax number is never
//! kept in the clear: [`TaxNumber`] is what came in, [`KeptNumber`] what stays.
//!
//! Sources: 26 U.S.C. §3406 (backup withholding), §6041 and §6041A (information returns), §1441 and §1442 (withholding on foreign
//! persons), §861(a)(3) and §862(a)(3) (services have their source where they are performed); 26 CFR as named beside each rule.

mod country;
mod form;
mod number;
mod terms;
mod totals;

pub use country::{Country, UnknownCountry};
pub use form::{
    CheckedForm, Entity, FormKind, FormStatus, NumberInput, Payee, Revocation, Services, TaxForm, TaxFormInput, Treaty,
    TreatyInput,
};
pub use number::{BadTaxNumber, KeptNumber, NumberKind, PayeeKey, TaxNumber};
pub use terms::{
    PUBLISHED_UP_TO, Position, TaxSettings, Terms, Withholding, WithholdingKind, WithoutNumber, YearRules, terms,
    year_of,
};
pub use totals::{Counted, ExcludedBecause, Filing, Return, counted, filing};
