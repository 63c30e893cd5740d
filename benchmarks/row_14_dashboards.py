"""Row 14: dashboards of 256 and of all features, GPT-2's size, 24,576 features, TopK.

`python -m benchmarks.row_14_dashboards [--tokens 262144] [--rounds 2]`; `--growth` measures how cost grows with tokens and features instead.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

import innerview as iv
from benchmarks import machine, networks, table
from benchmarks.pairing import Contender, DisagreementError, Span, Timings
from benchmarks.result import Claim, Row, Workload
from innerview.features.corpus import Corpus
from innerview.features.passing import Pass
from innerview.features.statistics import usually_kept

LAYER, N_FEATURES, K, POS, CHUNK = 6, 24576, 32, 128, 8192
TOKENS = 262_144
# Beside SAEDashboard, whose data of 512 features of all tokens would take it an hour.
PEER_TOKENS = 32_768
OVER_LIMIT, FEW, OVER_FEW, OVER_ALL = 1.3, 256, 5, 30
FEATURE_BYTES = 25_000
ENVIRONMENT = Path(__file__).parent.parent / ".venv-dashboards"
# It wants transformers below 4.57; its own constraints leave these to be found out.
PEER = ["sae-dashboard==0.8.0", "numpy<2", "pyarrow<22", "pandas<3", "scipy<1.17"]


@dataclass(eq=False)
class Work:
    """What everybody works on.

    Attributes:
        module: The network.
        model: The same, opened.
        dictionary: Random features, each with an encoder row of length one and the decoder row beside it.
        ids: Rows of ids, shape [rows, pos].
    """

    module: PreTrainedModel
    model: iv.Model
    dictionary: iv.Dictionary
    ids: Tensor

    @classmethod
    def of(cls, tokens: int, n_features: int = N_FEATURES, k: int = K) -> "Work":
        """The work at one size."""
        module = networks.gpt2()
        generator = torch.Generator().manual_seed(5)
        rows = torch.randn(n_features, module.config.hidden_size, generator=generator)
        rows = rows / rows.norm(dim=1, keepdim=True)
        weights = iv.Weights(rows, torch.zeros(n_features), rows.clone(), torch.zeros(rows.shape[1]))
        manifest = iv.Manifest(False, iv.Normalisation(), site=f"blocks.{LAYER}.resid")
        ids = torch.randint(5, module.config.vocab_size, (max(1, tokens // POS), POS), generator=generator)
        return cls(module, iv.open_model(module), iv.Dictionary(weights, iv.TopK(k), manifest), ids)

    def begun(self) -> Pass:
        """A pass that has read nothing, as `iv.feature_statistics` begins it."""
        own, vocab = self.dictionary, self.module.config.vocab_size
        return Pass.empty(own.n_features, torch.device("cpu"), top=16, sample=32, together=True, vocab=vocab, neurons=False)  # fmt: skip


def by_chunk(work: Work, chunk: int) -> tuple[Timings, Pass, float]:
    """Seconds of each chunk: the network cut behind the block and one encode, and our pass; then our pass, and the seconds of its end."""
    corpus = Corpus.of(work.model, work.ids, reads_bos=False)
    cut, own, made = networks.truncated(work.module, LAYER), work.dictionary, work.begun()
    seconds: dict[str, list[float]] = {"forward and encode": [], "innerview": []}
    groups = corpus.groups(chunk)
    with torch.no_grad():
        # Warm-up: neither way is called for the first time below.
        own.encode(cut(input_ids=work.ids[: chunk // POS]).last_hidden_state)
        work.begun().read(work.model, own, corpus, groups[0], 0, None)
        for turn, group in enumerate(groups):
            ids = torch.tensor([corpus.row(number) for number in group])
            calls: list[tuple[str, Callable[[], Any]]] = [
                ("forward and encode", lambda ids=ids: own.encode(cut(input_ids=ids).last_hidden_state)),
                ("innerview", lambda group=group: made.read(work.model, own, corpus, group, 0, None)),
            ]
            for name, call in calls[:: -1 if turn % 2 else 1]:
                start = time.perf_counter()
                call()
                seconds[name].append(time.perf_counter() - start)
        start = time.perf_counter()
        assert made.together is not None and made.profiling is not None
        made.together.partners(10)
        made.profiling.profile(10)
        end = time.perf_counter() - start
    # What comes at the end belongs to every chunk alike.
    seconds["innerview"] = [one + end / len(groups) for one in seconds["innerview"]]
    contenders = (Contender("forward and encode", "limit", cut), Contender("innerview", "ours", cut))
    return Timings(contenders, seconds), made, end


def gate(work: Work, made: Pass) -> str:
    """What was checked: counts and maxima of all features equal those of dense codes of the cut network, 1024 tokens at a time.

    Raises:
        DisagreementError: One differs.
    """
    cut, own = networks.truncated(work.module, LAYER), work.dictionary
    count, most = torch.zeros(own.n_features, dtype=torch.long), torch.zeros(own.n_features)
    with torch.no_grad():
        for ids in work.ids.split(1024 // POS):
            dense = own.encode_dense(cut(input_ids=ids).last_hidden_state).flatten(0, 1)
            count += (dense != 0).sum(dim=0)
            most = torch.maximum(most, dense.amax(dim=0))
    off = (count - made.spread.count).abs()
    # Two features beside the k-th place may swap when rows are summed in another order.
    if int(off.max()) > 2 or not torch.allclose(most, made.spread.most.clamp(min=0), rtol=1e-4, atol=1e-4):
        raise DisagreementError(f"counts differ from the dense ones by {int(off.max())}, of {int(count.max())}")
    return f"counts of all features (off by {int(off.sum())} of {int(count.sum())}) and their maxima equal those of dense codes"


class Peer:
    """SAEDashboard in a process of its own, which answers one request after another."""

    def __init__(self, work: Work, folder: Path) -> None:
        network = {
            name: tensor.contiguous() for name, tensor in work.module.state_dict().items() if name != "lm_head.weight"
        }
        save_file(network, folder / "network.safetensors")
        own = work.dictionary.weights
        save_file({"encoder": own.encoder.clone(), "decoder": own.decoder, "k": torch.tensor(K)}, folder / "dictionary.safetensors")  # fmt: skip
        save_file({"ids": work.ids}, folder / "tokens.safetensors")
        call = [str(ENVIRONMENT / "bin" / "python"), str(Path(__file__).with_name("row_14_peer.py")), str(folder)]
        call += [f"blocks.{LAYER}.hook_resid_post", str(torch.get_num_threads())]
        self._process = subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)  # fmt: skip
        self._answer()

    def gather(self, features: int, sequences: int) -> dict[str, Any]:
        """Seconds for the first features, and what was found of a few."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"features": features, "sequences": sequences}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"SAEDashboard's process ended with {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        """End its process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


def make_environment() -> str | None:
    """Make SAEDashboard's environment where it is missing; why it cannot be had, or None."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
        pip = [str(python), "-m", "pip", "install", "-q"]
        torch_version = torch.__version__
        for packages in ([f"torch=={torch_version}"], [f"torch=={torch_version}", *PEER]):
            done = subprocess.run([*pip, *packages], capture_output=True, text=True)
            if done.returncode:
                return f"could not be installed: {(done.stderr.strip().splitlines() or ['?'])[-1][:200]}"
        subprocess.run([str(python), "-m", "pip", "uninstall", "-q", "-y", "torchvision", "torchaudio"], check=False)
    return None


def whole(work: Work) -> tuple[float, iv.FeatureStatistics]:
    """Seconds of our whole call, and what it gives."""
    start = time.perf_counter()
    found = iv.feature_statistics(work.model, work.dictionary, work.ids, neurons=False, progress=False)
    return time.perf_counter() - start, found


def beside_peer(work: Work, rounds: int) -> Workload:
    """Ours for all features beside SAEDashboard for 256, and for twice as many, from which its time for all is told."""
    names = {
        "few": f"SAEDashboard, {FEW} features",
        "twice": f"SAEDashboard, {2 * FEW} features",
        "ours": "innerview, all features",
    }
    seconds: dict[str, list[float]] = {name: [] for name in names.values()}
    with tempfile.TemporaryDirectory() as folder:
        peer = Peer(work, Path(folder))
        try:
            peer.gather(FEW, 8)
            found, told = None, {}
            for turn in range(rounds):
                order = ("ours", "few", "twice") if turn % 2 == 0 else ("twice", "few", "ours")
                for name in order:
                    if name == "ours":
                        took, found = whole(work)
                    else:
                        told = peer.gather(FEW if name == "few" else 2 * FEW, len(work.ids))
                        took = told["seconds"]
                    seconds[names[name]].append(took)
        finally:
            peer.close()
    assert found is not None
    checked = _same(found, told)
    few, twice, ours = (np.array(seconds[names[name]]) for name in ("few", "twice", "ours"))
    # Its time is a part for all, and as much for each further batch of 256: a straight line through two points.
    every = few + (twice - few) * (work.dictionary.n_features / FEW - 1)
    contenders = tuple(Contender(name, "ours" if "innerview" in name else "peer", lambda: None) for name in seconds)
    n = work.dictionary.n_features
    claims = [
        Claim(f"our time for all {n} ÷ SAEDashboard's for {FEW}", Span.of((ours / few).tolist()), "×", 1 / OVER_FEW),
        Claim(
            f"our time for all {n} ÷ SAEDashboard's for all, told", Span.of((ours / every).tolist()), "×", 1 / OVER_ALL
        ),
    ]
    return Workload(_name(work), checked, Timings(contenders, seconds), claims)


def _same(found: iv.FeatureStatistics, told: dict[str, Any]) -> str:
    shares = found.density[: len(told["shares"])].numpy() * 100
    gap = float(np.abs(shares - np.array(told["shares"])).max())
    # It prints three digits.
    if gap > 0.01:
        raise DisagreementError(f"shares of active tokens differ from SAEDashboard's by {gap:.3g} of 100")
    most = found.spread.most[: len(told["largest"])].clamp(min=0).numpy()
    off = np.abs(most - np.array(told["largest"])) / np.maximum(most, 1e-6)
    if float(np.median(off)) > 1e-3:
        raise DisagreementError(f"largest activations differ from SAEDashboard's by {float(np.median(off)):.3g}")
    return f"shares of active tokens of {len(shares)} features as SAEDashboard prints them (within {gap:.2g} of 100), and largest activations"


def _name(work: Work) -> str:
    tokens, own = work.ids.numel(), work.dictionary
    return f"{tokens} tokens, blocks.{LAYER}.resid of GPT-2's size, random float32 weights, {own.n_features} features, TopK {K}, threads: {torch.get_num_threads()}"


def saved_bytes(work: Work, found: iv.FeatureStatistics) -> float:
    """Bytes of a feature on disk, words and neighbours left out: at random they are as long."""
    with tempfile.TemporaryDirectory() as folder:
        iv.Dashboard(None, work.model, found).save(folder)
        return sum(path.stat().st_size for path in Path(folder).iterdir()) / found.n_features


def row(rounds: int | None, tokens: int = TOKENS, chunk: int = CHUNK, n_features: int = N_FEATURES) -> Row:
    """Ours against one forward and one encode, chunk by chunk; and beside SAEDashboard."""
    work = Work.of(tokens, n_features)
    timings, made, end = by_chunk(work, chunk)
    checked = gate(work, made)
    over = timings.ratio("innerview", "forward and encode")
    _, found = whole(Work.of(min(tokens, 8 * CHUNK), n_features))
    size = saved_bytes(work, found)
    claims = [
        Claim("our time of a chunk ÷ forward and encode", over, "×", OVER_LIMIT),
        Claim("bytes of a feature on disk", Span(size, size, size, size, size), "bytes", FEATURE_BYTES),
    ]
    loads = [Workload(f"chunks of {chunk} tokens; {_name(work)}", checked, timings, claims)]
    missing, why = {}, make_environment()
    if why is None:
        some = work if tokens <= PEER_TOKENS else Work.of(PEER_TOKENS, n_features)
        loads.append(beside_peer(some, max(2, min(rounds or 2, 5))))
    else:
        missing["SAEDashboard"] = why
    return Row("14", "Dashboards of 256 and of all features", loads, [*NOTES, f"The end of a pass (partners, tokens) took {end:.2g} s; it is counted with every chunk alike."], missing)  # fmt: skip


NOTES = [
    "Ours gathers all features at once, so that its time for 256 is its time for all: counts, histograms, examples with their text, pairs by PMI, tokens.",
    "Ours leaves correlated neurons out here, which are an option of it; SAEDashboard's runner correlates as its default layout asks.",
    "SAEDashboard 0.8.0 runs in an environment and a process of its own (it needs transformers below 4.57), with our number of threads, in the same run.",
    "It keeps activations on disk between batches, as it offers, and takes 256 features and 8192 tokens at a time.",
    "Its time for all features is told from a straight line through 256 and 512; beside it there are fewer tokens, as it would take an hour.",
]


@dataclass
class Growth:
    """How one size went.

    Attributes:
        tokens: Tokens.
        features: Features.
        counting_us: Microseconds of a token beside forward and encode.
        held_bytes: What a pass holds, once all was read.
    """

    tokens: int
    features: int
    counting_us: float
    held_bytes: int = field(default=0)


def growth() -> list[Growth]:
    """Cost of counting alone, over tokens and over features; codes are drawn at random, at 32 a token."""
    made = [_grown(tokens, 24_576) for tokens in (512, 2048, 8192, 16_384, 65_536)]
    return made + [_grown(16_384, n) for n in (4096, 16_384, 65_536, 262_144, 1_048_576)]


def _grown(tokens: int, n: int) -> Growth:
    generator = torch.Generator().manual_seed(tokens + n)
    top, sample = usually_kept(n)
    held = Pass.empty(n, torch.device("cpu"), top=top, sample=sample, together=True, vocab=50_257, neurons=False)
    rows = tokens // POS
    ids = torch.randint(5, 50_257, (tokens,), generator=generator, dtype=torch.int32)
    starts, none = torch.arange(rows + 1) * POS, torch.zeros(rows, dtype=torch.long)
    corpus = Corpus(ids, starts, torch.arange(rows), none, torch.ones(tokens, dtype=torch.bool), rows, 0)
    spent = 0.0
    for group in corpus.groups(CHUNK):
        codes = _codes(len(group), n, generator)
        start = time.perf_counter()
        held.take(codes, corpus, group, 0)
        spent += time.perf_counter() - start
    size = sum(tensor.nbytes for tensor in held.tensors().values())
    return Growth(tokens, n, spent / tokens * 1e6, size)


def _codes(rows: int, n: int, generator: torch.Generator) -> iv.Codes:
    """Codes of K features a token, the first features a thousand times as frequent as the last."""
    drawn = torch.rand(rows * POS, 2 * K, generator=generator)
    features = ((1000.0**drawn - 1) / 999 * n).long().clamp(max=n - 1).sort(dim=1).values
    is_new = torch.ones_like(features, dtype=torch.bool)
    is_new[:, 1:] = features[:, 1:] != features[:, :-1]
    is_new &= is_new.cumsum(dim=1) <= K
    tokens, at = is_new.nonzero(as_tuple=True)
    values = torch.rand(len(tokens), generator=generator) + 0.1
    return iv.Codes(tokens, features[tokens, at], values, (rows, POS), n)


def main() -> None:
    """The command line of this row."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--chunk", type=int, default=CHUNK, help="tokens of one chunk")
    parser.add_argument("--features", type=int, default=N_FEATURES)
    parser.add_argument("--growth", action="store_true")
    asked = parser.parse_args()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(machine.cores())
    if asked.growth:
        for one in growth():
            print(f"| {one.tokens} | {one.features} | {one.counting_us:.3g} | {one.held_bytes / 2**20:.4g} |")
        return
    measured = row(asked.rounds, asked.tokens, asked.chunk, asked.features).to_dict()
    if asked.output:
        asked.output.write_text(json.dumps(measured, ensure_ascii=False))
    else:
        print("\n".join(table.row(measured | {"load": machine.load()})))


if __name__ == "__main__":
    main()
