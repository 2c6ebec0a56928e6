//! Identifiers. Each kind of thing has a prefix; nothing else is told apart by it.
//!
//! Where a business key exists, the id is *derived* from it, so that any step can run twice: a conversion from program,
//! source and order id; a run from program, kind and period. Other ids are UUIDs made at the edge and passed in.
//!
//! A commission's and a payout's id is also its address: it opens with the partner it belongs to, then a shard (lines
//! only) and a time, and ends in a hash of the business key. One id is enough to find the item, and a partner's items
//! sort by time.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_DNSSEC;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an id of the form {prefix}_...")]
pub struct BadId {
    pub prefix: &'static str,
    pub text: String,
}

/// The alphabet keeps byte order, so that encoded times sort.
fn encode(bytes: &[u8]) -> String {
    BASE32_DNSSEC.encode(bytes)
}

fn encode_hash<const N: usize>(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        // Length first, so that ("ab", "c") and ("a", "bc") differ.
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    encode(&hasher.finalize()[..N])
}

/// Seconds since 1970 in 40 bits; earlier times sort first.
fn encode_time(time: Timestamp) -> String {
    let seconds = u64::try_from(time.as_second()).unwrap_or(0);
    encode(&seconds.to_be_bytes()[3..])
}

const UUID_CHARS: usize = 26;
const DERIVED_CHARS: usize = 24;
const TIME_CHARS: usize = 8;
const HASH_CHARS: usize = 8;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $chars:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            pub const PREFIX: &'static str = $prefix;

            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// What follows the prefix.
            pub fn body(&self) -> &str {
                &self.0[Self::PREFIX.len() + 1..]
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                let body = text.strip_prefix(concat!($prefix, "_"));
                let well_formed = body.is_some_and(|b| {
                    b.len() == $chars && b.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'v'))
                });
                if well_formed {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(BadId { prefix: $prefix, text: text.chars().take(80).collect() })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadId;
            fn try_from(text: String) -> Result<Self, BadId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        id!($(#[$doc])* $name, $prefix, UUID_CHARS);

        impl $name {
            /// Wraps a random value made at the edge.
            pub fn from_uuid(uuid: u128) -> Self {
                Self(format!("{}_{}", $prefix, encode(&uuid.to_be_bytes())))
            }
        }
    };
}

random_id!(
    /// A merchant's partner program.
    ProgramId, "prg");
random_id!(
    /// A storefront connection. Its 128 bits are random: the id stands in a public URL.
    SourceId, "src");
random_id!(
    /// Who earns, in one program.
    PartnerId, "par");

random_id!(
    /// A browser that followed a partner's link.
    VisitorId, "vis");

id!(
    /// One visit by a referral link. It opens with the visitor's id and the time, so a click is found by its id alone.
    ClickId, "clk", UUID_CHARS + TIME_CHARS + HASH_CHARS);
id!(
    /// One rewardable action, by the source's own id for it.
    ConversionId, "cnv", DERIVED_CHARS);
id!(
    /// One payout run of one program.
    RunId, "run", DERIVED_CHARS);
id!(
    /// Payouts that were put into files together.
    ExportId, "exp", DERIVED_CHARS);
id!(
    /// Something that needs a person.
    ExceptionId, "exc", DERIVED_CHARS);
id!(
    /// A commission: one line of one partner.
    LineId, "com", UUID_CHARS + 2 + TIME_CHARS + HASH_CHARS);
id!(
    /// A payout to one partner.
    PayoutId, "pay", UUID_CHARS + TIME_CHARS + HASH_CHARS);

impl SourceId {
    /// The source under which a program's conversions reported by the API stand.
    pub fn of_api(program: &ProgramId) -> Self {
        Self(format!("src_{}", program.body()))
    }
}

impl ConversionId {
    pub fn derive(program: &ProgramId, source: &SourceId, order: &str) -> Self {
        Self(format!("cnv_{}", encode_hash::<15>(&["conversion", program.as_str(), source.as_str(), order])))
    }
}

impl ClickId {
    /// `chance` tells apart what one visitor clicks within a second.
    pub fn derive(visitor: &VisitorId, at: Timestamp, chance: u128) -> Self {
        let hash = encode_hash::<5>(&["click", visitor.as_str(), &chance.to_string()]);
        Self(format!("clk_{}{}{hash}", visitor.body(), encode_time(at)))
    }

    pub fn visitor(&self) -> VisitorId {
        VisitorId(format!("vis_{}", &self.body()[..UUID_CHARS]))
    }

    /// The position among the visitor's clicks: time, then hash.
    pub fn position(&self) -> &str {
        &self.body()[UUID_CHARS..]
    }

    /// Before every position of this second, and after those of earlier ones.
    pub fn position_of_second(at: Timestamp) -> String {
        encode_time(at)
    }
}

impl RunId {
    /// `kind` is the schedule's frequency, `manual` or `on_demand`; `period` the run date or the idempotency key.
    pub fn derive(program: &ProgramId, kind: &str, period: &str) -> Self {
        Self(format!("run_{}", encode_hash::<15>(&["run", program.as_str(), kind, period])))
    }
}

impl ExportId {
    /// `key` is the idempotency key, or what never comes again.
    pub fn derive(program: &ProgramId, format: &str, key: &str) -> Self {
        Self(format!("exp_{}", encode_hash::<15>(&["export", program.as_str(), format, key])))
    }
}

/// The stream of a journal entry that stands alone, named by what it does.
pub fn command_stream(content: &str) -> String {
    format!("act_{}", encode_hash::<15>(&["command", content]))
}

impl ExceptionId {
    /// Filing the same trouble twice is filing it once.
    pub fn derive(parts: &[&str]) -> Self {
        Self(format!("exc_{}", encode_hash::<15>(parts)))
    }
}

/// How many shards a partner's lines and balances may be spread over.
pub const MAX_SHARDS: u8 = 32;

impl LineId {
    /// `key` is the business key within the partner: conversion (or command), rule, slice, kind.
    pub fn derive(partner: &PartnerId, shards: u8, occurred_at: Timestamp, key: &[&str]) -> Self {
        let hash = encode_hash::<5>(key);
        // All lines of one business key's origin share a shard, so that one transaction touches one balance.
        let origin = key.first().copied().unwrap_or_default();
        let shard = Sha256::digest(origin.as_bytes())[0] % shards.clamp(1, MAX_SHARDS);
        Self(format!("com_{}{}{}{hash}", partner.body(), encode_shard(shard), encode_time(occurred_at)))
    }

    /// An id in the same shard as another line's.
    pub fn derive_beside(beside: &Self, occurred_at: Timestamp, key: &[&str]) -> Self {
        let address = &beside.body()[..UUID_CHARS + 2];
        Self(format!("com_{address}{}{}", encode_time(occurred_at), encode_hash::<5>(key)))
    }

    /// The id of a line from its partner and the rest of it.
    pub fn of_partner(partner: &PartnerId, within: &str) -> Result<Self, BadId> {
        format!("com_{}{within}", partner.body()).parse()
    }

    /// What the positions of all lines from a second on sort after. (Positions know seconds only: the second itself is within.)
    pub fn position_of(time: Timestamp) -> String {
        encode_time(time)
    }

    /// All that tells it from the partner's other lines.
    pub fn within_partner(&self) -> &str {
        &self.body()[UUID_CHARS..]
    }

    pub fn partner(&self) -> PartnerId {
        PartnerId(format!("par_{}", &self.body()[..UUID_CHARS]))
    }

    /// Which of the partner's partitions holds the line, and which balance it counts in.
    pub fn shard(&self) -> &str {
        &self.body()[UUID_CHARS..UUID_CHARS + 2]
    }

    /// The position within the shard: time, then hash.
    pub fn position(&self) -> &str {
        &self.body()[UUID_CHARS + 2..]
    }
}

/// The two characters that name a shard in ids and keys.
pub fn encode_shard(shard: u8) -> String {
    encode(&[shard])
}

impl PayoutId {
    /// `planned_at` is the run's, so that a repeated run derives the same id.
    pub fn derive(run: &RunId, partner: &PartnerId, planned_at: Timestamp) -> Self {
        let hash = encode_hash::<5>(&["payout", run.as_str(), partner.as_str()]);
        Self(format!("pay_{}{}{hash}", partner.body(), encode_time(planned_at)))
    }

    pub fn partner(&self) -> PartnerId {
        PartnerId(format!("par_{}", &self.body()[..UUID_CHARS]))
    }

    /// The position among the partner's payouts: time, then hash.
    pub fn position(&self) -> &str {
        &self.body()[UUID_CHARS..]
    }

    /// The payout's number for people and documents, at most 21 characters (QuickBooks' limit for a document number).
    pub fn number(&self) -> String {
        format!("PP-{}", self.position().to_uppercase())
    }
}

/// A SHA-256, written in base32.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hash(String);

impl Hash {
    pub fn of(bytes: &[u8]) -> Self {
        Self(encode(&Sha256::digest(bytes)))
    }

    /// The hash of a sequence of hashes.
    pub fn chain<'a>(links: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut hasher = Sha256::new();
        for link in links {
            hasher.update(link.0.as_bytes());
        }
        Self(encode(&hasher.finalize()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_ids_repeat_and_differ_by_every_part() {
        let (one, two) = (ProgramId::from_uuid(1), ProgramId::from_uuid(2));
        let source = SourceId::from_uuid(3);
        assert_eq!(ConversionId::derive(&one, &source, "1001"), ConversionId::derive(&one, &source, "1001"));
        assert_ne!(ConversionId::derive(&one, &source, "1001"), ConversionId::derive(&two, &source, "1001"));
        assert_ne!(RunId::derive(&one, "ab", "c"), RunId::derive(&one, "a", "bc"));
    }

    #[test]
    fn a_line_id_is_its_address() {
        let partner = PartnerId::from_uuid(u128::MAX);
        let early = LineId::derive(&partner, 1, "2026-01-01T00:00:00Z".parse().unwrap(), &["cnv", "rule", "1"]);
        let late = LineId::derive(&partner, 1, "2026-01-01T00:00:01Z".parse().unwrap(), &["cnv", "rule", "1"]);
        assert_eq!(early.partner(), partner);
        assert_eq!(early.shard(), encode_shard(0));
        assert!(early.position() < late.position());
        assert_eq!(early.as_str().parse::<LineId>().unwrap(), early);
    }

    #[test]
    fn ids_of_another_kind_or_shape_are_refused() {
        let partner = PartnerId::from_uuid(7);
        assert!(partner.as_str().parse::<ProgramId>().is_err());
        for bad in ["", "par_", "par_zzz", "par_../../x", "PAR_0000000000000000000000000e"] {
            assert!(bad.parse::<PartnerId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_payout_number_fits_a_quickbooks_document_number() {
        let run = RunId::derive(&ProgramId::from_uuid(1), "monthly", "2026-01-01");
        let payout = PayoutId::derive(&run, &PartnerId::from_uuid(2), "2026-01-01T00:00:00Z".parse().unwrap());
        assert!(payout.number().len() <= 21, "{}", payout.number());
        assert_eq!(payout.partner(), PartnerId::from_uuid(2));
    }
}
