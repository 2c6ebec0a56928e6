//! Cursors of paged lists: opaque, authenticated, and bound to the query they came from, so that nobody can make one up to
//! read where they may not.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::Sha256;

const TAG_BYTES: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the cursor does not belong to this query; start again without it")]
pub struct BadCursor;

/// The secret that cursors are authenticated with.
#[derive(Clone)]
pub struct CursorKey(Vec<u8>);

impl std::fmt::Debug for CursorKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CursorKey(..)")
    }
}

impl CursorKey {
    pub fn new(secret: impl Into<Vec<u8>>) -> Self {
        Self(secret.into())
    }

    fn mac(&self, query: &str, position: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        mac.update(&(query.len() as u64).to_be_bytes());
        mac.update(query.as_bytes());
        mac.update(position);
        Some(mac)
    }

    /// `query` is everything that makes the list what it is: its filters, and whose list it is.
    pub fn seal(&self, query: &str, position: &impl Serialize) -> Result<String, serde_json::Error> {
        let position = serde_json::to_vec(position)?;
        let mut sealed =
            self.mac(query, &position).map(|mac| mac.finalize().into_bytes()[..TAG_BYTES].to_vec()).unwrap_or_default();
        sealed.extend(position);
        Ok(URL_SAFE_NO_PAD.encode(sealed))
    }

    pub fn open<T: DeserializeOwned>(&self, query: &str, cursor: &str) -> Result<T, BadCursor> {
        let sealed = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| BadCursor)?;
        let (tag, position) = sealed.split_at_checked(TAG_BYTES).ok_or(BadCursor)?;
        self.mac(query, position).ok_or(BadCursor)?.verify_truncated_left(tag).map_err(|_| BadCursor)?;
        serde_json::from_slice(position).map_err(|_| BadCursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_cursor_opens_only_for_its_own_query_and_key() {
        let key = CursorKey::new("secret");
        let cursor = key.seal("lines of a", &("x", 1)).unwrap();
        assert_eq!(key.open::<(String, i32)>("lines of a", &cursor), Ok(("x".to_owned(), 1)));
        assert_eq!(key.open::<(String, i32)>("lines of b", &cursor), Err(BadCursor));
        assert_eq!(CursorKey::new("other").open::<(String, i32)>("lines of a", &cursor), Err(BadCursor));
    }

    proptest! {
        #[test]
        fn no_made_up_cursor_opens(text in ".{0,80}") {
            prop_assert_eq!(CursorKey::new("secret").open::<serde_json::Value>("q", &text), Err(BadCursor));
        }
    }
}
