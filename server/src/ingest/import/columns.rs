//! Which column of a file holds which field: by option, else by the usual names.
//!
//! A name is certain or refused: two columns that could hold a field, or a time without a unit, end the import with
//! a sentence that says which option to give.

use super::error::{FileDefect, ImportError};
use super::field::{Field, joined, names, split_unit};
use super::options::{ImportOptions, TimeUnit};
use crate::domain::Decimal;

/// Where a name comes from that all ticks need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    /// From a column.
    Column(usize),
    /// From the options, for all ticks.
    Fixed,
}

/// A column of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimeColumn {
    pub(super) column: usize,
    pub(super) unit: TimeUnit,
}

/// A column that tells the aggressor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SideColumn {
    pub(super) column: usize,
    /// It says whether the buyer was the maker, instead of naming a side.
    pub(super) buyer_is_maker: bool,
}

/// The columns of a file, found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    pub(super) count: usize,
    pub(super) event_time: TimeColumn,
    pub(super) receive_time: Option<TimeColumn>,
    pub(super) venue: Naming,
    pub(super) symbol: Naming,
    pub(super) price: usize,
    pub(super) quantity: Option<usize>,
    pub(super) side: Option<SideColumn>,
    pub(super) trade_id: Option<usize>,
}

impl Columns {
    /// Finds the columns of a header, and returns the options with everything that was found filled in.
    pub(super) fn find(header: &[String], given: &ImportOptions) -> Result<(Columns, ImportOptions), ImportError> {
        let mut found: Vec<Option<usize>> = Vec::with_capacity(Field::ALL.len());
        for field in Field::ALL {
            found.push(match given.columns.get(&field) {
                Some(name) => Some(mapped(header, field, name)?),
                None => matching(header, field, given)?,
            });
        }
        let column = |field: Field| found[field as usize];

        let mut missing = Vec::new();
        for (field, option) in [
            (Field::EventTime, false),
            (Field::Price, false),
            (Field::Venue, given.venue.is_some()),
            (Field::Symbol, given.symbol.is_some()),
        ] {
            match (column(field), option) {
                (None, false) => missing.push(field.name()),
                (Some(at), true) => return Err(given_twice(field, &header[at])),
                _ => {}
            }
        }
        let (Some(event_time), Some(price), true) =
            (column(Field::EventTime), column(Field::Price), missing.is_empty())
        else {
            return Err(columns_missing(header, &missing));
        };

        let event_time = timed(header, Field::EventTime, event_time, given.time_unit)?;
        let receive_time = match column(Field::ReceiveTime) {
            Some(at) => Some(timed(header, Field::ReceiveTime, at, given.receive_time_unit)?),
            None => None,
        };
        let naming = |field| column(field).map_or(Naming::Fixed, Naming::Column);
        let columns = Columns {
            count: header.len(),
            event_time,
            receive_time,
            venue: naming(Field::Venue),
            symbol: naming(Field::Symbol),
            price,
            quantity: column(Field::Quantity),
            side: column(Field::Side)
                .map(|at| SideColumn { column: at, buyer_is_maker: joined(&header[at]).ends_with("maker") }),
            trade_id: column(Field::TradeId),
        };

        let mut options = given.clone();
        for (field, at) in Field::ALL.into_iter().zip(&found) {
            if let Some(at) = at {
                options.columns.insert(field, header[*at].clone());
            }
        }
        options.time_unit = Some(event_time.unit);
        options.receive_time_unit = receive_time.map(|time| time.unit);
        Ok((columns, options))
    }
}

/// The column that an option names.
fn mapped(header: &[String], field: Field, name: &str) -> Result<usize, ImportError> {
    let mut places = (0..header.len()).filter(|&at| header[at] == name);
    match (places.next(), places.next()) {
        (Some(at), None) => Ok(at),
        (None, _) => Err(ImportError::Option {
            field: "options.column_mappings",
            problem: format!(
                "{} is mapped to column {name:?}, which the header does not have: it has {}",
                field.name(),
                listed(header)
            ),
        }),
        (Some(_), Some(_)) => {
            Err(FileDefect::new(format!("the header names column {name:?} twice: rename one")).into())
        }
    }
}

/// The column whose name is usual for a field, if there is one and only one.
fn matching(header: &[String], field: Field, given: &ImportOptions) -> Result<Option<usize>, ImportError> {
    let mut first: Option<usize> = None;
    for (at, name) in header.iter().enumerate() {
        let taken = given.columns.values().any(|mapped| mapped == name);
        if taken || !names(field, name) {
            continue;
        }
        if let Some(first) = first {
            return Err(FileDefect::new(format!(
                "columns {:?} and {name:?} could both hold {field}: say which with a mapping of {field}",
                header[first],
                field = field.name(),
            ))
            .into());
        }
        first = Some(at);
    }
    Ok(first)
}

fn timed(header: &[String], field: Field, column: usize, given: Option<TimeUnit>) -> Result<TimeColumn, ImportError> {
    let evident = split_unit(field, &header[column]).1;
    match given.or(evident) {
        Some(unit) => Ok(TimeColumn { column, unit }),
        None => {
            let option = match field {
                Field::ReceiveTime => "options.receive_time_unit",
                _ => "options.time_unit",
            };
            Err(ImportError::Option {
                field: option,
                problem: format!(
                    "the name of column {:?} does not say its unit: give seconds, milliseconds, microseconds, \
                     nanoseconds or text (RFC 3339)",
                    header[column]
                ),
            })
        }
    }
}

fn given_twice(field: Field, column: &str) -> ImportError {
    let option = if field == Field::Venue { "options.venue" } else { "options.symbol" };
    ImportError::Option {
        field: option,
        problem: format!("the file has a column for it, {column:?}: leave the option out, or rename the column"),
    }
}

fn columns_missing(header: &[String], missing: &[&str]) -> ImportError {
    let looks_like_data = header.iter().any(|name| name.parse::<Decimal>().is_ok());
    let advice = if looks_like_data {
        "the first line looks like data: add a line with column names before it".to_owned()
    } else {
        let by_option: Vec<&str> = missing.iter().copied().filter(|name| ["venue", "symbol"].contains(name)).collect();
        if by_option.len() == missing.len() {
            format!("give {} by option", by_option.join(" and "))
        } else {
            "map columns of other names with column_mappings; venue and symbol may be given by option".to_owned()
        }
    };
    FileDefect::at_line(
        1,
        0,
        format!("the header has no column for {}; it has {}; {advice}", missing.join(", "), listed(header)),
    )
    .into()
}

/// The names of a header for a message, bounded.
fn listed(header: &[String]) -> String {
    let mut names: Vec<String> =
        header.iter().take(16).map(|name| format!("{:?}", super::error::clipped(name, 40))).collect();
    if header.len() > 16 {
        names.push(format!("and {} more", header.len() - 16));
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Symbol, Venue};

    fn find(header: &str, given: &ImportOptions) -> Result<(Columns, ImportOptions), String> {
        let header: Vec<String> = header.split(',').map(str::to_owned).collect();
        Columns::find(&header, given).map_err(|error| error.to_string())
    }

    fn named() -> ImportOptions {
        ImportOptions {
            venue: Some(Venue::new("V").unwrap()),
            symbol: Some(Symbol::new("S").unwrap()),
            ..ImportOptions::default()
        }
    }

    #[test]
    fn usual_names_are_recognised_with_their_units() {
        use TimeUnit::*;
        let cases: &[(&str, TimeUnit)] = &[
            ("event_time_ms,price", Milliseconds),
            ("EventTimeMs,Price", Milliseconds),
            ("event time (ms),px", Milliseconds),
            ("timestamp_s,last", Seconds),
            ("ts_us,trade_price", Microseconds),
            ("time_ns,PRICE", Nanoseconds),
            ("trade-time-seconds,price", Seconds),
            ("event_time_unix_nano,price", Nanoseconds),
            ("date_millis,price", Milliseconds),
            ("exchange_timestamp_micros,price", Microseconds),
        ];
        for (header, unit) in cases {
            let (columns, options) = find(header, &named()).unwrap();
            assert_eq!(columns.event_time, TimeColumn { column: 0, unit: *unit }, "{header}");
            assert_eq!(columns.price, 1, "{header}");
            assert_eq!(options.time_unit, Some(*unit));
        }
    }

    #[test]
    fn every_field_has_its_synonyms() {
        for (header, expected) in [
            (
                "venue,symbol,trade_id,event_time_ms,receive_time_ns,price,quantity,buyer_is_maker",
                [3, 4, 0, 1, 5, 6, 7, 2],
            ),
            ("id,px,qty,ts_ms,isBuyerMaker,exchange,ticker,recv_time_us", [3, 7, 5, 6, 1, 2, 4, 0]),
            ("market,pair,time_s,local_timestamp_us,last,vol,aggressor,t", [2, 3, 0, 1, 4, 5, 6, 7]),
            (
                "amount,size_class,instrument,exchange,timestamp_us,local_time_us,tradeId,side,price",
                [4, 5, 3, 2, 8, 0, 7, 6],
            ),
        ] {
            let (columns, _) = find(header, &ImportOptions::default()).unwrap();
            let expected_side = header.split(',').nth(expected[6]).unwrap();
            assert_eq!(
                columns,
                Columns {
                    count: header.split(',').count(),
                    event_time: TimeColumn { column: expected[0], unit: columns.event_time.unit },
                    receive_time: columns.receive_time.map(|time| TimeColumn { column: expected[1], ..time }),
                    venue: Naming::Column(expected[2]),
                    symbol: Naming::Column(expected[3]),
                    price: expected[4],
                    quantity: Some(expected[5]),
                    side: Some(SideColumn {
                        column: expected[6],
                        buyer_is_maker: expected_side.to_lowercase().ends_with("maker"),
                    }),
                    trade_id: Some(expected[7]),
                },
                "{header}"
            );
        }
    }

    #[test]
    fn what_is_not_certain_is_refused_naming_the_option() {
        let map = |pairs: &[(Field, &str)]| ImportOptions {
            columns: pairs.iter().map(|(field, column)| (*field, (*column).to_owned())).collect(),
            ..named()
        };
        let cases: &[(&str, ImportOptions, &str)] = &[
            ("time,price", named(), "options.time_unit"),
            ("time_s,local_time,price", named(), "options.receive_time_unit"),
            ("times,price", named(), "no column for event_time"),
            ("time_s,qty", named(), "no column for price; it has"),
            ("DataReferencia,CodigoInstrumento", ImportOptions::default(), "event_time, price, venue, symbol"),
            ("time_s,price", ImportOptions::default(), "give venue and symbol by option"),
            ("1723161255342,61837.63,0.02", ImportOptions::default(), "first line looks like data"),
            ("time_s,ts_s,price", named(), "columns \"time_s\" and \"ts_s\" could both hold event_time"),
            ("time_s,price,price", named(), "columns \"price\" and \"price\""),
            ("time_s,price,side,is_buyer_maker", named(), "could both hold side"),
            ("time_s,price,venue", named(), "options.venue"),
            ("time_s,price,ticker", named(), "options.symbol"),
            ("time_s,price", map(&[(Field::Price, "Price")]), "column \"Price\", which the header does not have"),
            ("time_s,x,x", map(&[(Field::Price, "x")]), "column \"x\" twice"),
            ("T,price", named(), "no column for event_time"),
        ];
        for (header, given, expected) in cases {
            let error = find(header, given).unwrap_err();
            assert!(error.contains(expected), "{header}: {error}");
        }
    }

    #[test]
    fn mappings_win_over_names() {
        let given = ImportOptions {
            columns: [(Field::EventTime, "date".to_owned()), (Field::Price, "vwap".to_owned())].into(),
            time_unit: Some(TimeUnit::Text),
            ..named()
        };
        let (columns, options) = find("time,price,date,vwap", &given).unwrap();
        assert_eq!(columns.event_time, TimeColumn { column: 2, unit: TimeUnit::Text });
        assert_eq!(columns.price, 3);
        assert_eq!(options.columns, given.columns);
    }
}
