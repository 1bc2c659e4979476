//! Tables for people: aligned columns, numbers to the right, no colour.

/// How a column is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// A table: rows of cells under a header.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    widths: Vec<usize>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(columns: &[(&'static str, Align)]) -> Table {
        Table {
            columns: columns.to_vec(),
            widths: columns.iter().map(|(name, _)| name.chars().count()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row, with one cell for each column.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        for (width, cell) in self.widths.iter_mut().zip(&cells) {
            *width = (*width).max(cell.chars().count());
        }
        self.rows.push(cells);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The header line.
    pub(crate) fn header(&self) -> String {
        let names: Vec<String> = self.columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        self.line(&names)
    }

    /// The rows so far as lines, which are then forgotten. Their widths are kept: later rows line up with them.
    pub(crate) fn drain(&mut self) -> Vec<String> {
        let rows = std::mem::take(&mut self.rows);
        rows.iter().map(|row| self.line(row)).collect()
    }

    fn line(&self, cells: &[String]) -> String {
        let mut line = String::new();
        for ((cell, width), (_, align)) in cells.iter().zip(&self.widths).zip(&self.columns) {
            if !line.is_empty() {
                line.push_str("  ");
            }
            let cell = match align {
                Align::Left => format!("{cell:<width$}"),
                Align::Right => format!("{cell:>width$}"),
            };
            line.push_str(&cell);
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// Names and values below each other.
pub(crate) fn pairs(pairs: &[(&str, String)]) -> Vec<String> {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = pairs.iter();
    lines.map(|(name, value)| format!("{name:<width$}  {value}").trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_numbers_stand_to_the_right() {
        let mut table = Table::new(&[("SYMBOL", Align::Left), ("PRICE", Align::Right)]);
        table.row(vec!["A".into(), "61837.63".into()]);
        table.row(vec!["BTCUSDT".into(), "1".into()]);
        assert_eq!(table.header(), "SYMBOL      PRICE");
        assert_eq!(table.drain(), ["A        61837.63", "BTCUSDT         1"]);
        assert!(table.is_empty());
        table.row(vec!["C".into(), "2".into()]);
        assert_eq!(table.drain(), ["C               2"]);
    }

    #[test]
    fn pairs_line_up() {
        let lines = pairs(&[("mean", "1".into()), ("tick count", "2".into())]);
        assert_eq!(lines, ["mean        1", "tick count  2"]);
    }
}
