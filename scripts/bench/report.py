"""What was measured: medians over rounds, as a table of ratios and a plot."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median


@dataclass(frozen=True, slots=True)
class Measurement:
    """One figure of one round."""

    work: str
    who: str
    figure: str
    value: float
    round: int


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure of ours, divided by that of a peer, should be."""

    work: str
    figure: str
    peer: str
    must: float
    aim: float
    larger_is_better: bool
    peer_figure: str | None = None

    def verdict(self, ratio: float) -> str:
        """Say in words what a ratio is worth."""

        def reaches(bound: float) -> bool:
            return ratio >= bound if self.larger_is_better else ratio <= bound

        return "reaches its aim" if reaches(self.aim) else "fine" if reaches(self.must) else "**missed**"


def medians(found: Iterable[Measurement]) -> dict[tuple[str, str, str], float]:
    """Return the median of each figure over its rounds."""
    values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for one in found:
        values[one.work, one.who, one.figure].append(one.value)
    return {key: median(list_) for key, list_ in values.items()}


def table(found: list[Measurement], targets: Iterable[Target]) -> str:
    """Return the figures, then each ratio beside what it should be, as Markdown."""
    middle = medians(found)
    lines = ["| work | who | figure | median |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {work} | {who} | {figure} | {value:,.4g} |" for (work, who, figure), value in middle.items()
    ]
    lines += ["", "| work | ours beside | ratio | must | aim | |", "| --- | --- | --- | --- | --- | --- |"]
    for target in targets:
        ours = middle.get((target.work, "ours", target.figure))
        theirs = middle.get((target.work, target.peer, target.peer_figure or target.figure))
        if ours is None or theirs is None:
            continue
        ratio = ours / theirs
        verdict = target.verdict(ratio)
        sign = "≥" if target.larger_is_better else "≤"
        peer = f"{target.peer}, {target.peer_figure or target.figure}"
        lines.append(
            f"| {target.work}, {target.figure} | {peer} | {ratio:.2f} | {sign} {target.must:.2g} | {sign} {target.aim:.2g} | {verdict} |"
        )
    return "\n".join(lines) + "\n"


def write(found: list[Measurement], targets: Iterable[Target], folder: Path) -> str:
    """Write results, table and plot under a folder; return the table."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps([asdict(one) for one in found], indent=1))
    text = table(found, targets)
    (folder / "bench.md").write_text(text)
    plot(found, folder / "bench.png")
    return text


def plot(found: list[Measurement], path: Path) -> None:
    """Draw each work's figures as bars."""
    from matplotlib.figure import Figure

    middle = medians(found)
    works = list(dict.fromkeys((work, figure) for work, _, figure in middle))
    picture = Figure(figsize=(10, 1.6 * len(works)), layout="constrained")
    for axes, (work, figure) in zip(picture.subplots(len(works), squeeze=False)[:, 0], works, strict=True):
        bars = {who: value for (w, who, f), value in middle.items() if (w, f) == (work, figure)}
        axes.barh(
            list(bars), list(bars.values()), color=["tab:blue" if who == "ours" else "silver" for who in bars]
        )
        axes.set_title(f"{work}: {figure}", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.invert_yaxis()
    picture.savefig(path, dpi=110)
