"""State files: what the command writes, and that a file of another layout is no machine."""

import mmap
from pathlib import Path

import pytest
import yaml
from typer import Typer
from typer.testing import CliRunner

from hami.cli import simulated_machine
from hami.model.names import WireError
from hami.node.simulated import NativeMissing, compile_state, native_dir, state_view
from tests.interpose.simulation import A100, Simulation

NO_DEVICE = 100
DESCRIPTION = {
    "name": "box",
    "driver": {"version": "580.65.06", "cuda": "13.0"},
    "devices": [{"model": A100, "count": 2, "numa": [0, 1], "time_slice_us": 500}],
    "links": {"nvlink": "switch"},
    "faults": [{"call": "cuInit", "nth": 2, "result": 999}, {"device": 1, "xid": 79, "after_s": 1.5}],
}


def test_the_file_says_what_the_description_says(tmp_path: Path) -> None:
    (tmp_path / "machine.yaml").write_text(yaml.safe_dump(DESCRIPTION))
    machine = simulated_machine.run(tmp_path / "machine.yaml", tmp_path / "state")
    with (tmp_path / "state").open("r+b") as file:
        state = state_view(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    assert (state.device_count, state.fault_count, state.cuda_version) == (2, 2, 13000)
    assert (state.driver_version, state.machine) == (b"580.65.06", b"box")
    second = state.devices[1]
    assert (second.uuid.decode(), second.name.decode()) == (machine.devices[1].uuid, A100)
    assert (second.memory_bytes, second.context_bytes, second.time_slice_ns) == (81920 << 20, 300 << 20, 500_000)
    assert (second.numa, second.switch_links, second.sm_count) == (1, 12, 108)
    call, xid = state.faults[0], state.faults[1]
    assert (call.call, call.nth, call.has_result, call.result) == (b"cuInit", 2, 1, 999)
    assert (xid.device, xid.xid, xid.after_ns) == (1, 79, 1_500_000_000)
    assert (state.ready, set(state.used)) == (0, {0}), "what the libraries own starts as zeros"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["machine.yaml", "state"], "no half-written file stays"


def test_the_command_lists_devices_as_simulated_and_names_what_it_refuses(tmp_path: Path) -> None:
    app = Typer()
    app.command()(simulated_machine.simulated_machine)
    good, bad = tmp_path / "good.json", tmp_path / "bad.yaml"
    good.write_text('{"devices": [{"model": "Tesla T4"}]}')
    bad.write_text("devices: [{model: Tesla T4, numa: far}]")
    done = CliRunner().invoke(app, [str(good), "--state", str(tmp_path / "state"), "--name", "n1"])
    assert done.exit_code == 0
    assert "Tesla T4  15360 MiB  simulated" in done.output
    refused = CliRunner().invoke(app, [str(bad), "--state", str(tmp_path / "other")])
    assert refused.exit_code == simulated_machine.BAD_DATA
    assert "machine.devices[0].numa" in refused.stderr
    assert not (tmp_path / "other").exists()
    (tmp_path / "text").write_text("{")
    with pytest.raises(WireError):
        simulated_machine.run(tmp_path / "text", tmp_path / "other")


@pytest.mark.parametrize("field", ["magic", "version", "size", "device_count"])
def test_a_state_of_another_layout_is_no_machine(tmp_path: Path, field: str) -> None:
    machine = Simulation(tmp_path)
    with machine.state.open("r+b") as file:
        state = state_view(mmap.mmap(file.fileno(), 0))
    setattr(state, field, getattr(state, field) + 100)
    with machine.client() as client:
        assert client.init() == NO_DEVICE


def test_a_cut_off_state_is_no_machine(tmp_path: Path) -> None:
    machine = Simulation(tmp_path)
    with machine.state.open("r+b") as file:
        file.truncate(4096)
    with machine.client() as client:
        assert client.init() == NO_DEVICE


def test_a_machine_made_anew_is_another_machine(tmp_path: Path) -> None:
    machine = Simulation(tmp_path)
    with machine.client() as before:
        assert before.use() == 0
        compile_state(machine.machine, machine.state)
        with machine.client() as after:
            assert after.use() == 0
            rc, free, total = after.info()
            assert (rc, total - free) == (0, 100 << 20)


def test_native_parts_that_are_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine = Simulation(tmp_path)
    monkeypatch.setenv("HAMI_NATIVE_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(NativeMissing, match="nowhere"):
        native_dir()
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "libvgpu.so").touch()
    monkeypatch.setenv("HAMI_NATIVE_DIR", str(tmp_path / "half"))
    assert native_dir() == tmp_path / "half"
    with pytest.raises(NativeMissing, match=r"state\.def"):
        compile_state(machine.machine, tmp_path / "other")
