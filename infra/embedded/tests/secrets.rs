//! Secrets Manager under the SDK.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::error::ProvideErrorMetadata as _;

async fn value(client: &Client, stage: &str) -> Option<String> {
    let read = client.get_secret_value().secret_id("app/key").version_stage(stage).send().await;
    read.ok().and_then(|answer| answer.secret_string)
}

#[tokio::test]
async fn rotation_moves_the_stages() {
    let (embedded, _) = common::memory();
    let client = Client::new(&embedded.sdk_config());
    let created = client.create_secret().name("app/key").secret_string("one").send().await.unwrap();
    assert!(created.arn().unwrap().starts_with("arn:aws:secretsmanager:us-east-1:000000000000:secret:app/key-"));
    assert_eq!(value(&client, "AWSCURRENT").await.as_deref(), Some("one"));
    assert_eq!(value(&client, "AWSPREVIOUS").await, None);

    client.put_secret_value().secret_id("app/key").secret_string("two").send().await.unwrap();
    assert_eq!(value(&client, "AWSCURRENT").await.as_deref(), Some("two"));
    assert_eq!(value(&client, "AWSPREVIOUS").await.as_deref(), Some("one"));

    let pending = client.put_secret_value().secret_id(created.arn().unwrap()).secret_string("three");
    let pending = pending.version_stages("AWSPENDING").send().await.unwrap();
    assert_eq!(value(&client, "AWSCURRENT").await.as_deref(), Some("two"));
    let current = client.get_secret_value().secret_id("app/key").send().await.unwrap().version_id.unwrap();
    client
        .update_secret_version_stage()
        .secret_id("app/key")
        .version_stage("AWSCURRENT")
        .move_to_version_id(pending.version_id().unwrap())
        .remove_from_version_id(&current)
        .send()
        .await
        .unwrap();
    assert_eq!(value(&client, "AWSCURRENT").await.as_deref(), Some("three"));
    assert_eq!(value(&client, "AWSPREVIOUS").await.as_deref(), Some("two"));
    let by_id = client.get_secret_value().secret_id("app/key").version_id(&current).send().await.unwrap();
    assert_eq!(by_id.secret_string(), Some("two"));

    client.update_secret().secret_id("app/key").secret_string("four").description("a key").send().await.unwrap();
    assert_eq!(value(&client, "AWSCURRENT").await.as_deref(), Some("four"));
    let described = client.describe_secret().secret_id("app/key").send().await.unwrap();
    assert_eq!(described.description(), Some("a key"));
    assert_eq!(described.version_ids_to_stages().unwrap().len(), 2);
}

#[tokio::test]
async fn tokens_make_requests_repeatable() {
    let (embedded, _) = common::memory();
    let client = Client::new(&embedded.sdk_config());
    let token = "00000000-0000-0000-0000-000000000001";
    let create = || client.create_secret().name("app/key").client_request_token(token);
    create().secret_string("one").send().await.unwrap();
    create().secret_string("one").send().await.unwrap();
    let other = create().secret_string("two").send().await.unwrap_err();
    assert!(other.into_service_error().is_resource_exists_exception());
    let put = || client.put_secret_value().secret_id("app/key").client_request_token(token);
    put().secret_string("one").send().await.unwrap();
    assert!(put().secret_string("two").send().await.unwrap_err().into_service_error().is_resource_exists_exception());
}

#[tokio::test]
async fn deleted_secrets_can_be_restored_unless_forced() {
    let (embedded, _) = common::memory();
    let client = Client::new(&embedded.sdk_config());
    let missing = client.get_secret_value().secret_id("app/key").send().await.unwrap_err();
    assert!(missing.into_service_error().is_resource_not_found_exception());
    client.create_secret().name("app/key").secret_string("one").send().await.unwrap();
    assert_eq!(client.list_secrets().send().await.unwrap().secret_list().len(), 1);
    client.delete_secret().secret_id("app/key").send().await.unwrap();
    let error = client.get_secret_value().secret_id("app/key").send().await.unwrap_err();
    assert_eq!(error.code(), Some("InvalidRequestException"));
    client.restore_secret().secret_id("app/key").send().await.unwrap();
    assert_eq!(value(&client, "AWSCURRENT").await.as_deref(), Some("one"));
    client.delete_secret().secret_id("app/key").force_delete_without_recovery(true).send().await.unwrap();
    assert!(client.list_secrets().send().await.unwrap().secret_list().is_empty());
    client.create_secret().name("app/key").secret_string("new").send().await.unwrap();
}
