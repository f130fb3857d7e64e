"""Step 7: no row that holds an evaluation problem or its solution passes."""

from collections.abc import Iterator

from smallwit.data.contamination import Evaluations
from smallwit.data.step import Context, texts
from smallwit.data.suites import test_problems
from smallwit.recipe.data import Decontaminate
from smallwit.rows import Row


class DecontaminateStep:
    """Compares every row with every problem of the suites; `contamination/` has each match with both texts."""

    def __init__(self, spec: Decontaminate) -> None:
        self.spec = spec

    def rows(self, rows: Iterator[Row], context: Context) -> Iterator[Row]:
        """Raises `UserError` for a suite that cannot be loaded and is not named in `accept_missing`."""
        resources = context.resources
        suites, missing = test_problems(
            self.spec.against, resources.tasks, resources.data_dir, self.spec.accept_missing
        )
        context.note("evaluation problems", {name: len(problems) for name, problems in suites.items()})
        if missing:
            context.note("not looked for", sorted(missing))
            resources.say(f"decontaminate: not looked for, as they cannot be loaded: {', '.join(sorted(missing))}")
        evaluations = Evaluations(suites)
        for row in rows:
            prompt, completion = texts(row)
            match = evaluations.match(prompt, completion, row.get("answer"))
            if match is None:
                yield row
                continue
            known = match.known
            context.drop(row, match.rule, f"holds {known.id} of {', '.join(known.suites)}: {match.shared}")
            about = {"id": row["id"], "origin": row["origin"], "rule": match.rule, "shared": match.shared}
            mine = {"prompt": prompt, "completion": completion, "answer": row.get("answer")}
            theirs = {"suites": known.suites, "id": known.id, "prompt": known.prompt, "solution": known.solution}
            context.aside("contamination", about | {"row": mine, "evaluation": theirs})
