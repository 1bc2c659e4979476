//! B3's history of daily quotes (`COTAHIST`): fixed columns in records of 245 bytes, in Latin-1.
//!
//! The file is judged as a whole before anything is stored: a header first, a trailer last, and as many records as that
//! says. Each detail publishes a bar of its session and facts about its instrument, and is no tick.

use super::b3_trades::VENUE;
use super::calendar::{compact_date, day_number, number};
use super::error::{FileDefect, ImportError};
use super::format::{BatchBuilder, Frame, Line, Place, Reader};
use super::options::{FileFormat, Fits, ImportOptions};
use crate::domain::{Decimal, InstrumentDetails, PublishedBar, PublishedBarKey, Venue};

/// Bytes of every record, without its line break.
const RECORD_BYTES: usize = 245;

/// A field of a detail: its name in B3's layout, and its first and last position, from 1.
#[derive(Clone, Copy, Debug)]
struct Field(&'static str, usize, usize);

const DATPRE: Field = Field("DATPRE", 3, 10);
const CODBDI: Field = Field("CODBDI", 11, 12);
const CODNEG: Field = Field("CODNEG", 13, 24);
const TPMERC: Field = Field("TPMERC", 25, 27);
const NOMRES: Field = Field("NOMRES", 28, 39);
const ESPECI: Field = Field("ESPECI", 40, 49);
const PRAZOT: Field = Field("PRAZOT", 50, 52);
const MODREF: Field = Field("MODREF", 53, 56);
const PREABE: Field = Field("PREABE", 57, 69);
const PREMAX: Field = Field("PREMAX", 70, 82);
const PREMIN: Field = Field("PREMIN", 83, 95);
const PREMED: Field = Field("PREMED", 96, 108);
const PREULT: Field = Field("PREULT", 109, 121);
const PREOFC: Field = Field("PREOFC", 122, 134);
const PREOFV: Field = Field("PREOFV", 135, 147);
const TOTNEG: Field = Field("TOTNEG", 148, 152);
const QUATOT: Field = Field("QUATOT", 153, 170);
const VOLTOT: Field = Field("VOLTOT", 171, 188);
const PREEXE: Field = Field("PREEXE", 189, 201);
const INDOPC: Field = Field("INDOPC", 202, 202);
const DATVEN: Field = Field("DATVEN", 203, 210);
const FATCOT: Field = Field("FATCOT", 211, 217);
const PTOEXE: Field = Field("PTOEXE", 218, 230);
const CODISI: Field = Field("CODISI", 231, 242);
const DISMES: Field = Field("DISMES", 243, 245);

/// How many records the file has, in the trailer.
const RECORD_COUNT: Field = Field("the count of records", 32, 42);

impl Field {
    /// The field's bytes in a record.
    fn of(self, record: &[u8]) -> &[u8] {
        let Field(_, first, last) = self;
        &record[first - 1..last]
    }

    fn invalid(self, problem: impl std::fmt::Display) -> String {
        let Field(name, first, last) = self;
        format!("{name} (positions {first} to {last}): {problem}")
    }

    fn number(self, record: &[u8]) -> Result<u64, String> {
        number(self.of(record)).ok_or_else(|| self.invalid("must be digits"))
    }

    /// A number of at most five digits; `None` is left blank.
    fn small_number(self, record: &[u8]) -> Result<Option<u16>, String> {
        if self.of(record).iter().all(|&byte| byte == b' ') {
            return Ok(None);
        }
        let number = self.number(record)?;
        u16::try_from(number).map(Some).map_err(|_| self.invalid("is too large"))
    }

    fn decimal(self, record: &[u8], decimals: i32) -> Result<Decimal, String> {
        // At most 18 digits: they fit.
        Decimal::new(self.number(record)? as i64, -decimals).map_err(|problem| self.invalid(problem))
    }

    /// A price for `factor` units, as the price for one.
    fn price(self, record: &[u8], factor: u32) -> Result<Decimal, String> {
        let mut mantissa = i128::from(self.number(record)?);
        let mut exponent = -PRICE_DECIMALS;
        // The smallest power of ten that the factor divides; a factor of 3 has none, and nothing may be rounded.
        while mantissa % i128::from(factor) != 0 {
            mantissa *= 10;
            exponent -= 1;
            if exponent < -18 {
                return Err(self.invalid(format_args!("cannot be divided by {factor}, the FATCOT, exactly")));
            }
        }
        let mantissa = i64::try_from(mantissa / i128::from(factor)).map_err(|_| self.invalid("has too many digits"))?;
        Decimal::new(mantissa, exponent).map_err(|problem| self.invalid(problem))
    }

    fn day(self, record: &[u8]) -> Result<u32, String> {
        compact_date(self.of(record))
            .and_then(day_number)
            .ok_or_else(|| self.invalid("must be a day since 1970, as in 20030212"))
    }

    /// Text without the blanks that fill its field. Every byte is a character of Latin-1.
    fn text(self, record: &[u8]) -> Result<Box<str>, String> {
        let text: String = self.of(record).iter().map(|&byte| char::from(byte)).collect();
        if text.contains(char::is_control) {
            return Err(self.invalid("holds a control character"));
        }
        Ok(text.trim_matches(' ').into())
    }
}

/// Decimals of prices and of strikes in currency.
const PRICE_DECIMALS: i32 = 2;

/// Decimals of strikes in points.
const POINT_DECIMALS: i32 = 6;

/// A reader of daily quotes.
#[derive(Debug)]
pub(super) struct Cotahist {
    options: ImportOptions,
    venue: Venue,
    /// Records so far, header and trailer included.
    records: u64,
    /// Where the trailer stands, and how many records it counts.
    trailer: Option<(Place, u64)>,
}

impl Cotahist {
    pub(super) fn open(given: &ImportOptions) -> Result<Cotahist, ImportError> {
        given.refuse_unfit(FileFormat::Cotahist, Fits { symbol: false, units: false })?;
        let venue = given.venue.clone().unwrap_or_else(|| Venue::new(VENUE).expect("a valid name"));
        let options = ImportOptions {
            format: Some(FileFormat::Cotahist),
            venue: Some(venue.clone()),
            ..ImportOptions::default()
        };
        Ok(Cotahist { options, venue, records: 0, trailer: None })
    }

    fn detail(&self, record: &[u8], batch: &mut BatchBuilder) -> Result<(), String> {
        if record.len() != RECORD_BYTES || !record.starts_with(b"01") {
            return Err("not a detail of 245 bytes".to_owned());
        }
        let day = DATPRE.day(record)?;
        let market = TPMERC.small_number(record)?.ok_or_else(|| TPMERC.invalid("must be digits"))?;
        let key = PublishedBarKey { day, market, term: PRAZOT.small_number(record)?.unwrap_or(0) };
        let factor = FATCOT.number(record)?;
        let factor = u32::try_from(factor).ok().filter(|factor| *factor > 0);
        let factor = factor.ok_or_else(|| FATCOT.invalid("must not be 0"))?;
        let price = |field: Field| field.price(record, factor);
        let bar = PublishedBar {
            key,
            open: price(PREABE)?,
            high: price(PREMAX)?,
            low: price(PREMIN)?,
            average: price(PREMED)?,
            close: price(PREULT)?,
            bid: price(PREOFC)?,
            ask: price(PREOFV)?,
            trade_count: TOTNEG.number(record)?,
            quantity: QUATOT.decimal(record, 0)?,
            value: VOLTOT.decimal(record, PRICE_DECIMALS)?,
            // In the unit of the prices it is compared with.
            strike: price(PREEXE)?,
            strike_points: PTOEXE.decimal(record, POINT_DECIMALS)?,
            expiry_day: DATVEN.day(record)?,
            quote_factor: factor,
            board: CODBDI.text(record)?,
            strike_correction: INDOPC.text(record)?,
            distribution: DISMES.text(record)?,
        };
        if !CODISI.of(record).is_ascii() {
            return Err(CODISI.invalid("must be ASCII"));
        }
        let details = InstrumentDetails {
            day,
            isin: CODISI.text(record)?,
            issuer: NOMRES.text(record)?,
            share_class: ESPECI.text(record)?,
            currency: MODREF.text(record)?,
        };
        let symbol = CODNEG.of(record).trim_ascii_end();
        let instrument =
            batch.instrument(self.venue.as_str().as_bytes(), symbol).map_err(|problem| CODNEG.invalid(problem))?;
        batch.published.bars.push((instrument, bar));
        batch.published.details.push((instrument, details));
        Ok(())
    }
}

impl Reader for Cotahist {
    fn options(&self) -> &ImportOptions {
        &self.options
    }

    fn version(&self) -> u32 {
        1
    }

    fn frame(&self) -> Frame {
        Frame { header: 1, trailer: 1 }
    }

    fn line(&mut self, line: &[u8], batch: &mut BatchBuilder) -> Line {
        match self.detail(line, batch) {
            Ok(()) => Line::Published,
            Err(reason) => Line::invalid(reason),
        }
    }

    fn judges(&self) -> bool {
        true
    }

    fn judge(&mut self, line: &[u8], place: Place) -> Result<(), FileDefect> {
        if place.line == 1 && !line.starts_with(b"00") {
            return Err(place.defect("the header is missing: COTAHIST begins with a record of the type 00"));
        }
        if let Some((trailer, _)) = self.trailer {
            return Err(place.defect(format!("a record follows the trailer in line {}", trailer.line)));
        }
        if line.len() != RECORD_BYTES {
            return Err(place.defect(format!("the record has {} bytes instead of {RECORD_BYTES}", line.len())));
        }
        self.records += 1;
        match &line[..2] {
            b"00" if place.line == 1 => {}
            b"00" => return Err(place.defect("a second header: import one file at a time")),
            b"01" => {}
            b"99" => {
                let count =
                    RECORD_COUNT.number(line).map_err(|problem| place.defect(format!("the trailer: {problem}")))?;
                self.trailer = Some((place, count));
            }
            other => {
                let problem = format!(
                    "records of the type {:?} are not known: only 00, 01 and 99",
                    other.escape_ascii().to_string()
                );
                return Err(place.defect(problem));
            }
        }
        Ok(())
    }

    /// The layout does not say whether header and trailer count: either is taken.
    fn judge_end(&self) -> Result<(), FileDefect> {
        let records = grouped(self.records);
        let Some((place, count)) = self.trailer else {
            return Err(FileDefect::new(format!(
                "the trailer is missing after {records} records: the file is truncated, get it once more"
            )));
        };
        if count == self.records || count + 2 == self.records {
            return Ok(());
        }
        let told = grouped(count);
        Err(place.defect(format!(
            "the trailer counts {told} records ({count:011}), and the file has {records}: it is incomplete, get it once more"
        )))
    }
}

/// Whether a first line is certain to be of this format: the header, or another record where the header is missing.
pub(super) fn is_record(line: &[u8]) -> bool {
    let dated = |at: usize| line.get(at..at + 8).and_then(compact_date).is_some();
    line.starts_with(b"00COTAHIST")
        || (line.len() == RECORD_BYTES && line.starts_with(b"01") && dated(2))
        || (line.len() == RECORD_BYTES && line.starts_with(b"99COTAHIST"))
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests;
