"""Many questions to an endpoint: what they will cost, several at once, kept as they are answered, stoppable."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from innerview.errors import FeatureError
from innerview.features.endpoint import Endpoint, Unanswered
from innerview.features.records import Records
from innerview.progress import progress as bar

Messages = list[dict[str, str]]
# English has about four characters a token; other texts fewer, so that this is rather too many tokens than too few.
CHARACTERS_A_TOKEN = 3.0
AROUND = 8
# An answer that cannot be read is asked for once more, in the same words.
READINGS = 2
# An endpoint that leaves so many questions one behind another without an answer is gone.
MOST_UNANSWERED = 3


@dataclass(frozen=True)
class CostEstimate:
    """What questions will cost, before any is asked.

    Attributes:
        questions: How many will be asked.
        tokens_in: Tokens of the questions, about.
        tokens_out: Tokens of the answers, at most.
        dollars: What they cost; None where prices are not known.
    """

    questions: int
    tokens_in: int
    tokens_out: int
    dollars: float | None

    @classmethod
    def of(cls, endpoint: Endpoint, asked: Mapping[str, Messages]) -> "CostEstimate":
        """The estimate of some questions."""
        characters = sum(len(one["content"]) for messages in asked.values() for one in messages)
        tokens_in = round(characters / CHARACTERS_A_TOKEN) + AROUND * sum(map(len, asked.values()))
        tokens_out = endpoint.answer_tokens * len(asked)
        dollars = None
        if endpoint.dollars_in is not None and endpoint.dollars_out is not None:
            dollars = (tokens_in * endpoint.dollars_in + tokens_out * endpoint.dollars_out) / 1e6
        return cls(len(asked), tokens_in, tokens_out, dollars)

    def __str__(self) -> str:
        price = "" if self.dollars is None else f", ${self.dollars:.2f} at most"
        return f"{self.questions} questions, about {self.tokens_in} tokens in and {self.tokens_out} out at most{price}"


def asked(
    endpoint: Endpoint,
    questions: Mapping[str, Messages],
    parse: Callable[[str, str], Any],
    records: Records,
    *,
    what: str,
    progress: bool | None = None,
) -> bool:
    """Ask what was not answered yet, and keep each answer in `records`; False where an interrupt came first.

    Args:
        endpoint: Whom to ask.
        questions: Chats by key.
        parse: What an answer says, given its key and text, as JSON takes it; None where it cannot be read.
        records: What was answered already, and where answers are kept.
        what: What is done, in a word.
        progress: Show how far it is; after two seconds when None.
    Raises:
        FeatureError: It would cost more than was allowed, or the endpoint refused, or gave no answer to the first or to several questions;
            what was answered by then is kept. A question that alone gets none is left out.
    """
    left = {key: messages for key, messages in questions.items() if key not in records.held}
    estimate = CostEstimate.of(endpoint, left)
    if estimate.tokens_in + estimate.tokens_out > endpoint.most_tokens:
        raise FeatureError(
            f"{what} takes {estimate}, more than the {endpoint.most_tokens} tokens that are allowed; ask for fewer features, or give the "
            "endpoint a larger most_tokens="
        )
    stop = threading.Event()
    told = f"{what}: {estimate}"
    shown = {"delay_s": 0.0 if progress else 2.0, "is_shown": progress is not False}
    pool = ThreadPoolExecutor(endpoint.parallel, thread_name_prefix="innerview-asking")
    try:
        with bar(len(left), told, "question", **shown) as step:
            _drain(pool, endpoint, left, parse, records, stop, step)
    except KeyboardInterrupt:
        return False
    finally:
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
    return True


def _drain(
    pool: ThreadPoolExecutor, endpoint: Endpoint, left: Mapping[str, Messages], parse: Callable[[str, str], Any], records: Records,
    stop: threading.Event, step: Callable[..., Any],
) -> None:  # fmt: skip
    """Keep answers as they come; a few questions are under way at a time, so that a stop leaves few unheard."""
    waiting, running = iter(left.items()), {}
    # Until something was answered, nothing says that the endpoint works.
    unanswered = MOST_UNANSWERED - 1

    def fill() -> None:
        for key, messages in waiting:
            running[pool.submit(_answer, endpoint, key, messages, parse, stop)] = key
            if len(running) >= endpoint.parallel:
                return

    fill()
    while running:
        # Woken now and then, so that an interrupt is heard on every system.
        done: set[Future] = wait(running, timeout=0.2, return_when=FIRST_COMPLETED).done
        for future in done:
            key = running.pop(future)
            try:
                answer = future.result()
                unanswered = 0
            except Unanswered:
                answer, unanswered = None, unanswered + 1
                if unanswered >= MOST_UNANSWERED:
                    raise
            if answer is not None:
                records.add(key, answer)
            step()
        if done:
            fill()


def _answer(endpoint: Endpoint, key: str, messages: Messages, parse: Callable[[str, str], Any], stop: threading.Event) -> Any:  # fmt: skip
    for _ in range(READINGS):
        found = parse(key, endpoint.ask(messages, stop))
        if found is not None:
            return found
    return None
