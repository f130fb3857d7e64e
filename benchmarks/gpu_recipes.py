"""The tiny recipes of `benchmarks/gpu.py`: every kind of stage on models that train in seconds."""

from pathlib import Path

# Every problem is in every split: the models learn the table by heart, so that scores are neither 0 nor 1 after seconds
# of training. A part of the reward is paid for digits: otherwise RL would see groups that are all alike.
TASK = '''\
"""Sums of two digits."""

from smallwit.tasks import Problem
from smallwit.verify import Verdict


class Sums:
    name = "sums"

    def problems(self, split):
        return [
            Problem(f"{split}-{a}-{b}", f"{a} + {b}?", str(a + b), f"{a} + {b} = {a + b}\\n#### {a + b}")
            for a in range(10)
            for b in range(10)
        ]

    def verify(self, problem, response):
        right = response.endswith(f"#### {problem.gold}")
        score = 1.0 if right else 0.5 * sum(c.isdigit() for c in response) / (len(response) + 1)
        return Verdict(float(right), score, None, "correct" if right else "wrong")
'''

HEAD = """\
name: gpu
seed: 3
device: cpu
dtype: float32
workers: 2
tasks: {sums: {class: sums.py:Sums}}
tokenizer: {vocabulary: 320}
models:
  large: {new: {hidden: 96, layers: 2, heads: 4, kv_heads: 2, intermediate: 192, max_length: 64}}
  small: {new: {hidden: 64, layers: 2, heads: 4, kv_heads: 2, intermediate: 128, max_length: 64}}
"""

FIRST = """\
stages:
  - name: sft
    kind: train
    from: small
    sources: {demos: {kind: demonstrations, batch: 32}}
    objectives: [{kind: cross_entropy, source: demos}]
    optimizer: {kind: muon, lr: 3.0e-3, matrix_lr: 1.0e-2, ema: 0.9}
    micro_tokens: 512
"""

# SFT, packed rows, LoRA, a stored teacher, a live one on demonstrations and on the student's own words, GRPO with a
# reference and several updates, PPO for its critic, evaluation.
RECIPE = (
    HEAD
    + "evaluation: {problems: 100, max_new_tokens: 16, stages: [sft, lora, grpo]}\n"
    + FIRST
    + """\
    steps: 80
  - name: teacher
    kind: train
    from: large
    sources: {demos: {kind: demonstrations, batch: 32}}
    objectives: [{kind: cross_entropy, source: demos}]
    steps: 40
    pack: 64
    optimizer: {lr: 3.0e-3}
  - name: lora
    kind: train
    from: sft
    sources: {demos: {kind: demonstrations, batch: 32}}
    objectives: [{kind: cross_entropy, source: demos}]
    steps: 10
    lora: {rank: 4, alpha: 8}
  - name: stored
    kind: teacher_logprobs
    model: teacher
    k: 16
  - name: kd-stored
    kind: train
    from: sft
    sources: {demos: {kind: demonstrations, batch: 32}}
    objectives: [{kind: forward_kl, source: demos, teacher: stored}]
    steps: 10
  - name: kd-live
    kind: train
    from: sft
    sources: {demos: {kind: demonstrations, batch: 32}}
    objectives: [{kind: jsd, source: demos, teacher: teacher}]
    steps: 6
  - name: kd-on-policy
    kind: train
    from: sft
    sources: {own: {kind: rollouts, prompts: 4, group: 2, max_new_tokens: 16}}
    objectives: [{kind: reverse_kl, source: own, teacher: teacher}]
    steps: 6
  - name: grpo
    kind: train
    from: sft
    sources: {own: {kind: rollouts, prompts: 4, group: 4, max_new_tokens: 16, reward: score}}
    objectives: [{kind: grpo, source: own, reference: {model: sft}}]
    steps: 6
    optimizer: {lr: 2.0e-4}
  - name: ppo
    kind: train
    from: sft
    sources: {own: {kind: rollouts, prompts: 4, group: 2, max_new_tokens: 16, updates: 2, reward: score}}
    objectives: [{kind: ppo, source: own}]
    steps: 4
    optimizer: {lr: 2.0e-4}
"""
)

# Each stage saves after every step, so that there is something to resume wherever it is killed.
INTERRUPTED = (
    HEAD
    + "evaluation: {problems: 10, max_new_tokens: 16, stages: [rl]}\n"
    + FIRST
    + """\
    steps: 48
    checkpoint_seconds: 0.000001
  - name: rl
    kind: train
    from: sft
    sources: {own: {kind: rollouts, prompts: 4, group: 4, max_new_tokens: 16, updates: 2, reward: score}}
    objectives: [{kind: grpo, source: own}]
    steps: 10
    checkpoint_seconds: 0.000001
    optimizer: {lr: 5.0e-4}
"""
)


def write(folder: Path, recipe: str) -> Path:
    """Write a recipe and its task into a folder; return the recipe's path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sums.py").write_text(TASK, encoding="utf-8")
    path = folder / "recipe.yaml"
    path.write_text(recipe, encoding="utf-8")
    return path


FIXED_TOKENS = ("sft", "teacher", "lora", "kd-stored", "kd-live")
"""Stages of `RECIPE` that learn from given tokens: their losses can be compared in any number format."""

OWN_TOKENS = ("kd-on-policy", "grpo", "ppo")
"""Stages that learn from tokens which the model sampled: in another number format it samples others."""
