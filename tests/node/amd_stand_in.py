"""AMD's library as far as tests have it: a stand-in for the binding in Python, and one for the shared library under the
vendor's real binding. No GPU is behind either.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

SOURCE: Final = Path(__file__).with_suffix(".c")
DESCRIPTION: Final = "HAMI_AMD_STAND_IN"
"""Names the file that describes the stand-in library's GPUs."""

MI300X: Final = {
    "market_name": "AMD Instinct MI300X",
    "asic_serial": "0x1F2E3D4C5B6A7988",
    "num_compute_units": 304,
    "target_graphics_version": "gfx942",
}


class Refuses(Exception):
    """The binding's own."""


class StandIn(ModuleType):
    """The binding, with GPUs by the answers they give; a missing answer is refused."""

    AmdSmiException = Refuses

    class AmdSmiMemoryType:
        VRAM = 0

    def __init__(self, *gpus: dict[str, Any], loaded: bool = True) -> None:
        super().__init__("amdsmi")
        self.gpus, self.loaded = gpus, loaded
        self.calls: list[str] = []

    def amdsmi_init(self) -> None:
        if not self.loaded:
            raise Refuses("driver not loaded")
        self.calls.append("amdsmi_init")

    def amdsmi_shut_down(self) -> None:
        self.calls.append("amdsmi_shut_down")

    def amdsmi_get_processor_handles(self) -> list[dict[str, Any]]:
        if not self.loaded:
            raise Refuses("driver unloaded")
        return list(self.gpus)

    def amdsmi_get_gpu_asic_info(self, gpu: dict[str, Any]) -> Any:
        return self._told(gpu, "asic")

    def amdsmi_get_gpu_memory_total(self, gpu: dict[str, Any], kind: int) -> Any:
        return self._told(gpu, "memory")

    def amdsmi_topo_get_numa_node_number(self, gpu: dict[str, Any]) -> Any:
        return self._told(gpu, "numa")

    def amdsmi_get_gpu_total_ecc_count(self, gpu: dict[str, Any]) -> Any:
        return self._told(gpu, "ecc")

    def amdsmi_get_gpu_device_bdf(self, gpu: dict[str, Any]) -> Any:
        return self._told(gpu, "bdf")

    def amdsmi_get_gpu_enumeration_info(self, gpu: dict[str, Any]) -> Any:
        return self._told(gpu, "drm")

    def _told(self, gpu: dict[str, Any], what: str) -> Any:
        if what not in gpu:
            raise Refuses(what)
        return gpu[what]


def gpu(index: int, **other: Any) -> dict[str, Any]:
    """An MI300X, with other answers where they are given."""
    asic = {**MI300X, "asic_serial": f"0x1F2E3D4C5B6A798{index}"}
    drm = {"drm_card": 1 + index, "drm_render": 128 + index}
    return {"asic": asic, "memory": 196608 << 20, "numa": index, "drm": drm, **other}


def without_library() -> str | None:
    """Why the stand-in library cannot be used here; None where it can."""
    if importlib.util.find_spec("amdsmi") is None:
        return "the vendor's binding, amdsmi, is not installed"
    return None if shutil.which("cc") else "there is no C compiler"


def build(folder: Path, *, older: bool = False) -> Path:
    """A ROCm tree with the stand-in library, for the environment variable ROCM_PATH. An `older` library than the
    binding lacks functions that this one looks up."""
    spec = importlib.util.find_spec("amdsmi")
    assert spec is not None
    assert spec.origin is not None
    wrapper = Path(spec.origin).with_name("amdsmi_wrapper.py").read_text(encoding="utf-8")
    looked_up = set(re.findall(r"_libraries\['libamd_smi\.so'\]\.(\w+)", wrapper))
    written = set(re.findall(r"^unsigned (\w+)\(", SOURCE.read_text(encoding="utf-8"), re.MULTILINE))
    rest = folder / "rest.c"
    missing = [] if older else sorted(looked_up - written)
    rest.write_text("".join(f"unsigned {name}(void) {{ return 2; }}\n" for name in missing))
    library = folder / "rocm" / "lib" / "libamd_smi.so"
    library.parent.mkdir(parents=True)
    flags = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run(["cc", *flags, "-o", str(library), str(SOURCE), str(rest)], check=True)
    return folder / "rocm"


def environment(rocm: Path, description: Path) -> dict[str, str]:
    """With this a process finds the stand-in library and its GPUs."""
    return {"ROCM_PATH": str(rocm), "ROCM_HOME": str(rocm), DESCRIPTION: str(description)}


def line(index: int, **other: object) -> str:
    """One GPU of the library's description; None leaves a word out."""
    words: dict[str, object] = {
        "serial": f"1F2E3D4C5B6A798{index}",
        "units": 304,
        "memory": 196608,
        "numa": index,
        "card": 1 + index,
        "render": 128 + index,
        "gfx": "942",
        "ue": 0,
        "name": "AMD Instinct MI300X",
    } | other
    return " ".join(f"{key}={value}" for key, value in words.items() if value is not None)


def describe(path: Path, *lines: str) -> None:
    """Write a description so that a reader sees the old one or the new one."""
    fresh = path.with_suffix(".new")
    fresh.write_text("".join(f"{each}\n" for each in lines))
    fresh.replace(path)


def run(code: str, given: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """Python code in a process of its own: the binding loads its library once."""
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **given}, capture_output=True, text=True, timeout=60
    )
