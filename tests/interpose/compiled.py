"""Programs of clients/ compiled as a user would: with the system's compiler, against the libraries they name."""

import shutil
import subprocess
from pathlib import Path

from hami.node.simulated import native_dir

SOURCES = Path(__file__).parent / "clients"
INTERPOSE = Path(__file__).parents[2] / "interpose"
DRIVER = native_dir() / "sim" / "libcuda.so.1"


def compiled(
    directory: Path, name: str, *options: str | Path, shared: bool = False, sources: tuple[str, ...] = ()
) -> Path:
    """`directory/name`, made of `clients/name.c` (or of these sources) with further options of the compiler."""
    compiler = shutil.which("cc")
    assert compiler, "a C compiler is part of the development environment"
    out = directory / (f"{name}.so" if shared else name)
    files = [SOURCES / f"{source}.c" for source in sources or (name,)]
    kind = ["-shared", "-fPIC"] if shared else []
    fixed = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{INTERPOSE}", f"-I{INTERPOSE / 'sim'}"]
    made = subprocess.run(
        [compiler, *fixed, *kind, "-o", out, *files, *options, "-ldl", "-lpthread"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return out
