"""Every entry point of the vendor's headers is in the coverage table: stood in for, or with the reason why not.

The headers come in the wheels `nvidia-cuda-runtime` and `nvidia-nvml-dev` of CUDA 12 and 13; names of 11.8 are a list.
"""

import importlib.util
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest

INTERPOSE = Path(__file__).parents[2] / "interpose"
SITE = Path(sysconfig.get_path("purelib")) / "nvidia"
INSTALL = "pip install nvidia-cuda-runtime nvidia-nvml-dev (and -cu12) to compare with the vendor's headers"
HEADERS = {"12": ("cuda_runtime/include", "nvml_dev/include"), "13": ("cu13/include", "cu13/include")}
SETTLE = "run: python interpose/coverage.py"


@pytest.fixture(scope="module")
def coverage() -> ModuleType:
    spec = importlib.util.spec_from_file_location("coverage_table", INTERPOSE / "coverage.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _declared(coverage: ModuleType, generation: str) -> set[str]:
    """Every symbol that the headers of one CUDA version declare, those for graphics included."""
    cuda, nvml = (SITE / part for part in HEADERS[generation])
    if not ((cuda / "cuda.h").is_file() and (nvml / "nvml.h").is_file()):
        pytest.skip(f"CUDA {generation}: {INSTALL}")
    symbols = set(coverage.headers.nvml_names([(nvml / "nvml.h").read_text()]))
    for header in sorted(cuda.glob("cuda*.h")):
        symbols |= coverage.headers.declared(header.read_text())
    return symbols


def test_the_table_knows_every_listed_name_and_no_other(coverage: ModuleType) -> None:
    table, faults = coverage.settle(coverage.read(coverage.DATA.read_text()), coverage.listed(), coverage.hooked())
    assert faults == []
    in_table = {name for names in table.values() for name in names}
    assert {coverage.name_of(symbol) for symbol in coverage.hooked()} <= in_table


def test_the_table_and_its_page_are_in_step_with_the_hooks(coverage: ModuleType) -> None:
    text = coverage.DATA.read_text()
    table, _ = coverage.settle(coverage.read(text), coverage.listed(), coverage.hooked())
    table = {section: sorted(names) for section, names in table.items()}
    assert coverage.write(table) == text, SETTLE
    assert coverage.page(table, coverage.listed(), coverage.hooked()) == coverage.PAGE.read_text(), SETTLE


@pytest.mark.parametrize("generation", sorted(HEADERS))
def test_no_header_has_a_name_that_the_table_lacks(coverage: ModuleType, generation: str) -> None:
    declared = _declared(coverage, generation)
    assert len(declared) > 1_000
    told = {name for names in coverage.read(coverage.DATA.read_text()).values() for name in names}
    new = sorted({coverage.name_of(symbol) for symbol in declared} - told)
    assert new == [], "say in interpose/coverage.txt what these do"


def test_names_of_old_versions_are_symbols_of_newer_ones_or_told_apart(coverage: ModuleType) -> None:
    """The list of 11.8 has another source than the others, so that what it alone has is worth a look."""
    lines = (INTERPOSE / "names-11.8.txt").read_text().splitlines()
    old = {line for line in lines if not line.startswith("#")}
    assert len(old) > 800
    newer = _declared(coverage, "12") | _declared(coverage, "13")
    only_old = {coverage.name_of(symbol) for symbol in old - newer}
    assert {name for name in only_old if name.startswith("cuMem")} == {
        *("cuMemHostAlloc", "cuMemcpy"),  # second forms that only profilers tell from the first
        *("cuMemPeerRegister", "cuMemPeerUnregister", "cuMemPeerGetDevicePointer"),
    }


def test_a_new_name_is_noticed(coverage: ModuleType) -> None:
    table = coverage.read(coverage.DATA.read_text())
    _, faults = coverage.settle(table, coverage.listed() | {"cuMemAllocTwice_v2"}, coverage.hooked())
    assert faults == ["cuMemAllocTwice: say in coverage.txt what it does"]


def test_a_new_form_of_a_hooked_function_is_noticed(coverage: ModuleType) -> None:
    table = coverage.read(coverage.DATA.read_text())
    _, faults = coverage.settle(table, coverage.listed() | {"cuMemAlloc_v3"}, coverage.hooked())
    assert faults == ["cuMemAlloc: cuMemAlloc_v3 not in hooks.def, give the reason"]


def test_a_function_that_got_a_hook_moves(coverage: ModuleType) -> None:
    table = coverage.read("[frees] not yet: one day\n  cuOld cuYoung\n")
    settled, faults = coverage.settle(table, {"cuOld", "cuYoung", "cuYoung_v2"}, {"cuOld", "cuYoung"})
    assert faults == []
    assert {section: names for section, names in settled.items() if names} == {
        ("frees", "hooked"): ["cuOld"],
        ("frees", "not yet: one day"): ["cuYoung"],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cuInit\n", "before the first section"),
        ("[dances] why\n  cuInit\n", r"\[dances\]: must be one of allocates"),
        ("[frees] a\n  cuInit\n[frees] b\n  cuInit\n", "given twice: cuInit"),
    ],
)
def test_a_malformed_table_is_refused(coverage: ModuleType, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        coverage.read(text)
