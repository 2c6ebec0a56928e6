//! Lines, in the partitions of their partner.

use domain::ids::{LineId, PartnerId, encode_shard};
use domain::line::{Line, StateName};
use domain::program::Partner;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::keys::{
    AFTER_IDS, DUE_BUCKETS, Key, Place, due_bucket, due_partition, line_partition, payable_partition, sortable,
    work_place,
};
use crate::table::{Item, Listing, Order, Range, Store, StoreError};

impl Item for Line {
    fn key(&self) -> Key {
        Key::line(&self.id)
    }

    fn revision(&self) -> u32 {
        self.version
    }

    fn work_place(&self) -> Option<Place> {
        work_place(self)
    }
}

/// Where a list of a partner's lines goes on: after this time and hash, in every shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinePosition(pub String);

impl Store {
    pub async fn line(&self, operation: &'static str, id: &LineId) -> Result<Option<Line>, StoreError> {
        self.get(operation, &Key::line(id)).await
    }

    /// In the order of the ids; those that do not exist are left out.
    pub async fn lines(&self, operation: &'static str, ids: &[LineId]) -> Result<Vec<Line>, StoreError> {
        let keys: Vec<_> = ids.iter().map(Key::line).collect();
        self.get_many(operation, &keys).await
    }

    /// One page of the lines in one of a partner's shards, oldest first.
    pub async fn oldest_lines(
        &self,
        operation: &'static str,
        partner: &Partner,
        shard: u8,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Listing<Line>, StoreError> {
        let partition = line_partition(&partner.id, &encode_shard(shard));
        let limit = Some(i32::try_from(limit).unwrap_or(i32::MAX));
        self.query(operation, Range { after, limit, ..Range::all(partition) }).await
    }

    /// All lines of a partner that occurred from one moment until before another, in no particular order.
    pub async fn lines_between(
        &self,
        operation: &'static str,
        partner: &Partner,
        from: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<Line>, StoreError> {
        let (from_key, until_key) = (LineId::position_of(from), LineId::position_of(until));
        let mut lines = Vec::new();
        for shard in 0..partner.shards.max(1) {
            let range = Range {
                after: Some(&from_key),
                up_to: Some(&until_key),
                ..Range::all(line_partition(&partner.id, &encode_shard(shard)))
            };
            lines.extend(self.query_all::<Line>(operation, range).await?);
        }
        lines.retain(|line| (from..until).contains(&line.occurred_at));
        Ok(lines)
    }

    /// A partner's lines, newest first, across all shards.
    pub async fn partner_lines(
        &self,
        operation: &'static str,
        partner: &Partner,
        after: Option<&LinePosition>,
        limit: usize,
    ) -> Result<(Vec<Line>, Option<LinePosition>), StoreError> {
        let mut merged: Vec<Line> = Vec::new();
        let mut more = false;
        for shard in 0..partner.shards.max(1) {
            let range = Range {
                after: after.map(|position| position.0.as_str()),
                order: Order::Backward,
                limit: Some(i32::try_from(limit).unwrap_or(i32::MAX)),
                ..Range::all(line_partition(&partner.id, &encode_shard(shard)))
            };
            let page: Listing<Line> = self.query(operation, range).await?;
            more |= page.after.is_some();
            merged.extend(page.items);
        }
        merged.sort_by(|a, b| b.id.position().cmp(a.id.position()));
        more |= merged.len() > limit;
        merged.truncate(limit);
        let next = if more { merged.last().map(|line| LinePosition(line.id.position().to_owned())) } else { None };
        Ok((merged, next))
    }

    /// Approved lines whose hold period is over, oldest first, from one bucket of the due index. The index may lag: what is
    /// returned was read from the table, but more may be due.
    pub async fn due_lines(
        &self,
        operation: &'static str,
        bucket: u8,
        now: Timestamp,
        after: Option<&str>,
    ) -> Result<Listing<Line>, StoreError> {
        let up_to = format!("{}{AFTER_IDS}", sortable(now));
        let range = Range { after, up_to: Some(&up_to), limit: Some(200), ..Range::all(due_partition(bucket)) };
        let keys = self.work(operation, range).await?;
        Ok(Listing { items: self.get_many(operation, &keys.items).await?, after: keys.after })
    }

    /// One page of a partner's approved lines, of one of its shards, whose hold period is over. The bucket holds other partners' lines,
    /// too; a key tells whose it is.
    pub async fn due_lines_of(
        &self,
        operation: &'static str,
        partner: &Partner,
        shard: u8,
        now: Timestamp,
        after: Option<&str>,
    ) -> Result<Listing<Line>, StoreError> {
        let up_to = format!("{}{AFTER_IDS}", sortable(now));
        let shard = encode_shard(shard);
        let of_shard = line_partition(&partner.id, &shard);
        let bucket = due_partition(due_bucket(&partner.id, &shard));
        let mut keys = self.work(operation, Range { after, up_to: Some(&up_to), ..Range::all(bucket) }).await?;
        keys.items.retain(|key| key.pk == of_shard);
        Ok(Listing { items: self.get_many(operation, &keys.items).await?, after: keys.after })
    }

    pub fn due_buckets() -> impl Iterator<Item = u8> {
        0..DUE_BUCKETS
    }

    /// Lines of a partner that the index says are payable: debts first, then what was earned, by due date; at most so many. Whether that
    /// is all of them the balance tells.
    pub async fn payable_lines(
        &self,
        operation: &'static str,
        partner: &PartnerId,
        most: usize,
    ) -> Result<Vec<Line>, StoreError> {
        let mut lines: Vec<Line> = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let limit = i32::try_from(most - lines.len()).ok();
            let range = Range { after: after.as_deref(), limit, ..Range::all(payable_partition(partner)) };
            let keys = self.work(operation, range).await?;
            let page = self.get_many::<Line>(operation, &keys.items).await?;
            lines.extend(page.into_iter().filter(|line| line.state.name() == StateName::Payable));
            after = keys.after;
            if after.is_none() || lines.len() >= most {
                return Ok(lines);
            }
        }
    }
}
