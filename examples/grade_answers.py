"""Grade answers: mathematics by its value, a program by its tests in a sandbox.

python examples/grade_answers.py
"""

from smallwit.verify.code import CodeJob, judge_code
from smallwit.verify.math import grade_math

ANSWERS = [
    ("1/2", r"Half of them are left: \boxed{0.5}"),
    ("(2, 3)", r"The point is \boxed{(2,3)}."),
    ("12", r"I think that it is \boxed{11}."),
]
PROGRAM = "Here it is:\n```python\ndef double(x):\n    return x + x\n```"

if __name__ == "__main__":
    for gold, response in ANSWERS:
        verdict = grade_math(gold, response)
        print(f"{verdict.score:.0f} {verdict.reason}: {verdict.answer} for {gold}")
    job = CodeJob(prompt="", entry_point="double", response=PROGRAM, cases=[((2,), 4), (("ab",), "abab")])
    # The least isolation that you accept. This program is ours; leave it out for programs of a model.
    (verdict,) = judge_code([job], isolation="rlimits")
    print(f"{verdict.score:.0f} {verdict.reason}: the program")
