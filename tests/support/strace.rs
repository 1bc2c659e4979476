//! Reads what `strace` recorded of a server, and checks that no acknowledgement left before its sync.
//!
//! Expects `strace -f -ttt -yy -s 4096 -e trace=`[`CALLS`]. The order of lines is the order of events: strace stops a
//! thread before a call begins and again after it has returned, and writes the line while the thread stands still. A
//! call that others overlap has two lines, `<unfinished ...>` and `resumed`.

use std::collections::{BTreeMap, HashMap};

use prost::Message as _;
use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::publish_ticks_response::Message as Answer;

/// The calls that have to be recorded: all that write to files and sockets, and those that sync.
pub const CALLS: &str =
    "write,pwrite64,writev,pwritev,pwritev2,ftruncate,sendmsg,sendmmsg,sendto,fsync,fdatasync,sync_file_range";

/// One finished call.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) name: String,
    /// What the descriptor stands for: a path, or the two ends of a connection.
    pub(crate) file: String,
    /// What was written, as far as it was recorded.
    pub(crate) bytes: Vec<u8>,
    /// The last argument, if it is a number: where a `pwrite64` goes, how long an `ftruncate` leaves a file.
    pub(crate) last: Option<u64>,
    pub(crate) result: i64,
    /// The line on which it began.
    pub(crate) begin: usize,
    /// The line on which it had returned.
    pub(crate) end: usize,
}

/// An acknowledgement on its way out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) batch_seq: u64,
    /// The line on which the call that carries its first byte began.
    pub(crate) begin: usize,
}

/// What a trace shows.
#[derive(Debug, Default)]
pub struct Finding {
    /// The numbers of the acknowledged batches, in the order sent.
    pub acknowledged: Vec<u64>,
    /// Writes to the log between the first acknowledgement and the last.
    pub writes: usize,
    /// Syncs of the log between the first acknowledgement and the last.
    pub syncs: usize,
    /// What is wrong, in words.
    pub problems: Vec<String>,
}

/// Checks a trace of one publisher with one batch outstanding: between the last write to the log before an
/// acknowledgement and the call that sends it there must be a sync of the log that began after the write had returned
/// and had returned before the send began. `log` is the end of the path of the write-ahead log.
pub fn check(trace: &str, log: &str) -> Finding {
    let calls = read(trace);
    let mut finding = Finding::default();
    let sent = acknowledgements(&calls, &mut finding.problems);
    let of_log = |names: &[&str]| -> Vec<&Call> {
        let matches =
            |call: &&Call| call.file.ends_with(log) && names.contains(&call.name.as_str()) && call.result >= 0;
        calls.iter().filter(matches).collect()
    };
    let writes = of_log(&["write", "pwrite64", "writev", "pwritev", "pwritev2"]);
    let syncs = of_log(&["fsync", "fdatasync"]);
    let mut after = 0;
    for ack in &sent {
        finding.acknowledged.push(ack.batch_seq);
        let number = ack.batch_seq;
        let own: Vec<_> = writes.iter().filter(|write| (after..ack.begin).contains(&write.begin)).collect();
        after = ack.begin;
        finding.writes += own.len();
        let Some(last) = own.iter().map(|write| write.end).max() else {
            finding.problems.push(format!("batch {number}: acknowledged without a write"));
            continue;
        };
        if last > ack.begin {
            finding.problems.push(format!("batch {number}: acknowledged during a write"));
            continue;
        }
        let own = syncs.iter().filter(|sync| sync.begin > last && sync.end < ack.begin).count();
        finding.syncs += own;
        if own == 0 {
            finding.problems.push(format!("batch {number}: acknowledged without a sync"));
        }
    }
    finding
}

/// All finished calls that concern a descriptor.
pub(crate) fn read(trace: &str) -> Vec<Call> {
    let mut calls = Vec::new();
    let mut open: HashMap<&str, (usize, &str)> = HashMap::new();
    for (number, line) in trace.lines().enumerate() {
        let Some((thread, rest)) = line.trim_start().split_once(' ') else {
            continue;
        };
        let Some((_, text)) = rest.trim_start().split_once(' ') else {
            continue;
        };
        if let Some(begun) = text.strip_suffix(" <unfinished ...>") {
            open.insert(thread, (number, begun));
        } else if text.starts_with("<... ") {
            let Some((begin, begun)) = open.remove(thread) else {
                continue;
            };
            let Some((_, ended)) = text.split_once(" resumed>") else {
                continue;
            };
            calls.extend(call(&format!("{begun}{ended}"), begin, number));
        } else {
            calls.extend(call(text, number, number));
        }
    }
    calls
}

/// One call from its whole text, if it is one on a descriptor that returned.
fn call(text: &str, begin: usize, end: usize) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    let (rest, result) = rest.rsplit_once(" = ")?;
    let result = result.split(' ').next()?.parse().ok()?;
    let (descriptor, rest) = rest.split_once('<')?;
    if descriptor.is_empty() || !descriptor.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // The ends of a connection hold `->`, so the description ends at the bracket before the next argument.
    let end_of_file = [">, ", ">)"].into_iter().filter_map(|mark| rest.find(mark)).min()?;
    let (file, arguments) = rest.split_at(end_of_file);
    let bytes = strings(arguments);
    let last = arguments.rsplit_once(", ").and_then(|(_, last)| last.trim_end().strip_suffix(')')?.parse().ok());
    Some(Call { name: name.to_owned(), file: file.to_owned(), bytes, last, result, begin, end })
}

/// The bytes of all quoted strings.
fn strings(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some(quote) = rest.iter().position(|&byte| byte == b'"') {
        rest = &rest[quote + 1..];
        loop {
            match rest {
                [] => return bytes,
                [b'"', tail @ ..] => {
                    rest = tail;
                    break;
                }
                [b'\\', tail @ ..] => rest = unescape(tail, &mut bytes),
                [byte, tail @ ..] => {
                    bytes.push(*byte);
                    rest = tail;
                }
            }
        }
    }
    bytes
}

/// Reads one escape after its backslash, and returns what follows it.
fn unescape<'a>(text: &'a [u8], bytes: &mut Vec<u8>) -> &'a [u8] {
    let number = |digits: &[u8], base| {
        let digits = std::str::from_utf8(digits).expect("digits are text");
        u8::from_str_radix(digits, base).expect("strace writes bytes")
    };
    let octal = text.iter().take(3).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
    if octal > 0 {
        bytes.push(number(&text[..octal], 8));
        return &text[octal..];
    }
    match text {
        [b'x', high, low, tail @ ..] => {
            bytes.push(number(&[*high, *low], 16));
            tail
        }
        [letter, tail @ ..] => {
            bytes.push(match letter {
                b'n' => b'\n',
                b't' => b'\t',
                b'r' => b'\r',
                b'v' => 0x0b,
                b'f' => 0x0c,
                other => *other,
            });
            tail
        }
        [] => text,
    }
}

/// The acknowledgements in all that was sent: connections are put together, HTTP/2 and gRPC taken apart.
pub(crate) fn acknowledgements(calls: &[Call], problems: &mut Vec<String>) -> Vec<Sent> {
    let mut connections: BTreeMap<&str, Vec<(u8, usize)>> = BTreeMap::new();
    for call in calls.iter().filter(|call| call.file.starts_with("TCP") && call.result > 0) {
        let sent = call.result as usize;
        if call.bytes.len() < sent {
            problems.push(format!("line {}: a send was not recorded as a whole", call.begin + 1));
            continue;
        }
        let stream = connections.entry(&call.file).or_default();
        stream.extend(call.bytes[..sent].iter().map(|&byte| (byte, call.begin)));
    }
    let mut found: Vec<Sent> = connections.into_values().flat_map(|stream| taken_apart(&stream)).collect();
    found.sort_by_key(|sent| sent.begin);
    found
}

/// The acknowledgements on one connection.
fn taken_apart(mut stream: &[(u8, usize)]) -> Vec<Sent> {
    let mut found = Vec::new();
    let mut bodies: HashMap<u32, Vec<(u8, usize)>> = HashMap::new();
    while stream.len() >= 9 {
        let head: Vec<u8> = stream[..9].iter().map(|(byte, _)| *byte).collect();
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        if stream.len() < 9 + length {
            break;
        }
        let (frame, rest) = stream[9..].split_at(length);
        stream = rest;
        if head[3] != 0 {
            continue; // No DATA.
        }
        let id = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        let body = bodies.entry(id).or_default();
        body.extend_from_slice(frame);
        while let Some((sent, length)) = first_message(body) {
            found.extend(sent);
            body.drain(..length);
        }
    }
    found
}

/// The first whole message of a body: the acknowledgement, if it is one, and its length.
fn first_message(body: &[(u8, usize)]) -> Option<(Option<Sent>, usize)> {
    let plain: Vec<u8> = body.iter().map(|(byte, _)| *byte).collect();
    let prefix: [u8; 4] = plain.get(1..5)?.try_into().ok()?;
    let length = 5 + u32::from_be_bytes(prefix) as usize;
    let message = plain.get(5..length)?;
    let answer = proto::PublishTicksResponse::decode(message).ok().and_then(|it| it.message);
    let sent = match answer {
        Some(Answer::Ack(ack)) => Some(Sent { batch_seq: ack.batch_seq, begin: body[0].1 }),
        _ => None,
    };
    Some((sent, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAL: &str = "/tmp/a.db-wal";

    /// The text of a send of an acknowledgement, without thread and time.
    fn send(batch_seq: u64) -> String {
        let ack = proto::PublishAck { batch_seq, ..Default::default() };
        let message = proto::PublishTicksResponse { message: Some(Answer::Ack(ack)) }.encode_to_vec();
        let mut frame = vec![0, 0, message.len() as u8 + 5, 0, 0, 0, 0, 0, 1];
        frame.extend([0, 0, 0, 0, message.len() as u8]);
        frame.extend(&message);
        let text: String = frame.iter().map(|byte| format!("\\{byte:o}")).collect();
        // Octal escapes are only unambiguous here because no digit follows one.
        format!("sendto(9<TCP:[127.0.0.1:1->127.0.0.1:2]>, \"{text}\", {0}, 0, NULL, 0) = {0}", frame.len())
    }

    fn write() -> String {
        format!("pwrite64(5<{WAL}>, \"\\0\\1\"..., 4096, 32) = 4096")
    }

    fn sync() -> String {
        format!("fdatasync(5<{WAL}>) = 0")
    }

    fn found(lines: &[(u32, String)]) -> Finding {
        let line = |(thread, text): &(u32, String)| format!("{thread} 1700000000.000001 {text}\n");
        check(&lines.iter().map(line).collect::<String>(), "-wal")
    }

    #[test]
    fn a_write_then_a_sync_then_the_send_is_right() {
        let lines = [1, 2].map(|seq| [(7, write()), (7, write()), (7, sync()), (8, send(seq))]);
        let finding = found(&lines.concat());
        assert_eq!(finding.acknowledged, [1, 2]);
        assert_eq!((finding.writes, finding.syncs), (4, 2));
        assert_eq!(finding.problems, Vec::<String>::new());
    }

    #[test]
    fn calls_that_overlap_count_from_their_beginning_to_their_return() {
        let begun = |text: String, from: &str| text.replace(from, " <unfinished ...>");
        let right = [
            (7, begun(write(), ") = 4096")),
            (8, "<... epoll_wait resumed>) = 1".to_owned()),
            (7, "<... pwrite64 resumed>) = 4096".to_owned()),
            (7, begun(sync(), ") = 0")),
            (7, "<... fdatasync resumed>) = 0".to_owned()),
            (8, begun(send(1), ", 0, NULL, 0) = 18")),
            (8, "<... sendto resumed>, 0, NULL, 0) = 18".to_owned()),
        ];
        let finding = found(&right);
        assert_eq!((finding.acknowledged, finding.problems), (vec![1], vec![]));
        // The send begins before the sync has returned, and returns after it.
        let mut wrong = right.clone();
        wrong.swap(4, 5);
        assert_eq!(found(&wrong).problems, ["batch 1: acknowledged without a sync"]);
        // The sync begins before the write has returned.
        let mut wrong = right;
        wrong.swap(2, 3);
        wrong[3].0 = 7;
        wrong[2].0 = 6;
        wrong[4].0 = 6;
        assert_eq!(found(&wrong).problems, ["batch 1: acknowledged without a sync"]);
    }

    #[test]
    fn planted_sins_are_found() {
        let no_sync = "batch 1: acknowledged without a sync";
        let elsewhere = sync().replace("-wal", "");
        let failed = sync().replace("= 0", "= -1 EIO (Input/output error)");
        let cases: &[(&[String], &str)] = &[
            (&[write(), send(1), sync()], no_sync),
            (&[sync(), write(), send(1)], no_sync),
            (&[write(), sync(), write(), send(1)], no_sync),
            (&[write(), elsewhere, send(1)], no_sync),
            (&[write(), failed, send(1)], no_sync),
            (&[sync(), send(1)], "batch 1: acknowledged without a write"),
            (&[write(), sync(), send(1), send(2)], "batch 2: acknowledged without a write"),
        ];
        for (lines, problem) in cases {
            let lines: Vec<_> = lines.iter().map(|line| (7, line.clone())).collect();
            assert_eq!(found(&lines).problems, [*problem], "{lines:?}");
        }
        let during = [
            (7, write().replace(") = 4096", " <unfinished ...>")),
            (8, send(1)),
            (7, "<... pwrite64 resumed>) = 4096".to_owned()),
        ];
        assert_eq!(found(&during).problems, ["batch 1: acknowledged during a write"]);
    }

    #[test]
    fn a_send_that_was_cut_in_the_record_is_no_proof() {
        let cut = send(1).replace("\", ", "\"..., ").replace("= 18", "= 99");
        let finding = found(&[(7, write()), (7, sync()), (8, cut)]);
        assert!(finding.acknowledged.is_empty());
        assert_eq!(finding.problems.len(), 1, "{:?}", finding.problems);
    }

    #[test]
    fn escapes_are_read_as_strace_writes_them() {
        let bytes = strings(r#"[{iov_base="\0\1\"\\12345\n\0077", iov_len=2}, {iov_base="\x41b", iov_len=5}], 2"#);
        assert_eq!(bytes, b"\x00\x01\"\\12345\n\x077Ab");
    }
}
