"""Where the kinds we use live in the API: enough to list, watch and address them."""

from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object: `prefix` is `/api/v1` or `/apis/GROUP/VERSION`, `plural` its path word."""

    prefix: str
    plural: str
    kind: str
    namespaced: bool

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """The collection over all namespaces, of one, or one object."""
        parts = [self.prefix]
        if self.namespaced and namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name:
            if self.namespaced and not namespace:
                raise ValueError(f"a {self.kind} is addressed by namespace and name")
            parts.append(quote(name, safe=""))
        return "/".join(parts)


NODES = Resource("/api/v1", "nodes", "Node", namespaced=False)
PODS = Resource("/api/v1", "pods", "Pod", namespaced=True)
EVENTS = Resource("/api/v1", "events", "Event", namespaced=True)
QUOTAS = Resource("/api/v1", "resourcequotas", "ResourceQuota", namespaced=True)
LEASES = Resource("/apis/coordination.k8s.io/v1", "leases", "Lease", namespaced=True)
SELF_REVIEWS = Resource("/apis/authentication.k8s.io/v1", "selfsubjectreviews", "SelfSubjectReview", namespaced=False)
