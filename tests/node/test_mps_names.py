"""The MPS daemon in the protocol with names, as a program that plays it by the vendor's description."""

import logging
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hami.node.installed import hook_tree
from hami.node.mps import MpsError, mps_paths
from hami.node.mps_daemon import MpsDaemon

PLACE, OTHER = "0123456789abcdef" * 2, "f" * 32
# A directory is what it stands for: a server below the pipes, a namespace below that.
PLAYED = """#!/bin/sh
root="$CUDA_MPS_PIPE_DIRECTORY"
echo "$*" >> {calls}
[ $# = 0 ] && [ ! -e {legacy} ] && exit 1
[ $# = 0 ] && exit 0
if [ "$1" = -d ]; then
    [ -e "$root/control" ] && echo "already running" >&2 && exit 1
    touch "$root/control"
    exit 0
fi
shift 2
[ "$1" = -h ] && echo "modules: server, namespace, client" && exit 0
[ -e "$root/control" ] && [ ! -e {legacy} ] || {{ echo "no such daemon" >&2; exit 1; }}
case "$1 $2" in
"server create") [ ! -e {refuses} ] && mkdir "$root/$3" || exit 1 ;;
"server get") [ -d "$root/$3" ] || exit 1
    case "$4" in name) echo "$3" ;; status) cat {status} ;; *) exit 1 ;; esac ;;
"namespace create") [ "$4" = --server=hami ] && [ ! -e {full} ] && mkdir "$root/hami/$3" ;;
"namespace get") [ "$5" = pipe-directory ] && [ -d "$root/$4/$3" ] && echo "$root/$4/$3" ;;
"namespace set") echo "$5 $6" > "$root/hami/$3/limits" ;;
"namespace list") ls "$root/hami" | sed 's/$/,hami,Ready,-,-/'; echo default,hami,Ready,-,- ;;
"namespace delete") [ "$5" = --force ] && rm -r "$root/hami/$3" ;;
esac
"""


@pytest.fixture
def root() -> Iterator[Path]:
    """A short path, as the daemon's sockets need it."""
    with tempfile.TemporaryDirectory() as path:
        (Path(path) / "status").write_text("Ready\n")
        yield Path(path)


@pytest.fixture
def mps(root: Path) -> MpsDaemon:
    program = root / "control"
    names = ("calls", "legacy", "refuses", "status", "full")
    program.write_text(PLAYED.format(**{name: root / name for name in names}))
    program.chmod(0o755)
    return MpsDaemon(mps_paths(hook_tree(str(root)), None), str(program), root / "shm", root / "no proc")


def limits(mps: MpsDaemon, place: str) -> list[str]:
    return (mps.paths.pipe_of(place) / "limits").read_text().split()


def test_it_is_started_with_a_server_for_the_containers(mps: MpsDaemon, root: Path) -> None:
    assert not mps.alive()
    mps.start()
    assert mps.alive()
    assert (mps.fault(), mps.paths.server) == ("", "hami")
    assert "-d -p 3 -m" in (root / "calls").read_text().splitlines()


def test_each_container_has_a_place_with_its_limits(mps: MpsDaemon) -> None:
    mps.start()
    mps.admit(PLACE, 30, 1600)
    mps.admit(OTHER, 0, 0)
    assert mps.paths.pipe_of(PLACE).is_dir()
    assert limits(mps, PLACE) == ["--active-thread-percentage=30", "--pinned-memory-limit=1600M"]
    assert limits(mps, OTHER) == ["--active-thread-percentage=100"], "one that sets none has no other's"
    assert mps.places() == {PLACE, OTHER}, "the server's own is no container's"
    mps.admit(PLACE, 40, 1600)
    assert limits(mps, PLACE)[0] == "--active-thread-percentage=40"
    mps.dismiss(PLACE)
    assert mps.places() == {OTHER}


def test_an_agent_that_starts_again_finds_it(mps: MpsDaemon, root: Path) -> None:
    mps.start()
    mps.admit(PLACE, 30, 0)
    again = MpsDaemon(mps.base, mps.program, mps.own_shm, mps.proc)
    assert again.alive()
    assert again.paths == mps.paths
    assert again.places() == {PLACE}


def test_a_server_that_is_gone_is_made_again(mps: MpsDaemon) -> None:
    mps.start()
    (mps.paths.pipe / "hami").rmdir()
    assert not mps.alive()
    mps.start()
    assert mps.alive()


def test_no_place_no_container(mps: MpsDaemon, root: Path) -> None:
    mps.start()
    (root / "full").touch()
    with pytest.raises(MpsError, match=f"no namespace {PLACE}"):
        mps.admit(PLACE, 30, 0)


def test_a_place_elsewhere_than_it_should_be(mps: MpsDaemon, root: Path) -> None:
    """A container would be given a directory without a daemon, and run without limits."""
    mps.start()
    program = Path(mps.program)
    program.write_text(program.read_text().replace('echo "$root/$4/$3" ;;', 'echo "/run/$4/$3" ;;'))
    with pytest.raises(MpsError, match="no namespace"):
        mps.admit(PLACE, 30, 0)


def test_a_place_that_takes_no_limits(mps: MpsDaemon) -> None:
    mps.start()
    program = Path(mps.program)
    program.write_text(program.read_text().replace('"namespace set")', '"namespace set") exit 1;;\n"namespace x")'))
    with pytest.raises(MpsError, match="without limits"):
        mps.admit(PLACE, 30, 0)


def test_a_server_that_cannot_be_made(mps: MpsDaemon, root: Path) -> None:
    (root / "refuses").touch()
    with pytest.raises(MpsError, match="has no server hami"):
        mps.start()
    assert not mps.alive()


def test_a_server_with_a_fault(mps: MpsDaemon, root: Path) -> None:
    mps.start()
    (root / "status").write_text("Fault\n")
    assert mps.fault() == "MPS server hami takes no programs until the one that failed has ended"


def test_a_daemon_of_the_older_protocol_that_runs_already(
    mps: MpsDaemon, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever started it; it has one place for all."""
    caplog.set_level(logging.WARNING)
    (root / "legacy").touch()
    assert mps.alive()
    assert mps.paths == mps.base
    mps.admit(PLACE, 30, 0)
    mps.dismiss(PLACE)
    assert mps.places() == frozenset()
    assert not any("namespace" in call for call in (root / "calls").read_text().splitlines())


def test_directories_too_deep_for_a_places_socket(mps: MpsDaemon, root: Path) -> None:
    deep = replace(mps, base=replace(mps.base, pipe=root / ("d" * (107 - len(str(root)) - 45))))
    with pytest.raises(MpsError, match="too long a path"):
        deep.start()
