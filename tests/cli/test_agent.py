"""`hami agent`: words of flags and files, before anything is started."""

from pathlib import Path

import pytest

from hami.cli import agent
from hami.model.names import WireError


@pytest.mark.parametrize(
    ("words", "want"),
    [
        ("cdi", "cdi"),
        ("env", "env"),
        ("envvar", "env"),
        ("volume-mounts", "env"),
        ("cdi-cri", "cdi"),
        ("envvar, cdi-annotations", "cdi"),
    ],
)
def test_strategies(words: str, want: str) -> None:
    assert agent._strategy(words) == want


@pytest.mark.parametrize("words", ["", "magic", "cdi,magic"])
def test_unknown_strategies(words: str) -> None:
    with pytest.raises(WireError, match="--devices"):
        agent._strategy(words)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (":9394", ("", 9394)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:9394", ("::1", 9394)),
        ("", None),
        ("0", None),
    ],
)
def test_addresses(text: str, want: tuple[str, int] | None) -> None:
    assert agent._address(text) == want


@pytest.mark.parametrize("text", ["9394", "host", "host:", "host:x", "host:70000", "host:９"])
def test_bad_addresses(text: str) -> None:
    with pytest.raises(WireError, match="--metrics-bind-address"):
        agent._address(text)


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "device-config.yaml"
    path.write_text("nvidia: {deviceSplitCount: 4, deviceMemoryScaling: 1.5, resourceCountName: acme.com/gpu}")
    config = agent._device_config(path, {"device_split_count": 7, "device_memory_scaling": None})
    assert config.nvidia.device_split_count == 7
    assert config.nvidia.device_memory_scaling == 1.5
    assert config.nvidia.resource_count_name == "acme.com/gpu"


def test_a_node_without_overrides(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    assert agent._overrides(path, "n").device_split_count is None
    path.write_text('{"nodeconfig": [{"name": "n", "devicesplitcount": 3}]}')
    assert agent._overrides(path, "n").device_split_count == 3
    path.write_text("{")
    with pytest.raises(WireError, match=r"config\.json"):
        agent._overrides(path, "n")
