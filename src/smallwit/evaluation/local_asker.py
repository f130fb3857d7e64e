"""What a protocol holds of a model that answers in this process."""

from smallwit.evaluation.protocol import Asker
from smallwit.models.chat import ChatTokenizer


def local_asker(chat: ChatTokenizer, dtype: str) -> Asker:
    """Return the side that answers, for a model with this chat tokenizer and number format."""
    return Asker(
        "local",
        chat_template=chat.template or "",
        ends=chat.ends.all,
        dtype=dtype,
        chat_template_kwargs=chat.chat_template_kwargs,
    )
