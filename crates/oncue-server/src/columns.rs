//! Rows in columns, for people.

use std::fmt::Write as _;

/// A column: its heading, and to which side its cells go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Column {
    /// To the left.
    Text(&'static str),
    /// To the right.
    Number(&'static str),
}

impl Column {
    fn heading(self) -> &'static str {
        match self {
            Self::Text(heading) | Self::Number(heading) => heading,
        }
    }
}

/// The rows under their headings, aligned; each line ends with a line end. What could change how a terminal shows it is
/// replaced.
pub(crate) fn columns(columns: &[Column], rows: &[Vec<String>]) -> String {
    let headings = columns.iter().map(|column| column.heading().to_owned()).collect();
    let rows: Vec<Vec<String>> =
        std::iter::once(headings).chain(rows.iter().map(|row| row.iter().map(|cell| plain(cell)).collect())).collect();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns.len()).map(|column| width(column).unwrap_or(0)).collect();
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for ((cell, width), column) in row.iter().zip(&widths).zip(columns) {
            let gap = if line.is_empty() { "" } else { "  " };
            // Writing into a text cannot fail.
            let _written = match column {
                Column::Text(_) => write!(line, "{gap}{cell:<width$}"),
                Column::Number(_) => write!(line, "{gap}{cell:>width$}"),
            };
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// A text without control characters: what an event or an error holds may be anything.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { '·' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_go_left_and_numbers_right() {
        let rows = [vec!["a".to_owned(), "1,234".to_owned()], vec!["ärger\n".to_owned(), "5".to_owned()]];
        let table = columns(&[Column::Text("id"), Column::Number("lag")], &rows);
        assert_eq!(table, "id        lag\na       1,234\närger·      5\n");
    }
}
