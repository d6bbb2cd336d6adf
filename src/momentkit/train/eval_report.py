"""One self-contained HTML page of an evaluation: figures, parts of the queries, calibration, misses.

It reaches for nothing outside itself and runs no script; its content policy forbids both.
"""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from momentkit.core.files import atomic_write
from momentkit.train.by_query import Details
from momentkit.train.charts import bars, reliability
from momentkit.train.compare import MODEL, PRIOR, Comparison
from momentkit.train.presence import PresenceReport

SHOWN = ("R1@0.3", "R1@0.5", "R1@0.7", "R5@0.5", "R5@0.7", "mIoU", "mAP")
STYLE = """
:root { --ink: #1b2430; --muted: #56606e; --line: #dfe4ea;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif;
  color: var(--ink); background: #f5f7fa; color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 24px clamp(14px, 3vw, 32px) 40px; }
h1 { font-size: 21px; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 0 0 4px; }
p { margin: 0 0 12px; color: var(--muted); max-width: 76ch; }
section { margin-top: 18px; padding: 18px 20px; border: 1px solid var(--line); border-radius: 12px;
  background: #fff; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 22px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 12px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; color: var(--muted); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td.words { white-space: normal; min-width: 22ch; overflow-wrap: anywhere; }
tr.own td { font-weight: 600; }
"""


def save_report(comparison: Comparison, title: str, path: str | Path) -> Path:
    """Write the page."""
    return atomic_write(path, to_html(comparison, title))


def to_html(comparison: Comparison, title: str) -> str:
    """The page as text.

    Args:
        comparison: of a model with what it must beat.
        title: what was evaluated.
    """
    sections = [_figures(comparison)]
    if comparison.details:
        sections += [
            _parts(comparison.details),
            _calibration(comparison.details),
            _misses(comparison.details),
        ]
    if comparison.presence:
        sections.append(_presence(comparison.presence))
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{escape(title)} · momentkit</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n<p>{len(comparison.rows)} queries, figures in percent.</p>\n"
        + "\n".join(f"<section>{section}</section>" for section in sections if section)
        + "\n</body>\n</html>\n"
    )


def _figures(comparison: Comparison) -> str:
    names = list(comparison.figures[MODEL])
    moments = [f"MR-full-{name}" for name in SHOWN if f"MR-full-{name}" in names]
    columns = [*moments, *(name for name in names if not name.startswith("MR-"))]
    short = [name.removeprefix("MR-full-") for name in columns]
    who = list(comparison.figures)
    rows = []
    for name, figures in comparison.figures.items():
        spread = comparison.deviation if name == MODEL else {}
        cells = [_cell(figures.get(column), spread.get(column)) for column in columns]
        rows.append(([name, *cells], "own" if name == MODEL else ""))
    groups = [
        (label, [comparison.figures[name].get(column) for name in who])
        for label, column in zip(short, columns, strict=True)
    ]
    notes = "".join(f"<p>{escape(note)}</p>" for note in comparison.notes)
    return (
        "<h2>The model, and what it must beat</h2><p>The location prior answers every query with the same "
        "windows. The other two are this model with another query's words, or another video's frames: what "
        "it loses there is what it has learnt from them.</p>"
        f"{_table(['', *short], rows)}{notes}<div class=charts>{bars('All queries', groups, who)}</div>"
    )


def _cell(value: float | None, deviation: float | None = None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" + ("" if deviation is None else f" ± {deviation:.2f}")


def _parts(details: Details) -> str:
    series = [name for name in (MODEL, PRIOR) if name in details.parts]
    charts = []
    filled = {
        scale: {label: own for label, own in parts.items() if own["queries"]}
        for scale, parts in details.parts[MODEL].items()
    }
    for scale, parts in filled.items():
        groups = []
        for label, own in parts.items():
            values = [details.parts[name][scale][label].get("R1@0.5") for name in series]
            groups.append((f"{label} ({own['queries']})", values))
        if len(groups) > 1:  # one part alone is all queries
            charts.append(bars(f"By {scale}: R1@0.5", groups, series))
    head = ["", "queries", "R1@0.5", "R1@0.7", "mIoU", "mAP"]
    rows = []
    for scale, parts in filled.items():
        for label, own in parts.items():
            cells = [_cell(own.get(name)) for name in head[2:]]
            rows.append(([f"{scale}: {label}", str(own["queries"]), *cells], ""))
    return (
        "<h2>Parts of the queries</h2><p>In brackets, how many queries. The longest of several moments "
        "speaks for its query; its middle decides the position.</p>"
        f"<div class=charts>{''.join(charts)}</div><details><summary>All figures of the model</summary>"
        f"{_table(head, rows)}</details>"
    )


def _calibration(details: Details) -> str:
    if not details.calibration:
        return (
            "<h2>Calibration</h2><p>The scores of this model are not confidences between 0 and 1, so there "
            "is no reliability curve.</p>"
        )
    charts = "".join(reliability(curve) for curve in details.calibration)
    return (
        "<h2>Calibration</h2><p>Dots on the dashed line: of the answers given with confidence 0.7, 70 % are "
        "right. The error is the mean distance from the line (expected calibration error, ten bins), weighed "
        "by the answers in each bin, which the strip below counts.</p>"
        f"<div class=charts>{charts}</div>"
    )


def _presence(report: PresenceReport) -> str:
    scores = report.scores
    head = ["", "AUROC", "Rej-F1", "precision", "recall", "calibration error", "perfect calibration"]
    shares = (
        scores.auroc,
        scores.rejection_f1,
        scores.rejection_precision,
        scores.rejection_recall,
        scores.curve.error,
        scores.chance_error,
    )
    rows = [
        (["model", *(f"{100 * share:.1f}" for share in shares)], "own"),
        (["rejects everything", "50.0", "66.7", "50.0", "100.0", "-", "-"], ""),
    ]
    return (
        f"<h2>Not in this video</h2><p>{escape(report.presence.fitted_on)}, {report.videos} videos. The "
        "probability that a sentence occurs is calibrated on one half of the videos and judged on the other, "
        "both ways; below one half it is rejected. Both kinds weigh alike. The calibration error is that of "
        "15 bins of equal weight; with so many queries probabilities that are exactly right would show that "
        "of the last column.</p>"
        f"{_table(head, rows)}"
        f"<div class=charts>{reliability(scores.curve, 'Probability that it occurs')}</div>"
    )


def _misses(details: Details) -> str:
    if not details.misses:
        return ""
    rows = [
        (
            [
                str(miss["query"]),
                str(miss["vid"]),
                f"{miss['confidence']:.2f}",
                f"{miss['iou']:.2f}",
                _window(miss["found"]),
                ", ".join(_window(window) for window in miss["true"]),
            ],
            "",
        )
        for miss in details.misses
    ]
    head = ["query", "video", "confidence", "overlap", "found, s", "true, s"]
    return f"<h2>The surest misses</h2>{_table(head, rows, words=True)}"


def _window(window: Sequence[float]) -> str:
    return f"{window[0]:.1f} to {window[1]:.1f}"


def _table(head: Sequence[str], rows: Sequence[tuple[Sequence[str], str]], *, words: bool = False) -> str:
    first = ' class="words"' if words else ""
    lines = ["<tr>" + "".join(f"<th>{escape(name)}</th>" for name in head) + "</tr>"]
    for cells, kind in rows:
        inner = f"<td{first}>{escape(cells[0])}</td>" + "".join(f"<td>{escape(c)}</td>" for c in cells[1:])
        lines.append(f'<tr class="{kind}">{inner}</tr>')
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'
