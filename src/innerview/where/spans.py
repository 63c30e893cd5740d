"""Spans of a row of ids: the tokens of a text, of a role in a chat, and the special ones."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from innerview.errors import EditError
from innerview.where.chats import ChatMarks


class Reader:
    """What a tokenizer says about rows of ids."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._template = getattr(tokenizer, "chat_template", None)
        self._marks: ChatMarks | None = None
        self._laid_out = lru_cache(maxsize=256)(self._lay_out)

    @classmethod
    def of(cls, tokenizer: Any) -> "Reader":
        """The reader of a tokenizer, kept with it; another once its chat template is another.

        Raises:
            EditError: There is no tokenizer.
        """
        if tokenizer is None:
            raise EditError(
                "this network has no tokenizer, so texts, roles, token strings and special tokens mean nothing; "
                "open_model(..., tokenizer=...), or give positions or ids"
            )
        kept = getattr(tokenizer, "__dict__", {}).get("_innerview_reader")
        if (
            isinstance(kept, cls)
            and kept.tokenizer is tokenizer
            and kept._template == getattr(tokenizer, "chat_template", None)
        ):
            return kept
        made = cls(tokenizer)
        if hasattr(tokenizer, "__dict__"):
            tokenizer.__dict__["_innerview_reader"] = made
        return made

    def __deepcopy__(self, memo: dict) -> "Reader":
        # A copied tokenizer is read anew.
        return Reader(None)

    def __reduce__(self) -> Any:
        return Reader, (None,)

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of the special tokens: BOS, end of text, pads, chat markers."""
        added = getattr(self.tokenizer, "added_tokens_decoder", None) or {}
        marked = [int(i) for i, token in added.items() if getattr(token, "special", False)]
        return frozenset([*(getattr(self.tokenizer, "all_special_ids", None) or ()), *marked])

    def id_of(self, token: str) -> int:
        """The one id of a token's text: as the tokenizer writes it, else as it stands in the vocabulary.

        Raises:
            EditError: The text is several tokens, or none.
        """
        ids = list(self.tokenizer(token, add_special_tokens=False)["input_ids"])
        unknown = getattr(self.tokenizer, "unk_token_id", None)
        if len(ids) == 1 and (ids[0] != unknown or token == getattr(self.tokenizer, "unk_token", None)):
            return int(ids[0])
        known = self.tokenizer.get_vocab()
        for spelled in (token, token.replace(" ", "▁"), token.replace(" ", "Ġ")):
            if spelled in known:
                return int(known[spelled])
        pieces = self.tokenizer.convert_ids_to_tokens(ids)
        what = f"{len(ids)} tokens, {pieces}" if len(ids) != 1 else "no token of this tokenizer"
        raise EditError(f"{token!r} is {what}; name single tokens, give ids, or use text={token!r} for a span")

    def layout(self, ids: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
        """The text of a row, and where in it each token begins and ends."""
        return self._laid_out(tuple(ids))

    def _lay_out(self, ids: tuple[int, ...]) -> tuple[str, list[tuple[int, int]]]:
        text = self._decode(ids)
        if getattr(self.tokenizer, "is_fast", False):
            again = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            if tuple(again["input_ids"]) == ids:
                return text, [(int(a), int(b)) for a, b in again["offset_mapping"]]
        # Ids that are not how the tokenizer would write this text: what each one adds to the text before it.
        ends = [self._end(ids[:n], text) for n in range(1, len(ids) + 1)]
        ends[-1] = len(text)
        starts = [0, *ends[:-1]]
        for nth in range(len(ids) - 2, -1, -1):
            # Bytes that are no character alone belong to the character that the next token completes.
            if ends[nth] == starts[nth] and nth + 1 < len(ids):
                ends[nth] = ends[nth + 1]
        return text, list(zip(starts, ends, strict=True))

    def _end(self, ids: tuple[int, ...], text: str) -> int:
        """How much of the row's text is said by its first ids."""
        said = self._decode(ids)
        while not text.startswith(said) and said.endswith("\ufffd"):
            said = said[:-1]
        return len(said) if text.startswith(said) else min(len(said), len(text))

    def _decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)

    # Spans of one row.

    def text_span(self, ids: Sequence[int], sought: str, nth: int | None, row: int) -> list[bool]:
        """True for the tokens of the row that write `sought`: its nth occurrence, or all of them when None.

        Args:
            ids: The row's ids, without pads.
            sought: The text; a token that writes part of it belongs to it.
            nth: 1 is the first occurrence, -1 the last.
            row: The row's number, for errors.
        Raises:
            EditError: The text does not occur in the row, or not that often.
        """
        text, places = self.layout(ids)
        special = self.special_ids
        marks = [place for i, place in zip(ids, places, strict=True) if i in special]
        # A word inside the name of a special token is no text.
        found = [
            m.start() for m in re.finditer(re.escape(sought), text)
            if not any(a <= m.start() and m.start() + len(sought) <= b and text[a:b].strip() != sought.strip() for a, b in marks)
        ]  # fmt: skip
        if not found:
            raise EditError(
                f"the text {sought!r} is not in row {row}: {_short(text)}; it is sought letter by letter, spaces too"
            )
        if nth is not None:
            if abs(nth) > len(found):
                times = "once" if len(found) == 1 else f"{len(found)} times"
                raise EditError(
                    f"the text {sought!r} is {times} in row {row}, so there is no nth={nth}: {_short(text)}; nth counts from 1, or from -1 for the last"
                )
            found = [found[nth - 1 if nth > 0 else nth]]
        return _covering(places, [(start, start + len(sought)) for start in found], text)

    def role_span(self, ids: Sequence[int], role: str, row: int) -> tuple[list[bool], bool]:
        """True for the tokens that write what a role says in a chat, and whether it is speaking at the row's end.

        Args:
            ids: The row's ids, without pads.
            role: A role of the chat template, such as `"assistant"`.
            row: The row's number, for errors.
        Raises:
            EditError: The role does not speak in the row, or the chat template does not tell its roles apart.
        """
        if self._marks is None:
            self._marks = ChatMarks.of(self.tokenizer)
        text, places = self.layout(ids)
        turns = self._marks.turns(text)
        spoken = [turn for turn in turns if turn.role == role]
        if not spoken:
            roles = ", ".join(dict.fromkeys(turn.role for turn in turns))
            said = f"its roles are {roles}" if roles else "it is no chat of this network's template"
            raise EditError(f"row {row} has nothing of the role {role!r}: {said}; {self._marks.known}")
        return _covering(places, [(t.start, t.end) for t in spoken if t.start < t.end], text), bool(
            turns[-1].is_open and turns[-1].role == role
        )


def _covering(places: list[tuple[int, int]], spans: list[tuple[int, int]], text: str) -> list[bool]:
    """True for the tokens that write part of a span, or lie in it whole; a blank at a token's rim is no part."""

    def writes(place: tuple[int, int], span: tuple[int, int]) -> bool:
        start, end = max(place[0], span[0]), min(place[1], span[1])
        return start < end and ((start, end) == place or bool(text[start:end].strip()))

    return [any(writes(place, span) for span in spans) for place in places]


def _short(text: str, most: int = 60) -> str:
    return repr(text if len(text) <= most else text[: most - 1] + "…")
