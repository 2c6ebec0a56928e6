//! S3 under the SDK.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use embedded::Embedded;
use http::{Request, StatusCode};

/// Under both ways of naming a bucket.
async fn clients() -> [(Embedded, Client); 2] {
    let mut clients = Vec::new();
    for by_path in [false, true] {
        let (embedded, _) = common::memory();
        let config = aws_sdk_s3::config::Builder::from(&embedded.sdk_config()).force_path_style(by_path).build();
        let client = Client::from_conf(config);
        client.create_bucket().bucket("files").send().await.unwrap();
        clients.push((embedded, client));
    }
    clients.try_into().unwrap()
}

#[tokio::test]
async fn objects_are_put_read_linked_to_and_deleted() {
    for (embedded, client) in clients().await {
        let object = || client.get_object().bucket("files").key("a b/ü.csv");
        assert!(object().send().await.unwrap_err().into_service_error().is_no_such_key());
        let put = client.put_object().bucket("files").key("a b/ü.csv").body(ByteStream::from_static(b"one,two\r\n"));
        put.content_type("text/csv").content_disposition("attachment").send().await.unwrap();
        let read = object().send().await.unwrap();
        assert_eq!((read.content_type(), read.content_disposition()), (Some("text/csv"), Some("attachment")));
        assert_eq!(read.body.collect().await.unwrap().into_bytes(), "one,two\r\n");
        let head = client.head_object().bucket("files").key("a b/ü.csv").send().await.unwrap();
        assert_eq!(head.content_length(), Some(9));

        let life = PresigningConfig::expires_in(Duration::from_mins(5)).unwrap();
        let link = object().presigned(life).await.unwrap().uri().to_owned();
        assert!(link.contains("X-Amz-Expires=300"), "{link}");
        let answer = embedded.handle(Request::get(link).body(Bytes::new()).unwrap());
        assert_eq!((answer.status(), answer.body().as_ref()), (StatusCode::OK, &b"one,two\r\n"[..]));

        client.delete_object().bucket("files").key("a b/ü.csv").send().await.unwrap();
        assert!(object().send().await.unwrap_err().into_service_error().is_no_such_key());
    }
}

#[tokio::test]
async fn an_upload_in_parts_is_one_object_when_it_is_complete() {
    for (_, client) in clients().await {
        let begun = client.create_multipart_upload().bucket("files").key("big").content_type("text/csv");
        let id = begun.send().await.unwrap().upload_id.unwrap();
        let mut parts = Vec::new();
        for (number, bytes) in [(1, vec![b'a'; 5 * 1024 * 1024]), (2, vec![b'b'; 10])] {
            let part = client.upload_part().bucket("files").key("big").upload_id(&id).part_number(number);
            let put = part.body(ByteStream::from(bytes)).send().await.unwrap();
            parts.push(CompletedPart::builder().part_number(number).set_e_tag(put.e_tag).build());
        }
        assert!(client.get_object().bucket("files").key("big").send().await.is_err(), "not before it is complete");
        let all = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let complete = client.complete_multipart_upload().bucket("files").key("big").upload_id(&id);
        complete.multipart_upload(all).send().await.unwrap();
        let read = client.get_object().bucket("files").key("big").send().await.unwrap();
        assert_eq!(read.content_type(), Some("text/csv"));
        let body = read.body.collect().await.unwrap().into_bytes();
        assert_eq!((body.len(), body.last()), (5 * 1024 * 1024 + 10, Some(&b'b')));
    }
}

#[tokio::test]
async fn what_does_not_exist_is_refused_by_name() {
    for (_, client) in clients().await {
        let missing = client.put_object().bucket("other").key("a").body(ByteStream::from_static(b"x")).send().await;
        use aws_sdk_s3::error::ProvideErrorMetadata as _;
        assert_eq!(missing.unwrap_err().code(), Some("NoSuchBucket"));
        let part = client.upload_part().bucket("files").key("a").upload_id("none").part_number(1);
        assert_eq!(part.body(ByteStream::from_static(b"x")).send().await.unwrap_err().code(), Some("NoSuchUpload"));
    }
}
