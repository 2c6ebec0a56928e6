//! Rows and columns of a CSV file.

use std::collections::BTreeMap;
use std::convert::Infallible;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use csv::{ByteRecord, ReaderBuilder, StringRecord};

use super::MAX_ROWS;
use crate::extract::raw;
use crate::problem::{Answer, Problem};

/// The bytes of a `text/csv` body; why there are none is told when they are asked for, after the caller's role was checked.
#[derive(Debug)]
pub struct Csv(Answer<Bytes>);

impl<S: Send + Sync> FromRequest<S> for Csv {
    type Rejection = Infallible;

    async fn from_request(request: Request, state: &S) -> Result<Self, Infallible> {
        Ok(Self(raw(request, state, |kind| kind == "text/csv", Problem::not_csv).await))
    }
}

/// The cells of a row that are not blank, by column.
#[derive(Debug, Default)]
pub struct Row(BTreeMap<String, String>);

impl Row {
    pub fn get(&self, column: &str) -> Option<&str> {
        self.0.get(column).map(String::as_str)
    }

    /// The cell, or what a form takes for one that is missing.
    pub fn text(&self, column: &str) -> String {
        self.get(column).unwrap_or_default().to_owned()
    }

    /// `true` or `false`.
    pub fn flag(&self, column: &str) -> Answer<Option<bool>> {
        match self.get(column).map(str::to_ascii_lowercase).as_deref() {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(Problem::invalid_field(format!("/{column}"), "is true or false")),
        }
    }

    /// The columns `prefix.*`, without the prefix.
    pub fn under(&self, prefix: &str) -> BTreeMap<String, String> {
        let under = self.0.iter().filter_map(|(column, cell)| {
            let name = column.strip_prefix(prefix)?.strip_prefix('.')?;
            Some((name.to_owned(), cell.clone()))
        });
        under.collect()
    }
}

/// The columns a kind of file has.
#[derive(Debug)]
pub struct Columns {
    pub needed: &'static [&'static str],
    pub known: &'static [&'static str],
    /// `prefix.*` takes any column under it.
    pub prefix: Option<&'static str>,
}

impl Columns {
    fn check(&self, header: &[String]) -> Answer<()> {
        let mut seen = Vec::with_capacity(header.len());
        for column in header {
            let open = self.prefix.and_then(|prefix| column.strip_prefix(prefix)?.strip_prefix('.'));
            let known = self.needed.contains(&column.as_str())
                || self.known.contains(&column.as_str())
                || open.is_some_and(|name| !name.is_empty());
            if !known {
                return Err(refused(&format!("the column {column:?} is not known")));
            }
            if seen.contains(&column) {
                return Err(refused(&format!("the column {column:?} is there twice")));
            }
            seen.push(column);
        }
        match self.needed.iter().find(|needed| !header.iter().any(|column| column == *needed)) {
            Some(missing) => Err(refused(&format!("the column {missing:?} is missing"))),
            None => Ok(()),
        }
    }
}

fn refused(why: &str) -> Problem {
    Problem::invalid_field("", why)
}

/// The rows of a file under its header, each with the line it starts on, and why it cannot be read if it cannot.
pub fn rows(csv: Csv, columns: &Columns) -> Answer<Vec<(u64, Answer<Row>)>> {
    let bytes = csv.0?;
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes);
    let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
    let mut lines = Lines { bytes, at: 0, line: 1 };
    let mut header: Option<Vec<String>> = None;
    let mut rows = Vec::new();
    let mut record = ByteRecord::new();
    while reader.read_byte_record(&mut record).map_err(|error| Problem::malformed("", error.to_string()))? {
        let line = lines.of(&record);
        let read = StringRecord::from_byte_record(record.clone());
        let Some(header) = &header else {
            let read = read.map_err(|_| Problem::malformed("", "the header row is not UTF-8"))?;
            let names: Vec<String> = read.iter().map(|name| name.trim().to_owned()).collect();
            columns.check(&names)?;
            header = Some(names);
            continue;
        };
        if rows.len() == MAX_ROWS {
            return Err(refused(&format!("has more than {MAX_ROWS} rows: send it in parts, each with the header row")));
        }
        rows.push((line, read.map_err(|_| refused("is not UTF-8")).and_then(|record| row(header, &record))));
    }
    if header.is_none() {
        return Err(refused("has no header row"));
    }
    Ok(rows)
}

fn row(header: &[String], record: &StringRecord) -> Answer<Row> {
    if record.len() != header.len() {
        return Err(refused(&format!("has {} cells where the header has {}", record.len(), header.len())));
    }
    let cells = header.iter().zip(record).map(|(column, cell)| (column.clone(), cell.trim().to_owned()));
    Ok(Row(cells.filter(|(_, cell)| !cell.is_empty()).collect()))
}

/// Counts lines. The reader's own count stands before the blank lines that it passes over.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
    line: u64,
}

impl Lines<'_> {
    /// The line on which the record starts. Records are asked for in order.
    fn of(&mut self, record: &ByteRecord) -> u64 {
        let start = record.position().map_or(0, csv::Position::byte);
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        while let Some(byte) = self.bytes.get(self.at) {
            let ends_line = matches!(byte, b'\n' | b'\r');
            if self.at >= start && !ends_line {
                break;
            }
            // CR and LF together end one line.
            let goes_on = *byte == b'\r' && self.bytes.get(self.at + 1) == Some(&b'\n');
            self.line += u64::from(ends_line && !goes_on);
            self.at += 1;
        }
        self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: Columns = Columns { needed: &["id"], known: &["note"], prefix: Some("metadata") };

    fn lines(text: &str) -> Vec<(u64, Option<String>)> {
        let rows = rows(Csv(Ok(Bytes::copy_from_slice(text.as_bytes()))), &COLUMNS).unwrap();
        rows.into_iter().map(|(line, row)| (line, row.ok().map(|row| row.text("id")))).collect()
    }

    #[test]
    fn a_row_has_the_number_of_the_line_it_starts_on() {
        let some = |id: &str| Some(id.to_owned());
        for newline in ["\n", "\r\n", "\r"] {
            let text = "id,note\na,\"one\n\ntwo\"\n\n\nb,x\nc\nd,\"\"\"\n\"\n\ne,".replace('\n', newline);
            let expect = [(2, some("a")), (7, some("b")), (8, None), (9, some("d")), (12, some("e"))];
            assert_eq!(lines(&text), expect, "{newline:?}");
            assert_eq!(lines(&format!("\u{feff}{text}")), expect, "{newline:?} after a byte order mark");
        }
    }

    #[test]
    fn a_header_is_refused_by_the_column_that_is_wrong() {
        for (header, why) in [
            ("", "has no header row"),
            ("note", "the column \"id\" is missing"),
            ("id,id", "the column \"id\" is there twice"),
            ("id,colour", "the column \"colour\" is not known"),
            ("id,metadata.", "the column \"metadata.\" is not known"),
        ] {
            let refused = rows(Csv(Ok(Bytes::from_static(header.as_bytes()))), &COLUMNS).unwrap_err();
            assert_eq!((refused.status, refused.errors[0].detail.as_str()), (422, why), "{header}");
        }
        assert_eq!(lines(" id ,metadata.a\n"), []);
    }
}
