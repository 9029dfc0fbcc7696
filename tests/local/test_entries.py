"""The directory of running programs: who counts, who does not, and what a wrong file does (nothing to the others)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hami.local import entries
from hami.local.entries import Entry, LocalStateError
from hami.model.claim import Share
from hami.model.names import DeviceUuid, WireError

SHARE = Share(uuid=DeviceUuid("GPU-a"), kind="NVIDIA", memory_mib=3000, cores=30)


def own_entry(**changes: object) -> Entry:
    ticks = entries.start_ticks(os.getpid())
    assert ticks is not None
    values = {"pid": os.getpid(), "start_ticks": ticks, "uid": os.getuid(), "command": "python", "shares": (SHARE,)}
    return Entry(**{**values, **changes})  # type: ignore[arg-type]


def test_what_is_written_is_read() -> None:
    entry = own_entry()
    assert entries.read_entry(entries.write_entry(entry), "x") == entry


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (b"", "x"),
        (b"[]", "x"),
        (b'{"shares": 1}', "x.shares"),
        (b'{"shares": [], "pid": -1}', "x.pid"),
        (b'{"shares": [], "pid": 1, "start_ticks": true}', "x.start_ticks"),
        (b'{"shares": [{"uuid": 5}], "pid": 1, "start_ticks": 1, "uid": 1, "command": "c"}', "x.shares[0].uuid"),
    ],
)
def test_a_wrong_file_is_named_with_its_field(text: bytes, field: str) -> None:
    with pytest.raises(WireError) as caught:
        entries.read_entry(text, "x")
    assert caught.value.field == field


def test_a_living_program_counts(tmp_path: Path) -> None:
    entries.remember(tmp_path, own_entry())
    assert entries.living(tmp_path) == ([own_entry()], [])


def test_a_dead_program_is_forgotten_with_its_files(tmp_path: Path) -> None:
    child = subprocess.Popen(["sleep", "60"])
    ticks = entries.start_ticks(child.pid)
    assert ticks is not None
    entry = own_entry(pid=child.pid, start_ticks=ticks)
    files = entries.files_of(tmp_path, entry)
    files.mkdir()
    (files / "grant").write_text("hami-grant=1\n")
    entries.remember(tmp_path, entry)
    assert entries.living(tmp_path)[0] == [entry]
    child.kill()
    child.wait()
    assert entries.living(tmp_path) == ([], [])
    assert list(tmp_path.iterdir()) == []


def test_a_recycled_process_id_holds_nothing(tmp_path: Path) -> None:
    entry = own_entry()
    entries.remember(tmp_path, own_entry(start_ticks=entry.start_ticks - 1))
    assert entries.living(tmp_path) == ([], [])


def test_a_broken_file_disturbs_nobody(tmp_path: Path) -> None:
    (tmp_path / "1-1.entry").write_text("{")
    entries.remember(tmp_path, own_entry())
    running, problems = entries.living(tmp_path)
    assert running == [own_entry()]
    assert [str(problem).partition(":")[0] for problem in problems] == [str(tmp_path / "1-1.entry")]


def test_an_entry_in_anothers_name_does_not_count(tmp_path: Path) -> None:
    entries.remember(tmp_path, own_entry(uid=os.getuid() + 1))
    running, problems = entries.living(tmp_path)
    assert running == []
    assert len(problems) == 1


def test_the_lock_is_exclusive_and_ends_with_its_block(tmp_path: Path) -> None:
    holder = (
        "import sys; from pathlib import Path; from hami.local import entries\n"
        "with entries.locked(Path(sys.argv[1])): print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(LocalStateError, match="held by another"), entries.locked(tmp_path, patience_s=0.1):
            pass
        other.kill()
        other.wait()
        with entries.locked(tmp_path):  # the kernel let go
            pass


def test_a_directory_of_someone_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hami").write_text("not a directory")
    with pytest.raises(LocalStateError, match="HAMI_LOCAL_DIR"):
        entries.find_directory({"XDG_RUNTIME_DIR": str(tmp_path)})
