//! Troubles that may occur thousands of times: a few of each kind are printed, and the rest
//! counted.

use std::collections::HashMap;

use indicatif::HumanCount;
use log::{Level, info, log};

use crate::schedule::NodeId;

/// Distinct reasons printed per node and kind of trouble; the rest are counted.
const REASONS_PRINTED: usize = 3;

/// A kind of trouble that may occur thousands of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    NoName,
    Future,
    Hidden,
    FileFailed,
    FileVanished,
    ListingFailed,
    LocalFailed,
}

impl Kind {
    /// The message that there are `n` more of this kind.
    fn more(self, n: u64) -> String {
        let (one, many) = match self {
            Kind::NoName => ("invalid name", "invalid names"),
            Kind::Future => {
                ("hour with segments from the future", "hours with segments from the future")
            }
            Kind::Hidden => {
                ("segment here that its tombstones hide", "segments here that its tombstones hide")
            }
            Kind::FileFailed => {
                ("file that could not be fetched", "files that could not be fetched")
            }
            Kind::FileVanished => (
                "file that is gone from every node that listed it",
                "files that are gone from every node that listed them",
            ),
            Kind::ListingFailed => ("listing that failed", "listings that failed"),
            Kind::LocalFailed => ("local error", "local errors"),
        };
        format!("{} more {}", HumanCount(n), if n == 1 { one } else { many })
    }
}

/// What was printed about one kind of trouble, with one node or without a node.
#[derive(Debug, Default)]
struct Printed {
    /// The reasons that were printed.
    reasons: Vec<String>,
    /// How many more there were.
    more: u64,
}

/// What was printed so far.
#[derive(Debug, Default)]
pub struct Troubles {
    printed: HashMap<(Kind, Option<NodeId>), Printed>,
}

impl Troubles {
    /// Prints the trouble `what`: at this level if its reason is new and there were few before,
    /// else as information.
    pub fn print(&mut self, level: Level, kind: Kind, node: Option<NodeId>, why: &str, what: &str) {
        let Printed { reasons, more } = self.printed.entry((kind, node)).or_default();
        if reasons.len() < REASONS_PRINTED && !reasons.iter().any(|reason| reason == why) {
            reasons.push(why.to_owned());
            return log!(level, "{what}");
        }
        *more += 1;
        info!("{what}");
    }

    /// The messages about what was only counted, each with its node.
    pub fn more(&self) -> impl Iterator<Item = (Option<NodeId>, String)> {
        let more = self.printed.iter().filter(|(_, printed)| printed.more > 0);
        more.map(|((kind, node), printed)| (*node, kind.more(printed.more)))
    }
}
