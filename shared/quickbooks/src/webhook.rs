//! Webhooks: who sent them, and what they say changed. They only say *that* something changed; what it is now must be read.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// Whether `intuit-signature` is that of these very bytes under the app's verifier token.
pub fn is_signed(body: &[u8], signature: &str, verifier: &str) -> bool {
    if verifier.is_empty() {
        return false;
    }
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(verifier.as_bytes()) else { return false };
    mac.update(body);
    let Ok(signature) = STANDARD.decode(signature.trim()) else { return false };
    mac.finalize().into_bytes().as_slice().ct_eq(&signature).into()
}

/// Something changed in a company.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Notification {
    pub realm: String,
    /// In lower case: `bill`, `billpayment`, `vendor`.
    pub entity: String,
    pub id: String,
    pub operation: Operation,
    /// The entity that was merged into this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged: Option<String>,
    pub at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    Create,
    Update,
    Delete,
    Merge,
    Void,
    /// Whatever else there may be: a look at the entity tells.
    Other,
}

impl Operation {
    fn parse(text: &str) -> Self {
        match text.to_ascii_lowercase().as_str() {
            "create" | "created" => Self::Create,
            "update" | "updated" => Self::Update,
            "delete" | "deleted" => Self::Delete,
            "merge" | "merged" => Self::Merge,
            "void" | "voided" => Self::Void,
            _ => Self::Other,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the body is no notification of QuickBooks: {0}")]
pub struct Unreadable(String);

#[derive(Deserialize)]
#[serde(untagged)]
enum Body {
    CloudEvents(Vec<CloudEvent>),
    Legacy(Legacy),
}

#[derive(Deserialize)]
struct CloudEvent {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    time: Option<String>,
    intuitentityid: String,
    intuitaccountid: String,
    #[serde(default)]
    data: Option<CloudData>,
}

#[derive(Deserialize, Default)]
struct CloudData {
    #[serde(default, alias = "deletedId")]
    deletedid: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Legacy {
    event_notifications: Vec<LegacyRealm>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LegacyRealm {
    realm_id: String,
    #[serde(default)]
    data_change_event: Option<LegacyChanges>,
}

#[derive(Deserialize)]
struct LegacyChanges {
    #[serde(default)]
    entities: Vec<LegacyEntity>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LegacyEntity {
    name: String,
    id: String,
    operation: String,
    #[serde(default)]
    last_updated: Option<String>,
    #[serde(default)]
    deleted_id: Option<String>,
}

/// Reads either form: `CloudEvents`, an array whose events may be of several companies, or the former one.
pub fn read(body: &[u8]) -> Result<Vec<Notification>, Unreadable> {
    let body: Body = serde_json::from_slice(body).map_err(|error| Unreadable(error.to_string()))?;
    match body {
        Body::CloudEvents(events) => events.into_iter().map(of_cloud_event).collect(),
        Body::Legacy(legacy) => Ok(legacy.event_notifications.into_iter().flat_map(of_realm).collect()),
    }
}

/// `qbo.bill.updated.v1`.
fn of_cloud_event(event: CloudEvent) -> Result<Notification, Unreadable> {
    let mut parts = event.kind.split('.');
    let (Some("qbo"), Some(entity), Some(operation)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(Unreadable(format!("{:?} is no type of event", event.kind.chars().take(60).collect::<String>())));
    };
    Ok(Notification {
        entity: entity.to_ascii_lowercase(),
        operation: Operation::parse(operation),
        realm: event.intuitaccountid,
        id: event.intuitentityid,
        merged: event.data.and_then(|data| data.deletedid),
        at: moment(event.time.as_deref()),
    })
}

fn of_realm(told: LegacyRealm) -> impl Iterator<Item = Notification> {
    let realm = told.realm_id;
    told.data_change_event.into_iter().flat_map(|changes| changes.entities).map(move |entity| Notification {
        realm: realm.clone(),
        entity: entity.name.to_ascii_lowercase(),
        operation: Operation::parse(&entity.operation),
        id: entity.id,
        merged: entity.deleted_id,
        at: moment(entity.last_updated.as_deref()),
    })
}

/// Both `Z` and `-0700` are told. A time that cannot be read is no reason not to look.
fn moment(text: Option<&str>) -> Option<Timestamp> {
    let text = text?;
    text.parse().ok().or_else(|| jiff::fmt::strtime::parse("%Y-%m-%dT%H:%M:%S%.f%z", text).ok()?.to_timestamp().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `openssl dgst -sha256 -hmac`.
    #[test]
    fn only_the_very_bytes_under_the_verifier_are_signed() {
        let (body, verifier) = (br#"{"eventNotifications":[]}"#, "verifier-token");
        let mut mac = Hmac::<Sha256>::new_from_slice(verifier.as_bytes()).unwrap();
        mac.update(body);
        let signature = STANDARD.encode(mac.finalize().into_bytes());
        assert!(is_signed(body, &signature, verifier));
        assert!(!is_signed(br#"{"eventNotifications": []}"#, &signature, verifier));
        assert!(!is_signed(body, &signature, "other"));
        assert!(!is_signed(body, &signature, ""));
        assert!(!is_signed(body, "no base64!", verifier) && !is_signed(body, "", verifier));
    }

    #[test]
    fn both_forms_tell_the_same() {
        let cloud = br#"[{"specversion":"1.0","id":"88cd52aa-33b6-4351-9aa4-47572edbd068","source":"intuit.dsnBgbseACLLRZNxo2dfc4evmEJdxde58xeeYcZliOU=","type":"qbo.billpayment.void.v1","datacontenttype":"application/json","time":"2026-09-10T21:31:25.179550123Z","intuitentityid":"1234","intuitaccountid":"310687","data":{}},
            {"specversion":"1.0","id":"x-Vendor-1","source":"intuit.x","type":"qbo.vendor.merged.v1","time":"2026-09-10T21:31:25Z","intuitentityid":"26","intuitaccountid":"310688","data":{"deletedid":"27"}}]"#;
        let [voided, merged] = <[Notification; 2]>::try_from(read(cloud).unwrap()).unwrap();
        assert_eq!(
            (voided.entity.as_str(), voided.operation, voided.realm.as_str()),
            ("billpayment", Operation::Void, "310687")
        );
        assert_eq!((merged.merged.as_deref(), merged.realm.as_str()), (Some("27"), "310688"));
        let legacy = br#"{"eventNotifications":[{"realmId":"310687","dataChangeEvent":{"entities":[
            {"name":"BillPayment","id":"1234","operation":"Void","lastUpdated":"2026-09-10T14:31:25-0700"},
            {"name":"Vendor","id":"26","operation":"Merge","lastUpdated":"2026-09-10T21:31:25.000Z","deletedId":"27"}]}}]}"#;
        let [voided, merged] = <[Notification; 2]>::try_from(read(legacy).unwrap()).unwrap();
        assert_eq!((voided.entity.as_str(), voided.operation), ("billpayment", Operation::Void));
        assert_eq!(voided.at, Some("2026-09-10T21:31:25Z".parse().unwrap()));
        assert_eq!((merged.operation, merged.merged.as_deref()), (Operation::Merge, Some("27")));
    }

    #[test]
    fn what_is_unknown_is_looked_at_and_nonsense_is_refused() {
        let body = br#"[{"type":"qbo.bill.emailed.v1","intuitentityid":"1","intuitaccountid":"2"}]"#;
        assert_eq!(read(body).unwrap()[0].operation, Operation::Other);
        for bad in [&b"{}"[..], b"[1]", b"", br#"[{"type":"x","intuitentityid":"1","intuitaccountid":"2"}]"#, b"\xff"] {
            assert!(read(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        assert_eq!(read(b"[]").unwrap(), []);
    }
}
