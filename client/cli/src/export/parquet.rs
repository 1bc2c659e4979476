//! Ticks as Parquet: columns that other programs read without a word about their types.

use std::io::{self, Write};
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, FixedLenByteArray, FixedLenByteArrayType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use tapefeed_client::{Decimal, Tick};

/// Ticks of a row group: held until it is full, about 15 MB.
const GROUP_TICKS: usize = 1 << 17;

/// The columns of a file whose prices and quantities have so many decimals at most. 38 digits hold every decimal that
/// the server takes.
fn schema(price_decimals: u32, quantity_decimals: u32) -> String {
    format!(
        "message ticks {{
            REQUIRED BYTE_ARRAY venue (STRING);
            REQUIRED BYTE_ARRAY symbol (STRING);
            REQUIRED INT64 event_time (TIMESTAMP(NANOS,true));
            REQUIRED INT64 receive_time (TIMESTAMP(NANOS,true));
            REQUIRED FIXED_LEN_BYTE_ARRAY(16) price (DECIMAL(38,{price_decimals}));
            OPTIONAL FIXED_LEN_BYTE_ARRAY(16) quantity (DECIMAL(38,{quantity_decimals}));
            OPTIONAL BYTE_ARRAY side (STRING);
            OPTIONAL BYTE_ARRAY trade_id (STRING);
            REQUIRED INT64 log_seq (INTEGER(64,false));
            REQUIRED BYTE_ARRAY origin (STRING);
        }}"
    )
}

pub(super) struct Parquet<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    price_decimals: u32,
    quantity_decimals: u32,
    /// Ticks of the row group in the making.
    group: Vec<Tick>,
}

impl<W: Write + Send> Parquet<W> {
    pub(super) fn new(out: W, price_decimals: u32, quantity_decimals: u32) -> io::Result<Parquet<W>> {
        let schema = parse_message_type(&schema(price_decimals, quantity_decimals)).map_err(failed)?;
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let writer = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties)).map_err(failed)?;
        Ok(Parquet { writer, price_decimals, quantity_decimals, group: Vec::new() })
    }

    pub(super) fn write(&mut self, ticks: &[Tick]) -> io::Result<()> {
        for part in ticks.chunks(GROUP_TICKS) {
            if self.group.len() + part.len() > GROUP_TICKS {
                self.write_group()?;
            }
            self.group.extend_from_slice(part);
        }
        Ok(())
    }

    pub(super) fn end(mut self) -> io::Result<()> {
        self.write_group()?;
        let mut out = self.writer.into_inner().map_err(failed)?;
        out.flush()
    }

    fn write_group(&mut self) -> io::Result<()> {
        let ticks = std::mem::take(&mut self.group);
        if ticks.is_empty() {
            return Ok(());
        }
        let texts = |text: fn(&Tick) -> &str| ticks.iter().map(|tick| ByteArray::from(text(tick))).collect::<Vec<_>>();
        let numbers = |number: fn(&Tick) -> i64| ticks.iter().map(number).collect::<Vec<_>>();
        let prices = ticks.iter().map(|tick| units(tick.price, self.price_decimals));
        let prices = prices.collect::<io::Result<Vec<_>>>()?;
        let quantities = ticks.iter().filter_map(|tick| tick.quantity);
        let quantities = quantities.map(|quantity| units(quantity, self.quantity_decimals));
        let quantities = quantities.collect::<io::Result<Vec<_>>>()?;
        let sides = ticks.iter().filter_map(|tick| tick.side).map(|side| ByteArray::from(side.as_str()));
        let ids = ticks.iter().map(|tick| tick.trade_id.as_str()).filter(|id| !id.is_empty()).map(ByteArray::from);
        // 1 where an optional value is there.
        let levels = |there: fn(&Tick) -> bool| ticks.iter().map(|tick| i16::from(there(tick))).collect::<Vec<_>>();

        let mut group = self.writer.next_row_group().map_err(failed)?;
        put::<ByteArrayType, W>(&mut group, &texts(|tick| &tick.venue), None)?;
        put::<ByteArrayType, W>(&mut group, &texts(|tick| &tick.symbol), None)?;
        put::<Int64Type, W>(&mut group, &numbers(|tick| tick.event_time.nanos()), None)?;
        put::<Int64Type, W>(&mut group, &numbers(|tick| tick.receive_time.nanos()), None)?;
        put::<FixedLenByteArrayType, W>(&mut group, &prices, None)?;
        put::<FixedLenByteArrayType, W>(&mut group, &quantities, Some(&levels(|tick| tick.quantity.is_some())))?;
        put::<ByteArrayType, W>(&mut group, &sides.collect::<Vec<_>>(), Some(&levels(|tick| tick.side.is_some())))?;
        put::<ByteArrayType, W>(&mut group, &ids.collect::<Vec<_>>(), Some(&levels(|tick| !tick.trade_id.is_empty())))?;
        put::<Int64Type, W>(&mut group, &numbers(|tick| tick.log_seq.cast_signed()), None)?;
        put::<ByteArrayType, W>(&mut group, &texts(|tick| tick.origin.as_str()), None)?;
        group.close().map_err(failed)?;
        Ok(())
    }
}

/// Writes the next column of a row group.
fn put<T: DataType, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T::T],
    levels: Option<&[i16]>,
) -> io::Result<()> {
    let column = group.next_column().map_err(failed)?;
    let mut column = column.expect("the schema has as many columns as are written");
    column.typed::<T>().write_batch(values, levels, None).map_err(failed)?;
    column.close().map_err(failed)
}

/// A decimal in units of its column.
fn units(value: Decimal, decimals: u32) -> io::Result<FixedLenByteArray> {
    let power = decimals.cast_signed() + value.exponent();
    let power = u32::try_from(power).map_err(|_| {
        io::Error::other(format!("{value} has more decimals than the {decimals} that its instrument was said to have"))
    })?;
    // 15 digits before the point and 18 after it fit.
    let units = i128::from(value.mantissa()) * 10i128.pow(power);
    Ok(units.to_be_bytes().to_vec().into())
}

fn failed(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(error) => io::Error::other(error),
        error => io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    use parquet::file::reader::{FileReader as _, SerializedFileReader};
    use parquet::record::{Field, RowAccessor as _};
    use tapefeed_client::{Action, Origin, Side, UnixNanos};

    use super::*;

    fn tick(log_seq: u64) -> Tick {
        let bare = log_seq.is_multiple_of(3);
        Tick {
            venue: "X".into(),
            symbol: "A/B".into(),
            instrument_id: 1,
            event_time: UnixNanos(1_723_161_255_342_000_789),
            receive_time: UnixNanos(7),
            price: "-61837.63".parse().unwrap(),
            quantity: (!bare).then(|| "999999999999999".parse().unwrap()),
            side: (!bare).then_some(Side::Sell),
            trade_id: if bare { String::new() } else { log_seq.to_string() },
            log_seq,
            origin: Origin::Backfill,
            action: Action::New,
            merged_count: 1,
        }
    }

    #[test]
    fn every_value_is_read_as_it_was() {
        let file = tempfile::tempfile().unwrap();
        let mut parquet = Parquet::new(file.try_clone().unwrap(), 18, 0).unwrap();
        let count = GROUP_TICKS as u64 + 5;
        let ticks: Vec<Tick> = (1..=count).map(tick).collect();
        for part in ticks.chunks(9_999) {
            parquet.write(part).unwrap();
        }
        parquet.end().unwrap();
        let reader = SerializedFileReader::new(file).unwrap();
        assert_eq!(reader.metadata().num_row_groups(), 2);
        let mut rows = 0;
        for row in reader.get_row_iter(None).unwrap() {
            let row = row.unwrap();
            rows += 1;
            let tick = tick(rows);
            let integer = |bytes: &[u8]| bytes.iter().fold(0i128, |all, &byte| all << 8 | i128::from(byte));
            assert_eq!(row.get_string(1).unwrap(), "A/B");
            assert_eq!(row.get_long(2).unwrap(), 1_723_161_255_342_000_789);
            assert_eq!(integer(row.get_decimal(4).unwrap().data()), -6_183_763 * 10i128.pow(16));
            match (row.get_decimal(5), tick.quantity) {
                (Ok(quantity), Some(_)) => assert_eq!(integer(quantity.data()), 999_999_999_999_999),
                (found, expected) => assert!(found.is_err() && expected.is_none()),
            }
            let text = |index: usize| match row.get_column_iter().nth(index).unwrap().1 {
                Field::Str(text) => Some(text.clone()),
                Field::Null => None,
                other => panic!("{other:?}"),
            };
            assert_eq!(text(6).as_deref(), tick.side.map(|side| side.as_str()));
            assert_eq!(text(7).unwrap_or_default(), tick.trade_id);
            assert_eq!(row.get_ulong(8).unwrap(), rows);
            assert_eq!(text(9).as_deref(), Some("backfill"));
        }
        assert_eq!(rows, count);
    }

    #[test]
    fn a_price_that_is_finer_than_its_column_is_an_error() {
        let mut parquet = Parquet::new(Vec::new(), 1, 0).unwrap();
        parquet.write(&[tick(1)]).unwrap();
        assert!(parquet.end().unwrap_err().to_string().contains("-61837.63 has more decimals than the 1"));
    }
}
