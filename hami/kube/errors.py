"""What can go wrong between us and the API server.

`ApiError` and its kinds are answers of the server; `Unreachable` is the absence of an answer, with the transport's
exception as its cause. Nothing else leaves this package.
"""

from collections.abc import Mapping
from typing import Any


class KubeError(Exception):
    """Talking to the API server failed."""


class Unreachable(KubeError):
    """No answer: refused, reset, or too slow. Whether a write arrived is unknown."""


class ConfigError(KubeError):
    """The kubeconfig or the service account does not say how to reach a server."""


class ApiError(KubeError):
    """The server answered with a failure. `reason` is the machine-readable word of its Status object."""

    def __init__(self, status: int, reason: str, message: str, *, request: str = "") -> None:
        super().__init__(f"{request}: {status} {reason}: {message}" if request else f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class NotFound(ApiError):
    """404."""


class Conflict(ApiError):
    """409: a precondition (resourceVersion, uid) failed, or the object exists already."""


class Gone(ApiError):
    """410: the resource version is older than what the server remembers."""


class Forbidden(ApiError):
    """401 or 403."""


class Refused(ApiError):
    """422 or 400: the server read the object and does not accept it."""


class TooMany(ApiError):
    """429: the server asks for patience; `retry_after_s` says how much."""

    retry_after_s: float = 1.0


_BY_STATUS: Mapping[int, type[ApiError]] = {
    400: Refused,
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Refused,
    429: TooMany,
}


def from_status(status: int, body: object, *, request: str = "", retry_after: str | None = None) -> ApiError:
    """The error of an answer with HTTP status `status`; `body` is its decoded body, usually a Status object."""
    shape: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
    kind = _BY_STATUS.get(status, ApiError)
    error = kind(status, str(shape.get("reason") or ""), str(shape.get("message") or ""), request=request)
    if isinstance(error, TooMany) and retry_after is not None and retry_after.isdigit():
        error.retry_after_s = float(retry_after)
    return error
