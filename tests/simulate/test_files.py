"""The two files as they lie there: packed, mixed, too large, unreadable."""

import gzip
import hashlib
import json
from pathlib import Path

import pytest

from hami.model.names import WireError
from hami.simulate import files
from hami.vendors import registry
from tests.simulate.worlds import NODES, PODS, node, pod

ROWS = NODES + "a,64000,1024,2,NVIDIA-A\n"
TASKS = PODS + "p,1000,512,1,500,,,\n"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("nodes", "pods"),
    [(ROWS, TASKS), (ROWS, json.dumps(pod())), (json.dumps(node()), TASKS), (json.dumps(node()), json.dumps(pod()))],
    ids=["tables", "table and manifest", "manifest and table", "manifests"],
)
def test_either_file_has_either_form(tmp_path: Path, nodes: str, pods: str, packed: bool) -> None:
    paths = tmp_path / f"nodes{'.gz' * packed}", tmp_path / f"pods{'.gz' * packed}"
    for path, text in zip(paths, (nodes, pods), strict=True):
        path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    workload, sources = files.load(*paths, registry())
    assert workload.devices in (1, 2)
    assert [task.milli for task in workload.tasks] == [500]
    assert [source.sha256 for source in sources] == [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def read(path: Path) -> str:
    other = path.with_name("pods")
    other.write_text(TASKS)
    with pytest.raises(WireError) as caught:
        files.load(path, other, registry())
    assert caught.value.field == str(path)
    return caught.value.expected


def test_packed_members_follow_each_other(tmp_path: Path) -> None:
    (tmp_path / "n.gz").write_bytes(gzip.compress(NODES.encode()) + gzip.compress(b"a,1,1,2,G\n"))
    (tmp_path / "p").write_text(TASKS)
    assert files.load(tmp_path / "n.gz", tmp_path / "p", registry())[0].devices == 2


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"kind: Node", "a gzip file (Error -3"),
        (gzip.compress(ROWS.encode())[:-20], "a gzip file (it ends too early)"),
        (gzip.compress(ROWS.encode())[:-4] + b"xxxx", "a gzip file (Error -3"),
        (b"", "at least one Node"),
    ],
)
def test_a_broken_packed_file_is_named(tmp_path: Path, data: bytes, expected: str) -> None:
    (tmp_path / "n.gz").write_bytes(data)
    assert read(tmp_path / "n.gz").startswith(expected)


def test_what_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "n").write_bytes(b"kind: \xff")
    assert read(tmp_path / "n") == "UTF-8 text (invalid start byte at byte 6)"


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_file_is_bounded_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setattr(files, "MOST_BYTES", 2**20)
    path = tmp_path / f"n{suffix}"
    text = b"#" * 2**20 + b"\n"
    path.write_bytes(gzip.compress(text) if suffix else text)
    assert read(path) == "at most 1 MiB, unpacked"


def test_a_missing_file_is_the_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        files.load(tmp_path / "nowhere", tmp_path / "nowhere", registry())
