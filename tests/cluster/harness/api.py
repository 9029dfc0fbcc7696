"""The Kubernetes API as plain HTTPS and JSON: what a test sends is what the server gets, valid or not."""

import contextlib
import copy
import http.client
import json
import ssl
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

MERGE_PATCH = "application/merge-patch+json"
Json = dict[str, Any]


class ApiError(Exception):
    """The server's answer was no: `status` and its message."""

    def __init__(self, method: str, path: str, status: int, body: bytes) -> None:
        self.status = status
        try:
            self.message = str(json.loads(body)["message"])
        except (ValueError, KeyError, TypeError):
            self.message = body.decode(errors="replace")
        super().__init__(f"{method} {path}: {status} {self.message}")


class Api:
    """One identity at one server. Usable from several threads; every request has a connection of its own, so that a
    server that was restarted between two requests makes no difference."""

    def __init__(self, url: str, *, ca: Path, cert: Path, key: Path) -> None:
        parts = urllib.parse.urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 443
        self._tls = ssl.create_default_context(cafile=str(ca))
        self._tls.load_cert_chain(str(cert), str(key))

    def elsewhere(self, url: str) -> "Api":
        """The same identity at another server of the same authority."""
        parts = urllib.parse.urlsplit(url)
        other = copy.copy(self)
        other._host, other._port = parts.hostname or "", parts.port or 443
        return other

    def get(self, path: str, **query: str) -> Json:
        return self._json("GET", path, query=query)

    def text(self, path: str, **query: str) -> str:
        return self._call("GET", path, query=query).decode(errors="replace")

    def post(self, path: str, body: object) -> Json:
        return self._json("POST", path, body=body)

    def patch(self, path: str, body: object) -> Json:
        """A JSON merge patch."""
        return self._json("PATCH", path, body=body, content=MERGE_PATCH)

    def put(self, path: str, body: object) -> Json:
        return self._json("PUT", path, body=body)

    def delete(self, path: str, *, grace_s: int | None = None) -> None:
        """Gone already is as good."""
        query = {} if grace_s is None else {"gracePeriodSeconds": str(grace_s)}
        try:
            self._json("DELETE", path, query=query)
        except ApiError as error:
            if error.status != 404:
                raise

    def exists(self, path: str) -> bool:
        try:
            self.get(path)
        except ApiError as error:
            if error.status != 404:
                raise
            return False
        return True

    def items(self, path: str, **query: str) -> Iterator[Json]:
        yield from self.get(path, **query)["items"]

    def apply(self, path: str, body: Json) -> Json:
        """Create an object in the collection `path`, or replace what stands under its name."""
        try:
            return self.post(path, body)
        except ApiError as error:
            if error.status != 409:
                raise
        named = f"{path}/{body['metadata']['name']}"
        version = self.get(named)["metadata"]["resourceVersion"]
        return self.put(named, {**body, "metadata": {**body["metadata"], "resourceVersion": version}})

    def healthy(self, path: str) -> bool:
        """Whether `path` answers 200."""
        try:
            self._call("GET", path)
        except ApiError:
            return False
        return True

    def _json(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: Mapping[str, str] | None = None,
        content: str = "application/json",
    ) -> Json:
        document: Json = json.loads(self._call(method, path, body=body, query=query, content=content))
        return document

    def _call(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: Mapping[str, str] | None = None,
        content: str = "application/json",
    ) -> bytes:
        target = path + ("?" + urllib.parse.urlencode(query) if query else "")
        sent = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": content} if sent is not None else {}
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=30, context=self._tls)
        with contextlib.closing(connection):
            try:
                connection.request(method, target, sent, headers)
                answer = connection.getresponse()
                received = answer.read()
            except (OSError, http.client.HTTPException) as error:
                raise ConnectionError(f"{method} {path}: {error!r}") from error
        if answer.status >= 300:
            raise ApiError(method, path, answer.status, received)
        return received
