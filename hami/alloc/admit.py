"""Admission: may this pod be created, and what is filled in for it.

The order of checks is HAMi's, because messages and codes are seen by users: shape, containers, scheduler, values,
privileged, node, quota. Two things are stricter on purpose: a request that no node could ever serve is refused here,
where its author sees it, and nobody but a scheduler may write what a pod has been given. The patch touches only what
changed, on the raw document, so fields this version has never heard of pass through.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from hami.alloc import request as asking
from hami.alloc.quota import NO_AMOUNTS, Amounts, Quotas, peak
from hami.alloc.request import Container, RequestError
from hami.model.claim import ContainerNeed, Mib, Percent, Role
from hami.model.names import VendorWord, WireError
from hami.model.quantity import whole
from hami.model.settings import SchedulerSettings
from hami.model.vendor import Registry, Rule, Shaped, ShapeError, Vendor
from hami.model.wire import pod as keys

OK: Final = 200
MALFORMED: Final = 400
DENIED: Final = 403
FAILED: Final = 500
"""The reference answers a percentage out of range as an error of the webhook, not as a denial."""

_RESERVED: Final = (keys.NODE, keys.TIME, keys.BIND_TIME, keys.BIND_PHASE, keys.NVIDIA_MIG)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """The verdict on one pod. `patch` is a JSON patch on the document as it came; empty = nothing changes."""

    allowed: bool
    code: int = OK
    message: str = ""
    patch: list[dict[str, Any]] = field(default_factory=list)
    warnings: tuple[str, ...] = ()


_Fits = Callable[[list[ContainerNeed]], bool]


class _Refusal(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def admit(
    pod: Mapping[str, Any],
    *,
    registry: Registry,
    settings: SchedulerSettings,
    namespace: str,
    username: str,
    scheduler_usernames: frozenset[str] = frozenset(),
    quotas: Quotas | None = None,
    used: Mapping[VendorWord, Amounts] | None = None,
    smallest_mib: Mapping[VendorWord, int] | None = None,
) -> Admission:
    """Judge a pod that `username` creates in `namespace` and say what to fill in. Never raises for a bad pod.

    `used` is what the namespace's pods hold now by family, for the quota; `smallest_mib` the smallest registered card,
    by which percentages are judged early (without it they are left to placement).
    """
    try:
        return _judge(
            pod,
            registry=registry,
            settings=settings,
            forger=username not in scheduler_usernames,
            fits=lambda needs: _fits_quota(needs, namespace, registry, quotas, used or {}, smallest_mib or {}),
        )
    except _Refusal as refusal:
        return Admission(allowed=False, code=refusal.code, message=refusal.message)
    except RequestError as error:
        return Admission(allowed=False, code=MALFORMED, message=str(error))


def _judge(
    pod: Mapping[str, Any], *, registry: Registry, settings: SchedulerSettings, forger: bool, fits: _Fits
) -> Admission:
    found = tuple(asking.containers(pod))
    notes = asking.annotations(pod)
    for container in found:
        _check_shape(container, registry)
    if all(container.role is not Role.APP for container in found):
        raise _Refusal(DENIED, "pod has no containers")
    if forger:
        _check_forged(notes, registry)
    spec = pod.get("spec") or {}
    if _is_foreign(spec.get("schedulerName") or "", settings):
        return Admission(allowed=True, message="pod already has different scheduler assigned")
    # A privileged container reaches every device, whatever it is given. `skip` leaves it alone, as up to 2.9.
    filled = [
        _fill_in(container, registry, notes)
        for container in found
        if settings.privileged != "skip" or not _is_privileged(container)
    ]
    try:
        asking.check_together([edit.container for edit in filled], [edit.need for edit in filled], registry)
    except RequestError as error:
        raise _Refusal(DENIED, str(error)) from error
    edits = [edit for edit in filled if edit.changes]
    ours = frozenset(vendor for edit in filled for vendor in edit.found)
    pod_ops: list[dict[str, Any]] = []
    if ours:
        if settings.privileged == "deny":
            for container in found:
                if _is_privileged(container):
                    raise _Refusal(DENIED, f"container {container.name} is privileged")
        pod_ops = [*_annotate(pod, notes, filled), *_take_over(spec, registry, settings, ours)]
        if not fits([edit.need for edit in filled]):
            raise _Refusal(DENIED, "exceeding resource quota")
    return Admission(
        allowed=True,
        patch=[op for edit in edits for op in edit.operations()] + pod_ops,
        warnings=asking.warnings(pod) if ours else (),
    )


def _is_foreign(scheduler: str, settings: SchedulerSettings) -> bool:
    own = settings.scheduler_name
    if not scheduler or (scheduler == "default-scheduler" and settings.force_overwrite_default_scheduler):
        return False
    return not own or scheduler != own


def _take_over(
    spec: Mapping[str, Any], registry: Registry, settings: SchedulerSettings, ours: frozenset[VendorWord]
) -> list[dict[str, Any]]:
    ops: list[dict[str, Any]] = []
    classes = [vendor.runtime_class for vendor in registry if vendor.name in ours and vendor.runtime_class]
    if classes and spec.get("runtimeClassName") is None:
        ops.append({"op": "add", "path": "/spec/runtimeClassName", "value": classes[0]})
    if settings.scheduler_name:
        if spec.get("nodeName"):
            raise _Refusal(DENIED, "pod has node assigned")
        if spec.get("schedulerName") != settings.scheduler_name:
            ops.append({"op": "add", "path": "/spec/schedulerName", "value": settings.scheduler_name})
    return ops


def _annotate(pod: Mapping[str, Any], notes: Mapping[str, str], filled: "list[_Edit]") -> list[dict[str, Any]]:
    """Annotations that families write on the pod at admission."""
    wanted = {key: value for edit in filled for key, value in edit.annotations.items() if notes.get(key) != value}
    if not wanted:
        return []
    metadata = pod.get("metadata")
    if not isinstance(metadata, Mapping):
        return [{"op": "add", "path": "/metadata", "value": {"annotations": wanted}}]
    if metadata.get("annotations") is None:
        return [{"op": "add", "path": "/metadata/annotations", "value": wanted}]
    return [
        {"op": "add", "path": f"/metadata/annotations/{_escaped(key)}", "value": value} for key, value in wanted.items()
    ]


@dataclass(slots=True)
class _Edit:
    """What is filled in for one container."""

    container: Container
    limits: dict[str, str] = field(default_factory=dict)
    requests: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    """On the pod."""
    env: list[dict[str, str]] = field(default_factory=list)
    found: set[VendorWord] = field(default_factory=set)
    need: ContainerNeed = field(init=False)

    @property
    def changes(self) -> bool:
        return bool(self.limits or self.requests or self.env)

    def set_limit(self, resource: str, value: int, *, requests_too: bool = False) -> None:
        """Write an amount where it is not there already. An extended resource's request must equal its limit: one that
        is there changes along; where there is none, the API server sets it from the limit, unless it is to be written.
        """
        if self._differs("limits", resource, value):
            self.limits[resource] = str(value)
        if self._differs("requests", resource, value) and (
            requests_too or resource in asking.section(self.container, "requests")
        ):
            self.requests[resource] = str(value)

    def _differs(self, kind: str, resource: str, value: int) -> bool:
        found = asking.amount(self.container, resource, (kind,))
        return found is None or found[0] != value

    def completed(self) -> Container:
        """The container as it will be."""
        resources = dict(self.container.document.get("resources") or {})
        resources["limits"] = {**asking.section(self.container, "limits"), **self.limits}
        return replace(self.container, document={**self.container.document, "resources": resources})

    def operations(self) -> list[dict[str, Any]]:
        """The JSON patch operations, smallest first possible: keys are added one by one where their parent exists."""
        document, pointer = self.container.document, self.container.pointer
        ops: list[dict[str, Any]] = []
        if self.env:
            if document.get("env"):
                ops += [{"op": "add", "path": f"{pointer}/env/-", "value": entry} for entry in self.env]
            else:
                ops.append({"op": "add", "path": f"{pointer}/env", "value": self.env})
        parts = {kind: amounts for kind, amounts in (("limits", self.limits), ("requests", self.requests)) if amounts}
        resources = document.get("resources")
        if resources is None:
            return [*ops, {"op": "add", "path": f"{pointer}/resources", "value": parts}] if parts else ops
        for kind, amounts in parts.items():
            if resources.get(kind) is None:
                ops.append({"op": "add", "path": f"{pointer}/resources/{kind}", "value": amounts})
            else:
                ops += [
                    {"op": "add", "path": f"{pointer}/resources/{kind}/{_escaped(name)}", "value": value}
                    for name, value in amounts.items()
                ]
        return ops


def _fill_in(container: Container, registry: Registry, notes: Mapping[str, str]) -> _Edit:
    edit = _Edit(container)
    needs = []
    try:
        for vendor in registry:
            _check_percentage(container, vendor)
            _fill_in_family(edit, vendor)
            if vendor.shape is not None and vendor.name in edit.found:
                _shape(edit, vendor, vendor.shape(edit.completed(), notes, vendor))
        completed = edit.completed() if edit.limits else container
        for vendor in registry:
            need = asking.read_need(completed, vendor, notes) if vendor.name in edit.found else None
            if need is not None:
                needs.append(need)
    except ShapeError as error:
        raise _Refusal(FAILED, str(error)) from error
    except RequestError as error:
        raise _Refusal(DENIED, f"container {container.name}: {error}") from error
    _hide_unrequested(edit, registry)
    edit.need = ContainerNeed(name=container.name, role=container.role, needs=tuple(needs))
    return edit


def _fill_in_family(edit: _Edit, vendor: Vendor) -> None:
    names, env, container = vendor.resources, vendor.env, edit.container
    limits = asking.section(container, "limits")
    if names.priority and names.priority in limits and env.priority:
        edit.env.append({"name": env.priority, "value": str(_priority(container, vendor))})
    if env.core_policy and vendor.core_policy not in ("", "default"):
        edit.env.append({"name": env.core_policy, "value": vendor.core_policy})
    if names.count in limits:
        edit.found.add(vendor.name)
    elif vendor.default_count > 0 and any(
        name and name in limits for name in (names.memory, names.memory_percentage, names.cores)
    ):
        edit.set_limit(names.count, vendor.default_count)
        edit.found.add(vendor.name)
    elif any(name in asking.section(container, kind) for name in names.also for kind in ("limits", "requests")):
        edit.found.add(vendor.name)
    if Rule.WHOLE_IS_EXCLUSIVE in vendor.rules and names.cores and _asks_for_whole(edit, vendor):
        edit.set_limit(names.cores, 100)
        edit.found.add(vendor.name)


def _shape(edit: _Edit, vendor: Vendor, shaped: Shaped) -> None:
    """Take over what a family fills in."""
    for resource, value in shaped.limits.items():
        edit.set_limit(resource, value, requests_too=resource in shaped.requests_too)
    written = {entry.get("name") for entry in asking.environment(edit.container)}
    edit.env += [{"name": name, "value": value} for name, value in shaped.env.items() if name not in written]
    edit.annotations |= shaped.annotations


def _hide_unrequested(edit: _Edit, registry: Registry) -> None:
    """A container that asks for none of the devices which a variable shows is shown none."""
    shown = {vendor.env.visible for vendor in registry if vendor.name in edit.found}
    for vendor in registry:
        name = vendor.env.visible
        if vendor.hide_unrequested and name and name not in shown:
            shown.add(name)
            edit.env.append({"name": name} | ({"value": vendor.env.hidden} if vendor.env.hidden else {}))


def _asks_for_whole(edit: _Edit, vendor: Vendor) -> bool:
    names, container = vendor.resources, edit.container
    if names.count not in edit.limits and asking.amount(container, names.count) is None:
        return False
    if asking.amount(container, names.cores) is not None:
        return False
    percentage = asking.amount(container, names.memory_percentage)
    if percentage is not None:
        return percentage[0] == 100
    return asking.amount(container, names.memory) is None


def _check_percentage(container: Container, vendor: Vendor) -> None:
    name = vendor.resources.memory_percentage
    found = asking.amount(container, name)
    if found is None:
        return
    value, path = found
    if whole(value) is None or not 0 <= value <= 100:
        # Kubernetes shows a fraction rounded away from zero.
        shown = -(-value.numerator // value.denominator) if value >= 0 else value.numerator // value.denominator
        text = f"invalid {name} value {shown} in container {container.name}: must be an integer between 0 and 100"
        raise _Refusal(FAILED, f"{text} ({path})")


def _priority(container: Container, vendor: Vendor) -> int:
    found = asking.amount(container, vendor.resources.priority)
    value = None if found is None else whole(found[0])
    if found is None or value is None or value < 0:
        path = f"{container.path}.resources.limits[{vendor.resources.priority}]"
        raise _Refusal(DENIED, str(WireError(path, "a whole number from 0", None if found is None else str(found[0]))))
    return value


def _check_shape(container: Container, registry: Registry) -> None:
    """Every managed quantity must be one, wherever it stands: what cannot be read is no pod (code 400)."""
    asking.environment(container)
    for vendor in registry:
        for kind in ("limits", "requests"):
            written = asking.section(container, kind)
            for name in vendor.resources.names():
                if name in written:
                    one_kind = {"resources": {kind: {name: written[name]}}}
                    asking.amount(replace(container, document=one_kind), name)


def _check_forged(notes: Mapping[str, str], registry: Registry) -> None:
    reserved = {*_RESERVED, *(key for vendor in registry for key in vendor.written_keys())}
    for key in sorted(reserved & notes.keys()):
        raise _Refusal(
            DENIED, str(WireError(f"metadata.annotations[{key}]", "absent: only the scheduler writes it", notes[key]))
        )


def _is_privileged(container: Container) -> bool:
    context = container.document.get("securityContext")
    return isinstance(context, Mapping) and context.get("privileged") is True


def _fits_quota(
    needs: list[ContainerNeed],
    namespace: str,
    registry: Registry,
    quotas: Quotas | None,
    used: Mapping[VendorWord, Amounts],
    smallest_mib: Mapping[VendorWord, int],
) -> bool:
    if quotas is None:
        return True
    for vendor in registry:
        memory: list[tuple[Role, int]] = []
        cores: list[tuple[Role, int]] = []
        for container in needs:
            for need in container.needs:
                if need.vendor != vendor.name:
                    continue
                match need.memory:
                    case Mib(amount=mib):
                        pass
                    case Percent() as percent:
                        mib = percent.of(smallest_mib[vendor.name]) if vendor.name in smallest_mib else 0
                memory.append((container.role, need.count * mib))
                cores.append((container.role, need.count * need.cores))
        asked = peak(memory), peak(cores)
        if not quotas.fit(namespace, vendor.name, used.get(vendor.name, NO_AMOUNTS), asked):
            return False
    return True


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
