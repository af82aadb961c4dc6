//! Reads a systemd environment file, so that the doctor sees what the service sees.
//! Spec: `systemd.exec(5)`, `EnvironmentFile=`.

use super::Variables;

/// Assignments in order. Blank lines and those that begin with `#` or `;` are comments; a backslash at the end of a
/// line joins it with the next; values may be quoted. Lines that are no assignment are given back as the second value.
pub(super) fn parse(text: &str) -> (Variables, Vec<String>) {
    let mut variables = Vec::new();
    let mut strange = Vec::new();
    let joined = text.replace("\\\n", "");
    for line in joined.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        match line.split_once('=') {
            Some((name, value)) if is_name(name.trim()) => {
                variables.push((name.trim().to_owned(), unquoted(value.trim())));
            }
            _ => strange.push(line.split(['=', ' ']).next().unwrap_or_default().to_owned()),
        }
    }
    (variables, strange)
}

fn is_name(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    text.bytes().next().is_some_and(is_letter)
        && text.bytes().all(|byte| is_letter(byte) || byte.is_ascii_digit())
}

/// Without one pair of quotes; in double quotes (and outside) a backslash takes the next character as it is.
fn unquoted(value: &str) -> String {
    if let Some(inner) = value.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        return inner.to_owned();
    }
    let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
    let mut out = String::with_capacity(inner.len());
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        out.extend(if letter == '\\' { letters.next() } else { Some(letter) });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_systemd_reads_it() {
        let text = "# comment\n; too\n\nA=1\nB = two words \nC=\"a \\\"b\\\" \\\\\"\nD='x\\y'\nE=long \\\nline\nF=\nnonsense\n9=x\n";
        let (variables, strange) = parse(text);
        let expected = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "a \"b\" \\"),
            ("D", "x\\y"),
            ("E", "long line"),
            ("F", ""),
        ];
        assert_eq!(variables, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(strange, ["nonsense", "9"]);
    }
}
