"""The two files of a simulation, each in the form it has: a table in openb's columns, or manifests; gzipped or not."""

import gzip
import zlib
from pathlib import Path

from hami.model.names import WireError
from hami.model.vendor import Registry
from hami.simulate import manifests, openb
from hami.simulate.workload import Workload, read_workload


def load_workload(nodes: Path, pods: Path, registry: Registry) -> Workload:
    """Read both files. WireError names the place of what cannot be meant; OSError where a file cannot be read."""
    node_text, pod_text = _text(nodes), _text(pods)
    tabled = openb.is_table(node_text)
    node_items = (openb if tabled else manifests).read_nodes(node_text, str(nodes))
    if openb.is_table(pod_text):
        pod_items = openb.read_pods(pod_text, str(pods), openb.models(node_items) if tabled else ())
    else:
        pod_items = manifests.read_pods(pod_text, str(pods))
    return read_workload(node_items, pod_items, registry)


def _text(file: Path) -> str:
    data = file.read_bytes()
    try:
        if file.suffix == ".gz":
            data = gzip.decompress(data)
        return data.decode("utf-8-sig")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise WireError(str(file), f"a gzip file ({error})") from error
    except UnicodeDecodeError as error:
        raise WireError(str(file), f"UTF-8 text ({error.reason} at byte {error.start})") from error
