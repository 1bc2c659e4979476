//! Producers: claims, and the windows of their batches.

use sqlx::SqliteConnection;

use super::failure::Failure;
use super::rows::{self, from_sql, to_sql};
use super::writer::Writer;
use crate::store::marks::{ProducerState, Standing};
use crate::store::{ProducerClaim, ProducerId, StoreError};

/// How many producers the writer remembers, about 400 bytes each. Past it the memory starts anew.
pub(super) const REMEMBERED: usize = 4096;

#[derive(sqlx::FromRow)]
struct ProducerRow {
    fence: i64,
    held_since: i64,
    last_batch_seq: i64,
    window: Vec<u8>,
}

impl Writer {
    /// What the store keeps about a producer, remembered or read.
    pub(super) async fn producer(&mut self, producer: &ProducerId) -> Result<Option<ProducerState>, Failure> {
        if let Some(state) = self.producers.get(producer) {
            return Ok(Some(state.clone()));
        }
        let Some(state) = read(self.connection().await?, producer).await? else {
            return Ok(None);
        };
        self.remember_producer(producer.clone(), state.clone());
        Ok(Some(state))
    }

    pub(super) fn remember_producer(&mut self, producer: ProducerId, state: ProducerState) {
        if self.producers.len() >= REMEMBERED && !self.producers.contains_key(&producer) {
            self.producers.clear();
        }
        self.producers.insert(producer, state);
    }

    pub(super) async fn claim_or_renew(
        &mut self,
        producer: ProducerId,
        held_fence: Option<u64>,
    ) -> Result<Option<ProducerClaim>, StoreError> {
        self.begin().await?;
        let claimed = self.claim(&producer, held_fence).await;
        let Some(state) = self.end(claimed).await? else { return Ok(None) };
        let claim = ProducerClaim { fence: state.fence, last_batch_seq: state.last_batch_seq };
        self.remember_producer(producer, state);
        Ok(Some(claim))
    }

    async fn claim(
        &mut self,
        producer: &ProducerId,
        held_fence: Option<u64>,
    ) -> Result<Option<ProducerState>, Failure> {
        let now = self.clock.now();
        let connection = self.connection().await?;
        let fence: i64 =
            sqlx::query_scalar("UPDATE log_head SET fence = fence + 1 WHERE partition = 0 RETURNING fence")
                .fetch_one(&mut *connection)
                .await?;
        // A fence that this log has not handed out comes from one that is lost, and renews nothing.
        let renewed = held_fence.filter(|&held| held < from_sql(fence));
        let row: Option<ProducerRow> = sqlx::query_as(CLAIM)
            .bind(producer.as_str().to_owned()) // $1 id
            .bind(fence) // $2 fence
            .bind(now.nanos()) // $3 active_time
            .bind(renewed.map(to_sql)) // $4 fence that is renewed, or NULL
            .fetch_optional(connection)
            .await?;
        row.map(|row| from_row(row, producer)).transpose()
    }
}

const CLAIM: &str = "
    INSERT INTO producers (id, fence, held_since, last_batch_seq, window, active_time)
        VALUES ($1, $2, coalesce($4, $2), 0, x'', $3)
        ON CONFLICT (id) DO UPDATE SET
            fence = excluded.fence,
            held_since = CASE WHEN $4 IS NULL THEN excluded.held_since ELSE producers.held_since END,
            active_time = excluded.active_time
            WHERE $4 IS NULL OR $4 >= producers.held_since
        RETURNING fence, held_since, last_batch_seq, window";

const READ: &str = "
    SELECT fence, held_since, last_batch_seq, window
    FROM producers
    WHERE id = $1";

async fn read(connection: &mut SqliteConnection, producer: &ProducerId) -> Result<Option<ProducerState>, Failure> {
    let row: Option<ProducerRow> = sqlx::query_as(READ)
        .bind(producer.as_str().to_owned()) // $1 id
        .fetch_optional(connection)
        .await?;
    row.map(|row| from_row(row, producer)).transpose()
}

fn from_row(row: ProducerRow, producer: &ProducerId) -> Result<ProducerState, Failure> {
    let window = ProducerState::decode_window(&row.window);
    let window = window.ok_or_else(|| rows::damaged("producers", producer.as_str(), "window has another length"))?;
    let last_batch_seq = from_sql(row.last_batch_seq);
    if window.back().map_or(0, |batch| batch.batch_seq) != last_batch_seq {
        return Err(rows::damaged("producers", producer.as_str(), "window does not end with last_batch_seq"));
    }
    Ok(ProducerState { fence: from_sql(row.fence), held_since: from_sql(row.held_since), last_batch_seq, window })
}

/// What an append adds to its producers, for `APPEND_SEGMENT`; and how many they are. JSON carries any number of them
/// in one bind.
pub(super) fn to_json(standing: &Standing) -> (String, usize) {
    let mut json = String::from("[");
    let mut count = 0;
    for (producer, state) in &standing.producers {
        let Some(state) = state else { continue };
        if count > 0 {
            json.push(',');
        }
        count += 1;
        // The alphabet of ids has nothing to escape.
        json.push_str(r#"{"id":""#);
        json.push_str(producer.as_str());
        json.push_str(&format!(r#"","fence":{},"last":{},"window":""#, state.fence, state.last_batch_seq));
        for byte in state.encode_window() {
            json.push(char::from(HEX[usize::from(byte >> 4)]));
            json.push(char::from(HEX[usize::from(byte & 15)]));
        }
        json.push_str(r#""}"#);
    }
    json.push(']');
    (json, count)
}

const HEX: &[u8; 16] = b"0123456789abcdef";
