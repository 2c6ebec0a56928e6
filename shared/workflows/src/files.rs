//! Files for people and rails: CSV is written row by row, answered whole while they are small, and moved to S3 where a function may
//! not answer with so much.
//!
//! However long a file is, no more of it is held than one part of an upload.

use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use std::time::Duration;

use crate::context::Context;
use crate::error::{Refusal, Result};

/// Of an answer, as it travels: a function may answer with 6 MB, and its text is one string of a JSON object.
const MAX_ANSWER: usize = 4_000_000;
const MAX_TRAVELLING: usize = 5_500_000;
/// Of an upload, but the last: S3 takes no part below 5 MiB.
const PART: usize = 8 * 1024 * 1024;
/// How long a link works.
pub const LINK_LIFE: Duration = Duration::from_mins(5);
pub const CSV: &str = "text/csv; charset=utf-8";
pub const PDF: &str = "application/pdf";

/// Where files are put that are too large to be answered with. Not a part of the context: S3's client is large, and one function only
/// needs it.
#[derive(Debug, Clone)]
pub struct Files {
    pub s3: Client,
    pub bucket: String,
}

/// A file on its way out.
#[derive(Debug)]
pub struct Outgoing<'a> {
    context: &'a Context,
    files: &'a Files,
    name: &'a str,
    rows: csv::Writer<Vec<u8>>,
    upload: Option<Upload>,
}

#[derive(Debug)]
struct Upload {
    key: String,
    id: String,
    parts: Vec<CompletedPart>,
}

/// A finished file.
#[derive(Debug)]
pub enum Delivered {
    Whole(Vec<u8>),
    /// A link that works for [`LINK_LIFE`], for whoever has it.
    Link(String),
}

impl<'a> Outgoing<'a> {
    /// `name` is what it is saved under.
    pub fn new(context: &'a Context, files: &'a Files, name: &'a str) -> Self {
        Self { context, files, name, rows: writer(Vec::new()), upload: None }
    }

    pub async fn row<T: AsRef<[u8]>>(&mut self, cells: impl IntoIterator<Item = T>) -> Result<()> {
        self.rows.write_record(cells).map_err(|error| Refusal::Service("CSV", error.to_string()))?;
        // The writer has a buffer of its own; a few kilobytes more or less do not matter here.
        if self.rows.get_ref().len() >= PART {
            let part = self.take()?;
            self.put_part(part).await?;
        }
        Ok(())
    }

    fn take(&mut self) -> Result<Vec<u8>> {
        let rows = std::mem::replace(&mut self.rows, writer(Vec::with_capacity(PART)));
        rows.into_inner().map_err(|error| Refusal::Service("CSV", error.to_string()))
    }

    pub async fn finish(mut self) -> Result<Delivered> {
        let last = self.take()?;
        if self.upload.is_none() && travels(&last) {
            return Ok(Delivered::Whole(last));
        }
        let key = if self.upload.is_some() {
            self.put_part(last).await?;
            self.complete().await?
        } else {
            put(self.context, self.files, self.name, CSV, last).await?
        };
        link(self.files, key).await
    }

    async fn put_part(&mut self, bytes: Vec<u8>) -> Result<()> {
        let files = self.files;
        let mut upload = match self.upload.take() {
            Some(upload) => upload,
            None => self.begin().await?,
        };
        let number = i32::try_from(upload.parts.len() + 1).unwrap_or(i32::MAX);
        let put = files
            .s3
            .upload_part()
            .bucket(&files.bucket)
            .key(&upload.key)
            .upload_id(&upload.id)
            .part_number(number)
            .body(ByteStream::from(bytes))
            .send()
            .await
            .map_err(unavailable)?;
        upload.parts.push(
            CompletedPart::builder()
                .part_number(number)
                .set_e_tag(put.e_tag)
                .set_checksum_crc32(put.checksum_crc32)
                .build(),
        );
        self.upload = Some(upload);
        Ok(())
    }

    /// An upload that is not completed is deleted by the bucket after a day.
    async fn begin(&self) -> Result<Upload> {
        let files = self.files;
        let key = fresh_key(self.context);
        let begun = files
            .s3
            .create_multipart_upload()
            .bucket(&files.bucket)
            .key(&key)
            .content_type(CSV)
            .content_disposition(disposition(self.name))
            .send()
            .await
            .map_err(unavailable)?;
        let id = begun.upload_id.ok_or_else(|| Refusal::Service("S3", "an upload without an id".to_owned()))?;
        Ok(Upload { key, id, parts: Vec::new() })
    }

    async fn complete(&mut self) -> Result<String> {
        let files = self.files;
        let upload = self.upload.take().ok_or_else(|| Refusal::Service("S3", "no upload was begun".to_owned()))?;
        let parts = CompletedMultipartUpload::builder().set_parts(Some(upload.parts)).build();
        files
            .s3
            .complete_multipart_upload()
            .bucket(&files.bucket)
            .key(&upload.key)
            .upload_id(&upload.id)
            .multipart_upload(parts)
            .send()
            .await
            .map_err(unavailable)?;
        Ok(upload.key)
    }
}

/// A file that is made in one piece and is not text: it travels in base64.
pub async fn deliver(
    context: &Context,
    files: &Files,
    name: &str,
    content_type: &str,
    bytes: Vec<u8>,
) -> Result<Delivered> {
    if bytes.len() <= MAX_ANSWER {
        return Ok(Delivered::Whole(bytes));
    }
    let key = put(context, files, name, content_type, bytes).await?;
    link(files, key).await
}

async fn put(context: &Context, files: &Files, name: &str, content_type: &str, bytes: Vec<u8>) -> Result<String> {
    let key = fresh_key(context);
    let request = files.s3.put_object().bucket(&files.bucket).key(&key).content_type(content_type);
    let request = request.content_disposition(disposition(name)).body(ByteStream::from(bytes));
    request.send().await.map_err(unavailable)?;
    Ok(key)
}

async fn link(files: &Files, key: String) -> Result<Delivered> {
    let life = PresigningConfig::expires_in(LINK_LIFE).map_err(|error| Refusal::Service("S3", error.to_string()))?;
    let link = files.s3.get_object().bucket(&files.bucket).key(key).presigned(life).await.map_err(unavailable)?;
    Ok(Delivered::Link(link.uri().to_owned()))
}

/// Nobody can guess it, and whatever is under the prefix is deleted after a day.
fn fresh_key(context: &Context) -> String {
    format!("exports/{:032x}", context.clock.random())
}

/// RFC 4180: rows end in CR LF, cells are quoted where they must be.
fn writer(buffer: Vec<u8>) -> csv::Writer<Vec<u8>> {
    csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).flexible(true).from_writer(buffer)
}

/// Whether a function can answer with it: a quote, a backslash and an end of line count twice in a JSON string, other controls six times.
fn travels(text: &[u8]) -> bool {
    let travelling = |byte: &u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.len() <= MAX_ANSWER && text.iter().map(travelling).sum::<usize>() <= MAX_TRAVELLING
}

/// What tells a browser to save it, and under which name. Names are of our own making: ids and words.
pub fn disposition(name: &str) -> String {
    format!("attachment; filename=\"{name}\"")
}

fn unavailable<E: ProvideErrorMetadata, R>(error: SdkError<E, R>) -> Refusal {
    Refusal::Service("S3", error.code().unwrap_or("no answer").to_owned())
}
