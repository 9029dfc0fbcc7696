"""A container writes nonsense into its region's locks: the node side, which maps the same file, is not harmed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hami.node._region import Region

EXTENSION = 2_011_136
"""REGION_EXTENSION_AT; the registry's lock and the first device's stand 64 and 128 bytes behind it."""
LOCKS = (EXTENSION + 64, EXTENSION + 128)

SWEEP = """
import sys
from hami.node._region import Region
with Region.open(sys.argv[1]) as region:
    region.reap()
    print(len(region.snapshot().devices))
"""


@pytest.mark.parametrize("kind", [0, 32, 64, 128, 144, 255], ids=lambda kind: f"kind {kind}")
@pytest.mark.parametrize("pointers", [0, 0x4141_4141_4141_4141], ids=["null", "wild"])
def test_sweeping(tmp_path: Path, kind: int, pointers: int) -> None:
    """Kinds are glibc's: with priority inheritance (32) or protection (64) it would end the program."""
    path = tmp_path / "region.cache"
    Region.create(path, ["GPU-a"], [1 << 30], [0], priority=1)
    with open(path, "r+b") as file:
        for lock in LOCKS:
            file.seek(lock + 4)
            words = (0, 7, 1, kind, 0)
            file.write(b"".join(word.to_bytes(4, "little") for word in words) + pointers.to_bytes(8, "little") * 2)
    done = subprocess.run(
        [sys.executable, "-c", SWEEP, str(path)],
        cwd=Path(__file__).parents[2],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
