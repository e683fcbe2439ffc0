"""zaya eval compare and zaya eval report, on records of a few sums.

1. The comparison says B - A with its interval, and fits the terminal; --json has every problem that changed.
2. Of two directories files of the same name are compared; what was interrupted is said. Files that share nothing are
   left out, and an error where no others are.
3. The report is one file, written whole; what is in the way of either is one error.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.eval.test_compare import rows, write
from zaya.cli import main


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    write(Path("old/rl.jsonl"), rows({"a": "1000", "b": "1100", "c": "0000", "d": "1111"}))
    write(Path("new/rl.jsonl"), rows({"a": "1111", "b": "1100", "c": "1000"}), max_tokens=9)
    write(Path("new/sft.jsonl"), rows({"a": "0"}))


TEXT = """\
A: old/rl.jsonl
B: new/rl.jsonl
B was interrupted: 1 of its problems have no record.

percent  accuracy  ± new problems  ± sampling  values
A            25.0            28.3        24.9      12
B            58.3            43.2        24.9      12
B - A       +33.3            43.2        35.3      24

3 problems are shared, of 4 of A and 3 of B. B is better on 2, worse on 0, equal
on 1; the sign test gives p = 0.5. Intervals are of 95 %; the difference is
paired by problem.
They differ in settings: max_tokens 8 and 9.

The largest changes, 2 of 2:
   25.0 -> 100.0  a  sums: a?
    0.0 ->  25.0  c  sums: c?
"""


@pytest.mark.usefixtures("there")
def test_a_comparison(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "compare", "old", "new/rl.jsonl"]) == 0
    out = capsys.readouterr().out
    assert out == TEXT
    monkeypatch.setenv("COLUMNS", "32")
    assert main(["eval", "compare", "old", "new/rl.jsonl"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 32
    assert main(["eval", "compare", "old/rl.jsonl", "new/rl.jsonl", "--json", "--task", "sums"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["path_b"], found["difference"]["mean"]) == ("new/rl.jsonl", pytest.approx(1 / 3))
    assert [change["digest"] for change in found["changes"]] == ["a", "c"]


@pytest.mark.usefixtures("there")
def test_two_directories(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("old/sft.jsonl"), rows({"a": "1"}))
    assert main(["eval", "compare", "old", "new"]) == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line.startswith("B: ")] == ["B: new/rl.jsonl", "B: new/sft.jsonl"]
    assert out.count("B - A") == 2


@pytest.mark.usefixtures("there")
def test_a_pair_that_shares_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("old/sft.jsonl"), rows({"z": "0"}))
    assert main(["eval", "compare", "old", "new"]) == 0
    captured = capsys.readouterr()
    assert captured.out.count("B - A") == 1
    assert "new/sft.jsonl are left out: no problem is shared" in " ".join(captured.err.split())
    write(Path("old/rl.jsonl"), rows({"z": "0"}))
    assert main(["eval", "compare", "old", "new"]) == 2
    assert "error: no problem is shared" in capsys.readouterr().err


@pytest.mark.usefixtures("there")
def test_a_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "report", "old", "new", "--out", "deep/report.html"]) == 0
    assert capsys.readouterr().out == "deep/report.html shows 3 evaluations\n"
    html = Path("deep/report.html").read_text("utf-8")
    assert html.startswith("<!doctype html>")
    assert html.endswith("</html>\n")
    assert "old/rl" in html
    assert "new/sft" in html


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("compare old nowhere", "nowhere cannot be read: No such file or directory"),
        ("compare old .", "there are no records of an evaluation in ."),
        ("compare old/rl.jsonl new/rl.jsonl --task sum", "no problem of the two is of the task 'sum'"),
        ("compare old", "the following arguments are required: B"),
        ("report . --out x.html", "there are no records of an evaluation in ."),
        ("report old --out new", "the destination is a directory"),
        ("report old", "the following arguments are required: --out"),
        ("compar old new", "the recipe to evaluate is missing"),
        ("", "the recipe to evaluate is missing"),
    ],
)
def test_errors(words: str, error: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(Path(".").rglob("*"))
    assert main(["eval", *words.split()]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {error}")
    assert "\nhint: " in err or "No such file" in err
    assert sorted(Path(".").rglob("*")) == before
