//! The lines that a run rejected.

use futures_util::{Stream, stream};
use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::ErrorReason;

use super::run::reason;
use crate::client::ingest_service;
use crate::{Client, Error};

/// A line that could not become a tick.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RejectedLine {
    /// The number of the line in the uncompressed file, from 1.
    pub line_number: u64,
    /// The reason.
    pub reason: ErrorReason,
    /// A sentence that says what is wrong.
    pub message: String,
    /// The start of the line, at most 256 bytes, printable.
    pub text: String,
}

/// One page of the lines that a run rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RejectPage {
    /// The lines, in the order of the file.
    pub lines: Vec<RejectedLine>,
    /// The token of the next page; empty at the end.
    pub next_page_token: String,
    /// How many lines the run has rejected so far.
    pub reject_count: u64,
    /// How many of them the server keeps: the first 1,000.
    pub kept_count: u64,
}

/// Whose rejected lines to list.
#[derive(Clone, Debug)]
pub struct RejectQuery {
    run_id: String,
    page_size: i32,
    page_token: String,
}

// === impl RejectedLine ===

impl RejectedLine {
    pub(super) fn from_wire(line: proto::RejectedLine) -> RejectedLine {
        RejectedLine {
            line_number: line.line_number,
            reason: reason(line.reason),
            message: line.message,
            text: line.text,
        }
    }
}

// === impl RejectQuery ===

impl RejectQuery {
    /// The lines of a run.
    pub fn of(run_id: impl Into<String>) -> RejectQuery {
        RejectQuery { run_id: run_id.into(), page_size: 0, page_token: String::new() }
    }

    /// How many lines a page holds at most. Default 1,000; more than 10,000 counts as 10,000.
    pub fn page_size(mut self, page_size: u32) -> RejectQuery {
        self.page_size = i32::try_from(page_size).unwrap_or(i32::MAX);
        self
    }

    /// Goes on after the page that had this token.
    pub fn page_token(mut self, token: impl Into<String>) -> RejectQuery {
        self.page_token = token.into();
        self
    }
}

impl Client {
    /// Returns one page of the lines that a run rejected, in the order of the file.
    ///
    /// # Errors
    ///
    /// `RUN_UNKNOWN` if there is no such run, `PAGE_TOKEN_INVALID`.
    pub async fn list_rejects(&self, query: &RejectQuery) -> Result<RejectPage, Error> {
        let request = proto::ListRejectedLinesRequest {
            run_id: query.run_id.clone(),
            page_size: query.page_size,
            page_token: query.page_token.clone(),
        };
        let answer = self
            .call(request, |channel, request| async move { ingest_service(channel).list_rejected_lines(request).await })
            .await?;
        Ok(RejectPage {
            lines: answer.rejected_lines.into_iter().map(RejectedLine::from_wire).collect(),
            next_page_token: answer.next_page_token,
            reject_count: answer.reject_count,
            kept_count: answer.kept_count,
        })
    }

    /// Returns all pages of the lines that a run rejected, each asked for when the stream is polled.
    pub fn reject_pages(&self, query: RejectQuery) -> impl Stream<Item = Result<RejectPage, Error>> + Send + use<> {
        stream::try_unfold((self.clone(), Some(query)), |(client, query)| async move {
            let Some(query) = query else { return Ok(None) };
            let page = client.list_rejects(&query).await?;
            let next = (!page.next_page_token.is_empty()).then(|| query.page_token(page.next_page_token.clone()));
            Ok(Some((page, (client, next))))
        })
    }
}
