"""Who runs here: a directory with one lock and one small file a running program.

Every user reads every entry, so all see the same free memory; a user writes only files of their own (the directory is
sticky). An entry counts while its process lives: process id *and* start time must match, so a recycled id frees nothing
and holds nothing. The awkward part is that any user could write an entry in another's name; the file's owner, the entry
and the owner of the living process must therefore agree.
"""

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from hami.model.claim import Share
from hami.model.names import DeviceUuid, WireError

_MAX_BYTES: Final = 64 * 1024


class LocalStateError(Exception):
    """The directory of running programs cannot be used; the text says what to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One running program and what it was granted."""

    pid: int
    start_ticks: int
    """Field 22 of `/proc/<pid>/stat`: start time in clock ticks since boot."""
    uid: int
    command: str
    shares: tuple[Share, ...]

    @property
    def name(self) -> str:
        return f"{self.pid}-{self.start_ticks}"


def write_entry(entry: Entry) -> bytes:
    """The entry as JSON, its fields by their names."""
    shares = [{"uuid": s.uuid, "kind": s.kind, "memory_mib": s.memory_mib, "cores": s.cores} for s in entry.shares]
    return orjson.dumps(
        {
            "pid": entry.pid,
            "start_ticks": entry.start_ticks,
            "uid": entry.uid,
            "command": entry.command,
            "shares": shares,
        }
    )


def read_entry(text: bytes, field: str) -> Entry:
    """The entry in `text`; WireError names the key that is wrong."""
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise WireError(field, "a JSON object", str(error)) from None
    if not isinstance(document, dict):
        raise WireError(field, "a JSON object", document)
    shares = document.get("shares")
    if not isinstance(shares, list):
        raise WireError(f"{field}.shares", "a list", shares)
    return Entry(
        pid=_whole(document, "pid", field),
        start_ticks=_whole(document, "start_ticks", field),
        uid=_whole(document, "uid", field),
        command=_text(document, "command", field),
        shares=tuple(_share(share, f"{field}.shares[{i}]") for i, share in enumerate(shares)),
    )


def _share(document: Any, field: str) -> Share:
    if not isinstance(document, dict):
        raise WireError(field, "an object", document)
    return Share(
        uuid=DeviceUuid(_text(document, "uuid", field)),
        kind=_text(document, "kind", field),
        memory_mib=_whole(document, "memory_mib", field),
        cores=_whole(document, "cores", field),
    )


def _whole(document: dict[str, Any], key: str, field: str) -> int:
    value = document.get(key)
    if type(value) is not int or value < 0:
        raise WireError(f"{field}.{key}", "an integer of at least 0", value)
    return value


def _text(document: dict[str, Any], key: str, field: str) -> str:
    value = document.get(key)
    if not isinstance(value, str):
        raise WireError(f"{field}.{key}", "text", value)
    return value


def start_ticks(pid: int) -> int | None:
    """When process `pid` started, in clock ticks since boot; None if there is no such living process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def find_directory(environment: dict[str, str]) -> Path:
    """The directory all programs of this machine (or at least of this user) agree on, made when it is ours to make.

    `HAMI_LOCAL_DIR`, else `/run/hami` where root made it, else `$XDG_RUNTIME_DIR/hami`, else `/tmp/hami-<uid>`.
    """
    if named := environment.get("HAMI_LOCAL_DIR"):
        return _checked(Path(named), private=False)
    shared = Path("/run/hami")
    if shared.is_dir():
        return _checked(shared, private=False)
    if runtime := environment.get("XDG_RUNTIME_DIR"):
        return _checked(Path(runtime) / "hami", private=True)
    return _checked(Path(f"/tmp/hami-{os.getuid()}"), private=True)


def _checked(path: Path, *, private: bool) -> Path:
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise LocalStateError(f"{path}: {error.strerror}; name another directory in HAMI_LOCAL_DIR") from error
    if not stat.S_ISDIR(found.st_mode):
        raise LocalStateError(f"{path}: not a directory; name another one in HAMI_LOCAL_DIR")
    if private and found.st_uid != os.getuid():
        raise LocalStateError(f"{path}: belongs to user {found.st_uid}, not to you; name another one in HAMI_LOCAL_DIR")
    return path


@contextmanager
def locked(directory: Path, patience_s: float = 10.0) -> Iterator[None]:
    """Alone with the directory: decide and write within this block. The kernel lets go when its holder dies."""
    descriptor = _open_lock(directory / "lock")
    try:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LocalStateError(f"{directory}/lock: held by another program for {patience_s:.0f} s") from None
                time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def _open_lock(path: Path) -> int:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        # In a sticky directory the kernel may refuse O_CREAT on a file of another user, so opening comes first.
        return os.open(path, flags)
    except FileNotFoundError:
        return os.open(path, flags | os.O_CREAT, 0o644)


def living(directory: Path) -> tuple[list[Entry], list[WireError]]:
    """Entries whose process lives, and what is wrong with others. Dead entries of this user are removed on the way."""
    entries: list[Entry] = []
    problems: list[WireError] = []
    for path in sorted(directory.glob("*.entry")):
        try:
            entry, owner = _load(path)
        except WireError as error:
            problems.append(error)
            continue
        except FileNotFoundError:
            continue
        if start_ticks(entry.pid) != entry.start_ticks:
            if owner == os.getuid() or os.getuid() == 0:
                forget(directory, entry)
        elif not owner == entry.uid == _process_owner(entry.pid):
            problems.append(WireError(str(path), f"a file of user {entry.uid} about a process of that user", owner))
        else:
            entries.append(entry)
    return entries, problems


def _load(path: Path) -> tuple[Entry, int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        owner = os.fstat(descriptor).st_uid
        return read_entry(file.read(_MAX_BYTES), str(path)), owner


def _process_owner(pid: int) -> int | None:
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None


def remember(directory: Path, entry: Entry) -> None:
    """Write the entry, whole or not at all."""
    fresh = directory / f".{entry.name}.new"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(write_entry(entry))
    fresh.rename(directory / f"{entry.name}.entry")


def forget(directory: Path, entry: Entry) -> None:
    """Remove the entry and the files of its program."""
    (directory / f"{entry.name}.entry").unlink(missing_ok=True)
    files = files_of(directory, entry)
    if files.is_dir():
        for path in files.iterdir():
            path.unlink(missing_ok=True)
        files.rmdir()


def files_of(directory: Path, entry: Entry) -> Path:
    """Where the program's grant and region lie."""
    return directory / f"{entry.name}.d"
