"""The kubelet's device checkpoint: the exact map from our answers to containers.

The kubelet writes `kubelet_internal_checkpoint` milliseconds after each `Allocate`, with the answer it got; the grant
id in the answer's paths then says whose the grant is, plain init containers included. It is an internal format: read
what is understood, skip the rest, don't verify its checksum.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from hami.model.names import PodUid, WireError

FILE_NAME: Final = "kubelet_internal_checkpoint"
SIZE_LIMIT: Final = 64 * 1024 * 1024
"""Bytes; a node with a thousand grants writes about two MiB."""
GRANT_PATH: Final = re.compile(rb"/grants/([0-9a-f]{32})/")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointEntry:
    """One container's devices of one resource, as the kubelet remembers them."""

    pod_uid: PodUid
    """A static pod's is its configuration hash, not the mirror pod's uid."""
    container: str
    device_ids: frozenset[str]
    answer: bytes
    """What we answered, as the kubelet stored it."""
    grant: str | None
    """Our grant id, found in the answer."""


def read_checkpoint(data: bytes, resource: str) -> tuple[CheckpointEntry, ...]:
    """The entries of `resource`; entries that make no sense are left out.

    Raises WireError when the document as a whole is not a checkpoint.
    """
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise WireError(FILE_NAME, "JSON", str(error)) from error
    inner = document.get("Data") if isinstance(document, dict) else None
    entries = inner.get("PodDeviceEntries") if isinstance(inner, dict) else None
    if entries is None:
        entries = []  # the kubelet writes null before the first device
    if not isinstance(inner, dict) or not isinstance(entries, list):
        raise WireError(f"{FILE_NAME}.Data.PodDeviceEntries", "a list")
    return tuple(entry for raw in entries for entry in _entry(raw, resource))


def read_checkpoint_file(directory: Path, resource: str) -> tuple[CheckpointEntry, ...]:
    """The checkpoint in the device-plugin directory; empty before the kubelet has written one.

    Raises WireError for a file that is no checkpoint, OSError where it cannot be read.
    """
    path = directory / FILE_NAME
    try:
        size = path.stat().st_size
        if size > SIZE_LIMIT:
            raise WireError(FILE_NAME, f"at most {SIZE_LIMIT} bytes", size)
        return read_checkpoint(path.read_bytes(), resource)
    except FileNotFoundError:
        return ()


def _entry(raw: Any, resource: str) -> Iterator[CheckpointEntry]:
    if not isinstance(raw, dict) or raw.get("ResourceName") != resource:
        return
    uid, container = raw.get("PodUID"), raw.get("ContainerName")
    if not isinstance(uid, str) or not isinstance(container, str):
        return
    answer = _answer(raw.get("AllocResp"))
    found = GRANT_PATH.search(answer)
    yield CheckpointEntry(
        pod_uid=PodUid(uid),
        container=container,
        device_ids=frozenset(_ids(raw.get("DeviceIDs"))),
        answer=answer,
        grant=found[1].decode() if found else None,
    )


def _ids(raw: Any) -> Iterator[str]:
    """Ids by NUMA node (`{"-1": [...]}`), or the plain list of older kubelets."""
    groups = raw.values() if isinstance(raw, dict) else [raw]
    for group in groups:
        if isinstance(group, list):
            yield from (item for item in group if isinstance(item, str))


def _answer(raw: Any) -> bytes:
    try:
        return base64.b64decode(raw, validate=True) if isinstance(raw, str) else b""
    except (binascii.Error, ValueError):
        return b""
