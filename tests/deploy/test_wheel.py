"""The wheel carries all that runs without the source tree, and it runs."""

import platform
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
START = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import hami
assert hami.__file__.startswith(sys.path[0]), hami.__file__
from hami.__main__ import main
main()
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the tracked files, so that nothing else of this tree gets in."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    for name in filter(None, tracked):
        path = source / name.decode()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((ROOT / name.decode()).read_bytes())
    subprocess.run(
        [*(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"), "-w", str(built), "."],
        cwd=source,
        check=True,
        timeout=600,
    )
    (found,) = built.glob("*.whl")
    return found


def test_it_holds_the_native_parts_and_no_sources_of_others(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for part in ("libvgpu.so", "sim/libcuda.so.1", "sim/libnvidia-ml.so.1", "sim/state.def", "sim/gpuprobe"):
        assert f"hami/native/{part}" in names
    other = {"x86_64": "aarch64", "aarch64": "x86_64"}[platform.machine()]
    assert f"hami/native/{other}/libvgpu.so" in names
    assert any(name.startswith("hami/alloc/_fit.") and name.endswith(".so") for name in names)
    assert "hami/simulate/page.css" in names
    assert not [name for name in names if not name.startswith(("hami/", "hami-"))]


def test_a_program_gets_its_share_from_an_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    place = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    machine = tmp_path / "machine.yaml"
    machine.write_text("name: wheel\ndevices:\n- {model: Tesla T4}\n")
    probe = place / "hami" / "native" / "sim" / "gpuprobe"
    probe.chmod(0o755)  # an installer keeps the mode, unpacking does not
    done = subprocess.run(
        [
            *(sys.executable, "-c", START, str(place)),
            *("run", "--simulate", str(machine), "--gpumem", "500", "--", str(probe), "info"),
        ],
        env={"PATH": "/usr/bin:/bin", "HAMI_LOCAL_DIR": str(tmp_path / "ledger")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert '"nvml_total_mib": 500.000' in done.stdout
