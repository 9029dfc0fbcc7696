"""A refusal's text: it names the field and stays short, whatever the value."""

import pytest

from hami.model.names import WireError


@pytest.mark.parametrize(
    "got",
    ["x" * 10**7, 10**6000, [["y" * 10**6] * 1000] * 1000, {f"k{i}": i for i in range(10**5)}, b"z" * 10**6],
    ids=["text", "integer", "nested", "mapping", "bytes"],
)
def test_giant_values_are_shown_short(got: object) -> None:
    text = str(WireError("metadata.annotations[a]", "an integer", got))
    assert text.startswith("metadata.annotations[a]: expected an integer, got ")
    assert len(text) < 200


def test_small_values_are_shown_whole() -> None:
    assert str(WireError("a.b", "true or false", "maybe")) == "a.b: expected true or false, got 'maybe'"
    assert str(WireError("a", "a name")) == "a: expected a name"
