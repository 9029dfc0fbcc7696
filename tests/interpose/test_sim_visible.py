"""What a process sees: `NVIDIA_VISIBLE_DEVICES` as the NVIDIA runtime reads it, `CUDA_VISIBLE_DEVICES` as CUDA does."""

from pathlib import Path

import pytest

from tests.interpose.simulation import A100, Simulation

NO_DEVICE = 100


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    directory: Path = tmp_path_factory.mktemp("visible")
    return Simulation(directory, devices=[{"model": A100, "count": 4, "context_mib": 0}])


@pytest.mark.parametrize(
    ("container", "cuda", "expected"),
    [
        (None, None, [0, 1, 2, 3]),
        ("all", None, [0, 1, 2, 3]),
        ("none", None, []),
        ("void", None, []),
        ("", None, []),
        ("2", None, [2]),
        ("3,1", None, [1, 3]),  # the container's devices keep the machine's order
        ("{2}", None, [2]),
        ("{3},{0}", None, [0, 3]),
        ("{1},GPU-unknown", None, [1]),
        (None, "1", [1]),
        (None, "3,0", [3, 0]),  # CUDA's keep the list's
        (None, "", []),
        (None, "0,9,1", [0]),  # the list ends at the first that names nothing
        (None, "-1", []),
        (None, "0,0", []),
        (None, "{2},{0}", [2, 0]),
        ("{1},{3}", "1", [3]),  # ordinals count what the container has
        ("{1},{3}", "{0}", []),
        ("/var/run/nvidia-container-devices", None, []),  # the directory is not there
    ],
)
def test_visible_devices(machine: Simulation, container: str | None, cuda: str | None, expected: list[int]) -> None:
    wanted = {"NVIDIA_VISIBLE_DEVICES": container, "CUDA_VISIBLE_DEVICES": cuda}
    environment = {k: v.format(*machine.uuids) for k, v in wanted.items() if v is not None}
    with machine.client(**environment) as client:
        rc = client.init()
        assert rc == (0 if expected else NO_DEVICE)
        if expected:
            assert [client.uuid(n) for n in range(client.count())] == [machine.uuids[n] for n in expected]


def test_a_unique_start_of_a_uuid_is_enough(machine: Simulation) -> None:
    with machine.client(CUDA_VISIBLE_DEVICES=machine.uuids[2][:12]) as client:
        assert client.init() == 0
        assert [client.uuid(n) for n in range(client.count())] == [machine.uuids[2]]
