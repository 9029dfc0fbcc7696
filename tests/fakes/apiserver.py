"""A scripted API server on a real socket: objects in memory, lists by pages, watches with history, faults on demand.

It behaves as kube-apiserver does where our code can tell: resource versions, 409 and 410, uid preconditions, bindings
that copy annotations and labels, field selectors that turn a change into DELETED. `requests` records what was asked.
"""

import asyncio
import copy
import json
import re
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from aiohttp import web

Json = dict[str, Any]
_PATH = re.compile(
    r"(?P<prefix>/api/v1|/apis/[^/]+/[^/]+)(?:/namespaces/(?P<namespace>[^/]+)(?=/))?"
    r"/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>[a-z]+))?"
)


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came; `body` decoded."""

    method: str
    path: str
    query: dict[str, str]
    body: Json | None


@dataclass(slots=True, kw_only=True)
class Fault:
    """What happens to the next request that matches instead of, or besides, its normal course."""

    method: str
    path: str
    """A regular expression found in the path."""
    status: int = 0
    """Answer with this status and do nothing."""
    after: bool = False
    """Carry the request out first; then drop the connection (a lost answer)."""
    drop: bool = False
    """Drop the connection and do nothing."""
    delay_s: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 1


class FakeApi:
    """The server's state and its HTTP face."""

    def __init__(self) -> None:
        self.version = 100
        self.oldest = 0
        """Watches from a version before this one get 410."""
        self.objects: dict[str, dict[tuple[str, str], Json]] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.username = "system:serviceaccount:kube-system:hami-scheduler"
        self.address = ""
        self._history: list[tuple[int, str, Json | None, Json | None]] = []
        """version, plural, the object before and after."""
        self._changed = asyncio.Event()
        self._epoch = 0
        self._bookmarks = 0

    @classmethod
    @asynccontextmanager
    async def serving(cls) -> AsyncIterator[Self]:
        """The server, listening on a free loopback port until the block ends."""
        api = cls()
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", api._handle)
        runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        api.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield api
        finally:
            api.end_watches()
            await runner.cleanup()

    def kubeconfig(self, folder: Path) -> str:
        """A kubeconfig for this server, in JSON."""
        path = folder / "kubeconfig"
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "fake",
                    "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
                    "clusters": [{"name": "fake", "cluster": {"server": self.address}}],
                    "users": [{"name": "fake", "user": {"token": "sesame"}}],
                }
            )
        )
        return str(path)

    # What a test does to the cluster

    def put(self, plural: str, obj: Json) -> Json:
        """Create or replace an object, as somebody else's client would."""
        obj = copy.deepcopy(obj)
        metadata = obj.setdefault("metadata", {})
        key = (metadata.get("namespace", ""), metadata["name"])
        old = self.objects.setdefault(plural, {}).get(key)
        metadata.setdefault("uid", old["metadata"]["uid"] if old else str(uuid.uuid4()))
        self.version += 1
        metadata["resourceVersion"] = str(self.version)
        self.objects[plural][key] = obj
        self._record(plural, old, obj)
        return copy.deepcopy(obj)

    def remove(self, plural: str, name: str, namespace: str = "") -> None:
        """Delete an object at once."""
        obj = self.objects[plural].pop((namespace, name))
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        self._record(plural, obj, None)

    def get(self, plural: str, name: str, namespace: str = "") -> Json:
        return copy.deepcopy(self.objects[plural][(namespace, name)])

    def all(self, plural: str) -> list[Json]:
        return [copy.deepcopy(obj) for obj in self.objects.get(plural, {}).values()]

    def fail(self, method: str, path: str, **what: Any) -> None:
        """Make the next matching requests go wrong; see Fault."""
        self.faults.append(Fault(method=method, path=path, **what))

    def asked(self, method: str, path: str) -> list[Request]:
        """The requests so far with this method and a path that matches."""
        return [r for r in self.requests if r.method == method and re.search(path, r.path)]

    def compact(self) -> None:
        """Forget all history: watches that resume from before get 410."""
        self.oldest = self.version
        self._history.clear()

    def end_watches(self) -> None:
        """End every open watch, as a server does now and then."""
        self._epoch += 1
        self._wake()

    def bookmark(self) -> None:
        """Send a bookmark on every open watch."""
        self.version += 1
        self._bookmarks += 1
        self._wake()

    # HTTP

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(raw) if (raw := await request.read()) else None
        self.requests.append(Request(request.method, request.path, dict(request.query), body))
        fault = self._fault(request.method, request.path)
        if fault is not None:
            if fault.delay_s:
                await asyncio.sleep(fault.delay_s)
            if fault.status:
                answer = _status(fault.status, "Scripted", "scripted failure")
                answer.headers.update(fault.headers)
                return answer
            if fault.after:
                self._dispatch(request, body)
            if fault.drop or fault.after:
                assert request.transport is not None
                request.transport.abort()
                return web.Response()
        if request.query.get("watch") == "true":
            return await self._watch(request)
        return self._dispatch(request, body)

    def _fault(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.times and fault.method == method and re.search(fault.path, path):
                fault.times -= 1
                return fault
        return None

    def _dispatch(self, request: web.Request, body: Json | None) -> web.Response:
        match = _PATH.fullmatch(request.path)
        if match is None:
            return _status(404, "NotFound", request.path)
        namespace, plural, name, sub = (match[part] or "" for part in ("namespace", "plural", "name", "sub"))
        known = self.objects.setdefault(plural, {})
        if request.method == "GET" and not name:
            return self._list(request, plural, namespace)
        if request.method == "POST" and not name:
            assert body is not None
            if plural == "selfsubjectreviews":
                return web.json_response({**body, "status": {"userInfo": {"username": self.username}}}, status=201)
            return self._create(plural, namespace, body)
        current = known.get((namespace, name))
        if current is None:
            return _status(404, "NotFound", f'{plural} "{name}" not found')
        match request.method:
            case "GET":
                return web.json_response(current)
            case "POST" if sub == "binding":
                assert body is not None
                return self._bind(current, body)
            case "PATCH":
                assert body is not None
                return self._patch(plural, current, body)
            case "DELETE":
                self.remove(plural, name, namespace)
                return web.json_response({"kind": "Status", "status": "Success"})
            case _:
                return _status(405, "MethodNotAllowed", request.method)

    def _list(self, request: web.Request, plural: str, namespace: str) -> web.Response:
        selects = _selector(request.query.get("fieldSelector", ""))
        matching = [
            obj
            for (ns, _), obj in sorted(self.objects.get(plural, {}).items())
            if (not namespace or ns == namespace) and selects(obj)
        ]
        start, version = 0, self.version
        if token := request.query.get("continue"):
            start, version = (int(part) for part in token.split("."))
            if version < self.oldest:
                return _status(410, "Expired", "the continue token is too old")
        limit = int(request.query.get("limit", "0")) or len(matching)
        metadata: Json = {"resourceVersion": str(version)}
        if start + limit < len(matching):
            metadata["continue"] = f"{start + limit}.{version}"
        return web.json_response({"metadata": metadata, "items": matching[start : start + limit]})

    def _create(self, plural: str, namespace: str, body: Json) -> web.Response:
        metadata = body.setdefault("metadata", {})
        if namespace:
            metadata["namespace"] = namespace
        if (metadata.get("namespace", ""), metadata["name"]) in self.objects[plural]:
            return _status(409, "AlreadyExists", f'{plural} "{metadata["name"]}" already exists')
        return web.json_response(self.put(plural, body), status=201)

    def _bind(self, pod: Json, body: Json) -> web.Response:
        name, uid = pod["metadata"]["name"], body["metadata"].get("uid")
        if uid and uid != pod["metadata"]["uid"]:
            return _status(409, "Conflict", f"Precondition failed: UID in precondition: {uid}")
        if pod["metadata"].get("deletionTimestamp"):
            return _status(409, "Conflict", f"pod {name} is being deleted, cannot be assigned to a host")
        if node := pod["spec"].get("nodeName"):
            return _status(409, "Conflict", f'pod {name} is already assigned to node "{node}"')
        bound = copy.deepcopy(pod)
        bound["spec"]["nodeName"] = body["target"]["name"]
        for part in ("annotations", "labels"):
            bound["metadata"].setdefault(part, {}).update(body["metadata"].get(part) or {})
        self.put("pods", bound)
        return web.json_response({"kind": "Status", "status": "Success"}, status=201)

    def _patch(self, plural: str, current: Json, body: Json) -> web.Response:
        metadata = body.get("metadata", {})
        for part in ("resourceVersion", "uid"):
            if part in metadata and metadata[part] != current["metadata"][part]:
                return _status(409, "Conflict", f"the object has been modified ({part})")
        return web.json_response(self.put(plural, _merge(current, body)))

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        match = _PATH.fullmatch(request.path)
        assert match is not None
        namespace, plural = match["namespace"] or "", match["plural"]
        selects = _selector(request.query.get("fieldSelector", ""))
        version, epoch, bookmarks = int(request.query["resourceVersion"]), self._epoch, self._bookmarks
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        await answer.prepare(request)
        if version < self.oldest:
            status = {"kind": "Status", "code": 410, "reason": "Expired", "message": f"too old: {version}"}
            await answer.write(_frame("ERROR", status))
            return answer
        while epoch == self._epoch:
            for at, of, before, after in [entry for entry in self._history if entry[0] > version]:
                version = at
                if of != plural or (namespace and namespace != (after or before or {})["metadata"].get("namespace")):
                    continue
                # As the server does: what enters or leaves the selection is added or deleted.
                was, is_now = before is not None and selects(before), after is not None and selects(after)
                if is_now:
                    await answer.write(_frame("MODIFIED" if was else "ADDED", after))
                elif was:
                    last = copy.deepcopy(after or before)
                    assert last is not None
                    last["metadata"]["resourceVersion"] = str(at)
                    await answer.write(_frame("DELETED", last))
            if bookmarks != self._bookmarks:
                bookmarks, version = self._bookmarks, self.version
                await answer.write(_frame("BOOKMARK", {"metadata": {"resourceVersion": str(version)}}))
            changed = self._changed
            if not any(entry[0] > version for entry in self._history) and epoch == self._epoch:
                await changed.wait()
        return answer

    def _record(self, plural: str, before: Json | None, after: Json | None) -> None:
        self._history.append((self.version, plural, before, copy.deepcopy(after)))
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _frame(kind: str, obj: Json | None) -> bytes:
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


def _status(code: int, reason: str, message: str) -> web.Response:
    body = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}
    return web.json_response(body, status=code)


def _merge(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merge(result.get(key), value)
    return result


def _selector(text: str) -> Callable[[Json], bool]:
    terms = []
    for term in filter(None, text.split(",")):
        path, wanted = re.split(r"!=|==?", term)
        terms.append((path.split("."), wanted, "!=" not in term))

    def selects(obj: Json) -> bool:
        for path, wanted, equal in terms:
            value: Any = obj
            for part in path:
                value = value.get(part, "") if isinstance(value, dict) else ""
            if (value == wanted) is not equal:
                return False
        return True

    return selects
