"""The page as text: complete, self-contained, well formed, and harmless whatever names a file holds."""

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from hami import __version__
from hami.simulate import page as page_module
from hami.simulate.figures import figures
from hami.simulate.files import load
from hami.simulate.page import page
from hami.simulate.plots import DASHES, pen, rounded
from hami.simulate.replay import Policy, Replay
from hami.simulate.study import Run, Study
from hami.simulate.workload import Order, arrivals
from hami.vendors import registry
from tests.simulate.worlds import NODES, PODS

VOID = {"meta", "br", "wbr"}
IMPLIED = {"html", "tr", "td", "th", "p", "li", "thead", "tbody"}
"""Elements whose end HTML lets be left out."""


def study(
    folder: Path,
    *policies: str,
    seeds: tuple[int | None, ...] = (None,),
    order: Order = Order.FILE,
    name: str = "p",
    model: str = "G2",
    count: int = 60,
) -> Study:
    """A small cluster that about thirty of the pods fill."""
    (folder / "nodes.csv").write_text(NODES + "".join(f"n{i},90000,9999,4,{model}\n" for i in range(5)))
    rows = (f'"{name}{i}",1000,10,1,{300 if i % 2 else 1000},,{60 * i},{60 * i + 4000}\n' for i in range(count))
    (folder / "pods.csv").write_text(PODS + "".join(rows))
    workload, sources = load(folder / "nodes.csv", folder / "pods.csv", registry())
    runs = []
    for seed in seeds:
        tasks = arrivals(workload, order, seed=seed)
        for policy in policies or ("binpack",):
            outcome = Replay(workload, registry(), Policy.parse(policy)).run(tasks)
            runs.append(Run(policy=policy, seed=seed, seconds=0.5, outcome=outcome))
    return Study(
        command="hami simulate --nodes nodes.csv --pods pods.csv",
        version=__version__,
        sources=sources,
        workload=workload,
        order=order,
        load=None,
        runs=tuple(runs),
    )


class Outline(HTMLParser):
    """Elements and text of a page; fails where they are not nested properly."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open[-1] != tag:
            assert self.open[-1] in IMPLIED, f"</{tag}> closes <{self.open[-1]}>"
            self.open.pop()
        assert self.open, f"</{tag}> closes nothing"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_it_says_what_it_is_and_how_it_was_made(tmp_path: Path) -> None:
    made = study(tmp_path, "binpack", "spread", seeds=(4, 5), order=Order.SHUFFLE)
    text = Outline(page(made)).text
    assert "Simulated" in text
    assert "No device and no cluster was used" in text
    assert made.command in text
    assert f"hami {__version__}" in text
    assert "seeds 4-5" in text
    for source in made.sources:
        assert source.sha256 in text
    for run in made.runs:
        assert f"{run.policy}, seed {run.seed} 0.5 s" in text


@pytest.mark.parametrize(
    ("policies", "seeds", "order"),
    [
        (("binpack",), (None,), Order.FILE),
        (("binpack", "spread", "fragmentation"), (1, 2, 3), Order.SHUFFLE),
        (("binpack", "spread"), (None,), Order.TIME),
    ],
)
def test_it_is_well_formed_and_needs_nothing_from_elsewhere(
    tmp_path: Path, policies: tuple[str, ...], seeds: tuple[int | None, ...], order: Order
) -> None:
    text = page(study(tmp_path, *policies, seeds=seeds, order=order))
    outline = Outline(text)
    assert not set(outline.open) - IMPLIED
    assert {"script", "link", "img", "iframe", "object", "use", "image"}.isdisjoint(tag for tag, _ in outline.seen)
    for _, attributes in outline.seen:
        assert {"src", "href", "xlink:href", "onload", "onclick"}.isdisjoint(attributes)
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    assert re.findall(r"url\(([^)]*)\)", text) == ["#frame"] * text.count("url(")


def test_names_of_a_file_stay_text(tmp_path: Path) -> None:
    hostile = "</td><script>alert(1)</script>&amp;'"
    text = page(study(tmp_path, name=hostile, model="<b>G2</b>"))
    outline = Outline(text)
    assert "script" not in {tag for tag, _ in outline.seen}
    assert "b" not in {tag for tag, _ in outline.seen}
    assert hostile in outline.text
    assert "<b>G2</b>" in outline.text


def test_every_policy_has_a_curve_in_every_figure(tmp_path: Path) -> None:
    made = study(tmp_path, "binpack", "spread", "fragmentation")
    drawn = figures(made)
    titles = [re.search(r"<strong>(.*?)</strong>", figure) for figure in drawn]
    assert [title and title[1] for title in titles] == [
        "Handed out",
        "Handed out, close up",
        "Fragments",
        "Without a place",
    ]
    for figure in drawn:
        assert len(re.findall(r"<polyline class='line", figure)) == 3
        assert all(f"{policy}: " in figure for policy in ("binpack", "spread", "fragmentation"))
    assert "offered load, % of all devices" in drawn[0]


def test_curves_end_where_the_run_ended(tmp_path: Path) -> None:
    made = study(tmp_path, "binpack")
    (sample,) = made.runs[0].outcome.curve[-1:]
    drawn = figures(made)[0]
    points = re.findall(r"<polyline class='line c0' points='([^']*)'", drawn)
    x, y = map(float, points[0].split()[-1].split(","))
    # The frame goes from 50 to 444 across, which is all that was offered, and from 254 up to 24, which is 100 %.
    assert x == pytest.approx(444, abs=0.1)
    assert y == pytest.approx(254 - 230 * sample.allocated / 100, abs=0.1)


def test_seeds_that_differ_show_as_a_band(tmp_path: Path) -> None:
    assert "class='band c0'" in "".join(figures(study(tmp_path, seeds=(1, 2, 3), order=Order.SHUFFLE)))
    assert "class='band" not in "".join(figures(study(tmp_path)))


def test_time_is_shown_in_a_unit_that_fits(tmp_path: Path) -> None:
    drawn = figures(study(tmp_path, order=Order.TIME))
    assert "minutes since the first arrival" in drawn[0]
    assert "asked for" not in re.findall(r"<strong>(.*?)</strong>", drawn[0])
    assert drawn[0].count("class='reference'") == 1


def test_where_everything_fits_nothing_is_lost(tmp_path: Path) -> None:
    made = study(tmp_path, count=10)
    assert not made.runs[0].outcome.refused
    text = Outline(page(made)).text
    assert "Every pod found a place." in text
    assert "Without a place Pods so far" not in text


def test_long_lists_of_kinds_are_cut_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = study(tmp_path)
    assert len(made.runs[0].outcome.unplaced) == 2
    assert "JSON output has all" not in page(made)
    monkeypatch.setattr(page_module, "KINDS", 0)
    monkeypatch.setattr(page_module, "MOST_KINDS", 1)
    text = page(made)
    assert "The first 1 kinds; the JSON output has all." in text
    assert text.count("default/p") == 1


def test_the_finding_compares_the_best_with_the_last(tmp_path: Path) -> None:
    made = study(tmp_path, "binpack", "spread")
    best, last = sorted((run.outcome.allocated for run in made.runs), reverse=True)
    text = Outline(page(made)).text
    if best - last < 0.005:
        assert f"All policies hand out {best:.2f} % of the devices in the end." in text
    else:
        assert f"{best:.2f} % of the devices, {best - last:.2f} points" in text


def test_plots_are_xml(tmp_path: Path) -> None:
    for figure in figures(study(tmp_path, "binpack", "spread", seeds=(1, 2), order=Order.SHUFFLE)):
        svg = figure[figure.index("<svg") : figure.index("</figure>")]
        assert ElementTree.fromstring(svg).tag == "svg"


@pytest.mark.parametrize(
    ("low", "high", "want"),
    [
        (0, 100, (0, 100)),
        (0, 97, (0, 100)),
        (76, 96.3, (75, 100)),
        (0, 2525, (0, 3000)),
        (0, 1, (0, 1)),
        (3, 3, (3, 3)),
    ],
)
def test_axes_end_at_round_numbers(low: float, high: float, want: tuple[float, float]) -> None:
    assert rounded(low, high) == pytest.approx(want)


def test_sixteen_lines_can_be_told_apart() -> None:
    looks = {pen(number) for number in range(16)}
    assert len(looks) == 16
    assert len(set(DASHES)) == len(DASHES)
