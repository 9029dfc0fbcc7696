"""AWS Neuron."""

from tests.golden.right import Booked, Family, Nowhere, Placed, Scored

DONE, IDS, BY = "hami.io/aws-neuron-devices-allocated", "AWS_NEURON_IDS", "NEURON_RESOURCE_TYPE"
IN_USE = "nodes and devices rank by slots and cores in use; the reference's score is 0 without memory"


def text(node: str, cores: dict[int, int]) -> str:
    """The allocation of a pod with one container: mask by device."""
    return "".join(f"{node}-AWSNeuron-{i},AWSNeuron,0,{mask}:" for i, mask in cores.items()) + ";"


def placed(node: str, ids: str, cores: dict[int, int], *absent: str) -> Placed:
    return Placed(node=node, written={DONE: text(node, cores), IDS: ids}, absent=absent)


def spread(node: str, device: int, mask: int = 1) -> Booked:
    return Booked(rule=IN_USE, text=text(node, {device: mask}))


def scored(node: str, score: str) -> Scored:
    return Scored(rule=IN_USE, scores={node: score})


FAMILY = Family(
    file="awsneuron",
    right={
        "awsneuron-f-023": spread("aws-inf2", 4),
        "awsneuron-f-025": scored("aws-inf2", "1.67"),
        "awsneuron-f-027": scored("aws-inf2", "14.17"),
        # What was asked says which numbers are told, wherever it was written.
        "awsneuron-f-032": placed("aws-inf2", "5", {5: 3}, BY),
        "awsneuron-f-033": placed("aws-inf2", "5", {2: 2}),
        "awsneuron-f-034": scored("aws-inf2", "1.67"),
        # The last device and the first one are neighbours.
        "awsneuron-f-044": placed("aws-inf2", "5,0", {5: 3, 0: 3}, BY),
        # UUID lists hold for several devices too.
        "awsneuron-f-049": placed("aws-inf2", "1,2", {1: 3, 2: 3}, BY),
        "awsneuron-f-058": scored("aws-trn", "0.94"),
        "awsneuron-f-060": scored("aws-trn", "0.94"),
        "awsneuron-f-064": scored("aws-trn", "0.94"),
        # One kind of number for all containers.
        "awsneuron-f-071": Placed(node="aws-inf2", written={IDS: "10,8,9", BY: "aws.amazon.com/neuroncore"}),
        # Each node's devices have the cores that they have.
        "awsneuron4-f-003": placed("aws-inf1", "3", {3: 15}, BY),
        "awsneuron4-f-004": placed("aws-inf1", "2", {2: 15}, BY),
        # A device that the reference gave away whole, under the mask of two cores, is given away.
        "awsneuron4-f-005": Nowhere(reason="1/4 CardInsufficientCore, 3/4 CardUuidMismatch"),
        "awsneuron4-f-007": spread("aws-inf1", 2),
        "awsneuron4-f-009": placed("aws-inf1", "8,9", {2: 3}),
        "awsneuron4-f-010": placed("aws-inf1", "12,13,14,15", {3: 15}),
        "awsneuron4-f-013": placed("aws-mixed", "2", {1: 1}),
    },
    steps={
        "awsneuron-s-079": {
            1: spread("aws-inf2", 4),
            2: spread("aws-inf2", 3),
            3: spread("aws-inf2", 2, 3),
            5: scored("aws-inf2", "5.83"),
            6: spread("aws-inf2", 1),
        },
        "awsneuron-s-081": {
            step: scored("aws-trn", score) for step, score in ((1, "3.75"), (2, "11.25"), (5, "11.25"))
        },
        "awsneuron-s-083": {
            step: scored("aws-inf2", score) for step, score in ((1, "2.50"), (2, "5.00"), (5, "12.50"), (6, "14.17"))
        },
    },
)
