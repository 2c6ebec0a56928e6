//! Touches: visits by referral links, under the visitor's id and in the order of their time. They are forgotten when no
//! program's window reaches back to them any more.

use domain::attribution::{MAX_WINDOW_DAYS, Touch};
use domain::ids::{ClickId, ProgramId, VisitorId};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::keys::{Key, visitor_partition};
use crate::table::{Item, Order, Range, Store, StoreError};
use crate::transaction::Transaction;

/// Days that a touch is kept: a month longer than the longest window, for sales that are reported late.
const KEEP_DAYS: i64 = MAX_WINDOW_DAYS as i64 + 31;
/// A visitor's touches that are looked at: of more, the latest.
const MAX_TOUCHES: i32 = 200;

/// One visitor may meet several programs.
#[derive(Debug, Serialize, Deserialize)]
struct StoredTouch {
    program: ProgramId,
    #[serde(flatten)]
    touch: Touch,
}

impl Item for StoredTouch {
    fn key(&self) -> Key {
        Key::touch(&self.touch.click)
    }

    fn expires(&self) -> Option<i64> {
        Some(self.touch.at.as_second() + KEEP_DAYS * 24 * 3_600)
    }
}

impl Transaction {
    /// By itself it is one put of one unit: an item of less than a kilobyte, in no index.
    pub fn create_touch(&mut self, program: &ProgramId, touch: &Touch) -> Result<(), StoreError> {
        self.create(&StoredTouch { program: program.clone(), touch: touch.clone() })
    }
}

impl Store {
    /// The touch of a click, if it was one of this program's links.
    pub async fn touch(
        &self,
        operation: &'static str,
        program: &ProgramId,
        click: &ClickId,
    ) -> Result<Option<Touch>, StoreError> {
        let stored: Option<StoredTouch> = self.get(operation, &Key::touch(click)).await?;
        Ok(stored.filter(|stored| stored.program == *program).map(|stored| stored.touch))
    }

    /// What a visitor touched of a program, both moments inclusive, the oldest first. Only the latest of all the visitor's
    /// touches are looked at: nobody follows so many links, but a program could.
    pub async fn touches(
        &self,
        operation: &'static str,
        program: &ProgramId,
        visitor: &VisitorId,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Touch>, StoreError> {
        // Positions know seconds only.
        let end = ClickId::position_of_second(to.checked_add(SignedDuration::from_secs(1)).unwrap_or(to));
        let range = Range {
            after: Some(&end),
            order: Order::Backward,
            limit: Some(MAX_TOUCHES),
            ..Range::all(visitor_partition(visitor))
        };
        let page = self.query::<StoredTouch>(operation, range).await?;
        let of_program = page.items.into_iter().filter(|stored| stored.program == *program);
        let mut touches: Vec<_> =
            of_program.map(|stored| stored.touch).filter(|touch| (from..=to).contains(&touch.at)).collect();
        touches.sort_by(|a, b| (a.at, &a.click).cmp(&(b.at, &b.click)));
        Ok(touches)
    }
}
