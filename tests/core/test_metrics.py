"""Promises of core/metrics:

1. What is logged is read back, in order, one object a line.
2. A process killed with -9 has lost nothing that it had logged; a line it had half written is left out.
3. A resumed log is that of one run: what lies beyond the step goes, and seconds count on.
4. A damaged line in the middle is named, not skipped.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from zaya.core.metrics import MetricsLog, read_metrics
from zaya.errors import UsageError


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_lines_are_read_back(tmp_path: Path) -> None:
    path, clock = tmp_path / "run" / "metrics.jsonl", Clock()
    with MetricsLog(path, clock=clock) as log:
        clock.now = 101.5
        log.log(1, 64, loss=2.5, phase="base")
        clock.now = 103.0
        log.log(2, 128, loss=float("nan"), grad_norm=float("inf"))
    expected = [
        {"step": 1, "tokens": 64, "seconds": 1.5, "loss": 2.5, "phase": "base"},
        {"step": 2, "tokens": 128, "seconds": 3.0, "loss": None, "grad_norm": None},
    ]
    assert read_metrics(path) == expected
    assert [json.loads(line) for line in path.read_text().splitlines()] == expected


def test_resuming_cuts_what_lies_beyond(tmp_path: Path) -> None:
    path, clock = tmp_path / "metrics.jsonl", Clock()
    with MetricsLog(path, clock=clock) as log:
        for step in range(1, 6):
            clock.now += 2
            log.log(step, 10 * step)
            log.log(step, 10 * step, evaluation=step)
    clock.now = 5000.0
    with MetricsLog(path, resume_at=3, clock=clock) as log:
        clock.now += 1
        log.log(4, 40)
    assert [(r["step"], r["seconds"]) for r in read_metrics(path)] == [
        (1, 2), (1, 2), (2, 4), (2, 4), (3, 6), (3, 6), (4, 7),
    ]  # fmt: skip
    with MetricsLog(path):
        pass
    assert read_metrics(path) == []


@pytest.mark.parametrize("cut", [b'{"step": 3, "tok', b'{"step": 3, "tokens": 30, "seconds": 1}', b"\0\0\0", b"7\n"])
def test_a_cut_line_is_left_out_and_goes_when_the_run_resumes(tmp_path: Path, cut: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        log.log(1, 10)
        log.log(2, 20)
    with path.open("ab") as file:
        file.write(cut)
    assert [r["step"] for r in read_metrics(path)] == [1, 2]
    with MetricsLog(path, resume_at=2) as log:
        log.log(3, 30)
    assert [r["step"] for r in read_metrics(path)] == [1, 2, 3]


def test_a_killed_process_has_lost_nothing(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    code = (
        "import os, signal, sys; from pathlib import Path; from zaya.core.metrics import MetricsLog\n"
        "log = MetricsLog(Path(sys.argv[1]))\n"
        "for step in range(1, 4): log.log(step, step)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert [r["step"] for r in read_metrics(path)] == [1, 2, 3]


def test_damage_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "tokens": 1, "seconds": 0}\noops\n{"step": 2, "tokens": 1, "seconds": 0}\n')
    with pytest.raises(UsageError, match=r"line 2 of .* is not a line of metrics: b'oops"):
        read_metrics(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_metrics(tmp_path / "nowhere")
