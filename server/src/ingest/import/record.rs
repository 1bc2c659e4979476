//! One line of a file in columns, split into its fields.
//!
//! A record is one line. Fields may be quoted, a quote is doubled inside quotes, and a quote that is not closed on
//! its line is a defect of that line: so a stray quote cannot swallow the rest of a file.

/// Where the fields of the last line lie. Kept between lines, so that reading one allocates nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    fields: Vec<(u32, u32)>,
    /// The line without its quotes; empty if it has none, and then fields point into the line itself.
    plain: Vec<u8>,
}

impl Record {
    /// Finds the fields of a line, without blanks around them.
    pub(super) fn split(&mut self, line: &[u8], delimiter: u8) -> Result<(), &'static str> {
        self.fields.clear();
        self.plain.clear();
        if line.contains(&b'"') {
            return self.split_quoted(line, delimiter);
        }
        let mut start = 0;
        for (at, &byte) in line.iter().enumerate() {
            if byte == delimiter {
                self.push(line, start, at);
                start = at + 1;
            }
        }
        self.push(line, start, line.len());
        Ok(())
    }

    /// How many fields the line has.
    pub(super) fn len(&self) -> usize {
        self.fields.len()
    }

    fn push(&mut self, line: &[u8], mut start: usize, mut end: usize) {
        while start < end && line[start] == b' ' {
            start += 1;
        }
        while end > start && line[end - 1] == b' ' {
            end -= 1;
        }
        self.fields.push((start as u32, end as u32));
    }

    fn split_quoted(&mut self, line: &[u8], delimiter: u8) -> Result<(), &'static str> {
        let mut rest = line;
        loop {
            while let [b' ', after @ ..] = rest {
                rest = after;
            }
            let start = self.plain.len();
            if let [b'"', after @ ..] = rest {
                rest = self.unquote(after)?;
                while let [b' ', after @ ..] = rest {
                    rest = after;
                }
            } else {
                let end = rest.iter().position(|&byte| byte == delimiter).unwrap_or(rest.len());
                if rest[..end].contains(&b'"') {
                    return Err("quote stands inside a field that does not begin with one");
                }
                self.plain.extend_from_slice(rest[..end].trim_ascii_end());
                rest = &rest[end..];
            }
            self.fields.push((start as u32, self.plain.len() as u32));
            match rest {
                [] => break,
                [byte, after @ ..] if *byte == delimiter => rest = after,
                _ => return Err("quote ends before its field does"),
            }
        }
        // Tells a line with quotes from one without, even when nothing stands between them.
        self.plain.push(delimiter);
        Ok(())
    }

    /// Copies a quoted field, and returns what follows its closing quote.
    fn unquote<'a>(&mut self, mut rest: &'a [u8]) -> Result<&'a [u8], &'static str> {
        loop {
            let end = rest.iter().position(|&byte| byte == b'"').ok_or("quote is not closed on its line")?;
            self.plain.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
            match rest {
                [b'"', after @ ..] => {
                    self.plain.push(b'"');
                    rest = after;
                }
                _ => return Ok(rest),
            }
        }
    }

    /// A field of the line that was split last.
    pub(super) fn field<'a>(&'a self, line: &'a [u8], index: usize) -> &'a [u8] {
        let (start, end) = self.fields[index];
        let bytes = if self.plain.is_empty() { line } else { &self.plain };
        &bytes[start as usize..end as usize]
    }
}
