"""Container images without a registry or a container engine: a one-layer OCI archive from files of this machine."""

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.cluster.harness.binaries import Missing, debian_path
from tests.cluster.harness.layout import REPOSITORY

PAUSE: Final = "localhost/pause:1"
BUSYBOX: Final = "localhost/busybox:1"
PROBE: Final = "localhost/hami-probe:1"
"""glibc, a shell, and `gpuprobe`, a program that makes real CUDA and NVML calls."""

GPUPROBE: Final = REPOSITORY / "interpose" / "build" / "sim" / "gpuprobe"

_APPLETS: Final = ("sh", "sleep", "cat", "env", "ls", "true", "false", "echo", "date", "kill", "grep", "mount", "id")
_GLIBC: Final = ("libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1")
_LOADER: Final = Path("/lib64/ld-linux-x86-64.so.2")
_FOLDERS: Final = ("tmp", "etc", "proc", "sys", "dev", "root", "var", "run")


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What an image holds: `files` by place inside, symbolic `links` by place inside to their target."""

    name: str
    entrypoint: Sequence[str]
    files: Mapping[str, Path]
    links: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


def pause(workdir: Path) -> Image:
    """The sandbox image; its program is compiled into `workdir`."""
    program = workdir / "pause"
    source = Path(__file__).with_name("pause.c")
    done = subprocess.run(
        ["gcc", "-static", "-Os", "-Wall", "-Wextra", "-Werror", "-s", "-o", str(program), str(source)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"pause.c does not compile:\n{done.stderr}")
    return Image(name=PAUSE, entrypoint=["/pause"], files={"/pause": program})


def busybox() -> Image:
    return Image(name=BUSYBOX, entrypoint=["/bin/sh"], files=_shell(), links=_applets())


def probe() -> Image:
    """Raises `Missing` if the probe program has not been built."""
    if not GPUPROBE.exists():
        raise Missing(f"{GPUPROBE.relative_to(REPOSITORY)} is not built: run `make setup`")
    folder = _glibc_folder()
    files = {
        **_shell(),
        "/usr/bin/gpuprobe": GPUPROBE,
        str(_LOADER): _LOADER.resolve(),
        **{f"/lib/x86_64-linux-gnu/{name}": (folder / name).resolve() for name in _GLIBC if (folder / name).exists()},
    }
    return Image(name=PROBE, entrypoint=["/bin/sh"], files=files, links=_applets())


def write(image: Image, path: Path) -> Path:
    """The image as an OCI archive at `path`. Equal content makes an equal archive."""
    raw = _layer(image)
    packed = gzip.compress(raw, compresslevel=1, mtime=0)
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **image.env}
    config = _json(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "Entrypoint": list(image.entrypoint),
                "Env": [f"{name}={value}" for name, value in environment.items()],
            },
            "rootfs": {"type": "layers", "diff_ids": [_digest(raw)]},
        }
    )
    oci = "application/vnd.oci.image"
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{oci}.manifest.v1+json",
            "config": _descriptor(f"{oci}.config.v1+json", config),
            "layers": [_descriptor(f"{oci}.layer.v1.tar+gzip", packed)],
        }
    )
    named = {"io.containerd.image.name": image.name, "org.opencontainers.image.ref.name": image.name}
    platform = {"architecture": "amd64", "os": "linux"}
    entry = {**_descriptor(f"{oci}.manifest.v1+json", manifest), "platform": platform, "annotations": named}
    index = _json({"schemaVersion": 2, "mediaType": f"{oci}.index.v1+json", "manifests": [entry]})
    with tarfile.open(path, "w") as archive:
        _add(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _add(archive, "index.json", index)
        for blob in (config, manifest, packed):
            _add(archive, "blobs/sha256/" + hashlib.sha256(blob).hexdigest(), blob)
    return path


def _shell() -> dict[str, Path]:
    program = debian_path("busybox")
    if program is None:
        raise Missing("busybox-static is not installed")
    return {"/bin/busybox": program}


def _applets() -> dict[str, str]:
    return {f"/bin/{name}": "busybox" for name in _APPLETS}


def _glibc_folder() -> Path:
    for folder in ("/lib/x86_64-linux-gnu", "/usr/lib64", "/lib64", "/usr/lib"):
        if (Path(folder) / "libc.so.6").exists():
            return Path(folder)
    raise Missing("libc.so.6 is in none of the usual folders")


def _layer(image: Image) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as layer:
        made: set[str] = set()
        for folder in _FOLDERS:
            _folder(layer, folder, made)
        for place, source in sorted(image.files.items()):
            _parents(layer, place, made)
            _add(layer, place.lstrip("/"), source.read_bytes(), 0o755)
        for place, target in sorted(image.links.items()):
            _parents(layer, place, made)
            link = tarfile.TarInfo(place.lstrip("/"))
            link.type, link.linkname = tarfile.SYMTYPE, target
            layer.addfile(link)
    return packed.getvalue()


def _parents(layer: tarfile.TarFile, place: str, made: set[str]) -> None:
    parts = place.strip("/").split("/")[:-1]
    for depth in range(1, len(parts) + 1):
        _folder(layer, "/".join(parts[:depth]), made)


def _folder(layer: tarfile.TarFile, name: str, made: set[str]) -> None:
    if name in made:
        return
    made.add(name)
    entry = tarfile.TarInfo(name + "/")
    entry.type = tarfile.DIRTYPE
    entry.mode = 0o1777 if name == "tmp" else 0o755
    layer.addfile(entry)


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def _descriptor(media_type: str, blob: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": _digest(blob), "size": len(blob)}


def _digest(blob: bytes) -> str:
    return "sha256:" + hashlib.sha256(blob).hexdigest()


def _json(document: object) -> bytes:
    return json.dumps(document).encode("ascii")
