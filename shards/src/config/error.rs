//! Mistakes in a configuration file, shown with their line and a caret.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

/// Why a configuration file cannot be used.
#[derive(Debug)]
pub enum ConfigError {
    /// It cannot be read.
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It says something wrong.
    Mistake {
        /// The file.
        path: PathBuf,
        /// What stands in it.
        text: String,
        /// What is wrong with that.
        mistake: Box<Mistake>,
    },
}

/// One mistake in the text of a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where it stands, in bytes.
    pub span: Range<usize>,
    /// What is expected and what was found.
    pub what: String,
    /// What to do.
    pub help: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, error } => {
                write!(
                    f,
                    "cannot read the configuration file {}: {error}\n  help: without --config the defaults are used; \
                     deploy/config/comsipl.toml is a file to start from",
                    path.display()
                )
            }
            Self::Mistake { path, text, mistake } => {
                let place = Place::of(text, &mistake.span);
                let gutter = " ".repeat(place.number.to_string().len());
                let indent = " ".repeat(place.column - 1);
                let carets = "^".repeat(place.width);
                writeln!(f, "{}", mistake.what.trim_end())?;
                writeln!(f, "{gutter}--> {}:{}:{}", path.display(), place.number, place.column)?;
                writeln!(f, "{gutter} |")?;
                writeln!(f, "{} | {}", place.number, place.line)?;
                writeln!(f, "{gutter} | {indent}{carets}")?;
                write!(f, "{gutter} = help: {}", mistake.help)
            }
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { error, .. } => Some(error),
            Self::Mistake { .. } => None,
        }
    }
}

/// The first line of a span, as it is shown. Number and column count from 1, column and width in characters.
struct Place<'a> {
    number: usize,
    line: &'a str,
    column: usize,
    width: usize,
}

impl<'a> Place<'a> {
    fn of(text: &'a str, span: &Range<usize>) -> Self {
        // What the parser found missing may "stand" at the very end, behind the last line break.
        let start = text.floor_char_boundary(span.start.min(text.len()));
        let end = text.floor_char_boundary(span.end.clamp(start, text.len()));
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        Self {
            number: text[..line_start].matches('\n').count() + 1,
            line: text[line_start..line_end].trim_end_matches('\r'),
            column: text[line_start..start].chars().count() + 1,
            width: text[start..end.min(line_end)].chars().count().max(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_and_caret_are_shown() {
        let text = "[server]\r\n# größer\r\nshards = 65 # zu groß\r\n";
        let at = text.find("65").unwrap();
        assert_eq!(
            show(text, at..at + 2),
            "too many\n --> comsipl.toml:3:10\n  |\n3 | shards = 65 # zu groß\n  |          ^^\n  = help: fewer"
        );
    }

    #[test]
    fn any_span_can_be_shown() {
        for text in ["", "x", "ä\nö", "a\n", "\n\n"] {
            for start in 0..6 {
                for end in 0..6 {
                    assert!(show(text, start..end).contains('^'), "{text:?} {start} {end}");
                }
            }
        }
    }

    fn show(text: &str, span: Range<usize>) -> String {
        let mistake = Mistake { span, what: "too many".to_owned(), help: "fewer".to_owned() };
        let path = PathBuf::from("comsipl.toml");
        ConfigError::Mistake { path, text: text.to_owned(), mistake: Box::new(mistake) }.to_string()
    }
}
