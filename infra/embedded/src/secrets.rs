//! Secrets Manager: versioned secrets with staging labels.
//!
//! What it never does: encrypt (local values only), call a rotation function, or purge a secret when its recovery
//! window ends.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::aws_json::{Failure, Fault, run};
use crate::clock::Millis;
use crate::state::{Call, Services};
use crate::{ACCOUNT, REGION};

pub(crate) const TARGET: &str = "secretsmanager";

const CURRENT: &str = "AWSCURRENT";
const PREVIOUS: &str = "AWSPREVIOUS";
const DEFAULT_RECOVERY_DAYS: u32 = 30;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Secret {
    arn: String,
    description: Option<String>,
    tags: Vec<Value>,
    created: Millis,
    changed: Millis,
    deletion: Option<Millis>,
    versions: BTreeMap<String, Version>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Version {
    content: Content,
    created: Millis,
    stages: BTreeSet<String>,
}

/// What a version holds; one of the two. Binary stays in base64, as it travels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Content {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret_string: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret_binary: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretsError {
    #[error("{0}")]
    InvalidParameter(&'static str),
    #[error("You can't perform this operation on the secret because it was marked for deletion.")]
    MarkedForDeletion,
    #[error("The operation failed because the secret {0} already exists.")]
    SecretExists(String),
    #[error("A version with this ClientRequestToken exists, with another value.")]
    VersionExists,
    #[error("Secrets Manager can't find the specified secret.")]
    SecretNotFound,
    #[error("Secrets Manager can't find the specified secret value for {0}.")]
    VersionNotFound(String),
}

impl Fault for SecretsError {
    fn shape(&self) -> &'static str {
        match self {
            Self::InvalidParameter(_) => "com.amazonaws.secretsmanager#InvalidParameterException",
            Self::MarkedForDeletion => "com.amazonaws.secretsmanager#InvalidRequestException",
            Self::SecretExists(_) | Self::VersionExists => "com.amazonaws.secretsmanager#ResourceExistsException",
            Self::SecretNotFound | Self::VersionNotFound(_) => "com.amazonaws.secretsmanager#ResourceNotFoundException",
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CreateSecret {
    name: String,
    client_request_token: Option<String>,
    description: Option<String>,
    #[serde(default)]
    tags: Vec<Value>,
    #[serde(flatten)]
    content: Content,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutSecretValue {
    secret_id: String,
    client_request_token: Option<String>,
    version_stages: Option<BTreeSet<String>>,
    #[serde(flatten)]
    content: Content,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UpdateSecret {
    secret_id: String,
    client_request_token: Option<String>,
    description: Option<String>,
    #[serde(flatten)]
    content: Content,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UpdateSecretVersionStage {
    secret_id: String,
    version_stage: String,
    move_to_version_id: Option<String>,
    remove_from_version_id: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetSecretValue {
    secret_id: String,
    version_id: Option<String>,
    version_stage: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SecretId {
    secret_id: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DeleteSecret {
    secret_id: String,
    #[serde(default)]
    force_delete_without_recovery: bool,
    recovery_window_in_days: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListSecrets {
    #[serde(default)]
    include_planned_deletion: bool,
    #[serde(default)]
    filters: Vec<Filter>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Filter {
    key: String,
    values: Vec<String>,
}

/// Names a secret, and the version an operation was about.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Named {
    #[serde(rename = "ARN")]
    arn: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_stages: Option<BTreeSet<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deletion_date: Option<f64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct SecretValue {
    #[serde(flatten)]
    named: Named,
    created_date: f64,
    #[serde(flatten)]
    content: Content,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Summary {
    #[serde(rename = "ARN")]
    arn: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    tags: Vec<Value>,
    created_date: f64,
    last_changed_date: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted_date: Option<f64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct DescribedSecret {
    #[serde(flatten)]
    summary: Summary,
    version_ids_to_stages: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ListedSecret {
    #[serde(flatten)]
    summary: Summary,
    secret_versions_to_stages: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct SecretList {
    secret_list: Vec<ListedSecret>,
}

pub(crate) fn dispatch(call: &mut Call<'_>, operation: &str, body: &[u8]) -> Result<Bytes, Failure<SecretsError>> {
    match operation {
        "CreateSecret" => run(body, |r| create(call, r)),
        "DeleteSecret" => run(body, |r| delete(call, &r)),
        "DescribeSecret" => run(body, |r| describe(call, &r)),
        "GetSecretValue" => run(body, |r| value(call, &r)),
        "ListSecrets" => run(body, |r| list(call, &r)),
        "PutSecretValue" => run(body, |r| put_value(call, r)),
        "RestoreSecret" => run(body, |r| restore(call, &r)),
        "UpdateSecret" => run(body, |r| update(call, r)),
        "UpdateSecretVersionStage" => run(body, |r| move_stage(call, &r)),
        _ => Err(Failure::UnknownOperation),
    }
}

fn create(call: &mut Call<'_>, request: CreateSecret) -> Result<Named, SecretsError> {
    let CreateSecret { name, client_request_token, description, tags, content } = request;
    let valid = |c: char| c.is_ascii_alphanumeric() || "/_+=.@-".contains(c);
    if name.is_empty() || name.len() > 512 || !name.chars().all(valid) {
        return Err(SecretsError::InvalidParameter("Invalid name."));
    }
    if let Some(existing) = call.services.secrets.get(&name) {
        return repeated(&name, existing, client_request_token.as_deref(), &content);
    }
    check(&content)?;
    let now = call.now;
    let token = client_request_token.unwrap_or_else(|| call.services.ids.next("secret version").to_string());
    let suffix: String = call.services.ids.next("secret").simple().to_string().chars().take(6).collect();
    let arn = format!("arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{name}-{suffix}");
    let versions = BTreeMap::new();
    let mut secret = Secret { arn, description, tags, created: now, changed: now, deletion: None, versions };
    let version = if content.is_empty() {
        None
    } else {
        secret.put(&token, content, &current(), now)?;
        Some(token)
    };
    let named = secret.named(&name, version);
    call.services.secrets.insert(name, secret);
    Ok(named)
}

/// A secret may be created again by the same request, which a retry repeats.
fn repeated(name: &str, secret: &Secret, token: Option<&str>, content: &Content) -> Result<Named, SecretsError> {
    if secret.deletion.is_some() {
        return Err(SecretsError::MarkedForDeletion);
    }
    let same = token.and_then(|token| secret.versions.get(token)).is_some_and(|version| version.content == *content);
    if same {
        Ok(secret.named(name, token.map(str::to_owned)))
    } else {
        Err(SecretsError::SecretExists(name.to_owned()))
    }
}

fn put_value(call: &mut Call<'_>, request: PutSecretValue) -> Result<Named, SecretsError> {
    let PutSecretValue { secret_id, client_request_token, version_stages, content } = request;
    if content.is_empty() {
        return Err(SecretsError::InvalidParameter("You must provide either SecretString or SecretBinary."));
    }
    check(&content)?;
    let now = call.now;
    let token = client_request_token.unwrap_or_else(|| call.services.ids.next("secret version").to_string());
    let (name, secret) = usable(call.services, &secret_id)?;
    secret.put(&token, content, &version_stages.unwrap_or_else(current), now)?;
    let version_stages = secret.versions.get(&token).map(|version| version.stages.clone());
    Ok(Named { version_stages, ..secret.named(&name, Some(token)) })
}

fn update(call: &mut Call<'_>, request: UpdateSecret) -> Result<Named, SecretsError> {
    let UpdateSecret { secret_id, client_request_token, description, content } = request;
    check(&content)?;
    let now = call.now;
    let token = client_request_token.unwrap_or_else(|| call.services.ids.next("secret version").to_string());
    let (name, secret) = usable(call.services, &secret_id)?;
    if let Some(description) = description {
        secret.description = Some(description);
        secret.changed = now;
    }
    if content.is_empty() {
        return Ok(secret.named(&name, None));
    }
    secret.put(&token, content, &current(), now)?;
    Ok(secret.named(&name, Some(token)))
}

fn move_stage(call: &mut Call<'_>, request: &UpdateSecretVersionStage) -> Result<Named, SecretsError> {
    let now = call.now;
    let (name, secret) = usable(call.services, &request.secret_id)?;
    let stage = &request.version_stage;
    let holder = secret.holder(stage).cloned();
    if holder != request.remove_from_version_id {
        return Err(SecretsError::InvalidParameter("RemoveFromVersionId names the version the stage is attached to."));
    }
    match &request.move_to_version_id {
        Some(version) if !secret.versions.contains_key(version) => {
            return Err(SecretsError::VersionNotFound(format!("VersionId: {version}")));
        }
        Some(version) => secret.attach(stage, version),
        None if stage == CURRENT => {
            return Err(SecretsError::InvalidParameter("AWSCURRENT can be moved but not removed."));
        }
        None => secret.detach(stage),
    }
    secret.changed = now;
    Ok(secret.named(&name, None))
}

fn value(call: &Call<'_>, request: &GetSecretValue) -> Result<SecretValue, SecretsError> {
    let (name, secret) = find(call.services, &request.secret_id)?;
    if secret.deletion.is_some() {
        return Err(SecretsError::MarkedForDeletion);
    }
    let stage = request.version_stage.as_deref();
    let found = match &request.version_id {
        Some(id) => secret.versions.get_key_value(id),
        None => secret.versions.iter().find(|(_, version)| version.stages.contains(stage.unwrap_or(CURRENT))),
    };
    let matching = found.filter(|(_, version)| stage.is_none_or(|stage| version.stages.contains(stage)));
    let missing = || {
        SecretsError::VersionNotFound(match (&request.version_id, stage) {
            (Some(id), _) => format!("VersionId: {id}"),
            (None, stage) => format!("staging label: {}", stage.unwrap_or(CURRENT)),
        })
    };
    let (id, version) = matching.ok_or_else(missing)?;
    Ok(SecretValue {
        named: Named { version_stages: Some(version.stages.clone()), ..secret.named(name, Some(id.clone())) },
        created_date: version.created.timestamp(),
        content: version.content.clone(),
    })
}

fn describe(call: &Call<'_>, request: &SecretId) -> Result<DescribedSecret, SecretsError> {
    let (name, secret) = find(call.services, &request.secret_id)?;
    Ok(DescribedSecret { summary: secret.summary(name), version_ids_to_stages: secret.stages() })
}

fn list(call: &Call<'_>, request: &ListSecrets) -> Result<SecretList, SecretsError> {
    if request.filters.iter().any(|filter| filter.key != "name") {
        return Err(SecretsError::InvalidParameter("Secrets are filtered by name only here."));
    }
    let wanted = |name: &str, secret: &Secret| {
        (request.include_planned_deletion || secret.deletion.is_none())
            && request.filters.iter().all(|filter| filter.values.iter().any(|prefix| name.starts_with(prefix)))
    };
    let secrets = call.services.secrets.iter().filter(|(name, secret)| wanted(name, secret));
    let listed = secrets.map(|(name, secret)| ListedSecret {
        summary: secret.summary(name),
        secret_versions_to_stages: secret.stages(),
    });
    Ok(SecretList { secret_list: listed.collect() })
}

fn delete(call: &mut Call<'_>, request: &DeleteSecret) -> Result<Named, SecretsError> {
    let now = call.now;
    let (name, secret) = find_mut(call.services, &request.secret_id)?;
    if request.force_delete_without_recovery {
        if request.recovery_window_in_days.is_some() {
            return Err(SecretsError::InvalidParameter(
                "You can't use ForceDeleteWithoutRecovery with RecoveryWindowInDays.",
            ));
        }
        let named = Named { deletion_date: Some(now.timestamp()), ..secret.named(&name, None) };
        call.services.secrets.remove(&name);
        return Ok(named);
    }
    if secret.deletion.is_some() {
        return Err(SecretsError::MarkedForDeletion);
    }
    let days = request.recovery_window_in_days.unwrap_or(DEFAULT_RECOVERY_DAYS);
    if !(7..=30).contains(&days) {
        return Err(SecretsError::InvalidParameter("RecoveryWindowInDays is between 7 and 30."));
    }
    let deletion = now.plus_seconds(days * 24 * 60 * 60);
    secret.deletion = Some(deletion);
    Ok(Named { deletion_date: Some(deletion.timestamp()), ..secret.named(&name, None) })
}

fn restore(call: &mut Call<'_>, request: &SecretId) -> Result<Named, SecretsError> {
    let (name, secret) = find_mut(call.services, &request.secret_id)?;
    secret.deletion = None;
    Ok(secret.named(&name, None))
}

impl Content {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Secret {
    /// Adds a version, or finds it there already with the same content.
    fn put(&mut self, id: &str, content: Content, stages: &BTreeSet<String>, now: Millis) -> Result<(), SecretsError> {
        match self.versions.get(id) {
            Some(version) if version.content == content => return Ok(()),
            Some(_) => return Err(SecretsError::VersionExists),
            None => {}
        }
        self.versions.insert(id.to_owned(), Version { content, created: now, stages: BTreeSet::new() });
        for stage in stages {
            self.attach(stage, id);
        }
        // A version without a label is deprecated, and AWS removes it sooner or later.
        self.versions.retain(|_, version| !version.stages.is_empty());
        self.changed = now;
        Ok(())
    }

    /// Moves a label to a version; the one that was current before becomes the previous one.
    fn attach(&mut self, stage: &str, id: &str) {
        let former = self.holder(stage).cloned();
        if former.as_deref() == Some(id) {
            return;
        }
        self.detach(stage);
        if stage == CURRENT
            && let Some(former) = former
        {
            self.detach(PREVIOUS);
            self.label(PREVIOUS, &former);
        }
        self.label(stage, id);
    }

    fn label(&mut self, stage: &str, id: &str) {
        if let Some(version) = self.versions.get_mut(id) {
            version.stages.insert(stage.to_owned());
        }
    }

    fn detach(&mut self, stage: &str) {
        for version in self.versions.values_mut() {
            version.stages.remove(stage);
        }
    }

    fn holder(&self, stage: &str) -> Option<&String> {
        self.versions.iter().find(|(_, version)| version.stages.contains(stage)).map(|(id, _)| id)
    }

    fn stages(&self) -> BTreeMap<String, BTreeSet<String>> {
        self.versions.iter().map(|(id, version)| (id.clone(), version.stages.clone())).collect()
    }

    fn named(&self, name: &str, version_id: Option<String>) -> Named {
        Named { arn: self.arn.clone(), name: name.to_owned(), version_id, version_stages: None, deletion_date: None }
    }

    fn summary(&self, name: &str) -> Summary {
        Summary {
            arn: self.arn.clone(),
            name: name.to_owned(),
            description: self.description.clone(),
            tags: self.tags.clone(),
            created_date: self.created.timestamp(),
            last_changed_date: self.changed.timestamp(),
            deleted_date: self.deletion.map(Millis::timestamp),
        }
    }
}

fn current() -> BTreeSet<String> {
    BTreeSet::from([CURRENT.to_owned()])
}

fn check(content: &Content) -> Result<(), SecretsError> {
    match (&content.secret_string, &content.secret_binary) {
        (Some(_), Some(_)) => Err(SecretsError::InvalidParameter("Give either SecretString or SecretBinary.")),
        (text, binary) if text.iter().chain(binary).any(|value| value.len() > 65_536) => {
            Err(SecretsError::InvalidParameter("A secret value has at most 65536 bytes."))
        }
        _ => Ok(()),
    }
}

/// A secret by name, by ARN, or by ARN without its random suffix.
fn find<'a>(services: &'a Services, id: &str) -> Result<(&'a String, &'a Secret), SecretsError> {
    let by_arn = |(_, secret): &(&String, &Secret)| {
        secret.arn == id || secret.arn.rsplit_once('-').is_some_and(|(partial, _)| partial == id)
    };
    let found = services.secrets.get_key_value(id).or_else(|| services.secrets.iter().find(by_arn));
    found.ok_or(SecretsError::SecretNotFound)
}

fn find_mut<'a>(services: &'a mut Services, id: &str) -> Result<(String, &'a mut Secret), SecretsError> {
    let name = find(services, id)?.0.clone();
    let secret = services.secrets.get_mut(&name).ok_or(SecretsError::SecretNotFound)?;
    Ok((name, secret))
}

/// The secret, unless it is about to be deleted.
fn usable<'a>(services: &'a mut Services, id: &str) -> Result<(String, &'a mut Secret), SecretsError> {
    let (name, secret) = find_mut(services, id)?;
    if secret.deletion.is_some() {
        return Err(SecretsError::MarkedForDeletion);
    }
    Ok((name, secret))
}
