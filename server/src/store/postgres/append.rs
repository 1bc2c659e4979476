//! Appending a group: one call of `append_next`, if all of it follows what its producers had stored, or else of
//! `append_group`, which judges it batch by batch.

use std::collections::{BTreeMap, HashMap};

use sqlx::PgConnection;

use super::failure::Failure;
use super::published;
use super::rows::{self, from_sql, text_to_sql, to_sql, to_sql_at_most};
use super::stumble;
use super::terms::Terms;
use crate::domain::Epoch;
use crate::store::faults::{self, Faults};
use crate::store::published::{last_bars, newest_details};
use crate::store::{Appended, Group, Mark, PRODUCER_WINDOW, RunId, RunProgress, StoreError, Verdict};

const APPEND: &str = "
    SELECT outcome, log_epoch, group_first, group_time, group_chain, verdicts, verdict_seqs
    FROM append_group(
        $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25,
        $26, $27, $28
    )";

const APPEND_NEXT: &str = "
    SELECT outcome, log_epoch, group_first, group_time, group_chain, NULL::BIGINT[] AS verdicts, NULL::BIGINT[] AS verdict_seqs
    FROM append_next($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)";

/// What `append_next` says of a group that has to be judged.
const TO_BE_JUDGED: i32 = 1;

/// The places inside the functions.
const INSIDE: [&str; 2] = [faults::APPEND_INSIDE, faults::APPEND_BEFORE_SYNC];

#[derive(sqlx::FromRow)]
struct Outcome {
    outcome: i32,
    log_epoch: i64,
    group_first: Option<i64>,
    group_time: Option<i64>,
    group_chain: Option<Vec<u8>>,
    verdicts: Option<Vec<i64>>,
    verdict_seqs: Option<Vec<i64>>,
}

/// Appends a group, or says why not.
pub(super) async fn append(
    connection: &mut PgConnection,
    group: Group,
    terms: Terms,
    faults: Faults,
) -> Result<Appended, Failure> {
    faults.hit(faults::APPEND_BEFORE).await?;
    let armed = stumble::arm(connection, &faults, &INSIDE).await?;
    let next = match Sequences::of(&group) {
        Some(sequences) => Some(append_next(connection, &group, sequences, terms).await?),
        None => None,
    };
    let outcome = match next.filter(|outcome| outcome.outcome != TO_BE_JUDGED) {
        Some(outcome) => outcome,
        None => append_group(connection, &group, terms).await?,
    };
    if armed {
        stumble::disarm(connection, &INSIDE).await?;
    }
    outcome.into_appended(&group)
}

async fn append_next(
    connection: &mut PgConnection,
    group: &Group,
    sequences: Sequences<'_>,
    terms: Terms,
) -> Result<Outcome, Failure> {
    let outcome: Outcome = sqlx::query_as(APPEND_NEXT)
        .bind(terms.check_identity) // $1 whether the database's identity is checked
        .bind(terms.new_epoch) // $2 name of an epoch that would begin
        .bind(terms.now) // $3 the time, or NULL
        .bind(to_sql(group.epoch.0)) // $4 the epoch that the writer believes in
        .bind(&group.bytes[..]) // $5 bytes
        .bind(i64::from(group.entry_count)) // $6 entry_count
        .bind(i64::from(group.tick_count)) // $7 tick_count
        .bind(group.backfill) // $8 backfill
        .bind(sequences.producers) // $9 the producers, each once
        .bind(sequences.fences) // $10 their fences
        .bind(sequences.first_batches) // $11 the number of the first batch of each
        .bind(sequences.batch_counts) // $12 how many batches
        .bind(sequences.window_starts) // $13 where its last ones begin in the next two
        .bind(sequences.window_ends) // $14 and end
        .bind(sequences.digests) // $15 digests
        .bind(sequences.last_entries) // $16 last entries
        .fetch_one(connection)
        .await?;
    Ok(outcome)
}

async fn append_group(connection: &mut PgConnection, group: &Group, terms: Terms) -> Result<Outcome, Failure> {
    let marks = Marks::of(group);
    let run = RunAddition::of(group);
    let outcome: Outcome = sqlx::query_as(APPEND)
        .bind(terms.check_identity) // $1 whether the database's identity is checked
        .bind(terms.new_epoch) // $2 name of an epoch that would begin
        .bind(terms.now) // $3 the time, or NULL
        .bind(to_sql(group.epoch.0)) // $4 the epoch that the writer believes in
        .bind(&group.bytes[..]) // $5 bytes
        .bind(i64::from(group.entry_count)) // $6 entry_count
        .bind(i64::from(group.tick_count)) // $7 tick_count
        .bind(group.backfill) // $8 backfill
        .bind(group.run_id.as_ref().map(RunId::as_str)) // $9 run_id of the segment
        .bind(marks.producers) // $10 the producers, each once
        .bind(marks.subjects) // $11 who made each mark
        .bind(marks.fences) // $12 fences and owners
        .bind(marks.batches) // $13 batch numbers
        .bind(marks.digests) // $14 digests
        .bind(marks.entries) // $15 entry counts
        .bind(run.id) // $16 id of the marks' run
        .bind(to_sql(run.progress.lines)) // $17 lines that it adds
        .bind(to_sql(run.progress.ticks)) // $18 ticks that it adds
        .bind(to_sql(run.progress.published)) // $19 published lines that it adds
        .bind(to_sql(run.progress.rejected)) // $20 rejected lines that it adds
        .bind(run.ignored_kinds) // $21 kinds of lines left out
        .bind(run.ignored_counts) // $22 how many of each
        .bind(run.reject_lines) // $23 numbers of the rejected lines that are kept
        .bind(run.reject_codes) // $24 why, for programs
        .bind(run.reject_reasons) // $25 why, in words
        .bind(run.reject_texts) // $26 their text
        .bind(run.bars) // $27 published bars as JSON: [{column: value}], or NULL
        .bind(run.details) // $28 details as JSON: [{column: value}], or NULL
        .fetch_one(connection)
        .await?;
    Ok(outcome)
}

/// The batches of a group, producer by producer, by columns.
#[derive(Default)]
struct Sequences<'g> {
    producers: Vec<&'g str>,
    fences: Vec<i64>,
    first_batches: Vec<i64>,
    batch_counts: Vec<i64>,
    window_starts: Vec<i64>,
    window_ends: Vec<i64>,
    digests: Vec<&'g [u8]>,
    last_entries: Vec<i64>,
}

/// What a group has of one producer.
struct Sequence<'g> {
    producer: &'g str,
    fence: u64,
    first_batch: u64,
    /// The digest and the last entry of each batch.
    batches: Vec<(&'g [u8], i64)>,
}

impl<'g> Sequences<'g> {
    /// `None` for a group of which not all can be next: batches of a producer with a hole, or of several claims, and
    /// whatever runs add.
    fn of(group: &'g Group) -> Option<Sequences<'g>> {
        if group.entry_count == 0 || group.run_id.is_some() {
            return None;
        }
        let mut found: Vec<Sequence<'g>> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut entries = 0;
        for mark in &group.marks {
            let Mark::Producer { producer, fence, batch_seq, digest, entry_count } = mark else { return None };
            entries += i64::from(*entry_count);
            let place = *places.entry(producer.as_str()).or_insert(found.len());
            if place == found.len() {
                let batches = Vec::new();
                found.push(Sequence { producer: producer.as_str(), fence: *fence, first_batch: *batch_seq, batches });
            }
            let sequence = &mut found[place];
            if sequence.fence != *fence
                || sequence.first_batch.checked_add(sequence.batches.len() as u64)? != *batch_seq
            {
                return None;
            }
            sequence.batches.push((digest, entries));
        }
        let mut sequences = Sequences::default();
        for Sequence { producer, fence, first_batch, batches } in found {
            sequences.producers.push(producer);
            sequences.fences.push(to_sql(fence));
            sequences.first_batches.push(to_sql_at_most(first_batch));
            sequences.batch_counts.push(batches.len() as i64);
            sequences.window_starts.push(sequences.digests.len() as i64 + 1);
            for (digest, last_entry) in &batches[batches.len().saturating_sub(PRODUCER_WINDOW)..] {
                sequences.digests.push(digest);
                sequences.last_entries.push(*last_entry);
            }
            sequences.window_ends.push(sequences.digests.len() as i64);
        }
        Some(sequences)
    }
}

/// The marks by columns.
#[derive(Default)]
struct Marks<'g> {
    producers: Vec<&'g str>,
    subjects: Vec<i64>,
    fences: Vec<i64>,
    batches: Vec<i64>,
    digests: Vec<&'g [u8]>,
    entries: Vec<i64>,
}

/// A mark of another run than the group's: unknown.
const OTHER_RUN: i64 = -1;
/// A mark of the group's run. Producers are numbered from 1.
const THE_RUN: i64 = 0;

impl<'g> Marks<'g> {
    fn of(group: &'g Group) -> Marks<'g> {
        let the_run = run_of(group);
        let mut marks = Marks::default();
        let mut numbers: HashMap<&str, i64> = HashMap::new();
        for mark in &group.marks {
            match mark {
                Mark::Producer { producer, fence, batch_seq, digest, entry_count } => {
                    let number = *numbers.entry(producer.as_str()).or_insert_with(|| {
                        marks.producers.push(producer.as_str());
                        marks.producers.len() as i64
                    });
                    marks.push(number, *fence, *batch_seq, digest, *entry_count);
                }
                Mark::Run { run, owner, batch, entry_count, progress: _, published: _ } => {
                    let subject = if Some(run) == the_run { THE_RUN } else { OTHER_RUN };
                    marks.push(subject, owner.0, *batch, &[], *entry_count);
                }
            }
        }
        marks
    }

    fn push(&mut self, subject: i64, fence: u64, batch: u64, digest: &'g [u8], entry_count: u32) {
        self.subjects.push(subject);
        self.fences.push(to_sql(fence));
        self.batches.push(to_sql_at_most(batch));
        self.digests.push(digest);
        self.entries.push(i64::from(entry_count));
    }
}

fn run_of(group: &Group) -> Option<&RunId> {
    group.marks.iter().find_map(|mark| match mark {
        Mark::Run { run, .. } => Some(run),
        Mark::Producer { .. } => None,
    })
}

/// What the marks of the group's run add to it, all together: they are stored together or not at all.
#[derive(Default)]
struct RunAddition<'g> {
    id: Option<&'g str>,
    /// Without kinds and rejects.
    progress: RunProgress,
    ignored_kinds: Vec<String>,
    ignored_counts: Vec<i64>,
    reject_lines: Vec<i64>,
    reject_codes: Vec<&'g str>,
    reject_reasons: Vec<String>,
    reject_texts: Vec<String>,
    bars: Option<String>,
    details: Option<String>,
}

impl<'g> RunAddition<'g> {
    fn of(group: &'g Group) -> RunAddition<'g> {
        let mut addition = RunAddition { id: run_of(group).map(RunId::as_str), ..RunAddition::default() };
        let mut bars = BTreeMap::new();
        let mut details = BTreeMap::new();
        for mark in &group.marks {
            let Mark::Run { progress, published, .. } = mark else { continue };
            bars.extend(last_bars(published));
            for (instrument, of_batch) in newest_details(published) {
                let known = details.entry(instrument).or_insert(of_batch);
                if known.day <= of_batch.day {
                    *known = of_batch;
                }
            }
            let RunProgress { lines, ticks, published, ignored, rejected, rejects } = progress;
            addition.progress.lines += lines;
            addition.progress.ticks += ticks;
            addition.progress.published += published;
            addition.progress.rejected += rejected;
            addition.progress.ignored.add(ignored);
            for reject in rejects {
                addition.reject_lines.push(to_sql(reject.line));
                addition.reject_codes.push(&reject.code);
                addition.reject_reasons.push(text_to_sql(&reject.reason));
                addition.reject_texts.push(text_to_sql(&reject.text));
            }
        }
        if !(bars.is_empty() && details.is_empty()) {
            addition.bars = Some(published::bars_to_json(bars));
            addition.details = Some(published::details_to_json(details));
        }
        for (kind, count) in &addition.progress.ignored.0 {
            addition.ignored_kinds.push(text_to_sql(kind));
            addition.ignored_counts.push(to_sql(*count));
        }
        addition
    }
}

impl Outcome {
    fn into_appended(self, group: &Group) -> Result<Appended, Failure> {
        let misunderstood = || -> Failure {
            StoreError::Unavailable("the database's functions are of another version".to_owned()).into()
        };
        match self.outcome {
            0 => {
                let (Some(first_seq), Some(time), Some(chain)) = (self.group_first, self.group_time, self.group_chain)
                else {
                    return Err(misunderstood());
                };
                Ok(Appended::Committed {
                    first_seq: from_sql(first_seq),
                    append_time: rows::time_from_sql(time, "log_head", 0)?,
                    chain: rows::array_from_sql(chain, "log_head", 0)?,
                })
            }
            1 => {
                let (verdicts, seqs) = (self.verdicts.unwrap_or_default(), self.verdict_seqs.unwrap_or_default());
                if verdicts.len() != group.marks.len() {
                    return Err(misunderstood());
                }
                let verdicts = verdicts.into_iter().zip(seqs).map(|(verdict, seq)| verdict_from_sql(verdict, seq));
                Ok(Appended::Refused(verdicts.collect::<Option<_>>().ok_or_else(misunderstood)?))
            }
            2 => Err(StoreError::EpochChanged(Epoch(from_sql(self.log_epoch))).into()),
            _ => Err(misunderstood()),
        }
    }
}

fn verdict_from_sql(verdict: i64, seq: i64) -> Option<Verdict> {
    Some(match verdict {
        0 => Verdict::New,
        1 => Verdict::Duplicate { last_seq: from_sql(seq) },
        2 => Verdict::OutOfOrder { expected: from_sql(seq) },
        3 => Verdict::Conflict,
        4 => Verdict::Fenced,
        5 => Verdict::Unknown,
        _ => return None,
    })
}
