//! Files: containers, headers, lines.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tapefeed_proto::v1 as proto;
use tapefeed_tests::import::{self, PIECE_BYTES};
use tapefeed_tests::process;
use tonic::Code;

use super::Expected::{Refused, Rejected, Stored};
use super::{Answer, Bench, Case, Provoked, case, refused};

/// The header of these files. Columns are found by name.
pub(super) const HEADER: &str = "venue,symbol,event_time_ms,price\n";

const DEFECT: super::Expected = Refused(Code::InvalidArgument, "FILE_MALFORMED", &["run_id"]);
const DEFECT_AT_LINE: super::Expected = Refused(Code::InvalidArgument, "FILE_MALFORMED", &["run_id", "line"]);
const LIMIT: super::Expected = Refused(Code::ResourceExhausted, "LIMIT_EXCEEDED", &["limit", "max"]);

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    case("price NaN", "ImportFile", nan, Rejected(3, "price")),
    case("price of 400 digits", "ImportFile", digits, Rejected(3, "price")),
    case("price 10^15", "ImportFile", large_price, Rejected(3, "price")),
    case("time in 1969", "ImportFile", in_1969, Rejected(3, "event_time")),
    case("time in 2300", "ImportFile", in_2300, Rejected(3, "event_time")),
    case("Latin-1 bytes in a symbol", "ImportFile", latin_symbol, Rejected(3, "symbol")),
    case("Latin-1 bytes in the header", "ImportFile", latin_header, DEFECT_AT_LINE),
    case("more bad lines than allowed", "ImportFile", no_rejects_allowed, LIMIT),
    case("two-column CSV", "ImportFile", two_columns, DEFECT_AT_LINE),
    case("two-column file in a zip", "ImportFile", two_columns_in_a_zip, DEFECT_AT_LINE),
    case("truncated gzip", "ImportFile", truncated_gzip, DEFECT),
    case("truncated zip", "ImportFile", truncated_zip, DEFECT),
    case("zip with a resource fork", "ImportFile", resource_fork, Stored(2)),
    case("zip bomb", "ImportFile", zip_bomb, LIMIT),
    case("zip bomb that hides its size", "ImportFile", lying_zip_bomb, DEFECT),
    case("gzip bomb", "ImportFile", gzip_bomb, LIMIT),
    case("a single line of 1 GB", "ImportFile", line_of_a_gigabyte, DEFECT_AT_LINE),
    case("a line of 64 MiB in gzip", "ImportFile", long_line_in_gzip, DEFECT_AT_LINE),
    case("5 MiB message", "ImportFile", large_message, LIMIT),
    case(
        "another size than announced",
        "ImportFile",
        another_size,
        DEFECT),
];

fn run(answer: Result<proto::ImportFileResponse, tonic::Status>) -> Answer {
    match answer {
        Ok(answer) => Answer::Run(Box::new(answer.run.expect("an answer has its run"))),
        Err(status) => Answer::Status(status),
    }
}

async fn upload(bench: &Bench, file: impl Into<Bytes>) -> Answer {
    run(import::bytes(&bench.stubs, import::start("bad-file"), file).await)
}

/// Uploads a file with a defect: nothing of it is stored.
async fn defect(bench: &Bench, file: impl Into<Bytes>) -> Answer {
    let answer = upload(bench, file).await;
    assert_eq!(bench.count("NEW").await, 0, "nothing of the file is stored");
    answer
}

/// A good line, this line, and a good line.
fn with_line(line: &[u8]) -> Vec<u8> {
    [HEADER.as_bytes(), b"TEST,NEW,1000,1.5\n", line, b"\nTEST,NEW,2000,1.5\n"].concat()
}

/// The bad line is rejected, and the two beside it are stored.
async fn line(bench: &Bench, line: &[u8]) -> Answer {
    let answer = upload(bench, with_line(line)).await;
    assert_eq!(bench.count("NEW").await, 2, "the good lines are stored");
    answer
}

fn nan(bench: &Bench) -> Provoked<'_> {
    Box::pin(line(bench, b"TEST,NEW,1500,NaN"))
}

fn digits(bench: &Bench) -> Provoked<'_> {
    Box::pin(async {
        let text = format!("TEST,NEW,1500,{}", "9".repeat(400));
        line(bench, text.as_bytes()).await
    })
}

fn large_price(bench: &Bench) -> Provoked<'_> {
    Box::pin(line(bench, b"TEST,NEW,1500,1000000000000000"))
}

fn in_1969(bench: &Bench) -> Provoked<'_> {
    Box::pin(line(bench, b"TEST,NEW,-1000,1.5"))
}

fn in_2300(bench: &Bench) -> Provoked<'_> {
    Box::pin(line(bench, b"TEST,NEW,10413792000000,1.5"))
}

fn latin_symbol(bench: &Bench) -> Provoked<'_> {
    Box::pin(line(bench, b"TEST,caf\xe9,1500,1.5"))
}

fn latin_header(bench: &Bench) -> Provoked<'_> {
    let file = b"venue,symbol,event_time_ms,price,caf\xe9\nTEST,NEW,1000,1.5,x\n";
    Box::pin(defect(bench, &file[..]))
}

fn no_rejects_allowed(bench: &Bench) -> Provoked<'_> {
    Box::pin(async {
        let start = proto::ImportStart {
            options: Some(proto::ImportOptions { max_rejects: Some(0), ..Default::default() }),
            ..import::start("bad-file")
        };
        refused(import::bytes(&bench.stubs, start, with_line(b"TEST,NEW,1500,NaN")).await)
    })
}

fn two_columns(bench: &Bench) -> Provoked<'_> {
    Box::pin(defect(bench, &b"symbol,event_time_ms\nNEW,1000\n"[..]))
}

fn two_columns_in_a_zip(bench: &Bench) -> Provoked<'_> {
    Box::pin(async {
        let file = match process::sample_data() {
            Some(folder) => {
                std::fs::read(folder.join("b3/invalid_NEGOCIOSAVISTA.txt.zip")).expect("the sample data are complete")
            }
            None => import::zip(&[("trades.txt", b"symbol;event_time_ms\nNEW;1000\n")]),
        };
        defect(bench, file).await
    })
}

/// Three thousand good lines that do not compress to nothing.
fn trades() -> Vec<u8> {
    let mut file = HEADER.as_bytes().to_vec();
    for index in 0_u64..3_000 {
        let price = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44;
        file.extend_from_slice(format!("TEST,NEW,{},{price}\n", 1_000 + index).as_bytes());
    }
    file
}

fn truncated_gzip(bench: &Bench) -> Provoked<'_> {
    Box::pin(async {
        let mut file = import::gzip(&trades());
        file.truncate(file.len() / 2);
        defect(bench, file).await
    })
}

fn truncated_zip(bench: &Bench) -> Provoked<'_> {
    Box::pin(async {
        let mut file = import::zip(&[("trades.csv", &trades())]);
        file.truncate(file.len() / 2);
        defect(bench, file).await
    })
}

fn resource_fork(bench: &Bench) -> Provoked<'_> {
    let trades = format!("{HEADER}TEST,NEW,1000,1.5\nTEST,NEW,2000,1.5\n");
    let file = import::zip(&[
        ("trades.csv", trades.as_bytes()),
        ("__MACOSX/._trades.csv", b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X"),
    ]);
    Box::pin(upload(bench, file))
}

/// 128 MiB of good lines that are all the same.
fn bomb() -> Vec<u8> {
    let line = b"TEST,NEW,1000,1.5\n";
    let mut file = HEADER.as_bytes().to_vec();
    file.extend(line.repeat(128 * 1024 * 1024 / line.len()));
    file
}

fn zip_bomb(bench: &Bench) -> Provoked<'_> {
    let file = import::zip(&[("trades.csv", &bomb())]);
    Box::pin(defect(bench, file))
}

fn lying_zip_bomb(bench: &Bench) -> Provoked<'_> {
    let mut file = import::zip(&[("trades.csv", &bomb())]);
    // The uncompressed size stands in the entry's own header and in the table of contents.
    for (mark, offset) in [(b"PK\x03\x04", 22), (b"PK\x01\x02", 24)] {
        let begin = file.windows(4).rposition(|window| window == mark).expect("a zip has both");
        file[begin + offset..begin + offset + 4].copy_from_slice(&64_u32.to_le_bytes());
    }
    Box::pin(defect(bench, file))
}

fn gzip_bomb(bench: &Bench) -> Provoked<'_> {
    let file = import::gzip(&bomb());
    Box::pin(defect(bench, file))
}

/// 1 GB without a line break, sent piece by piece; the server answers long before the end.
fn line_of_a_gigabyte(bench: &Bench) -> Provoked<'_> {
    Box::pin(async {
        const TOTAL: u64 = 1_000_000_000;
        let sent = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&sent);
        let piece = Bytes::from(vec![b'7'; PIECE_BYTES]);
        let pieces = std::iter::once(Bytes::from_static(HEADER.as_bytes()))
            .chain(std::iter::repeat_n(piece, usize::try_from(TOTAL).expect("64 bits") / PIECE_BYTES));
        let pieces = pieces.inspect(move |piece| {
            count.fetch_add(piece.len() as u64, Ordering::Relaxed);
        });
        let start = import::start("bad-file");
        let answer = import::pieces_of(&bench.stubs, start, tokio_stream::iter(pieces)).await;
        let sent = sent.load(Ordering::Relaxed);
        assert!(sent < TOTAL / 4, "the server let {sent} bytes pass before its answer");
        run(answer)
    })
}

fn long_line_in_gzip(bench: &Bench) -> Provoked<'_> {
    let file = [HEADER.as_bytes(), &vec![b'7'; 64 * 1024 * 1024]].concat();
    let file = import::gzip(&file);
    Box::pin(defect(bench, file))
}

fn large_message(bench: &Bench) -> Provoked<'_> {
    Box::pin(async {
        let piece = Bytes::from(vec![b'7'; 5 * 1024 * 1024]);
        let start = import::start("bad-file");
        run(import::pieces_of(&bench.stubs, start, tokio_stream::once(piece)).await)
    })
}

fn another_size(bench: &Bench) -> Provoked<'_> {
    Box::pin(async {
        let start = proto::ImportStart { size_bytes: Some(1_000), ..import::start("bad-file") };
        let file = format!("{HEADER}TEST,NEW,1000,1.5\n");
        run(import::bytes(&bench.stubs, start, file).await)
    })
}
