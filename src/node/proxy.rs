//! Proxies from the environment, with curl's rules: `http_proxy`, `https_proxy` or `all_proxy`,
//! except for what `no_proxy` covers. Upper-case names work too.

use std::env;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ureq::{Proxy, ProxyProtocol};

use super::url::{Origin, port_in};

/// The proxies for http and https URLs.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    http: Option<Server>,
    https: Option<Server>,
    no_proxy: Vec<String>,
}

/// A proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct Server {
    /// The protocol that it speaks.
    pub protocol: ProxyProtocol,
    /// The server.
    pub origin: Origin,
    /// User name and password.
    pub login: Option<(String, String)>,
}

impl Server {
    fn parse(text: &str) -> Option<Server> {
        let proxy = Proxy::new(text).ok()?;
        let host = proxy.host().trim_start_matches('[').trim_end_matches(']');
        let secure = proxy.protocol() == ProxyProtocol::Https;
        let port = port_in(proxy.uri().authority()?.as_str(), proxy.port())?;
        let origin = Origin { secure, host: host.to_ascii_lowercase(), port };
        let part = |part: Option<&str>| part.unwrap_or_default().to_owned();
        let has_login = proxy.username().is_some() || proxy.password().is_some();
        let login = has_login.then(|| (part(proxy.username()), part(proxy.password())));
        Some(Server { protocol: proxy.protocol(), origin, login })
    }

    /// The value of the `Proxy-Authorization` header.
    pub fn authorization(&self) -> Option<String> {
        let (user, password) = self.login.as_ref()?;
        Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({:?} {})", self.protocol, self.origin.authority())
    }
}

impl Proxies {
    /// Reads the environment.
    ///
    /// # Errors
    ///
    /// Fails if a variable is not a valid proxy URL; the error names the variable.
    pub fn from_env() -> Result<Proxies, String> {
        // What is not UTF-8 must not count as unset, but as a value that is not valid.
        Proxies::read(|name| Some(env::var_os(name)?.to_string_lossy().into_owned()))
    }

    fn read(var: impl Fn(&str) -> Option<String>) -> Result<Proxies, String> {
        let var = |name: &str| {
            let value = var(name).or_else(|| var(&name.to_uppercase()));
            value.filter(|value| !value.is_empty())
        };
        let proxy_of = |own: &str| {
            let mut named = [own, "all_proxy"].into_iter().filter_map(|it| Some((it, var(it)?)));
            let Some((name, value)) = named.next() else {
                return Ok(None);
            };
            // The value may contain a password, so it isn't printed.
            let wrong = || format!("{name} in the environment is not a valid proxy URL");
            Server::parse(&value).ok_or_else(wrong).map(Some)
        };
        let no_proxy = var("no_proxy").unwrap_or_default();
        let no_proxy = no_proxy.split([',', ' ', '\t']).filter(|it| !it.is_empty());
        Ok(Proxies {
            http: proxy_of("http_proxy")?,
            https: proxy_of("https_proxy")?,
            no_proxy: no_proxy.map(str::to_ascii_lowercase).collect(),
        })
    }

    /// The proxy to use for this origin; `None` to connect directly.
    pub fn to(&self, origin: &Origin) -> Option<&Server> {
        let proxy = if origin.secure { &self.https } else { &self.http };
        let is_exempt = || self.no_proxy.iter().any(|pattern| covers(pattern, origin));
        proxy.as_ref().filter(|_| !is_exempt())
    }
}

/// Whether an entry of `no_proxy` covers an origin. An entry is a domain, which covers its subdomains
/// too and may start with a dot; an address; a network in CIDR notation; or `*`, which covers
/// everything.
fn covers(pattern: &str, origin: &Origin) -> bool {
    if pattern == "*" {
        return true;
    }
    if let Some(address) = origin.address() {
        return match pattern.split_once('/') {
            Some((network, bits)) => match (parse_ip(network), bits.parse()) {
                (Some(network), Ok(bits)) => is_in_network(address, network, bits),
                _ => false,
            },
            None => parse_ip(pattern) == Some(address),
        };
    }
    let domain = pattern.strip_prefix("*.").unwrap_or(pattern).trim_matches('.');
    let host = origin.host.trim_end_matches('.');
    let below = host.strip_suffix(domain);
    !domain.is_empty() && below.is_some_and(|below| below.is_empty() || below.ends_with('.'))
}

fn parse_ip(text: &str) -> Option<IpAddr> {
    text.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn is_in_network(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    let same = |a: u128, b: u128, width: u32| {
        bits <= width && (bits == 0 || (a ^ b) >> (width - bits) == 0)
    };
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Result<Proxies, String> {
        let find = |name: &str| variables.iter().find(|(it, _)| *it == name);
        Proxies::read(|name| find(name).map(|(_, value)| (*value).to_owned()))
    }

    fn origin(url: &str) -> Origin {
        Origin::of(&url.parse().unwrap()).unwrap()
    }

    #[test]
    fn each_kind_of_url_has_its_variable() {
        let all = proxies(&[("HTTP_PROXY", "p:3128"), ("all_proxy", "socks5h://s")]).unwrap();
        let http = all.to(&origin("http://a")).unwrap();
        assert_eq!((http.protocol, &*http.origin.authority()), (ProxyProtocol::Http, "p:3128"));
        let https = all.to(&origin("https://a")).unwrap();
        assert_eq!(
            (https.protocol, &*https.origin.authority()),
            (ProxyProtocol::Socks5h, "s:1080")
        );
        assert_eq!(proxies(&[]).unwrap().to(&origin("http://a")), None);
        let with_login = proxies(&[("http_proxy", "http://m%40e:s%3Acret@p:1")]).unwrap();
        let login = with_login.to(&origin("http://a")).unwrap().authorization().unwrap();
        assert_eq!(login, format!("Basic {}", STANDARD.encode("m@e:s:cret")));
    }

    #[test]
    fn an_invalid_proxy_is_reported_by_its_variable_only() {
        for url in
            ["foo://me:secret@p", "http://me:secret@p:1x", "p:99999", "p:0", "p:+80", "[::1]x:80"]
        {
            let error = proxies(&[("https_proxy", url)]).unwrap_err();
            assert_eq!(error, "https_proxy in the environment is not a valid proxy URL", "{url}");
        }
    }

    #[test]
    fn no_proxy_is_read_as_by_curl() {
        for (no_proxy, url, exempt) in [
            ("nodes.test", "http://a.nodes.test:1337", true),
            ("nodes.test", "http://nodes.test", true),
            (".nodes.test", "http://nodes.test", true),
            (".nodes.test", "http://a.b.nodes.test", true),
            ("*.nodes.test", "http://a.nodes.test", true),
            ("Nodes.Test", "http://A.nodes.TEST.", true),
            ("nodes.test.", "http://a.nodes.test", true),
            ("nodes.test", "http://mynodes.test", false),
            ("nodes.test", "http://nodes.test.example", false),
            ("a.nodes.test", "http://nodes.test", false),
            ("x.test, nodes.test", "http://nodes.test", true),
            ("x.test nodes.test", "http://nodes.test", true),
            ("*", "http://nodes.test", true),
            ("x.test,*", "http://127.0.0.1", true),
            ("127.0.0.1", "http://127.0.0.1:1337", true),
            ("127.0.0.0/8", "http://127.0.0.21:1337", true),
            ("127.0.0.0/8", "http://128.0.0.21:1337", false),
            ("192.168.1.0/25", "http://192.168.1.127", true),
            ("192.168.1.0/25", "http://192.168.1.128", false),
            ("0.0.0.0/0", "http://10.1.2.3", true),
            ("10.0.0.0/33", "http://10.0.0.0", false),
            ("10.0.0.0/8", "http://a.test", false),
            ("1", "http://127.0.0.1", false),
            ("::1", "http://[::1]:1337", true),
            ("[::1]", "http://[::1]:1337", true),
            ("fd00::/8", "http://[fd12::1]", true),
            ("fd00::/8", "http://[fe80::1]", false),
            ("", "http://a.test", false),
            (".", "http://a.test", false),
        ] {
            let all = proxies(&[("http_proxy", "p:1"), ("no_proxy", no_proxy)]).unwrap();
            assert_eq!(all.to(&origin(url)).is_none(), exempt, "{no_proxy} {url}");
        }
    }
}
