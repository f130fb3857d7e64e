r"""A reader of formulas that knows what it reads: every command, letter and mark is on a list, all else is refused.

    >>> read_relation(r"\frac{x}{2} = 3")
    ((('div', ('var', 'x'), ('num', Fraction(2, 1))), ('num', Fraction(3, 1))), ('=',))

A formula is a nested tuple whose first entry is its kind (num, var, const, neg, add, mul, div, pow, root, log, fn,
call, sum, deg). What people read in two ways (`1/2x`, `\sin x (x+1)`, `2 \frac{4}{3}`, `\sum i + 1`) is refused too,
with `Unreadable`.
Expects the spelling of `math_text.spell`.
"""

from fractions import Fraction
from typing import Any

from smallwit.verify.math_tokens import (
    APPLIED,
    CLOSING,
    END,
    FUNCTIONS,
    GREEK,
    INTEGER,
    OVER,
    RELATIONS,
    SEVERAL,
    TIMES,
    TRIGONOMETRIC,
    Unreadable,
    tokens,
)

Formula = tuple[Any, ...]

MAX_NESTING = 48

BASE = "the base of log"
"""The symbol that is the base of a logarithm without one: it may be meant as 10 or as e."""


def read_relation(text: str) -> tuple[tuple[Formula, ...], tuple[str, ...]]:
    r"""Return the sides of a relation and the signs between them; a formula alone is one side and no sign.

    Raises `Unreadable` for everything else.
    """
    return _Reader(text).relation()


def readable(text: str) -> bool:
    """Return whether `text` is a formula or a relation with one meaning."""
    try:
        read_relation(text)
    except Unreadable:
        return False
    return True


class _Reader:
    """Recursive descent over the tokens of one formula."""

    def __init__(self, text: str) -> None:
        self._tokens, self._spaced = tokens(text)
        self._at = 0
        self._nesting = 0
        self._angles = 0
        self._bars = 0

    @property
    def _token(self) -> str:
        return self._tokens[self._at]

    def _take(self, *wanted: str) -> str:
        token = self._token
        if wanted and token not in wanted:
            raise Unreadable(f"{token or 'the end'} where {wanted[0]} belongs")
        self._at += 1
        return token

    def _maybe(self, token: str) -> bool:
        if self._token != token:
            return False
        self._at += 1
        return True

    def relation(self) -> tuple[tuple[Formula, ...], tuple[str, ...]]:
        whole_in_square = self._tokens[0] == "[" and self._tokens[-2] == "]"
        sides, signs = [self._sum()], []
        while self._token in RELATIONS:
            signs.append(RELATIONS[self._take()])
            sides.append(self._sum())
        if self._token != END or (whole_in_square and len(sides) == 1 and sides[0][0] != "mul"):
            raise Unreadable(self._token)
        return tuple(sides), tuple(signs)

    def _sum(self) -> Formula:
        self._nesting += 1
        if self._nesting > MAX_NESTING:
            raise Unreadable("nested too deep")
        total = self._signed(self._product)
        while self._token in ("+", "-"):
            minus = self._take() == "-"
            term = self._product()
            total = ("add", total, ("neg", term) if minus else term)
        self._nesting -= 1
        return total

    def _signed(self, read: Any) -> Formula:
        if self._token in ("+", "-"):
            minus = self._take() == "-"
            value: Formula = read()
            return ("neg", value) if minus else value
        unsigned: Formula = read()
        return unsigned

    def _product(self) -> Formula:
        left = self._factor()
        divided = False
        while True:
            if self._token in TIMES:
                sign = self._take()
                right = self._signed(self._factor)
                if sign == r"\times" and _is_capital(left) and _is_capital(right):
                    raise Unreadable("a product of sets or vectors")
                left, divided = ("mul", left, right), False
            elif self._token in OVER:
                self._take()
                left, divided = ("div", left, self._signed(self._factor)), True
            elif self._token in (r"\bmod", r"\mod"):
                self._take()
                left, divided = ("fn", "mod", (left, self._factor())), True
            elif self._starts_factor():
                if divided:
                    raise Unreadable("what is divided by what")
                if self._token == "{" and self._tokens[self._at + 1][:1].isdigit():
                    raise Unreadable("2{3} is set as 23")
                if self._token[0] in ".0123456789" and left[0] != "pow":
                    raise Unreadable("a numeral behind a factor")
                left = ("mul", left, self._factor())
            else:
                return left

    def _starts_factor(self) -> bool:
        token = self._token
        if token == "|":
            return self._bars == 0
        if token in ("(", "[", "{") or token[:1].isalnum() or token[:1] == ".":
            return True
        return token.startswith("\\") and (
            token in (r"\frac", r"\binom", r"\sqrt", r"\pi", r"\sum", r"\prod", r"\lvert", r"\lfloor", r"\lceil")
            or token[1:] in FUNCTIONS
            or token[1:] in GREEK
        )

    def _factor(self) -> Formula:
        base = self._atom()
        while self._token in ("!", r"\degree"):
            if self._take() == "!":
                if self._token == "!":
                    raise Unreadable("!!")
                base = ("fn", "factorial", (base,))
            elif self._angles:
                base = ("deg", base)
            else:
                raise Unreadable("degrees outside of a function")
        if self._maybe("^"):
            base = ("pow", base, self._exponent())
            if base[2] == ("var", "T"):
                raise Unreadable("a transposed matrix")
            if self._token in ("^", "!", "_"):
                raise Unreadable("behind an exponent")
        if self._token in ("_", "'"):
            raise Unreadable("an index of what is no letter")
        return base

    def _exponent(self) -> Formula:
        if self._token == "{" and self._tokens[self._at + 1] == "(":
            start = self._at
            exponent = self._bracket()
            if self._tokens[self._at - 2] == ")" and self._closes(start + 1) == self._at - 2:
                raise Unreadable("y^{(2)} may be a derivative")
            return exponent
        if self._token in ("{", "("):
            return self._bracket()
        if self._maybe("-"):
            return ("neg", self._exponent())
        if self._token[:1].isdigit():
            return ("num", Fraction(self._take()))
        if len(self._token) == 1 and self._token.isalpha():
            return _letter(self._take())
        if self._token in (r"\pi", r"\frac") or self._token[1:] in GREEK:
            return self._atom()
        raise Unreadable("an exponent")

    def _closes(self, start: int) -> int:
        """Return the index at which the round bracket that opens at `start` closes."""
        depth = 0
        for at in range(start, len(self._tokens)):
            depth += (self._tokens[at] == "(") - (self._tokens[at] == ")")
            if depth == 0:
                return at
        return start

    def _bracket(self) -> Formula:
        """Return the content of the brackets that open here."""
        closing = CLOSING[self._take()]
        bars, self._bars = self._bars, 0
        inner = self._sum()
        self._bars = bars
        self._take(closing)
        return inner

    def _braces(self) -> Formula:
        if self._token != "{":
            raise Unreadable("a fraction without braces")
        return self._bracket()

    def _arguments(self) -> tuple[Formula, ...]:
        closing = CLOSING[self._take("(", "{")]
        bars, self._bars = self._bars, 0
        found = [self._sum()]
        while self._maybe(","):
            found.append(self._sum())
        self._bars = bars
        self._take(closing)
        return tuple(found)

    def _atom(self) -> Formula:
        token = self._token
        if token[:1].isdigit() or token[:1] == ".":
            return self._number()
        if token in ("(", "[", "{"):
            return self._bracket()
        if token == "|":
            self._take()
            self._bars += 1
            inner = self._sum()
            self._bars -= 1
            self._take("|")
            return ("fn", "abs", (inner,))
        if token in (r"\lvert", r"\lfloor", r"\lceil"):
            return ("fn", {"v": "abs", "f": "floor", "c": "ceil"}[token[2]], (self._bracket(),))
        if token in (r"\frac", r"\binom"):
            self._take()
            above = self._at + 1
            top = self._braces()
            below = self._at + 1
            bottom = self._braces()
            if self._tokens[above] == self._tokens[below] == "d" and self._tokens[below + 1].strip("\\").isalpha():
                raise Unreadable("a derivative")
            return ("div", top, bottom) if token == r"\frac" else ("fn", "binom", (top, bottom))
        if token == r"\sqrt":
            return self._root()
        if token == r"\pi":
            self._take()
            return ("const", "pi")
        if token in (r"\sum", r"\prod"):
            return self._series()
        if token.startswith("\\") and token[1:] in FUNCTIONS:
            return self._function()
        if token[:1].isalpha() or (token.startswith("\\") and token[1:] in GREEK):
            return self._variable()
        raise Unreadable(token or "the end")

    def _number(self) -> Formula:
        """A literal, or a mixed number (`3\\frac{1}{2}`), whose fraction has to be a proper one."""
        literal = self._take()
        follows = self._tokens[self._at : self._at + 7]
        if len(follows) == 7 and follows[0] == r"\frac" and follows[1] == follows[4] == "{":
            top, bottom = follows[2], follows[5]
            numerals = INTEGER.fullmatch(top) and INTEGER.fullmatch(bottom)
            if numerals and follows[3] == follows[6] == "}":
                if not (INTEGER.fullmatch(literal) and 0 < int(top) < int(bottom)):
                    raise Unreadable("a mixed number with an improper fraction")
                self._at += 7
                return ("num", int(literal) + Fraction(int(top), int(bottom)))
        return ("num", Fraction(literal))

    def _root(self) -> Formula:
        self._take()
        degree: Formula = ("num", Fraction(2))
        if self._token == "[":
            degree = self._bracket()
        if self._token in ("{", "("):
            return ("root", degree, self._bracket())
        if self._token[:1].isdigit():
            return ("root", degree, ("num", Fraction(self._take())))
        if self._token == r"\pi" or (len(self._token) == 1 and self._token.isalpha()):
            return ("root", degree, self._atom())
        raise Unreadable("a root of nothing")

    def _variable(self) -> Formula:
        letter = self._take()
        if letter == r"\Delta" and self._token[:1].isalpha():
            letter += self._take()  # a difference, and not a product
        index = self._index()
        if letter == "e" and not index:
            return ("const", "e")
        if self._token == "^" and letter in APPLIED and self._applied_after_power():
            raise Unreadable("a power of a function")
        if self._token != "(" or (len(letter) > 1 and letter.isupper()):
            return ("var", letter + index)
        start = self._at
        arguments = self._arguments()
        if len(arguments) == 1 and arguments[0][0] == "add" and letter not in APPLIED:
            self._at = start  # x(x + 1) is a product
            return ("var", letter + index)
        if self._token in ("^", "(") and letter not in APPLIED:
            raise Unreadable("a product or a function")
        return ("call", letter + index, arguments)

    def _applied_after_power(self) -> bool:
        """Return whether a bracket stands behind the exponent that begins here: `f^{-1}(x)`."""
        at, self._at = self._at, self._at + 1
        self._exponent()
        found = self._token == "("
        self._at = at
        return found

    def _index(self) -> str:
        """Return the subscript of a letter as it is written, or nothing."""
        if not self._maybe("_"):
            return ""
        if not self._maybe("{"):
            token = self._take()
            if not (token.isalnum() or token[1:] in GREEK):
                raise Unreadable("an index")
            return f"_{token}"
        written = []
        while not self._maybe("}"):
            if self._token in (END, "{", "^", "_"):
                raise Unreadable("an index")
            written.append(self._take())
        return "_" + "".join(written)

    def _function(self) -> Formula:
        name = self._take()[1:]
        base = self._base() if name == "log" else None
        power: Formula | None = None
        if self._maybe("^"):
            power = self._exponent()
            if power == ("neg", ("num", Fraction(1))):
                if name not in ("sin", "cos", "tan"):
                    raise Unreadable("an inverse of a function")
                name, power = f"arc{name}", None
        self._angles += name in TRIGONOMETRIC
        arguments = self._arguments() if self._token in ("(", "{") else (self._bare_argument(),)
        self._angles -= name in TRIGONOMETRIC
        if len(arguments) != 1 and name not in SEVERAL:
            raise Unreadable("a function of one argument with several")
        value: Formula = ("log", base, arguments[0]) if name == "log" else ("fn", name, arguments)
        if power is None:
            return value
        if self._token == "^":
            raise Unreadable("two powers of a function")
        return ("pow", value, power)

    def _base(self) -> Formula:
        """Return the base of a logarithm; without one it is a symbol, since it may be 10 or e."""
        if not self._maybe("_"):
            return ("var", BASE)
        return self._bracket() if self._token == "{" else self._exponent()

    def _bare_argument(self) -> Formula:
        """Return an argument without brackets: what follows without a space, up to the next function."""
        argument = self._factor()
        while self._starts_factor() and not (self._token.startswith("\\") and self._token[1:] in FUNCTIONS):
            bracket = self._token in ("(", "[", "|", r"\lvert", r"\sum", r"\prod")
            numeral = argument[0] == "num"
            if bracket or (self._spaced[self._at] and not numeral) or self._token[:1].isdigit():
                raise Unreadable("where the argument of a function ends")
            argument = ("mul", argument, self._factor())
        if self._token in OVER:
            raise Unreadable("where the argument of a function ends")
        return argument

    def _series(self) -> Formula:
        kind = self._take()[1:]
        self._take("_")
        self._take("{")
        name = self._take()
        if len(name) != 1 or not name.isalpha():
            raise Unreadable("an index of summation")
        self._take("=")
        low = self._sum()
        self._take("}")
        self._take("^")
        high = self._exponent()
        body = self._product()
        if self._token in ("+", "-"):
            raise Unreadable("where the sum ends")
        return ("sum", kind, name, low, high, body)


def _is_capital(formula: Formula) -> bool:
    return formula[0] == "var" and bool(formula[1][0].isupper())


def _letter(letter: str) -> Formula:
    return ("const", "e") if letter == "e" else ("var", letter)
