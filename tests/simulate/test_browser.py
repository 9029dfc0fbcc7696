"""The page in a real browser: light and dark, on a phone and on a desk."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from hami.simulate.page import page
from hami.simulate.workload import Order
from tests.simulate.test_page import study

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH: apt-get install chromium")

SCHEMES, WIDTHS = ("light", "dark"), (400, 1400)

LABELS = """() => [...document.querySelectorAll('figure svg')].map(svg => {
  const box = r => [r.left, r.top, r.right, r.bottom];
  const label = t => ({words: t.textContent, box: box(t.getBoundingClientRect())});
  return {frame: box(svg.getBoundingClientRect()), labels: [...svg.querySelectorAll('text')].map(label)};
})"""
"""Every figure's place, and the places of its words."""

COLORS = """() => {
  const channels = text => text.match(/[\\d.]+/g).map(Number);
  const ground = element => {
    for (let e = element; e; e = e.parentElement) {
      const [r, g, b, a] = channels(getComputedStyle(e).backgroundColor);
      if (a === undefined || a > 0) return [r, g, b];
    }
  };
  const own = e => channels(getComputedStyle(e)[e instanceof SVGElement ? 'fill' : 'color']).slice(0, 3);
  return [...document.querySelectorAll('h1,h2,h3,p,dt,dd,td,th,li,span,text,summary,pre,small')]
    .filter(e => e.textContent.trim() && e.getClientRects().length)
    .map(e => ({words: e.textContent.slice(0, 30), ink: own(e), paper: ground(e)}));
}"""
"""The color of every piece of text, and of what it stands on."""


@dataclass(frozen=True)
class Shown:
    """A page as it was shown."""

    page: Any
    noise: list[str]
    width: int


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # The tests run as root in containers, where chromium has no sandbox of its own.
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]) as started,
    ):
        yield started


@pytest.fixture(scope="module", params=["file", "seeds", "time"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    made = {
        "file": lambda: study(folder, "binpack"),
        "seeds": lambda: study(
            folder, "binpack/spread", "spread", "fragmentation", seeds=(1, 2, 3), order=Order.SHUFFLE
        ),
        "time": lambda: study(folder, "binpack", "spread", order=Order.TIME),
    }[request.param]()
    (folder / "page.html").write_text(page(made), encoding="utf-8")
    return folder / "page.html"


@pytest.fixture(params=[(scheme, width) for scheme in SCHEMES for width in WIDTHS], ids=str)
def shown(request: pytest.FixtureRequest, browser: Browser, written: Path) -> Iterator[Shown]:
    scheme, width = request.param
    with browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme) as context:
        opened = context.new_page()
        noise: list[str] = []
        opened.on("console", lambda message: noise.append(message.text))
        opened.on("pageerror", lambda error: noise.append(str(error)))
        opened.on("request", lambda asked: noise.append(asked.url) if asked.url != written.as_uri() else None)
        opened.goto(written.as_uri())
        yield Shown(page=opened, noise=noise, width=width)


def test_it_is_quiet_and_as_wide_as_the_window(shown: Shown) -> None:
    assert shown.noise == []
    assert shown.page.evaluate("document.documentElement.scrollWidth") == shown.width


def test_rows_of_words_need_no_scrolling_sideways(shown: Shown) -> None:
    found = shown.page.evaluate(
        "() => [...document.querySelectorAll('.stacked')].map(e => [e.scrollWidth, e.clientWidth, e.innerText])"
    )
    assert found
    assert all(inner <= outer for inner, outer, _ in found), found


def test_words_of_plots_are_readable_apart_and_inside(shown: Shown) -> None:
    found = shown.page.evaluate(LABELS)
    assert len(found) >= 3
    for figure in found:
        left, top, right, bottom = figure["frame"]
        boxes = [label["box"] for label in figure["labels"]]
        for label in figure["labels"]:
            a, b, c, d = label["box"]
            assert d - b >= 11, label
            assert left - 1 <= a, label
            assert c <= right + 1, label
            assert top - 1 <= b, label
            assert d <= bottom + 1, label
        for i, one in enumerate(boxes):
            for other in boxes[i + 1 :]:
                apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] + 3 or other[3] <= one[1] + 3
                assert apart, (figure["labels"][i], other)


def test_every_text_stands_out_from_its_ground(shown: Shown) -> None:
    texts = shown.page.evaluate(COLORS)
    assert len(texts) > 50
    for text in texts:
        assert contrast(text["ink"], text["paper"]) >= 4.5, text


def test_lines_stand_out_from_their_ground(shown: Shown) -> None:
    lines = shown.page.evaluate(
        """() => [...document.querySelectorAll('figure .line')].map(line => ({
          ink: getComputedStyle(line).stroke.match(/[\\d.]+/g).map(Number),
          paper: getComputedStyle(line.closest('figure')).backgroundColor.match(/[\\d.]+/g).map(Number)}))"""
    )
    assert lines
    assert all(contrast(line["ink"], line["paper"]) >= 3 for line in lines), lines


def contrast(one: list[float], other: list[float]) -> float:
    """The contrast of two colors as WCAG 2 defines it, from 1 to 21."""

    def luminance(color: list[float]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in color[:3])]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
