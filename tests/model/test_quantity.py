"""Quantities: Kubernetes' grammar exactly, and hostile ones at no cost."""

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hami.model.names import WireError
from hami.model.quantity import parse_quantity, whole

GOOD = [
    ("0", 0),
    ("3000", 3000),
    ("3k", 3000),
    ("16Gi", 17179869184),
    ("1Ki", 1024),
    ("1Ei", 2**60),
    ("1E", 10**18),
    ("1E3", 1000),
    ("1e3", 1000),
    ("1e+3", 1000),
    ("5e-3", Fraction(1, 200)),
    ("500m", Fraction(1, 2)),
    ("250u", Fraction(1, 4000)),
    ("1n", Fraction(1, 10**9)),
    ("0.5", Fraction(1, 2)),
    (".5", Fraction(1, 2)),
    ("1.", 1),
    ("1.5Gi", 1610612736),
    ("-2", -2),
    ("+3Mi", 3 * 2**20),
    ("007", 7),
    (1, 1),
    (-1, -1),
    (0.1, Fraction(1, 10)),
    (1e22, 10**22),
]

BAD: list[object] = [
    "", " ", ".", "-", "+", "k", "Gi", " 1", "1 ", "1\n", "1 k", "1e", "e3", "1e3k", "1K", "1KI", "1kk", "1Kii", "1gi",
    "1_0", "0x10", "1,5", "１", "١", "one", "NaN", "inf", "1e41", "1e-41", "1e999999999", "9" * 65, "1" + "0" * 10**6,
    None, True, False, [], {}, b"1", float("nan"), float("inf"), 10**40, -(10**5000),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), GOOD, ids=repr)
def test_value(text: object, value: Fraction) -> None:
    assert parse_quantity(text, "x") == value


@pytest.mark.parametrize("text", BAD, ids=lambda text: repr(type(text).__name__))
def test_refused_naming_the_field(text: object) -> None:
    with pytest.raises(WireError) as caught:
        parse_quantity(text, "spec.containers[0].resources.limits[nvidia.com/gpu]")
    assert caught.value.field == "spec.containers[0].resources.limits[nvidia.com/gpu]"
    assert len(str(caught.value)) < 400


def test_hostile_text_costs_nothing() -> None:
    start = time.perf_counter()
    for text in ("1e999999999", "1e-999999999", "9" * 10**7):
        with pytest.raises(WireError):
            parse_quantity(text, "x")
    assert parse_quantity("1" * 60 + "e40", "x") < 10**101
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize(("text", "expected"), [("3k", 3000), ("1.0", 1), ("2000m", 2), ("1.5", None), ("1m", None)])
def test_whole(text: str, expected: int | None) -> None:
    assert whole(parse_quantity(text, "x")) == expected


@given(st.integers(-(10**18), 10**18), st.sampled_from(["", "k", "M", "Ki", "Mi", "m"]))
def test_suffix_scales(number: int, suffix: str) -> None:
    scale = Fraction({"": "1", "k": "1000", "M": "1000000", "Ki": "1024", "Mi": "1048576", "m": "1/1000"}[suffix])
    assert parse_quantity(f"{number}{suffix}", "x") == number * scale


@given(st.text(max_size=70) | st.floats() | st.integers() | st.none() | st.booleans())
def test_anything_is_a_value_or_a_wire_error(value: object) -> None:
    try:
        result: object = parse_quantity(value, "x")
    except WireError as error:
        result = error.field
    assert result == "x" or isinstance(result, Fraction)
