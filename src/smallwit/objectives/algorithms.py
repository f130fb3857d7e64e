"""The named algorithms of reinforcement as rows of one table.

An algorithm is a choice of four parts: how rewards become advantages, at which level the importance ratio stands, what
clips it, and what the tokens' losses are averaged over. The parts are in `advantages` and `policy_gradient`; here are
their names only, so that a recipe can be read without importing torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

GroupEstimator = Literal["group", "centred", "leave_one_out", "batch"]
Estimator = Literal[GroupEstimator, "gae"]
RatioLevel = Literal["token", "sequence", "episode"]
ClipRule = Literal["surrogate", "weight"]
Aggregation = Literal["sequences", "tokens", "constant"]


@dataclass(frozen=True)
class Algorithm:
    """One row.

    `estimator`: rewards to advantages; `gae` needs a critic. `ratio`: of each token, of the sequence per token (the
    geometric mean), or of the whole episode (the product). `clip`: the lesser of the plain and the clipped
    surrogate, or a clipped and detached weight of the log-likelihood. `aggregation`: the mean of the sequences' means,
    the mean over all tokens, or the sum over sequences times the longest length that was allowed.
    """

    estimator: Estimator
    ratio: RatioLevel
    clip: ClipRule
    aggregation: Aggregation


ALGORITHMS: Mapping[str, Algorithm] = {
    # Shao et al. 2024, DeepSeekMath, arXiv 2402.03300
    "grpo": Algorithm("group", "token", "surrogate", "sequences"),
    # Liu et al. 2025, Understanding R1-Zero-Like Training, arXiv 2503.20783
    "dr_grpo": Algorithm("centred", "token", "surrogate", "constant"),
    # Yu et al. 2025, DAPO, arXiv 2503.14476
    "dapo": Algorithm("group", "token", "surrogate", "tokens"),
    # Ahmadian et al. 2024, Back to Basics, arXiv 2402.14740
    "rloo": Algorithm("leave_one_out", "episode", "surrogate", "sequences"),
    # Hu et al. 2025, REINFORCE++ (with baseline), arXiv 2501.03262
    "reinforce_pp": Algorithm("batch", "token", "surrogate", "sequences"),
    # Zheng et al. 2025, Group Sequence Policy Optimization, arXiv 2507.18071
    "gspo": Algorithm("group", "sequence", "surrogate", "sequences"),
    # MiniMax 2025, MiniMax-M1, arXiv 2506.13585
    "cispo": Algorithm("group", "token", "weight", "tokens"),
    # Schulman et al. 2017, arXiv 1707.06347
    "ppo": Algorithm("gae", "token", "surrogate", "tokens"),
}
"""The algorithms by the `kind` that a recipe gives."""
