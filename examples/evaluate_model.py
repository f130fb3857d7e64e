"""Evaluate a model on a task, with an interval and a signature.

    python examples/evaluate_model.py MODEL

MODEL is a folder, a hub id, runs/NAME:STAGE, or openai:URL#model.
"""

import sys

from smallwit.evaluation.evaluate import EvaluationRequest, evaluate
from smallwit.evaluation.model_reference import Settings
from smallwit.evaluation.suite import Choice

if __name__ == "__main__":
    choice = Choice(limit=8, samples=2, temperature=0.7, max_new_tokens=32)
    request = EvaluationRequest(["wordmath"], choice=choice)
    measured = evaluate(sys.argv[1], request, Settings(device="cpu", batch=16))
    found = measured.scores["wordmath"].as_json()
    print(f"mean {found['mean']:.3f} [{found['low']:.3f}, {found['high']:.3f}]")
    print(f"pass@2 {found['pass_at']['2']['mean']:.3f}")
    print(measured.signatures["wordmath"])
    print(f"samples: {measured.folder}")
