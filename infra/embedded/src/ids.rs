//! Ids without randomness: a counter, hashed into the shape of a UUID.

use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Hands out ids. Equal histories give equal ids, which is what lets a simulated run be repeated.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Ids {
    issued: u64,
}

impl Ids {
    pub(crate) fn next(&mut self, kind: &str) -> Uuid {
        self.issued += 1;
        let hash = Md5::digest(format!("{kind}:{}", self.issued));
        uuid::Builder::from_md5_bytes(hash.into()).into_uuid()
    }
}
