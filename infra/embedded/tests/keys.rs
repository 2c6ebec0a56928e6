//! Key Management Service under the SDK.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use aws_sdk_kms::Client;
use aws_sdk_kms::error::ProvideErrorMetadata as _;
use aws_sdk_kms::primitives::Blob;

async fn key(client: &Client) -> String {
    client.create_key().description("numbers").send().await.unwrap().key_metadata.unwrap().arn.unwrap()
}

async fn encrypt(client: &Client, key: &str, partner: &str) -> Blob {
    let request = client.encrypt().key_id(key).plaintext(Blob::new("123456789"));
    request.encryption_context("partner", partner).send().await.unwrap().ciphertext_blob.unwrap()
}

async fn decrypt(client: &Client, key: &str, blob: &Blob, partner: &str) -> Result<Vec<u8>, String> {
    let request = client.decrypt().key_id(key).ciphertext_blob(blob.clone());
    let answer = request.encryption_context("partner", partner).send().await;
    answer.map(|answer| answer.plaintext.unwrap().into_inner()).map_err(|error| error.code().unwrap().to_owned())
}

#[tokio::test]
async fn what_is_encrypted_opens_with_its_key_and_context_only() {
    let (embedded, _) = common::memory();
    let client = Client::new(&embedded.sdk_config());
    let (first, second) = (key(&client).await, key(&client).await);
    let blob = encrypt(&client, &first, "a").await;
    assert!(!blob.as_ref().windows(9).any(|bytes| bytes == b"123456789"));
    assert_eq!(decrypt(&client, &first, &blob, "a").await.unwrap(), b"123456789");
    assert_eq!(decrypt(&client, &first, &blob, "b").await.unwrap_err(), "InvalidCiphertextException");
    assert_eq!(decrypt(&client, &second, &blob, "a").await.unwrap_err(), "IncorrectKeyException");
    let mut altered = blob.clone().into_inner();
    *altered.last_mut().unwrap() ^= 1;
    assert_eq!(decrypt(&client, &first, &Blob::new(altered), "a").await.unwrap_err(), "InvalidCiphertextException");
    assert_eq!(decrypt(&client, &first, &Blob::new("short"), "a").await.unwrap_err(), "InvalidCiphertextException");
    assert_ne!(encrypt(&client, &first, "a").await, blob, "equal values must not be seen to be equal");
}

#[tokio::test]
async fn keys_are_named_by_id_arn_or_alias_and_must_exist() {
    let (embedded, _) = common::memory();
    let client = Client::new(&embedded.sdk_config());
    let arn = key(&client).await;
    let id = arn.rsplit('/').next().unwrap();
    let described = client.describe_key().key_id(id).send().await.unwrap().key_metadata.unwrap();
    assert_eq!((described.arn(), described.description()), (Some(arn.as_str()), Some("numbers")));
    client.create_alias().alias_name("alias/numbers").target_key_id(id).send().await.unwrap();
    let again = client.create_alias().alias_name("alias/numbers").target_key_id(id).send().await.unwrap_err();
    assert_eq!(again.code(), Some("AlreadyExistsException"));
    let blob = encrypt(&client, "alias/numbers", "a").await;
    assert_eq!(decrypt(&client, &arn, &blob, "a").await.unwrap(), b"123456789");
    let unknown = "00000000-0000-0000-0000-000000000000";
    let error = client.encrypt().key_id(unknown).plaintext(Blob::new("x")).send().await.unwrap_err();
    assert_eq!(error.code(), Some("NotFoundException"));
    let error = client.encrypt().key_id(id).plaintext(Blob::new("")).send().await.unwrap_err();
    assert_eq!(error.code(), Some("ValidationException"));
}
