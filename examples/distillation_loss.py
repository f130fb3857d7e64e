"""A distillation loss in a training loop of your own: reverse KL to a teacher, without a [tokens, vocabulary] tensor.

    python examples/distillation_loss.py STUDENT TEACHER

Both are folders or hub ids of models of transformers with the same tokenizer.
"""

import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from smallwit.objectives.divergence import DivergenceStatistic
from smallwit.objectives.head import token_statistics
from smallwit.objectives.kinds.divergences import ReverseKL
from smallwit.objectives.teacher import TeacherHead

TEXTS = ["Ann has 3 apples and buys 4 more. 3 + 4 = 7", "Ben has 9 apples and eats 2. 9 - 2 = 7"]


def hidden_and_head(model, tokens):
    """Return the hidden states `[N, H]` of all tokens, and the output head `[V, H]`."""
    return model.model(tokens).last_hidden_state.flatten(0, 1), model.get_output_embeddings().weight


if __name__ == "__main__":
    student, teacher = (AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32) for name in sys.argv[1:3])
    tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    for step in range(5):
        tokens = tokenizer(TEXTS[step % 2], return_tensors="pt").input_ids
        with torch.no_grad():
            frozen = TeacherHead(*hidden_and_head(teacher, tokens), vocabulary=len(tokenizer))
        statistic = DivergenceStatistic(ReverseKL.make(), frozen, temperature=1.0)
        (divergence,) = token_statistics(*hidden_and_head(student, tokens), [statistic])
        divergence.mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step}: reverse KL {divergence.mean().item():.4f} nats a token")
