//! Who sent a webhook.
//!
//! Every scheme is an HMAC-SHA256, compared in constant time. What is signed is not the same everywhere: Shopify's and
//! WooCommerce's signature covers the body alone, so a header like the topic may have been swapped on the way, and
//! there is no protection against replay but the ids inside the body.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use data_encoding::HEXLOWER_PERMISSIVE;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use jiff::Timestamp;
use sha2::Sha256;

use crate::{Kind, header};

/// How far a signed time may lie from ours. Stripe: docs.stripe.com/webhooks, on replay attacks; Standard Webhooks: the
/// tolerance of its libraries, which holds in both directions.
const TOLERANCE_SECONDS: u64 = 300;
/// Standard Webhooks, "symmetric": a secret has 24 to 64 bytes. Shorter ones could be guessed.
const MIN_STANDARD_SECRET: usize = 24;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSignature {
    #[error("the header {0} is missing or not readable")]
    Missing(&'static str),
    #[error("the signed time is more than five minutes from now")]
    Stale,
    #[error("no signature matches a current secret")]
    Mismatch,
}

/// Verifies a webhook by any of the given secrets: the current one and, while rotating, the previous one.
///
/// A secret that is empty, or no secret of its scheme, matches nothing.
pub fn verify(
    kind: Kind,
    secrets: &[&str],
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<(), BadSignature> {
    match kind {
        Kind::Shopify => base64_of_body(secrets, headers, body, "X-Shopify-Hmac-Sha256", &[SHOPIFY, SHOPIFY_EVENTS]),
        Kind::Woocommerce => base64_of_body(secrets, headers, body, "X-WC-Webhook-Signature", &[WOOCOMMERCE]),
        Kind::Stripe => stripe(secrets, headers, body, now),
        Kind::Standard => standard(secrets, headers, body, now),
    }
}

const SHOPIFY: &str = "x-shopify-hmac-sha256";
/// Shopify's newer "Events" deliveries name their headers without the `X-`.
const SHOPIFY_EVENTS: &str = "shopify-hmac-sha256";
const WOOCOMMERCE: &str = "x-wc-webhook-signature";

/// Shopify (shopify.dev, "Verify webhook deliveries") and WooCommerce (`WC_Webhook::generate_signature`): base64 of the
/// HMAC of the raw body.
fn base64_of_body(
    secrets: &[&str],
    headers: &HeaderMap,
    body: &[u8],
    shown: &'static str,
    names: &[&str],
) -> Result<(), BadSignature> {
    let text = header(headers, names).ok_or(BadSignature::Missing(shown))?;
    let signature = STANDARD.decode(text).map_err(|_| BadSignature::Mismatch)?;
    any_matches(secrets.iter().map(|secret| secret.as_bytes().to_vec()), &[body], &[signature])
}

/// Stripe (docs.stripe.com/webhooks, on verifying manually): `t=...,v1=...[,v1=...]`, hexadecimal, over `t.body`. The
/// key is the whole `whsec_` text. Other schemes (`v0`) are for tests only and are passed over, lest they downgrade.
fn stripe(secrets: &[&str], headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<(), BadSignature> {
    const NAME: &str = "Stripe-Signature";
    let text = header(headers, &["stripe-signature"]).ok_or(BadSignature::Missing(NAME))?;
    let fields = || text.split(',').filter_map(|field| field.trim().split_once('='));
    let time = fields().find(|(key, _)| *key == "t").map(|(_, time)| time).ok_or(BadSignature::Missing(NAME))?;
    recent(time, now, NAME)?;
    let signatures: Vec<Vec<u8>> = fields()
        .filter(|(key, _)| *key == "v1")
        .filter_map(|(_, hex)| HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok())
        .collect();
    let keys = secrets.iter().map(|secret| secret.as_bytes().to_vec());
    any_matches(keys, &[time.as_bytes(), b".", body], &signatures)
}

/// Standard Webhooks (standardwebhooks.com, specification 1.0): `v1,<base64>` separated by spaces, over `id.time.body`.
/// The key is what follows `whsec_`, decoded.
fn standard(secrets: &[&str], headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<(), BadSignature> {
    let get = |name: &'static str| header(headers, &[name]).ok_or(BadSignature::Missing(name));
    let (id, time, list) = (get("webhook-id")?, get("webhook-timestamp")?, get("webhook-signature")?);
    recent(time, now, "webhook-timestamp")?;
    let signatures: Vec<Vec<u8>> = list
        .split(' ')
        .filter_map(|signature| signature.strip_prefix("v1,"))
        .filter_map(|signature| STANDARD.decode(signature).ok())
        .collect();
    let keys = secrets
        .iter()
        .filter_map(|secret| STANDARD.decode(secret.strip_prefix("whsec_").unwrap_or(secret)).ok())
        .filter(|key| key.len() >= MIN_STANDARD_SECRET);
    any_matches(keys, &[id.as_bytes(), b".", time.as_bytes(), b".", body], &signatures)
}

fn recent(time: &str, now: Timestamp, name: &'static str) -> Result<(), BadSignature> {
    // Digits only: `+5` is a number to Rust, and not what was signed.
    let digits = !time.is_empty() && time.bytes().all(|c| c.is_ascii_digit());
    let time: i64 = time.parse().ok().filter(|_| digits).ok_or(BadSignature::Missing(name))?;
    if now.as_second().abs_diff(time) > TOLERANCE_SECONDS { Err(BadSignature::Stale) } else { Ok(()) }
}

fn any_matches(
    keys: impl Iterator<Item = Vec<u8>>,
    signed: &[&[u8]],
    signatures: &[Vec<u8>],
) -> Result<(), BadSignature> {
    for key in keys.filter(|key| !key.is_empty()) {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key) else { continue };
        for part in signed {
            mac.update(part);
        }
        if signatures.iter().any(|signature| mac.clone().verify_slice(signature).is_ok()) {
            return Ok(());
        }
    }
    Err(BadSignature::Mismatch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    const NOW: i64 = 1_760_000_000;
    const BODY: &[u8] = b"{\"id\":1}\n";
    const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3";

    fn now() -> Timestamp {
        Timestamp::from_second(NOW).unwrap()
    }

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let parse =
            |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        pairs.iter().map(parse).collect()
    }

    fn mac(key: &[u8], signed: &[u8]) -> Vec<u8> {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        mac.update(signed);
        mac.finalize().into_bytes().to_vec()
    }

    #[test]
    fn hmac_is_the_published_one() {
        // RFC 4231, test case 2.
        let expect = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(HEXLOWER_PERMISSIVE.encode(&mac(b"Jefe", b"what do ya want for nothing?")), expect);
    }

    #[test]
    fn the_body_is_signed_by_the_current_or_the_previous_secret() {
        for (kind, name) in [
            (Kind::Shopify, "X-Shopify-Hmac-Sha256"),
            (Kind::Shopify, "shopify-hmac-sha256"),
            (Kind::Woocommerce, "x-wc-webhook-signature"),
        ] {
            let good = headers(&[(name, &STANDARD.encode(mac(b"old", BODY)))]);
            assert_eq!(verify(kind, &["new", "old"], &good, BODY, now()), Ok(()));
            assert_eq!(verify(kind, &["new"], &good, BODY, now()), Err(BadSignature::Mismatch));
            assert_eq!(verify(kind, &[], &good, BODY, now()), Err(BadSignature::Mismatch));
            assert_eq!(verify(kind, &["old"], &good, b"{\"id\":1}", now()), Err(BadSignature::Mismatch));
            let none = verify(kind, &["old"], &HeaderMap::new(), BODY, now());
            assert!(matches!(none, Err(BadSignature::Missing(_))));
        }
    }

    #[test]
    fn an_empty_secret_matches_nothing() {
        let signed = headers(&[("x-shopify-hmac-sha256", &STANDARD.encode(mac(b"", BODY)))]);
        assert_eq!(verify(Kind::Shopify, &[""], &signed, BODY, now()), Err(BadSignature::Mismatch));
    }

    #[test]
    fn only_the_whole_standard_base64_counts() {
        let right = mac(b"key", BODY);
        let text = STANDARD.encode(&right);
        for wrong in ["", &text[..20], text.trim_end_matches('='), &HEXLOWER_PERMISSIVE.encode(&right), "é"] {
            let signed = headers(&[("x-shopify-hmac-sha256", wrong)]);
            assert!(verify(Kind::Shopify, &["key"], &signed, BODY, now()).is_err(), "{wrong}");
        }
    }

    fn stripe_header(time: i64, signatures: &[&str]) -> HeaderMap {
        headers(&[("stripe-signature", &format!("t={time},v1={},v0=00", signatures.join(",v1=")))])
    }

    #[test]
    fn stripe_signs_its_time_too() {
        for (offset, expect) in [(0, true), (-300, true), (-301, false), (300, true), (301, false)] {
            let time = NOW + offset;
            let mut signed = format!("{time}.").into_bytes();
            signed.extend_from_slice(BODY);
            let signature = HEXLOWER_PERMISSIVE.encode(&mac(b"whsec_x", &signed));
            let several = stripe_header(time, &["zz", "00", &signature]);
            assert_eq!(verify(Kind::Stripe, &["whsec_x"], &several, BODY, now()).is_ok(), expect, "{offset}");
            let moved = stripe_header(time + 1, &[&signature]);
            assert!(verify(Kind::Stripe, &["whsec_x"], &moved, BODY, now()).is_err());
        }
    }

    #[test]
    fn stripe_headers_may_be_nonsense() {
        for text in ["", "t=", "t=1", "v1=00", "t=+1760000000,v1=00", "t=99999999999999999999,v1=00", ",=,=="] {
            let signed = headers(&[("stripe-signature", text)]);
            assert!(verify(Kind::Stripe, &["whsec_x"], &signed, BODY, now()).is_err(), "{text}");
        }
    }

    fn standard_headers(offset: i64) -> HeaderMap {
        let time = NOW + offset;
        let text = std::str::from_utf8(BODY).unwrap();
        let right = standardwebhooks::Webhook::new(SECRET).unwrap().sign("msg_1", time, text.as_bytes()).unwrap();
        headers(&[
            ("webhook-id", "msg_1"),
            ("webhook-timestamp", &time.to_string()),
            ("webhook-signature", &format!("v1a,AAAA v1,AAAA nonsense {right}")),
        ])
    }

    #[test]
    fn standard_webhooks_of_another_implementation_verify() {
        for (offset, expect) in [(0, true), (-300, true), (-301, false), (300, true), (301, false)] {
            let signed = standard_headers(offset);
            assert_eq!(verify(Kind::Standard, &[SECRET], &signed, BODY, now()).is_ok(), expect, "{offset}");
        }
        let bare = SECRET.trim_start_matches("whsec_");
        assert_eq!(verify(Kind::Standard, &["whsec_AAAA", bare], &standard_headers(0), BODY, now()), Ok(()));
    }

    #[test]
    fn standard_webhooks_sign_their_id() {
        let mut signed = standard_headers(0);
        signed.insert("webhook-id", HeaderValue::from_static("msg_2"));
        assert_eq!(verify(Kind::Standard, &[SECRET], &signed, BODY, now()), Err(BadSignature::Mismatch));
        signed.remove("webhook-id");
        assert_eq!(verify(Kind::Standard, &[SECRET], &signed, BODY, now()), Err(BadSignature::Missing("webhook-id")));
    }

    #[test]
    fn short_standard_secrets_match_nothing() {
        let key = b"twenty-three bytes only";
        let signed = [b"msg_1.1760000000.".as_slice(), BODY].concat();
        let forged = headers(&[
            ("webhook-id", "msg_1"),
            ("webhook-timestamp", "1760000000"),
            ("webhook-signature", &format!("v1,{}", STANDARD.encode(mac(key, &signed)))),
        ]);
        let secret = format!("whsec_{}", STANDARD.encode(key));
        assert_eq!(verify(Kind::Standard, &[&secret], &forged, BODY, now()), Err(BadSignature::Mismatch));
    }
}
