//! Fetching exchange rates from whoever publishes them: the European Central Bank's daily file, or a file of our own form.

use bytes::Bytes;
use domain::exchange::{ExchangeRate, Quote};
use domain::money::Currency;
use domain::rules::FieldError;
use http::{Request, StatusCode};
use jiff::civil::Date;
use outbound::{CallError, Limits, Outbound};
use serde::Serialize;
use store::ExceptionCode;
use xmlparser::{Token, Tokenizer};

use crate::context::Context;
use crate::error::{Refusal, Result};
use crate::exceptions::{Trouble, file};
use crate::exchange::{Taken, day_of, tell};

const ACTOR: &str = "fetch-rates";
const SERVICE: &str = "the rate source";
/// What the central bank's rates are told by, and what they are of one unit of.
const ECB: (&str, &str) = ("ECB", "EUR");
/// Refusals told of one file.
const MAX_TOLD: usize = 5;
const COLUMNS: [&str; 5] = ["date", "from", "to", "rate", "source"];

/// Where rates are fetched.
#[derive(Debug, Clone)]
pub struct Source {
    url: String,
    outbound: Outbound,
}

impl Source {
    /// At a public https address.
    pub fn new(url: String) -> Result<Self, CallError> {
        Ok(Self::over(url, Outbound::guarded(Limits::SMALL)?))
    }

    pub const fn over(url: String, outbound: Outbound) -> Self {
        Self { url, outbound }
    }

    async fn get(&self) -> Result<Bytes> {
        let request = Request::get(&self.url).body(Bytes::new());
        let request = request.map_err(|error| Refusal::Service(SERVICE, error.to_string()))?;
        let answer = self.outbound.call(request).await;
        let answer = answer.map_err(|error| Refusal::Service(SERVICE, error.to_string()))?;
        match answer.status() {
            StatusCode::OK => Ok(answer.into_body()),
            status => Err(Refusal::Service(SERVICE, format!("it answered {status}"))),
        }
    }
}

/// What came of it, in rates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Fetched {
    pub new: usize,
    pub known: usize,
    /// Filed as an exception, all of one file in one.
    pub refused: usize,
    /// Of currencies that nothing can be in.
    pub unknown: usize,
}

/// Takes what the source publishes. A source that cannot be read is an error, so that it shows as one; a rate that cannot be taken holds up
/// no other.
pub async fn fetch(context: &Context, source: &Source) -> Result<Fetched> {
    let body = source.get().await?;
    let text = std::str::from_utf8(&body).map_err(|_| Refusal::Service(SERVICE, "it is not UTF-8".to_owned()))?;
    let today = day_of(context.now());
    let mut fetched = Fetched::default();
    let mut refused = Vec::new();
    for row in read(text, today).map_err(|why| Refusal::Service(SERVICE, why))? {
        let taken = match row {
            Row::Rate(rate) => {
                let named = format!("{} of {}", rate, rate.date);
                tell(context, rate, ACTOR).await.map_err(|refusal| (named, refusal))
            }
            Row::UnknownCurrency => {
                fetched.unknown += 1;
                continue;
            }
            Row::Refused(named, errors) => Err((named, Refusal::Invalid(errors))),
        };
        match taken {
            Ok(Taken::New) => fetched.new += 1,
            Ok(Taken::Known) => fetched.known += 1,
            Err((_, refusal)) if refusal.is_transient() => return Err(refusal),
            Err((named, refusal)) => refused.push(format!("{named}: {refusal}")),
        }
    }
    fetched.refused = refused.len();
    if !refused.is_empty() {
        refused.truncate(MAX_TOLD);
        let trouble = Trouble {
            code: ExceptionCode::ExchangeRateRefused,
            detail: format!("{} of the rates that were fetched: {}", fetched.refused, refused.join("; ")),
            program: None,
            source: None,
            order: None,
            received_at: context.now(),
            headers: &[],
            body: Some(text),
        };
        file(context, trouble).await?;
    }
    Ok(fetched)
}

/// One rate of a file.
#[derive(Debug, PartialEq)]
enum Row {
    Rate(ExchangeRate),
    /// As what is no money any more, or none yet.
    UnknownCurrency,
    Refused(String, Vec<FieldError>),
}

impl Row {
    fn of(quote: &Quote<'_>, today: Date) -> Self {
        let code = |text: &str| text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase());
        let unknown = |text: &str| code(text) && text.parse::<Currency>().is_err();
        if unknown(quote.from) || unknown(quote.to) {
            return Self::UnknownCurrency;
        }
        match quote.read(today) {
            Ok(rate) => Self::Rate(rate),
            Err(errors) => {
                let named = format!("{} {} in {} of {}", quote.rate, quote.from, quote.to, quote.date);
                Self::Refused(named.chars().take(100).collect(), errors)
            }
        }
    }
}

/// Tells the two forms apart by how they begin. Refuses what is neither, and what holds no rate.
fn read(text: &str, today: Date) -> Result<Vec<Row>, String> {
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let rows = if text.starts_with('<') { read_xml(text, today)? } else { read_csv(text, today)? };
    if rows.is_empty() { Err("it holds no rates".to_owned()) } else { Ok(rows) }
}

/// The central bank's form: `<Cube time='2026-06-01'><Cube currency='USD' rate='1.0837'/>...</Cube>`.
fn read_xml(text: &str, today: Date) -> Result<Vec<Row>, String> {
    let (mut rows, mut date) = (Vec::new(), None);
    // Of the element that is being read: its name, and what it says.
    let (mut element, mut time, mut currency, mut rate) = ("", None, None, None);
    for token in Tokenizer::from(text) {
        match token.map_err(|error| format!("it is no XML: {error}"))? {
            Token::ElementStart { local, .. } => {
                element = local.as_str();
                (time, currency, rate) = (None, None, None);
            }
            Token::Attribute { local, value, .. } if element == "Cube" => match local.as_str() {
                "time" => time = Some(value.as_str()),
                "currency" => currency = Some(value.as_str()),
                "rate" => rate = Some(value.as_str()),
                _ => {}
            },
            Token::ElementEnd { .. } => {
                date = time.take().or(date);
                if let (Some(currency), Some(rate)) = (currency.take(), rate.take()) {
                    let date = date.ok_or("it has a rate of no day")?;
                    let quote = Quote { date, from: ECB.1, to: currency, rate, source: ECB.0 };
                    rows.push(Row::of(&quote, today));
                }
            }
            _ => {}
        }
    }
    Ok(rows)
}

/// Our own form, as it is imported: `date,from,to,rate,source`, in any order.
fn read_csv(text: &str, today: Date) -> Result<Vec<Row>, String> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let header = reader.headers().map_err(|error| error.to_string())?.clone();
    let column = |name: &str| header.iter().position(|column| column == name);
    let missing = COLUMNS.into_iter().find(|name| column(name).is_none());
    if let Some(missing) = missing {
        return Err(format!("it has no column {missing}"));
    }
    let places = COLUMNS.map(|name| column(name).unwrap_or_default());
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| error.to_string())?;
        let [date, from, to, rate, source] = places.map(|place| record.get(place).unwrap_or_default());
        rows.push(Row::of(&Quote { date, from, to, rate, source }, today));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const XML: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<gesmes:Envelope xmlns:gesmes="http://www.gesmes.org/xml/2002-08-01" xmlns="http://www.ecb.int/vocabulary/2002-08-01/eurofxref">
	<gesmes:subject>Reference rates</gesmes:subject>
	<gesmes:Sender>
		<gesmes:name>European Central Bank</gesmes:name>
	</gesmes:Sender>
	<Cube>
		<Cube time='2026-06-01'>
			<Cube currency='USD' rate='1.0837'/>
			<Cube currency='JPY' rate='163.53'/>
			<Cube currency='BGN' rate='1.9558'/>
		</Cube>
	</Cube>
</gesmes:Envelope>"#;

    fn today() -> Date {
        "2026-06-02".parse().unwrap()
    }

    fn told(text: &str) -> Vec<String> {
        let tell = |row| match row {
            Row::Rate(rate) => format!("{rate}, {} of {}", rate.source, rate.date),
            Row::UnknownCurrency => "unknown".to_owned(),
            Row::Refused(named, errors) => format!("{named}: {}", errors[0].pointer),
        };
        read(text, today()).unwrap().into_iter().map(tell).collect()
    }

    #[test]
    fn the_central_banks_file_tells_what_one_euro_is_of_each_day() {
        let expect = ["1 EUR = 1.0837 USD, ECB of 2026-06-01", "1 EUR = 163.53 JPY, ECB of 2026-06-01", "unknown"];
        assert_eq!(told(XML), expect);
        let before = "<Cube time='2026-05-29'><Cube currency='USD' rate='1.08'/></Cube>\n\t</Cube>\n</gesmes";
        let two = XML.replace("\t</Cube>\n</gesmes", before);
        assert_eq!(told(&two)[3], "1 EUR = 1.08 USD, ECB of 2026-05-29");
    }

    #[test]
    fn our_own_form_is_read_whatever_the_order_of_its_columns() {
        let text = "\u{feff}source, rate,to,from,date\nBank,1.0837,USD,EUR,2026-06-01\nBank,0,USD,EUR,2026-06-01\n";
        assert_eq!(told(text), ["1 EUR = 1.0837 USD, Bank of 2026-06-01", "0 EUR in USD of 2026-06-01: /rate"]);
    }

    #[test]
    fn what_is_neither_is_refused_whole() {
        for text in [
            "",
            "<html><body>not here</body></html>",
            "<Cube currency='USD' rate='1.0837'/>",
            "<Cube time='2026-06-01'><Cube currency='USD' rate=",
            "{\"rates\":{}}",
            "date,from,to,rate\n2026-06-01,EUR,USD,1.08\n",
            "date,from,to,rate,source\n",
            "date,from,to,rate,source\n2026-06-01,EUR,USD\n",
        ] {
            assert!(read(text, today()).is_err(), "{text}");
        }
        assert_eq!(told(&XML.replace("2026-06-01", "2026-06-03"))[0], "1.0837 EUR in USD of 2026-06-03: /date");
        assert_eq!(told(&XML.replace("1.0837", "1,0837"))[0], "1,0837 EUR in USD of 2026-06-01: /rate");
    }

    proptest! {
        /// Whatever is cut out, put in or turned around: each rate that is read is one that could have been written.
        #[test]
        fn a_damaged_file_is_refused_or_read(
            csv in prop::bool::ANY, at in 0_usize..700, cut in 0_usize..40, put in "[<>='\"/&;,\n\\PC]{0,6}",
        ) {
            let whole = if csv { "date,from,to,rate,source\n2026-06-01,EUR,USD,1.0837,Bank\n" } else { XML };
            let mut chars: Vec<char> = whole.chars().collect();
            let start = at.min(chars.len());
            let end = (start + cut).min(chars.len());
            chars.splice(start..end, put.chars());
            let text: String = chars.into_iter().collect();
            for row in read(&text, today()).unwrap_or_default() {
                if let Row::Rate(rate) = row {
                    prop_assert!(rate.rate.is_sign_positive() && rate.from != rate.to && rate.date <= today());
                }
            }
        }
    }
}
