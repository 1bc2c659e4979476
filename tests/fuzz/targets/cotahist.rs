#![no_main]

use tapefeed_server::ingest::import::FileFormat;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tapefeed_fuzz::check(FileFormat::Cotahist, bytes));
