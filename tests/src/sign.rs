//! Signatures as storefronts make them, over the raw body and, where the scheme has one, the present time.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::Sha256;

use crate::Request;

fn mac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

/// A storefront's connection: where it posts to, and what it signs with.
#[derive(Debug, Clone)]
pub struct Connection {
    pub id: String,
    pub kind: &'static str,
    pub secret: String,
}

impl Connection {
    /// A signed delivery; `topic` is the header that Shopify and `WooCommerce` tell the kind of body by.
    pub fn delivery(&self, topic: &str, body: &str) -> Request {
        let now = Timestamp::now().as_second().to_string();
        let request = self.unsigned(topic, body);
        let (secret, body) = (self.secret.as_bytes(), body.as_bytes());
        match self.kind {
            "shopify" => request.header("x-shopify-hmac-sha256", &STANDARD.encode(mac(secret, &[body]))),
            "woocommerce" => request.header("x-wc-webhook-signature", &STANDARD.encode(mac(secret, &[body]))),
            "stripe" => {
                let signature = HEXLOWER.encode(&mac(secret, &[now.as_bytes(), b".", body]));
                request.header("stripe-signature", &format!("t={now},v1={signature}"))
            }
            _ => {
                let key = STANDARD.decode(self.secret.trim_start_matches("whsec_")).unwrap();
                let signature = STANDARD.encode(mac(&key, &[b"msg_1.", now.as_bytes(), b".", body]));
                request
                    .header("webhook-id", "msg_1")
                    .header("webhook-timestamp", &now)
                    .header("webhook-signature", &format!("v1,{signature}"))
            }
        }
    }

    pub fn unsigned(&self, topic: &str, body: &str) -> Request {
        let request = Request::new(http::Method::POST, &format!("/webhooks/{}", self.id))
            .header("content-type", "application/json")
            .body(body.to_owned());
        match self.kind {
            "shopify" => request.header("x-shopify-topic", topic),
            "woocommerce" => request.header("x-wc-webhook-topic", topic),
            _ => request,
        }
    }
}

/// As Intuit signs webhooks.
pub fn intuits(verifier: &str, body: &str) -> String {
    STANDARD.encode(mac(verifier.as_bytes(), &[body.as_bytes()]))
}
