"""Who says what in a chat, told from its text by the marks that the chat template puts around what each role says."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from innerview.errors import EditError

# Words that no template holds, to be found again in what it renders.
_WORDS = ("qzalphaqz", "qzbetaqz", "qzgammaqz", "qzdeltaqz", "qzepsilonqz")
_CHATS = (
    ("user",),
    ("user", "assistant"),
    ("user", "assistant", "user"),
    ("user", "assistant", "user", "assistant"),
    ("system", "user"),
    ("system", "user", "assistant"),
    ("system", "user", "assistant", "user"),
    ("developer", "user", "assistant"),
    ("user", "assistant", "tool", "assistant"),
)


@dataclass(frozen=True)
class Turn:
    """What one role says: characters `start` to `end` of the row's text. `is_open` where the text ends before the turn does."""

    role: str
    start: int
    end: int
    is_open: bool


@dataclass(frozen=True)
class ChatMarks:
    """What a chat template puts before and behind what each role says.

    Attributes:
        before: By role, the text that always stands before, or the several texts of which one does.
        behind: By role, the text that always stands behind.
        tail: What stands behind an assistant's words and is the assistant's too, where the template marks what is generated.
    """

    before: Mapping[str, tuple[str, ...]]
    behind: Mapping[str, str]
    specials: tuple[str, ...] = ()
    tail: str = ""

    @classmethod
    def of(cls, tokenizer: Any) -> "ChatMarks":
        """The marks of a tokenizer's chat template, found by rendering chats of known words.

        Raises:
            EditError: There is no template, or it does not tell its roles apart.
        """
        if not getattr(tokenizer, "chat_template", None):
            raise EditError(
                "this network's tokenizer has no chat template, so no token belongs to a role; use text= or positions="
            )
        before, behind = _rendered(tokenizer)
        starts: dict[str, tuple[str, ...]] = {}
        for role, texts in before.items():
            marks = _marks(texts)
            twin = next((other for other, known in starts.items() if _bare(known) & _bare(marks)), None)
            if twin is None and marks:
                starts[role] = marks
            elif role in ("user", "assistant"):
                how = f"the same before {role} and {twin}, {marks[0]!r}" if twin else f"nothing before {role}"
                raise EditError(
                    f"the chat template writes {how}, so roles cannot be told from a text; use text= or positions="
                )
        if not starts:
            raise EditError(
                "the chat template refuses a user's and an assistant's message, so it has no roles to tell; use text= or positions="
            )
        ends = {role: _common(behind[role]) for role in starts}
        return cls(starts, ends, tuple(getattr(tokenizer, "all_special_tokens", None) or ()), _tail(tokenizer))

    @property
    def known(self) -> str:
        """The roles that the template is known to tell apart, in words."""
        return f"the template knows {', '.join(self.before)}"

    def turns(self, text: str) -> list[Turn]:
        """The turns of a row's text, in order."""
        # The longest mark first: one may end as another does.
        longest = sorted(
            ((mark, role) for role, marks in self.before.items() for mark in marks), key=lambda m: -len(m[0])
        )
        named = {f"r{nth}": role for nth, (_, role) in enumerate(longest)}
        starts = re.compile("|".join(f"(?P<r{nth}>{self._pattern(mark)})" for nth, (mark, _) in enumerate(longest)))
        found: list[Turn] = []
        at = 0
        while (match := starts.search(text, at)) is not None:
            role = named[str(match.lastgroup)]
            following = starts.search(text, match.end())
            limit = len(text) if following is None else following.start()
            end = self._end(role, text, match.end(), limit)
            stop = limit if end is None else end
            at = max(match.end(), stop)
            if end is not None and role == "assistant" and self.tail:
                tail = re.compile(self._pattern(self.tail)).match(text, stop)
                stop = stop if tail is None else tail.end()
            found.append(Turn(role, match.end(), stop, end is None and following is None))
        return found

    def _end(self, role: str, text: str, start: int, limit: int) -> int | None:
        """Where a turn ends before `limit`; None when its closing mark does not come."""
        mark = self.behind[role]
        if not mark.strip():
            return limit - len(mark) if mark and text[start:limit].endswith(mark) else None
        match = re.compile(self._pattern(mark)).search(text, start)
        # A mark behind may be the very one that opens the next turn.
        return match.start() if match is not None and match.start() <= limit else None

    def _pattern(self, mark: str) -> str:
        """A mark as a pattern whose blanks may be more or fewer: decoding puts some beside special tokens, or drops them."""
        blanks = (mark[: len(mark) - len(mark.lstrip())], mark[len(mark.rstrip()) :])
        for special in self.specials:
            mark = mark.replace(special, f" {special} ")
        # Blanks at the rims are the mark's own, as far as they go: what it stands beside may have some too.
        before, behind = (f"(?:[^\\S\\n]*{re.escape(blank)})?" if blank else "" for blank in blanks)
        return before + r"\s*".join(re.escape(piece) for piece in mark.split()) + behind


def _rendered(tokenizer: Any) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """By role, all that a template writes before and behind what the role says, over chats of known words."""
    before: dict[str, list[str]] = {}
    behind: dict[str, list[str]] = {}
    for roles in _CHATS:
        chat = [{"role": role, "content": word} for role, word in zip(roles, _WORDS, strict=False)]
        try:
            text = tokenizer.apply_chat_template(chat, tokenize=False)
        except Exception:
            # A template is a program of its own: it refuses roles and their order with whatever error it likes.
            continue
        for role, word in zip(roles, _WORDS, strict=False):
            if text.count(word) == 1:
                left, _, right = text.partition(word)
                before.setdefault(role, []).append(_behind_words(left))
                behind.setdefault(role, []).append(_before_words(right))
    return before, behind


def _tail(tokenizer: Any) -> str:
    """What a template that marks what is generated counts to the assistant behind its words; nothing where it marks nothing."""
    if re.search(r"{%-?\s*generation\s*-?%}", str(tokenizer.chat_template)) is None:
        return ""
    chat = [{"role": role, "content": word} for role, word in zip(("user", "assistant"), _WORDS, strict=False)]
    try:
        made = tokenizer.apply_chat_template(chat, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
        ids = [i for i, mark in zip(made["input_ids"], made["assistant_masks"], strict=True) if mark]
    except Exception:
        # As above; and tokenizers without offsets have no such mask.
        return ""
    said = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return said.partition(_WORDS[1])[2] if ids else ""


def _behind_words(text: str) -> str:
    """The text behind the last known word in it."""
    return re.split("|".join(_WORDS), text)[-1]


def _before_words(text: str) -> str:
    """The text before the first known word in it."""
    return re.split("|".join(_WORDS), text)[0]


def _marks(texts: list[str]) -> tuple[str, ...]:
    """The end that all texts share; where they share none, each of them; nothing when one of them is blank."""
    shared = _common([text[::-1] for text in texts])[::-1]
    if shared.strip():
        return (shared,)
    return tuple(dict.fromkeys(texts)) if all(text.strip() for text in texts) else ()


def _common(texts: list[str]) -> str:
    """The beginning that all texts share."""
    first, last = min(texts), max(texts)
    same = (n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return first[: next(same, min(len(first), len(last)))]


def _bare(marks: tuple[str, ...]) -> set[str]:
    return {"".join(mark.split()) for mark in marks}
