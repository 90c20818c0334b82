//! URLs as they may be shown.

/// The URL as it may be shown: what stands before an `@` is left out, but of a path.
///
/// ```
/// use oncue::transport::without_secrets;
///
/// assert_eq!(without_secrets("nats://user:p@ss@host:4222?prefix=a"), "nats://host:4222?prefix=a");
/// assert_eq!(without_secrets("file:./ann@work"), "file:./ann@work");
/// ```
#[must_use]
pub fn without_secrets(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once(':').filter(|(scheme, _)| *scheme != "file") else {
        return url.to_owned();
    };
    let slashes = if rest.starts_with("//") { "//" } else { "" };
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}:{slashes}{host}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(without_secrets("nats://user:p@ss@host:4222?prefix=a"), "nats://host:4222?prefix=a");
        assert_eq!(without_secrets("nats://host"), "nats://host");
        assert_eq!(without_secrets("memory:"), "memory:");
        assert_eq!(without_secrets("file:///home/ann@work"), "file:///home/ann@work");
        // Not as it should be written, and secret all the same.
        assert_eq!(without_secrets("nats:user:secret@host"), "nats:host");
        assert_eq!(without_secrets("user:secret@host"), "user:host");
    }
}
