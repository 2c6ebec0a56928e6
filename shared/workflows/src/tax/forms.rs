//! Tax forms of partners. The tax number on one is sealed before it is kept: this opens none.

use aws_sdk_kms::primitives::Blob;
use aws_sdk_secretsmanager::error::ProvideErrorMetadata;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use domain::ids::PartnerId;
use domain::program::{Partner, Program};
use domain::tax::{CheckedForm, Country, KeptNumber, PayeeKey, Revocation, TaxForm, TaxFormInput, TaxNumber};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use store::{StoreError, Transaction};

use crate::context::Context;
use crate::error::{Refusal, Result};

const OPERATION: &str = "tax form";

/// The key that tax numbers are sealed with. Each is sealed for one partner: moved to another, it does not open.
#[derive(Debug, Clone)]
pub struct Vault {
    pub kms: aws_sdk_kms::Client,
    /// Its ARN.
    pub key: String,
}

/// What a sealed number is bound to.
const CONTEXT: &str = "partner";

impl Vault {
    /// The ciphertext, in base64.
    async fn seal(&self, partner: &PartnerId, number: &TaxNumber) -> Result<String> {
        let plaintext = Blob::new(number.reveal());
        let request = self.kms.encrypt().key_id(&self.key).plaintext(plaintext);
        let answer = request.encryption_context(CONTEXT, partner.as_str()).send().await;
        let blob = answer.map_err(|error| unavailable(error.code()))?.ciphertext_blob;
        let blob = blob.ok_or_else(|| unavailable(Some("no ciphertext")))?;
        Ok(STANDARD.encode(blob))
    }

    /// Only the function that files returns may do this.
    pub(super) async fn open(&self, partner: &PartnerId, kept: &KeptNumber) -> Result<TaxNumber> {
        let blob = STANDARD.decode(&kept.sealed).map_err(|_| unavailable(Some("unreadable ciphertext")))?;
        let request = self.kms.decrypt().key_id(&self.key).ciphertext_blob(Blob::new(blob));
        let answer = request.encryption_context(CONTEXT, partner.as_str()).send().await;
        let opened = answer.map_err(|error| unavailable(error.code()))?.plaintext.unwrap_or_else(|| Blob::new([]));
        // Whatever it is, it must not stand in an error.
        let text = std::str::from_utf8(opened.as_ref()).ok();
        let number = text.and_then(|text| TaxNumber::parse(kept.kind, text).ok());
        number.ok_or_else(|| unavailable(Some("what it opened is no tax number")))
    }
}

fn unavailable(code: Option<&str>) -> Refusal {
    Refusal::Service("KMS", code.unwrap_or("no answer").to_owned())
}

/// Tells payees apart without holding their numbers. A hash without a key would not do: there are but a billion numbers.
async fn payee_key(context: &Context, number: &TaxNumber, country: Country) -> Result<PayeeKey> {
    let name = format!("{}/tax-key", context.secret_prefix);
    let secret = context.secrets.get_secret_value().secret_id(&name).send().await;
    let secret = secret.ok().and_then(|value| value.secret_string).filter(|secret| secret.len() >= 32);
    let failed = || Refusal::Service("Secrets Manager", format!("{name} is missing or too short"));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.ok_or_else(failed)?.as_bytes()).map_err(|_| failed())?;
    mac.update(number.identity(country).as_bytes());
    Ok(PayeeKey(URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())))
}

/// Keeps a form in place of the one that was read.
pub async fn put(
    context: &Context,
    program: &Program,
    partner: &Partner,
    read: Option<&TaxForm>,
    input: TaxFormInput,
    by: &str,
) -> Result<TaxForm> {
    if program.tax.is_none() {
        return Err(Refusal::Illegal("the partner's program has no payer of taxes: no form is asked for".to_owned()));
    }
    let now = context.now();
    let today = now.to_zoned(program.time_zone.time_zone()).date();
    let CheckedForm { kind, name, entity, country, signed_on, number, services, treaty } =
        input.check(today).map_err(Refusal::Invalid)?;
    let number = match number {
        None => None,
        Some(number) => Some(KeptNumber {
            kind: number.kind(),
            last: number.last(),
            sealed: context.vault.seal(&partner.id, &number).await?,
            payee: payee_key(context, &number, country).await?,
        }),
    };
    let form = TaxForm {
        partner: partner.id.clone(),
        program: program.id.clone(),
        version: read.map_or(1, |read| read.version + 1),
        kind,
        name,
        entity,
        country,
        signed_on,
        number,
        services,
        treaty,
        revoked: None,
        changed_at: now,
        changed_by: by.to_owned(),
    };
    write(context, &form, read).await?;
    Ok(form)
}

/// Says that a form does not hold: its number was wrong, or the payee's circumstances changed. From then on there is none.
pub async fn revoke(context: &Context, read: &TaxForm, reason: &str, by: &str) -> Result<TaxForm> {
    if read.revoked.is_some() {
        return Ok(read.clone());
    }
    let now = context.now();
    let revoked = Some(Revocation { at: now, by: by.to_owned(), reason: reason.to_owned() });
    let form =
        TaxForm { version: read.version + 1, revoked, changed_at: now, changed_by: by.to_owned(), ..read.clone() };
    write(context, &form, Some(read)).await?;
    Ok(form)
}

async fn write(context: &Context, form: &TaxForm, read: Option<&TaxForm>) -> Result<()> {
    let mut transaction = Transaction::new(OPERATION);
    transaction.put_tax_form(form, read)?;
    match context.store.commit(transaction).await {
        Err(StoreError::Stale) => Err(Refusal::Stale(vec!["somebody changed the tax form meanwhile".to_owned()])),
        other => Ok(other?),
    }
}
