"""Text to tokens and back: prompts, chats and ready ids become padded rows with a mask."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from innerview.errors import TextError
from innerview.models.model import Model

Chat = list[dict[str, str]]


@dataclass(frozen=True, eq=False)
class Tokens:
    """Rows of token ids, padded to one width.

    Attributes:
        ids: Token ids, shape [batch, pos], int64.
        mask: True where a token is real, shape [batch, pos].
        is_single: Whether one prompt was given, not a list.
    """

    ids: Tensor
    mask: Tensor
    is_single: bool

    @property
    def left_pad(self) -> Tensor:
        """Number of pads before each row's first token, shape [batch]."""
        return self.mask.long().argmax(dim=1)

    @property
    def lengths(self) -> Tensor:
        """Number of real tokens of each row, shape [batch]."""
        return self.mask.sum(dim=1)

    def rows(self) -> list[list[int]]:
        """Real ids of each row, without pads."""
        return [row[keep].tolist() for row, keep in zip(self.ids, self.mask, strict=True)]


def encode(model: Model, prompts: Any, *, pad_left: bool = False, room: int = 0) -> Tokens:
    """Rows of ids for prompts.

    Args:
        model: The network that reads them.
        prompts: A text, a chat (list of messages), a list of either, ids [batch, pos], or a list of lists of ids; arrays and
            pandas columns of these too.
        pad_left: Put pads before the text (for generation), not after.
        room: Tokens that must still fit into the context behind the prompt.
    Raises:
        TextError: A prompt is empty, of mixed types, too long, no text, or the network has no tokenizer or chat template for it.
    """
    if isinstance(prompts, Tensor):
        rows, is_single = _rows_of_tensor(prompts), prompts.ndim == 1
    else:
        listed, is_single = _listed(_lists(prompts))
        rows = [_encode_one(model, prompt) for prompt in listed]
    for row in rows:
        _check_row(model, row, room)
    return pad(rows, pad_id(model), is_single=is_single, pad_left=pad_left)


def pad(rows: list[list[int]], fill: int, *, is_single: bool, pad_left: bool) -> Tokens:
    """Rows padded to the longest with `fill`."""
    width = max(len(row) for row in rows)
    if all(len(row) == width for row in rows):
        return Tokens(torch.tensor(rows), torch.ones((len(rows), width), dtype=torch.bool), is_single)
    ids = torch.full((len(rows), width), fill, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.bool)
    for i, row in enumerate(rows):
        start = width - len(row) if pad_left else 0
        ids[i, start : start + len(row)] = torch.tensor(row)
        mask[i, start : start + len(row)] = True
    return Tokens(ids, mask, is_single)


def pad_id(model: Model) -> int:
    """The id that fills pads: the tokenizer's pad, else its end of text, else 0."""
    for name in ("pad_token_id", "eos_token_id"):
        found = getattr(model.tokenizer, name, None)
        if found is not None:
            return int(found)
    return 0


def decode(model: Model, ids: Sequence[int], *, after: Sequence[int] = ()) -> str:
    """Text of ids as it continues the text of `after`; the ids themselves, in brackets, without a tokenizer."""
    if model.tokenizer is None:
        return " ".join(str(i) for i in ids)
    options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    if after:
        # A tokenizer may drop a leading space unless something stands before it.
        before = model.tokenizer.decode(list(after), **options)
        whole = model.tokenizer.decode([*after, *ids], **options)
        if whole.startswith(before):
            return whole[len(before) :]
    return model.tokenizer.decode(list(ids), **options)


def words(model: Model, ids: Sequence[int]) -> list[str]:
    """Each token's own text."""
    return [token_word(model.tokenizer, int(i)) for i in ids]


def is_special(model: Model, token_id: int) -> bool:
    """Whether a token is special: BOS, end of text, a chat marker."""
    return token_id in (getattr(model.tokenizer, "all_special_ids", None) or ())


def starts_with_bos(model: Model, ids: Sequence[int]) -> bool:
    """Whether a row starts with the tokenizer's BOS."""
    bos = getattr(model.tokenizer, "bos_token_id", None)
    return bos is not None and bool(ids) and ids[0] == bos


def token_word(tokenizer: Any, token_id: int) -> str:
    """The text of one token; bytes that are no text alone come as `<0xE2>`."""
    if tokenizer is None:
        return str(token_id)
    piece = tokenizer.convert_ids_to_tokens(token_id)
    if piece is None:
        return f"<{token_id}>"
    if isinstance(piece, bytes):
        return _bytes_text(piece)
    if "▁" in piece:
        return piece.replace("▁", " ")
    text = tokenizer.decode([token_id], clean_up_tokenization_spaces=False)
    if "\ufffd" not in text:
        return text or piece
    table = _byte_of_char()
    if all(char in table for char in piece):
        return _bytes_text(bytes(table[char] for char in piece))
    return piece


def _bytes_text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return "".join(f"<0x{byte:02X}>" for byte in raw)


@cache
def _byte_of_char() -> dict[str, int]:
    """The byte behind each character of a byte-level vocabulary (the printable stand-ins that GPT-2 introduced)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    table = {chr(byte): byte for byte in plain}
    others = [byte for byte in range(256) if byte not in set(plain)]
    table.update({chr(256 + i): byte for i, byte in enumerate(others)})
    return table


def _rows_of_tensor(ids: Tensor) -> list[list[int]]:
    is_whole = not (ids.dtype.is_floating_point or ids.dtype.is_complex or ids.dtype == torch.bool)
    if not is_whole or ids.ndim not in (1, 2) or ids.shape[0] == 0:
        raise TextError(f"ids are whole numbers of shape [batch, pos], not {ids.dtype} of shape {list(ids.shape)}")
    return (ids[None] if ids.ndim == 1 else ids).tolist()


def _lists(prompts: Any) -> Any:
    """Arrays, pandas columns and tensors, alone or in a list, as lists of plain texts and numbers."""
    if hasattr(prompts, "tolist") and not isinstance(prompts, str):
        return prompts.tolist()
    if isinstance(prompts, (list, tuple)):
        return [p.tolist() if hasattr(p, "tolist") else p for p in prompts]
    return prompts


def _is_chat(prompt: Any) -> bool:
    return isinstance(prompt, (list, tuple)) and bool(prompt) and all(isinstance(m, Mapping) for m in prompt)


def _is_ids(prompt: Any) -> bool:
    is_list = isinstance(prompt, (list, tuple)) and bool(prompt)
    return is_list and all(isinstance(i, int) and not isinstance(i, bool) for i in prompt)


def _kind(prompt: Any) -> str:
    if isinstance(prompt, str):
        return "text"
    if _is_chat(prompt):
        return "chat"
    if _is_ids(prompt):
        return "ids"
    return type(prompt).__name__


def _listed(prompts: Any) -> tuple[list[Any], bool]:
    """The prompts as a list, and whether one was given alone.

    Raises:
        TextError: Nothing was given, or prompts of several types.
    """
    if _kind(prompts) in ("text", "chat", "ids"):
        return [prompts], True
    if not isinstance(prompts, (list, tuple)):
        raise TextError(f"a prompt is a text, a chat or ids, not {prompts!r} of type {type(prompts).__name__}")
    if not prompts:
        raise TextError("no prompt in an empty list; give at least one")
    for i, prompt in enumerate(prompts):
        if isinstance(prompt, (list, tuple)) and not prompt:
            raise TextError(f"prompt {i} of {len(prompts)}, counted from 0, is empty; give each at least one token")
    kinds = {_kind(prompt) for prompt in prompts}
    if len(kinds) > 1:
        raise TextError(f"prompts of mixed types: {', '.join(sorted(kinds))}; give all of one type")
    kind = kinds.pop()
    if kind not in ("text", "chat", "ids"):
        raise TextError(f"a prompt is a text, a chat or ids, not {prompts[0]!r} of type {kind}")
    return list(prompts), False


def _encode_one(model: Model, prompt: Any) -> list[int]:
    if _is_ids(prompt):
        return list(prompt)
    if model.tokenizer is None:
        raise TextError(
            f"{model.name} has no tokenizer to read {str(prompt)[:40]!r}; give ids, or open_model(..., tokenizer=...)"
        )
    if _is_chat(prompt):
        return _encode_chat(model, prompt)
    check_unicode(prompt, "the text")
    if not prompt.strip():
        raise TextError(f"the text is empty: {prompt!r}; give at least one word")
    return list(model.tokenizer(prompt, verbose=False)["input_ids"])


def _encode_chat(model: Model, chat: Chat) -> list[int]:
    if not model.has_chat:
        raise TextError(f"{model.name} has no chat template for {len(chat)} messages; give plain text")
    for i, message in enumerate(chat):
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str) or not (isinstance(content, (str, list)) or "tool_calls" in message):
            raise TextError(f"message {i} of a chat has a role and a content, both texts, not {str(message)[:80]!r}")
        check_unicode(role, f"the role of message {i}")
        if isinstance(content, str):
            check_unicode(content, f"message {i}")
    try:
        encoded = model.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=True)
    except Exception as error:
        # A template is a program of its own: it refuses roles and their order with whatever error it likes.
        roles = ", ".join(message["role"] for message in chat)
        raise TextError(
            f"the chat template of {model.name} refuses the roles {roles}: {error}; see model.tokenizer.chat_template"
        ) from error
    return list(encoded["input_ids"])


def check_unicode(given: str, what: str) -> None:
    """Refuse half a character, which no tokenizer and no file takes.

    Raises:
        TextError: There is one; its place is named.
    """
    try:
        given.encode()
    except UnicodeEncodeError as error:
        raise TextError(
            f"{what} holds half a character, {given[error.start]!r} at {error.start}: {given[:40]!r}; decode it anew, or cut it out"
        ) from error


def _check_row(model: Model, row: list[int], room: int) -> None:
    if not row:
        raise TextError("the text is empty: it has no tokens; give at least one word")
    if min(row) < 0 or max(row) >= 2**63:
        raise TextError(f"no token {min(row) if min(row) < 0 else max(row)}: ids count from 0")
    if model.vocab is not None and not 0 <= min(row) <= max(row) < model.vocab:
        bad = next(i for i in row if not 0 <= i < model.vocab)
        raise TextError(f"no token {bad}: {model.name} knows ids 0 to {model.vocab - 1}")
    if model.context is not None and len(row) + room > model.context:
        asked = f"{len(row)} tokens" + (f" and {room} to come" if room else "")
        ways = "shorten it" + (
            f", or ask for at most {model.context - len(row)} new tokens" if len(row) < model.context else ""
        )
        raise TextError(
            f"the text is longer than the context: {asked}, where {model.name} takes {model.context}; {ways}"
        )
