"""`smallwit teacher-logprobs`: what a recipe's teachers assign to given answers, stored for later stages."""

from smallwit.cli.app import TRAIN, app
from smallwit.cli.options import Adopt, AllowUnsafeCode, DataDir, Exact, Offline, Overrides, RecipeFile, RunDir
from smallwit.cli.recipes import open_recipe
from smallwit.console.sanitize import say


@app.command(rich_help_panel=TRAIN)
def teacher_logprobs(
    recipe: RecipeFile,
    run_dir: RunDir = None,
    data_dir: DataDir = None,
    overrides: Overrides = None,
    offline: Offline = False,
    allow_unsafe_code: AllowUnsafeCode = False,
    adopt: Adopt = None,
    exact: Exact = False,
) -> None:
    """Store a recipe's teacher log-probs.

    Runs the stages of kind teacher_logprobs and what they need, and no other stage.
    """
    loaded = open_recipe(
        recipe,
        overrides,
        run_dir,
        data_dir,
        offline=offline,
        allow_unsafe_code=allow_unsafe_code,
        adopt=adopt,
        exact=exact,
    )

    from smallwit.pipeline import runs as pipeline

    for store in pipeline.store_teacher_logprobs(**vars(loaded)):
        share = store.size / store.tokens
        say(f"{store.stage}: {store.folder}, {store.tokens:,} tokens, {share:.1f} bytes a token")
