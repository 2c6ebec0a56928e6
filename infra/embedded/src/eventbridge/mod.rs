//! `EventBridge`: buses, rules with patterns, and delivery to SQS queues.
//!
//! Every accepted event is kept in a bounded log with what became of it, so a test can ask what was published without
//! putting a queue behind the bus. What it never does: call targets other than SQS queues (they are listed, and noted
//! in the log), fire rules with a schedule, transform input (refused when the target is put), or retry.

mod buses;
mod error;
mod log;
mod pattern;
mod publish;
mod wire;

pub(crate) use buses::Bus;
pub(crate) use log::EventLog;
pub use log::{AcceptedEvent, Delivery, Outcome};

use bytes::Bytes;

use crate::aws_json::{Failure, run};
use crate::state::Call;
use error::EventBridgeError;

pub(crate) const TARGET: &str = "AWSEvents";

pub(crate) fn dispatch(
    call: &mut Call<'_>,
    log: &mut EventLog,
    operation: &str,
    body: &[u8],
) -> Result<Bytes, Failure<EventBridgeError>> {
    match operation {
        "CreateEventBus" => run(body, |r| buses::create(call, r)),
        "DeleteEventBus" => run(body, |r| buses::delete(call, &r)),
        "DeleteRule" => run(body, |r| buses::delete_rule(call, &r)),
        "DescribeEventBus" => run(body, |r| buses::describe(call, &r)),
        "DescribeRule" => run(body, |r| buses::describe_rule(call, &r)),
        "ListEventBuses" => run(body, |r| buses::list(call, &r)),
        "ListRules" => run(body, |r| buses::list_rules(call, &r)),
        "ListTargetsByRule" => run(body, |r| buses::list_targets(call, &r)),
        "PutEvents" => run(body, |r| publish::put_events(call, log, r)),
        "PutRule" => run(body, |r| buses::put_rule(call, r)),
        "PutTargets" => run(body, |r| buses::put_targets(call, r)),
        "RemoveTargets" => run(body, |r| buses::remove_targets(call, &r)),
        _ => Err(Failure::UnknownOperation),
    }
}
