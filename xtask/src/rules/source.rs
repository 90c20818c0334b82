//! Just enough of Rust's grammar to tell code from comments and literals.

/// The text with everything in comments, strings and character literals replaced by blanks; line ends stay.
pub(super) fn code_only(text: &str) -> String {
    let mut scanner = Scanner { rest: text, code: String::with_capacity(text.len()) };
    while let Some(first) = scanner.rest.chars().next() {
        let rest = scanner.rest;
        if rest.starts_with("//") {
            scanner.blank(rest.find('\n').unwrap_or(rest.len()));
        } else if rest.starts_with("/*") {
            scanner.blank(block_comment(rest));
        } else if let Some(length) = raw_string(rest).filter(|_| !scanner.inside_word()) {
            scanner.blank(length);
        } else if first == '"' {
            scanner.blank(string(rest));
        } else if let Some(length) = character(rest) {
            scanner.blank(length);
        } else {
            scanner.code.push(first);
            scanner.rest = &rest[first.len_utf8()..];
        }
    }
    scanner.code
}

struct Scanner<'a> {
    rest: &'a str,
    code: String,
}

impl Scanner<'_> {
    fn blank(&mut self, length: usize) {
        let (gone, rest) = self.rest.split_at(length);
        self.code.extend(gone.chars().map(|char| if char == '\n' { '\n' } else { ' ' }));
        self.rest = rest;
    }

    fn inside_word(&self) -> bool {
        self.code.chars().next_back().is_some_and(|char| char.is_alphanumeric() || char == '_')
    }
}

/// The length of a block comment, nested ones included.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// The length of `r"…"`, `r#"…"#`, `br"…"`, `cr"…"`.
fn raw_string(rest: &str) -> Option<usize> {
    let prefix = ["r", "br", "cr"]
        .into_iter()
        .find(|prefix| rest.strip_prefix(*prefix).is_some_and(|rest| rest.trim_start_matches('#').starts_with('"')))?;
    let hashes = rest[prefix.len()..].chars().take_while(|char| *char == '#').count();
    let start = prefix.len() + hashes + 1;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(rest[start..].find(&end).map_or(rest.len(), |at| start + at + end.len()))
}

/// The length of `"…"`.
fn string(rest: &str) -> usize {
    let mut escaped = false;
    for (at, char) in rest.char_indices().skip(1) {
        match char {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of `'x'` or `'\…'`; None for a lifetime.
fn character(rest: &str) -> Option<usize> {
    let inside = rest.strip_prefix('\'')?;
    if let Some(escape) = inside.strip_prefix('\\') {
        // The first character after the backslash may itself be a quote.
        let first = escape.chars().next()?.len_utf8();
        return Some(2 + first + escape[first..].find('\'')? + 1);
    }
    let char = inside.chars().next()?;
    inside[char.len_utf8()..].starts_with('\'').then(|| 2 + char.len_utf8())
}

/// `code` (without comments) with test modules blanked out: what follows `#[cfg(test)]` up to the end of its block.
pub(super) fn without_tests(code: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        out.push_str(&rest[..at]);
        let item = &rest[at..];
        let mut depth = 0_usize;
        let end = item
            .char_indices()
            .find(|(_, char)| match char {
                '{' => {
                    depth += 1;
                    false
                }
                '}' => {
                    depth = depth.saturating_sub(1);
                    depth == 0
                }
                ';' => depth == 0,
                _ => false,
            })
            .map_or(item.len(), |(at, char)| at + char.len_utf8());
        out.extend(item[..end].chars().map(|char| if char == '\n' { '\n' } else { ' ' }));
        rest = &item[end..];
    }
    out.push_str(rest);
    out
}

/// Whether `word` stands in `line` as a word or path of its own, not as part of a longer one.
pub(super) fn has_word(line: &str, word: &str) -> bool {
    let part_of_word = |char: char| char.is_alphanumeric() || char == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(part_of_word)
            && !line[at + word.len()..].chars().next().is_some_and(part_of_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_is_left_and_lines_stay() {
        for (text, code) in [
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c */ d */ e", "a                   e"),
            (r#"f("x\"y", 'z', '\'', b'"')"#, r"f(      ,    ,     , b   )"),
            ("r#\"a\"b\"# c", "         c"),
            ("for_'a(x: &'a str)", "for_'a(x: &'a str)"),
            ("'\\u{1F600}' x", "            x"),
        ] {
            assert_eq!(code_only(text).trim_end(), code.trim_end(), "{text}");
        }
        assert_eq!(code_only("\"a\nb\"").lines().count(), 2);
    }

    #[test]
    fn tests_are_left_out() {
        let code = "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { {} } }\nfn c() {}\n#[cfg(test)]\nmod d;\nfn e() {}";
        let left = without_tests(code);
        assert!(left.contains("fn a") && left.contains("fn c") && left.contains("fn e"));
        assert!(!left.contains("fn b") && !left.contains("mod d"));
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("std::thread::sleep(x)", "thread::sleep"));
        assert!(!has_word("asynchronous", "async") && !has_word("my_async", "async"));
    }
}
