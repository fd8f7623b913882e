"""The input of a section, and the Markdown tables and the chart that it returns."""

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

# Medium colors, which are visible on white and on black.
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #59636e }
.title { font-weight: 600 }
.bar0 { fill: #2f81f7 } .bar1 { fill: #db6d28 } .bar2 { fill: #8b949e } .bar3 { fill: #a475f9 }
.bar4 { fill: #3fb950 } .bar5 { fill: #d4a72c }
@media (prefers-color-scheme: dark) { text { fill: #c9d1d9 } }
"""


class Bench(NamedTuple):
    """The input of every section."""

    postgres: Postgres
    folder: Path
    seconds: float  # per round
    rounds: int
    quick: bool
    others: list[tuple[str, str, str]]  # name, path of its tasks, command


# The texts that a section returns, by their place in the document, or by the name of a file.
Results = dict[str, str]


def progress(text: str) -> None:
    """Show the progress on one line of the terminal."""
    start, end = ("\r\033[K", "") if sys.stderr.isatty() else ("", "\n")
    print(f"{start}{text}", end=end, file=sys.stderr, flush=True)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a Markdown table. The first column is aligned left, the others right."""
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float) -> str:
    """Format a figure with as many digits as the measurement justifies."""
    if isnan(value):  # not measured
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004


def ratio(one: float, other: float) -> float:
    """Divide. The result is NaN if a value is NaN or the divisor is 0."""
    return one / other if other else nan


def write(results: Results) -> None:
    """Write each text between its markers in the document, or into its file."""
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
    """Draw a group of bars for each key as SVG. Bars with the same name have the same color."""
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
