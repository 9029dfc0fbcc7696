"""The generated messages are what generate.py makes of the .proto files."""

import re
from pathlib import Path

import pytest

from hami.agent.pb.generate import HERE, SOURCES, generate


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("pb")
    generate(target)
    return target / "hami/agent/pb"


@pytest.mark.parametrize("suffix", ["_grpc.py", "_pb2.pyi", "_pb2.py"])
@pytest.mark.parametrize("source", SOURCES)
def test_in_step(fresh: Path, source: str, suffix: str) -> None:
    name = source.removesuffix(".proto") + suffix
    assert _essence(HERE / name) == _essence(fresh / name)


def _essence(path: Path) -> str:
    """The text without what only names the compiler's version."""
    text = path.read_text()
    text = re.sub(r"# Protobuf Python Version: .*\n", "", text)
    return re.sub(r"ValidateProtobufRuntimeVersion\([^)]*\)", "", text)
