"""A prompt as Steer holds it, and the line of code that opens its model again."""

from collections.abc import Mapping, Sequence
from typing import Any

from innerview.errors import WidgetError
from innerview.models.model import Model
from innerview.models.text import check_unicode

Prompt = str | Sequence[Mapping[str, str]]


def opening(model: Model) -> str:
    """The line that opens the network; a comment where its name is only that of its class."""
    inner = getattr(model.module, "_orig_mod", model.module)
    if model.name != type(inner).__name__:
        return f"model = iv.open_model({model.name!r})\n"
    return (
        f"# This network was opened from a {model.name} that code of your own built, which is not repeated here.\n"
        "# Run that code first, so that: model = iv.open_model(module, tokenizer=...)\n"
    )


def said(model: Model, prompt: Prompt) -> dict[str, Any]:
    """A prompt as the widget holds it.

    Raises:
        WidgetError: It is neither a text nor a chat that ends with the user.
        TextError: It holds half a character.
    """
    if isinstance(prompt, str):
        check_unicode(prompt, "the prompt")
        return {"chat": False, "text": prompt, "before": []}
    listed = list(prompt) if isinstance(prompt, (list, tuple)) else []
    messages = [dict(message) for message in listed if isinstance(message, Mapping)]
    for i, message in enumerate(messages):
        check_unicode(str(message.get("content", "")), f"message {i}")
    if not messages or len(messages) != len(listed) or messages[-1].get("role") != "user":
        raise WidgetError(f"a prompt is a text, or a chat whose last message is the user's, not {str(prompt)[:80]!r}")
    if not model.has_chat:
        raise WidgetError(f"{model.name} has no chat template for {len(messages)} messages; give plain text")
    return {"chat": True, "text": str(messages[-1].get("content", "")), "before": messages[:-1]}
