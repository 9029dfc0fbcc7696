"""Several users on one machine: all see who holds what, nobody can change what is another's."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from hami.local import processes
from hami.local.directory import SHARED, files_of, listing
from hami.local.entries import Entry, write_entry
from hami.local.run import REFUSED
from hami.node.simulated import native_dir
from tests.local.commands import PROBE, ROOT
from tests.local.programs import ASK, DEVICE, SHARE

ALICE, BOB = 64_001, 64_002
SCRIPT = Path(__file__).with_name("as_user.py")


def _open_to_all(path: Path) -> bool:
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in path.resolve().parents)


pytestmark = [
    pytest.mark.skipif(os.getuid() != 0, reason="only root can become other users"),
    pytest.mark.skipif(
        os.getuid() == 0 and not _open_to_all(native_dir() / "x"), reason=f"other users cannot enter {native_dir()}"
    ),
]


class Ledger:
    """A sticky directory for all users, and the command as any of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.chmod(0o1777)
        self.machine = path / "machine.yaml"
        self.machine.write_text("name: bench\ndevices:\n- {model: Tesla T4}\n")
        self.machine.chmod(0o644)
        self.started: list[subprocess.Popen[str]] = []

    def start(self, uid: int, *words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(uid), *words],
            env={**os.environ, "PYTHONPATH": str(ROOT), "HAMI_LOCAL_DIR": str(self.path), "COLUMNS": "200"},
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def run(self, uid: int, *words: str) -> subprocess.Popen[str]:
        return self.start(uid, "run", "--simulate", str(self.machine), *words)

    def ps(self, uid: int) -> list[dict[str, Any]]:
        out, err = self.start(uid, "ps", "--json").communicate(timeout=60)
        assert err == ""
        return list(orjson.loads(out))

    def running(self) -> Entry:
        deadline = time.monotonic() + 30
        while not (found := listing(self.path).running):
            assert time.monotonic() < deadline, "the program never appeared"
            time.sleep(0.05)
        return found[0]


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    path = Path(tempfile.mkdtemp(prefix="hami-users-", dir="/tmp"))  # pytest's own directories are closed to others
    made = Ledger(path)
    yield made
    for process in made.started:
        process.kill()
        process.communicate()
    shutil.rmtree(path)


def attempt(uid: int, what: Any) -> str:
    """What a function does as another user: `done`, or the name of its error."""
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
        try:
            what()
            word = "done"
        except OSError as error:
            word = type(error).__name__
        os.write(writer, word.encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with os.fdopen(reader) as answer:
        return answer.read()


def test_all_see_what_is_held_and_by_whom(ledger: Ledger) -> None:
    holder = ledger.run(ALICE, "--gpumem", "15000", "--", PROBE, "hold", "40", "60")
    ledger.running()
    (seen,) = ledger.ps(BOB)
    assert (seen["pid"], seen["uid"], seen["shares"][0]["memory_mib"]) == (holder.pid, ALICE, 15000)
    assert seen["used_mib"] == {}, "another user's region is not opened"
    refused = ledger.run(BOB, "--gpumem", "1000", "--", "true")
    err = refused.communicate(timeout=60)[1]
    assert refused.returncode == REFUSED
    assert f"process {holder.pid} of {ALICE} holds 15,000 MiB" in err
    beside = ledger.run(BOB, "--gpumem", "300", "--", PROBE, "alloc", "400")
    out, err = beside.communicate(timeout=60)
    assert orjson.loads(out)["got_mib"] == 300, err


def test_nobody_else_can_change_or_remove_it(ledger: Ledger) -> None:
    ledger.run(ALICE, "--gpumem", "15000", "--", "sleep", "60")
    entry = ledger.running()
    path = ledger.path / f"{entry.name}.entry"
    files = files_of(ledger.path, entry)
    denied = "PermissionError"
    assert attempt(BOB, path.unlink) == denied
    assert attempt(BOB, lambda: path.write_text("{}")) == denied
    assert attempt(BOB, lambda: path.rename(ledger.path / "x")) == denied
    assert attempt(BOB, lambda: (ledger.path / "x").rename(path)) in (denied, "FileNotFoundError")
    assert attempt(BOB, lambda: files.rename(ledger.path / "y")) == denied
    assert attempt(BOB, lambda: os.truncate(files / "region.cache", 0)) == denied
    assert attempt(BOB, lambda: (files / "grant").write_text("")) == denied
    assert attempt(BOB, lambda: (files / "more").write_text("")) == denied
    assert attempt(BOB, lambda: list(files.iterdir())) == denied
    assert attempt(BOB, lambda: os.kill(entry.pid, 0)) == denied
    assert listing(ledger.path).running == (entry,)


def test_what_a_user_leaves_is_ignored_by_others_and_removed_by_the_owner_or_root(ledger: Ledger) -> None:
    def left_by_alice() -> set[str]:
        holder = ledger.run(ALICE, "--", "sleep", "60")
        ledger.running()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        return {path.name for path in ledger.path.iterdir() if path.stat().st_uid == ALICE and path.name[0].isdigit()}

    for cleaner in (ALICE, 0):
        left = left_by_alice()
        assert len(left) == 2, left
        granted = ledger.run(BOB, "--", "true")
        assert granted.communicate(timeout=60)[1] == ""
        assert granted.returncode == 0, "what the dead program held is free"
        assert left <= {path.name for path in ledger.path.iterdir()}, "but its files are not bob's to remove"
        assert ledger.ps(cleaner) == []
        assert not left & {path.name for path in ledger.path.iterdir()}


def test_roots_clean_up_cannot_be_led_elsewhere(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("keep")
    dead = Entry(
        pid=os.getpid(), start_ticks=1, boot=processes.boot_id(), uid=BOB, command="", ask=ASK, devices=(DEVICE,)
    )

    def plant() -> None:
        (ledger.path / f"{dead.name}.entry").write_bytes(write_entry(dead))
        files_of(ledger.path, dead).symlink_to(tmp_path)

    assert attempt(BOB, plant) == "done"
    assert ledger.ps(0) == []
    assert (tmp_path / "file").read_text() == "keep"
    assert not [path for path in ledger.path.iterdir() if path.name.startswith(dead.name)]


def test_an_entry_in_anothers_name_counts_for_nobody(ledger: Ledger) -> None:
    ticks = processes.start_ticks(os.getpid())
    assert ticks is not None
    forged = Entry(
        pid=os.getpid(),
        start_ticks=ticks,
        boot=processes.boot_id(),
        uid=ALICE,
        command="",
        ask=ASK,
        devices=(DEVICE,),
        shares=(SHARE,),
    )
    assert attempt(BOB, lambda: (ledger.path / f"{forged.name}.entry").write_bytes(write_entry(forged))) == "done"
    found = listing(ledger.path)
    assert found.running == ()
    assert [problem.got for problem in found.problems] == [f"user {BOB}"]


def test_a_directory_of_one_user_serves_no_other(ledger: Ledger) -> None:
    os.chown(ledger.path, ALICE, ALICE)
    process = ledger.start(BOB, "ps")
    assert "could change your entries" in process.communicate(timeout=60)[1]
    assert process.returncode == 69


def test_the_place_for_all_is_not_made_by_the_command(ledger: Ledger) -> None:
    """Only root decides that a machine's users share their devices."""
    before = SHARED.exists()
    ledger.ps(ALICE)
    assert SHARED.exists() == before


def test_a_place_that_only_root_can_write_says_what_to_do(ledger: Ledger) -> None:
    """What an installer may have made without thinking of users."""
    ledger.path.chmod(0o755)
    process = ledger.start(ALICE, "ps")
    assert f"as root: chmod 1777 {ledger.path}" in process.communicate(timeout=60)[1]
    assert process.returncode == 69
