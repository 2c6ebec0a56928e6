//! The query language: one entity, conditions joined by AND, pages.

use std::fmt::Write;

/// A query whose values cannot break out of their quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    entity: &'static str,
    conditions: Vec<String>,
    order: Option<&'static str>,
}

/// Answers hold at most this many.
pub const MAX_RESULTS: usize = 1_000;

impl Query {
    pub const fn of(entity: &'static str) -> Self {
        Self { entity, conditions: Vec::new(), order: None }
    }

    #[must_use]
    pub fn equal(mut self, field: &str, value: &str) -> Self {
        self.conditions.push(format!("{field} = '{}'", escaped(value)));
        self
    }

    #[must_use]
    pub fn among<'a>(mut self, field: &str, values: impl IntoIterator<Item = &'a str>) -> Self {
        let values: Vec<_> = values.into_iter().map(|value| format!("'{}'", escaped(value))).collect();
        self.conditions.push(format!("{field} IN ({})", values.join(", ")));
        self
    }

    #[must_use]
    pub fn starting_with(mut self, field: &str, prefix: &str) -> Self {
        self.conditions.push(format!("{field} LIKE '{}%'", escaped(prefix)));
        self
    }

    #[must_use]
    pub fn at_least(mut self, field: &str, value: &str) -> Self {
        self.conditions.push(format!("{field} >= '{}'", escaped(value)));
        self
    }

    /// Lists of names leave out what is inactive unless asked for both.
    #[must_use]
    pub fn active_or_not(mut self) -> Self {
        self.conditions.push("Active IN (true, false)".to_owned());
        self
    }

    #[must_use]
    pub const fn ordered_by(mut self, field: &'static str) -> Self {
        self.order = Some(field);
        self
    }

    pub const fn entity(&self) -> &'static str {
        self.entity
    }

    /// `start` counts from 1.
    pub fn text(&self, start: usize, limit: usize) -> String {
        let mut text = format!("SELECT * FROM {}", self.entity);
        if !self.conditions.is_empty() {
            let _ = write!(text, " WHERE {}", self.conditions.join(" AND "));
        }
        if let Some(order) = self.order {
            let _ = write!(text, " ORDERBY {order}");
        }
        let _ = write!(text, " STARTPOSITION {start} MAXRESULTS {}", limit.min(MAX_RESULTS));
        text
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('\'', "\\'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_within_their_quotes() {
        let query = Query::of("Vendor").equal("DisplayName", "O'Neil' OR Id = '1").active_or_not().ordered_by("Id");
        assert_eq!(
            query.text(1, 5_000),
            "SELECT * FROM Vendor WHERE DisplayName = 'O\\'Neil\\' OR Id = \\'1' AND Active IN (true, false) ORDERBY Id STARTPOSITION 1 MAXRESULTS 1000"
        );
        assert_eq!(
            Query::of("Bill").among("Id", ["1", "2"]).text(1, 10),
            "SELECT * FROM Bill WHERE Id IN ('1', '2') STARTPOSITION 1 MAXRESULTS 10"
        );
    }
}
