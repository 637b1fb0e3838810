//! Parses the NODE argument: lists of nodes, their names, and which of them to use.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use log::{info, warn};

use super::list::{Item, read_list};
use super::secrets::{is_secretive, shown};
use crate::cli::{parse_count, parse_size};
use crate::node::url::NodeUrl;
use crate::schedule::MAX_NODES;
use crate::segment::is_unprintable;

/// How many nodes may be given. It is more than can be used, since this machine and duplicates are
/// dropped.
const MAX_GIVEN: usize = 4 * MAX_NODES;

/// The NODE argument for no node at all.
const NONE: &str = "none";

/// A node as given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Its name in messages.
    pub name: String,
    /// Where it is.
    pub place: NodePlace,
    /// Its own settings.
    pub settings: NodeSettings,
    /// Whether the user chose the name.
    is_named: bool,
}

/// The settings that a line in a list of nodes can have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSettings {
    /// Concurrent requests, if other than `--jobs`.
    pub jobs: Option<usize>,
    /// The limit for this node, in bytes per second.
    pub limit_rate: Option<u64>,
    /// Whether the pass is complete without it, if it is down and another node responds.
    pub optional: bool,
    /// Whether to ignore the tombstones that it lists.
    pub no_tombstones: bool,
}

impl NodeSettings {
    /// Whether a word looks like a setting.
    fn is_one(word: &str) -> bool {
        matches!(word, "optional" | "no-tombstones") || word.contains('=') && !is_place(word)
    }

    fn set(&mut self, word: &str) -> Result<()> {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let wrong = |why| anyhow!("{word:?}: {why}");
        match name {
            "jobs" => self.jobs = Some(parse_count(value, 1, 256).map_err(wrong)?.into()),
            "limit-rate" => self.limit_rate = Some(parse_size(value).map_err(wrong)?),
            "optional" if word == "optional" => self.optional = true,
            "no-tombstones" if word == "no-tombstones" => self.no_tombstones = true,
            _ => return not_a_setting(word),
        }
        Ok(())
    }
}

fn not_a_setting<T>(word: &str) -> Result<T> {
    bail!(
        "{} is not a node setting: use jobs=N, limit-rate=RATE, optional or no-tombstones",
        shown(word)
    )
}

/// The location of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodePlace {
    /// An HTTP or HTTPS server.
    Http(NodeUrl),
    /// A directory.
    Directory(PathBuf),
}

/// Parses the argument, and reads the files that it names. `none` gives no nodes.
///
/// # Errors
///
/// Fails if a node is invalid, or a file can't be read.
pub fn read_nodes(list: &str) -> Result<Vec<NodeConfig>> {
    let items = read_list("NODE", list)?;
    ensure!(items.len() <= MAX_GIVEN, "NODE: more than {MAX_GIVEN} nodes");
    match &items[..] {
        [only] if only.text == NONE => return Ok(Vec::new()),
        items if items.iter().any(|item| item.text == NONE) => {
            bail!("NODE: {NONE} stands for no node at all, so it can't be combined with others")
        }
        _ => {}
    }
    let nodes = items.iter().map(|item| {
        let node = if item.is_line() { parse_line(item) } else { parse_node(&item.text) };
        node.with_context(|| item.place("NODE"))
    });
    nodes.collect()
}

/// Parses a line in a list of nodes: `[NAME] URL [SETTING]...`.
fn parse_line(item: &Item) -> Result<NodeConfig> {
    let words: Vec<&str> = item.text.split_whitespace().collect();
    let line = || {
        let words: Vec<String> = words.iter().map(|word| shown(word)).collect();
        format!("\"{}\"", words.join(" ").replace('"', ""))
    };
    let begin = words.iter().skip(1).position(|word| NodeSettings::is_one(word));
    let (node, settings) = words.split_at(begin.map_or(words.len(), |at| at + 1));
    let mut node = match *node {
        [place] => parse_node(place),
        [place, name] if is_place(place) && !is_place(name) => {
            bail!("{} is the wrong way round: the name comes first, then the URL", line())
        }
        [place, ..] if is_place(place) => {
            bail!("{} has more than one node: write one per line", line())
        }
        [name, place] => named_node(name, place),
        [_, place, word, ..] if is_place(place) && !is_place(word) => not_a_setting(word),
        _ => bail!("{} should be a URL, or a name and a URL", line()),
    }?;
    settings.iter().try_for_each(|word| node.settings.set(word))?;
    Ok(node)
}

/// Parses `URL` or `DIRECTORY`, optionally preceded by `NAME=`.
///
/// # Errors
///
/// Fails if the text has neither form; the error suggests what may be meant, and shows no password.
pub fn parse_node(text: &str) -> Result<NodeConfig> {
    if let Some((name, place)) = text.split_once('=')
        && !name.contains(['/', ':'])
    {
        return named_node(name.trim(), place.trim());
    }
    let place = parse_place(text)?;
    let name = match &place {
        NodePlace::Http(url) => url.host().to_owned(),
        NodePlace::Directory(dir) => dir.display().to_string(),
    };
    Ok(NodeConfig { name, place, settings: NodeSettings::default(), is_named: false })
}

fn named_node(name: &str, place: &str) -> Result<NodeConfig> {
    ensure!(!name.is_empty(), "the name before = is empty");
    ensure!(!name.contains(is_unprintable), "the name {name:?} contains an unprintable character");
    let place = parse_place(place)?;
    Ok(NodeConfig {
        name: name.to_owned(),
        place,
        settings: NodeSettings::default(),
        is_named: true,
    })
}

/// Whether a word looks like a URL or a directory, valid or not.
fn is_place(text: &str) -> bool {
    text.contains("://") || is_path(text)
}

fn is_path(text: &str) -> bool {
    let begins = ["/", "./", "../"].iter().any(|start| text.starts_with(start));
    begins && !text.starts_with("//") || text == "." || text == ".."
}

fn parse_place(text: &str) -> Result<NodePlace> {
    ensure!(!text.contains('\0'), "{} contains a NUL", shown(text));
    if is_path(text) {
        ensure!(
            !Path::new(text).is_file(),
            "{text:?} is a file: @{text} reads a list of nodes from it"
        );
        return Ok(NodePlace::Directory(text.into()));
    }
    ensure!(!text.is_empty(), "the URL is empty");
    ensure!(!text.starts_with('~'), "{} is not a full path: only a shell replaces ~", shown(text));
    let words: Vec<&str> = text.split_whitespace().collect();
    if let [first, second, ..] = words[..]
        && is_place(second)
    {
        let meant = match (is_place(first), words.iter().any(|word| is_secretive(word))) {
            (true, _) => "put a comma between two nodes".to_owned(),
            (false, true) => "write a named node as NAME=URL".to_owned(),
            (false, false) => format!("did you mean {first}={second}?"),
        };
        bail!("{} contains a blank: {meant}", shown(text));
    }
    if !text.contains("://") {
        let meant = if is_secretive(text) || text.starts_with('/') {
            String::new()
        } else {
            format!(": did you mean {}?", suggestion(text))
        };
        bail!("{} is neither a URL nor a directory{meant}", shown(text));
    }
    NodeUrl::parse(text).map(NodePlace::Http).map_err(|why| anyhow!("{} {why}", shown(text)))
}

/// What a word was probably meant to be. 1337 is the default port of nodes.
fn suggestion(word: &str) -> String {
    if Path::new(word).is_file() {
        return format!("@{word}, for the list of nodes in that file");
    }
    let scheme = ["http", "https"].into_iter().find_map(|scheme| {
        let rest = word.strip_prefix(scheme)?.strip_prefix(':')?;
        Some((scheme, rest.trim_start_matches('/'))).filter(|(_, rest)| !rest.is_empty())
    });
    if let Some((scheme, rest)) = scheme.filter(|(_, rest)| !rest.starts_with(char::is_numeric)) {
        return format!("{scheme}://{rest}");
    }
    let (host, path) = word.split_at(word.find('/').unwrap_or(word.len()));
    let port = if host.contains(':') { "" } else { ":1337" };
    format!("http://{host}{port}{path}, or ./{word}")
}

/// Drops this machine, and all but the last of several nodes with one name. Nodes on the same host
/// without chosen names are distinguished by port, or by more of their URLs.
///
/// # Errors
///
/// Fails if no node is left, or there are too many.
pub fn select_nodes(given: Vec<NodeConfig>, localhost: &str) -> Result<Vec<NodeConfig>> {
    if given.is_empty() {
        return Ok(given);
    }
    let is_here = |node: &NodeConfig| node.name.eq_ignore_ascii_case(localhost);
    let (here, mut given): (Vec<_>, Vec<_>) = given.into_iter().partition(is_here);
    for node in here {
        info!("node {} is this machine (skipped)", node.name);
    }
    tell_apart(&mut given);
    let mut nodes: Vec<NodeConfig> = Vec::new();
    for node in given {
        match nodes.iter_mut().find(|known| known.name == node.name) {
            Some(known) if known.place != node.place => {
                let name = &node.name;
                warn!(
                    "node {name} is given twice: the last one is used (each needs its own NAME=URL)"
                );
                *known = node;
            }
            Some(_) => {}
            None => nodes.push(node),
        }
    }
    ensure!(
        !nodes.is_empty(),
        "NODE: every node is this machine ({localhost}; see --localhost), so there is none to \
         fetch from"
    );
    ensure!(nodes.len() <= MAX_NODES, "NODE: more than {MAX_NODES} nodes");
    Ok(nodes)
}

/// Gives longer names to nodes on the same host.
fn tell_apart(nodes: &mut [NodeConfig]) {
    let longer: [fn(&NodeUrl) -> String; 3] = [
        |url| url.origin().authority(),
        |url| url.to_string().split_once("://").map_or(String::new(), |(_, rest)| rest.to_owned()),
        NodeUrl::to_string,
    ];
    for name in longer {
        let others = nodes.to_vec();
        let is_ambiguous = |node: &NodeConfig| {
            others.iter().any(|other| other.name == node.name && other.place != node.place)
        };
        for node in nodes.iter_mut().filter(|node| !node.is_named && is_ambiguous(node)) {
            if let NodePlace::Http(url) = &node.place {
                node.name = name(url);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(list: &str) -> Result<Vec<NodeConfig>> {
        read_nodes(list)
    }

    fn names(list: &str) -> Vec<String> {
        read(list).unwrap().into_iter().map(|node| node.name).collect()
    }

    fn wrong(list: &str) -> String {
        format!("{:#}", read(list).expect_err(list))
    }

    #[test]
    fn a_node_is_named_by_its_host_by_default() {
        assert_eq!(names("http://toodles:1337,https://a.example/x"), ["toodles", "a.example"]);
        assert_eq!(names("a=http://127.0.0.1:1 , b=/mnt/disk"), ["a", "b"]);
        assert_eq!(names("/mnt/disk,./copy,.,.."), ["/mnt/disk", "./copy", ".", ".."]);
        assert_eq!(names("http://a/b=c"), ["a"]);
        assert_eq!(names("/mnt/my disk"), ["/mnt/my disk"]);
    }

    #[test]
    fn an_invalid_node_gets_a_helpful_error() {
        for (list, said) in [
            ("toodles", "did you mean http://toodles:1337, or ./toodles?"),
            ("toodles/a", "did you mean http://toodles:1337/a, or ./toodles/a?"),
            ("toodles:80", "did you mean http://toodles:80, "),
            ("http:80", "did you mean http://http:80, "),
            ("http:/h:1337", "did you mean http://h:1337?"),
            ("https:h", "did you mean https://h?"),
            ("Cargo.toml", "did you mean @Cargo.toml, "),
            ("./Cargo.toml", "@./Cargo.toml reads a list"),
            ("http://a:1 http://b:2", "put a comma between two nodes"),
            ("a http://a:1", "did you mean a=http://a:1?"),
            ("", "empty entry"),
            ("http://a,", "empty entry"),
            ("=http://a", "empty"),
            ("a=", "empty"),
            ("none,http://a", "so it can't be combined with others"),
            ("ftp://a", "\"ftp://a\" is not an http or https URL"),
            ("file:///mnt/disk", "\"file:///mnt/disk\" is not an http or https URL"),
            ("~/disk", "\"~/disk\" is not a full path: only a shell replaces ~"),
            ("http://h:99999", "\"http://h:99999\" has no valid port"),
            ("http://h:+80", "has no valid port"),
            ("http://[::1]x:80", "has no valid port"),
            ("@/does/not/exist", "/does/not/exist"),
        ] {
            assert!(wrong(list).contains(said), "{list}: {}", wrong(list));
        }
    }

    #[test]
    fn no_error_shows_a_password() {
        for list in [
            "ftp://me:secret@a",
            "http://me:se,cret@h",
            "me:secret@h:1337",
            "//me:secret@h",
            "http://me:secret",
            "http:/me:secret@h",
            "a=ftp://me:secret@h",
            "http://me:secret@h http://b",
            "a http://me:secret@h",
        ] {
            let said = wrong(list);
            assert!(
                !said.contains("se,") && !said.contains("secret") && !said.contains("me:"),
                "{said}"
            );
        }
    }

    fn selected(list: &str) -> Vec<String> {
        let nodes = select_nodes(read(list).unwrap(), "here").unwrap();
        let shown = nodes.iter().map(|node| match &node.place {
            NodePlace::Http(url) => format!("{} {url}", node.name),
            NodePlace::Directory(_) => unreachable!(),
        });
        shown.collect()
    }

    #[test]
    fn the_last_node_of_a_name_is_used_and_this_machine_is_skipped() {
        let nodes = selected("a=http://a:1,http://b,a=http://a:2,here=http://c,http://here:2");
        assert_eq!(nodes, ["a http://a:2", "b http://b"]);
        assert!(select_nodes(read("here=http://c").unwrap(), "here").is_err());
    }

    #[test]
    fn nodes_on_one_host_get_different_names() {
        for (list, names) in [
            ("http://a:1,http://b:1,http://a:2", &["a:1", "b", "a:2"][..]),
            ("http://a:1,http://a:1", &["a"]),
            ("http://[::1]:1,http://[::1]:2", &["[::1]:1", "[::1]:2"]),
            ("a=http://a:1,http://a:2", &["a", "a:2"]),
            ("http://me:one@a,http://me:two@a", &["http://a"]),
        ] {
            let nodes = selected(list);
            let shown: Vec<&str> =
                nodes.iter().map(|node| node.split_once(' ').unwrap().0).collect();
            assert_eq!(shown, names);
        }
    }

    #[test]
    fn lines_of_a_list_are_parsed() {
        let line = |text: &str| {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("nodes");
            std::fs::write(&file, text).unwrap();
            let nodes = read(&format!("@{}", file.display()));
            nodes.map_err(|e| format!("{e:#}"))
        };
        let nodes = line("# ours\n\na http://127.0.0.1:1 # a comment\nhttp://b\n").unwrap();
        assert_eq!(nodes.iter().map(|node| &*node.name).collect::<Vec<_>>(), ["a", "b"]);
        let text = "a http://a jobs=2 optional limit-rate=1M # slow\n/mnt/disk jobs=1\nb http://b";
        let nodes: Vec<_> = line(text).unwrap().into_iter().map(|node| node.settings).collect();
        assert_eq!((nodes[0].jobs, nodes[0].limit_rate), (Some(2), Some(1 << 20)));
        assert!(nodes[0].optional && nodes[1].jobs == Some(1) && !nodes[1].optional);
        assert_eq!(nodes[2], NodeSettings::default());
        for (text, said) in [
            ("a http://a jobs=0", "\"jobs=0\": expected a number from 1 to 256"),
            ("a http://a limit-rate=fast", "\"limit-rate=fast\": expected a number of bytes"),
            ("a http://a optional=no", "\"optional=no\" is not a node setting"),
            ("a http://a optional jbos", "\"jbos\" is not a node setting"),
            ("http://a:1 a", "line 1: \"http://a:1 a\" is the wrong way round"),
            ("\nhttp://me:secret@a:1 a", "line 2: \"http://... a\" is the wrong way round"),
            ("http://a http://b", "has more than one node: write one per line"),
            ("a b http://a", "\"a b http://a\" should be a URL, or a name and a URL"),
            ("a http://a optinal", "\"optinal\" is not a node setting: use jobs=N, "),
            ("a http://a optinal jobs=2", "\"optinal\" is not a node setting"),
            ("a b", "did you mean http://b:1337, or ./b?"),
            ("# no nodes", "is empty"),
        ] {
            let said_ = line(text).unwrap_err();
            assert!(said_.contains(said) && !said_.contains("secret"), "{said_}");
        }
    }
}
