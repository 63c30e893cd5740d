"""Row 16: from nothing to the first generated token, each in a fresh process."""

import subprocess
import sys
from collections.abc import Callable

from benchmarks.pairing import Contender, DisagreementError, Role, Timings, measure
from benchmarks.result import Claim, Row, Workload
from benchmarks.row import run
from innerview.bundled import bundled_folder

TARGET = 1.1
PROMPT = "The film was"

IMPORTS: dict[str, Role] = {
    "import torch, transformers": "limit",
    "import innerview": "ours",
    "import transformer_lens": "peer",
    "import sae_lens": "peer",
}
OPEN = "import innerview as iv; model = iv.open_model('pocket')"
GENERATE = f"{OPEN}; print(iv.generate(model, {PROMPT!r}, max_new_tokens=1).text)"
BY_HAND = """
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained({folder!r})
model = AutoModelForCausalLM.from_pretrained({folder!r})
"""
GENERATE_BY_HAND = """
given = tokenizer({prompt!r}, return_tensors="pt")
written = model.generate(**given, max_new_tokens=1, do_sample=False)
print(tokenizer.decode(written[0, given["input_ids"].shape[1] :]))
"""
LIMIT, PLAIN, OURS = "import torch, transformers", "transformers alone, the first token", "innerview, the first token"


def row(rounds: int | None) -> Row:
    """Imports, opening and the first token: ours, the peers' imports, and the same by transformers alone."""
    by_hand = BY_HAND.format(folder=str(bundled_folder("pocket")))
    by_hand_token = by_hand + GENERATE_BY_HAND.format(prompt=PROMPT)
    steps: dict[str, tuple[Role, str]] = {
        "innerview, open_model('pocket')": ("ours", OPEN),
        OURS: ("ours", GENERATE),
        "transformers alone, opening pocket": ("peer", by_hand),
        PLAIN: ("peer", by_hand_token),
    }
    contenders = [Contender(code, role, _process(code)) for code, role in IMPORTS.items()]
    contenders += [Contender(name, role, _process(code)) for name, (role, code) in steps.items()]
    gate = _same_token(contenders)
    timings = measure(contenders, rounds=rounds or 20, warm_up=0)
    name = "a fresh interpreter each time, files in the page cache, bytecode compiled"
    return Row(
        "16",
        "Opening: import, open pocket, first generated token",
        [Workload(name, gate, timings, claims(timings))],
        NOTES,
    )


NOTES = [
    "The target is the first token against the bare import of torch and transformers, which opens nothing.",
    "What transformers alone needs to open the folder and write the token stands beside it: what is built on transformers cannot be below.",
]


def claims(timings: Timings) -> list[Claim]:
    """Ours over the bare import and over transformers alone; the peers' bare imports over our first token."""
    ours = [
        Claim("import innerview ÷ the limit", timings.ratio("import innerview", LIMIT), "×", TARGET),
        Claim("open_model('pocket') ÷ the limit", timings.ratio("innerview, open_model('pocket')", LIMIT), "×", TARGET),
        Claim("the first token ÷ the limit", timings.ratio(OURS, LIMIT), "×", TARGET),
        Claim("the first token ÷ transformers alone doing the same", timings.ratio(OURS, PLAIN), "×"),
    ]
    peers = ("import sae_lens", "import transformer_lens")
    return ours + [Claim(f"{name} ÷ our first token", timings.ratio(name, OURS), "×") for name in peers]


def _process(code: str) -> Callable[[], str]:
    """A fresh interpreter that runs some code; what it printed."""

    def call() -> str:
        return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout

    return call


def _same_token(contenders: list[Contender]) -> str:
    said = {c.name: c.call() for c in contenders}
    if not said[OURS].strip() or said[OURS] != said[PLAIN]:
        raise DisagreementError(f"innerview wrote {said[OURS]!r}, transformers alone {said[PLAIN]!r}")
    return f"both wrote {said[OURS].strip()!r} behind {PROMPT!r}"


if __name__ == "__main__":
    run(row)
