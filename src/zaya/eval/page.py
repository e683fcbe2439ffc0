"""Evaluations as one HTML file that needs nothing else: no network, no script, no library.

Whatever a model, a task or a file name says is escaped, and a content policy allows nothing but this page's own style.
Numbers are those of `eval.report`, the figure that of `eval.figure`; its table stands below it. What would be long is
limited, and says so. Command: `zaya eval report`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from statistics import mean

from zaya.errors import UsageError
from zaya.eval.evaluation import Evaluation
from zaya.eval.figure import draw, marker
from zaya.eval.markup import text_of
from zaya.eval.metrics import Estimate
from zaya.eval.records import Scored
from zaya.eval.report import Point, Summary, by_task, percent, points, summarise

MOST_PROBLEMS = 400
"""Rows of the table of problems."""
MOST_SAMPLED = 20
"""Problems whose samples are shown, those the systems differ most on."""
MOST_SYSTEMS = 40
"""A page with more is no page."""


@dataclass(frozen=True, slots=True)
class _Column:
    """One evaluation, with what the page says of it."""

    evaluation: Evaluation
    summary: Summary
    points: list[Point]
    records: Mapping[str, list[Scored]]
    """Those that count, by problem."""


def page(evaluations: Sequence[Evaluation]) -> str:
    """The whole file. Raises UsageError where there is nothing to show, or too much."""
    if not 1 <= len(evaluations) <= MOST_SYSTEMS:
        raise UsageError(f"a page shows 1 to {MOST_SYSTEMS} evaluations: {len(evaluations)}", hint="name some of them")
    columns = [_column(evaluation) for evaluation in evaluations]
    style = files("zaya.eval").joinpath("page.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    problems = len({digest for column in columns for digest in column.records})
    return "".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            '<meta name="color-scheme" content="light dark">\n<title>Evaluation</title>\n',
            f"<style>{style}</style>\n</head>\n<body>\n<main>\n<h1>Evaluation</h1>\n",
            f"<p>{_count(len(columns), 'evaluation')}, {_count(problems, 'problem')}. Accuracy is the mean over "
            "problems of the mean of their values, in percent. All intervals are of 95 %: <b>new problems</b> says how "
            "far off other problems of the kind may be, <b>sampling</b> how far off the same ones asked again.</p>\n",
            _systems(columns),
            _figure([point for column in columns for point in column.points]),
            _passes(columns),
            _tasks(columns),
            _problems(columns),
            _samples(columns),
            "</main>\n</body>\n</html>\n",
        ]
    )


def _column(evaluation: Evaluation) -> _Column:
    summary = summarise(evaluation)
    records: dict[str, list[Scored]] = {}
    for record in evaluation.records:
        if record.value is not None:
            records.setdefault(record.digest, []).append(record)
    return _Column(evaluation, summary, points(evaluation, summary), records)


# ----- tables and the figure


def _systems(columns: Sequence[_Column]) -> str:
    head = ["system", "accuracy", "± new problems", "± sampling", "lenient", "form", "vote", "tokens", "median", "p90"]
    head += ["cut off", "problems", "values", "left out"]
    rows = []
    for column in columns:
        s = column.summary
        rows.append(
            [
                f"{s.name}\n{s.method}, {s.setting}", *_estimate(s.accuracy), _percent(s.lenient.mean),
                f"{100 * s.form:+.1f}", "" if s.vote is None else percent(s.vote), f"{s.tokens.mean:,.0f}",
                f"{s.tokens.p50:,.0f}", f"{s.tokens.p90:,.0f}", _percent(s.truncated), f"{s.accuracy.num_problems:,}",
                f"{s.accuracy.num_values:,}", f"{s.left_out:,}" if s.left_out else "",
            ]
        )  # fmt: skip
    notes = [
        "Accuracy is <b>strict</b>: the last box of the visible answer, as in training. <b>Lenient</b> also reads "
        "answers that stand elsewhere, where strict found none; what it adds, <b>form</b>, is a matter of format and "
        "not of knowing. <b>Tokens</b> are generated ones of one value: a sample, or a whole run in rounds; <b>cut "
        "off</b> is the share of answers that a budget ended. <b>Vote</b> is what a majority of the last candidates of "
        "a run would answer."
    ]
    notes += [
        f"{text_of(c.summary.name)} was interrupted: {c.summary.missing:,} of its problems have no record."
        for c in columns
        if c.summary.missing
    ]
    return _section("Systems", _table("Systems", head, rows, text=(0,)) + "".join(map(_note, notes)))


def _figure(shown: Sequence[Point]) -> str:
    shown = sorted((point for point in shown if point.tokens > 0), key=lambda point: (point.family, point.tokens))
    if not shown:
        return ""
    families = list(dict.fromkeys(point.family for point in shown))
    keys = [_key(number) for number in range(len(families))]
    legend = "".join(f"<li>{key}{text_of(family)}</li>" for key, family in zip(keys, families, strict=True))
    rows = [
        [str(number), point.family, point.label, f"{point.tokens:,.0f}", *_estimate(point.accuracy)]
        for number, point in enumerate(shown, 1)
    ]
    head = ["#", "family", "configuration", "tokens", "accuracy", "± new problems", "± sampling"]
    return _section(
        "Accuracy against generated tokens",
        f'<figure>\n<ul class="legend">{legend}</ul>\n'
        f'<div class="broad">{draw(shown, 860, 440, id="broad")}</div>\n'
        f'<div class="narrow">{draw(shown, 340, 320, id="narrow", numbers=True)}</div>\n'
        "<figcaption>Tokens on a logarithmic axis. Thin bars are intervals over new problems, thick ones of sampling; "
        "the points of a family are joined. On a narrow screen points have the numbers of the table.</figcaption>\n"
        "</figure>\n" + _table("Points of the figure", head, rows, text=(1, 2)),
    )


def _passes(columns: Sequence[_Column]) -> str:
    found = [column.summary for column in columns if column.summary.passes]
    ks = sorted({k for summary in found for k in summary.passes})
    if len(ks) < 2:
        return ""
    rows = [
        [summary.name, *(percent(summary.passes[k]) if k in summary.passes else "" for k in ks)] for summary in found
    ]
    return _section(
        "pass@k",
        _table("pass@k", ["system", *map(str, ks)], rows, text=(0,))
        + _note(
            "The chance that at least one of k samples is right, unbiased, ± the interval over new problems. It says "
            "what a perfect judge could pick, not what a system answers."
        ),
    )


def _tasks(columns: Sequence[_Column]) -> str:
    found = [by_task(column.evaluation) for column in columns]
    keys = sorted({key for some in found for key in some}, key=lambda key: (key[0], -1 if key[1] is None else key[1]))
    head = ["task", *(column.summary.name for column in columns)]

    def cells(key: tuple[str, int | None]) -> list[str]:
        return [
            "" if (value := some.get(key)) is None else f"{percent(value)} ({value.num_problems})" for some in found
        ]

    tasks = [[env, *cells((env, level))] for env, level in keys if level is None]
    levels = [[f"{env}\nlevel {level}", *cells((env, level))] for env, level in keys if level is not None]
    note = _note("Percent, ± the interval over new problems, and the number of problems.")
    more = (
        f"<details>\n<summary>By difficulty</summary>\n{_table('By difficulty', head, levels, text=(0,))}</details>\n"
    )
    return _section("By task", _table("By task", head, tasks, text=(0,)) + note + more)


# ----- problems and samples


def _problems(columns: Sequence[_Column]) -> str:
    order = _by_difficulty_seen(columns)
    rows = []
    for digest in order[:MOST_PROBLEMS]:
        record = next(c.records[digest][0] for c in columns if digest in c.records)
        cells = "".join(_heat(column, digest) for column in columns)
        said = f"{_first_line(record.question) or digest[:8]}\n{record.env}, level {record.difficulty}"
        rows.append(f'<tr><th scope="row" class="text plain">{text_of(said)}</th>{cells}</tr>')
    names = "".join(f'<th scope="col">{text_of(column.summary.name)}</th>' for column in columns)
    head = f'<th scope="col" class="text">problem</th>{names}'
    body = f"<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody>"
    cut = _note(f"The first {MOST_PROBLEMS} of {len(order):,} problems.") if len(order) > MOST_PROBLEMS else ""
    note = _note("How many samples are right, and of runs in rounds the share of the last candidates. Hardest first.")
    return _section(
        "Problems",
        f"{note}<details>\n<summary>{_count(min(len(order), MOST_PROBLEMS), 'problem')}</summary>\n"
        f"{_wide('Problems', body)}</details>\n{cut}",
    )


def _heat(column: _Column, digest: str) -> str:
    """A cell in the colour of how much is right, which also says it."""
    if digest not in column.records:
        return '<td class="cell"></td>'
    values = [record.value or 0.0 for record in column.records[digest]]
    share = mean(values)
    said = f"{100 * share:.0f} %" if column.evaluation.is_rsa else f"{sum(values):.0f}/{len(values)}"
    return f'<td class="cell h{min(5, int(6 * share))}">{said}</td>'


def _samples(columns: Sequence[_Column]) -> str:
    order = _by_difference(columns)[:MOST_SAMPLED]
    parts = []
    for digest in order:
        having = [column for column in columns if digest in column.records]
        first = having[0].records[digest][0]
        said = "".join(_said(column.summary.name, column.records[digest][0]) for column in having)
        parts.append(
            f"<details>\n<summary>{text_of(_first_line(first.question) or digest[:8])} "
            f'<span class="note">{text_of(first.env)}, level {first.difficulty}</span></summary>\n'
            f"<pre>{text_of(first.question)}</pre>\n<dl>{said}</dl>\n</details>\n"
        )
    note = _note(
        f"The first value of each, for {_count(len(order), 'problem')} on which they differ most; the beginnings of "
        "questions and the ends of answers."
    )
    return _section("Samples", note + "".join(parts))


def _said(name: str, record: Scored) -> str:
    value = record.value or 0.0
    verdict = "right" if value == 1 else "wrong" if value == 0 else f"{100 * value:.0f} % right"
    if value == 0 and record.lenient_value:
        verdict = "wrong by form: the right answer stands elsewhere"
    if record.truncated == 1:
        verdict += ", cut off"
    answer = "no answer" if record.answer is None else f"answer {record.answer}"
    thought = f'<pre class="thought">{text_of(record.reasoning)}</pre>' if record.reasoning else ""
    text = f"<pre>{text_of(record.text)}</pre>" if record.text else ""
    return (
        f'<dt>{text_of(name)}</dt><dd><span class="note">{verdict}; {text_of(answer)}; {record.tokens:,} tokens</span>'
        f"{thought}{text}</dd>"
    )


def _by_difficulty_seen(columns: Sequence[_Column]) -> list[str]:
    """The problems, hardest first: by the mean over the systems."""
    means = _means(columns)
    return sorted(means, key=lambda digest: (mean(means[digest]), digest))


def _by_difference(columns: Sequence[_Column]) -> list[str]:
    """The problems, first those that tell systems apart; with one system, those it is least sure of."""
    means = _means(columns)

    def key(digest: str) -> tuple[float, float, str]:
        some = means[digest]
        return min(some) - max(some), abs(mean(some) - 0.5), digest

    return sorted(means, key=key)


def _means(columns: Sequence[_Column]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for column in columns:
        for digest, records in column.records.items():
            found.setdefault(digest, []).append(mean(record.value or 0.0 for record in records))
    return found


# ----- pieces


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{title}</h2>\n{body}</section>\n"


def _note(html: str) -> str:
    return f'<p class="note">{html}</p>\n'


def _table(label: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, text: Collection[int]) -> str:
    """A table; `text` are the columns of words. Columns without a value in any row are left out."""
    rows = list(rows)
    kept = [i for i in range(len(head)) if i == 0 or any(row[i] for row in rows)]

    def kind(i: int) -> str:
        return ' class="text"' if i in text else ""

    heads = "".join(f'<th scope="col"{kind(i)}>{text_of(head[i])}</th>' for i in kept)
    lines = []
    for row in rows:
        cells = "".join(f"<td{kind(i)}>{text_of(row[i])}</td>" for i in kept[1:])
        lines.append(f'<tr><th scope="row"{kind(0)}>{text_of(row[0])}</th>{cells}</tr>')
    return _wide(label, f"<thead><tr>{heads}</tr></thead>\n<tbody>\n" + "\n".join(lines) + "\n</tbody>")


def _wide(label: str, table: str) -> str:
    """A table that scrolls by itself where it is wider than the screen, also by keyboard."""
    return f'<div class="wide" role="region" aria-label="{label}" tabindex="0"><table>\n{table}\n</table></div>\n'


def _key(number: int) -> str:
    return f'<svg class="key" viewBox="0 0 14 14" aria-hidden="true">{marker(number, 7, 7)}</svg>'


def _estimate(estimate: Estimate) -> list[str]:
    return [_percent(estimate.mean), _percent(estimate.problems), _percent(estimate.sampling)]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _first_line(text: str) -> str:
    """Of a question, as much as a row holds."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= 80 else f"{line[:79]}…"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
