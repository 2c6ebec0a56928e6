//! What a request tells of a visit. Of all of it only what attribution needs is kept: kinds and hosts, never an address of
//! the visitor, a browser's whole name, or the page somebody came from.

use domain::conversion::MAX_TEXT;
use domain::ids::VisitorId;
use lambda_http::Request;
use lambda_http::http::header::{COOKIE, REFERER, USER_AGENT};
use lambda_http::http::{HeaderName, Method, Uri};

const COOKIE_NAME: &str = "pp_visitor";
/// Bytes of a host's name, by its own limit.
const MAX_HOST: usize = 253;

/// What a link can be asked for. Its text comes from whoever made the link, so what cannot be used is passed over.
#[derive(Debug, Default)]
pub struct Query {
    pub to: Option<String>,
    pub campaign: Option<String>,
    pub channel: Option<String>,
}

impl Query {
    /// The first of each counts.
    pub fn of(uri: &Uri) -> Self {
        let mut query = Self::default();
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            let value = value.trim_matches(' ');
            let named = !value.is_empty() && value.chars().count() <= MAX_TEXT && !value.chars().any(char::is_control);
            match name.as_ref() {
                "to" if query.to.is_none() && !value.is_empty() => query.to = Some(value.to_owned()),
                "campaign" if query.campaign.is_none() && named => query.campaign = Some(value.to_owned()),
                "channel" if query.channel.is_none() && named => query.channel = Some(value.to_owned()),
                _ => {}
            }
        }
        query
    }
}

/// The visitor, if this browser has been here before.
pub fn visitor(request: &Request) -> Option<VisitorId> {
    let cookies = text(request, &COOKIE)?.split(';');
    cookies
        .filter_map(|cookie| cookie.trim().split_once('='))
        .find_map(|(name, value)| if name == COOKIE_NAME { value.parse().ok() } else { None })
}

/// Kept for so many seconds; no script and no other site can read it.
pub fn cookie(visitor: &VisitorId, seconds: u64) -> String {
    format!("{COOKIE_NAME}={visitor}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Lax")
}

/// Browsers name their engine. Programs that fetch pages name none, or are told by one of the words below.
const ENGINES: [&str; 5] = ["webkit", "gecko", "trident", "msie", "presto"];
/// What programs with a browser's engine, or its name, say of themselves: search engines, previews in messages and feeds,
/// tests of pages. `http` and `@` stand in the addresses that well-behaved ones give for questions.
const PROGRAMS: [&str; 15] = [
    "bot",
    "crawl",
    "spider",
    "slurp",
    "http",
    "@",
    "preview",
    "fetch",
    "externalhit",
    "google-",
    "mediapartners",
    "headless",
    "phantomjs",
    "lighthouse",
    "pingdom",
];
/// A make of telephones, and no bot.
const TELEPHONE: &str = "cubot";
/// Where browsers say that they load a page before somebody wants to see it.
const PURPOSES: [HeaderName; 4] = [
    HeaderName::from_static("sec-purpose"),
    HeaderName::from_static("purpose"),
    HeaderName::from_static("x-purpose"),
    HeaderName::from_static("x-moz"),
];
const FETCH_DESTINATION: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Whether somebody followed the link: no program, no browser that only looks ahead, and no page that loads the link as an
/// image or a frame of its own to pretend a visit.
pub fn is_by_a_person(request: &Request) -> bool {
    let agent = text(request, &USER_AGENT).unwrap_or_default().to_ascii_lowercase().replace(TELEPHONE, "");
    let is_browser = ENGINES.iter().any(|engine| agent.contains(engine));
    let is_program = PROGRAMS.iter().any(|word| agent.contains(word));
    let looks_ahead = PURPOSES.iter().filter_map(|name| text(request, name)).any(|purpose| {
        let purpose = purpose.to_ascii_lowercase();
        purpose.contains("prefetch") || purpose.contains("preview")
    });
    let is_page = text(request, &FETCH_DESTINATION).is_none_or(|destination| destination == "document");
    request.method() == Method::GET && is_browser && !is_program && !looks_ahead && is_page
}

/// As browsers name them: a telephone says `Mobile`, an Android tablet leaves that out.
pub fn device(request: &Request) -> Option<&'static str> {
    let agent = text(request, &USER_AGENT)?;
    let has = |word: &str| agent.contains(word);
    Some(if has("iPad") || has("Tablet") || (has("Android") && !has("Mobi")) {
        "tablet"
    } else if has("Mobi") {
        "mobile"
    } else {
        "desktop"
    })
}

/// The host that the visitor came from.
pub fn referrer(request: &Request) -> Option<String> {
    let referrer: Uri = text(request, &REFERER)?.parse().ok()?;
    let host = referrer.host().filter(|host| (1..=MAX_HOST).contains(&host.len()))?;
    Some(host.to_ascii_lowercase())
}

fn text<'a>(request: &'a Request, name: &HeaderName) -> Option<&'a str> {
    request.headers().get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lambda_http::Body;

    const CHROME: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";

    fn request(headers: &[(&str, &str)]) -> Request {
        let mut request = Request::new(Body::Empty);
        for (name, value) in headers {
            request.headers_mut().append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        request
    }

    #[test]
    fn browsers_are_people_and_their_devices_are_told_apart() {
        for (agent, expect) in [
            (CHROME, "desktop"),
            ("Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0", "desktop"),
            ("Mozilla/5.0 (Windows NT 10.0; Trident/7.0; rv:11.0) like Gecko", "desktop"),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 \
                 Mobile/15E148 Safari/604.1",
                "mobile",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 \
                 [FBAN/FBIOS;FBAV/500.0.0;FBBV/1;FBDV/iPhone14,5]",
                "mobile",
            ),
            (
                "Mozilla/5.0 (Linux; Android 15; CUBOT X90) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile \
                 Safari/537.36",
                "mobile",
            ),
            (
                "Mozilla/5.0 (Linux; Android 15; SM-X910) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
                "tablet",
            ),
            (
                "Mozilla/5.0 (iPad; CPU OS 12_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
                "tablet",
            ),
        ] {
            let request = request(&[("user-agent", agent)]);
            assert!(is_by_a_person(&request), "{agent}");
            assert_eq!(device(&request), Some(expect), "{agent}");
        }
    }

    #[test]
    fn programs_are_no_people() {
        for agent in [
            "",
            "curl/8.9.1",
            "python-requests/2.32.3",
            "Go-http-client/2.0",
            "WhatsApp/2.23.20.0",
            "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
            "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
            "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm) \
             Chrome/116.0.1938.76 Safari/537.36",
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_11_1) AppleWebKit/601.2.4 (KHTML, like Gecko) Version/9.0.1 Safari/601.2.4 \
             facebookexternalhit/1.1 Facebot Twitterbot/1.0",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/142.0.0.0 Safari/537.36",
            "Mozilla/5.0 (compatible; Yahoo! Slurp; http://help.yahoo.com/help/us/ysearch/slurp)",
        ] {
            assert!(!is_by_a_person(&request(&[("user-agent", agent)])), "{agent}");
        }
        assert!(!is_by_a_person(&request(&[])), "no user agent");
    }

    #[test]
    fn looking_ahead_and_loading_into_a_page_are_no_visits() {
        for (name, value) in [
            ("sec-purpose", "prefetch;prerender"),
            ("purpose", "prefetch"),
            ("x-purpose", "preview"),
            ("x-moz", "prefetch"),
            ("sec-fetch-dest", "image"),
            ("sec-fetch-dest", "iframe"),
        ] {
            assert!(!is_by_a_person(&request(&[("user-agent", CHROME), (name, value)])), "{name}: {value}");
        }
        assert!(is_by_a_person(&request(&[("user-agent", CHROME), ("sec-fetch-dest", "document")])));
        let mut head = request(&[("user-agent", CHROME)]);
        *head.method_mut() = Method::HEAD;
        assert!(!is_by_a_person(&head));
    }

    #[test]
    fn only_a_well_formed_visitor_is_known_again() {
        let known = VisitorId::from_uuid(7);
        for (cookies, expect) in [
            (format!("pp_visitor={known}"), Some(&known)),
            (format!("a=b; pp_visitor={known}; c"), Some(&known)),
            (format!("pp_visitor=nonsense; pp_visitor={known}"), Some(&known)),
            (format!("xpp_visitor={known}"), None),
            ("pp_visitor=vis_../../x".to_owned(), None),
            ("pp_visitor".to_owned(), None),
        ] {
            assert_eq!(visitor(&request(&[("cookie", &cookies)])).as_ref(), expect, "{cookies}");
        }
    }

    #[test]
    fn of_where_a_visitor_came_from_only_the_host_is_kept() {
        for (referrer_header, expect) in [
            ("https://Blog.example/anna?mail=zoe@example.com", Some("blog.example")),
            ("https://user:secret@blog.example:8443/", Some("blog.example")),
            ("android-app://com.example.app/", Some("com.example.app")),
            ("/relative", None),
            ("nonsense nonsense", None),
        ] {
            assert_eq!(referrer(&request(&[("referer", referrer_header)])).as_deref(), expect, "{referrer_header}");
        }
    }

    #[test]
    fn of_a_query_the_first_usable_word_counts() {
        let query = Query::of(
            &"/r/A?campaign=&campaign=autumn%20sale&campaign=x&channel=%00&to=+https://a.b/+&to=x".parse().unwrap(),
        );
        assert_eq!(query.campaign.as_deref(), Some("autumn sale"));
        assert_eq!(query.channel, None);
        assert_eq!(query.to.as_deref(), Some("https://a.b/"));
    }
}
