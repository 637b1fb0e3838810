//! Names of staged files. They carry a mark, by which a later pass tells our staged files from
//! those of other writers.

use uuid::Uuid;

use crate::segment::{Medium, SegmentName};

/// The mark: the first bytes of the UUIDs in the names of our staged files.
const STAGED_BY_US: &[u8; 4] = b"bkfl";

/// Whether a name is that of a file staged by a pass of ours: that of a segment or a hidden one,
/// with a UUID in the usual place that has our mark.
pub fn is_staged_by_us(name: &str) -> bool {
    let is_ours = |id: &str| {
        let id = Uuid::try_parse(id).ok().filter(|_| id.len() == 36);
        id.is_some_and(|id| id.get_version_num() == 8 && id.as_bytes().starts_with(STAGED_BY_US))
    };
    if let Some(rest) = name.strip_suffix(".temp") {
        let Some((segment, id)) = rest.rsplit_once('.') else {
            return false;
        };
        return is_ours(id)
            && (segment.is_empty() || SegmentName::parse(segment, Medium::Chat).is_ok());
    }
    match name.strip_suffix(".ts").and_then(|rest| rest.split_once("-temp-")) {
        Some((start, id)) => is_ours(id) && start.split('-').count() == 2,
        None => false,
    }
}

/// A random UUID (version 8, custom) that carries our mark.
pub fn staged_id() -> Uuid {
    let mut bytes: [u8; 16] = rand::random();
    bytes[..4].copy_from_slice(STAGED_BY_US);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}
