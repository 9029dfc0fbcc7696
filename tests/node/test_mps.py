"""The MPS daemon as a program that plays it; no card and none of the vendor's software is needed."""

import os
from pathlib import Path

import pytest

from hami.node.installed import hook_tree
from hami.node.mps import MpsDaemon, MpsError, SimulatedMps, mps_paths

PLAYED = """#!/bin/sh
echo "$*" >> {calls}
case "$1" in
-d) [ -n "{old}" ] && [ -n "$2" ] && exit 1
    [ -n "$CUDA_VISIBLE_DEVICES" ] && exit 1
    [ -d "$CUDA_MPS_LOG_DIRECTORY" ] || exit 1
    touch "$CUDA_MPS_PIPE_DIRECTORY/control" ;;
*)  read -r command
    [ "$command" = get_server_list ] && [ -e "$CUDA_MPS_PIPE_DIRECTORY/control" ] ;;
esac
"""


def daemon(root: Path, *, old: bool = False) -> MpsDaemon:
    program = root / "control"
    program.write_text(PLAYED.format(calls=root / "calls", old="yes" if old else ""))
    program.chmod(0o755)
    return MpsDaemon(mps_paths(hook_tree(str(root)), Path("/dev/shm/x")), str(program), root / "shm")


def test_a_daemon_is_started_and_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # the agent's own, not the daemon's
    mps = daemon(tmp_path)
    assert not mps.alive()
    mps.start()
    assert mps.alive()
    assert (tmp_path / "calls").read_text().splitlines()[1] == "-d -multiuser-server"
    for directory in (mps.paths.pipe, mps.paths.log, mps.own_shm):
        assert directory.stat().st_mode & 0o7777 == 0o1777, "programs run as any user"
    (mps.paths.pipe / "control").unlink()
    assert not mps.alive()


def test_an_older_release_is_started_in_its_own_words(tmp_path: Path) -> None:
    mps = daemon(tmp_path, old=True)
    mps.start()
    assert (tmp_path / "calls").read_text().splitlines() == ["-d -multiuser-server", "-d"]
    assert mps.alive()


def test_where_there_is_none(tmp_path: Path) -> None:
    mps = MpsDaemon(mps_paths(hook_tree(str(tmp_path)), None), str(tmp_path / "nothing"))
    assert not mps.alive()
    with pytest.raises(MpsError, match="not installed"):
        mps.start()


def test_one_that_does_not_start(tmp_path: Path) -> None:
    mps = daemon(tmp_path)
    Path(mps.program).write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(MpsError, match="does not start"):
        mps.start()


def test_a_simulated_one_says_so(tmp_path: Path) -> None:
    mps = SimulatedMps(mps_paths(hook_tree(str(tmp_path)), None))
    assert not mps.alive()
    mps.start()
    assert mps.alive()
    assert os.listdir(mps.paths.pipe) == ["simulated"]
