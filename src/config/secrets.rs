//! Texts as they were typed, for messages, without what may be a password in them.

/// Whether a text may contain a password: it is a URL, or part of one.
pub fn is_secretive(text: &str) -> bool {
    let rest = text.split_once("://").map(|(_, rest)| rest);
    // If a comma or slash in a password cuts the URL short, the rest looks like a port that is not
    // a number.
    let authority =
        rest.and_then(|rest| rest.split(['/', '?', '#', ' ']).next()).unwrap_or_default();
    let port = match authority.rsplit_once(':') {
        Some((host, port)) if !host.starts_with('[') || host.ends_with(']') => port,
        _ => "",
    };
    text.contains('@') || port.len() > 5 || port.bytes().any(|b| !b.is_ascii_digit())
}

/// A text as typed, for messages, without anything that may be a password.
pub fn shown(text: &str) -> String {
    match (is_secretive(text), text.split_once("://")) {
        (false, _) => format!("{text:?}"),
        (true, Some((scheme, _))) => format!("\"{scheme}://...\""),
        (true, None) => match text.rsplit_once('@') {
            Some((_, host)) => format!("\"...@{host}\""),
            None => "the given text".into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_shown_but_a_possible_password_is_not() {
        for text in ["http://h:1337/x", "ftp://h:21", "h:80", "http://[::1]:80/", "http://[::1]"] {
            assert_eq!(shown(text), format!("{text:?}"));
        }
        for text in ["http://me:secret", "http://me:se/cret@h", "me:secret@h", "http://me:123456"] {
            let said = shown(text);
            assert!(
                !said.contains("se") && !said.contains("me") && !said.contains("123"),
                "{said}"
            );
        }
    }
}
