//! Files in the layout of COTAHIST, of our own making.

/// A record with other text from a position on, which counts from 1. Characters beyond ASCII become Latin-1.
pub(crate) fn with(mut record: Vec<u8>, position: usize, text: &str) -> Vec<u8> {
    for (at, character) in text.chars().enumerate() {
        record[position - 1 + at] = u8::try_from(character).unwrap();
    }
    record
}

pub(crate) fn header() -> Vec<u8> {
    format!("{:245}", "00COTAHIST.2003BOVESPA 20030213").into_bytes()
}

pub(crate) fn trailer(records: u64) -> Vec<u8> {
    format!("{:245}", format!("99COTAHIST.2003BOVESPA 20030213{records:011}")).into_bytes()
}

/// A share's day.
pub(crate) fn detail() -> Vec<u8> {
    let fields: [(usize, &str); 24] = [
        (1, "01"),
        (3, "20030212"),
        (11, "02"),
        (13, "TEST4"),
        (25, "010"),
        (28, "TESTE"),
        (40, "PN  EJ N1"),
        (53, "R$"),
        (57, "0000000001001"),
        (70, "0000000001020"),
        (83, "0000000000998"),
        (96, "0000000001005"),
        (109, "0000000001010"),
        (122, "0000000001009"),
        (135, "0000000001011"),
        (148, "12345"),
        (153, "000000000000678900"),
        (171, "000000000682300050"),
        (189, "0000000000000"),
        (202, "0"),
        (203, "99991231"),
        (211, "0000001"),
        (218, "0000000000000"),
        (231, "BRTESTACNPR1107"),
    ];
    fields.into_iter().fold(vec![b' '; 245], |record, (position, text)| with(record, position, text))
}

pub(crate) fn file(records: &[Vec<u8>], end: &str) -> Vec<u8> {
    records.iter().flat_map(|record| [record.as_slice(), end.as_bytes()].concat()).collect()
}
