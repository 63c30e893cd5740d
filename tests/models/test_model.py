"""Opening networks, and the table of their sites: names, aliases, wildcards, paths."""

from pathlib import Path

import pytest
import torch

import innerview as iv
from innerview.errors import ModelError, SiteError
from innerview.models import text
from tests.networks import FAMILIES, ids, module, opened, tokenizer, toy


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> iv.Model:
    return opened(request.param)


def test_an_opened_network_tells_its_sizes(model: iv.Model) -> None:
    assert (model.n_layers, model.d_model, model.vocab, model.context, model.has_chat) == (3, 32, 67, 72, True)
    assert iv.open_model(model) is model
    assert iv.open_model(model.module).lock is model.lock


def test_the_table_lists_every_site_in_the_order_in_which_they_fire(model: iv.Model) -> None:
    table = model.sites()
    assert list(table.columns) == ["layer", "module", "side", "shape"] and table.index.is_unique
    order = [name for name in table.index if not model.site(name).is_eager]
    fired: list[str] = []
    names = [n for n in order if n not in ("blocks.0.resid_in",)]
    for name in names:
        fired.append(iv.capture(model, ids(1, 3), name).sites[0])
    assert fired == names
    assert (
        table.loc["blocks.1.resid", "shape"] == "[batch, pos, d_model=32]"
        and table.loc["logits", "shape"] == "[batch, pos, vocab=67]"
    )


def test_wildcards_match_layers(model: iv.Model) -> None:
    assert [s.name for s in model.expand("blocks.*.resid")] == ["blocks.0.resid", "blocks.1.resid", "blocks.2.resid"]
    with pytest.raises(
        SiteError, match=r"'blocks.\*.resid' names 3 sites of .*; one is needed here, such as 'blocks.2.resid'"
    ):
        model.site("blocks.*.resid")
    with pytest.raises(SiteError, match=r"nearest is"):
        model.expand("blocks.*.residual_stream")


def test_module_paths_are_sites() -> None:
    model = iv.open_model(toy("tensor"))
    assert [model.site(n).point for n in ("module:first", "first", "first.linear@input")] == [
        ("first", "output"), ("first", "output"), ("first.linear", "input"),
    ]  # fmt: skip
    with pytest.raises(SiteError, match=r"no site 'module:frst' in Toy; nearest is 'module:first'; .*module:<path>"):
        model.site("module:frst")
    with pytest.raises(SiteError, match=r"no site 'first@middle'"):
        model.site("first@middle")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pockte", r"no model 'pockte'.*did you mean 'pocket'"),
        ("/no/such/folder", r"no model '/no/such/folder': there is no such folder; bundled are .*pocket"),
        ("", r"no model ''"),
        ("a/b/c", r"no model 'a/b/c': there is no such folder"),
    ],
)
def test_an_unknown_model_is_refused_with_the_bundled_names(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        iv.open_model(name)


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(
        ModelError, match=r"cannot open 7 of type int; give a bundled name, a folder, a hub id or a torch.nn.Module"
    ):
        iv.open_model(7)


def test_a_folder_is_opened_with_its_tokenizer(tmp_path: Path) -> None:
    module("llama").save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    assert iv.open_model(tmp_path, dtype=torch.bfloat16).module.dtype == torch.bfloat16
    model = iv.open_model(tmp_path)
    assert model.module.dtype == torch.float32 and model.family.name == "llama" and model.has_chat
    x = ids(1, 5)
    wanted = iv.capture(opened("llama"), x, "logits")["logits"]
    assert torch.equal(iv.capture(model, x, "logits")["logits"], wanted)


def test_a_folder_that_holds_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"could not be opened: Unrecognized model"):
        iv.open_model(tmp_path)


def test_words_of_a_byte_level_vocabulary_show_the_bytes_that_are_no_text() -> None:
    table = text._byte_of_char()
    assert len(table) == 256 and sorted(table.values()) == list(range(256))
    assert table["Ġ"] == 32 and table["a"] == 97 and table["Ċ"] == 10


def test_the_continuation_is_decoded_behind_its_prompt(model: iv.Model) -> None:
    assert text.decode(model, [8, 9], after=[5]) == " w5 w6"
    assert text.decode(model, [8, 9]) == "w5 w6"


def test_rows_are_padded_on_the_side_that_is_asked_for() -> None:
    left, right = (text.pad([[5], [6, 7, 8]], 0, is_single=False, pad_left=side) for side in (True, False))
    assert left.ids.tolist() == [[0, 0, 5], [6, 7, 8]] and left.left_pad.tolist() == [2, 0]
    assert right.ids.tolist() == [[5, 0, 0], [6, 7, 8]] and right.left_pad.tolist() == [0, 0]
    assert left.lengths.tolist() == right.lengths.tolist() == [1, 3] and left.rows() == [[5], [6, 7, 8]]
