//! What files are packed in.

use std::io::{Cursor, Write as _};

use ::zip::write::SimpleFileOptions;
use ::zip::{CompressionMethod, ZipWriter};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use super::super::container::Intake;
use super::super::content::Spooled;
use super::*;

fn intake(limits: Limits) -> (Intake, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::new(folder.path().to_owned(), limits.spool_bytes);
    (Intake::new(limits, ImportOptions::default(), spool), folder)
}

/// Takes a whole upload in pieces.
fn take(bytes: &[u8], piece: usize, limits: Limits) -> Result<Spooled, ImportError> {
    let (mut intake, _folder) = intake(limits);
    for piece in bytes.chunks(piece) {
        intake.push(piece)?;
    }
    intake.finish(None)
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zip(entries: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(method);
    for (name, bytes) in entries {
        if name.ends_with('/') {
            writer.add_directory(*name, options).unwrap();
        } else {
            writer.start_file(*name, options).unwrap();
            writer.write_all(bytes).unwrap();
        }
    }
    writer.finish().unwrap().into_inner()
}

fn deflated(entries: &[(&str, &[u8])]) -> Vec<u8> {
    zip(entries, CompressionMethod::Deflated)
}

fn content_of(spooled: &Spooled) -> Vec<u8> {
    use std::io::Read as _;

    let mut bytes = Vec::new();
    spooled.file.file().read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn every_container_gives_the_same_content() {
    let plain = trades(3_000);
    let (first, second) = plain.split_at(100_000);
    let crlf: Vec<u8> = String::from_utf8(plain.clone()).unwrap().replace('\n', "\r\n").into_bytes();
    let mut members = gz(first);
    members.extend(gz(second));
    let mut empty_member = gz(&plain);
    empty_member.extend(gz(b""));
    let packed: Vec<(&str, Vec<u8>)> = vec![
        ("plain", plain.clone()),
        ("gzip", gz(&plain)),
        ("two members", members),
        ("empty member", empty_member),
        ("zip", deflated(&[("t.csv", &plain)])),
        ("stored zip", zip(&[("t.csv", &plain)], CompressionMethod::Stored)),
        (
            "zip with a resource fork",
            deflated(&[
                ("data/", b""),
                ("data/t.csv", &plain),
                ("__MACOSX/data/._t.csv", b"Mac OS X"),
                ("._t.csv", b"Mac OS X"),
                ("data/.DS_Store", b"Bud1"),
            ]),
        ),
    ];
    let digest: [u8; 32] = Sha256::digest(&plain).into();
    for (name, bytes) in packed {
        for piece in [1, 7, 1_000, 1 << 20] {
            let spooled = take(&bytes, piece, Limits::default()).unwrap();
            assert_eq!(spooled.digest, digest, "{name}");
            assert_eq!(spooled.line_count, 3_000, "{name}");
            assert!(content_of(&spooled) == plain, "{name}");
        }
    }
    let spooled = take(&crlf, 1_000, Limits::default()).unwrap();
    assert_eq!(spooled.line_count, 3_000);
    let unfinished = take(plain.trim_ascii_end(), 1_000, Limits::default()).unwrap();
    assert_eq!(unfinished.line_count, 3_000);
    let header = take(b"venue,symbol,time_s,price", 3, Limits::default()).unwrap();
    assert_eq!(header.line_count, 0);
}

#[test]
fn defects_are_named() {
    let plain = trades(3_000);
    let packed = gz(&plain);
    let mut flipped = packed.clone();
    flipped[packed.len() / 2] ^= 4;
    let mut garbage = packed.clone();
    garbage.extend_from_slice(b"garbage");
    let mut zeros = packed.clone();
    zeros.extend_from_slice(&[0; 512]);
    let archive = deflated(&[("t.csv", &plain)]);
    let mut bad_sum = archive.clone();
    let table = bad_sum.windows(4).rposition(|bytes| bytes == b"PK\x01\x02").unwrap();
    bad_sum[table + 16] ^= 1;
    let mut encrypted = archive.clone();
    encrypted[table + 8] |= 1;
    let mut foreign = archive.clone();
    foreign[table + 10] = 93;
    let mut lying = archive.clone();
    lying[table + 24] = 1;
    lying[table + 25] = 0;
    let utf16: Vec<u8> =
        std::iter::once(0xFEFFu16).chain("venue,symbol".encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", Vec::new(), "the file is empty"),
        ("three bytes", b"PK\x03".to_vec(), "control character"),
        ("empty gzip", gz(b""), "the file is empty"),
        ("gzip cut in the data", packed[..packed.len() / 2].to_vec(), "truncated or damaged"),
        ("gzip cut in the header", packed[..6].to_vec(), "truncated or damaged"),
        ("gzip cut in the checksum", packed[..packed.len() - 3].to_vec(), "truncated or damaged"),
        ("gzip with a flipped bit", flipped, "damaged"),
        ("gzip and garbage", garbage, "damaged"),
        ("gzip and zeros", zeros, "damaged"),
        ("zip cut", archive[..archive.len() - 10].to_vec(), "truncated or damaged"),
        ("zip cut short", archive[..40].to_vec(), "truncated or damaged"),
        ("zip with a wrong sum", bad_sum, "checksum is wrong"),
        ("zip that lies", lying, "larger than it says"),
        ("encrypted zip", encrypted, "\"t.csv\" is encrypted"),
        ("zip by zstd", foreign, "method 93"),
        ("zip of two", deflated(&[("a.csv", b"1"), ("b.csv", b"2")]), "\"a.csv\" and \"b.csv\""),
        ("zip of forks", deflated(&[("__MACOSX/._a.csv", b"1")]), "holds no file"),
        ("empty zip", deflated(&[]), "holds no file"),
        ("gzip in gzip", gz(&packed), "archive inside an archive"),
        ("zip in gzip", gz(&archive), "archive inside an archive"),
        ("UTF-16", utf16, "UTF-16"),
        ("zstd", b"\x28\xB5\x2F\xFDxxxx".to_vec(), "zstd"),
        (
            "two columns",
            b"DataReferencia;CodigoInstrumento\n2025-05-30;TF583R\n".to_vec(),
            "lacks columns of B3's trades: AcaoAtualizacao, PrecoNegocio",
        ),
    ];
    for (name, bytes, expected) in cases {
        for piece in [1, 1_000, 1 << 20] {
            let error = take(&bytes, piece, Limits::default()).unwrap_err();
            assert!(matches!(error, ImportError::Malformed(_)), "{name}: {error:?}");
            assert!(error.to_string().contains(expected), "{name}: {error}");
        }
    }
}

#[test]
fn every_truncation_of_an_archive_is_refused() {
    let plain = trades(4);
    for packed in [gz(&plain), deflated(&[("t.csv", &plain)])] {
        for length in 4..packed.len() {
            let error = take(&packed[..length], 1 << 20, Limits::default()).unwrap_err();
            assert!(matches!(error, ImportError::Malformed(_)), "{length}: {error:?}");
        }
    }
}

#[test]
fn damaged_archives_never_panic() {
    let plain = trades(4);
    for packed in [gz(&plain), deflated(&[("t.csv", &plain), ("._t.csv", b"x")])] {
        for at in 0..packed.len() {
            for bit in [0x01, 0xFF] {
                let mut damaged = packed.clone();
                damaged[at] ^= bit;
                let _ = take(&damaged, 1 << 20, Limits::default());
            }
        }
    }
}

#[test]
fn a_long_line_is_refused_when_it_gets_long() {
    for (header, line) in [(&b""[..], 1), (b"venue,symbol,time_s,price\nV,S,1,2\n", 3)] {
        for piece in [1_000, 64 << 10, 1 << 20] {
            let (mut intake, _folder) = intake(Limits::default());
            intake.push(header).unwrap();
            let junk = vec![b'x'; piece];
            let mut sent = 0;
            let error = loop {
                match intake.push(&junk) {
                    Ok(()) => sent += piece,
                    Err(error) => break error,
                }
            };
            assert!(sent <= 64 << 10, "{sent}");
            let ImportError::Malformed(defect) = error else { panic!("{error}") };
            assert_eq!(defect.line, Some(line));
            assert_eq!(defect.byte, Some((header.len() + (64 << 10)) as u64));
            assert!(defect.problem.contains("longer than 65536 bytes"));
        }
    }
    let longest = [b"venue,symbol,time_s,price\n".to_vec(), vec![b'x'; 64 << 10], b"\n".to_vec()].concat();
    assert_eq!(take(&longest, 1_000, Limits::default()).unwrap().line_count, 1);
}

#[test]
fn bombs_are_refused_early() {
    let mut bomb = b"venue,symbol,time_s,price\n".to_vec();
    for _ in 0..500_000 {
        bomb.extend_from_slice(b"V,S,1,2.0000000000\n");
    }
    let limits = Limits { content_bytes: 4 << 20, ..Limits::default() };
    for (packed, limits, limit) in [
        (gz(&bomb), Limits::default(), "import_ratio"),
        (deflated(&[("t.csv", &bomb)]), Limits::default(), "import_ratio"),
        (gz(&bomb), Limits { ratio: 10_000, ..limits.clone() }, "import_content_bytes"),
        (deflated(&[("t.csv", &bomb)]), limits.clone(), "import_content_bytes"),
        (bomb.clone(), limits, "import_content_bytes"),
        (bomb.clone(), Limits { upload_bytes: 1 << 20, ..Limits::default() }, "import_bytes"),
        (bomb.clone(), Limits { spool_bytes: 1 << 20, ..Limits::default() }, "import_spool_bytes"),
    ] {
        let error = take(&packed, 10_000, limits).unwrap_err();
        assert!(matches!(&error, ImportError::Limit { limit: found, .. } if *found == limit), "{limit}: {error:?}");
    }
    // A small file may be of any ratio.
    let small = [&b"venue,symbol,time_s,price\n"[..], &vec![b'\n'; 900_000]].concat();
    assert_eq!(take(&gz(&small), 1_000, Limits::default()).unwrap().line_count, 900_000);
}

#[test]
fn a_table_of_contents_that_claims_too_much_is_not_believed() {
    let mut archive = deflated(&[("t.csv", b"x")]);
    let end = archive.len() - 22;
    archive[end + 10..end + 12].copy_from_slice(&60_000u16.to_le_bytes());
    let error = take(&archive, 1 << 20, Limits::default()).unwrap_err();
    assert!(error.to_string().contains("60000 entries"), "{error}");
}

#[test]
fn an_upload_of_another_size_than_announced_is_refused() {
    let plain = trades(10);
    for (told, good) in [(plain.len() as u64, true), (plain.len() as u64 + 1, false)] {
        let (mut intake, _folder) = intake(Limits::default());
        intake.push(&plain).unwrap();
        assert_eq!(intake.finish(Some(told)).is_ok(), good);
    }
}
