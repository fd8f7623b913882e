"""What a section is given, and the Markdown and the chart that it gives back."""

import re
import sys
from collections.abc import Iterable, Sequence
from math import isnan, nan
from pathlib import Path
from typing import NamedTuple

from benchmarks.servers import Postgres
from settings import ROOT

DOCUMENT = ROOT / "docs" / "performance.md"
BAR_PIXELS = 14
LABEL_PIXELS = 190
VALUE_PIXELS = 60
CHART_PIXELS = 760
COLORS = 6

# Middle tones that stand out from white and from black alike.
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #59636e }
.title { font-weight: 600 }
.bar0 { fill: #2f81f7 } .bar1 { fill: #db6d28 } .bar2 { fill: #8b949e } .bar3 { fill: #a475f9 }
.bar4 { fill: #3fb950 } .bar5 { fill: #d4a72c }
@media (prefers-color-scheme: dark) { text { fill: #c9d1d9 } }
"""


class Bench(NamedTuple):
    """What every section works with."""

    postgres: Postgres
    folder: Path
    seconds: float  # of one round
    rounds: int
    quick: bool
    others: list[tuple[str, str, str]]  # name, path of its tasks, command


# What a section gives: the name of a place in the document, or of a file beside it -> the text.
Results = dict[str, str]


def progress(text: str) -> None:
    """Say on one line of the terminal what is going on."""
    start, end = ("\r\033[K", "") if sys.stderr.isatty() else ("", "\n")
    print(f"{start}{text}", end=end, file=sys.stderr, flush=True)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table in Markdown; numbers stand to the right, the first column to the left."""
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float) -> str:
    """Write a figure with as many digits as a measurement is good for."""
    if isnan(value):  # it was not measured
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004


def ratio(one: float, other: float) -> float:
    """Divide; by what was not measured, or is nothing, there is no ratio."""
    return one / other if other else nan


def write(results: Results) -> None:
    """Put the texts into the document, each between its own two markers, and write the files."""
    document = DOCUMENT.read_text()
    for name, text in results.items():
        if name.endswith(".svg"):
            (DOCUMENT.parent / name).write_text(text)
            continue
        marked = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not (place := marked.search(document)):
            raise SystemExit(f"{DOCUMENT.name} has no place for {name}")
        document = f"{document[: place.end(1)]}{text}\n{document[place.start(2) :]}"
    DOCUMENT.write_text(document)


def bar_chart(title: str, groups: dict[str, dict[str, float]]) -> str:
    """Draw a group of bars for each key as SVG; the bars of one name have one color."""
    names = list(dict.fromkeys(name for bars in groups.values() for name in bars))
    most = max(value for bars in groups.values() for value in bars.values())
    scale = (CHART_PIXELS - LABEL_PIXELS - VALUE_PIXELS) / most
    parts = [f'<text class="title" x="8" y="18">{title}</text>']
    y = 34
    for group, bars in groups.items():
        parts.append(f'<text class="title" x="8" y="{y + BAR_PIXELS - 3}">{group}</text>')
        y += BAR_PIXELS + 4
        for name, value in bars.items():
            width, middle = max(1, round(value * scale)), y + BAR_PIXELS - 4
            place = f'x="{LABEL_PIXELS}" y="{y}" width="{width}" height="{BAR_PIXELS - 3}"'
            parts += [
                f'<text x="{LABEL_PIXELS - 8}" y="{middle}" text-anchor="end">{name}</text>',
                f'<rect class="bar{names.index(name) % COLORS}" {place} rx="2"/>',
                f'<text x="{LABEL_PIXELS + width + 6}" y="{middle}">{number(value)}</text>',
            ]
            y += BAR_PIXELS + 1
        y += 8
    size = f'viewBox="0 0 {CHART_PIXELS} {y}" width="{CHART_PIXELS}" height="{y}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{title}">\n'
        f"<style>{STYLE}</style>\n" + "\n".join(parts) + "\n</svg>\n"
    )
