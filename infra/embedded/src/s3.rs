//! S3: buckets, whole objects, uploads in parts, and links that were signed beforehand.
//!
//! What it never does: check signatures or when a link ends, keep versions, apply lifecycle rules, or list. Objects are kept in memory
//! only, also where everything else is kept in a directory: what the product puts here is deleted after a day anyway.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use md5::{Digest, Md5};

use crate::ids::Ids;

/// What is kept of a request to put an object.
const KEPT: [http::HeaderName; 2] = [CONTENT_TYPE, CONTENT_DISPOSITION];

#[derive(Debug, Default)]
pub(crate) struct Buckets {
    objects: BTreeMap<String, BTreeMap<String, Object>>,
    uploads: BTreeMap<String, Upload>,
    ids: Ids,
}

#[derive(Debug, Clone)]
struct Object {
    body: Bytes,
    headers: HeaderMap,
}

#[derive(Debug)]
struct Upload {
    address: Address,
    headers: HeaderMap,
    parts: BTreeMap<u16, Bytes>,
}

/// A bucket, and the key of an object in it where one is named.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    bucket: String,
    key: Option<String>,
}

/// An error as S3 names it.
#[derive(Debug, Clone, Copy)]
enum Refused {
    NoSuchBucket,
    NoSuchKey,
    NoSuchUpload,
    InvalidPart,
    EntityTooSmall,
    IncompleteBody,
    NotImplemented,
}

impl Refused {
    const fn code(self) -> (&'static str, StatusCode) {
        match self {
            Self::NoSuchBucket => ("NoSuchBucket", StatusCode::NOT_FOUND),
            Self::NoSuchKey => ("NoSuchKey", StatusCode::NOT_FOUND),
            Self::NoSuchUpload => ("NoSuchUpload", StatusCode::NOT_FOUND),
            Self::InvalidPart => ("InvalidPart", StatusCode::BAD_REQUEST),
            Self::EntityTooSmall => ("EntityTooSmall", StatusCode::BAD_REQUEST),
            Self::IncompleteBody => ("IncompleteBody", StatusCode::BAD_REQUEST),
            Self::NotImplemented => ("NotImplemented", StatusCode::NOT_IMPLEMENTED),
        }
    }
}

/// All parts but the last must have this size.
const MIN_PART: usize = 5 * 1024 * 1024;

/// Whether a request is for S3: it is signed for it, in its head or in its query.
pub(crate) fn owns(parts: &Parts) -> bool {
    let signed = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    signed.contains("/s3/aws4_request") || query(parts, "X-Amz-Credential").is_some_and(|scope| scope.contains("/s3/"))
}

fn query(parts: &Parts, wanted: &str) -> Option<String> {
    let pairs = parts.uri.query().unwrap_or_default().split('&');
    let mut pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find(|(name, _)| *name == wanted).map(|(_, value)| decoded(value))
}

/// Percent signs undone.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok()).filter(|_| *first == b'%');
        let byte = escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The bucket stands in the host (`bucket.s3.region.amazonaws.com`) or opens the path.
fn address(parts: &Parts) -> Address {
    let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| parts.uri.host()).unwrap_or_default();
    let path = decoded(parts.uri.path().trim_start_matches('/'));
    let (bucket, key) = if let Some((bucket, _)) = host.split_once(".s3.") {
        (bucket.to_owned(), path)
    } else {
        let (bucket, key) = path.split_once('/').unwrap_or((&path, ""));
        (bucket.to_owned(), key.to_owned())
    };
    Address { bucket, key: (!key.is_empty()).then_some(key) }
}

impl Buckets {
    pub(crate) fn handle(&mut self, parts: &Parts, body: &Bytes) -> Response<Bytes> {
        self.answer(parts, body).unwrap_or_else(|refused| {
            let (code, status) = refused.code();
            xml(status, &format!("<Error><Code>{code}</Code><Message>{code}</Message></Error>"))
        })
    }

    fn answer(&mut self, parts: &Parts, body: &Bytes) -> Result<Response<Bytes>, Refused> {
        let address = address(parts);
        let Some(key) = address.key.clone() else { return self.bucket(&address.bucket, &parts.method) };
        let body = payload(&parts.headers, body)?;
        let objects = self.objects.get_mut(&address.bucket).ok_or(Refused::NoSuchBucket)?;
        let upload = query(parts, "uploadId");
        match (&parts.method, upload) {
            (&Method::PUT, None) => {
                let etag = etag(&body);
                objects.insert(key, Object { body, headers: kept(&parts.headers) });
                Ok(with_etag(plain(StatusCode::OK, Bytes::new()), &etag))
            }
            (&Method::GET | &Method::HEAD, None) => {
                let object = objects.get(&key).ok_or(Refused::NoSuchKey)?;
                let is_head = parts.method == Method::HEAD;
                let mut response = plain(StatusCode::OK, if is_head { Bytes::new() } else { object.body.clone() });
                response.headers_mut().extend(object.headers.clone());
                if is_head {
                    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(object.body.len()));
                }
                Ok(with_etag(response, &etag(&object.body)))
            }
            (&Method::DELETE, None) => {
                objects.remove(&key);
                Ok(plain(StatusCode::NO_CONTENT, Bytes::new()))
            }
            (&Method::POST, None) if query(parts, "uploads").is_some() => {
                let id = self.ids.next("upload").simple().to_string();
                let Address { bucket, .. } = &address;
                let answer = format!(
                    "<InitiateMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{}</Key><UploadId>{id}</UploadId>\
                     </InitiateMultipartUploadResult>",
                    escaped(&key),
                );
                let upload = Upload { headers: kept(&parts.headers), address, parts: BTreeMap::new() };
                self.uploads.insert(id, upload);
                Ok(xml(StatusCode::OK, &answer))
            }
            (&Method::PUT, Some(id)) => {
                let number = query(parts, "partNumber").and_then(|number| number.parse().ok());
                let number = number.filter(|number| (1..=10_000).contains(number)).ok_or(Refused::InvalidPart)?;
                let etag = etag(&body);
                self.upload(&id, &address)?.parts.insert(number, body);
                Ok(with_etag(plain(StatusCode::OK, Bytes::new()), &etag))
            }
            (&Method::POST, Some(id)) => self.complete(&id, &address, &body),
            (&Method::DELETE, Some(id)) => {
                self.upload(&id, &address)?;
                self.uploads.remove(&id);
                Ok(plain(StatusCode::NO_CONTENT, Bytes::new()))
            }
            _ => Err(Refused::NotImplemented),
        }
    }

    fn bucket(&mut self, name: &str, method: &Method) -> Result<Response<Bytes>, Refused> {
        match *method {
            Method::PUT => {
                self.objects.entry(name.to_owned()).or_default();
                Ok(plain(StatusCode::OK, Bytes::new()))
            }
            Method::HEAD if self.objects.contains_key(name) => Ok(plain(StatusCode::OK, Bytes::new())),
            Method::HEAD => Err(Refused::NoSuchBucket),
            _ => Err(Refused::NotImplemented),
        }
    }

    fn upload(&mut self, id: &str, address: &Address) -> Result<&mut Upload, Refused> {
        self.uploads.get_mut(id).filter(|upload| upload.address == *address).ok_or(Refused::NoSuchUpload)
    }

    /// The list of parts names each by number and tag, in order.
    fn complete(&mut self, id: &str, address: &Address, list: &[u8]) -> Result<Response<Bytes>, Refused> {
        let upload = self.upload(id, address)?;
        let list = String::from_utf8_lossy(list);
        let mut object = BytesMut::new();
        let named: Vec<_> = list.split("<Part>").skip(1).collect();
        for (n, part) in named.iter().enumerate() {
            let number = between(part, "PartNumber").and_then(|number| number.parse::<u16>().ok());
            let bytes = number.and_then(|number| upload.parts.get(&number)).ok_or(Refused::InvalidPart)?;
            let tag = between(part, "ETag").map(|tag| tag.replace("&quot;", "\""));
            if tag.as_deref() != Some(etag(bytes).as_str()) {
                return Err(Refused::InvalidPart);
            }
            if n + 1 < named.len() && bytes.len() < MIN_PART {
                return Err(Refused::EntityTooSmall);
            }
            object.extend_from_slice(bytes);
        }
        let headers = upload.headers.clone();
        self.uploads.remove(id);
        let (objects, key) = (self.objects.get_mut(&address.bucket), address.key.clone());
        let (objects, key) = (objects.ok_or(Refused::NoSuchBucket)?, key.ok_or(Refused::NoSuchKey)?);
        let answer = format!(
            "<CompleteMultipartUploadResult><Bucket>{}</Bucket><Key>{}</Key></CompleteMultipartUploadResult>",
            address.bucket,
            escaped(&key),
        );
        objects.insert(key, Object { body: object.freeze(), headers });
        Ok(xml(StatusCode::OK, &answer))
    }
}

fn between<'a>(text: &'a str, element: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{element}>"))?;
    rest.split_once(&format!("</{element}>")).map(|(value, _)| value)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

fn kept(headers: &HeaderMap) -> HeaderMap {
    KEPT.into_iter().filter_map(|name| headers.get(&name).cloned().map(|value| (name, value))).collect()
}

/// The body without the framing that SDKs put around what they stream: `size;extension CR LF bytes CR LF`, ending in size 0.
fn payload(headers: &HeaderMap, body: &Bytes) -> Result<Bytes, Refused> {
    let encoding = headers.get(CONTENT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !encoding.contains("aws-chunked") {
        return Ok(body.clone());
    }
    let (mut rest, mut whole) = (body.clone(), BytesMut::new());
    loop {
        let end = rest.windows(2).position(|pair| pair == b"\r\n").ok_or(Refused::IncompleteBody)?;
        let head = rest.split_to(end);
        let size = std::str::from_utf8(&head).ok().and_then(|head| head.split(';').next());
        let size = size.and_then(|size| usize::from_str_radix(size.trim(), 16).ok()).ok_or(Refused::IncompleteBody)?;
        if size == 0 {
            return Ok(whole.freeze());
        }
        if rest.len() < size + 4 {
            return Err(Refused::IncompleteBody);
        }
        whole.extend_from_slice(&rest.slice(2..2 + size));
        rest = rest.slice(size + 4..);
    }
}

fn etag(body: &[u8]) -> String {
    format!("\"{}\"", STANDARD.encode(Md5::digest(body)).replace(['+', '/', '='], "0"))
}

fn with_etag(mut response: Response<Bytes>, etag: &str) -> Response<Bytes> {
    if let Ok(etag) = HeaderValue::from_str(etag) {
        response.headers_mut().insert(ETAG, etag);
    }
    response
}

fn plain(status: StatusCode, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

fn xml(status: StatusCode, body: &str) -> Response<Bytes> {
    let mut response = plain(status, Bytes::from(format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>{body}")));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    response
}
