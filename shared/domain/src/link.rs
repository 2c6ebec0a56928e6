//! Where referral links lead. Whoever follows one is sent on, so it must never become a way to send people just anywhere:
//! only to https addresses on hosts that the program names.
//!
//! An address is read by the parser that browsers use, and what is sent on is what that parser understood, never the text
//! it was given. Whatever a parser would have to repair first (`https:host`, `\`, a tab, a host in other letters) is
//! refused besides, so that no other reading of the text exists.

use std::fmt;
use std::str::FromStr;

use url::{Host, Url, form_urlencoded};

use crate::program::Program;

/// Bytes of an address.
const MAX_ADDRESS: usize = 2_000;

/// An https address on a named host: no user, no password, no port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination(Url);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be an https address of at most 2000 bytes, with nothing but a host name between https:// and the path; a name \
     in other letters is written as xn--..."
)]
pub struct BadDestination;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a host name like www.example.com, without scheme, port or path")]
pub struct BadHost;

impl Destination {
    /// In lower case.
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    /// The same address with these query parameters, which come before its own: who reads the first of a kind reads
    /// these. Its own of the same names are left out.
    #[must_use]
    pub fn with(&self, parameters: &[(&str, &str)]) -> Self {
        let ours = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
        let is_other = |pair: &&str| {
            let name = form_urlencoded::parse(pair.as_bytes()).next().map(|(name, _)| name).unwrap_or_default();
            !pair.is_empty() && parameters.iter().all(|(our, _)| *our != name)
        };
        // Kept as they were written: not every shop reads `+` and `%20` alike.
        let own = self.0.query().unwrap_or_default().split('&').filter(is_other);
        let query: Vec<_> = Some(ours.as_str()).filter(|ours| !ours.is_empty()).into_iter().chain(own).collect();
        let mut url = self.0.clone();
        url.set_query(Some(query.join("&").as_str()).filter(|query| !query.is_empty()));
        Self(url)
    }

    /// The page, without what was asked of it.
    pub fn page(&self) -> String {
        let mut url = self.0.clone();
        url.set_query(None);
        url.set_fragment(None);
        url.into()
    }
}

impl FromStr for Destination {
    type Err = BadDestination;

    fn from_str(text: &str) -> Result<Self, BadDestination> {
        let repaired = |c: char| c.is_whitespace() || c.is_control() || c == '\\';
        if text.len() > MAX_ADDRESS || text.chars().any(repaired) {
            return Err(BadDestination);
        }
        let (scheme, rest) = text.split_once("://").ok_or(BadDestination)?;
        let url = Url::parse(text).map_err(|_| BadDestination)?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        match url.host() {
            Some(Host::Domain(host))
                if is_name(host)
                    && authority.eq_ignore_ascii_case(host)
                    && url.scheme() == "https"
                    && scheme.eq_ignore_ascii_case("https") =>
            {
                Ok(Self(url))
            }
            _ => Err(BadDestination),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

/// The parser takes more than names have.
fn is_name(host: &str) -> bool {
    host.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

/// A host's name, in lower case.
pub fn host(text: &str) -> Result<String, BadHost> {
    let destination: Destination = format!("https://{text}/").parse().map_err(|_| BadHost)?;
    if destination.host().eq_ignore_ascii_case(text) { Ok(destination.host().to_owned()) } else { Err(BadHost) }
}

impl Program {
    /// Whether its referral links may lead there: to the host of its landing page, or another that it names.
    pub fn may_lead_to(&self, destination: &Destination) -> bool {
        let landing_page = self.landing_page.as_ref().and_then(|page| page.parse::<Destination>().ok());
        landing_page.is_some_and(|page| page.host() == destination.host())
            || self.allowed_hosts.iter().any(|host| host == destination.host())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Destination, BadDestination> {
        text.parse()
    }

    #[test]
    fn ordinary_addresses_are_taken_as_they_are() {
        for text in [
            "https://shop.example/",
            "https://shop.example/p/1?color=red&x=%20+#top",
            "https://xn--caf-dma.example/",
            "https://shop.example/to?next=https://evil.example/",
            "https://shop.example//evil.example/",
            "https://shop.example/@evil.example",
        ] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        assert_eq!(parse("HTTPS://Shop.Example").unwrap().to_string(), "https://shop.example/");
        assert_eq!(parse("https://shop.example/café").unwrap().to_string(), "https://shop.example/caf%C3%A9");
    }

    #[test]
    fn what_could_lead_elsewhere_is_refused() {
        for text in [
            "",
            "/",
            "//evil.example",
            "///evil.example",
            "https:evil.example",
            "https:/evil.example",
            "https:///evil.example",
            "https:////evil.example",
            "http://shop.example/",
            "javascript://shop.example/%0aalert(1)",
            "javascript:alert(1)",
            "data:text/html,x",
            "ftp://shop.example/",
            "blob:https://shop.example/x",
            "https://shop.example@evil.example/",
            "https://shop.example:443@evil.example/",
            "https://@shop.example/",
            "https://:@shop.example/",
            "https://user:secret@shop.example/",
            "https://shop.example:8443/",
            "https://shop.example:443/",
            "https://shop.example:/",
            "https://shop.example\\@evil.example/",
            "https:\\\\evil.example",
            "https://evil.example\\.shop.example/",
            "\\\\evil.example",
            "https://shop.example\t.evil.example/",
            "https://shop.example\n/",
            "h\ttps://evil.example/",
            " https://shop.example/",
            "https://shop.example/ ",
            "https://shop.example/\u{a0}",
            "https://shop。example/",
            "https://ｓhop.example/",
            "https://shop%2eexample/",
            "https://shop.example%2f@evil.example/",
            "https://127.0.0.1/",
            "https://0x7f.1/",
            "https://[::1]/",
            "https:// /",
            "https://",
            "https://?",
            "https://\u{202e}shop.example/",
            "\u{feff}https://shop.example/",
        ] {
            assert_eq!(parse(text), Err(BadDestination), "{text:?}");
        }
        assert_eq!(parse(&format!("https://shop.example/{}", "x".repeat(MAX_ADDRESS))), Err(BadDestination));
    }

    #[test]
    fn only_the_very_host_is_allowed_and_none_that_looks_like_it() {
        let hosts = ["shop.example.evil.example", "evilshop.example", "www.shop.example", "shop.example.", "example"];
        for other in hosts {
            assert_ne!(parse(&format!("https://{other}/")).unwrap().host(), "shop.example", "{other}");
        }
    }

    #[test]
    fn hosts_are_names_and_nothing_else() {
        assert_eq!(host("Shop.example"), Ok("shop.example".to_owned()));
        for bad in
            ["", "*", "shop.example/", "shop.example:443", "https://shop.example", "a@b.example", "a b", "1.1.1.1"]
        {
            assert_eq!(host(bad), Err(BadHost), "{bad:?}");
        }
    }

    #[test]
    fn parameters_stand_once_and_first_and_the_rest_is_untouched() {
        let page = parse("https://shop.example/p?via=BEN20&ref=BEN20&r%65f=BEN20&q=a%20b+c&&flag#ref=x").unwrap();
        let expect = "https://shop.example/p?ref=ANNA10&click_id=clk_1&via=BEN20&q=a%20b+c&flag#ref=x";
        assert_eq!(page.with(&[("ref", "ANNA10"), ("click_id", "clk_1")]).to_string(), expect);
        assert_eq!(parse("https://shop.example/?#x").unwrap().with(&[]).to_string(), "https://shop.example/#x");
        assert_eq!(page.page(), "https://shop.example/p");
    }

    /// Texts out of pieces that redirect checks have stumbled over.
    fn attempts() -> impl Strategy<Value = String> {
        let pieces = prop::sample::select(vec![
            "https:",
            "https://",
            "HTTPS://",
            "http://",
            "//",
            "/",
            "\\",
            ":",
            "@",
            ".",
            "?",
            "#",
            "&",
            "=",
            "%2f",
            "%5c",
            "%00",
            "%40",
            "\t",
            "\n",
            " ",
            "\u{0}",
            "\u{a0}",
            "\u{3002}",
            "\u{ff0f}",
            "\u{202e}",
            "ß",
            "shop.example",
            "evil.example",
            "SHOP.example",
            "shop",
            "example",
            "evil",
            "443",
            "javascript:",
            "[::1]",
            "127.1",
            "xn--",
            "ref=x",
        ]);
        prop_oneof![
            prop::collection::vec(pieces.clone(), 0..9).prop_map(|pieces| pieces.concat()),
            prop::collection::vec(pieces, 0..6).prop_map(|pieces| format!("https://shop.example{}", pieces.concat())),
            "https://shop\\.example\\PC{0,12}",
            any::<String>(),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn whatever_is_sent_on_begins_with_the_host_that_was_checked(text in attempts()) {
            if let Ok(destination) = parse(&text) {
                let sent = destination.with(&[("ref", "ANNA10")]).to_string();
                let begins = format!("https://{}/", destination.host());
                prop_assert!(sent.starts_with(&begins), "{text:?} became {sent:?}");
                let host = destination.host();
                prop_assert!(is_name(host), "{host:?}");
                prop_assert!(sent.bytes().all(|c| c.is_ascii_graphic() && c != b'\\'), "{sent:?}");
                prop_assert!(text[8..].to_ascii_lowercase().starts_with(host), "{text:?} names {host}");
            }
        }
    }
}
