"""Inputs that nobody thought of: a short run of libFuzzer on each program of `fuzz/`, from the seeds there.

`HAMI_FUZZ_SECONDS` makes it longer than ten seconds a program. What fails is kept as `crash-...` where the test ran.
"""

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.interpose.debian import ensure, needed

FUZZ = Path(__file__).parent / "fuzz"
INTERPOSE = Path(__file__).parents[2] / "interpose"
SECONDS = int(os.environ.get("HAMI_FUZZ_SECONDS", "10"))
SOURCES = {
    "config": ("config.c", "override.c", "prim.c"),
    "lookup": ("hook.c", "genuine.c", "log.c", "prim.c"),
    "region": ("region.c", "account.c", "prim.c"),
    "region_old": ("region_old.c",),
}
"""Program -> the library's files that it tries."""


@pytest.fixture(scope="module")
def compiler() -> list[str]:
    clang = needed("clang", "clang")
    ask = [clang, f"--print-file-name=libclang_rt.fuzzer-{platform.machine()}.a"]
    ensure("libclang-rt-dev", lambda: "/" in subprocess.run(ask, capture_output=True, text=True, check=True).stdout)
    options = ["-g", "-O1", "-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", f"-I{INTERPOSE}", f"-I{FUZZ}"]
    return [clang, *options, "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]


def _build(name: str, compiler: list[str], directory: Path) -> Path:
    program = directory / name
    stand_ins = [str(FUZZ / "stand_ins.c")] if name == "lookup" else []
    sources = [str(FUZZ / f"{name}.c"), *stand_ins, *(str(INTERPOSE / source) for source in SOURCES[name])]
    made = subprocess.run([*compiler, *sources, "-o", str(program)], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-3000:]
    return program


def test_every_program_is_run() -> None:
    assert {path.stem for path in FUZZ.glob("*.c")} - {"stand_ins"} == set(SOURCES)


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_short_run(name: str, compiler: list[str], tmp_path: Path) -> None:
    seeds = FUZZ / "seeds" / name
    assert any(seeds.iterdir())
    corpus = tmp_path / "corpus"
    shutil.copytree(seeds, corpus)
    limits = [f"-max_total_time={SECONDS}", "-timeout=20", "-max_len=2000", "-rss_limit_mb=1024"]
    program = _build(name, compiler, tmp_path)
    run = subprocess.run(
        [str(program), *limits, f"-artifact_prefix={tmp_path}/", str(corpus)],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "ASAN_OPTIONS": "detect_leaks=1"},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=SECONDS + 120,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    assert "Done " in run.stderr
