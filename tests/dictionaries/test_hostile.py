"""Files that mean harm, each told for what it is; the rows of the scoreboard draw many more."""

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import innerview as iv
from tests.dictionaries.published import WRITERS


def pickled(body: bytes, path: Path) -> None:
    """A `.pt` with a plan of one's own."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", body)


@pytest.mark.parametrize(("body", "told"), [
    (b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.", r"builtins.bytearray, which is code and no tensor; it is not run"),
    (b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.", r"os.system, which is code"),
    (b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".", r"is no sound file of torch"),
    (b"\x80\x02}r\xff\xff\xff\x7f.", r"a pickle that counts wrongly"),
    (b"\x80\x02]\x81.", r"does more than tell tensors \(NEWOBJ\)"),
    (b"\x80\x02K\x05.", r"holds a int, and tensors by name are read"),
])  # fmt: skip
def test_a_pickle_that_does_more_than_tell_tensors_is_refused(body: bytes, told: str, tmp_path: Path) -> None:
    pickled(body, tmp_path / "some.pt")
    with pytest.raises(iv.DictionaryError, match=told):
        iv.load_dictionary(tmp_path / "some.pt")


def test_a_tensor_that_stretches_one_number_is_refused_before_it_is_made(tmp_path: Path) -> None:
    torch.save({"encoder_linear.weight": torch.zeros(1).expand(1 << 20, 1 << 14)}, tmp_path / "some.pt")
    with pytest.raises(
        iv.DictionaryError, match=r"announces a tensor of shape \[1048576, 16384\] in a storage of 1 numbers"
    ):
        iv.load_dictionary(tmp_path / "some.pt")


def test_a_plain_pickle_is_refused_with_the_way_out(tmp_path: Path) -> None:
    torch.save({"pre_bias": torch.zeros(3)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(
        iv.DictionaryError,
        match=r"is no zip archive, as torch saves since 1.6; load it where you trust it, and save it anew",
    ):
        iv.load_dictionary(tmp_path / "old.pt")


def test_an_archive_that_unpacks_to_more_than_twice_its_size_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "params.npz", W_enc=np.zeros((256, 4096), dtype=np.float32))
    with pytest.raises(iv.DictionaryError, match=r"would unpack to \d+; more than twice is refused"):
        iv.load_dictionary(tmp_path)


def test_an_array_in_the_other_order_of_its_axes_is_read_rightly(tmp_path: Path) -> None:
    written = WRITERS["gemma_scope"]()
    folder = written.write(tmp_path)
    plain = iv.load_dictionary(folder)
    arrays = {key: np.asfortranarray(one.numpy()) for key, one in written.tensors["params.npz"].items()}
    np.savez(folder / "params.npz", **arrays)
    assert torch.equal(iv.load_dictionary(folder).weights.encoder, plain.weights.encoder)


def test_a_flipped_number_in_an_archive_is_found_by_its_checksum(tmp_path: Path) -> None:
    folder = WRITERS["gemma_scope"]().write(tmp_path)
    raw = bytearray((folder / "params.npz").read_bytes())
    raw[400] ^= 1
    (folder / "params.npz").write_bytes(bytes(raw))
    with pytest.raises(iv.DictionaryError, match="Bad CRC-32"):
        iv.load_dictionary(folder)


@pytest.mark.parametrize("body", ["a: &x [1]\nb: *x\n", "a: !!python/name:os.system\n", "a:\n  <<: &b {c: 1}\n"])
def test_yaml_with_more_than_plain_values_is_refused(body: str, tmp_path: Path) -> None:
    folder = WRITERS["tracer_relu"]().write(tmp_path)
    (folder / "config.yaml").write_text(body)
    with pytest.raises(
        iv.DictionaryError, match=r"has tags, anchors or nesting \(line \d\), and plain values are read"
    ):
        iv.load_dictionary(folder)


def test_a_config_that_names_code_is_refused(tmp_path: Path) -> None:
    folder = WRITERS["saelens_standard"]().write(tmp_path)
    (folder / "cfg.json").write_text('{"auto_map": {"AutoModel": "own.Code"}}')
    with pytest.raises(iv.DictionaryError, match="auto_map tells a library to run code"):
        iv.load_dictionary(folder)


def test_a_link_that_leads_out_is_refused_with_where_it_leads(tmp_path: Path) -> None:
    folder = WRITERS["saelens_standard"]().write(tmp_path)
    (folder / "cfg.json").rename(tmp_path / "outside.json")
    (folder / "cfg.json").symlink_to(tmp_path / "outside.json")
    with pytest.raises(
        iv.DictionaryError, match=r"'cfg.json' in .* leads out of it, to '.*outside.json'; copy the file there"
    ):
        iv.load_dictionary(folder)


def test_an_npz_of_objects_is_refused(tmp_path: Path) -> None:
    held = io.BytesIO()
    np.savez(held, W_enc=np.array([{"a": 1}], dtype=object))
    (tmp_path / "params.npz").write_bytes(held.getvalue())
    with pytest.raises(iv.DictionaryError, match=r"W_enc.npy holds object, and plain numbers are read"):
        iv.load_dictionary(tmp_path)
