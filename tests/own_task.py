"""A task of a user's own, as the text of its file: nine problems; an answer of odd length is right."""

OWN = """
from pathlib import Path
from smallwit.tasks import Problem
from smallwit.verify import Verdict

class Length:
    name = "length"
    def problems(self, split):
        return [Problem(f"p{i}", "Ann has " + "3 pens and " * i, str(i)) for i in range(9)]
    def verify(self, problem, response):
        broken = Path(__file__).with_name("broken")
        if broken.is_file() and problem.id in broken.read_text().split():
            return Verdict(None, None, None, "infrastructure")
        right = float(len(response) % 2)
        return Verdict(right, right, response[:3], "correct" if right else "wrong")
"""
