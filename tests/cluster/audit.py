"""The API server's audit log: who wrote what to pods and nodes, in which requests."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.harness.api import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One write that the server has answered."""

    user: str
    verb: str
    resource: str
    """`pods`, `pods/binding`, `nodes`, ..."""
    namespace: str
    name: str
    status: int
    body: Json


class Audit:
    """What was written since this was made."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._start = log.stat().st_size

    def writes(
        self, *, resource: str | None = None, namespace: str | None = None, user: str | None = None
    ) -> list[Write]:
        """The writes so far, in order, only those that match what is given."""
        return [
            write
            for write in self._all()
            if (resource is None or write.resource == resource)
            and (namespace is None or write.namespace == namespace)
            and (user is None or write.user == user)
        ]

    def _all(self) -> Iterator[Write]:
        with self._log.open("rb") as log:
            log.seek(self._start)
            for line in log:
                entry = json.loads(line)
                target = entry["objectRef"]
                resource = "/".join(filter(None, (target["resource"], target.get("subresource", ""))))
                yield Write(
                    user=entry["user"]["username"],
                    verb=entry["verb"],
                    resource=resource,
                    namespace=target.get("namespace", ""),
                    name=target.get("name", ""),
                    status=int(entry.get("responseStatus", {}).get("code", 0)),
                    body=entry.get("requestObject") or {},
                )
