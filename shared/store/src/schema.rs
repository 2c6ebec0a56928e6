//! The table's definition for local engines and tests. In the cloud template.yaml makes it; a test keeps the two equal.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection, ProjectionType,
    ScalarAttributeType, StreamSpecification, StreamViewType,
};

use crate::table::StoreError;

/// Programs, partners, payouts, runs and exceptions by what they belong to.
pub const LIST_INDEX: &str = "list";
/// Lines that wait for something.
pub const WORK_INDEX: &str = "work";

/// Creates the table unless it exists.
pub async fn create_table(client: &Client, name: &str) -> Result<(), StoreError> {
    let exists = client.describe_table().table_name(name).send().await;
    if exists.is_ok() {
        return Ok(());
    }
    let stream =
        StreamSpecification::builder().stream_enabled(true).stream_view_type(StreamViewType::NewImage).build()?;
    let mut create = client
        .create_table()
        .table_name(name)
        .billing_mode(BillingMode::PayPerRequest)
        .stream_specification(stream)
        .key_schema(key("pk", KeyType::Hash)?)
        .key_schema(key("sk", KeyType::Range)?);
    for attribute in ["pk", "sk", "lpk", "lsk", "wpk", "wsk"] {
        create = create.attribute_definitions(
            AttributeDefinition::builder().attribute_name(attribute).attribute_type(ScalarAttributeType::S).build()?,
        );
    }
    for (index, hash, range) in [(LIST_INDEX, "lpk", "lsk"), (WORK_INDEX, "wpk", "wsk")] {
        create = create.global_secondary_indexes(
            GlobalSecondaryIndex::builder()
                .index_name(index)
                .key_schema(key(hash, KeyType::Hash)?)
                .key_schema(key(range, KeyType::Range)?)
                .projection(Projection::builder().projection_type(ProjectionType::KeysOnly).build())
                .build()?,
        );
    }
    create.send().await.map_err(StoreError::sdk)?;
    Ok(())
}

fn key(name: &str, kind: KeyType) -> Result<KeySchemaElement, StoreError> {
    Ok(KeySchemaElement::builder().attribute_name(name).key_type(kind).build()?)
}
