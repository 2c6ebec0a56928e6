//! `cargo local import`: a CSV file of any size, to a system anywhere, in calls of the size the API takes.
//!
//! The file is streamed. What was sent before is found booked, so a call whose answer was lost is simply sent again, and so may be
//! the whole file.

use std::fs::File;
use std::io::{BufReader, IsTerminal, Read, Write};
use std::ops::AddAssign;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::ValueEnum;
use csv::{ByteRecord, ReaderBuilder};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::Value;

/// The API's own limits, the header row and some room left.
const MAX_ROWS: usize = 200;
const MAX_BYTES: usize = 900_000;
const MAX_ANSWER: usize = 6 * 1024 * 1024;
const TIMEOUT: Duration = Duration::from_mins(1);
/// How often a call is sent before it is given up: over about half a minute.
const TRIES: u32 = 7;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// How often progress is told where no terminal shows it.
const TELL_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    Conversions,
    Partners,
    ExchangeRates,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Conversions => "conversions",
            Self::Partners => "partners",
            Self::ExchangeRates => "exchange-rates",
        }
    }
}

#[derive(Debug, Clone)]
pub struct Import {
    /// Where the API is, without its path.
    pub url: String,
    pub token: String,
    /// Exchange rates are of no program.
    pub program: Option<String>,
    pub kind: Kind,
    pub file: PathBuf,
    pub dry_run: bool,
    /// Rows that start on an earlier line are passed over.
    pub from_line: u64,
}

/// What became of the rows, of one call or of all.
#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    pub rows: u64,
    pub applied: u64,
    pub already_applied: u64,
    pub awaiting_sale: u64,
    pub unattributed: u64,
    pub refused: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.applied += other.applied;
        self.already_applied += other.already_applied;
        self.awaiting_sale += other.awaiting_sale;
        self.unattributed += other.unattributed;
        self.refused += other.refused;
    }
}

#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(flatten)]
    counts: Counts,
    errors: Vec<RowError>,
}

#[derive(Debug, Deserialize)]
struct RowError {
    line: u64,
    column: String,
    detail: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("the file cannot be read: {0}")]
    File(#[from] std::io::Error),
    #[error("the file cannot be read as CSV: {0}")]
    Csv(#[from] csv::Error),
    #[error("the file has no header row")]
    NoHeader,
    #[error("{0}")]
    Setting(String),
    #[error(
        "the import stopped before line {line}: {why}\nwhat came before is booked; go on with the same command and --from-line {line}"
    )]
    Stopped { line: u64, why: String },
}

/// Sends the file, tells refused rows and totals to `out`, and shows progress on standard error.
pub async fn import(import: &Import, out: &mut impl Write) -> Result<Counts, ImportError> {
    let api = Api::new(import)?;
    let mut total = 0;
    let mut rows = Rows::open(&import.file, import.from_line)?;
    while rows.next()?.is_some() {
        total += 1;
    }
    let mut parts = Parts { rows: Rows::open(&import.file, import.from_line)?, ahead: None };
    let mut counts = Counts::default();
    let progress = Progress::new(total);
    while let Some(part) = parts.next()? {
        let stopped = |why| ImportError::Stopped { line: part.first_line(), why };
        let answer = api.send(&part.bytes).await.map_err(stopped)?;
        progress.apart(|| {
            answer.errors.iter().try_for_each(|error| {
                let line = part.line_in_file(error.line);
                let column = if error.column.is_empty() { "the row" } else { &error.column };
                writeln!(out, "line {line}: {column}: {}", error.detail)
            })
        })?;
        counts += answer.counts;
        progress.tell(&counts, total);
    }
    progress.bar.finish_and_clear();
    table(out, import, &counts)?;
    Ok(counts)
}

fn table(out: &mut impl Write, import: &Import, counts: &Counts) -> std::io::Result<()> {
    let were = if import.dry_run { "would be" } else { "were" };
    writeln!(out, "{:>9}  rows of {}, which {were}", counts.rows, import.kind.as_str())?;
    let outcomes: &[_] = match import.kind {
        Kind::Conversions => &[
            (counts.applied, "booked"),
            (counts.already_applied, "booked before"),
            (counts.awaiting_sale, "kept for their sale to come"),
            (counts.unattributed, "kept, due to nobody"),
            (counts.refused, "refused"),
        ],
        Kind::Partners | Kind::ExchangeRates => {
            &[(counts.applied, "added"), (counts.already_applied, "there before"), (counts.refused, "refused")]
        }
    };
    outcomes.iter().try_for_each(|(count, what)| writeln!(out, "{count:>9}  {what}"))
}

// --- The file -----------------------------------------------------------------------------------------------------

/// Line ends, where CR and LF together are one.
fn line_ends(text: &[u8]) -> u64 {
    let ends = text.iter().enumerate().filter(|(at, byte)| match byte {
        b'\n' => true,
        b'\r' => text.get(at + 1) != Some(&b'\n'),
        _ => false,
    });
    ends.map(|_| 1).sum()
}

/// A row as it stands in the file, without the line end that ends it.
#[derive(Debug)]
struct Row {
    line: u64,
    text: Vec<u8>,
}

/// Rows in order. The reader knows where they end, and a second look at the file yields them byte for byte.
struct Rows {
    reader: csv::Reader<File>,
    raw: BufReader<File>,
    record: ByteRecord,
    line: u64,
    /// The last byte seen was a CR, whose LF may follow.
    after_cr: bool,
    header: Vec<u8>,
    from_line: u64,
}

impl Rows {
    fn open(path: &Path, from_line: u64) -> Result<Self, ImportError> {
        let mut rows = Self {
            reader: ReaderBuilder::new().has_headers(false).flexible(true).from_reader(File::open(path)?),
            raw: BufReader::new(File::open(path)?),
            record: ByteRecord::new(),
            line: 1,
            after_cr: false,
            header: Vec::new(),
            from_line,
        };
        let header = rows.any()?.ok_or(ImportError::NoHeader)?;
        rows.header = header.text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&header.text).to_vec();
        rows.header.push(b'\n');
        Ok(rows)
    }

    fn next(&mut self) -> Result<Option<Row>, ImportError> {
        loop {
            match self.any()? {
                Some(row) if row.line < self.from_line => {}
                other => return Ok(other),
            }
        }
    }

    fn any(&mut self) -> Result<Option<Row>, ImportError> {
        let start = self.reader.position().byte();
        if !self.reader.read_byte_record(&mut self.record)? {
            return Ok(None);
        }
        let length = usize::try_from(self.reader.position().byte() - start).unwrap_or(usize::MAX);
        let mut text = vec![0; length];
        self.raw.read_exact(&mut text)?;
        let newline = |byte: &u8| matches!(byte, b'\n' | b'\r');
        let begins = text.iter().position(|byte| !newline(byte)).unwrap_or(length);
        let ends = text.iter().rposition(|byte| !newline(byte)).map_or(length, |last| last + 1);
        let before = &text[usize::from(self.after_cr && text.first() == Some(&b'\n'))..begins];
        let line = self.line + line_ends(before);
        self.line = line + line_ends(&text[begins..]);
        self.after_cr = text.last() == Some(&b'\r');
        text.truncate(ends);
        text.drain(..begins);
        Ok(Some(Row { line, text }))
    }
}

/// What is sent in one call.
struct Part {
    bytes: Vec<u8>,
    /// Where each row starts: in the part, and in the file.
    lines: Vec<(u64, u64)>,
    next_line: u64,
}

impl Part {
    fn new(header: &[u8]) -> Self {
        Self { bytes: header.to_vec(), lines: Vec::new(), next_line: 1 + line_ends(header) }
    }

    fn has_room_for(&self, row: &Row) -> bool {
        self.lines.is_empty() || (self.lines.len() < MAX_ROWS && self.bytes.len() + row.text.len() < MAX_BYTES)
    }

    fn push(&mut self, row: Row) {
        self.lines.push((self.next_line, row.line));
        self.next_line += line_ends(&row.text) + 1;
        self.bytes.extend(row.text);
        self.bytes.push(b'\n');
    }

    fn first_line(&self) -> u64 {
        self.lines.first().map_or(1, |(_, line)| *line)
    }

    fn line_in_file(&self, line: u64) -> u64 {
        self.lines.iter().find(|(sent, _)| *sent == line).map_or(line, |(_, line)| *line)
    }
}

struct Parts {
    rows: Rows,
    /// Read, but left for the next part.
    ahead: Option<Row>,
}

impl Parts {
    fn next(&mut self) -> Result<Option<Part>, ImportError> {
        let mut part = Part::new(&self.rows.header);
        loop {
            let row = match self.ahead.take() {
                Some(row) => Some(row),
                None => self.rows.next()?,
            };
            match row {
                Some(row) if part.has_room_for(&row) => part.push(row),
                left => {
                    self.ahead = left;
                    return Ok((!part.lines.is_empty()).then_some(part));
                }
            }
        }
    }
}

// --- The calls ----------------------------------------------------------------------------------------------------

struct Api {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: Uri,
    authorization: HeaderValue,
}

enum Failed {
    /// Sending it again may help.
    Lost(String),
    Refused(String),
}

impl Api {
    fn new(import: &Import) -> Result<Self, ImportError> {
        let setting = |why: String| ImportError::Setting(why);
        let program = match (&import.program, import.kind) {
            (None, Kind::ExchangeRates) => String::new(),
            (Some(program), Kind::Conversions | Kind::Partners) => format!("&programId={program}"),
            (None, _) => return Err(setting("give --program: whose they are".to_owned())),
            (Some(_), _) => return Err(setting("exchange rates are of no program; leave --program out".to_owned())),
        };
        let path = format!(
            "{}/api/v1/{}/import?dryRun={}{program}",
            import.url.trim_end_matches('/'),
            import.kind.as_str(),
            import.dry_run
        );
        let uri = path.parse::<Uri>().ok().filter(|uri| uri.host().is_some());
        let uri = uri.ok_or_else(|| setting("--url or --program is no part of an address".to_owned()))?;
        let authorization = HeaderValue::try_from(format!("Bearer {}", import.token.trim()));
        let mut authorization = authorization.map_err(|_| setting("the token cannot be sent".to_owned()))?;
        authorization.set_sensitive(true);
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_native_roots()
            .map_err(|error| setting(format!("the system's certificates cannot be read: {error}")))?
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(connector), uri, authorization })
    }

    async fn send(&self, part: &[u8]) -> Result<Answer, String> {
        let body = Bytes::copy_from_slice(part);
        let mut pause = FIRST_PAUSE;
        let mut tried = 0;
        loop {
            tried += 1;
            match self.try_send(body.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(Failed::Refused(why)) => return Err(why),
                Err(Failed::Lost(why)) if tried == TRIES => return Err(why),
                Err(Failed::Lost(_)) => tokio::time::sleep(pause).await,
            }
            pause *= 2;
        }
    }

    async fn try_send(&self, body: Bytes) -> Result<Answer, Failed> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.uri)
            .header(CONTENT_TYPE, "text/csv")
            .header(AUTHORIZATION, &self.authorization)
            .body(Full::new(body))
            .map_err(|error| Failed::Refused(error.to_string()))?;
        let call = async {
            let answer = self.client.request(request).await.map_err(|error| Failed::Lost(chain(&error)))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            Ok((status, body.map_err(|error| Failed::Lost(error.to_string()))?.to_bytes()))
        };
        let answered = tokio::time::timeout(TIMEOUT, call).await;
        let (status, body) = answered.map_err(|_| Failed::Lost("no answer within a minute".to_owned()))??;
        if status == StatusCode::OK {
            return serde_json::from_slice(&body).map_err(|error| Failed::Refused(format!("strange answer: {error}")));
        }
        let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
        let why = format!("{status}: {}", problem["detail"].as_str().unwrap_or("no reason given"));
        let passing = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        Err(if passing { Failed::Lost(why) } else { Failed::Refused(why) })
    }
}

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

// --- Progress -----------------------------------------------------------------------------------------------------

struct Progress {
    /// Shows itself on a terminal only.
    bar: ProgressBar,
    is_terminal: bool,
    begun: Instant,
    told: std::cell::Cell<Instant>,
}

impl Progress {
    fn new(total: u64) -> Self {
        let bar = ProgressBar::new(total);
        let style = "{bar:30} {human_pos} of {human_len} rows{msg}, {per_sec}, {eta} left";
        bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
        let now = Instant::now();
        Self { bar, is_terminal: std::io::stderr().is_terminal(), begun: now, told: std::cell::Cell::new(now) }
    }

    fn tell(&self, counts: &Counts, total: u64) {
        self.bar.set_message(format!(", {} refused", counts.refused));
        self.bar.set_position(counts.rows);
        let now = Instant::now();
        let due = now.duration_since(self.told.get()) >= TELL_EVERY || counts.rows == total;
        if !self.is_terminal && due {
            self.told.set(now);
            let rate = u128::from(counts.rows) * 1_000 / now.duration_since(self.begun).as_millis().max(1);
            eprintln!("{} of {total} rows, {} refused, {rate} rows a second", counts.rows, counts.refused);
        }
    }

    /// Runs what writes to the terminal beside the bar.
    fn apart<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("partner-payouts-{name}-{}.csv", std::process::id()));
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn rows_keep_their_lines_whatever_ends_them_and_whatever_is_between() {
        for (n, newline) in ["\n", "\r\n", "\r"].into_iter().enumerate() {
            let text = "\u{feff}id,note\na,\"one\n\ntwo\"\n\n\nb,x\nc,5\" pipe\nd,".replace('\n', newline);
            let path = file(&format!("rows-{n}"), &text);
            for (from_line, expect) in [(0, vec![2, 7, 8, 9]), (7, vec![7, 8, 9]), (3, vec![7, 8, 9]), (10, vec![])] {
                let mut rows = Rows::open(&path, from_line).unwrap();
                assert_eq!(rows.header, b"id,note\n");
                let mut lines = Vec::new();
                while let Some(row) = rows.next().unwrap() {
                    assert!(matches!(row.text.first(), Some(b'a'..=b'd')), "{:?}", row.text);
                    lines.push(row.line);
                }
                assert_eq!(lines, expect, "{newline:?} from {from_line}");
            }
            std::fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn a_file_is_cut_between_rows_and_each_part_has_the_header() {
        let rows = (0..450).map(|n| format!("{n},\"a\nb\"\n")).collect::<Vec<_>>().concat();
        let path = file("parts", &format!("id,note\n{rows}"));
        let mut parts = Parts { rows: Rows::open(&path, 0).unwrap(), ahead: None };
        let (mut sizes, mut sent) = (Vec::new(), String::new());
        while let Some(part) = parts.next().unwrap() {
            let first = part.first_line();
            assert_eq!((part.line_in_file(2), part.line_in_file(4)), (first, first + 2));
            sizes.push((first, part.lines.len()));
            sent.push_str(std::str::from_utf8(&part.bytes).unwrap().strip_prefix("id,note\n").unwrap());
        }
        assert_eq!(sizes, [(2, 200), (402, 200), (802, 50)]);
        assert_eq!(sent, rows);
        std::fs::remove_file(path).unwrap();
    }
}
