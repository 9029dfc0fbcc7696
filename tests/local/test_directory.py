"""The directory of running programs: who counts, who does not, and what a wrong file does (nothing to the others)."""

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hami.local import directory as module
from hami.local import processes
from hami.local.directory import (
    WAITING,
    files_of,
    find_directory,
    forget,
    listing,
    remember,
)
from hami.local.entries import write_entry
from hami.local.lock import LocalStateError, locked
from hami.node._region import Region
from hami.node.simulated import native_dir
from tests.interpose.simulation import Simulation
from tests.local.programs import entry_of, own_entry, sleeping


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_living_program_counts(tmp_path: Path) -> None:
    remember(tmp_path, own_entry())
    assert listing(tmp_path) == ((own_entry(),), (), ())


def test_a_dead_program_is_forgotten_with_its_files(tmp_path: Path) -> None:
    with sleeping() as child:
        entry = entry_of(child.pid)
        files_of(tmp_path, entry).mkdir()
        (files_of(tmp_path, entry) / "grant").write_text("hami-grant=1\n")
        remember(tmp_path, entry)
        assert listing(tmp_path).running == (entry,)
    assert listing(tmp_path) == ((), (), ())
    assert names(tmp_path) == []


@pytest.mark.parametrize("ending", ["entry", WAITING])
@pytest.mark.parametrize(
    "change", [{"start_ticks": 1}, {"boot": "another"}, {"pid": 2**62}], ids=lambda c: next(iter(c))
)
def test_a_recycled_process_id_and_a_reboot_end_it(tmp_path: Path, change: dict[str, Any], ending: str) -> None:
    remember(tmp_path, own_entry(**change), ending)
    assert listing(tmp_path) == ((), (), ())
    assert names(tmp_path) == []


def test_what_was_left_before_the_entry_had_its_name_is_removed(tmp_path: Path) -> None:
    with sleeping() as child:
        dead = entry_of(child.pid)
    for name in (
        f".{dead.name}.entry.new",
        f".{dead.name}.waiting.new",
        f".simulated-0.state.{dead.pid}",
        "simulated-00000000-0123456789abcdef.state",  # of an earlier boot
    ):
        (tmp_path / name).write_text("half")
    kept = tmp_path / f"simulated-{processes.boot_id()[:8]}-0123456789abcdef.state"
    kept.write_text("whole")
    files_of(tmp_path, dead).mkdir()
    (files_of(tmp_path, dead) / "region.cache").write_text("half")
    mine = files_of(tmp_path, own_entry())
    mine.mkdir()
    listing(tmp_path)
    assert names(tmp_path) == sorted([mine.name, kept.name]), "what a living program is about to use stays"


def test_it_waits_no_more_once_it_runs(tmp_path: Path) -> None:
    remember(tmp_path, own_entry(shares=()), WAITING)
    assert listing(tmp_path).waiting == (own_entry(shares=()),)
    remember(tmp_path, own_entry())
    assert listing(tmp_path) == ((own_entry(),), (), ())


def test_children_that_use_a_device_hold_what_their_dead_parent_was_granted(tmp_path: Path) -> None:
    machine = Simulation(tmp_path)
    with sleeping() as parent:
        entry = entry_of(parent.pid)
        files = files_of(tmp_path, entry)
        files.mkdir()
        Region.create(files / "region.cache", machine.uuids[:1], [300 << 20], [0]).close()
        remember(tmp_path, entry)
    client = machine.client(
        LD_PRELOAD=str(native_dir() / "libvgpu.so"),
        CUDA_DEVICE_MEMORY_SHARED_CACHE=str(files / "region.cache"),
        NVIDIA_VISIBLE_DEVICES=machine.uuids[0],
    )
    with client:
        assert client.use() == 0
        assert client.alloc(1 << 20)[0] == 0
        assert listing(tmp_path).running == (entry,)
    assert listing(tmp_path).running == ()
    assert not files.exists()


class TestWrongFiles:
    """Anybody can put anything here."""

    def check(self, directory: Path, name: str) -> None:
        remember(directory, own_entry())
        found = listing(directory)
        assert found.running == (own_entry(),)
        assert [problem.field.partition(".entry")[0] for problem in found.problems] == [str(directory / name)]

    def test_text(self, tmp_path: Path) -> None:
        (tmp_path / "1-1.entry").write_text("{")
        self.check(tmp_path, "1-1")

    def test_a_pipe(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "1-1.entry")
        self.check(tmp_path, "1-1")

    def test_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "1-1.entry").symlink_to("/dev/zero")
        self.check(tmp_path, "1-1")

    def test_a_directory(self, tmp_path: Path) -> None:
        (tmp_path / "1-1.entry").mkdir()
        self.check(tmp_path, "1-1")

    def test_something_endless(self, tmp_path: Path) -> None:
        (tmp_path / "1-1.entry").write_bytes(b"[" * 10_000_000)
        self.check(tmp_path, "1-1")

    def test_another_name(self, tmp_path: Path) -> None:
        (tmp_path / "1-1.entry").write_bytes(write_entry(own_entry()))
        self.check(tmp_path, "1-1")

    def test_another_user(self, tmp_path: Path) -> None:
        with sleeping() as child:
            entry = entry_of(child.pid, uid=os.getuid() + 1)
            remember(tmp_path, entry)
            self.check(tmp_path, entry.name)


def test_cleaning_up_removes_a_link_and_not_what_it_points_to(tmp_path: Path) -> None:
    elsewhere = tmp_path / "precious"
    elsewhere.mkdir()
    (elsewhere / "file").write_text("keep")
    ledger = tmp_path / "ledger"
    ledger.mkdir()
    dead = own_entry(start_ticks=1)
    files_of(ledger, dead).symlink_to(elsewhere)
    remember(ledger, dead)
    listing(ledger)
    assert names(ledger) == []
    assert (elsewhere / "file").read_text() == "keep"


def test_a_foreign_thing_in_a_programs_directory_stops_nobody(tmp_path: Path) -> None:
    dead = own_entry(start_ticks=1)
    (files_of(tmp_path, dead) / "odd").mkdir(parents=True)
    remember(tmp_path, dead)
    assert listing(tmp_path) == ((), (), ())


def test_everybody_can_read_what_is_taken_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        remember(tmp_path, own_entry())
        with locked(tmp_path):
            pass
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"lock": 0o644, f"{own_entry().name}.entry": 0o644}


def test_forgetting_twice_is_no_error(tmp_path: Path) -> None:
    forget(tmp_path, own_entry())
    remember(tmp_path, own_entry())
    forget(tmp_path, own_entry())
    forget(tmp_path, own_entry())
    assert names(tmp_path) == []


HOLD = (
    "import sys; from pathlib import Path; from hami.local.lock import locked\n"
    "with locked(Path(sys.argv[1])): print('held', flush=True); input()"
)


def test_the_lock_is_exclusive_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(LocalStateError, match=f"by process {other.pid}"), locked(tmp_path, patience_s=0.1):
            pass
        other.kill()
        other.wait()
        with locked(tmp_path):  # the kernel let go
            pass


def test_a_removed_lock_lets_only_one_in(tmp_path: Path) -> None:
    with locked(tmp_path):
        (tmp_path / "lock").unlink()
        with locked(tmp_path, patience_s=0.1), pytest.raises(LocalStateError), locked(tmp_path, patience_s=0.1):
            pass  # the second one holds the new file, and the third waits for that


class TestWhichDirectory:
    """Only one that nobody but its user or root can reorder."""

    def refused(self, path: Path, match: str) -> None:
        with pytest.raises(LocalStateError, match=match):
            find_directory({"HAMI_LOCAL_DIR": str(path)})

    def test_one_that_does_not_exist_is_made_private(self, tmp_path: Path) -> None:
        made = find_directory({"HAMI_LOCAL_DIR": str(tmp_path / "new")})
        assert stat.S_IMODE(made.stat().st_mode) == 0o700

    def test_no_directory(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        self.refused(tmp_path / "file", "HAMI_LOCAL_DIR")

    def test_writable_for_all_without_the_sticky_bit(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o777)
        self.refused(tmp_path, "chmod 1777")
        tmp_path.chmod(0o1777)
        assert find_directory({"HAMI_LOCAL_DIR": str(tmp_path)}) == tmp_path

    def test_a_private_one_others_can_write_to(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "SHARED", tmp_path / "none")
        (tmp_path / "hami").mkdir()
        (tmp_path / "hami").chmod(0o1777)
        with pytest.raises(LocalStateError, match="chmod 700"):
            find_directory({"XDG_RUNTIME_DIR": str(tmp_path)})

    @pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory to another user")
    def test_another_users(self, tmp_path: Path) -> None:
        os.chown(tmp_path, 65534, 65534)
        self.refused(tmp_path, "belongs to user 65534")

    def test_where_root_made_one_for_all_it_is_that(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "SHARED", tmp_path)
        assert find_directory({"XDG_RUNTIME_DIR": "/nowhere"}) == tmp_path
