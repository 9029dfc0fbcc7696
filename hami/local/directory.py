"""The directory of running programs: which one it is, its lock, and who counts.

One small file a program, owned by the program's user; the directory is sticky, so nobody can change or remove another
user's. Every user reads every file, so all see the same free memory. A file counts while its process lives (same id,
same start time, same boot), and after that as long as a process that it started still uses a device.

The awkward part is that any user may put anything here: links, pipes, broken text, files in others' names. None of it
may stop another user's command, count for anybody else, or make root's clean-up touch a file elsewhere.
"""

import errno
import fcntl
import os
import re
import stat
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from hami.local.entries import Entry, read_entry, write_entry
from hami.local.lock import CAREFUL, LocalStateError
from hami.local.processes import boot_id, is_alive
from hami.model.names import WireError

RUNNING: Final = "entry"
WAITING: Final = "waiting"
SHARED: Final = Path("/run/hami")
_MAX_BYTES: Final = 64 * 1024


class Found(NamedTuple):
    """A file of the directory."""

    entry: Entry
    owner: int
    changed_ns: int
    """When the kernel saw the file change last: unlike anything in the file, its owner cannot set it back."""


class Listing(NamedTuple):
    """The directory at one moment."""

    running: tuple[Entry, ...]
    waiting: tuple[Entry, ...]
    """In order of arrival."""
    problems: tuple[WireError, ...]
    """Files that do not count, and why."""


def find_directory(environment: dict[str, str]) -> Path:
    """The directory all programs of this machine (or at least of this user) agree on, made when it is ours to make.

    `HAMI_LOCAL_DIR`, else `/run/hami` where root made it, else `$XDG_RUNTIME_DIR/hami`, else `/tmp/hami-<uid>`.
    Raises LocalStateError.
    """
    if named := environment.get("HAMI_LOCAL_DIR"):
        return _checked(Path(named), private=False)
    if SHARED.is_dir():
        return _checked(SHARED, private=False)
    if runtime := environment.get("XDG_RUNTIME_DIR"):
        return _checked(Path(runtime) / "hami", private=True)
    return _checked(Path(f"/tmp/hami-{os.getuid()}"), private=True)


def _checked(path: Path, *, private: bool) -> Path:
    elsewhere = "name another directory in HAMI_LOCAL_DIR"
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.stat() if not private else path.lstat()
    except OSError as error:
        raise LocalStateError(f"{path}: {error.strerror}; {elsewhere}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise LocalStateError(f"{path}: not a directory; {elsewhere}")
    me = os.getuid()
    if found.st_uid != me and (private or found.st_uid != 0):
        raise LocalStateError(f"{path}: belongs to user {found.st_uid}, who could change your entries; {elsewhere}")
    if found.st_mode & 0o022 and (private or not found.st_mode & stat.S_ISVTX):
        wanted = f"chmod {'700' if private else '1777'} {path}"
        raise LocalStateError(f"{path}: others could change your entries; {wanted}, or {elsewhere}")
    if not os.access(path, os.W_OK | os.X_OK):
        raise LocalStateError(f"{path}: you may not write there; as root: chmod 1777 {path}, or {elsewhere}")
    return path


# ---- reading


def listing(directory: Path) -> Listing:
    """Who runs and who waits, and what is wrong with other files. What dead programs of this user (for root: of all)
    left behind is removed on the way."""
    problems: list[WireError] = []
    running = [found.entry for found in _living(directory, RUNNING, problems)]
    names = {entry.name for entry in running}
    # Killed between its grant and leaving the queue, a program is in both; it does not wait any more.
    queue = [found for found in _living(directory, WAITING, problems) if found.entry.name not in names]
    queue.sort(key=lambda found: (found.changed_ns, found.entry.pid))
    _sweep(directory)
    return Listing(tuple(running), tuple(found.entry for found in queue), tuple(problems))


def _living(directory: Path, ending: str, problems: list[WireError]) -> Iterator[Found]:
    for path in sorted(directory.glob(f"*.{ending}")):
        try:
            found = _load(path)
        except WireError as error:
            problems.append(error)
            continue
        except FileNotFoundError:
            continue
        entry = found.entry
        if path.stem != entry.name or found.owner != entry.uid:
            expected = f"a file of user {entry.uid} called {entry.name}.{ending}"
            problems.append(WireError(str(path), expected, f"user {found.owner}"))
        elif _lives(entry) or (ending == RUNNING and _region_in_use(files_of(directory, entry) / "region.cache")):
            yield found
        elif _may_remove(found.owner):
            forget(directory, entry)


def _load(path: Path) -> Found:
    try:
        descriptor = os.open(path, os.O_RDONLY | CAREFUL)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise WireError(str(path), "a file that every user can read", error.strerror) from None
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise WireError(str(path), "a regular file")
        return Found(read_entry(os.read(descriptor, _MAX_BYTES), str(path)), state.st_uid, state.st_ctime_ns)
    finally:
        os.close(descriptor)


def _lives(entry: Entry) -> bool:
    return entry.boot == boot_id() and is_alive(entry.pid, entry.start_ticks)


def _may_remove(owner: int) -> bool:
    return os.getuid() in (0, owner)


def _region_in_use(path: Path) -> bool:
    """Whether a process still uses a device through this region: each holds a byte of the file locked.

    Asked for with a read lock, which only write locks contradict, and only the region's owner can take those.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | CAREFUL)
    except OSError:
        return False
    try:
        lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
        answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, lock)
        return bool(struct.unpack("hhqqi4x", answer)[0] != fcntl.F_UNLCK)
    except OSError:
        return False
    finally:
        os.close(descriptor)


# ---- writing


def remember(directory: Path, entry: Entry, ending: str = RUNNING) -> None:
    """Write the entry, whole or not at all. Raises LocalStateError when another user's file has the name."""
    fresh = directory / f".{entry.name}.{ending}.new"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | CAREFUL, 0o644)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o644)  # whatever this user's umask says, every user must see what is taken
            file.write(write_entry(entry))
        fresh.rename(directory / f"{entry.name}.{ending}")
    except PermissionError as error:
        fresh.unlink()
        raise LocalStateError(f"{directory}/{entry.name}.{ending}: is another user's; root can remove it") from error
    except OSError:
        fresh.unlink()
        raise


def leave_queue(directory: Path, entry: Entry) -> None:
    """The program waits no longer."""
    (directory / f"{entry.name}.{WAITING}").unlink(missing_ok=True)


def forget(directory: Path, entry: Entry) -> None:
    """Remove the entry and the files of its program."""
    remove_files(files_of(directory, entry))
    for ending in (WAITING, RUNNING):
        with suppress(PermissionError):  # the name may be another user's
            (directory / f"{entry.name}.{ending}").unlink(missing_ok=True)


def files_of(directory: Path, entry: Entry) -> Path:
    """Where the program's grant and region lie."""
    return directory / f"{entry.name}.d"


def remove_files(path: Path) -> None:
    """Remove a program's directory and the files in it; never what a link in its place points to."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | CAREFUL)
    except FileNotFoundError:
        return
    except OSError:
        with suppress(OSError):
            os.unlink(path)
        return
    try:
        for name in os.listdir(descriptor):
            os.unlink(name, dir_fd=descriptor)
        os.rmdir(path)
    except OSError as error:
        # Something else was put in, or somebody cleans up at the same time: what is left waits for the next time.
        if error.errno not in (errno.ENOTEMPTY, errno.EISDIR, errno.EPERM, errno.EACCES, errno.ENOENT):
            raise
    finally:
        os.close(descriptor)


_LITTER: Final = re.compile(
    r"\.?(?P<pid>\d+)-(?P<start>\d+)\.(d|entry\.new|waiting\.new)"
    r"|\.simulated-.*\.(?P<writer>\d+)|simulated-(?P<boot>[0-9a-f]{8})-.*\.state"
)


def _sweep(directory: Path) -> None:
    """Remove what programs left that died before their entry had its name, and simulated machines of earlier boots."""
    for path in directory.iterdir():
        match = _LITTER.fullmatch(path.name)
        if match is None or not _is_litter(directory, match):
            continue
        with suppress(FileNotFoundError):
            if _may_remove(path.lstat().st_uid):
                remove_files(path)


def _is_litter(directory: Path, name: re.Match[str]) -> bool:
    if name["boot"]:
        return name["boot"] != boot_id()[:8]
    if name["writer"]:
        return not Path(f"/proc/{name['writer']}").exists()
    pid, start = int(name["pid"]), int(name["start"])
    return not is_alive(pid, start) and not (directory / f"{pid}-{start}.{RUNNING}").exists()
