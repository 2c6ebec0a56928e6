//! The query language, as much of it as Intuit documents: one entity, AND, no projection but `count(*)`.

use rust_decimal::Decimal;
use serde_json::Value;

use crate::fault::Refusal;

#[derive(Debug, PartialEq, Eq)]
pub struct Query {
    pub entity: String,
    pub count: bool,
    pub conditions: Vec<Condition>,
    pub order: Option<(String, bool)>,
    /// Counts from 1.
    pub start: usize,
    pub max: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Condition {
    pub field: String,
    pub operator: Operator,
    pub values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    Equal,
    Less,
    Greater,
    AtMost,
    AtLeast,
    In,
    Like,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Sign(String),
}

const DEFAULT_MAX: usize = 100;
const MAX: usize = 1_000;

fn tokens(text: &str) -> Result<Vec<Token>, Refusal> {
    let mut tokens = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            c if c.is_whitespace() => {}
            '\'' => {
                let mut value = String::new();
                loop {
                    match rest.next() {
                        Some('\\') => value.extend(rest.next()),
                        Some('\'') => break,
                        Some(c) => value.push(c),
                        None => return Err(Refusal::query("a text has no end")),
                    }
                }
                tokens.push(Token::Text(value));
            }
            '(' | ')' | ',' | '*' | '=' => tokens.push(Token::Sign(c.to_string())),
            '<' | '>' => {
                let mut sign = c.to_string();
                if let Some('=') = rest.peek() {
                    sign.extend(rest.next());
                }
                tokens.push(Token::Sign(sign));
            }
            c if c.is_alphanumeric() || "._-".contains(c) => {
                let mut word = c.to_string();
                while let Some(c) = rest.peek().filter(|c| c.is_alphanumeric() || "._-".contains(**c)) {
                    word.push(*c);
                    rest.next();
                }
                tokens.push(Token::Word(word));
            }
            other => return Err(Refusal::query(format!("Encountered \"{other}\""))),
        }
    }
    Ok(tokens)
}

struct Parser(std::iter::Peekable<std::vec::IntoIter<Token>>);

impl Parser {
    fn is(&mut self, keyword: &str) -> bool {
        let found = matches!(self.0.peek(), Some(Token::Word(word)) if word.eq_ignore_ascii_case(keyword));
        if found {
            self.0.next();
        }
        found
    }

    fn must(&mut self, keyword: &str) -> Result<(), Refusal> {
        if self.is(keyword) { Ok(()) } else { Err(Refusal::query(format!("Was expecting {keyword}"))) }
    }

    fn sign(&mut self, sign: &str) -> bool {
        let found = matches!(self.0.peek(), Some(Token::Sign(found)) if found == sign);
        if found {
            self.0.next();
        }
        found
    }

    fn word(&mut self) -> Result<String, Refusal> {
        match self.0.next() {
            Some(Token::Word(word)) => Ok(word),
            other => Err(Refusal::query(format!("Encountered {other:?}"))),
        }
    }

    fn value(&mut self) -> Result<String, Refusal> {
        match self.0.next() {
            Some(Token::Text(value)) => Ok(value),
            // Only truth values stand without quotes.
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("true") || word.eq_ignore_ascii_case("false") => {
                Ok(word)
            }
            other => Err(Refusal::query(format!("Encountered {other:?}; a value stands in single quotes"))),
        }
    }

    fn number(&mut self) -> Result<usize, Refusal> {
        self.word()?.parse().map_err(|_| Refusal::query("Was expecting a number"))
    }

    fn condition(&mut self) -> Result<Condition, Refusal> {
        let field = self.word()?;
        let operator = match self.0.next() {
            Some(Token::Sign(sign)) => match sign.as_str() {
                "=" => Operator::Equal,
                "<" => Operator::Less,
                ">" => Operator::Greater,
                "<=" => Operator::AtMost,
                ">=" => Operator::AtLeast,
                other => return Err(Refusal::query(format!("Encountered \"{other}\""))),
            },
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("in") => Operator::In,
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("like") => Operator::Like,
            other => return Err(Refusal::query(format!("Encountered {other:?}"))),
        };
        let mut values = Vec::new();
        if operator == Operator::In {
            if !self.sign("(") {
                return Err(Refusal::query("Was expecting ("));
            }
            loop {
                values.push(self.value()?);
                if !self.sign(",") {
                    break;
                }
            }
            if !self.sign(")") {
                return Err(Refusal::query("Was expecting )"));
            }
        } else {
            values.push(self.value()?);
        }
        if field == "Id" && !matches!(operator, Operator::Equal | Operator::In) {
            return Err(Refusal::query_value("property 'Id' can only be compared with = and IN"));
        }
        Ok(Condition { field, operator, values })
    }
}

impl Query {
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let mut parser = Parser(tokens(text)?.into_iter().peekable());
        parser.must("select")?;
        let count = parser.is("count");
        let all = if count { parser.sign("(") && parser.sign("*") && parser.sign(")") } else { parser.sign("*") };
        if !all {
            return Err(Refusal::query("only * and count(*) are selected"));
        }
        parser.must("from")?;
        let entity = parser.word()?;
        let mut conditions = Vec::new();
        if parser.is("where") {
            conditions.push(parser.condition()?);
            while parser.is("and") {
                conditions.push(parser.condition()?);
            }
        }
        let order = if parser.is("orderby") || (parser.is("order") && parser.is("by")) {
            let field = parser.word()?;
            let descending = parser.is("desc");
            if !descending {
                parser.is("asc");
            }
            Some((field, descending))
        } else {
            None
        };
        let mut start = 1;
        let mut max = DEFAULT_MAX;
        loop {
            if parser.is("startposition") {
                start = parser.number()?;
            } else if parser.is("maxresults") {
                max = parser.number()?;
            } else {
                break;
            }
        }
        match parser.0.next() {
            Some(token) => Err(Refusal::query(format!("Encountered {token:?}"))),
            None if max > MAX => {
                Err(Refusal::query_value(format!("value {max} for MaxResults is too large, at most {MAX}")))
            }
            None if start == 0 => Err(Refusal::query_value("StartPosition counts from 1")),
            None => Ok(Self { entity, count, conditions, order, start, max }),
        }
    }

    /// Whether it asks whether something is active; if not, only what is active is found.
    pub fn asks_for_active(&self) -> bool {
        self.conditions.iter().any(|condition| condition.field == "Active")
    }
}

impl Condition {
    pub fn fits(&self, entity: &Value) -> bool {
        let mut at = entity;
        for part in self.field.split('.') {
            at = &at[part];
        }
        // A reference is compared by its id.
        let at = if at.is_object() { &at["value"] } else { at };
        let found = text_of(at);
        let same = |value: &String| found.as_ref().is_some_and(|found| found.eq_ignore_ascii_case(value));
        let Some(first) = self.values.first() else { return false };
        let order = || found.as_ref().map(|found| compare(found, first));
        match self.operator {
            Operator::Equal | Operator::In => self.values.iter().any(same),
            Operator::Less => order().is_some_and(std::cmp::Ordering::is_lt),
            Operator::Greater => order().is_some_and(std::cmp::Ordering::is_gt),
            Operator::AtMost => order().is_some_and(std::cmp::Ordering::is_le),
            Operator::AtLeast => order().is_some_and(std::cmp::Ordering::is_ge),
            Operator::Like => found.is_some_and(|found| like(&found.to_lowercase(), &first.to_lowercase())),
        }
    }
}

pub fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

/// Numbers as numbers, moments as moments, everything else as text.
pub fn compare(one: &str, other: &str) -> std::cmp::Ordering {
    if let (Ok(one), Ok(other)) = (one.parse::<Decimal>(), other.parse::<Decimal>()) {
        return one.cmp(&other);
    }
    if let (Ok(one), Ok(other)) = (one.parse::<jiff::Timestamp>(), other.parse::<jiff::Timestamp>()) {
        return one.cmp(&other);
    }
    one.to_lowercase().cmp(&other.to_lowercase())
}

/// `%` stands for anything.
fn like(text: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('%');
    let Some(rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<_> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    let mut rest = rest;
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn finds(query: &str, entity: &Value) -> bool {
        Query::parse(query).unwrap().conditions.iter().all(|condition| condition.fits(entity))
    }

    #[test]
    fn what_our_client_asks_is_understood() {
        let asked = quickbooks::Query::of("Vendor").equal("DisplayName", "O'Neil \\ Sons").active_or_not();
        let query = Query::parse(&asked.text(1, 5)).unwrap();
        assert_eq!((query.entity.as_str(), query.start, query.max), ("Vendor", 1, 5));
        assert!(finds(&asked.text(1, 5), &json!({"DisplayName": "o'neil \\ sons", "Active": false})));
    }

    #[test]
    fn conditions_compare_as_documented() {
        let bill = json!({"Id": "7", "DocNumber": "PP-1", "Balance": 10.5, "VendorRef": {"value": "56"}, "MetaData": {"LastUpdatedTime": "2026-01-02T00:00:00Z"}});
        for (query, expect) in [
            ("select * from Bill where DocNumber = 'pp-1'", true),
            ("select * from Bill where DocNumber like 'PP-%'", true),
            ("select * from Bill where DocNumber like '%x%'", false),
            ("select * from Bill where Balance > '9'", true),
            ("select * from Bill where VendorRef = '56' and Id in ('6', '7')", true),
            ("select * from Bill where MetaData.LastUpdatedTime >= '2026-01-02T01:00:00+01:00'", true),
        ] {
            assert_eq!(finds(query, &bill), expect, "{query}");
        }
        for bad in [
            "select Id from Bill",
            "select * from Bill where Id > '1'",
            "select * from Bill where a = 1",
            "select * from Bill maxresults 1001",
            "select * from Bill where a = 'x' or b = 'y'",
            "drop",
        ] {
            assert!(Query::parse(bad).is_err(), "{bad}");
        }
    }
}
