//! Operations on an open directory: opening a subdirectory or a plain file in it, and listing it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, readlinkat, statat};
use rustix::io::Errno;
use rustix::process::geteuid;

/// Opens a directory to reach its entries, for which permission to list it is not needed.
#[cfg(target_os = "linux")]
const TO_REACH: OFlags = OFlags::PATH;
#[cfg(not(target_os = "linux"))]
const TO_REACH: OFlags = OFlags::RDONLY;

/// What to open a directory for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// To reach its entries.
    Reaching,
    /// To list or flush it, too.
    Listing,
}

impl For {
    /// The flags to open it with.
    pub(super) fn flags(self) -> OFlags {
        let access = if self == For::Reaching { TO_REACH } else { OFlags::RDONLY };
        access | OFlags::DIRECTORY | OFlags::CLOEXEC
    }
}

/// Opens a subdirectory. A symbolic link to a directory is followed only if `follow` is set and the
/// link belongs to root or to our user.
///
/// # Errors
///
/// Fails if the subdirectory can't be opened, or is a link that is not followed (`ELOOP`).
pub(super) fn step(parent: &File, name: &str, follow: bool, what_for: For) -> io::Result<File> {
    match openat(parent, name, what_for.flags() | OFlags::NOFOLLOW, Mode::empty()) {
        Ok(dir) => Ok(dir.into()),
        Err(e @ (Errno::LOOP | Errno::NOTDIR)) => match link(parent, name)? {
            None => Err(e.into()),
            Some((owner, to)) if follow && (owner == 0 || owner == geteuid().as_raw()) => {
                Ok(openat(parent, to, what_for.flags(), Mode::empty())?.into())
            }
            Some(_) => Err(Errno::LOOP.into()),
        },
        Err(e) => Err(e.into()),
    }
}

/// The owner and target of a link; `None` if it is not a link. Both come from the same link, even
/// if another one replaces it meanwhile.
#[cfg(target_os = "linux")]
fn link(parent: &File, name: &str) -> io::Result<Option<(u32, std::ffi::CString)>> {
    use std::os::unix::fs::MetadataExt;

    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let link = File::from(openat(parent, name, flags, Mode::empty())?);
    let found = link.metadata()?;
    if !found.is_symlink() {
        return Ok(None);
    }
    Ok(Some((found.uid(), readlinkat(&link, "", Vec::new())?)))
}

#[cfg(not(target_os = "linux"))]
fn link(parent: &File, name: &str) -> io::Result<Option<(u32, std::ffi::CString)>> {
    let found = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::Symlink {
        return Ok(None);
    }
    Ok(Some((found.st_uid, readlinkat(parent, name, Vec::new())?)))
}

/// Opens a plain file in a directory, without following a link or waiting for a pipe.
///
/// # Errors
///
/// Fails if the file can't be opened, or is not a plain file.
pub(super) fn open_plain(dir: &File, name: &str) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let not_plain = || io::Error::other("it is not a plain file");
    match openat(dir, name, flags, Mode::empty()) {
        // A link, or a socket.
        Err(Errno::LOOP | Errno::NXIO | Errno::MLINK) => Err(not_plain()),
        Err(e) => Err(e.into()),
        Ok(file) => {
            let file = File::from(file);
            if file.metadata()?.is_file() { Ok(file) } else { Err(not_plain()) }
        }
    }
}

/// Whether there is a plain file of this name in a directory.
pub(super) fn is_plain(dir: &File, name: &str) -> bool {
    kind_of(dir, name).is_some_and(|kind| kind == FileType::RegularFile)
}

/// Whether a directory has no entry of this name, but one that differs from it only in upper and lower
/// case. Some file systems find that under this name, too. (Some also change how accents are encoded,
/// which is no other name.)
///
/// # Errors
///
/// Fails if the directory can't be read.
pub(super) fn has_only_in_other_case(dir: &File, name: &str) -> io::Result<bool> {
    let dir = openat(dir, ".", For::Listing.flags(), Mode::empty())?;
    let folded = name.to_lowercase();
    let (mut has, mut has_other) = (false, false);
    for_each_entry(dir.into(), |_, found, _| {
        has |= found == name;
        has_other |= found.to_lowercase() == folded;
    })?;
    Ok(has_other && !has)
}

fn kind_of(dir: impl AsFd, name: &str) -> Option<FileType> {
    let found = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    Some(FileType::from_raw_mode(found.st_mode))
}

/// Calls `each` with the directory, and the name and kind of every entry in it. Names that are not
/// UTF-8 are skipped.
///
/// # Errors
///
/// Fails if the directory can't be read.
pub fn for_each_entry(
    dir: File,
    mut each: impl FnMut(BorrowedFd<'_>, &str, FileType),
) -> io::Result<()> {
    let mut entries = Dir::new(dir)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if name == "." || name == ".." {
            continue;
        }
        let dir = entries.fd()?;
        let kind = match entry.file_type() {
            FileType::Unknown => kind_of(dir, name).unwrap_or(FileType::Unknown),
            kind => kind,
        };
        each(dir, name, kind);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_differ_only_in_case_are_found() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["Kappa.png", "both", "Both", "\u{c9}TE", "e\u{301}te"] {
            File::create(dir.path().join(name)).unwrap();
        }
        let dir = File::open(dir.path()).unwrap();
        for (name, expected) in [
            ("Kappa.png", false),
            ("kappa.png", true),
            ("both", false),
            ("Both", false),
            ("none", false),
            ("\u{e9}te", true),
            ("\u{e9}t\u{e9}", false),
        ] {
            assert_eq!(has_only_in_other_case(&dir, name).unwrap(), expected, "{name}");
        }
    }
}
