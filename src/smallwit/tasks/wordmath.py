"""Word problems of 2 to 4 steps in the form of GSM8K: short facts, a question, worked steps and `#### n`.

A story is a start, some events and a question. Each clause knows how many steps it adds to the solution; the clauses
are drawn so that the steps add up. All quantities are whole numbers from 1 to three times `largest`.
"""

from collections.abc import Callable, Sequence

from smallwit.tasks.procedural import Dice, DraftProblem, ProceduralMathTask

MEN = ("Tom", "Ben", "Sam", "Leo")
WOMEN = ("Ana", "Mia", "Zoe", "Eva")
THINGS = ("apples", "eggs", "cards", "coins", "books", "pens", "cakes", "shells")
HOLDERS = (("bags", "bag"), ("boxes", "box"))
COLORS = ("red", "blue")
GAINS = ("buys", "finds", "gets", "wins")
LOSSES = ("loses", "sells", "uses")


class _Story:
    """A problem being told: its people, its sentences, its solution so far and the hero's present number.

    The other person is never of the hero's sex, so that "he" and "she" always say who is meant.
    """

    def __init__(self, dice: Dice, largest: int) -> None:
        self.dice = dice
        self.largest = largest
        self.limit = 3 * largest
        if dice.chance(0.5):
            self.hero, self.other, self.he, self.him = dice.pick(MEN), dice.pick(WOMEN), "he", "him"
        else:
            self.hero, self.other, self.he, self.him = dice.pick(WOMEN), dice.pick(MEN), "she", "her"
        self.things = dice.pick(THINGS)
        self.said: list[str] = []
        self.lines: list[str] = []
        self.value = 0
        self.met = False
        self.lost = False

    def number(self, low: int = 2, high: int = 99) -> int:
        """Return a number to state.

        Out of range, and so refused by the step that uses it, when `high` is below `low`.
        """
        return self.dice.between(low, max(low, min(self.largest, high)))

    def step(self, a: int, sign: str, b: int) -> bool:
        """Write `a sign b = value` into the solution. False if the value leaves the range that the model learns."""
        if sign == "+":
            self.value = a + b
        elif sign == "-":
            self.value = a - b
        elif sign == "*":
            self.value = a * b
        else:
            if a % b:
                return False
            self.value = a // b
        self.lines.append(f"{a} {sign} {b} = {self.value}")
        return 1 <= self.value <= self.limit

    def divisor(self, high: int) -> int:
        """Return a number from 2 to `high` that divides the present value, 0 if there is none."""
        choices = [d for d in range(2, high + 1) if self.value % d == 0]
        return self.dice.pick(choices) if choices else 0

    def subject(self) -> str:
        """Return the start of a sentence about the hero."""
        return self.dice.pick((self.he.capitalize(), f"Then {self.he}"))

    def friend(self) -> str:
        """Return a person whose number is still unknown."""
        return "A friend" if self.met else self.other


# Starts that need no step.


def _start_has(s: _Story) -> bool:
    s.value = s.number(4)
    form = s.dice.pick(("{} has", "{} starts with", "At first {} has")).format(s.hero)
    s.said.append(f"{form} {s.value} {s.things}.")
    return True


# Starts of one step.


def _start_groups(s: _Story) -> bool:
    count, each = s.dice.between(2, 6), s.dice.between(2, 9)
    many, one = s.dice.pick(HOLDERS)
    if s.dice.chance(0.5):
        s.said.append(f"{s.hero} has {count} {many} of {each} {s.things}.")
    else:
        s.said.append(f"{s.hero} has {count} {many} with {each} {s.things} in each {one}.")
    return s.step(count, "*", each)


def _start_colors(s: _Story) -> bool:
    a, b = s.number(), s.number()
    first, second = s.dice.two(COLORS)
    s.said.append(f"{s.hero} has {a} {first} {s.things} and {b} {second} {s.things}.")
    return s.step(a, "+", b)


def _two_facts(s: _Story, other_has: str, hero_has: str) -> None:
    s.met = True
    s.said.extend((other_has, hero_has) if s.dice.chance(0.5) else (hero_has, other_has))


def _start_more(s: _Story) -> bool:
    a = s.number(4)
    word, sign = s.dice.pick((("more", "+"), ("fewer", "-")))
    b = s.number(2, a - 1 if sign == "-" else s.largest)
    _two_facts(s, f"{s.other} has {a} {s.things}.", f"{s.hero} has {b} {word} {s.things} than {s.other}.")
    return s.step(a, sign, b)


def _start_times(s: _Story) -> bool:
    a = s.number()
    word, sign, b = s.dice.pick((("twice", "*", 2), ("half", "/", 2), ("3 times", "*", 3)))
    _two_facts(s, f"{s.other} has {a} {s.things}.", f"{s.hero} has {word} as many {s.things} as {s.other}.")
    return s.step(a, sign, b)


def _start_before(s: _Story) -> bool:
    a, (verbs, sign) = s.number(4), s.dice.pick(((GAINS, "+"), (LOSSES, "-")))
    b = s.number(2, a - 1 if sign == "-" else s.largest)
    s.said.append(f"{s.hero} {s.dice.pick(verbs)} {b} {s.things}. Before that {s.he} had {a}.")
    return s.step(a, sign, b)


def _start_of(s: _Story) -> bool:
    a = s.number(4)
    b = s.number(2, a - 1)
    s.said.append(f"Of {a} {s.things}, {s.hero} {s.dice.pick(LOSSES)} {b}.")
    return s.step(a, "-", b)


# Events of one step.


def _gain(s: _Story) -> bool:
    s.lost = False
    b = s.number(2, s.limit - s.value)
    form = s.dice.between(0, 2)
    if form == 0:
        s.said.append(f"{s.subject()} {s.dice.pick(GAINS)} {b} more.")
    elif form == 1:
        s.said.append(f"{s.subject()} {s.dice.pick(GAINS)} {b} {s.things}.")
    else:
        s.said.append(f"A friend gives {s.him} {b} more.")
    return s.step(s.value, "+", b)


def _loss(s: _Story) -> bool:
    s.lost = True
    b = s.number(2, s.value - 1)
    form = s.dice.between(0, 2)
    if form == 0:
        s.said.append(f"{s.subject()} {s.dice.pick(LOSSES)} {b} of them.")
    elif form == 1:
        s.said.append(f"{s.subject()} {s.dice.pick(LOSSES)} {b} {s.things}.")
    else:
        s.said.append(f"{s.subject()} gives {b} to a friend.")
    return s.step(s.value, "-", b)


def _half(s: _Story) -> bool:
    s.lost = True
    s.said.append(f"{s.subject()} {s.dice.pick(LOSSES)} half of them.")
    return s.step(s.value, "/", 2)


def _times(s: _Story) -> bool:
    s.lost = False
    word, b = s.dice.pick((("twice", 2), ("3 times", 3)))
    s.said.append(f"Then {s.he} has {word} as many.")
    return s.step(s.value, "*", b)


# Events of two steps.


def _gain_groups(s: _Story) -> bool:
    s.lost = False
    count, each, before = s.dice.between(2, 6), s.dice.between(2, 9), s.value
    many, _ = s.dice.pick(HOLDERS)
    s.said.append(f"{s.subject()} {s.dice.pick(GAINS)} {count} {many} of {each} {s.things}.")
    return s.step(count, "*", each) and s.step(before, "+", s.value)


def _loss_groups(s: _Story) -> bool:
    s.lost = True
    count, each, before = s.dice.between(2, 6), s.dice.between(2, 9), s.value
    if s.dice.chance(0.5):
        s.said.append(f"{s.subject()} gives {each} to each of {count} friends.")
    else:
        many, _ = s.dice.pick(HOLDERS)
        s.said.append(f"{s.subject()} {s.dice.pick(LOSSES)} {count} {many} of {each} {s.things}.")
    return s.step(count, "*", each) and s.step(before, "-", s.value)


# Questions that need no step.


def _ask_now(s: _Story) -> bool:
    if s.lost and s.dice.chance(0.4):
        s.said.append(f"How many {s.things} are left?")
    else:
        s.said.append(f"How many {s.things} does {s.hero} have {s.dice.pick(('now', 'in the end'))}?")
    return True


# Questions of one step.


def _ask_share(s: _Story) -> bool:
    count = s.divisor(6)
    if s.dice.chance(0.5):
        s.said.append(f"{s.he.capitalize()} shares them equally among {count} friends. How many does each friend get?")
    else:
        many, one = s.dice.pick(HOLDERS)
        s.said.append(f"{s.he.capitalize()} puts them equally in {count} {many}. How many are in each {one}?")
    return count > 0 and s.step(s.value, "/", count)


def _ask_holders(s: _Story) -> bool:
    each = s.divisor(9)
    many, one = s.dice.pick(HOLDERS)
    s.said.append(f"{s.he.capitalize()} puts {each} in each {one}. How many {many} does {s.he} need?")
    return each > 0 and s.step(s.value, "/", each)


def _ask_cost(s: _Story) -> bool:
    price = s.dice.between(2, 6)
    s.said.append(f"Each costs {price} dollars. How many dollars do they cost in all?")
    return s.step(s.value, "*", price)


def _ask_need(s: _Story) -> bool:
    goal = s.value + s.number(2, s.limit - s.value)
    s.said.append(f"{s.he.capitalize()} needs {goal} {s.things}. How many more does {s.he} need?")
    return goal <= s.limit and s.step(goal, "-", s.value)


def _ask_together(s: _Story) -> bool:
    b = s.number(2, s.limit - s.value)
    s.said.append(f"{s.friend()} has {b} {s.things}. How many do they have together?")
    return s.step(s.value, "+", b)


def _ask_difference(s: _Story) -> bool:
    b = s.number(2, s.value - 1)
    s.said.append(f"{s.friend()} has {b} {s.things}. How many more does {s.hero} have?")
    return s.step(s.value, "-", b)


Clause = Callable[[_Story], bool]
STARTS: Sequence[Sequence[Clause]] = (
    (_start_has,),
    (_start_groups, _start_colors, _start_more, _start_times, _start_before, _start_of),
)
EVENTS: Sequence[Sequence[Clause]] = ((_gain, _loss, _gain, _loss, _half, _times), (_gain_groups, _loss_groups))
QUESTIONS: Sequence[Sequence[Clause]] = (
    (_ask_now,),
    (_ask_share, _ask_holders, _ask_cost, _ask_need, _ask_together, _ask_difference),
)


class WordMath(ProceduralMathTask):
    """Grade-school word problems. `gold` is the number as text, the declared format its line `#### n`."""

    name = "wordmath"

    def draft(self, dice: Dice, split: str) -> DraftProblem | None:
        """Return a story whose clauses need between two and `steps` steps together."""
        rest = dice.between(min(2, self.steps), self.steps)
        start = dice.between(0, 1)
        question = dice.between(0, 1) if rest > start else 0
        rest -= start + question
        story = _Story(dice, self.largest)
        if not dice.pick(STARTS[start])(story):
            return None
        while rest:
            size = 2 if rest >= 2 and dice.chance(0.4) else 1
            rest -= size
            if not dice.pick(EVENTS[size - 1])(story):
                return None
        if not dice.pick(QUESTIONS[question])(story):
            return None
        answer = str(story.value)
        return DraftProblem(" ".join(story.said), answer, "\n".join([*story.lines, f"#### {answer}"]))
