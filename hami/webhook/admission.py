"""An AdmissionReview in, an answer out. What is allowed and what is filled in, `hami.alloc.admit` decides."""

from hami.alloc.admit import admit
from hami.alloc.quota import UNLIMITED
from hami.cluster.picture import Picture
from hami.model.names import VendorWord
from hami.model.settings import SchedulerSettings
from hami.model.wire.review import ReviewError, read_review, write_review


class Webhook:
    """Answers `/webhook`. Every replica serves it, whoever leads."""

    def __init__(self, picture: Picture, settings: SchedulerSettings, *, scheduler_usernames: frozenset[str]) -> None:
        self._picture = picture
        self._settings = settings
        self._usernames = scheduler_usernames

    def review(self, body: bytes) -> bytes:
        """The verdict on one review. Raises WireError for a body that cannot even be answered."""
        try:
            review = read_review(body)
        except ReviewError as error:
            if error.review.operation == "DELETE":
                return write_review(error.review, allowed=True, patch=None)
            return write_review(error.review, allowed=False, patch=None, code=400, message=str(error))
        if review.operation != "CREATE":
            # What a pod asks for cannot be changed after it was created.
            return write_review(review, allowed=True, patch=None)
        verdict = admit(
            review.pod,
            registry=self._picture.registry,
            settings=self._settings,
            namespace=review.namespace,
            username=review.username,
            scheduler_usernames=self._usernames,
            quotas=self._picture.quotas,
            used={
                vendor.name: self._picture.ledger.namespace_usage(review.namespace, vendor.name)
                for vendor in self._picture.registry
            },
            smallest_mib=self._smallest(review.namespace),
        )
        return write_review(
            review,
            allowed=verdict.allowed,
            patch=verdict.patch,
            code=verdict.code,
            message=verdict.message,
            warnings=verdict.warnings,
        )

    def _smallest(self, namespace: str) -> dict[VendorWord, int]:
        """Memory of the smallest card by family, for namespaces with a limit: elsewhere nobody looks at it."""
        limited = {
            vendor.name
            for vendor in self._picture.registry
            if self._picture.quotas.limits(namespace, vendor.name) != UNLIMITED
        }
        smallest: dict[VendorWord, int] = {}
        if limited:
            for node in self._picture.ledger.nodes.values():
                for inventory in node.inventories:
                    if inventory.vendor in limited:
                        least = min(device.memory_mib for device in inventory.devices)
                        smallest[inventory.vendor] = min(least, smallest.get(inventory.vendor, least))
        return smallest
