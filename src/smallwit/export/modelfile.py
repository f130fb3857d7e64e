"""The Modelfile of an exported model: file, turns and ends, by which Ollama runs it."""

from dataclasses import dataclass
from pathlib import Path

from smallwit.errors import UserError
from smallwit.models.chat import ChatTokenizer

USER, ANSWER, SYSTEM = "\0user\0", "\0answer\0", "\0system\0"


@dataclass(frozen=True)
class TurnTexts:
    """What a chat template writes around turns: before and behind a question, behind an answer, around the system's.

    `default` is the system message that the template writes where none is given. `system` is `None` for a template
    without a turn of the system's.
    """

    before: str
    behind: str
    closing: str
    system: tuple[str, str] | None
    default: str = ""


def turn_texts(chat: ChatTokenizer) -> TurnTexts | None:
    """Return what the chat template writes around turns; `None` where turns are not written each by itself."""
    question, answer = {"role": "user", "content": USER}, {"role": "assistant", "content": ANSWER}
    try:
        whole = chat.render([question, answer, question], add_generation_prompt=True)
        head, _, rest = chat.render([question], add_generation_prompt=True).partition(USER)
    except UserError:
        return None
    between = whole.partition(ANSWER)[2].partition(USER)[0]
    closing = chat.written_behind
    before = between.removeprefix(closing)
    if not before or not between.startswith(closing) or not head.endswith(before) or not whole.endswith(rest):
        return None
    opening = head.removesuffix(before).removeprefix(_bos(chat))
    system = _system(chat, before)
    if system is None:
        return TurnTexts(before, rest, closing, None) if not opening else None
    given = opening.startswith(system[0]) and opening.endswith(system[1])
    default = opening[len(system[0]) : len(opening) - len(system[1])] if given else ""
    return TurnTexts(before, rest, closing, system, default) if given or not opening else None


def _system(chat: ChatTokenizer, before: str) -> tuple[str, str] | None:
    try:
        text = chat.render([{"role": "system", "content": SYSTEM}, {"role": "user", "content": USER}])
    except UserError:  # a template without a system's turn
        return None
    first, found, rest = text.partition(SYSTEM)
    behind = rest.partition(USER)[0]
    if not found or not behind.endswith(before):
        return None
    return first.removeprefix(_bos(chat)), behind.removesuffix(before)


def _bos(chat: ChatTokenizer) -> str:
    """Return the text of the BOS that llama.cpp writes by itself, which a template must not write again."""
    bos = chat.tokenizer.bos_token_id
    return str(chat.tokenizer.bos_token) if bos is not None and chat.encode_texts(["a"])[0][0] == bos else ""


def modelfile(chat: ChatTokenizer, file: Path) -> str:
    """Return the Modelfile of a GGUF file beside it. Without turns that it can write Ollama guesses the template."""
    lines = [f"FROM ./{file.name}"]
    texts = turn_texts(chat) if chat.template else None
    if texts is not None:
        system = ""
        if texts.system is not None:
            system = "{{ if .System }}" + texts.system[0] + "{{ .System }}" + texts.system[1] + "{{ end }}"
        turn = texts.before + "{{ .Prompt }}" + texts.behind + "{{ .Response }}" + texts.closing
        lines.append(f'TEMPLATE """{system}{turn}"""')
        if texts.default:
            lines.append(f'SYSTEM """{texts.default}"""')
    elif not chat.template:
        lines.append('TEMPLATE """{{ .Prompt }}"""')
    names = chat.tokenizer.convert_ids_to_tokens(list(chat.ends.all))
    lines += [f'PARAMETER stop "{name}"' for name in names]
    return "\n".join(lines) + "\n"
