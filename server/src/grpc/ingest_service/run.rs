//! Runs between the contract and the imports: options in, progress out, and what their errors mean to a caller.

use std::fmt::Write as _;

use tonic::Code;

use crate::domain::{Symbol, Venue};
use crate::grpc::error::Refusal;
use crate::grpc::proto::{self, ErrorReason};
use crate::grpc::violation::Violations;
use crate::ingest::IngestError;
use crate::ingest::import::{
    DEFAULT_MAX_REJECTS, Field, FileDefect, FileFormat, ImportError, ImportOptions, ImportStart, RunStatus, State,
    TimeUnit,
};
use crate::store::{Ignored, Reject, RunError, RunId};
use crate::trace;

/// Longest file name in bytes.
const MAX_FILE_NAME_BYTES: usize = 255;

/// Longest name of a column in bytes.
const MAX_COLUMN_BYTES: usize = 128;

/// Most lines that may be allowed to be rejected.
const MAX_MAX_REJECTS: u32 = 1_000_000;

/// Most bytes of a rejected line's message.
const MAX_REJECT_MESSAGE_BYTES: usize = 256;

/// Reads a run's name.
pub(super) fn run_id(text: &str) -> Result<RunId, Refusal> {
    RunId::new(text).map_err(|problem| Refusal::field("run_id", problem))
}

/// Checks the first message of an upload.
pub(super) fn start(start: proto::ImportStart) -> Result<ImportStart, Refusal> {
    let proto::ImportStart { run_id, file_name, size_bytes, options } = start;
    let mut violations = Violations::default();
    let run = violations.take("start.run_id", RunId::new(&run_id));
    if let Err(problem) = check_file_name(&file_name) {
        violations.add("start.file_name", problem);
    }
    let wire = options.unwrap_or_default();
    let max_rejects = wire.max_rejects.unwrap_or(DEFAULT_MAX_REJECTS);
    if max_rejects > MAX_MAX_REJECTS {
        violations.add("start.options.max_rejects", format_args!("must be at most {MAX_MAX_REJECTS}"));
    }
    let again = wire.again;
    let options = read_options(wire, &mut violations);
    let trace_id = trace::current().map_or_else(String::new, |here| here.trace_id.to_string());
    match (run, options) {
        (Some(run), Some(options)) if violations.is_empty() => {
            Ok(ImportStart { run, file_name, size_bytes, options, max_rejects, again, trace_id })
        }
        _ => Err(violations.refuse()),
    }
}

/// A file's name is told to people and never opened; what looks like a path is a mistake all the same.
fn check_file_name(name: &str) -> Result<(), String> {
    if name.len() > MAX_FILE_NAME_BYTES {
        return Err(format!("must be at most {MAX_FILE_NAME_BYTES} bytes"));
    }
    if name.chars().any(|character| character.is_control() || character == '/' || character == '\\') {
        return Err("must be a name without folders: no slash, backslash or control character".to_owned());
    }
    Ok(())
}

fn read_options(options: proto::ImportOptions, violations: &mut Violations) -> Option<ImportOptions> {
    let proto::ImportOptions {
        format,
        venue,
        symbol,
        column_mappings,
        time_unit,
        receive_time_unit,
        delimiter,
        max_rejects: _,
        again: _,
    } = options;
    let format = match proto::ImportFormat::try_from(format) {
        Ok(proto::ImportFormat::Unspecified) => None,
        Ok(proto::ImportFormat::Csv) => Some(FileFormat::Csv),
        Ok(proto::ImportFormat::BinanceCapture) => Some(FileFormat::BinanceCapture),
        Ok(proto::ImportFormat::JsonLines) => Some(FileFormat::JsonLines),
        Ok(proto::ImportFormat::B3Trades) => Some(FileFormat::B3Trades),
        Ok(proto::ImportFormat::Cotahist) => Some(FileFormat::Cotahist),
        Err(_) => {
            violations.add("start.options.format", "is not a format of the contract");
            None
        }
    };
    let mut read = ImportOptions { format, ..ImportOptions::default() };
    if !venue.is_empty() {
        read.venue = violations.take("start.options.venue", Venue::new(&venue));
    }
    if !symbol.is_empty() {
        read.symbol = violations.take("start.options.symbol", Symbol::new(&symbol));
    }
    for (index, proto::ColumnMapping { field, column }) in column_mappings.into_iter().enumerate() {
        let path = format!("start.options.column_mappings[{index}]");
        let Some(known) = Field::named(&field) else {
            let names = Field::ALL.map(Field::name).join(", ");
            violations.add(format_args!("{path}.field"), format_args!("must be one of {names}"));
            continue;
        };
        if column.is_empty() || column.len() > MAX_COLUMN_BYTES || column.contains(char::is_control) {
            let rule = format!("must be 1 to {MAX_COLUMN_BYTES} bytes without control characters");
            violations.add(format_args!("{path}.column"), rule);
        } else if read.columns.insert(known, column).is_some() {
            violations.add(format_args!("{path}.field"), "is mapped twice");
        }
    }
    read.time_unit = read_unit("start.options.time_unit", time_unit, violations);
    read.receive_time_unit = read_unit("start.options.receive_time_unit", receive_time_unit, violations);
    match ImportOptions::check_delimiter(&delimiter) {
        Ok(delimiter) => read.delimiter = delimiter,
        Err(problem) => violations.add("start.options.delimiter", problem),
    }
    violations.is_empty().then_some(read)
}

fn read_unit(field: &str, wire: i32, violations: &mut Violations) -> Option<TimeUnit> {
    match proto::TimeUnit::try_from(wire) {
        Ok(proto::TimeUnit::Unspecified) => None,
        Ok(proto::TimeUnit::Seconds) => Some(TimeUnit::Seconds),
        Ok(proto::TimeUnit::Milliseconds) => Some(TimeUnit::Milliseconds),
        Ok(proto::TimeUnit::Microseconds) => Some(TimeUnit::Microseconds),
        Ok(proto::TimeUnit::Nanoseconds) => Some(TimeUnit::Nanoseconds),
        Ok(proto::TimeUnit::Text) => Some(TimeUnit::Text),
        Err(_) => {
            violations.add(field, "is not a unit of the contract");
            None
        }
    }
}

impl From<TimeUnit> for proto::TimeUnit {
    fn from(unit: TimeUnit) -> proto::TimeUnit {
        match unit {
            TimeUnit::Seconds => proto::TimeUnit::Seconds,
            TimeUnit::Milliseconds => proto::TimeUnit::Milliseconds,
            TimeUnit::Microseconds => proto::TimeUnit::Microseconds,
            TimeUnit::Nanoseconds => proto::TimeUnit::Nanoseconds,
            TimeUnit::Text => proto::TimeUnit::Text,
        }
    }
}

impl From<State> for proto::IngestionRunState {
    fn from(state: State) -> proto::IngestionRunState {
        match state {
            State::Uploading => proto::IngestionRunState::Uploading,
            State::Running => proto::IngestionRunState::Running,
            State::Succeeded => proto::IngestionRunState::Succeeded,
            State::Failed => proto::IngestionRunState::Failed,
            State::Cancelled => proto::IngestionRunState::Cancelled,
        }
    }
}

/// A state to match; `None` is every state.
pub(super) fn state(wire: i32) -> Result<Option<State>, &'static str> {
    match proto::IngestionRunState::try_from(wire) {
        Ok(proto::IngestionRunState::Unspecified) => Ok(None),
        Ok(proto::IngestionRunState::Uploading) => Ok(Some(State::Uploading)),
        Ok(proto::IngestionRunState::Running) => Ok(Some(State::Running)),
        Ok(proto::IngestionRunState::Succeeded) => Ok(Some(State::Succeeded)),
        Ok(proto::IngestionRunState::Failed) => Ok(Some(State::Failed)),
        Ok(proto::IngestionRunState::Cancelled) => Ok(Some(State::Cancelled)),
        Err(_) => Err("is not a state of the contract"),
    }
}

impl From<RunStatus> for proto::IngestionRun {
    fn from(status: RunStatus) -> proto::IngestionRun {
        let RunStatus {
            id,
            state,
            file_name,
            size_bytes,
            uploaded_bytes,
            lines,
            total_lines,
            ticks,
            rejected,
            published,
            ignored,
            error,
            create_time,
            start_time,
            finish_time,
            options,
            max_rejects,
            again,
            content,
            trace_id,
            cursor,
            last_batch,
            first_rejects,
        } = status;
        proto::IngestionRun {
            run_id: id.as_str().to_owned(),
            state: proto::IngestionRunState::from(state).into(),
            file_name,
            size_bytes,
            uploaded_bytes,
            line_count: lines,
            total_line_count: total_lines,
            tick_count: ticks,
            reject_count: rejected,
            ignored_count: ignored.total(),
            error: error.map(wire_error),
            create_time: Some(create_time.into()),
            start_time: start_time.map(Into::into),
            finish_time: finish_time.map(Into::into),
            options: Some(wire_options(options, max_rejects, again)),
            digest: content.map(|(digest, _)| hex(&digest)).unwrap_or_default(),
            parser_version: content.map(|(_, version)| version.to_string()).unwrap_or_default(),
            trace_id,
            cursor: cursor.map(Into::into).unwrap_or_default(),
            last_batch_seq: last_batch,
            first_rejects: first_rejects.into_iter().map(wire_reject).collect(),
            ignored_lines: wire_ignored(&ignored),
            published_count: published,
        }
    }
}

fn wire_options(options: ImportOptions, max_rejects: Option<u32>, again: bool) -> proto::ImportOptions {
    let ImportOptions { format, venue, symbol, columns, time_unit, receive_time_unit, delimiter } = options;
    let format = match format {
        None => proto::ImportFormat::Unspecified,
        Some(FileFormat::Csv) => proto::ImportFormat::Csv,
        Some(FileFormat::BinanceCapture) => proto::ImportFormat::BinanceCapture,
        Some(FileFormat::JsonLines) => proto::ImportFormat::JsonLines,
        Some(FileFormat::B3Trades) => proto::ImportFormat::B3Trades,
        Some(FileFormat::Cotahist) => proto::ImportFormat::Cotahist,
    };
    let unit = |unit: Option<TimeUnit>| unit.map_or(proto::TimeUnit::Unspecified, proto::TimeUnit::from).into();
    proto::ImportOptions {
        format: format.into(),
        venue: venue.map(|venue| venue.as_str().to_owned()).unwrap_or_default(),
        symbol: symbol.map(|symbol| symbol.as_str().to_owned()).unwrap_or_default(),
        column_mappings: columns
            .into_iter()
            .map(|(field, column)| proto::ColumnMapping { field: field.name().to_owned(), column })
            .collect(),
        time_unit: unit(time_unit),
        receive_time_unit: unit(receive_time_unit),
        delimiter: delimiter.map(|byte| char::from(byte).to_string()).unwrap_or_default(),
        max_rejects,
        again,
    }
}

fn wire_error(error: RunError) -> proto::IngestionError {
    let RunError { reason, message } = error;
    proto::IngestionError { reason: reason_named(&reason).into(), message }
}

fn wire_ignored(Ignored(kinds): &Ignored) -> Vec<proto::IgnoredLines> {
    kinds.iter().map(|(kind, count)| proto::IgnoredLines { kind: kind.to_string(), count: *count }).collect()
}

pub(super) fn wire_reject(reject: Reject) -> proto::RejectedLine {
    let Reject { line, code, mut reason, text } = reject;
    reason.truncate(reason.floor_char_boundary(MAX_REJECT_MESSAGE_BYTES));
    proto::RejectedLine { line_number: line, reason: reason_named(&code).into(), message: reason, text }
}

/// The reason of a name as it is stored, without its prefix.
fn reason_named(name: &str) -> ErrorReason {
    ErrorReason::from_str_name(&format!("ERROR_REASON_{name}")).unwrap_or(ErrorReason::Unspecified)
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
    }
    text
}

/// What an import's error means to the caller who asked for `run`.
pub(super) fn refusal(error: ImportError, run: &RunId) -> Refusal {
    match error {
        ImportError::Malformed(defect) => {
            let mut refusal = Refusal::file_malformed(run.as_str(), &defect);
            let FileDefect { problem: _, line, byte } = defect;
            if let Some(line) = line {
                refusal = refusal.with("line", line);
            }
            if let Some(byte) = byte {
                refusal = refusal.with("byte", byte);
            }
            refusal
        }
        ImportError::Option { field, problem } => Refusal::field(format_args!("start.{field}"), problem),
        ImportError::Limit { limit, max, actual, problem } => {
            Refusal::limit_exceeded(limit, max, actual).saying(problem).with("run_id", run.as_str())
        }
        ImportError::TooManyRejects { max, rejected, ref first, .. } => {
            let mut refusal = Refusal::limit_exceeded("max_rejects", max, Some(rejected))
                .saying(error.to_string())
                .with("run_id", run.as_str());
            if let Some(Reject { line, code: _, reason, text: _ }) = first.first() {
                refusal = refusal.with("line", line).with("first_reject", reason);
            }
            refusal
        }
        ImportError::Conflict { run, problem } => Refusal::import_conflict(run.as_str(), problem),
        ImportError::Exists(run) => Refusal::run_exists(run.as_str()),
        ImportError::Superseded(run) => Refusal::import_taken_over(run.as_str()),
        ImportError::Cancelled(run) => Refusal::run_cancelled(run.as_str()),
        ImportError::Unknown(run) => Refusal::run_unknown(run.as_str()),
        ImportError::Cut(_) => Refusal::cancelled(),
        ImportError::Spool(problem) => {
            tracing::error!(%problem, "an upload cannot be kept on the disk");
            let message = "the server's disk cannot keep the upload now: try again later";
            Refusal::new(Code::Unavailable, ErrorReason::StoreUnavailable, message).retry_after(SPOOL_RETRY)
        }
        ImportError::Ingest(IngestError::QueueFull { .. }) => Refusal::queue_full(),
        ImportError::Ingest(IngestError::TooManyCorrections { kept, limit }) => {
            Refusal::limit_exceeded("corrections", limit as u64, Some(kept as u64))
        }
        ImportError::Ingest(IngestError::ShuttingDown) => Refusal::shutting_down(None),
        ImportError::Ingest(_) => Refusal::store_unavailable(),
        ImportError::Defect(problem) => Refusal::internal(problem),
    }
}

/// When an upload may be tried again after the disk refused it: about as long as others need to end.
const SPOOL_RETRY: std::time::Duration = std::time::Duration::from_secs(10);
