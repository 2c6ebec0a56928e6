//! Who referred the customer, from the places merchants and referral tools leave it in.
//!
//! Evidence is chosen by the visitor's browser, so what cannot be a code or an id is passed over, never refused: a
//! strange link must not keep an order from being counted.

use data_encoding::HEXLOWER;
use domain::conversion::{Code, MAX_TEXT, PartnerRef};
use sha2::{Digest, Sha256};

/// The first evidence of each kind found; so the order of the calls is the precedence.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    pub partner: Option<PartnerRef>,
    pub click_id: Option<String>,
    pub visitor_id: Option<String>,
    pub campaign: Option<String>,
}

impl Evidence {
    /// A named value: a cart attribute, a meta field, a metadata entry. Names differ by case, leading `_` and
    /// separators.
    pub fn named(&mut self, name: &str, value: &str) {
        let name: String = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
        match name.as_str() {
            "ref" | "aff" | "via" | "affiliate" | "affiliatecode" | "partnercode" | "refcode" | "referral"
            | "referralcode" | "toltreferral" => self.reference(value),
            "visitorid" => keep(&mut self.visitor_id, value),
            name => self.click(name, value),
        }
    }

    /// The address at which the visit began: absolute or only a path.
    pub fn landing(&mut self, address: &str) {
        let query = address.split_once('?').map_or("", |(_, rest)| rest);
        let query = query.split('#').next().unwrap_or_default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match name.as_ref() {
                "ref" | "aff" | "via" => self.reference(&value),
                "utm_campaign" => self.campaign(&value),
                "visitor_id" => keep(&mut self.visitor_id, &value),
                name => self.click(&name.replace('_', "").to_ascii_lowercase(), &value),
            }
        }
    }

    /// A reference of unstated kind. Referral tools put the id of a click where merchants put a partner's code: Dub
    /// writes `dub_id_` and the id, Rewardful a UUID, as their guides for Stripe Checkout say.
    pub fn reference(&mut self, value: &str) {
        let value = value.trim();
        if let Some(click) = value.strip_prefix("dub_id_") {
            keep(&mut self.click_id, click);
        } else if is_uuid(value) {
            keep(&mut self.click_id, value);
        } else if self.partner.is_none() && value.parse::<Code>().is_ok() {
            self.partner = Some(PartnerRef::Code(value.to_owned()));
        }
    }

    pub fn campaign(&mut self, value: &str) {
        keep(&mut self.campaign, value);
    }

    fn click(&mut self, name: &str, value: &str) {
        if matches!(name, "clickid" | "dubid" | "dubclickid") {
            let value = value.trim();
            keep(&mut self.click_id, value.strip_prefix("dub_id_").unwrap_or(value));
        }
    }
}

fn keep(slot: &mut Option<String>, value: &str) {
    let value = value.trim();
    if slot.is_none() && !value.is_empty() && value.chars().count() <= MAX_TEXT {
        *slot = Some(value.to_owned());
    }
}

fn is_uuid(text: &str) -> bool {
    let dashes = [8, 13, 18, 23];
    text.len() == 36
        && text.bytes().enumerate().all(|(k, c)| if dashes.contains(&k) { c == b'-' } else { c.is_ascii_hexdigit() })
}

/// SHA-256 of the trimmed, lower-cased address, in hexadecimal: enough to know the customer again, not to write to
/// them.
pub fn email_hash<'a>(addresses: impl IntoIterator<Item = Option<&'a str>>) -> Option<String> {
    let address = addresses.into_iter().flatten().map(str::trim).find(|address| address.contains('@'))?;
    Some(HEXLOWER.encode(&Sha256::digest(address.to_lowercase().as_bytes())))
}

/// An ISO 3166 code in upper case; anything else is none.
pub fn country<'a>(codes: impl IntoIterator<Item = Option<&'a str>>) -> Option<String> {
    let is_code = |code: &&str| code.len() == 2 && code.bytes().all(|c| c.is_ascii_alphabetic());
    codes.into_iter().flatten().map(str::trim).find(is_code).map(str::to_ascii_uppercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> PartnerRef {
        PartnerRef::Code(text.into())
    }

    #[test]
    fn the_first_usable_code_wins() {
        let mut found = Evidence::default();
        found.named("_affiliate_code", "not a code!");
        found.named("Referral-Code", " ANNA10 ");
        found.landing("https://shop.example/?ref=BEN20&utm_campaign=autumn%20sale#top");
        assert_eq!(found.partner, Some(code("ANNA10")));
        assert_eq!(found.campaign.as_deref(), Some("autumn sale"));
    }

    #[test]
    fn landing_pages_may_be_paths() {
        for (address, expect) in [
            ("/p?x=1&via=kenji", Some(code("kenji"))),
            ("/p?aff=a%2Eb", Some(code("a.b"))),
            ("/p#?ref=a", Some(code("a"))),
            ("/p?ref=", None),
            ("/p?ref=%ff%fe", None),
            ("/ref=a", None),
            ("", None),
        ] {
            let mut found = Evidence::default();
            found.landing(address);
            assert_eq!(found.partner, expect, "{address}");
        }
    }

    #[test]
    fn clicks_are_told_from_codes() {
        for (name, value, expect) in [
            ("click_id", "01JQ8", "01JQ8"),
            ("_clickId", "01JQ8", "01JQ8"),
            ("dub_id", "dub_id_X1", "X1"),
            ("ref", "dub_id_X1", "X1"),
            ("referral", "8ae1ab3b-9a1c-4a73-8a3a-2a1c5a4f6b7d", "8ae1ab3b-9a1c-4a73-8a3a-2a1c5a4f6b7d"),
        ] {
            let mut found = Evidence::default();
            found.named(name, value);
            assert_eq!((found.click_id.as_deref(), found.partner), (Some(expect), None), "{name}={value}");
        }
    }

    #[test]
    fn a_landing_page_tells_what_a_referral_link_put_into_its_address() {
        let mut found = Evidence::default();
        found.landing("/p?ref=ANNA10&click_id=clk_1&visitor_id=vis_1&color=red");
        let expect = Evidence {
            partner: Some(code("ANNA10")),
            click_id: Some("clk_1".into()),
            visitor_id: Some("vis_1".into()),
            campaign: None,
        };
        assert_eq!(found, expect);
    }

    #[test]
    fn overlong_evidence_is_passed_over() {
        let mut found = Evidence::default();
        found.named("click_id", &"x".repeat(MAX_TEXT + 1));
        found.named("ref", &"x".repeat(41));
        assert_eq!(found, Evidence::default());
    }

    #[test]
    fn addresses_are_hashed_alike() {
        let one = email_hash([Some(" Zoe@Example.com ")]);
        assert_eq!(one, email_hash([None, Some(""), Some("zoe@example.com")]));
        assert_eq!(one.unwrap().len(), 64);
        assert_eq!(email_hash([Some("none")]), None);
    }
}
