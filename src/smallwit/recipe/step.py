"""What every step of a `dataset` stage has."""

from collections.abc import Sequence

from smallwit.recipe.section import Section


class DataStep(Section):
    """What every step has. `models` and `stages` name what it reads beside the rows."""

    @property
    def models(self) -> Sequence[str]:
        """Names of the recipe's models, or of train stages, that the step asks."""
        return ()

    @property
    def stages(self) -> Sequence[str]:
        """Names of earlier stages whose rows the step reads."""
        return ()

    @property
    def judges(self) -> bool:
        """Whether the step asks the verifiers of the rows' tasks."""
        return False

    @property
    def counts_tokens(self) -> bool:
        """Whether the stage needs a tokenizer."""
        return False
