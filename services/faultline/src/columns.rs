//! What commands show in columns. What is in them was mostly written by somebody else: nothing of it reaches a terminal as a command.

use console::{Alignment, Term, measure_text_width, pad_str, truncate_str};

/// Between two columns; the greatest width of one; and the least of the last, which takes what is left of a line.
const GAP: usize = 2;
const WIDEST: usize = 40;
const LEAST_LAST: usize = 30;

/// A column: its title, and what is in it of each row.
pub(crate) type Column<R> = (&'static str, fn(&R) -> String);

/// Rows in columns, as wide as the terminal. A column in which nothing is, is left out; the last takes what is left of a line.
pub(crate) fn table<R>(columns: &[Column<R>], rows: &[&R]) -> String {
    table_within(columns, rows, usize::from(Term::stdout().size().1))
}

pub(crate) fn table_within<R>(columns: &[Column<R>], rows: &[&R], width: usize) -> String {
    let mut lines = vec![String::new(); rows.len() + 1];
    for (place, (title, cell)) in columns.iter().enumerate() {
        let cells: Vec<String> = rows.iter().map(|row| line(&cell(row))).collect();
        if cells.iter().all(String::is_empty) {
            continue;
        }
        let cells = std::iter::once((*title).to_owned()).chain(cells);
        let so_far = lines.iter().map(|line| measure_text_width(line)).max().unwrap_or_default();
        let is_last = place + 1 == columns.len();
        let room = if is_last { width.saturating_sub(so_far + GAP).max(LEAST_LAST) } else { WIDEST };
        for (line, cell) in lines.iter_mut().zip(cells) {
            if so_far > 0 {
                *line = pad_str(line, so_far + GAP, Alignment::Left, None).into_owned();
            }
            line.push_str(&truncate_str(&cell, room, "…"));
        }
    }
    lines.iter().filter(|line| !line.is_empty()).map(|line| format!("{}\n", line.trim_end())).collect()
}

/// A text of somebody else, in one line, without what a terminal would take for a command or that changes the order of what stands around it.
pub(crate) fn line(text: &str) -> String {
    let is_harmless = |character: char| {
        !character.is_control() && !matches!(character, '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
    };
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if is_harmless(character) {
            line.push(character);
        } else {
            line.extend(character.escape_default());
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_fits_and_is_no_command() {
        let columns: [Column<(&str, &str, &str)>; 3] =
            [("NAME", |row| row.0.into()), ("NOTE", |row| row.1.into()), ("REASON", |row| row.2.into())];
        let long = "\u{1b}[31m ".to_owned() + &"long ".repeat(100);
        let said = table_within(&columns, &[&("a", "", "short"), &("longer", "", &*long)], 60);
        assert!(said.starts_with("NAME    REASON\na       short\nlonger  \\u{1b}[31m long"), "{said}");
        assert!(said.lines().all(|line| measure_text_width(line) <= 60), "{said}");
        assert!(table_within(&columns, &[&("a", "b", "c")], 60).starts_with("NAME  NOTE  REASON\n"));
        assert_eq!(table_within(&columns, &[], 60), "");
    }
}
