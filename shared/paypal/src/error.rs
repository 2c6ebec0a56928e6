//! Why a call did not give what it was asked for.

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// Nothing was sent: as if it had not been tried.
    #[error("{0}")]
    NotSent(String),
    /// The answer was lost or cannot be read, or a server failed on the way: it may have been done.
    #[error("nobody knows whether it was done: {0}")]
    Unknown(String),
    /// Too many calls: nothing was done.
    #[error("PayPal asks to wait")]
    Throttled,
    /// Client id and secret are not, or no longer, good. Nothing was done.
    #[error("PayPal does not accept the client id and secret")]
    Unauthorized,
    /// A refusal of what was asked, with reason. Nothing was done.
    #[error("{0}")]
    Refused(Refusal),
}

/// PayPal's own words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Refusal {
    /// Stable, like `INSUFFICIENT_FUNDS`.
    pub name: String,
    pub message: String,
    /// By which their support finds the exchange.
    pub debug_id: String,
    pub details: Vec<Detail>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Detail {
    pub field: String,
    pub issue: String,
    #[serde(alias = "links")]
    pub link: Vec<Link>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Link {
    pub href: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PayPal refuses with {}: {}", self.name, self.message)?;
        for detail in &self.details {
            write!(f, "; {}", detail.issue)?;
        }
        if self.debug_id.is_empty() { Ok(()) } else { write!(f, " (debug id {})", self.debug_id) }
    }
}

impl Refusal {
    /// Whether a batch of this name was taken before.
    pub fn is_of_duplicate(&self) -> bool {
        let names_it = |detail: &Detail| {
            detail.field.eq_ignore_ascii_case("sender_batch_id")
                || detail.issue.contains("sender_batch_id already exists")
        };
        self.name == "USER_BUSINESS_ERROR" && self.details.iter().any(names_it)
    }

    /// PayPal's own id of that batch, which the refusal links to.
    pub fn duplicate_of(&self) -> Option<&str> {
        let links = self.details.iter().flat_map(|detail| &detail.link);
        let ids = links.filter_map(|link| link.href.split_once("/v1/payments/payouts/").map(|(_, id)| id));
        ids.map(|id| id.trim_end_matches('/')).find(|id| is_id(id))
    }
}

/// Ids go into paths, so nothing else may stand in them.
pub fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// What an answer that is no success says.
pub fn of_answer(status: StatusCode, body: &Bytes) -> ApiError {
    let refusal: Refusal = serde_json::from_slice(body).unwrap_or_default();
    match status {
        StatusCode::UNAUTHORIZED => ApiError::Unauthorized,
        StatusCode::TOO_MANY_REQUESTS => ApiError::Throttled,
        StatusCode::REQUEST_TIMEOUT | StatusCode::CONFLICT => ApiError::Unknown(format!("{status} {}", refusal.name)),
        status if status.is_client_error() => {
            let unnamed = refusal.name.is_empty();
            ApiError::Refused(if unnamed { Refusal { name: status.as_u16().to_string(), ..refusal } } else { refusal })
        }
        status => ApiError::Unknown(format!("PayPal answered {status} {}", refusal.name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_says_so_was_not_done() {
        let body = Bytes::from_static(br#"{"name":"INSUFFICIENT_FUNDS","message":"No money","debug_id":"1"}"#);
        for (status, done) in
            [(400, false), (403, false), (422, false), (408, true), (409, true), (500, true), (503, true), (302, true)]
        {
            let error = of_answer(StatusCode::from_u16(status).unwrap(), &body);
            assert_eq!(matches!(error, ApiError::Unknown(_)), done, "{status}: {error}");
        }
        assert_eq!(of_answer(StatusCode::UNAUTHORIZED, &body), ApiError::Unauthorized);
        assert_eq!(of_answer(StatusCode::TOO_MANY_REQUESTS, &body), ApiError::Throttled);
        let told = of_answer(StatusCode::UNPROCESSABLE_ENTITY, &body).to_string();
        assert_eq!(told, "PayPal refuses with INSUFFICIENT_FUNDS: No money (debug id 1)");
    }

    #[test]
    fn a_duplicate_names_what_it_is_of() {
        let refusal = |details: &str| -> Refusal {
            serde_json::from_str(&format!(
                r#"{{"name":"USER_BUSINESS_ERROR","message":"User business error.","details":[{details}]}}"#
            ))
            .unwrap()
        };
        let told = refusal(
            r#"{"field":"SENDER_BATCH_ID","location":"body","issue":"Batch with given sender_batch_id already exists",
               "link":[{"href":"https://api.sandbox.paypal.com/v1/payments/payouts/CDZEC5MJ8R5HY","rel":"self","method":"GET"}]}"#,
        );
        assert_eq!((told.is_of_duplicate(), told.duplicate_of()), (true, Some("CDZEC5MJ8R5HY")));
        let evil = refusal(
            r#"{"issue":"sender_batch_id already exists","links":[{"href":"https://x/v1/payments/payouts/../../a?b"}]}"#,
        );
        assert_eq!((evil.is_of_duplicate(), evil.duplicate_of()), (true, None));
        let other = refusal(r#"{"field":"amount","issue":"too much"}"#);
        assert!(!other.is_of_duplicate());
    }
}
