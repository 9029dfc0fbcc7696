"""The two files of a simulation, each in the form it has: a table in openb's columns, or manifests; gzipped or not."""

import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hami.model.names import WireError
from hami.model.vendor import Registry
from hami.simulate import manifests, openb
from hami.simulate.workload import Workload, read_workload

MOST_BYTES: Final = 2**28
"""Of one file, unpacked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file that was read, so that a result says what it is of."""

    path: str
    sha256: str
    """Of the file as it lies there, packed or not."""


def load_workload(nodes: Path, pods: Path, registry: Registry, *, keep_bound: bool = False) -> Workload:
    """Read both files. WireError names the place of what cannot be meant; OSError where a file cannot be read."""
    return load(nodes, pods, registry, keep_bound=keep_bound)[0]


def load(
    nodes: Path, pods: Path, registry: Registry, *, keep_bound: bool = False
) -> tuple[Workload, tuple[Source, Source]]:
    """The same, and which files they were."""
    (node_text, node_source), (pod_text, pod_source) = _read(nodes), _read(pods)
    tabled = openb.is_table(node_text)
    node_items = (openb if tabled else manifests).read_nodes(node_text, str(nodes))
    if openb.is_table(pod_text):
        pod_items = openb.read_pods(pod_text, str(pods), openb.models(node_items) if tabled else ())
    else:
        pod_items = manifests.read_pods(pod_text, str(pods))
    return read_workload(node_items, pod_items, registry, keep_bound=keep_bound), (node_source, pod_source)


def _read(file: Path) -> tuple[str, Source]:
    with file.open("rb") as stream:
        data = stream.read(MOST_BYTES + 1)
    source = Source(path=str(file), sha256=hashlib.sha256(data).hexdigest())
    if file.suffix == ".gz":
        data = _unpacked(data, file)
    if len(data) > MOST_BYTES:
        raise WireError(str(file), f"at most {MOST_BYTES >> 20} MiB, unpacked")
    try:
        return data.decode("utf-8-sig"), source
    except UnicodeDecodeError as error:
        raise WireError(str(file), f"UTF-8 text ({error.reason} at byte {error.start})") from error


def _unpacked(data: bytes, file: Path) -> bytes:
    """What a gzip file holds, and one byte more than the most where it holds more than that."""
    found = b""
    while data:
        # One member after another, as `cat a.gz b.gz` makes them.
        member = zlib.decompressobj(wbits=31)
        try:
            found += member.decompress(data, MOST_BYTES + 1 - len(found))
        except zlib.error as error:
            raise WireError(str(file), f"a gzip file ({error})") from error
        if len(found) > MOST_BYTES:
            break
        if not member.eof:
            raise WireError(str(file), "a gzip file (it ends too early)")
        data = member.unused_data
    return found
