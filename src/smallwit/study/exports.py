"""Write the files of a study: study.json, study.csv, study.tex and study.html."""

import csv
import io
import json
import re
from pathlib import Path

from smallwit.console.numbers import human_flops, percent
from smallwit.report.study import Results, budget_line, interval, method_lines, over_baseline, ranked
from smallwit.report.study_page import study_page
from smallwit.storage.artifacts import write_atomically
from smallwit.storage.jsonl import finite

_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "—": "---"}
_TEX |= {sign: f"\\{sign}" for sign in "&%$#_{}"}


def write_study(folder: Path, results: Results) -> None:
    """Write all files of a study into its folder, each in one step."""
    texts = {
        "study.json": json.dumps(finite(dict(results)), indent=1, allow_nan=False, ensure_ascii=False) + "\n",
        "study.csv": study_csv(results),
        "study.tex": study_tex(results),
        "study.html": study_page(results),
    }
    for name, text in texts.items():
        write_atomically(folder / name, text)


def study_csv(results: Results) -> str:
    """Return a row an arm: scores and differences as fractions of 1, costs in FLOPs, seconds and tokens."""
    file = io.StringIO()
    tasks, seeds = results["tasks"], results["seeds"]
    head = ["pipeline", "budget", "mean", "low", "high", "difference", "difference_low", "difference_high", "p_holm"]
    costs = list(results["arms"][0]["cost"])
    head += ["best", "front", *costs, *tasks, *(f"seed_{seed}" for seed in seeds)]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(head)
    for arm in ranked(results):
        found = arm["over_baseline"] or {}
        cells = [arm["pipeline"], arm["budget"], *(arm["score"][key] for key in ("mean", "low", "high"))]
        cells += [found.get(key, "") for key in ("difference", "low", "high", "p_holm")]
        cells += [arm["best"], arm["front"]["probability"]]
        cells += [arm["cost"][key] for key in costs]
        writer.writerow([*cells, *(arm["tasks"][task]["mean"] for task in tasks), *arm["seeds"]])
    return file.getvalue()


def study_tex(results: Results) -> str:
    """Return a table of LaTeX with the package booktabs, and its caption."""
    several = len(results["tasks"]) > 1
    tasks = results["tasks"] if several else []
    head = ["pipeline", *tasks, r"all [95\,\%]", f"over {results['baseline']}", "$p$", "best", "compute"]
    lines = []
    for arm in ranked(results):
        scores = [percent(arm["tasks"][task]["mean"]) for task in tasks]
        cells = [arm["name"], *scores, interval(arm["score"]), *over_baseline(arm), f"{arm['best']:.2f}"]
        lines.append(" & ".join(map(_tex, [*cells, human_flops(arm["cost"]["flops"])])) + r" \\")
    caption = _tex(" ".join([budget_line(results), *method_lines(results)]))
    head = [head[0], *map(_tex, tasks), *head[1 + len(tasks) :]]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
            r"\toprule",
            " & ".join(head) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            rf"\caption{{{caption}}}",
            r"\end{table}",
            "",
        ]
    )


def _tex(text: str) -> str:
    return re.sub(r"[\\~^—&%$#_{}]", lambda found: _TEX[found[0]], text)
