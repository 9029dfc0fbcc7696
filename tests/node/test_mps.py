"""The MPS daemon as a program that plays it; no card and none of the vendor's software is needed."""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hami.node.installed import hook_tree
from hami.node.mps import MpsError, SimulatedMps, mps_paths
from hami.node.mps_daemon import MpsDaemon

PLACE = "0123456789abcdef" * 2
PLAYED = """#!/bin/sh
[ "$1" = -p ] && echo "usage: control [-d | -f]" && exit 1
echo "$*" >> {calls}
case "$1" in
-d) [ -n "{old}" ] && [ -n "$2" ] && exit 1
    [ -n "$CUDA_VISIBLE_DEVICES" ] && exit 1
    [ -d "$CUDA_MPS_LOG_DIRECTORY" ] || exit 1
    touch "$CUDA_MPS_PIPE_DIRECTORY/control" ;;
*)  read -r command server
    [ -e "$CUDA_MPS_PIPE_DIRECTORY/control" ] || exit 1
    case "$command" in
    get_server_list) ls "$CUDA_MPS_PIPE_DIRECTORY/servers" 2> /dev/null; exit 0 ;;
    get_server_status) [ -n "{old}" ] && echo unknown command && exit 0
        cat "$CUDA_MPS_PIPE_DIRECTORY/servers/$server" ;;
    esac ;;
esac
"""


@pytest.fixture
def root() -> Iterator[Path]:
    """A short path, as the daemon's sockets need it."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


def daemon(root: Path, *, old: bool = False) -> MpsDaemon:
    program = root / "control"
    program.write_text(PLAYED.format(calls=root / "calls", old="yes" if old else ""))
    program.chmod(0o755)
    # As on the node itself, wherever this runs.
    return MpsDaemon(mps_paths(hook_tree(str(root)), Path("/dev/shm/x")), str(program), root / "shm", root / "no proc")


def test_a_daemon_is_started_and_asked(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # the agent's own, not the daemon's
    mps = daemon(root)
    assert not mps.alive()
    mps.start()
    assert mps.alive()
    assert (root / "calls").read_text().splitlines()[1] == "-d -multiuser-server"
    assert mps.paths.pipe_of("0" * 32) == mps.paths.pipe, "all share one place"
    for directory in (mps.paths.pipe, mps.paths.log, mps.own_shm):
        assert directory.stat().st_mode & 0o7777 == 0o1777, "programs run as any user"
    (mps.paths.pipe / "control").unlink()
    assert not mps.alive()


def test_an_older_release_is_started_in_its_own_words(root: Path) -> None:
    mps = daemon(root, old=True)
    mps.start()
    assert (root / "calls").read_text().splitlines() == ["-d -multiuser-server", "-d"]
    assert mps.alive()


@pytest.mark.parametrize(("old", "users"), [(False, 0), (True, 1)])
def test_one_that_serves_a_user_at_a_time_is_told_of(
    root: Path, caplog: pytest.LogCaptureFixture, old: bool, users: int
) -> None:
    daemon(root, old=old).start()
    assert sum("one user at a time" in record.message for record in caplog.records) == users


@pytest.mark.parametrize(
    ("states", "stuck"),
    [
        ({}, None),
        ({"41": "ACTIVE"}, None),
        ({"41": "INITIALIZING"}, None),
        ({"41": "ACTIVE", "42": "FAULT"}, "42"),
    ],
    ids=["no server yet", "active", "starting", "one at fault"],
)
def test_a_server_with_a_fault_takes_no_programs(root: Path, states: dict[str, str], stuck: str | None) -> None:
    mps = daemon(root)
    assert mps.fault() == "", "without a daemon there is nothing to ask"
    mps.start()
    servers = mps.paths.pipe / "servers"
    servers.mkdir()
    for server, state in states.items():
        (servers / server).write_text(f"{state}\n")
    assert mps.alive()
    assert mps.fault() == (f"MPS server {stuck} takes no programs until the one that failed has ended" if stuck else "")


def test_an_older_release_knows_no_states(root: Path) -> None:
    mps = daemon(root, old=True)
    mps.start()
    (mps.paths.pipe / "servers").mkdir()
    (mps.paths.pipe / "servers" / "41").write_text("FAULT\n")
    assert mps.fault() == ""


@pytest.mark.parametrize(
    ("namespaces", "own"),
    [
        pytest.param({"self/ns/pid": "own", "self/ns/mnt": "container", "1/ns/mnt": "container"}, True, id="own pids"),
        pytest.param({"self/ns/pid": "node", "self/ns/mnt": "container", "1/ns/mnt": "node"}, False, id="the node's"),
        pytest.param({"self/ns/pid": "node", "self/ns/mnt": "container"}, False, id="the node's, not to be looked at"),
    ],
)
def test_a_daemon_with_pids_of_its_own_is_told_of(
    root: Path, caplog: pytest.LogCaptureFixture, namespaces: dict[str, str], own: bool
) -> None:
    """Programs are pid 0 for it, and it does not limit their memory."""
    proc = root / "proc"
    for path, name in namespaces.items():
        (proc / path).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
        (proc / path).hardlink_to(root / name)
    replace(daemon(root), proc=proc).start()
    assert any("does not limit the memory" in record.message for record in caplog.records) == own


def test_directories_too_deep_for_a_socket(root: Path) -> None:
    mps = daemon(root)
    deep = replace(mps, base=replace(mps.base, pipe=root / ("d" * 100)))
    with pytest.raises(MpsError, match="too long a path"):
        deep.start()
    assert not deep.paths.pipe.exists()


def test_where_there_is_none(root: Path) -> None:
    mps = MpsDaemon(mps_paths(hook_tree(str(root)), None), str(root / "nothing"))
    assert not mps.alive()
    with pytest.raises(MpsError, match="not installed"):
        mps.start()


def test_one_that_does_not_start(root: Path) -> None:
    mps = daemon(root)
    Path(mps.program).write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(MpsError, match="does not start"):
        mps.start()


def test_a_simulated_one_says_so(root: Path) -> None:
    mps = SimulatedMps(mps_paths(hook_tree(str(root)), None))
    assert not mps.alive()
    mps.start()
    assert mps.alive()
    assert os.listdir(mps.paths.pipe) == ["simulated"]
    assert mps.paths.pipe_of(PLACE) == mps.paths.pipe
    mps.admit(PLACE, 30, 1000)
    assert (os.listdir(mps.paths.pipe), mps.places()) == (["simulated"], frozenset())


def test_a_simulated_one_with_a_place_for_each_container(root: Path) -> None:
    mps = SimulatedMps(mps_paths(hook_tree(str(root)), None), named=True)
    assert mps.places() == frozenset()
    mps.start()
    for percent, pinned_mib, text in (
        (0, 0, ""),
        (30, 1600, "active_thread_percentage=30\npinned_memory_limit=1600M\n"),
        (0, 1600, "pinned_memory_limit=1600M\n"),
    ):
        mps.admit(PLACE, percent, pinned_mib)
        assert (mps.paths.pipe_of(PLACE) / "simulated").read_text() == text
    assert mps.places() == {PLACE}
    mps.dismiss(PLACE)
    mps.dismiss(PLACE)
    assert mps.places() == frozenset()


def test_a_simulated_place_on_a_disk_that_is_full(root: Path) -> None:
    mps = SimulatedMps(mps_paths(hook_tree(str(root)), None), named=True)
    mps.start()
    (mps.base.pipe / "hami").touch()  # nothing can be made below it
    with pytest.raises(MpsError, match=r"Not a directory|File exists"):
        mps.admit(PLACE, 30, 0)
