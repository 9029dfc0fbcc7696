"""Finding a grant's container among the node's cgroups, with real processes in a played tree."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hami.model.names import PodUid
from hami.node.cgroups import Cgroups, is_version_2

UID = PodUid("0a1b2c3d-1111-2222-3333-444455556666")
OTHER = PodUid("ffffffff-1111-2222-3333-444455556666")
GRANT = "0123456789abcdef0123456789abcdef"
SYSTEMD = f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID.replace('-', '_')}.slice"
LAYOUTS = [
    pytest.param(f"kubepods/burstable/pod{UID}/0123abcd", id="cgroupfs"),
    pytest.param(f"kubepods/pod{UID}/0123abcd", id="cgroupfs, guaranteed"),
    pytest.param(f"{SYSTEMD}/cri-containerd-0123abcd.scope", id="systemd"),
    pytest.param(f"kubelet.slice/nested/{SYSTEMD}/crio-0123abcd.scope", id="systemd below a root of its own"),
]

privileged = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare to mount as a runtime does"
)


def group(root: Path, name: str, *pids: int) -> Path:
    directory = root / name
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
    return directory


@contextmanager
def container(root: Path, grant_id: str) -> Iterator[int]:
    """A process that has a grant's directory mounted at /etc/hami, in a mount namespace of its own; its pid."""
    etc = root / "grants" / grant_id / "etc"
    etc.mkdir(parents=True, exist_ok=True)
    script = (
        f"mount -t tmpfs none /etc && mkdir /etc/hami && mount --bind {etc} /etc/hami && echo ready && exec sleep 60"
    )
    process = subprocess.Popen(["unshare", "--mount", "sh", "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process.pid
    finally:
        process.kill()
        process.communicate()


@privileged
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_container_is_found_by_what_it_has_mounted(tmp_path: Path, layout: str) -> None:
    root = tmp_path / "cgroup"
    group(root, "system.slice/sshd.service", os.getpid())
    group(root, str(Path(layout).parent / "pause"), os.getpid())
    found = Cgroups(root)
    with container(tmp_path, GRANT) as pid:
        wanted = group(root, layout, pid)
        assert found.of(GRANT, UID) == wanted
        assert found.of(GRANT, UID) == wanted, "remembered"
        assert found.of("f" * 32, UID) is None, "another grant's"
        assert Cgroups(root).of(GRANT, OTHER) is None, "another pod's"


@privileged
def test_the_group_below_the_pod_is_the_containers_whatever_is_below_it(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    with container(tmp_path, GRANT) as pid:
        wanted = group(root, f"kubepods/pod{UID}/0123abcd")
        group(root, f"kubepods/pod{UID}/0123abcd/init.scope", pid)
        assert Cgroups(root).of(GRANT, UID) == wanted


@privileged
def test_a_container_that_starts_again_is_another_group(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    found = Cgroups(root)
    with container(tmp_path, GRANT) as pid:
        first = group(root, f"kubepods/pod{UID}/first", pid)
        assert found.of(GRANT, UID) == first
    (first / "cgroup.procs").write_text("")
    assert found.of(GRANT, UID) is None
    with container(tmp_path, GRANT) as pid:
        second = group(root, f"kubepods/pod{UID}/second", pid)
        assert found.of(GRANT, UID) == second
    shutil.rmtree(root / "kubepods")
    assert found.of(GRANT, UID) is None


def test_processes_that_are_gone_and_groups_that_are_not_there(tmp_path: Path) -> None:
    group(tmp_path, f"kubepods/pod{UID}/0123abcd", 2**22 + 1)
    assert Cgroups(tmp_path).of(GRANT, UID) is None
    assert Cgroups(tmp_path / "nowhere").of(GRANT, UID) is None


def test_the_kernels_tree_is_told_from_a_played_one(tmp_path: Path) -> None:
    assert not is_version_2(tmp_path)
    (tmp_path / "cgroup.controllers").touch()
    assert is_version_2(tmp_path)
