//! URLs of nodes and of redirects. Both are safe to print: user name and password are kept
//! separately.

use std::fmt;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{
    AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode,
};
use ureq::http::Uri;

/// The characters to encode in a component of a path. Names of segments pass unchanged.
const PATH_COMPONENT: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b':');

/// Characters that a URL can't contain, but that real redirects do.
const NOT_IN_A_URL: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// The base URL of a node, without credentials, so it is safe to print.
#[derive(Clone, PartialEq, Eq)]
pub struct NodeUrl {
    /// Scheme, host, port and path prefix, without a trailing slash.
    base: String,
    origin: Origin,
    /// Whether the URL gives a port.
    has_port: bool,
    /// The value of the `Authorization` header.
    authorization: Option<String>,
}

/// A server as far as connections are concerned: scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Whether to speak TLS.
    pub secure: bool,
    /// The name or address, in lower case and without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Origin {
    /// The origin of an http or https URL; `None` for any other URL.
    pub fn of(uri: &Uri) -> Option<Origin> {
        let secure = match uri.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let host = uri.host()?;
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let port = port_in(uri.authority()?.as_str(), if secure { 443 } else { 80 })?;
        (!host.is_empty()).then(|| Origin { secure, host: host.to_ascii_lowercase(), port })
    }

    /// The IP address, if the host is one.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Whether a request meant for this origin may go to the other: it is the same host, reached no
    /// less securely.
    pub fn is_same_host(&self, other: &Origin) -> bool {
        self.host == other.host && (other.secure || !self.secure)
    }

    /// Whether credentials for this origin may be sent to the other: it is the [same
    /// host](Self::is_same_host), and the same port or an upgrade to https.
    pub fn trusts(&self, other: &Origin) -> bool {
        let same_server = self.port == other.port || (!self.secure && other.secure);
        self.is_same_host(other) && same_server
    }

    /// Host and port, as in a URL or a `Host` header.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, port) = if self.secure { ("https", 443) } else { ("http", 80) };
        let authority = self.authority();
        let authority = if self.port == port {
            authority.rsplit_once(':').map_or("", |(host, _)| host)
        } else {
            &authority
        };
        write!(f, "{scheme}://{authority}")
    }
}

impl NodeUrl {
    /// Parses a URL such as `http://user:password@toodles:1337/prefix/`.
    ///
    /// # Errors
    ///
    /// Fails if this is not a valid URL of a node. The error is a clause that follows the URL and
    /// doesn't repeat it.
    pub fn parse(text: &str) -> Result<NodeUrl, &'static str> {
        let uri: Uri = text.parse().map_err(|_| {
            // Most other schemes are valid, but `file:///` has no host.
            if text.starts_with("file:") {
                "is not an http or https URL (a directory is given by its path)"
            } else {
                "is not a valid URL"
            }
        })?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err("is not an http or https URL");
        }
        if uri.query().is_some() || text.contains('#') {
            return Err("has a query or fragment, which a node's URL can't have");
        }
        let authority = uri.authority().ok_or("has no host")?.as_str();
        let (userinfo, host_port) = match authority.rsplit_once('@') {
            Some((userinfo, host_port)) => (Some(userinfo), host_port),
            None => (None, authority),
        };
        let port = after_host(authority);
        if port == ":" || port_in(authority, 80).is_none() {
            return Err("has no valid port");
        }
        let origin = Origin::of(&uri).ok_or("has no host")?;
        let scheme = if origin.secure { "https" } else { "http" };
        let path = uri.path().trim_end_matches('/');
        Ok(NodeUrl {
            base: format!("{scheme}://{host_port}{path}"),
            origin,
            has_port: !port.is_empty(),
            authorization: userinfo.map(basic_authorization),
        })
    }

    /// The host: `toodles`, `127.0.0.1`, `::1`.
    pub fn host(&self) -> &str {
        &self.origin.host
    }

    /// The server.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whether the URL gives a port.
    pub fn has_port(&self) -> bool {
        self.has_port
    }

    /// The value of the `Authorization` header.
    pub fn authorization(&self) -> Option<&str> {
        self.authorization.as_deref()
    }

    /// The URL of a path on the node, given by its components.
    pub fn join(&self, path: &[&str]) -> String {
        let mut url = self.base.clone();
        for component in path {
            url.push('/');
            url.extend(utf8_percent_encode(component, PATH_COMPONENT));
        }
        url
    }
}

impl fmt::Display for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

impl fmt::Debug for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeUrl({self})")
    }
}

/// What follows the host in an authority such as `user@[::1]:1337`: a colon and the port, or nothing.
fn after_host(authority: &str) -> &str {
    let server = authority.rsplit_once('@').map_or(authority, |(_, server)| server);
    match server.find(']') {
        Some(end) => &server[end + 1..],
        None => &server[server.find(':').unwrap_or(server.len())..],
    }
}

/// The port in an authority, or `default` if it has none; `None` if what follows the host is not a
/// port. ureq's parser lets anything stand there, and then takes the default.
pub fn port_in(authority: &str, default: u16) -> Option<u16> {
    match after_host(authority) {
        "" | ":" => Some(default),
        after => {
            let port = after.strip_prefix(':')?;
            let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
            port.parse().ok().filter(|port| is_number && *port > 0)
        }
    }
}

/// The value of an `Authorization` header for the user name and password of a URL, still
/// percent-encoded.
pub fn basic_authorization(userinfo: &str) -> String {
    let mut plain: Vec<u8> = percent_decode_str(userinfo).collect();
    if !userinfo.contains(':') {
        plain.push(b':');
    }
    format!("Basic {}", STANDARD.encode(plain))
}

/// The target of a redirect: the value of `Location`, resolved against the request's URL as RFC
/// 3986 (5.2) says. User name, password and fragment are dropped. `None` if the target is not an
/// http or https URL.
pub fn redirected(from: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next().unwrap_or_default();
    let location: String = utf8_percent_encode(location, NOT_IN_A_URL).collect();
    let (scheme, rest) = match location.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => (scheme.to_ascii_lowercase(), rest),
        _ => (from.scheme_str()?.to_owned(), &*location),
    };
    let has_scheme = rest.len() != location.len();
    let (authority, rest) = match rest.strip_prefix("//") {
        Some(rest) => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            (rest[..end].to_owned(), &rest[end..])
        }
        None if has_scheme => return None,
        None => (from.authority()?.to_string(), rest),
    };
    let authority = authority.rsplit_once('@').map_or(&*authority, |(_, host)| host);
    let is_elsewhere = has_scheme || location.starts_with("//");
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    let (path, query) = match path {
        "" if is_elsewhere => ("/".to_owned(), query),
        "" => (from.path().to_owned(), query.or(from.query())),
        _ if is_elsewhere || path.starts_with('/') => (without_dots(path), query),
        _ => {
            let base = from.path().rsplit_once('/').map_or("", |(start, _)| start);
            (without_dots(&format!("{base}/{path}")), query)
        }
    };
    let query = query.map_or(String::new(), |query| format!("?{query}"));
    let uri: Uri = format!("{scheme}://{authority}{path}{query}").parse().ok()?;
    Origin::of(&uri).map(|_| uri)
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

/// Removes the components `.` and `..` from a path.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut components = path.split('/').skip(1).peekable();
    while let Some(component) = components.next() {
        let is_last = components.peek().is_none();
        match component {
            "." | ".." => {
                if component == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            _ => kept.push(component),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_url_is_split_into_its_parts() {
        for (text, base, host) in [
            ("http://toodles:1337/", "http://toodles:1337", "toodles"),
            ("HTTP://toodles", "http://toodles", "toodles"),
            ("https://a.example/wub/x/", "https://a.example/wub/x", "a.example"),
            ("http://[::1]:1337", "http://[::1]:1337", "::1"),
            ("http://me:secret@a.example", "http://a.example", "a.example"),
        ] {
            let url = NodeUrl::parse(text).expect(text);
            assert_eq!((url.to_string().as_str(), url.host()), (base, host));
            assert!(!format!("{url:?}").contains("secret"));
        }
    }

    #[test]
    fn credentials_are_decoded_and_sent_as_basic_authorization() {
        let url = NodeUrl::parse("http://m%40e:s%3Acret@a").unwrap();
        assert_eq!(url.authorization.unwrap(), format!("Basic {}", STANDARD.encode("m@e:s:cret")));
        let url = NodeUrl::parse("http://me@a").unwrap();
        assert_eq!(url.authorization.unwrap(), format!("Basic {}", STANDARD.encode("me:")));
    }

    #[test]
    fn invalid_node_urls_are_refused() {
        for text in [
            "toodles",
            "ftp://a",
            "http://",
            "http:///x",
            "http://a/?x",
            "http://a/#x",
            "http://a:99999",
            "http://a b/",
            "http://a:",
            "http://me@",
            "http://a:0",
        ] {
            assert!(NodeUrl::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_encoded_as_components() {
        let url = NodeUrl::parse("http://a/p").unwrap();
        assert_eq!(
            url.join(&["files", "a/b ?#%", "é"]),
            "http://a/p/files/a%2Fb%20%3F%23%25/%C3%A9"
        );
        assert_eq!(url.join(&["00:00.0-2.0-full-_a.ts"]), "http://a/p/00:00.0-2.0-full-_a.ts");
    }

    #[test]
    fn a_place_is_printed_as_a_url() {
        for (url, printed) in [
            ("http://A:1337/x", "http://a:1337"),
            ("https://a:443/", "https://a"),
            ("http://me:secret@[::1]/x", "http://[::1]"),
        ] {
            assert_eq!(Origin::of(&url.parse().unwrap()).unwrap().to_string(), printed);
        }
    }

    #[test]
    fn credentials_are_sent_only_to_the_same_server() {
        for (from, to, same_host, trusts) in [
            ("http://a/x", "http://A/y", true, true),
            ("http://a/x", "https://a/x", true, true),
            ("http://a:1337/x", "https://a/x", true, true),
            ("https://a/x", "http://a/x", false, false),
            ("http://a/x", "http://b/x", false, false),
            ("http://a:1/x", "http://a:2/x", true, false),
        ] {
            let origin = |url: &str| Origin::of(&url.parse().unwrap()).unwrap();
            let (here, there) = (origin(from), origin(to));
            assert_eq!(here.is_same_host(&there), same_host, "{from} {to}");
            assert_eq!(here.trusts(&there), trusts, "{from} {to}");
        }
    }

    #[test]
    fn redirects_are_resolved_as_in_the_rfc() {
        // The examples of RFC 3986, 5.4, except those with other schemes or fragments.
        let base = "http://a/b/c/d;p?q".parse().unwrap();
        for (location, target) in [
            ("g", "http://a/b/c/g"),
            ("./g", "http://a/b/c/g"),
            ("g/", "http://a/b/c/g/"),
            ("/g", "http://a/g"),
            ("//g", "http://g/"),
            ("?y", "http://a/b/c/d;p?y"),
            ("g?y", "http://a/b/c/g?y"),
            ("#s", "http://a/b/c/d;p?q"),
            ("g?y#s", "http://a/b/c/g?y"),
            (";x", "http://a/b/c/;x"),
            ("g;x=1/../y", "http://a/b/c/y"),
            ("", "http://a/b/c/d;p?q"),
            (".", "http://a/b/c/"),
            ("./", "http://a/b/c/"),
            ("..", "http://a/b/"),
            ("../", "http://a/b/"),
            ("../g", "http://a/b/g"),
            ("../..", "http://a/"),
            ("../../../g", "http://a/g"),
            ("/./g", "http://a/g"),
            ("/../g", "http://a/g"),
            ("g.", "http://a/b/c/g."),
            ("..g", "http://a/b/c/..g"),
            ("./../g", "http://a/b/g"),
            ("./g/.", "http://a/b/c/g/"),
            ("g/../h", "http://a/b/c/h"),
            ("g?y/../x", "http://a/b/c/g?y/../x"),
            ("HTTPS://G/x", "https://G/x"),
            ("https://g", "https://g/"),
            ("//me:secret@g:8/x", "http://g:8/x"),
            ("/a b/é", "http://a/a%20b/%C3%A9"),
            ("/41:59.0-x", "http://a/41:59.0-x"),
            ("./41:59.0-x", "http://a/b/c/41:59.0-x"),
        ] {
            let to = redirected(&base, location).map(|uri| uri.to_string());
            assert_eq!(to.as_deref(), Some(target), "{location}");
        }
        for location in ["ftp://a/x", "http:g", "mailto:me", "http://", "//", "http://a b/"] {
            assert_eq!(redirected(&base, location), None, "{location}");
        }
    }
}
