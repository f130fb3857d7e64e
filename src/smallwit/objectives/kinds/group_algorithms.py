"""Policy-gradient algorithms on groups of completions. Each is a choice of four parts; see `policy.py`."""

from typing import Literal

from smallwit.objectives.policy import AsymmetricClip, ClipHigh, ClipLow, SymmetricClip


class GRPO(SymmetricClip):
    """Advantages (r - mean) / std within a group (Shao et al. 2024, DeepSeekMath, arXiv 2402.03300)."""

    kind: Literal["grpo"]
    estimator = "group"
    aggregation = "sequences"


class DrGRPO(SymmetricClip):
    """Advantages r - mean, constant normaliser (Liu et al. 2025, R1-Zero-Like Training, arXiv 2503.20783)."""

    kind: Literal["dr_grpo"]
    estimator = "centred"
    aggregation = "constant"


class DAPO(AsymmetricClip):
    """GRPO with a higher clip above, averaged over tokens (Yu et al. 2025, DAPO, arXiv 2503.14476, sec. 4.1)."""

    kind: Literal["dapo"]
    estimator = "group"
    aggregation = "tokens"
    clip_low: ClipLow = 0.2
    clip_high: ClipHigh = 0.28


class RLOO(SymmetricClip):
    """One ratio for the whole completion (Ahmadian et al. 2024, Back to Basics, arXiv 2402.14740)."""

    kind: Literal["rloo"]
    estimator = "leave_one_out"
    ratio = "episode"
    aggregation = "sequences"


class ReinforcePP(SymmetricClip):
    """Advantages r - mean of the group, over the batch's std (Hu et al. 2025, REINFORCE++, arXiv 2501.03262)."""

    kind: Literal["reinforce_pp"]
    estimator = "batch"
    aggregation = "sequences"


class GSPO(AsymmetricClip):
    """One ratio for each sequence (Zheng et al. 2025, Group Sequence Policy Optimization, arXiv 2507.18071).

    The ratio is a geometric mean, so the clip is narrow: the paper's (sec. 5.1).
    """

    kind: Literal["gspo"]
    estimator = "group"
    ratio = "sequence"
    aggregation = "sequences"
    clip_low: ClipLow = 3e-4
    clip_high: ClipHigh = 4e-4


class CISPO(AsymmetricClip):
    """The clipped ratio weights the log-likelihood (MiniMax 2025, MiniMax-M1, arXiv 2506.13585).

    No bound below, as in the paper (sec. 3.1), which gives no number above. A weight of at most 5 is ScaleRL's (arXiv
    2510.13786).
    """

    kind: Literal["cispo"]
    estimator = "group"
    clip_rule = "weight"
    aggregation = "tokens"
    clip_low: ClipLow = 1.0
    clip_high: ClipHigh = 4.0
