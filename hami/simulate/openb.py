"""Tables in the columns of the public *cluster-trace-gpu-v2023* ("openb"), as API objects.

Nodes: `cpu_milli, memory_mib, gpu, model`. Pods: `cpu_milli, memory_mib, num_gpu, gpu_milli`, and where present
`gpu_spec` (`A|B`: allowed models; empty: any), `creation_time` and `deletion_time` (seconds). `sn` and `name` name the
rows. A trace's GPU has no memory size: it becomes a card of 1,000 MiB, and a share of m milli asks for m MiB of one
card. A whole GPU asks for all memory and all cores, alone.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from hami.model.device import Device
from hami.model.names import DeviceUuid, WireError
from hami.model.wire import node as node_wire
from hami.model.wire import pod as keys
from hami.simulate.workload import MOST_PODS, Item
from hami.vendors.nvidia import NVIDIA

CARD_MIB: Final = 1000
SHARERS: Final = 1000
MOST: Final = 10**12
MOST_GPUS: Final = 1024
"""GPUs of one node, or of one pod."""
MOST_DEVICES: Final = 1_000_000
"""GPUs of all nodes together."""

_NODE_COLUMNS: Final = ("cpu_milli", "memory_mib", "gpu", "model")
_POD_COLUMNS: Final = ("cpu_milli", "memory_mib", "num_gpu", "gpu_milli")


def is_table(text: str) -> bool:
    """Whether a text's first line has the columns of either table."""
    header = set(text[:4096].partition("\n")[0].strip().replace(" ", "").split(","))
    return header >= set(_NODE_COLUMNS) or header >= set(_POD_COLUMNS)


def read_nodes(text: str, file: str) -> tuple[Item, ...]:
    """Node objects of a node table. WireError names file, line and column of a value that cannot be meant."""
    found, devices = [], 0
    for row in _rows(text, file, _NODE_COLUMNS):
        devices += row.whole("gpu", 0, MOST_GPUS)
        if devices > MOST_DEVICES:
            raise WireError(f"{row.where}: column gpu", f"at most {MOST_DEVICES:,} GPUs in all")
        found.append(_node(row))
    return tuple(found)


def read_pods(text: str, file: str, models: Iterable[str]) -> tuple[Item, ...]:
    """Pod objects of a pod table, for nodes with GPUs of these models."""
    known = sorted(set(models))
    return tuple(_pod(row, known) for row in _rows(text, file, _POD_COLUMNS))


def models(nodes: Iterable[Item]) -> set[str]:
    """The GPU models of nodes that `read_nodes` made."""
    found: set[str] = set()
    for item in nodes:
        text = item.document["metadata"]["annotations"].get(keys.NVIDIA_NODE)
        if text:
            found.update(device.model for device in node_wire.read_inventory(text, item.where))
    return found


class _Row:
    """One line of a table, whose values are read by column."""

    def __init__(self, file: str, line: int, values: Mapping[str, str]) -> None:
        self.where = f"{file}:{line}"
        self._values = values

    def text(self, column: str) -> str:
        return (self._values.get(column) or "").strip()

    def whole(self, column: str, low: int, high: int) -> int:
        text = self.text(column)
        # Spreadsheets write 3.0 for 3.
        digits = text.removesuffix(".0")
        if not (digits.isascii() and digits.isdigit()) or len(digits) > 15 or not low <= int(digits) <= high:
            raise WireError(f"{self.where}: column {column}", f"a whole number from {low} to {high}", text)
        return int(digits)

    def seconds(self, column: str) -> float | None:
        return float(self.whole(column, 0, MOST)) if self.text(column) else None


def _rows(text: str, file: str, needed: tuple[str, ...]) -> Iterator[_Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    found = 0
    try:
        header = [name.strip() for name in next(reader, [])]
        for column in needed:
            if header.count(column) != 1:
                raise WireError(f"{file}:1: column {column}", "one column of this name", ", ".join(header))
        for values in reader:
            if not values:
                continue
            if len(values) != len(header):
                raise WireError(f"{file}:{reader.line_num}", f"{len(header)} columns", f"{len(values)} columns")
            found += 1
            if found > MOST_PODS:
                raise WireError(f"{file}:{reader.line_num}", f"at most {MOST_PODS:,} rows")
            yield _Row(file, reader.line_num, dict(zip(header, values, strict=True)))
    except csv.Error as error:
        raise WireError(f"{file}:{reader.line_num}", f"comma-separated values ({error})") from error
    if not found:
        raise WireError(file, "at least one row below the header")


def _node(row: _Row) -> Item:
    name = row.text("sn") or row.where
    gpus = row.whole("gpu", 0, MOST_GPUS)
    devices = tuple(
        Device(
            uuid=DeviceUuid(f"{name}-{index}"),
            index=index,
            slots=SHARERS,
            memory_mib=CARD_MIB,
            cores=100,
            model=row.text("model"),
        )
        for index in range(gpus)
    )
    if gpus and not row.text("model"):
        raise WireError(f"{row.where}: column model", "the model of the node's GPUs")
    notes = {keys.NVIDIA_NODE: node_wire.write_inventory(devices, "json")} if gpus else {}
    allocatable = {
        "cpu": f"{row.whole('cpu_milli', 0, MOST)}m",
        "memory": f"{row.whole('memory_mib', 0, MOST)}Mi",
        NVIDIA.resources.count: str(gpus * SHARERS),
    }
    return Item(
        where=row.where,
        document={"metadata": {"name": name, "annotations": notes}, "status": {"allocatable": allocatable}},
    )


def _pod(row: _Row, known: list[str]) -> Item:
    gpus = row.whole("num_gpu", 0, MOST_GPUS)
    names = NVIDIA.resources
    limits: dict[str, str] = {}
    if gpus:
        milli = row.whole("gpu_milli", 1, 1000)
        if gpus > 1 and milli != 1000:
            raise WireError(f"{row.where}: column gpu_milli", "1000, because several GPUs are whole ones", milli)
        limits[names.count] = str(gpus)
        if milli == 1000:
            limits[names.memory_percentage] = limits[names.cores] = "100"
        else:
            limits[names.memory] = str(milli)
    requests = {"cpu": f"{row.whole('cpu_milli', 0, MOST)}m", "memory": f"{row.whole('memory_mib', 0, MOST)}Mi"}
    metadata: dict[str, Any] = {"name": row.text("name") or row.where, "annotations": _models(row, known)}
    container = {"name": "main", "resources": {"requests": requests, "limits": limits}}
    arrives, leaves = row.seconds("creation_time"), row.seconds("deletion_time")
    if arrives is not None and leaves is not None and leaves < arrives:
        raise WireError(f"{row.where}: column deletion_time", f"a time from the creation_time {arrives:g} on", leaves)
    return Item(
        where=row.where,
        document={"metadata": metadata, "spec": {"containers": [container]}},
        arrives=arrives,
        leaves=leaves,
    )


def _models(row: _Row, known: list[str]) -> dict[str, str]:
    allowed = [model for piece in row.text("gpu_spec").split("|") if (model := piece.strip())]
    if not allowed:
        return {}
    # The annotation's words match parts of a model's name; the table means whole names.
    wrong = [
        model for model in known if model not in allowed and any(word.lower() in model.lower() for word in allowed)
    ]
    select = NVIDIA.select
    return {select.type_in: ",".join(allowed)} | ({select.type_out: ",".join(wrong)} if wrong else {})
