"""Build a dataset from rows: verified, without copies, without what is in the test.

python examples/build_dataset.py
"""

import json
from pathlib import Path

from smallwit.data.dataset import read_dataset
from smallwit.pipeline.runs import build_datasets
from smallwit.recipe.file import load_recipe
from smallwit.tasks import load_task

RECIPE = """
name: example
tasks: {wordmath: {}}
stages:
  - name: rows
    kind: dataset
    steps:
      - {kind: gather, sources: [{kind: file, path: rows.jsonl, task: wordmath, origin: me, license: CC0-1.0}]}
      - {kind: verify}
      - {kind: deduplicate, by: prompt}
      - {kind: decontaminate, against: [wordmath]}
"""

if __name__ == "__main__":
    problems = load_task("wordmath", {}).problems("train")[:20]
    rows = [{"prompt": each.prompt, "completion": each.solution, "answer": each.gold} for each in problems]
    rows.append(rows[0] | {"completion": "I do not know."})
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("example.yaml").write_text(RECIPE)
    recipe = load_recipe(Path("example.yaml"))
    ((_, folder),) = build_datasets(recipe, base=Path(), run_dir=Path("runs/example"), data_dir=None)
    print(f"{len(list(read_dataset(folder)))} of {len(rows)} rows are kept in {folder}")
