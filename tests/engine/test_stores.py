"""Stores: what captures write is what is read, resumed captures add only what is missing, and damage is told."""

import gc
import json
import zlib
from pathlib import Path

import pytest
import safetensors.torch
import torch

import innerview as iv
from innerview.errors import StoreError
from tests.networks import LAYERS, opened, ragged

ROWS = ragged((5, 9, 3, 7, 8, 2, 6))
SITES = ["blocks.0.resid", "blocks.1.attn.heads"]


def filled(folder: Path, model: iv.Model, **options: object) -> iv.Store:
    store = iv.open_store(folder, shard_bytes=3000, **options)  # type: ignore[arg-type]
    iv.capture(model, ROWS, SITES, to=store, batch_size=2)
    return store


def test_a_store_holds_every_real_token_of_a_capture_in_its_order(tmp_path: Path) -> None:
    model = opened("llama", layers=2)
    store, whole = filled(tmp_path, model), iv.capture(model, ROWS, SITES)
    for site in SITES:
        wanted = whole[site][whole.mask]
        assert torch.allclose(store.read(site), wanted, atol=1e-5) and store.shape(site) == wanted.shape[1:]
        assert torch.allclose(store.read(site, 7, 21), wanted[7:21], atol=1e-5)
    assert store.ids().tolist() == [i for row in ROWS for i in row]
    rows, positions = store.places()
    assert rows.tolist() == [n for n, row in enumerate(ROWS) for _ in row]
    assert positions.tolist() == [p for row in ROWS for p in range(len(row))]
    assert store.generation > 1 and store.n_rows == len(ROWS) and store.model == model.name


def test_a_shard_is_a_safetensors_file(tmp_path: Path) -> None:
    store = filled(tmp_path, opened("gpt2", layers=2))
    read = [safetensors.torch.load_file(tmp_path / name) for name in store.frame()["file"]]
    assert torch.equal(torch.cat([one[SITES[0]] for one in read]), store.read(SITES[0]))


def test_the_same_capture_again_adds_nothing_and_more_texts_add_only_themselves(tmp_path: Path) -> None:
    model = opened("gpt2", layers=2)
    store = filled(tmp_path, model)
    before = store.sha256
    iv.capture(model, ROWS, SITES, to=store, batch_size=2)
    assert store.sha256 == before
    reopened = iv.open_store(tmp_path)
    store.close()
    iv.capture(model, [*ROWS, [5, 6, 7]], SITES, to=reopened)
    assert reopened.ids().tolist() == [i for row in ROWS for i in row] + [5, 6, 7]
    assert store.n_tokens == 40 and reopened.n_tokens == 43


def test_a_capture_of_other_weights_or_with_an_edit_is_not_taken_for_the_same(tmp_path: Path) -> None:
    model = opened("gpt2", layers=2)
    store = filled(tmp_path, model)
    iv.capture(model, ROWS, SITES, to=store, edits=[iv.Scale(2.0, site="blocks.0.resid")])
    assert store.n_tokens == 80
    assert torch.allclose(store.read(SITES[0], 40), 2 * store.read(SITES[0], 0, 40), atol=1e-4)
    with torch.no_grad():
        model.module.transformer.wte.weight.mul_(1.1)
    iv.capture(model, ROWS, SITES, to=store)
    assert store.n_tokens == 120


def test_an_interrupted_capture_keeps_what_was_done_and_goes_on(tmp_path: Path) -> None:
    model, seen = opened("gpt2", layers=2), [0]

    def stop(*_: object) -> None:
        seen[0] += 1
        if seen[0] == 3:
            raise KeyboardInterrupt

    store = iv.open_store(tmp_path)
    handle = model.module.register_forward_pre_hook(stop)
    with pytest.raises(iv.CaptureInterrupt):
        iv.capture(model, ROWS, SITES, to=store, batch_size=2)
    assert store.n_tokens == sum(map(len, ROWS[:4]))
    seen[0] = 10
    iv.capture(model, ROWS, SITES, to=store, batch_size=2)
    handle.remove()
    assert seen[0] == 12 and store.ids().tolist() == [i for row in ROWS for i in row]


def test_batches_give_every_token_once_in_an_order_that_the_seed_decides(tmp_path: Path) -> None:
    store = filled(tmp_path, opened("gpt2", layers=2))
    rows, positions = store.places()
    places = {(int(r), int(p)): n for n, (r, p) in enumerate(zip(rows, positions, strict=True))}

    def order(seed: int, **options: int) -> list[int]:
        read = store.batches([".rows", ".positions"], 16, seed, **options)
        return [places[int(r), int(p)] for b in read for r, p in zip(b[".rows"], b[".positions"], strict=True)]

    assert sorted(order(1)) == list(range(40)) == sorted(order(1, buffer_tokens=10))
    assert order(1) == order(1) != order(2) and order(1) != list(range(40))
    assert [len(b) for b in store.batches(SITES[0], 16, 1)] == [16, 16, 8]
    for size in (10, 1000):
        assert order(3, first=1, buffer_tokens=size) == order(3, buffer_tokens=size)[16:]


def test_batches_of_several_sites_are_of_the_same_tokens(tmp_path: Path) -> None:
    store = filled(tmp_path, opened("gpt2", layers=2))
    first, heads, (rows, positions) = store.read(SITES[0]), store.read(SITES[1]), store.places()
    for batch in store.batches([*SITES, ".rows", ".positions"], 7, seed=4):
        same = (batch[".rows"][:, None] == rows) & (batch[".positions"][:, None] == positions)
        places = same.nonzero()[:, 1]
        assert torch.equal(batch[SITES[0]], first[places]) and torch.equal(batch[SITES[1]], heads[places])


def test_a_number_format_is_kept_or_changed_as_told(tmp_path: Path) -> None:
    model = opened("gpt2", torch.bfloat16, layers=2)
    assert filled(tmp_path / "own", model).dtype(SITES[0]) == torch.bfloat16
    assert filled(tmp_path / "half", model, dtype=torch.float16).read(SITES[0]).dtype == torch.float16
    with pytest.raises(StoreError, match=r"holds 999424, which torch\.float16 cannot; use torch\.bfloat16"):
        iv.capture(
            model, ROWS, SITES, to=iv.open_store(tmp_path / "x", dtype=torch.float16),
            edits=[iv.Custom(lambda x, _: x * 0 + 1e6, site=SITES[0])],
        )  # fmt: skip


def test_there_is_one_writer_at_a_time(tmp_path: Path) -> None:
    model = opened("gpt2", layers=2)
    store, other = filled(tmp_path, model), iv.open_store(tmp_path)
    with pytest.raises(StoreError, match="somebody else writes"):
        iv.capture(model, [[5, 6]], SITES, to=other)
    store.close()
    iv.capture(model, [[5, 6]], SITES, to=other)
    assert other.n_tokens == 42


def test_a_torn_last_line_is_ignored_and_files_that_no_line_names_are_removed(tmp_path: Path) -> None:
    model = opened("gpt2", layers=2)
    store = filled(tmp_path, model)
    store.close()
    whole, last = store.sha256, store.frame()["file"].iloc[-1]
    manifest = tmp_path / "manifest"
    manifest.write_bytes(manifest.read_bytes()[:-30])
    (tmp_path / "notes.txt").write_text("mine")
    torn = iv.open_store(tmp_path)
    assert torn.generation == store.generation - 1 and (tmp_path / last).exists()
    del store
    gc.collect()
    iv.capture(model, ROWS, SITES, to=torn, batch_size=2)
    assert torn.sha256 == whole and (tmp_path / "notes.txt").read_text() == "mine"
    stray = tmp_path / f"{'0' * 12}-{'9' * 12}-{'a' * 16}.safetensors"
    stray.write_bytes(b"left by a kill")
    torn.close()
    iv.capture(model, ROWS, SITES, to=torn, batch_size=2)
    assert not stray.exists()


def test_what_stands_before_the_damage_is_kept_and_the_capture_goes_on_from_there(tmp_path: Path) -> None:
    model = opened("gpt2", layers=2)
    store = filled(tmp_path, model)
    whole, second = store.sha256, store.frame().iloc[1]
    store.close()
    shard = tmp_path / second["file"]
    read = bytearray(shard.read_bytes())
    read[-1] ^= 4
    shard.write_bytes(read)
    fresh = iv.open_store(tmp_path, shard_bytes=3000)
    with pytest.raises(StoreError, match=r"damaged.*drop_damaged"):
        fresh.read(SITES[0])
    with pytest.raises(StoreError, match=r"1 of \d+ shards are damaged"):
        fresh.verify()
    assert fresh.drop_damaged() == second["start"]
    iv.capture(model, ROWS, SITES, to=fresh, batch_size=2)
    fresh.verify()
    assert fresh.sha256 == whole


def test_a_reader_keeps_its_generation_while_others_drop_and_write(tmp_path: Path) -> None:
    model = opened("gpt2", layers=2)
    store = filled(tmp_path, model)
    store.close()
    reader = iv.open_store(tmp_path)
    manifest = tmp_path / "manifest"
    lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(lines[0] + lines[1].replace(b'"rows":', b'"rowz":') + b"".join(lines[2:]))
    with pytest.raises(StoreError, match=r"line 1 of .* is damaged"):
        iv.open_store(tmp_path)
    assert store.drop_damaged() == int(reader.frame()["stop"].iloc[0])
    assert reader.n_tokens == 40 and reader.ids().tolist() == [i for row in ROWS for i in row]
    assert reader.refresh().n_tokens == store.n_tokens


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/b.safetensors"])
def test_a_manifest_names_nothing_outside_its_folder(tmp_path: Path, name: str) -> None:
    filled(tmp_path, opened("gpt2", layers=2)).close()
    manifest = tmp_path / "manifest"
    told = json.loads(manifest.read_bytes().splitlines()[0][9:]) | {"file": name}
    body = json.dumps(told).encode()
    manifest.write_bytes(b"%08x %b\n" % (zlib.crc32(body), body))
    with pytest.raises(StoreError, match="which is no shard"):
        iv.open_store(tmp_path)


def test_a_link_in_place_of_a_shard_is_not_followed(tmp_path: Path) -> None:
    store = filled(tmp_path / "store", opened("gpt2", layers=2))
    path = tmp_path / "store" / store.frame()["file"].iloc[0]
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="cannot be read"):
        iv.open_store(tmp_path / "store").read(SITES[0])


def test_what_does_not_fit_is_refused_with_the_reason(tmp_path: Path) -> None:
    model = opened("gpt2", layers=LAYERS)
    store = filled(tmp_path, model)
    with pytest.raises(StoreError, match=r"holds .*blocks.0.resid.*; this piece has"):
        iv.capture(model, ROWS, "blocks.2.resid", to=store)
    with pytest.raises(StoreError, match="not of"):
        iv.capture(iv.open_model(torch.nn.Linear(4, 4)), torch.zeros(1, 4), "module:", to=store)
    with pytest.raises(StoreError, match="has no entry for each of the tokens"):
        iv.capture(model, [[5, 6]], "blocks.0.attn.pattern", to=iv.open_store(tmp_path / "p"))
    with pytest.raises(StoreError, match="gradients too"):
        iv.capture(model, [[5, 6]], SITES, to=iv.open_store(tmp_path / "g"), gradients_of="loss")
    with pytest.raises(StoreError, match="is not stored; stored are"):
        store.read("blocks.1.resid")
    with pytest.raises(StoreError, match="tokens 3 to 99 are not stored; 40 are"):
        store.read(SITES[0], 3, 99)
    with pytest.raises(StoreError, match="holds nothing yet"):
        next(iv.open_store(tmp_path / "none").batches(SITES[0], 4))
