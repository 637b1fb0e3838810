//! Troubles that may come a thousand times: each kind is said in full for a few reasons, then counted.

use std::collections::HashMap;

use indicatif::HumanCount;
use log::{Level, info, log};

use crate::schedule::NodeId;

/// Distinct reasons printed per node and kind of trouble; the rest are counted.
const REASONS_TOLD: usize = 3;

/// A kind of trouble that may come a thousand times.
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
    /// That there are more of the kind.
    fn more(self, n: u64) -> String {
        let (one, many) = match self {
            Kind::NoName => ("name that no archive has", "names that no archive has"),
            Kind::Future => {
                ("hour with segments from the future", "hours with segments from the future")
            }
            Kind::Hidden => (
                "segment that is here, and that its tombstones hide",
                "segments that are here, and that its tombstones hide",
            ),
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

/// What was said of one kind of trouble with one node, or with none.
#[derive(Debug, Default)]
struct Told {
    /// The reasons for which it was told in full.
    reasons: Vec<String>,
    /// How much more of it there was.
    more: u64,
}

/// What was said so far.
#[derive(Debug, Default)]
pub struct Troubles {
    told: HashMap<(Kind, Option<NodeId>), Told>,
}

impl Troubles {
    /// Says what the trouble is, at this level unless the same was said before.
    pub fn say(&mut self, level: Level, kind: Kind, node: Option<NodeId>, why: &str, what: &str) {
        let told = self.told.entry((kind, node)).or_default();
        if told.reasons.len() < REASONS_TOLD && !told.reasons.iter().any(|reason| reason == why) {
            told.reasons.push(why.to_owned());
            return log!(level, "{what}");
        }
        told.more += 1;
        info!("{what}");
    }

    /// Of which kinds there was more than was said, with whom, and how much.
    pub fn more(&self) -> impl Iterator<Item = (Option<NodeId>, String)> {
        let more = self.told.iter().filter(|(_, told)| told.more > 0);
        more.map(|((kind, node), told)| (*node, kind.more(told.more)))
    }
}
