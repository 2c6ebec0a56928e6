//! What end-to-end tests stand on: a whole system in this process, and the few words the tests are told in.
//!
//! A test plans a [`World`], plays in it through the same HTTP events that API Gateway sends, and ends with
//! [`World::audit_holds`], which recomputes every invariant from what is stored.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::return_self_not_must_use,
    reason = "whatever goes wrong here fails the test that asked for it"
)]

pub mod blow;
pub mod books;
pub mod contract;
mod golden;
pub mod memory;
mod plan;
pub mod rail;
mod request;
pub mod samples;
pub mod sign;
mod world;

pub use golden::golden;
pub use plan::{Plan, percent, temporary_directory, tiered};
pub use request::{ADMIN, ANALYST, APPROVER, FINANCE, MANAGER, REVIEWER, Reply, Request, SECOND_ADMIN, Who};
pub use world::{World, result_codes};
