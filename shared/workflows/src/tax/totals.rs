//! What payees were paid in a year: over all their programs, told apart by tax number, and where there is none by partner.

use std::collections::BTreeMap;

use domain::ids::PartnerId;
use domain::program::Partner;
use domain::rules::FieldError;
use domain::tax::{Counted, Country, ExcludedBecause, Filing, PUBLISHED_UP_TO, Return, TaxForm, YearRules, filing};
use store::{Listing, Payer, StoreError, TaxYear, Transaction};

use crate::context::Context;
use crate::error::{Refusal, Result};

const OPERATION: &str = "tax totals";
/// Years that can be asked for: what is outside is a slip of the pen.
pub const YEARS: std::ops::RangeInclusive<i16> = 2000..=2100;
/// Settings a payer can have.
const MAX_OVERRIDES: usize = 50;

/// A payee's year.
#[derive(Debug, Clone)]
pub struct PayeeYear {
    /// One, or all that gave the same tax number, in the order of their ids.
    pub partners: Vec<Partner>,
    /// The latest that one of them gave.
    pub form: Option<TaxForm>,
    pub counted: Counted,
    pub filing: Filing,
}

impl PayeeYear {
    /// As on the form, else as the partner is called.
    pub fn name(&self) -> &str {
        let partner = || self.partners.first().map_or("", |partner| &partner.name);
        self.form.as_ref().map_or_else(partner, |form| &form.name)
    }

    /// Whether the reporting limit says anything about the payee.
    pub fn is_domestic(&self) -> bool {
        use ExcludedBecause::{Corporation, ForeignSource, NoForm};
        self.filing.on != Some(Return::Form1042S)
            && !matches!(self.filing.because, Some(Corporation | ForeignSource | NoForm))
    }

    pub fn country(&self) -> Option<Country> {
        let form = self.form.as_ref().map(|form| form.country);
        form.or_else(|| self.partners.iter().find_map(|partner| partner.country))
    }
}

/// The rules of a year, by the payer's own settings where there are some.
pub async fn rules(context: &Context, year: i16) -> Result<YearRules> {
    let payer = context.store.payer(OPERATION).await?;
    Ok(YearRules::of(year, &payer.map(|payer| payer.years).unwrap_or_default())?)
}

/// One page of those who were paid in a year. A page may be shorter than asked for: a payee of several partners stands where the first
/// of them does.
pub async fn totals(context: &Context, year: i16, after: Option<&str>, limit: i32) -> Result<Listing<PayeeYear>> {
    let rules = rules(context, year).await?;
    let page = context.store.paid_in(OPERATION, year, after, limit).await?;
    let ids: Vec<_> = page.items.iter().map(|item| item.partner.clone()).collect();
    let forms = by_partner(context.store.tax_forms(OPERATION, &ids).await?);
    let mut items = Vec::with_capacity(page.items.len());
    for item in page.items {
        let own = forms.get(&item.partner);
        if let Some(payee) = payee(context, year, &rules, item, own).await? {
            items.push(payee);
        }
    }
    Ok(Listing { items, after: page.after })
}

fn by_partner(forms: Vec<TaxForm>) -> BTreeMap<PartnerId, TaxForm> {
    forms.into_iter().map(|form| (form.partner.clone(), form)).collect()
}

/// The payee that stands at a partner; `None` where it stands at another, or nothing is left of what was paid.
async fn payee(
    context: &Context,
    year: i16,
    rules: &YearRules,
    paid: TaxYear,
    own: Option<&TaxForm>,
) -> Result<Option<PayeeYear>> {
    let number = own.filter(|form| form.revoked.is_none()).and_then(|form| form.number.as_ref());
    let (counted, forms) = match number {
        None => (vec![paid.clone()], own.cloned().into_iter().collect()),
        Some(number) => {
            let gave = context.store.partners_of_payee(OPERATION, &number.payee).await?;
            let mut forms = context.store.tax_forms(OPERATION, &gave).await?;
            forms.retain(|form| {
                form.revoked.is_none() && form.number.as_ref().is_some_and(|given| given.payee == number.payee)
            });
            let of: Vec<_> = forms.iter().map(|form| (form.partner.clone(), year)).collect();
            (context.store.tax_years(OPERATION, &of).await?, forms)
        }
    };
    let first = counted.iter().map(|of| &of.partner).min();
    let sum = counted.iter().try_fold(Counted::default(), |sum, of| sum.plus(of.counted))?;
    if sum.is_zero() || first != Some(&paid.partner) {
        return Ok(None);
    }
    let mut ids: Vec<_> = counted.into_iter().map(|of| of.partner).collect();
    ids.sort();
    let partners = context.store.partners_by_id(OPERATION, &ids).await?;
    let form = forms.into_iter().max_by_key(|form| (form.changed_at, form.partner.clone()));
    let foreign = partners.iter().any(|partner| partner.country.is_some_and(Country::is_foreign));
    let filing = filing(&sum, form.as_ref(), foreign, rules)?;
    Ok(Some(PayeeYear { partners, form, counted: sum, filing }))
}

/// The payer as stored, or one that says nothing.
pub async fn payer(context: &Context) -> Result<Payer> {
    let stored = context.store.payer(OPERATION).await?;
    Ok(stored.unwrap_or_else(|| Payer {
        name: None,
        years: Vec::new(),
        version: 0,
        changed_at: context.now(),
        changed_by: String::new(),
    }))
}

/// Changes the payer's settings, as they were read.
pub async fn set_payer(
    context: &Context,
    read: &Payer,
    name: Option<String>,
    mut years: Vec<YearRules>,
    by: &str,
) -> Result<Payer> {
    let mut wrong = Vec::new();
    let mut refuse = |at: usize, field: &str, detail: &str| {
        wrong.push(FieldError::new(format!("/years/{at}/{field}"), detail));
    };
    for (n, rules) in years.iter().enumerate().take(MAX_OVERRIDES) {
        if !YEARS.contains(&rules.year) {
            refuse(n, "year", "is from 2000 to 2100");
        }
        if years.iter().take(n).any(|earlier| earlier.year == rules.year) {
            refuse(n, "year", "is there twice");
        }
        if !rules.reporting_limit.is_positive() {
            refuse(n, "reportingLimit", "must be more than zero");
        }
        for (field, rate) in [("backupRate", rules.backup_rate), ("nonresidentRate", rules.nonresident_rate)] {
            let rate = rate.value();
            if rate.is_sign_negative() || rate > 100.into() || rate.scale() > 2 {
                refuse(n, field, "is from 0 to 100 percent, with at most two decimals");
            }
        }
    }
    if years.len() > MAX_OVERRIDES {
        wrong.push(FieldError::new("/years", format!("at most {MAX_OVERRIDES}")));
    }
    if !wrong.is_empty() {
        return Err(Refusal::Invalid(wrong));
    }
    years.sort_by_key(|rules| rules.year);
    let changed_at = context.now();
    let payer = Payer { name, years, version: read.version + 1, changed_at, changed_by: by.to_owned() };
    let mut transaction = Transaction::new(OPERATION);
    transaction.put_payer(&payer, (read.version > 0).then_some(read))?;
    match context.store.commit(transaction).await {
        Ok(()) => Ok(payer),
        Err(StoreError::Stale) => Err(Refusal::Stale(vec!["somebody changed the payer meanwhile".to_owned()])),
        Err(error) => Err(error.into()),
    }
}

/// Whether the limit of a year is published, or set by the payer: else the latest known one stands in for it.
pub fn is_settled(payer: &Payer, year: i16) -> bool {
    year <= PUBLISHED_UP_TO || payer.years.iter().any(|rules| rules.year == year)
}
