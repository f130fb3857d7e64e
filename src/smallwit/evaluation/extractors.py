r"""Where other harnesses look for an answer: replicas, for scores that can be set beside published ones.

Each function is one harness's rule and nothing of ours: it is kept as it is, odd corners included, since a replica that
is better than what it replicates measures something else. The house's own chain is `smallwit.verify.extract`.

An answer that is not found is `None`. What a harness does beyond reading an answer (its prompt, shots and stop strings)
is the protocol's part.
"""

import re

_LM_EVAL_STRICT = re.compile(r"#### (-?[0-9.,]+)")
_LM_EVAL_FLEXIBLE = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")
_MINERVA = re.compile(r"Final Answer: The final answer is(.*?). I hope it is correct.")
_MINERVA_END = "I hope it is correct."
_QWEN_NUMBER = re.compile(r"-?\d*\.?\d+")
_QWEN_PHRASES = ("he answer is", "final answer is")
_QWEN_CHINESE = "答案是"


def lm_eval_strict(response: str) -> str | None:
    """lm-evaluation-harness, task gsm8k (version 3), filter strict-match: the number after the first `#### `."""
    match = _LM_EVAL_STRICT.search(response)
    return match[1] if match else None


def lm_eval_flexible(response: str) -> str | None:
    """lm-evaluation-harness, task gsm8k (version 3), filter flexible-extract: the last thing like a number.

    Two or more of the characters `$0-9.,` are like a number, so that "..." and ",," are found as well as "$1,234.".
    """
    matches = _LM_EVAL_FLEXIBLE.findall(response)
    return matches[-1] if matches else None


def lm_eval_exact_match(answer: str | None, gold: str) -> bool:
    """lm-evaluation-harness' exact_match as its task gsm8k sets it up; `gold` may be the whole worked solution.

    Both sides lose their commas, then dollar signs, then all up to the last `#### `, then one full stop at the end, and
    are put in lower case; what is left has to be the same text: `18.0` is not `18`.
    """
    return answer is not None and _lm_eval_normal(answer) == _lm_eval_normal(gold)


def _lm_eval_normal(text: str) -> str:
    text = text.replace(",", "").replace("$", "").rpartition("#### ")[2]
    # At the very end, or before a line break that ends the text.
    text = re.sub(r"\.$", "", text).lower()
    # The harness compares arrays of texts, and NumPy's drop null characters at the end.
    return text.rstrip("\0")


def minerva_answer(response: str) -> str | None:
    """Minerva's four-shot format (Lewkowycz et al. 2022, arXiv 2206.14858), as lm-evaluation-harness reads it.

    What stands between the first "Final Answer: The final answer is" and "I hope it is correct.", on one line, without
    the character before the latter (the full stop). A response that ends before that phrase is read as if it came.
    """
    match = _MINERVA.search(response + _MINERVA_END)
    return match[1].strip() if match else None


def qwen_answer(response: str) -> str | None:
    r"""The chain of Qwen2.5-Math's evaluation (arXiv 2409.12122), for tasks with free answers; the first that is there.

    Minerva's phrase with dollar signs, the last `boxed` (a box that is never closed runs to the end of the text), the
    text after the last "he answer is" or "final answer is", after the first of the same in Chinese up to a blank line,
    the last number of the text without its commas. Line breaks are dropped, and a colon before, a full stop or slash
    after. Spelling (`strip_string` there) is left to the grader.
    """
    text = _qwen_span(response.replace("ки", ""))
    text = re.sub(r"\n\s*", "", text).removeprefix(":").removesuffix(".").removesuffix("/")
    return text.strip() or None


def _qwen_span(text: str) -> str:
    if "final answer is $" in text and "$. I hope" in text:
        return text.split("final answer is $", 1)[1].split("$. I hope", 1)[0].strip()
    if "boxed" in text:
        rest = text.rpartition("boxed")[2]
        return _to_closing_brace(rest[1:]) if rest.startswith("{") else rest.split("$")[0].strip()
    for phrase in _QWEN_PHRASES:
        if phrase in text:
            return text.rpartition(phrase)[2].strip()
    if _QWEN_CHINESE in text:
        return text.split(_QWEN_CHINESE)[1].strip().split("\n\n")[0].strip()
    numbers = _QWEN_NUMBER.findall(text.replace(",", ""))
    return str(numbers[-1]) if numbers else ""


def _to_closing_brace(text: str) -> str:
    """Up to the brace that closes one opened just before; escaped braces count, as they do there."""
    depth = 1
    for position, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[:position]
    return text
