//! Bearer tokens of the local system: the claims of a Cognito access token, authenticated by a key that lives as long as
//! the process. The local gateway checks them as API Gateway's JWT authorizer would.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

pub type Claims = BTreeMap<String, String>;

/// What an authorizer hands on about somebody signed in with a role.
pub fn claims(role: &str, subject: &str) -> Claims {
    [
        ("sub", subject),
        ("token_use", "access"),
        ("client_id", "local"),
        ("iss", "local"),
        ("cognito:groups", &format!("[{role}]")),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

#[derive(Clone)]
pub struct TokenKey([u8; 16]);

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey(..)")
    }
}

impl TokenKey {
    pub const fn new(secret: u128) -> Self {
        Self(secret.to_be_bytes())
    }

    fn mac(&self, payload: &str) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        mac.update(payload.as_bytes());
        Some(mac)
    }

    pub fn issue(&self, role: &str, subject: &str) -> String {
        let payload = URL_SAFE_NO_PAD.encode(serde_json::json!(claims(role, subject)).to_string());
        let tag = self.mac(&payload).map(|mac| mac.finalize().into_bytes().to_vec()).unwrap_or_default();
        format!("{payload}.{}", URL_SAFE_NO_PAD.encode(tag))
    }

    /// The claims, if the token is ours.
    pub fn check(&self, token: &str) -> Option<Claims> {
        let (payload, tag) = token.split_once('.')?;
        self.mac(payload)?.verify_slice(&URL_SAFE_NO_PAD.decode(tag).ok()?).ok()?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tokens_of_this_process_are_taken() {
        let key = TokenKey::new(1);
        let token = key.issue("admin", "ann");
        assert_eq!(key.check(&token).and_then(|claims| claims.get("sub").cloned()), Some("ann".to_owned()));
        assert_eq!(TokenKey::new(2).check(&token), None);
        assert_eq!(key.check(&format!("{token}x")), None);
        assert_eq!(key.check("nonsense"), None);
    }
}
