//! A file system for tests, on top of a directory. Its operations can be made to fail, as on a disk
//! that is full, failing or gone, or to hang.

// The trait has them.
#![allow(clippy::too_many_arguments)]

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request,
    TimeOrNow, WriteFlags,
};

/// The kernel caches nothing, so that each call comes here.
const TTL: Duration = Duration::ZERO;

/// The calls that can fail. `Close` is close(), `FsyncDir` a flush of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Create,
    Write,
    Fsync,
    Close,
    Rename,
    FsyncDir,
    Mkdir,
    OpenDir,
    ReadDir,
}

#[derive(Debug)]
struct Fault {
    op: Op,
    errno: i32,
    /// How many calls succeed before.
    skip: usize,
    /// How many calls fail.
    times: usize,
}

#[derive(Debug, Default)]
struct Rules {
    faults: Vec<Fault>,
    /// After the next response to a call of this kind, all others hang.
    hang_after: Option<Op>,
    hangs: bool,
    folds_case: bool,
    hits: usize,
}

#[derive(Debug, Default)]
struct Shared {
    rules: Mutex<Rules>,
    changed: Condvar,
}

/// The mounted file system.
pub struct FaultFs {
    shared: Arc<Shared>,
    session: Option<BackgroundSession>,
}

impl FaultFs {
    /// Mounts a directory at another one.
    pub fn mount(source: &Path, at: &Path) -> FaultFs {
        let shared = Arc::<Shared>::default();
        let inodes = Inodes { paths: HashMap::from([(1, PathBuf::new())]), next: 2 };
        let files = Passthrough {
            source: source.to_owned(),
            shared: shared.clone(),
            inodes: Mutex::new(inodes),
            open: Mutex::default(),
        };
        let session = fuser::spawn_mount(files, at, &Config::default()).unwrap();
        FaultFs { shared, session: Some(session) }
    }

    /// Makes calls of this kind fail `times` times, after `skip` calls that succeed.
    pub fn fail(&self, op: Op, errno: rustix::io::Errno, skip: usize, times: usize) {
        let errno = errno.raw_os_error();
        self.shared.rules.lock().unwrap().faults.push(Fault { op, errno, skip, times });
    }

    /// The number of calls that have failed.
    pub fn hits(&self) -> usize {
        self.shared.rules.lock().unwrap().hits
    }

    /// From now on, doesn't distinguish upper and lower case.
    pub fn fold_case(&self) {
        self.shared.rules.lock().unwrap().folds_case = true;
    }

    /// Hangs after its next response to a call of this kind.
    pub fn hang_after(&self, op: Op) {
        self.shared.rules.lock().unwrap().hang_after = Some(op);
    }

    /// Waits until it hangs.
    pub fn wait_until_it_hangs(&self) {
        let rules = self.shared.rules.lock().unwrap();
        let waits = |rules: &mut Rules| !rules.hangs;
        let long = Duration::from_secs(20);
        let waited = self.shared.changed.wait_timeout_while(rules, long, waits).unwrap();
        assert!(!waited.1.timed_out(), "it never hangs");
    }

    /// Responds again.
    pub fn resume(&self) {
        let mut rules = self.shared.rules.lock().unwrap();
        (rules.hangs, rules.hang_after) = (false, None);
        self.shared.changed.notify_all();
    }
}

impl Drop for FaultFs {
    fn drop(&mut self) {
        self.resume();
        if let Some(session) = self.session.take() {
            let _ = session.umount_and_join();
        }
    }
}

struct Inodes {
    paths: HashMap<u64, PathBuf>,
    next: u64,
}

impl Inodes {
    fn of(&mut self, path: &Path) -> u64 {
        if let Some((ino, _)) = self.paths.iter().find(|(_, known)| *known == path) {
            return *ino;
        }
        self.next += 1;
        self.paths.insert(self.next, path.to_owned());
        self.next
    }

    fn forget(&mut self, path: &Path) {
        self.paths.retain(|_, known| known != path);
    }
}

struct Passthrough {
    source: PathBuf,
    shared: Arc<Shared>,
    inodes: Mutex<Inodes>,
    open: Mutex<(u64, HashMap<u64, Arc<File>>)>,
}

type Result<T> = std::result::Result<T, Errno>;

impl Passthrough {
    /// Whether a call must fail.
    fn check(&self, op: Op) -> Result<()> {
        let mut rules = self.shared.rules.lock().unwrap();
        let mut hit = None;
        for fault in rules.faults.iter_mut().filter(|fault| fault.op == op && fault.times > 0) {
            if fault.skip > 0 {
                fault.skip -= 1;
            } else {
                fault.times -= 1;
                hit = Some(fault.errno);
            }
        }
        rules.hits += usize::from(hit.is_some());
        hit.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno).into()))
    }

    /// Called after the response to a call.
    fn answered(&self, op: Op) {
        let mut rules = self.shared.rules.lock().unwrap();
        if rules.hang_after == Some(op) {
            rules.hangs = true;
            self.shared.changed.notify_all();
        }
        // Not for ever, so that a failing test ends.
        let long = Duration::from_secs(10);
        drop(self.shared.changed.wait_timeout_while(rules, long, |rules| rules.hangs).unwrap());
    }

    /// The kernel lets no process end before its files are closed. So that processes can end while
    /// this file system hangs, the kernel doesn't send that call.
    fn flags(&self) -> FopenFlags {
        match self.shared.rules.lock().unwrap().hang_after {
            Some(_) => FopenFlags::FOPEN_NOFLUSH,
            None => FopenFlags::empty(),
        }
    }

    fn path(&self, ino: INodeNo) -> Result<PathBuf> {
        let inodes = self.inodes.lock().unwrap();
        inodes.paths.get(&ino.0).cloned().ok_or(Errno::ENOENT)
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> Result<PathBuf> {
        let parent = self.path(parent)?;
        let folds_case = self.shared.rules.lock().unwrap().folds_case;
        if folds_case && !self.source.join(&parent).join(name).exists() {
            for entry in fs::read_dir(self.source.join(&parent))? {
                let found = entry?.file_name();
                if found.eq_ignore_ascii_case(name) {
                    return Ok(parent.join(found));
                }
            }
        }
        Ok(parent.join(name))
    }

    fn entry(&self, path: &Path) -> Result<FileAttr> {
        let found = fs::symlink_metadata(self.source.join(path))?;
        let ino = self.inodes.lock().unwrap().of(path);
        Ok(attr(ino, &found))
    }

    fn keep(&self, file: File) -> FileHandle {
        let mut open = self.open.lock().unwrap();
        open.0 += 1;
        let number = open.0;
        open.1.insert(number, Arc::new(file));
        FileHandle(number)
    }

    fn file(&self, handle: FileHandle) -> Result<Arc<File>> {
        self.open.lock().unwrap().1.get(&handle.0).cloned().ok_or(Errno::EBADF)
    }
}

fn attr(ino: u64, found: &Metadata) -> FileAttr {
    let kind = match found.file_type() {
        kind if kind.is_dir() => FileType::Directory,
        kind if kind.is_symlink() => FileType::Symlink,
        _ => FileType::RegularFile,
    };
    let at = |time: io::Result<std::time::SystemTime>| time.unwrap_or(UNIX_EPOCH);
    FileAttr {
        ino: INodeNo(ino),
        size: found.len(),
        blocks: found.blocks(),
        atime: at(found.accessed()),
        mtime: at(found.modified()),
        ctime: at(found.modified()),
        crtime: UNIX_EPOCH,
        kind,
        perm: (found.mode() & 0o7777) as u16,
        nlink: found.nlink() as u32,
        uid: found.uid(),
        gid: found.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// Responds with a value or an error.
macro_rules! answer {
    ($reply:ident, $result:expr, |$value:pat_param| $then:expr) => {
        match $result {
            Ok($value) => $then,
            Err(e) => $reply.error(e),
        }
    };
}

impl Filesystem for Passthrough {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer!(reply, self.child(parent, name).and_then(|path| self.entry(&path)), |attr| {
            reply.entry(&TTL, &attr, Generation(0));
        });
    }

    fn getattr(&self, _: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        let found = || -> Result<_> {
            Ok(match fh.and_then(|fh| self.file(fh).ok()) {
                Some(file) => file.metadata()?,
                None => fs::symlink_metadata(self.source.join(self.path(ino)?))?,
            })
        };
        answer!(reply, found(), |found| reply.attr(&TTL, &attr(ino.0, &found)));
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<std::time::SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<std::time::SystemTime>,
        _chgtime: Option<std::time::SystemTime>,
        _bkuptime: Option<std::time::SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = || -> Result<_> {
            let path = self.source.join(self.path(ino)?);
            if let Some(mode) = mode {
                fs::set_permissions(&path, fs::Permissions::from_mode(mode & 0o7777))?;
            }
            if let Some(size) = size {
                File::options().write(true).open(&path)?.set_len(size)?;
            }
            Ok(fs::symlink_metadata(&path)?)
        };
        answer!(reply, set(), |found| reply.attr(&TTL, &attr(ino.0, &found)));
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let make = || -> Result<_> {
            self.check(Op::Mkdir)?;
            let path = self.child(parent, name)?;
            fs::create_dir(self.source.join(&path))?;
            self.entry(&path)
        };
        answer!(reply, make(), |attr| reply.entry(&TTL, &attr, Generation(0)));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let unlink = || -> Result<_> {
            let path = self.child(parent, name)?;
            fs::remove_file(self.source.join(&path))?;
            self.inodes.lock().unwrap().forget(&path);
            Ok(())
        };
        answer!(reply, unlink(), |()| reply.ok());
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let remove = || -> Result<_> {
            let path = self.child(parent, name)?;
            fs::remove_dir(self.source.join(&path))?;
            self.inodes.lock().unwrap().forget(&path);
            Ok(())
        };
        answer!(reply, remove(), |()| reply.ok());
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let rename = || -> Result<_> {
            self.check(Op::Rename)?;
            let (from, to) = (self.child(parent, name)?, self.child(new_parent, new_name)?);
            let (old, new) = (self.source.join(&from), self.source.join(&to));
            if !flags.is_empty() && new.symlink_metadata().is_ok() {
                return Err(Errno::EEXIST);
            }
            fs::rename(old, new)?;
            let mut inodes = self.inodes.lock().unwrap();
            inodes.forget(&to);
            inodes.paths.values_mut().filter(|path| **path == from).for_each(|path| {
                path.clone_from(&to);
            });
            Ok(())
        };
        answer!(reply, rename(), |()| reply.ok());
        self.answered(Op::Rename);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let create = || -> Result<_> {
            self.check(Op::Create)?;
            let path = self.child(parent, name)?;
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true).mode(mode & !umask);
            let file = options.open(self.source.join(&path))?;
            Ok((self.entry(&path)?, self.keep(file)))
        };
        answer!(reply, create(), |(attr, handle)| {
            reply.created(&TTL, &attr, Generation(0), handle, self.flags());
        });
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let open = || -> Result<_> {
            let path = self.source.join(self.path(ino)?);
            let writes = flags.0 & 0b11 != 0;
            Ok(self.keep(File::options().read(true).write(writes).open(path)?))
        };
        answer!(reply, open(), |handle| reply.opened(handle, FopenFlags::empty()));
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = || -> Result<_> {
            let mut buffer = vec![0; size as usize];
            let read = self.file(fh)?.read_at(&mut buffer, offset)?;
            buffer.truncate(read);
            Ok(buffer)
        };
        answer!(reply, read(), |bytes| reply.data(&bytes));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let write = || -> Result<_> {
            self.check(Op::Write)?;
            self.file(fh)?.write_all_at(data, offset)?;
            Ok(data.len() as u32)
        };
        answer!(reply, write(), |size| reply.written(size));
        self.answered(Op::Write);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        answer!(reply, self.check(Op::Close), |()| reply.ok());
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.open.lock().unwrap().1.remove(&fh.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer!(reply, self.check(Op::Fsync), |()| reply.ok());
        self.answered(Op::Fsync);
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let open = || -> Result<_> {
            self.check(Op::OpenDir)?;
            Ok(self.keep(File::open(self.source.join(self.path(ino)?))?))
        };
        answer!(reply, open(), |handle| reply.opened(handle, FopenFlags::empty()));
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let list = || -> Result<_> {
            self.check(Op::ReadDir)?;
            let mut names = Vec::new();
            for entry in fs::read_dir(self.source.join(self.path(ino)?))? {
                names.push(entry?.file_name());
            }
            names.sort();
            Ok(names)
        };
        answer!(reply, list(), |names| {
            for (n, name) in names.iter().enumerate().skip(offset as usize) {
                let Ok(attr) = self.child(ino, name).and_then(|path| self.entry(&path)) else {
                    continue;
                };
                if reply.add(attr.ino, n as u64 + 1, attr.kind, name) {
                    break;
                }
            }
            reply.ok();
        });
        self.answered(Op::ReadDir);
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.open.lock().unwrap().1.remove(&fh.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer!(reply, self.check(Op::FsyncDir), |()| reply.ok());
        self.answered(Op::FsyncDir);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(1 << 20, 1 << 19, 1 << 19, 1 << 20, 1 << 19, 4096, 255, 4096);
    }
}
