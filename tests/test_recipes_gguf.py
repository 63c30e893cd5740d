"""Control vectors of llama.cpp: written so that its own reader takes them, read back, and refused where they are damaged."""

import struct
from pathlib import Path
from typing import Any

import pytest
import torch

import innerview as iv
from innerview.errors import RecipeError
from innerview.recipes.gguf import written_gguf
from tests.networks import direction, ids, opened

D, E = direction("blocks.1.resid"), direction("blocks.2.resid", seed=1)


def test_a_control_vector_comes_back_as_the_same_additions(tmp_path: Path) -> None:
    model, x = opened("llama"), ids(2, 5)
    edits = [
        iv.Add(D, 0.5),
        iv.Add(E, -2.0, unit="raw"),
        iv.Add(E, 0.1, unit="residual", site="blocks.1.hook_resid_post"),
    ]
    path = iv.Recipe(edits).to_gguf(tmp_path / "mood.gguf", model)
    again = iv.Recipe.from_gguf(path)
    assert [(e.site, e.coefficient) for e in again.edits] == [("blocks.1.resid", 1.0), ("blocks.2.resid", 1.0)]  # type: ignore[attr-defined]
    assert again.model_name == "llama" and again.edits[0].direction.name == "mood 1"  # type: ignore[attr-defined]
    live = iv.capture(model, x, "logits", edits=edits)["logits"]
    assert torch.allclose(iv.capture(model, x, "logits", edits=again.edits)["logits"], live, atol=1e-4)


def test_what_several_edits_add_behind_one_block_is_summed_wildcards_among_them(tmp_path: Path) -> None:
    model = opened("gpt2")
    edits = [iv.Add(D, 1.0, site="blocks.1*.resid"), iv.Add(D, 1.0), iv.Add(E, 0.5), iv.Add(E, 0.25)]
    iv.Recipe(edits).to_gguf(tmp_path / "v", model)
    found = {e.site: e for e in iv.Recipe.from_gguf(tmp_path / "v").edits}
    one = found["blocks.1.resid"].direction  # type: ignore[attr-defined]
    assert set(found) == {"blocks.1.resid", "blocks.2.resid"} and one.scale == pytest.approx(80.0)
    assert torch.allclose(one.vector, D.vector, atol=1e-6)


def test_the_file_is_laid_out_as_the_format_says(tmp_path: Path) -> None:
    raw = written_gguf({3: torch.arange(5.0), 1: torch.ones(5)}, "llama")
    assert raw[:4] == b"GGUF" and struct.unpack_from("<IQQ", raw, 4) == (3, 2, 3)
    # 32 bytes each: 5 numbers of 4 bytes and what fills them up.
    assert len(raw) % 32 == 0 and struct.unpack_from("<5f", raw, len(raw) - 64) == (1.0,) * 5
    assert struct.unpack_from("<5f", raw, len(raw) - 32) == (0.0, 1.0, 2.0, 3.0, 4.0)
    for text in (
        b"general.architecture",
        b"controlvector",
        b"controlvector.model_hint",
        b"controlvector.layer_count",
        b"direction.3",
    ):
        assert struct.pack("<Q", len(text)) + text in raw


def test_llama_cpps_own_package_reads_what_is_written_and_writes_what_is_read(tmp_path: Path) -> None:
    gguf: Any = pytest.importorskip("gguf", reason="llama.cpp's own package is not installed here")
    iv.Recipe([iv.Add(D, 0.5), iv.Add(E)], "some").to_gguf(tmp_path / "ours.gguf", model_hint="qwen2")
    reader = gguf.GGUFReader(tmp_path / "ours.gguf")
    told = {name: field.contents() for name, field in reader.fields.items()}
    assert told["general.architecture"] == "controlvector" and told["controlvector.model_hint"] == "qwen2"
    assert told["controlvector.layer_count"] == 2
    tensors = {t.name: torch.tensor(t.data) for t in reader.tensors}
    assert set(tensors) == {"direction.1", "direction.2"}
    assert torch.allclose(tensors["direction.1"], D.vector * 20.0) and tensors["direction.2"].dtype == torch.float32

    writer = gguf.GGUFWriter(tmp_path / "theirs.gguf", "controlvector")
    writer.add_string("controlvector.model_hint", "mistral")
    writer.add_uint32("controlvector.layer_count", 2)
    writer.add_array("general.tags", ["a", "b"])
    for layer in (1, 7):
        writer.add_tensor(f"direction.{layer}", (E.vector * layer).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    again = iv.Recipe.from_gguf(tmp_path / "theirs.gguf")
    assert again.model_name == "mistral" and [e.site for e in again.edits] == ["blocks.1.resid", "blocks.7.resid"]
    assert again.edits[1].direction.scale == pytest.approx(7.0)  # type: ignore[attr-defined]


def test_the_layers_of_both_are_counted_alike() -> None:
    """llama.cpp adds `direction.N` behind the block that it calls N from 0, which is what enters block N + 1 of transformers."""
    model, x = opened("llama"), ids(1, 4)
    plain = iv.capture(model, x, "blocks.*.resid_in").stack("blocks.*.resid_in")
    found = iv.capture(model, x, "blocks.*.resid_in", edits=[iv.Add(D)]).stack("blocks.*.resid_in")
    assert torch.equal(found[:2], plain[:2])
    assert torch.allclose(found[2] - plain[2], (D.vector * 40.0).expand(1, 4, 32), atol=1e-4)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            iv.ProjectOut(D),
            r"ProjectOut is no addition, and llama.cpp adds one vector behind a block to every token; save a",
        ),
        (iv.Scale(2.0, D), r"Scale is no addition"),
        (iv.Add(D, [1.0, 2.0]), r"it has a coefficient for each row"),
        (iv.Add(D, where=iv.Where(positions=0)), r"it applies to certain tokens, steps or conditions"),
        (iv.Add(D, where=iv.Where(schedule=iv.Ramp(3))), r"it applies to certain tokens, steps or conditions"),
        (iv.Add(D, where=iv.Where(condition=D.reading() > 1)), r"it applies to certain tokens, steps or conditions"),
        (iv.Add(D, neurons=3), r"it applies to certain heads or neurons"),
        (iv.Add(D, site="blocks.0.resid"), r"llama.cpp adds nothing behind block 0; add from 'blocks.1.resid' on"),
        (iv.Add(D, site="blocks.*.resid"), r"'blocks.\*.resid' is not what leaves a block; give model= for wildcards"),
        (iv.Add(D, site="blocks.1.mlp.out"), r"'blocks.1.mlp.out' is not what leaves a block"),
    ],
)
def test_what_does_not_fit_the_format_is_refused_with_the_reason(tmp_path: Path, edit: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        iv.Recipe([edit]).to_gguf(tmp_path / "v.gguf")
    assert not list(tmp_path.iterdir())


def test_wildcards_that_include_block_0_and_recipes_of_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"adds nothing behind block 0"):
        iv.Recipe([iv.Add(D, site="blocks.*.resid")]).to_gguf(tmp_path / "v", opened("gpt2"))
    with pytest.raises(RecipeError, match=r"a control vector without additions says nothing"):
        iv.Recipe([]).to_gguf(tmp_path / "v")
    with pytest.raises(RecipeError, match=r"no control vector can be written to .*give a file"):
        iv.Recipe([iv.Add(D)]).to_gguf(tmp_path / "none" / "v")
    with pytest.raises(RecipeError, match=r"7 numbers, where another edit adds 32"):
        iv.Recipe([iv.Add(D), iv.Add(direction(width=7))]).to_gguf(tmp_path / "v")


GOOD = written_gguf({1: torch.ones(4), 2: torch.ones(4)}, "llama")


def _told(
    name: str, sizes: tuple[int, ...] = (4,), kind: int = 0, offset: int = 0, architecture: bytes = b"controlvector"
) -> bytes:
    """A file of one tensor that says this about itself."""

    def text(raw: bytes) -> bytes:
        return struct.pack("<Q", len(raw)) + raw

    head = (
        b"GGUF"
        + struct.pack("<IQQ", 3, 1, 1)
        + text(b"general.architecture")
        + struct.pack("<I", 8)
        + text(architecture)
    )
    head += text(name.encode()) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset)
    return head + bytes(-len(head) % 32) + struct.pack("<8f", *range(8))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", r"it ends at byte 0, where 4 more are announced"),
        (b"JUNK" + GOOD[4:], r"it does not begin with GGUF"),
        (GOOD[:4] + struct.pack("<I", 9) + GOOD[8:], r"it has version 9, and 2 and 3 are known"),
        (GOOD[:-40], r"it ends at byte"),
        (GOOD[:8] + struct.pack("<Q", 2**60) + GOOD[16:], r"no control vector in"),
        (GOOD[:24] + struct.pack("<Q", 2**62) + GOOD[32:], r"where 4611686018427387904 more are announced"),
        (_told("direction.1", architecture=b"llama"), r"its general.architecture is 'llama', not 'controlvector'"),
        (_told("direction.0"), r"its tensor 'direction.0' is no direction.N with N from 1"),
        (_told("blk.0.attn_q"), r"its tensor 'blk.0.attn_q' is no direction.N"),
        (
            _told("direction.1", (2, 2)),
            r"direction.1 has the shape \[2, 2\] and type 0; it takes \[d_model\] of float32",
        ),
        (_told("direction.1", kind=8), r"and type 8; it takes \[d_model\] of float32 or float16"),
        (_told("direction.1", (2**40,)), r"before 1099511627776 numbers"),
        (_told("direction.1", offset=2**60), r"it ends at byte"),
        (_told("direction.1", (0,)), r"before 0 numbers"),
        (written_gguf({1: torch.ones(4), 2: torch.ones(5)}, ""), r"not one direction a block, all of one width"),
        (written_gguf({}, ""), r"not one direction a block"),
    ],
)
def test_a_damaged_file_is_refused_in_words(tmp_path: Path, raw: bytes, message: str) -> None:
    path = tmp_path / "v.gguf"
    path.write_bytes(raw)
    with pytest.raises(RecipeError, match=message):
        iv.Recipe.from_gguf(path)


def test_every_cut_and_every_flipped_byte_is_an_error_or_a_control_vector(tmp_path: Path) -> None:
    path, kept, refused = tmp_path / "v.gguf", 0, 0
    for at in range(len(GOOD)):
        for raw in (GOOD[:at], GOOD[:at] + bytes([GOOD[at] ^ 0xFF]) + GOOD[at + 1 :]):
            path.write_bytes(raw)
            try:
                kept += isinstance(iv.Recipe.from_gguf(path), iv.Recipe)
            except RecipeError:
                refused += 1
    # Anything else that is raised ends the test.
    assert refused > len(GOOD) and kept > 0 and refused + kept == 2 * len(GOOD)


def test_vectors_of_nothing_are_left_out_and_infinite_ones_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.gguf"
    path.write_bytes(written_gguf({1: torch.zeros(4), 2: torch.ones(4)}, ""))
    assert [e.site for e in iv.Recipe.from_gguf(path).edits] == ["blocks.2.resid"]
    path.write_bytes(written_gguf({1: torch.full((4,), torch.inf)}, ""))
    with pytest.raises(RecipeError, match=r"direction.1: .*NaN or infinity"):
        iv.Recipe.from_gguf(path)
    with pytest.raises(RecipeError, match=r"no control vector in .*missing"):
        iv.Recipe.from_gguf(tmp_path / "missing.gguf")
