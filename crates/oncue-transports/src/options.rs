//! What the URLs of brokers say alike.

use std::{ops::RangeInclusive, path::PathBuf};

/// Partitions of topics that are made from now on, where nobody says how many.
pub(crate) const PARTITIONS: u16 = 4;
/// Partitions that a topic may have.
pub(crate) const PARTITIONS_RANGE: RangeInclusive<u16> = 1..=1024;

/// The options of a URL, by name.
pub(crate) fn options(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let options = query.split('&').filter(|option| !option.is_empty());
    options.map(|option| option.split_once('=').unwrap_or((option, "")))
}

/// A number within a range; the error says which.
pub(crate) fn number(name: &str, value: &str, range: RangeInclusive<u16>) -> Result<u16, String> {
    let number = value.parse::<u16>().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("`{name}` is a number from {} to {}, not `{value}`", range.start(), range.end()))
}

/// What names on a broker begin with.
pub(crate) fn prefix(value: &str, most_bytes: usize) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_prefix = (1..=most_bytes).contains(&value.len()) && value.bytes().all(allowed);
    let prefix = is_prefix.then(|| value.to_owned());
    prefix
        .ok_or_else(|| format!("a prefix is letters, digits, `-` and `_`, {most_bytes} of them at most, not `{value}`"))
}

/// A file that is there.
pub(crate) fn file(name: &str, value: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(value);
    if path.is_file() { Ok(path) } else { Err(format!("`{name}={value}`: there is no such file")) }
}

/// What a broker is convinced by, and how one is convinced of it. Files are PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Security {
    pub(crate) ca: Option<PathBuf>,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
}

impl Security {
    /// Takes the option `ca`, `cert` or `key`.
    pub(crate) fn take(&mut self, name: &str, value: &str) -> Result<(), String> {
        *match name {
            "ca" => &mut self.ca,
            "cert" => &mut self.cert,
            _ => &mut self.key,
        } = Some(file(name, value)?);
        Ok(())
    }

    /// Once all options are taken.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.cert.is_some() == self.key.is_some() {
            return Ok(());
        }
        Err("`cert` and `key` go together: name both".to_owned())
    }
}
