//! The file that a payer's information returns are made from. It holds whole tax numbers: it is encrypted with the key that seals
//! them, so that reading it takes the right to use that key, and the bucket forgets it after a month.

use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ServerSideEncryption;
use domain::ids::Hash;
use domain::money::{Currency, Money};
use domain::remittance::shown_as_text;
use domain::tax::{Country, Return, TaxNumber};
use serde::Serialize;

use crate::context::Context;
use crate::error::{Refusal, Result};
use crate::files::Files;
use crate::tax::totals::{PayeeYear, YEARS, totals};

/// Payees looked at in one go; so many numbers are opened side by side.
const PAGE: i32 = 50;
/// Payees in one file: some 100 MB.
const MAX_RETURNS: u32 = 500_000;

const COLUMNS: [&str; 16] = [
    "year",
    "return",
    "name",
    "taxNumberKind",
    "taxNumber",
    "entity",
    "country",
    "partnerIds",
    "compensation",
    "compensationMinor",
    "taxWithheld",
    "taxWithheldMinor",
    "treatyCountry",
    "treatyRate",
    "treatyArticle",
    "emails",
];

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Filed {
    pub year: i16,
    /// Where it is in the bucket: under the hash of its content, so that the same content has one place.
    pub key: String,
    pub returns: u32,
    /// Of these, those without a tax number.
    pub without_number: u32,
    /// Payees of the year that nothing is reported of.
    pub excluded: u32,
}

/// Writes the file of a year.
pub async fn file(context: &Context, files: &Files, year: i16) -> Result<Filed> {
    if !YEARS.contains(&year) {
        return Err(Refusal::invalid("/year", format!("is from {} to {}", YEARS.start(), YEARS.end())));
    }
    let mut rows = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    let failed = |error: csv::Error| Refusal::Service("CSV", error.to_string());
    rows.write_record(COLUMNS).map_err(failed)?;
    let mut filed = Filed { year, key: String::new(), returns: 0, without_number: 0, excluded: 0 };
    let mut after: Option<String> = None;
    loop {
        let page = totals(context, year, after.as_deref(), PAGE).await?;
        let numbers = page.items.iter().map(|payee| number(context, payee));
        let numbers = futures::future::try_join_all(numbers).await?;
        for (payee, number) in page.items.iter().zip(numbers) {
            match payee.filing.on {
                None => filed.excluded += 1,
                Some(on) => {
                    filed.returns += 1;
                    filed.without_number += u32::from(number.is_none());
                    rows.write_record(row(year, on, payee, number.as_ref())).map_err(failed)?;
                }
            }
        }
        if filed.returns > MAX_RETURNS {
            return Err(Refusal::invalid("/year", format!("has more than {MAX_RETURNS} returns")));
        }
        after = page.after;
        if after.is_none() {
            break;
        }
    }
    let content = rows.into_inner().map_err(|error| Refusal::Service("CSV", error.to_string()))?;
    filed.key = format!("tax/{year}/returns-{}.csv", Hash::of(&content));
    put(context, files, &filed.key, content).await?;
    Ok(filed)
}

/// What stands on a return, opened.
async fn number(context: &Context, payee: &PayeeYear) -> Result<Option<TaxNumber>> {
    let form = payee.form.as_ref().filter(|form| payee.filing.on.is_some() && form.revoked.is_none());
    match form.and_then(|form| form.number.as_ref().map(|kept| (form, kept))) {
        None => Ok(None),
        Some((form, kept)) => Ok(Some(context.vault.open(&form.partner, kept).await?)),
    }
}

fn row(year: i16, on: Return, payee: &PayeeYear, number: Option<&TaxNumber>) -> [String; 16] {
    let text = |words: Vec<&str>| shown_as_text(&words.join(" "));
    let word = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let [compensation, tax] =
        [payee.filing.compensation, payee.filing.tax].map(|amount| Money::new(amount, Currency::USD));
    let form = payee.form.as_ref();
    let treaty = form.and_then(|form| form.treaty.as_ref());
    [
        year.to_string(),
        on.as_str().to_owned(),
        shown_as_text(payee.name()),
        number.map(|number| number.kind().as_str().to_owned()).unwrap_or_default(),
        number.map(|number| number.reveal().to_owned()).unwrap_or_default(),
        form.map(|form| word(serde_json::json!(form.entity))).unwrap_or_default(),
        payee.country().map(|country: Country| country.to_string()).unwrap_or_default(),
        text(payee.partners.iter().map(|partner| partner.id.as_str()).collect()),
        compensation.decimal(),
        compensation.amount.units().to_string(),
        tax.decimal(),
        tax.amount.units().to_string(),
        treaty.map(|treaty| treaty.country.to_string()).unwrap_or_default(),
        treaty.map(|treaty| treaty.rate.value().to_string()).unwrap_or_default(),
        treaty.map(|treaty| shown_as_text(&treaty.article)).unwrap_or_default(),
        text(payee.partners.iter().map(|partner| partner.email.as_str()).collect()),
    ]
}

async fn put(context: &Context, files: &Files, key: &str, content: Vec<u8>) -> Result<()> {
    files
        .s3
        .put_object()
        .bucket(&files.bucket)
        .key(key)
        .content_type("text/csv; charset=utf-8")
        .server_side_encryption(ServerSideEncryption::AwsKms)
        .ssekms_key_id(&context.vault.key)
        .body(ByteStream::from(content))
        .send()
        .await
        .map_err(|error| Refusal::Service("S3", error.code().unwrap_or("no answer").to_owned()))?;
    Ok(())
}
