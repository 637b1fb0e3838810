//! Foreign text in a page. That it can't be taken for markup is seen to by whatever builds the page;
//! here it loses what a browser would not show, or an XML parser not take.

use std::borrow::Cow;

use crate::report::log::escape;

/// A text from elsewhere, with all that can't be printed made visible.
pub fn foreign(text: &str) -> Cow<'_, str> {
    // XML has no such characters.
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
    fn what_is_foreign_is_text_and_can_be_seen() {
        let hostile = "<b onclick=\"x\">&\u{1b}[2J\u{202e}\0\u{ffff}'";
        let page = html! { p title=(foreign(hostile)) { (foreign(hostile)) } }.into_string();
        let text = "&lt;b onclick=&quot;x&quot;&gt;&amp;\\u{1b}[2J\\u{202e}\\u{0}\u{fffd}'";
        assert_eq!(page, format!("<p title=\"{text}\">{text}</p>"));
    }
}
