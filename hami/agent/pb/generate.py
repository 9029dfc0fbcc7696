"""Generate this package's modules from its .proto files: `python -m hami.agent.pb.generate [DIRECTORY]`.

Needs the development packages grpcio-tools and grpclib; a test regenerates into a temporary directory and compares, so
that nothing here is edited by hand.
"""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
SOURCES = ("deviceplugin.proto", "podresources.proto")


def generate(target: Path) -> None:
    """Write `hami/agent/pb/*_pb2.py`, `*_pb2.pyi` and `*_grpc.py` below `target`, a directory with the same layout.

    Raises CalledProcessError when the compiler refuses a file.
    """
    binaries = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    flags = (f"--python_out={target}", f"--pyi_out={target}", f"--grpclib_python_out={target}")
    files = [f"hami/agent/pb/{name}" for name in SOURCES]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", ".", *flags, *files]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PATH": binaries}, check=True)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
