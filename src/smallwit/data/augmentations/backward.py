"""The augmentations `backward` and `self_verification`: one number is masked and the answer is given."""

from typing import Literal

from pydantic import Field

from smallwit.data.augmentation import AugmentationInput, AugmentationMethod
from smallwit.data.masking import backward, self_verification
from smallwit.data.proposals import Proposal
from smallwit.data.reply_parsing import UnusableReply
from smallwit.inference.generator import Reply
from smallwit.tasks.base import Problem, Task


class Backward(AugmentationMethod):
    """The question with one number masked and the answer given. No teacher is needed.

    Samples must agree with the masked number.
    """

    kind: Literal["backward", "self_verification"] = Field(
        description="backward: the question, then its answer (FOBAR); self_verification: the facts and the answer"
    )

    def prompt_for(self, source: AugmentationInput) -> None:
        """Return `None`: no teacher is needed."""
        return

    def propose(self, source: AugmentationInput, task: Task, reply: Reply | None) -> Proposal:
        """Return the masked question. Raises `UnusableReply` for one without a number or without a plain answer."""
        problem = source.problem
        if not isinstance(problem.gold, str | int | float):
            raise UnusableReply("the answer is no plain text or number")
        mask = backward if self.kind == "backward" else self_verification
        masked = mask(source.question, str(problem.gold), source.seed)
        if masked is None:
            raise UnusableReply("the question has no number to mask")
        made = Problem(problem.id, masked.question + source.instruction, masked.hidden)
        return Proposal(made, source.check_prompt, "gold")
