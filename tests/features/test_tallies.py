"""Counts in bounded memory: frequent keys stay, and no count is short by more than is said."""

from collections import Counter

import numpy as np
import torch

from innerview.features.tallies import Tallies, best_of_each, ordered


def test_counts_and_sums_are_exact_while_there_is_room() -> None:
    generator = np.random.default_rng(0)
    tallies, wanted, sums = Tallies.empty(10_000, torch.device("cpu")), Counter(), Counter()
    for _ in range(20):
        keys, values = generator.integers(0, 3000, 500), generator.random(500).astype(np.float32)
        tallies.add(torch.from_numpy(keys), torch.from_numpy(values))
        wanted.update(keys.tolist())
        for key, value in zip(keys.tolist(), values.tolist(), strict=True):
            sums[key] += value
    tallies.merge()
    assert tallies.missed == 0
    assert dict(zip(tallies.keys.tolist(), tallies.counts.tolist(), strict=True)) == dict(wanted)
    np.testing.assert_allclose(tallies.sums, [sums[key] for key in tallies.keys.tolist()], rtol=1e-4)


def test_in_little_room_the_frequent_ones_stay_and_the_error_is_bounded() -> None:
    generator = np.random.default_rng(1)
    tallies, wanted = Tallies.empty(500, torch.device("cpu")), Counter()
    for _ in range(50):
        keys = generator.zipf(1.3, 1000) % 100_000
        tallies.add(torch.from_numpy(keys))
        wanted.update(keys.tolist())
    tallies.merge()
    held = dict(zip(tallies.keys.tolist(), tallies.counts.tolist(), strict=True))
    assert len(held) <= 500 and 0 < tallies.missed < 2000
    for key, count in wanted.items():
        assert held.get(key, 0) <= count <= held.get(key, 0) + tallies.missed
    assert {key for key, _ in wanted.most_common(20)} <= set(held)


def test_keys_are_put_in_order_equal_ones_as_they_came() -> None:
    keys = torch.randint(0, 50, (3000,), generator=torch.Generator().manual_seed(0))
    assert torch.equal(ordered(keys), keys.sort(stable=True).indices)


def test_each_owners_best_are_found() -> None:
    generator = torch.Generator().manual_seed(0)
    owners, scores = torch.randint(0, 7, (200,), generator=generator), torch.rand(200, generator=generator)
    best, counts = best_of_each(owners, scores, 4, 9)
    for owner in range(9):
        wanted = sorted(scores[owners == owner].tolist(), reverse=True)[:4]
        kept = best[owner][best[owner] >= 0]
        assert scores[kept].tolist() == wanted and int(counts[owner]) == len(wanted)
