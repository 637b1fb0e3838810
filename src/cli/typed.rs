//! The command line for the HTML report, which anybody may read: ready for a shell, without users and
//! passwords.

use std::ffi::OsString;

/// Quotes a command line, whose first word is the program, and drops the logins in its URLs.
pub fn without_logins(typed: &[OsString]) -> String {
    let arguments = typed.iter().skip(1).map(|argument| {
        let argument = argument.to_string_lossy();
        let items: Vec<String> = argument.split(',').map(without_login).collect();
        quoted(&items.join(","))
    });
    ["backfiller".to_owned()].into_iter().chain(arguments).collect::<Vec<_>>().join(" ")
}

/// Replaces the user and password of a URL.
fn without_login(item: &str) -> String {
    let url = item.split_once("://");
    match url.and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1))) {
        Some((scheme, host)) => format!("{scheme}://***@{host}"),
        None => item.to_owned(),
    }
}

/// Quotes an argument for a shell, if needed.
fn quoted(argument: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:=,@%+".contains(c);
    if !argument.is_empty() && argument.chars().all(is_plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_shown_without_logins() {
        let typed = [
            "/usr/bin/backfiller",
            "-d=/srv/it's here",
            "a=http://me:p@ss@a:1337,b=HTTPS://you@b/x,@nodes,./c",
            "s",
            "",
            "2018-11-10T05..",
        ];
        let typed: Vec<OsString> = typed.into_iter().map(OsString::from).collect();
        assert_eq!(
            without_logins(&typed),
            r"backfiller '-d=/srv/it'\''s here' 'a=http://***@a:1337,b=HTTPS://***@b/x,@nodes,./c' s '' 2018-11-10T05.."
        );
    }
}
