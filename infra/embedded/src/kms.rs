//! Key Management Service: symmetric keys that encrypt and decrypt small values under an encryption context.
//!
//! Values are really encrypted, with AES-256-GCM and the context as associated data, so that another key, another context or an altered
//! blob is refused as in earnest.
//!
//! What it never does: keep its keys from whoever can read the snapshot, check grants or key policies, or rotate.

use std::collections::BTreeMap;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::aws_json::{Empty, Failure, Fault, run};
use crate::clock::Millis;
use crate::state::Call;
use crate::{ACCOUNT, REGION};

pub(crate) const TARGET: &str = "TrentService";

const ALGORITHM: &str = "SYMMETRIC_DEFAULT";
const ALIAS: &str = "alias/";
const MAX_PLAINTEXT: usize = 4096;
const NONCE: usize = 12;
const ID: usize = 16;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Key {
    description: Option<String>,
    created: Millis,
    /// In base64.
    material: String,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum KmsError {
    #[error("Key '{0}' does not exist")]
    NotFound(String),
    #[error("An alias with the name {0} already exists")]
    AliasExists(String),
    #[error("")]
    InvalidCiphertext,
    #[error("The key ID in the request does not identify a key that can perform this operation.")]
    IncorrectKey,
    #[error("{0}")]
    Validation(&'static str),
    #[error("The cryptography library failed.")]
    Internal,
}

impl Fault for KmsError {
    fn shape(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "NotFoundException",
            Self::AliasExists(_) => "AlreadyExistsException",
            Self::InvalidCiphertext => "InvalidCiphertextException",
            Self::IncorrectKey => "IncorrectKeyException",
            Self::Validation(_) => "ValidationException",
            Self::Internal => "KMSInternalException",
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CreateKey {
    description: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CreateAlias {
    alias_name: String,
    target_key_id: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct KeyId {
    key_id: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Encrypt {
    key_id: String,
    plaintext: String,
    #[serde(default)]
    encryption_context: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Decrypt {
    ciphertext_blob: String,
    key_id: Option<String>,
    #[serde(default)]
    encryption_context: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Described {
    key_metadata: Metadata,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata {
    #[serde(rename = "AWSAccountId")]
    account: &'static str,
    key_id: String,
    arn: String,
    description: String,
    creation_date: f64,
    enabled: bool,
    key_state: &'static str,
    key_usage: &'static str,
    key_spec: &'static str,
    encryption_algorithms: [&'static str; 1],
    origin: &'static str,
    key_manager: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Encrypted {
    ciphertext_blob: String,
    key_id: String,
    encryption_algorithm: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Decrypted {
    plaintext: String,
    key_id: String,
    encryption_algorithm: &'static str,
}

pub(crate) fn dispatch(call: &mut Call<'_>, operation: &str, body: &[u8]) -> Result<Bytes, Failure<KmsError>> {
    match operation {
        "CreateKey" => run(body, |r| create(call, r)),
        "CreateAlias" => run(body, |r| name(call, r)),
        "DescribeKey" => run(body, |r| describe(call, &r)),
        "Encrypt" => run(body, |r| encrypt(call, &r)),
        "Decrypt" => run(body, |r| decrypt(call, &r)),
        _ => Err(Failure::UnknownOperation),
    }
}

fn create(call: &mut Call<'_>, request: CreateKey) -> Result<Described, KmsError> {
    let id = call.services.ids.next("key");
    let halves = [call.services.ids.next("key material"), call.services.ids.next("key material")];
    let material = STANDARD.encode(halves.map(Uuid::into_bytes).concat());
    let key = Key { description: request.description, created: call.now, material };
    let described = key.described(id);
    call.services.keys.insert(id, key);
    Ok(described)
}

fn name(call: &mut Call<'_>, request: CreateAlias) -> Result<Empty, KmsError> {
    let CreateAlias { alias_name, target_key_id } = request;
    if !alias_name.starts_with(ALIAS) {
        return Err(KmsError::Validation("An alias begins with alias/"));
    }
    if call.services.key_aliases.contains_key(&alias_name) {
        return Err(KmsError::AliasExists(alias_name));
    }
    let (id, _) = find(call, &target_key_id)?;
    call.services.key_aliases.insert(alias_name, id);
    Ok(Empty {})
}

fn describe(call: &Call<'_>, request: &KeyId) -> Result<Described, KmsError> {
    let (id, key) = find(call, &request.key_id)?;
    Ok(key.described(id))
}

fn encrypt(call: &mut Call<'_>, request: &Encrypt) -> Result<Encrypted, KmsError> {
    let id = find(call, &request.key_id)?.0;
    let plaintext = STANDARD.decode(&request.plaintext).map_err(|_| KmsError::Validation("Plaintext is no base64"))?;
    if !(1..=MAX_PLAINTEXT).contains(&plaintext.len()) {
        return Err(KmsError::Validation("Plaintext must have 1 to 4096 bytes"));
    }
    let nonce: [u8; NONCE] = std::array::from_fn({
        let unique = call.services.ids.next("nonce").into_bytes();
        move |n| unique.get(n).copied().unwrap_or_default()
    });
    let (_, key) = find(call, &request.key_id)?;
    let mut sealed = plaintext;
    key.cipher()?
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(associated(&request.encryption_context)),
            &mut sealed,
        )
        .map_err(|_| KmsError::Internal)?;
    let blob = [id.as_bytes().as_slice(), nonce.as_slice(), sealed.as_slice()].concat();
    Ok(Encrypted { ciphertext_blob: STANDARD.encode(blob), key_id: arn(id), encryption_algorithm: ALGORITHM })
}

fn decrypt(call: &Call<'_>, request: &Decrypt) -> Result<Decrypted, KmsError> {
    let blob = STANDARD.decode(&request.ciphertext_blob).map_err(|_| KmsError::InvalidCiphertext)?;
    let (id, rest) = blob.split_at_checked(ID).ok_or(KmsError::InvalidCiphertext)?;
    let (nonce, sealed) = rest.split_at_checked(NONCE).ok_or(KmsError::InvalidCiphertext)?;
    let id = Uuid::from_slice(id).map_err(|_| KmsError::InvalidCiphertext)?;
    if let Some(named) = &request.key_id
        && find(call, named)?.0 != id
    {
        return Err(KmsError::IncorrectKey);
    }
    let key = call.services.keys.get(&id).ok_or(KmsError::InvalidCiphertext)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| KmsError::InvalidCiphertext)?;
    let mut opened = sealed.to_vec();
    let context = Aad::from(associated(&request.encryption_context));
    let plaintext =
        key.cipher()?.open_in_place(nonce, context, &mut opened).map_err(|_| KmsError::InvalidCiphertext)?;
    Ok(Decrypted { plaintext: STANDARD.encode(plaintext), key_id: arn(id), encryption_algorithm: ALGORITHM })
}

/// Pairs in the order of their names, each length first, so that different contexts are never the same bytes.
fn associated(context: &BTreeMap<String, String>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for text in context.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend((text.len() as u64).to_be_bytes());
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// By id, ARN or alias.
fn find<'a>(call: &'a Call<'_>, named: &str) -> Result<(Uuid, &'a Key), KmsError> {
    let unknown = || KmsError::NotFound(named.to_owned());
    let alias = || call.services.key_aliases.get(named).copied();
    let id = named.rsplit("key/").next().and_then(|id| Uuid::parse_str(id).ok()).or_else(alias).ok_or_else(unknown)?;
    let key = call.services.keys.get(&id).ok_or_else(unknown)?;
    Ok((id, key))
}

fn arn(id: Uuid) -> String {
    format!("arn:aws:kms:{REGION}:{ACCOUNT}:key/{id}")
}

impl Key {
    fn cipher(&self) -> Result<LessSafeKey, KmsError> {
        let material = STANDARD.decode(&self.material).map_err(|_| KmsError::Internal)?;
        let key = UnboundKey::new(&AES_256_GCM, &material).map_err(|_| KmsError::Internal)?;
        Ok(LessSafeKey::new(key))
    }

    fn described(&self, id: Uuid) -> Described {
        Described {
            key_metadata: Metadata {
                account: ACCOUNT,
                key_id: id.to_string(),
                arn: arn(id),
                description: self.description.clone().unwrap_or_default(),
                creation_date: self.created.timestamp(),
                enabled: true,
                key_state: "Enabled",
                key_usage: "ENCRYPT_DECRYPT",
                key_spec: ALGORITHM,
                encryption_algorithms: [ALGORITHM],
                origin: "AWS_KMS",
                key_manager: "CUSTOMER",
            },
        }
    }
}
