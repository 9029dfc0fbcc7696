"""A dozen verbs against the API server, JSON in and out, no generated models.

Every answer is decoded by orjson from the raw bytes. Failures are `hami.kube.errors`; a lost answer is `Unreachable`,
and the caller decides whether to ask what became of its write.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Self

import aiohttp
import orjson
from kubernetes_asyncio.client import Configuration

from hami.kube import access
from hami.kube.errors import ApiError, Unreachable, from_status
from hami.kube.pace import RateLimit
from hami.kube.resources import NODES, PODS, SELF_REVIEWS

Json = dict[str, Any]

_MERGE: Final = "application/merge-patch+json"
_JSON: Final = "application/json"
DEFAULT_TIMEOUT_S: Final = 10.0
BIND_TIMEOUT_S: Final = 4.0
"""After this a Binding's answer counts as lost and the pod is read back."""


class Kube:
    """One connection to one API server. Made by `Kube.connect`, closed when its block ends."""

    def __init__(
        self,
        settings: Configuration,
        session: aiohttp.ClientSession,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        limit: RateLimit | None = None,
    ) -> None:
        self._settings = settings
        self._session = session
        self._timeout_s = timeout_s
        self._limit = limit
        self._options: Json = {}
        if settings.proxy:
            self._options["proxy"] = settings.proxy
        if settings.tls_server_name:
            self._options["server_hostname"] = settings.tls_server_name

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, kubeconfig: str | None = None, *, timeout_s: float = DEFAULT_TIMEOUT_S, limit: RateLimit | None = None
    ) -> AsyncIterator[Self]:
        """A client for the cluster that `kubeconfig` (or the environment, see `access`) names.

        `timeout_s` bounds every request but watches. `limit` paces ordinary writes; reads of the picture and bindings
        never wait for it, because the server's own priority levels protect it better than a guess of ours.
        """
        settings = await access.configuration(kubeconfig)
        async with access.session(settings) as session:
            yield cls(settings, session, timeout_s=timeout_s or DEFAULT_TIMEOUT_S, limit=limit)

    @property
    def host(self) -> str:
        """The server's base URL."""
        return str(self._settings.host).rstrip("/")

    # Reading

    async def get(self, path: str, **query: str) -> Json:
        """One object, or one decoded list."""
        return await self._json("GET", path, query=query)

    async def list_raw(self, path: str, query: Mapping[str, str]) -> bytes:
        """A list's undecoded body: large, so the caller decides what to keep."""
        return await self._request("GET", path, query=query, timeout_s=60.0)

    async def node(self, name: str) -> Json:
        return await self.get(NODES.path(name=name))

    async def pod(self, namespace: str, name: str) -> Json:
        return await self.get(PODS.path(namespace, name))

    async def whoami(self) -> str:
        """The user name that the server sees us as."""
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        answer = await self._json("POST", SELF_REVIEWS.path(), body=body)
        return str(answer.get("status", {}).get("userInfo", {}).get("username", ""))

    async def stream(self, path: str, query: Mapping[str, str], *, silence_s: float) -> "Stream":
        """An open answer that goes on, such as a watch; `silence_s` without a byte raises Unreachable."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout_s, sock_read=silence_s)
        headers = await self._headers()
        try:
            answer = await self._session.get(
                self.host + path, params=query, headers=headers, timeout=timeout, **self._options
            )
            if answer.status != 200:
                async with answer:
                    raise _error(f"GET {path}", answer, await answer.read())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(f"GET {path}: {_describe(error)}") from error
        return Stream(answer, path)

    # Writing

    async def create(self, path: str, body: Json) -> Json:
        await self._pace()
        return await self._json("POST", path, body=body)

    async def patch_merge(self, path: str, body: Json) -> Json:
        """A JSON merge patch; a `metadata.resourceVersion` in it makes it conditional (Conflict when it moved on)."""
        await self._pace()
        return await self._json("PATCH", path, body=body, content_type=_MERGE)

    async def patch_status(self, path: str, body: Json) -> Json:
        """A merge patch of an object's status."""
        return await self.patch_merge(f"{path}/status", body)

    async def delete(self, path: str, *, uid: str | None = None) -> None:
        """Delete an object, only if it still is the one with `uid`."""
        await self._pace()
        body: Json = {"preconditions": {"uid": uid}} if uid else {}
        await self._json("DELETE", path, body=body)

    async def annotate_node(
        self, name: str, annotations: Mapping[str, str | None], *, resource_version: str | None = None
    ) -> Json:
        """Set annotations of a node; None removes one."""
        return await self.patch_merge(NODES.path(name=name), _metadata(annotations, None, resource_version))

    async def annotate_pod(
        self,
        namespace: str,
        name: str,
        annotations: Mapping[str, str | None],
        *,
        labels: Mapping[str, str | None] | None = None,
        uid: str | None = None,
    ) -> Json:
        """Set annotations and labels of a pod; None removes one; `uid` guards against a pod of the same name."""
        body = _metadata(annotations, labels, None)
        if uid:
            body["metadata"]["uid"] = uid
        return await self.patch_merge(PODS.path(namespace, name), body)

    async def bind(
        self,
        namespace: str,
        name: str,
        uid: str,
        node: str,
        annotations: Mapping[str, str],
        labels: Mapping[str, str],
        *,
        timeout_s: float = BIND_TIMEOUT_S,
    ) -> None:
        """Bind the pod with this uid to `node`; annotations and labels reach the pod in the same transaction.

        Conflict: already bound, being deleted, or another uid. Unreachable: unknown whether it happened.
        """
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "uid": uid, "annotations": dict(annotations), "labels": dict(labels)},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        await self._json("POST", f"{PODS.path(namespace, name)}/binding", body=body, timeout_s=timeout_s)

    # Transport

    async def _pace(self) -> None:
        if self._limit is not None:
            await self._limit.wait()

    async def _json(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Json | None = None,
        content_type: str = _JSON,
        timeout_s: float | None = None,
    ) -> Json:
        data = None if body is None else orjson.dumps(body)
        raw = await self._request(method, path, query=query, data=data, content_type=content_type, timeout_s=timeout_s)
        decoded = _decode(raw)
        if not isinstance(decoded, dict):
            raise ApiError(200, "NotJson", "the answer is not a JSON object", request=f"{method} {path}")
        return decoded

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        data: bytes | None = None,
        content_type: str = _JSON,
        timeout_s: float | None = None,
    ) -> bytes:
        timeout = aiohttp.ClientTimeout(total=timeout_s or self._timeout_s)
        headers = await self._headers()
        if data is not None:
            headers["Content-Type"] = content_type
        try:
            async with self._session.request(
                method, self.host + path, params=query, data=data, headers=headers, timeout=timeout, **self._options
            ) as answer:
                raw = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(f"{method} {path}: {_describe(error)}") from error
        if not 200 <= answer.status < 300:
            raise _error(f"{method} {path}", answer, raw)
        return raw

    async def _headers(self) -> dict[str, str]:
        # Asked for each request: a service account's token is renewed on disk while we run.
        token = await self._settings.get_api_key_with_prefix("BearerToken")
        headers = {"Accept": _JSON, "User-Agent": "hami"}
        if token:
            headers["Authorization"] = token
        return headers


class Stream:
    """The body of an answer that goes on. Close it; closing the client closes it too."""

    __slots__ = ("_answer", "_path")

    def __init__(self, answer: aiohttp.ClientResponse, path: str) -> None:
        self._answer = answer
        self._path = path

    async def read(self) -> bytes:
        """The bytes that have arrived, at least one; empty once the server has ended the answer."""
        try:
            return await self._answer.content.readany()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(f"GET {self._path}: {_describe(error)}") from error

    def close(self) -> None:
        self._answer.close()


def _metadata(
    annotations: Mapping[str, str | None], labels: Mapping[str, str | None] | None, resource_version: str | None
) -> Json:
    metadata: Json = {"annotations": dict(annotations)} if annotations else {}
    if labels:
        metadata["labels"] = dict(labels)
    if resource_version:
        metadata["resourceVersion"] = resource_version
    return {"metadata": metadata}


def _error(request: str, answer: aiohttp.ClientResponse, raw: bytes) -> ApiError:
    return from_status(answer.status, _decode(raw), request=request, retry_after=answer.headers.get("Retry-After"))


def _decode(raw: bytes) -> object:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        # Proxies and some error paths of the server answer in plain text: keep what was said.
        return {"reason": "NotJson", "message": raw[:200].decode("utf-8", "replace")}


def _describe(error: BaseException) -> str:
    return str(error) or type(error).__name__
