"""`smallwit grade`: a progress bar and a summary for `verify.grading`."""

import sys
import threading
from pathlib import Path

from smallwit.console.progress import RunProgress
from smallwit.console.sanitize import say
from smallwit.console.terminal import Terminal
from smallwit.storage.artifacts import disk_trouble
from smallwit.verify import code, grading
from smallwit.verify.consent import LEAST_ISOLATION
from smallwit.verify.sandbox.isolation import LEVELS

_UNVERIFIED = "infrastructure"


def grade(kind: str, source: Path, out: Path, timeout: float, workers: int | None) -> int:
    """Grade `source` into `out` and say what came of it. The exit status: 1 when the disk takes no more."""
    console = Terminal()
    with RunProgress(console) as progress:
        work = grading.grade_code_file if kind == "code" else grading.grade_math_file
        name = f"grade {kind}"
        progress.start(name)
        stop = threading.Event()
        beat = threading.Thread(target=_beat, args=(progress, stop), daemon=True)
        beat.start()

        def tell(done: int, total: int) -> None:
            progress.update(name, done / total, f"{done:,} of {total:,} rows")

        try:
            if kind == "code":
                _say_isolation(progress)
            summary = work(source, out, timeout=timeout, workers=workers, tell=tell)
        except OSError as error:
            trouble = disk_trouble(error)
            if trouble is None:
                raise
            say(f"smallwit: {out}: {trouble}; free some space and run the same command again to go on", sys.stderr)
            return 1
        finally:
            stop.set()
            beat.join()
        progress.end(name, f"{summary.rows:,} rows -> {out}")
    for line in _lines(summary):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(f"written: {out}, {grading.summary_path(out)}", highlight=False, markup=False, soft_wrap=True)
    return 0


def _beat(progress: RunProgress, stop: threading.Event) -> None:
    while not stop.wait(1.0):
        progress.tick()


def _say_isolation(progress: RunProgress) -> None:
    level = code.isolation_level()
    weak = LEVELS.index(level) < LEVELS.index(LEAST_ISOLATION)
    warning = "; this machine offers no namespaces: run only programs that you would run without a sandbox"
    progress.say(f"isolation: {level} (of {', '.join(LEVELS)}){warning if weak else ''}")


def _lines(summary: grading.Summary) -> list[str]:
    judged = summary.rows - summary.reasons.get(_UNVERIFIED, 0)
    lines = []
    if summary.score is not None and summary.strict is not None:
        lines.append(f"score {summary.score:.4f}, strict {summary.strict:.4f} (means of {judged:,} rows)")
    lines.append(", ".join(f"{reason} {count:,}" for reason, count in summary.reasons.items()))
    if summary.several_boxes is not None:
        lines.append(f"responses with several different boxes: {summary.several_boxes:.1%}")
    if summary.isolation is not None:
        lines.append(f"isolation: {summary.isolation}")
    if judged < summary.rows:
        lines.append(f"{summary.rows - judged:,} rows have no verdict: the grader itself, or their tests, failed")
    return lines
