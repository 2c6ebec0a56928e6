//! Webhooks: who sent them, and what they say changed. They only say *that* something changed; what it is now must be read.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
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
#[error("it is no notification of QuickBooks: {0}")]
pub struct Unreadable(String);

/// What a delivery tells. Events of it that cannot be read do not keep back the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delivered {
    pub told: Vec<Notification>,
    pub odd: Vec<Unreadable>,
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
struct LegacyRealm {
    realm_id: String,
    #[serde(default)]
    data_change_event: Option<LegacyChanges>,
}

#[derive(Deserialize)]
struct LegacyChanges {
    #[serde(default)]
    entities: Vec<Value>,
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

/// Reads either form: `CloudEvents`, an array whose events may be of several companies, or the former one. Fails where it is neither.
pub fn read(body: &[u8]) -> Result<Delivered, Unreadable> {
    let body: Value = parsed(serde_json::from_slice(body))?;
    let read = match &body {
        Value::Array(events) => events.iter().map(of_cloud_event).collect::<Vec<_>>(),
        Value::Object(legacy) => match legacy.get("eventNotifications") {
            Some(Value::Array(realms)) => realms.iter().flat_map(of_realm).collect(),
            _ => return Err(Unreadable("there are no events in it".to_owned())),
        },
        _ => return Err(Unreadable("there are no events in it".to_owned())),
    };
    let mut delivered = Delivered::default();
    for event in read {
        match event {
            Ok(told) => delivered.told.push(told),
            Err(odd) => delivered.odd.push(odd),
        }
    }
    Ok(delivered)
}

fn parsed<T>(read: serde_json::Result<T>) -> Result<T, Unreadable> {
    read.map_err(|error| Unreadable(error.to_string()))
}

/// `qbo.bill.updated.v1`.
fn of_cloud_event(event: &Value) -> Result<Notification, Unreadable> {
    let event = parsed(CloudEvent::deserialize(event))?;
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

fn of_realm(told: &Value) -> Vec<Result<Notification, Unreadable>> {
    let LegacyRealm { realm_id, data_change_event } = match parsed(LegacyRealm::deserialize(told)) {
        Ok(told) => told,
        Err(odd) => return vec![Err(odd)],
    };
    let entities = data_change_event.into_iter().flat_map(|changes| changes.entities);
    let read = entities.map(|entity| {
        let entity = parsed(LegacyEntity::deserialize(entity))?;
        Ok(Notification {
            realm: realm_id.clone(),
            entity: entity.name.to_ascii_lowercase(),
            operation: Operation::parse(&entity.operation),
            id: entity.id,
            merged: entity.deleted_id,
            at: moment(entity.last_updated.as_deref()),
        })
    });
    read.collect()
}

/// Both `Z` and `-0700` are told. A time that cannot be read is no reason not to look.
fn moment(text: Option<&str>) -> Option<Timestamp> {
    let text = text?;
    text.parse().ok().or_else(|| jiff::fmt::strtime::parse("%Y-%m-%dT%H:%M:%S%.f%z", text).ok()?.to_timestamp().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERIFIER: &str = "verifier-token";
    const LEGACY: &str = r#"{"eventNotifications":[{"realmId":"310687","dataChangeEvent":{"entities":[{"name":"BillPayment","id":"1234","operation":"Void","lastUpdated":"2026-09-10T14:31:25-0700"}]}}]}"#;
    const CLOUD: &str = r#"[{"specversion":"1.0","id":"88cd52aa-33b6-4351-9aa4-47572edbd068","source":"intuit.dsnBgbseACLLRZNxo2dfc4evmEJdxde58xeeYcZliOU=","type":"qbo.billpayment.void.v1","datacontenttype":"application/json","time":"2026-09-10T21:31:25.179550123Z","intuitentityid":"1234","intuitaccountid":"310687","data":{}}]"#;

    /// Made by another program: `printf %s "$BODY" | openssl dgst -sha256 -hmac verifier-token -binary | base64`.
    #[test]
    fn only_the_very_bytes_under_the_verifier_are_signed() {
        for (body, signature) in [
            (LEGACY, "gRJf827yrVxXI40l6imuwLFc9s4iygNF5/EWQ6iJ/Js="),
            (CLOUD, "9FJKG6cg/Z6KL4V79MURQHNAF3Yj9+dIRFn4DXnmqWM="),
        ] {
            assert!(is_signed(body.as_bytes(), signature, VERIFIER));
            assert!(is_signed(body.as_bytes(), &format!(" {signature}\n"), VERIFIER));
            assert!(!is_signed(body.replace(',', ", ").as_bytes(), signature, VERIFIER));
            assert!(!is_signed(body.as_bytes(), signature, "other"));
            assert!(!is_signed(body.as_bytes(), signature, ""));
            assert!(!is_signed(body.as_bytes(), "no base64!", VERIFIER) && !is_signed(body.as_bytes(), "", VERIFIER));
            assert_eq!(read(body.as_bytes()).unwrap().told[0].operation, Operation::Void);
        }
    }

    #[test]
    fn both_forms_tell_the_same() {
        let cloud = br#"[{"specversion":"1.0","id":"88cd52aa-33b6-4351-9aa4-47572edbd068","source":"intuit.dsnBgbseACLLRZNxo2dfc4evmEJdxde58xeeYcZliOU=","type":"qbo.billpayment.void.v1","datacontenttype":"application/json","time":"2026-09-10T21:31:25.179550123Z","intuitentityid":"1234","intuitaccountid":"310687","data":{}},
            {"specversion":"1.0","id":"x-Vendor-1","source":"intuit.x","type":"qbo.vendor.merged.v1","time":"2026-09-10T21:31:25Z","intuitentityid":"26","intuitaccountid":"310688","data":{"deletedid":"27"}}]"#;
        let [voided, merged] = <[Notification; 2]>::try_from(told(cloud)).unwrap();
        assert_eq!(
            (voided.entity.as_str(), voided.operation, voided.realm.as_str()),
            ("billpayment", Operation::Void, "310687")
        );
        assert_eq!((merged.merged.as_deref(), merged.realm.as_str()), (Some("27"), "310688"));
        let legacy = br#"{"eventNotifications":[{"realmId":"310687","dataChangeEvent":{"entities":[
            {"name":"BillPayment","id":"1234","operation":"Void","lastUpdated":"2026-09-10T14:31:25-0700"},
            {"name":"Vendor","id":"26","operation":"Merge","lastUpdated":"2026-09-10T21:31:25.000Z","deletedId":"27"}]}}]}"#;
        let [voided, merged] = <[Notification; 2]>::try_from(told(legacy)).unwrap();
        assert_eq!((voided.entity.as_str(), voided.operation), ("billpayment", Operation::Void));
        assert_eq!(voided.at, Some("2026-09-10T21:31:25Z".parse().unwrap()));
        assert_eq!((merged.operation, merged.merged.as_deref()), (Operation::Merge, Some("27")));
    }

    fn told(body: &[u8]) -> Vec<Notification> {
        let Delivered { told, odd } = read(body).unwrap();
        assert_eq!(odd, []);
        told
    }

    #[test]
    fn what_is_unknown_is_looked_at_and_nonsense_is_refused() {
        let body = br#"[{"type":"qbo.bill.emailed.v1","intuitentityid":"1","intuitaccountid":"2"}]"#;
        assert_eq!(told(body)[0].operation, Operation::Other);
        for bad in [&b"{}"[..], b"1", b"", br#"{"eventNotifications":1}"#, b"\xff"] {
            assert!(read(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        assert_eq!(read(b"[]").unwrap(), Delivered::default());
    }

    #[test]
    fn an_odd_event_does_not_keep_back_the_others() {
        let good = r#"{"type":"qbo.bill.updated.v1","intuitentityid":"1","intuitaccountid":"2"}"#;
        for odd in [
            "1",
            "{}",
            r#"{"type":"x","intuitentityid":"1","intuitaccountid":"2"}"#,
            r#"{"type":"qbo.bill.updated.v1","intuitaccountid":"2"}"#,
            r#"{"type":"qbo.bill.updated.v1","intuitentityid":null,"intuitaccountid":"2"}"#,
            r#"{"type":"qbo.bill.updated.v1","intuitentityid":"1","intuitaccountid":"2","data":1}"#,
        ] {
            let read = read(format!("[{odd},{good}]").as_bytes()).unwrap();
            assert_eq!((read.told.len(), read.odd.len(), read.told[0].id.as_str()), (1, 1, "1"), "{odd}");
        }
        let good = r#"{"name":"Bill","id":"1","operation":"Update"}"#;
        for odd in ["1", r#"{"name":"Bill","operation":"Update"}"#] {
            let realm = |entities| format!(r#"{{"realmId":"2","dataChangeEvent":{{"entities":[{entities}]}}}}"#);
            let body = format!(r#"{{"eventNotifications":[{},{{}}]}}"#, realm(format!("{odd},{good}")));
            let read = read(body.as_bytes()).unwrap();
            assert_eq!((read.told.len(), read.odd.len(), read.told[0].id.as_str()), (1, 2, "1"), "{odd}");
        }
    }
}
