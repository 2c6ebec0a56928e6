//! The MD5 digests SQS answers with, which SDKs compare with their own.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use md5::{Digest, Md5};

use super::error::SqsError;
use super::wire::MessageAttribute;

pub(super) fn of_body(body: &str) -> String {
    hex(Md5::digest(body))
}

/// The digest over all attributes by name, or `None` if there are none. Lengths precede names, types and values.
pub(super) fn of_attributes(attributes: &BTreeMap<String, MessageAttribute>) -> Result<Option<String>, SqsError> {
    if attributes.is_empty() {
        return Ok(None);
    }
    let mut digest = Md5::new();
    for (name, attribute) in attributes {
        update(&mut digest, name.as_bytes());
        update(&mut digest, attribute.data_type.as_bytes());
        match (&attribute.string_value, &attribute.binary_value) {
            (Some(text), None) => {
                digest.update([1]);
                update(&mut digest, text.as_bytes());
            }
            (None, Some(encoded)) => {
                let bytes = BASE64_STANDARD
                    .decode(encoded)
                    .map_err(|_| SqsError::InvalidParameterValue("A binary message attribute is not base64."))?;
                digest.update([2]);
                update(&mut digest, &bytes);
            }
            _ => {
                return Err(SqsError::InvalidParameterValue(
                    "A message attribute has either a string or a binary value.",
                ));
            }
        }
    }
    Ok(Some(hex(digest.finalize())))
}

fn update(digest: &mut Md5, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    digest.update(length.to_be_bytes());
    digest.update(bytes);
}

fn hex(hash: impl AsRef<[u8]>) -> String {
    use std::fmt::Write as _;
    hash.as_ref().iter().fold(String::with_capacity(32), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_the_usual_md5() {
        assert_eq!(of_body("hello"), "5d41402abc4b2a76b9719d911017c592");
    }
}
