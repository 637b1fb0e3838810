//! Foreign text in a page, and the ids that links lead to. The template escapes markup; this makes
//! visible what a browser would not show, and replaces what XML forbids.

use std::borrow::Cow;

use crate::hour::Hour;
use crate::report::log::escape;

/// The id of an hour in a map, which holes link to.
pub fn hour_id(index: usize, hour: Hour) -> String {
    format!("m{index}-{hour}")
}

/// Makes unprintable characters of a foreign text visible.
pub fn foreign(text: &str) -> Cow<'_, str> {
    // XML forbids these.
    let is_none = |c: char| matches!(c, '\u{fffe}' | '\u{ffff}');
    match escape(text) {
        text if text.contains(is_none) => Cow::Owned(text.replace(is_none, "\u{fffd}")),
        text => text,
    }
}

#[cfg(test)]
mod tests {
    use maud::html;

    use super::*;

    #[test]
    fn foreign_text_is_escaped_and_visible() {
        let hostile = "<b onclick=\"x\">&\u{1b}[2J\u{202e}\0\u{ffff}'";
        let page = html! { p title=(foreign(hostile)) { (foreign(hostile)) } }.into_string();
        let text = "&lt;b onclick=&quot;x&quot;&gt;&amp;\\u{1b}[2J\\u{202e}\\u{0}\u{fffd}'";
        assert_eq!(page, format!("<p title=\"{text}\">{text}</p>"));
    }
}
