"""Rows 15 and 17 to 19 of the reliability scoreboard: dictionaries' files that lost something, are damaged, or mean harm."""

import copy
import io
import json
import os
import pickle
import random
import resource
import shutil
import struct
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import innerview as iv
from tests.dictionaries.published import WRITERS, D, Written, cross_layer, rows, saelens_temporal, temporal

ALL = {**WRITERS, "cross_layer": cross_layer, "temporal": temporal, "saelens_temporal": saelens_temporal}
SLACK = 48 << 20


def codes_of(folder: Path, load: dict[str, Any] | None = None) -> Tensor:
    """The codes of what lies in a folder, of the first layer where there are several."""
    made = iv.load_dictionary(folder, **(load or {}))
    if isinstance(made, iv.CrossLayerTranscoder):
        return made.encode([rows()] * made.n_layers)[0].dense()
    return made.encode(rows().view(4, -1, D) if isinstance(made, iv.TemporalSAE) else rows()).dense()


# Row 15: a field missing or changed.

# Thresholds of circuit-tracer are the format's only sign of JumpReLU; the config says it in these files.
Mutation = tuple[str, str, Callable[[Written], None]]


def fields_of(config: Any, trail: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every field of a config, those inside too."""
    for key, value in config.items():
        yield (*trail, key)
        if isinstance(value, dict):
            yield from fields_of(value, (*trail, key))


def within(config: Any, trail: tuple[Any, ...]) -> Any:
    for key in trail:
        config = config[key]
    return config


def other_type(value: Any) -> Any:
    """A value of another type."""
    if isinstance(value, str):
        return 7
    return {"not": "this"} if not isinstance(value, dict) else "nothing inside"


def mutations(name: str) -> list[Mutation]:
    """What can be lost or changed in a format: each field, each tensor."""
    written, made = ALL[name](), []
    for file, config in written.configs.items():
        for trail in fields_of(config):
            made.append((name, str(trail[-1]), lambda w, f=file, t=trail: within(w.configs[f], t[:-1]).pop(t[-1])))
            made.append((name, str(trail[-1]), lambda w, f=file, t=trail: _retyped(w.configs[f], t)))
    for file, tensors in written.tensors.items():
        for key in tensors:
            for change in (_removed, _renamed, _longer, _turned, _integral):
                made.append((name, key, lambda w, f=file, k=key, c=change: c(w.tensors[f], k)))
    return made


def _retyped(config: Any, trail: tuple[Any, ...]) -> None:
    inside = within(config, trail[:-1])
    inside[trail[-1]] = other_type(inside[trail[-1]])


def _removed(tensors: dict[str, Any], key: str) -> None:
    del tensors[key]


def _renamed(tensors: dict[str, Any], key: str) -> None:
    tensors[f"{key}_"] = tensors.pop(key)


def _longer(tensors: dict[str, Any], key: str) -> None:
    one = tensors[key]
    tensors[key] = torch.cat([one.reshape(-1), one.reshape(-1)[:1]]) if isinstance(one, Tensor) else [one]


def _turned(tensors: dict[str, Any], key: str) -> None:
    one = tensors[key]
    tensors[key] = one.unsqueeze(0) if isinstance(one, Tensor) else {"a": one}


def _integral(tensors: dict[str, Any], key: str) -> None:
    one = tensors[key]
    tensors[key] = (one * 100).to(torch.int64) if isinstance(one, Tensor) else None


def row_15(count: int) -> None:
    """A dictionary's file with a field missing or changed: refused with the field named, or the codes are what they were."""
    every = [one for name in ALL for one in mutations(name)]
    chosen = every if count >= len(every) else random.Random(15).sample(every, count)
    plain: dict[str, Tensor] = {}
    for nth, (name, key, change) in enumerate(chosen):
        with tempfile.TemporaryDirectory() as place:
            if name not in plain:
                plain[name] = codes_of(ALL[name]().write(Path(place) / "plain"))
            written = copy.deepcopy(ALL[name]())
            change(written)
            said = f"{nth}: {name}, {key}"
            found, message = tried(written.write(Path(place) / "changed"))
            # What lies in a dict inside is named with what it lies in.
            is_named = key in message or any(part in message for part in key.split("."))
            assert is_named if found is None else torch.equal(found, plain[name]), f"{said}: {message}"


def tried(folder: Path) -> tuple[Tensor | None, str]:
    """The codes of a folder, or why there are none."""
    try:
        return codes_of(folder), ""
    except iv.DictionaryError as error:
        return None, str(error)


# Row 17: damaged files.


def flipped(raw: bytes, drawn: random.Random) -> bytes:
    """Some bytes changed, the head's among them."""
    made = bytearray(raw)
    for _ in range(drawn.randrange(1, 12)):
        at = drawn.randrange(min(len(made), 400)) if drawn.random() < 0.6 else drawn.randrange(len(made))
        made[at] = drawn.randrange(256)
    return bytes(made)


def cut(raw: bytes, drawn: random.Random) -> bytes:
    """The front, the end, or the middle taken out."""
    at = drawn.randrange(len(raw))
    return drawn.choice([raw[:at], raw[at:], raw[: at // 2] + raw[at:], raw + raw[:at], b""])


def lying(raw: bytes, drawn: random.Random) -> bytes:
    """A head that announces more than there is."""
    head = drawn.choice([
        {"W_enc": {"dtype": "F32", "shape": [1 << 31, 1 << 10], "data_offsets": [0, 1 << 43]}},
        {"W_enc": {"dtype": "F32", "shape": [12, 40], "data_offsets": [0, 1 << 40]}},
        {"W_enc": {"dtype": "F32", "shape": [-1, 40], "data_offsets": [0, 1920]}},
        {"W_enc": {"dtype": "F32", "shape": [1 << 62, 4], "data_offsets": [0, 0]}},
        {"W_enc": {"dtype": "F32", "shape": [12, 40], "data_offsets": [1920, 0]}},
        {f"t{i}": {"dtype": "F32", "shape": [480], "data_offsets": [0, 1920]} for i in range(300)},
        [[[]]], {"__metadata__": {"a": 1}}, {},
    ])  # fmt: skip
    text = json.dumps(head).encode()
    size = drawn.choice([len(text), len(text), 1 << 62, 0, len(raw) * 2])
    return struct.pack("<Q", size) + text + bytes(1920)


def bomb(_: bytes, drawn: random.Random) -> bytes:
    """An archive that unpacks to a gigabyte, or says that it holds arrays that it does not."""
    kind, into = drawn.randrange(4), io.BytesIO()
    with zipfile.ZipFile(into, "w", zipfile.ZIP_DEFLATED if kind < 2 else zipfile.ZIP_STORED) as archive:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 14, 1 << 14)}
        )
        if kind == 0:
            with archive.open("W_enc.npy", "w", force_zip64=True) as stream:
                stream.write(header.getvalue())
                for _ in range(160):
                    stream.write(bytes(1 << 20))
        elif kind == 1:
            for nth in range(40):
                archive.writestr(f"archive/data/{nth}", bytes(1 << 20))
            archive.writestr("archive/data.pkl", bytes(1 << 22))
        elif kind == 2:
            archive.writestr("W_enc.npy", header.getvalue() + bytes(64))
        else:
            for nth in range(1500):
                archive.writestr(f"{nth}.npy", b"x")
    return into.getvalue()


def big_pickle(_: bytes, drawn: random.Random) -> bytes:
    """A `.pt` whose plan would make memory: counts, arrays of bytes, tensors that stretch one number."""
    bodies = [
        b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
        b"\x80\x02}r\xff\xff\xff\xff.",
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".",
        b"\x80\x02ctorch\nzeros\nJ\xff\xff\xff\x7f\x85R.",
        b"\x80\x04" + b"(" * 200_000 + b".",
        b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
        b"\x80\x02\x8a\xff" + b"\x7f" * 255 + b".",
    ]
    stretched = torch.zeros(1).expand(1 << 20, 1 << 12)
    if drawn.random() < 0.3:
        held = io.BytesIO()
        torch.save({"encoder_linear.weight": stretched}, held)
        return held.getvalue()
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", drawn.choice(bodies))
        archive.writestr("archive/version", "3\n")
    return into.getvalue()


def odd_config(raw: bytes, drawn: random.Random) -> bytes:
    """A config that is deep, huge, wide, or no text."""
    return drawn.choice([
        b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe" + raw, b"{" + b'"d_in": 12,' * 2000 + b'"d_sae": 1e999}', b"9" * 10_000,
        b'{"d_in": NaN}', b"a: &a [x]\nb: &b [*a,*a]\nc: [*b,*b,*b]\n", b"? " * 5000, b"- " * 20_000, bytes(5 << 20),
        b'{"d_in": ' + b"9" * 5000 + b"}", b"!!python/object/apply:os.system ['true']", b'{"_target_": "os.system"}',
    ])  # fmt: skip


def row_17(count: int) -> None:
    """Damaged safetensors, npz, json, yaml and pt: a typed error, nothing run, memory below twice the file, under five seconds."""
    drawn, names = random.Random(17), sorted(ALL)
    for nth in range(count):
        with tempfile.TemporaryDirectory() as place:
            written = ALL[names[nth % len(names)]]()
            folder = written.write(Path(place))
            file = drawn.choice([*written.configs, *written.tensors, *written.tensors])
            path = folder / file
            ways: list[Any] = [flipped, flipped, cut]
            ways += {".npz": [bomb], ".safetensors": [lying], ".json": [odd_config], ".yaml": [odd_config]}.get(
                path.suffix, [bomb, big_pickle]
            )
            path.write_bytes(drawn.choice(ways)(path.read_bytes(), drawn))
            size, before, began = path.stat().st_size, peak_bytes(), time.monotonic()
            found, message = tried(folder)
            assert found is not None or len(message) > 10
            assert time.monotonic() - began < 5, f"{nth}: {file} took {time.monotonic() - began:.1f} s"
            assert peak_bytes() - before < 2 * size + SLACK, f"{nth}: {file} took {peak_bytes() - before} bytes"


def peak_bytes() -> int:
    """The most memory that this process had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# Row 18: pickles and configs that carry code.


class Act:
    """Leaves a file where it is unpickled."""

    def __init__(self, call: Any, *given: Any) -> None:
        self.call, self.given = call, given

    def __reduce__(self) -> Any:
        return self.call, self.given


def payloads(mark: Path) -> list[Any]:
    """Things that act when they are unpickled."""
    code = f"open({str(mark)!r}, 'w')"
    return [
        Act(os.system, f"touch {mark}"), Act(eval, code), Act(exec, code), Act(open, str(mark), "w"), Act(os.mkdir, str(mark)),
        Act(shutil.copy, __file__, str(mark)), Act(torch.hub.load_state_dict_from_url, f"file://{mark}"), Act(getattr, Act, "__reduce__"),
        Act(__import__, "antigravity"), Act(torch.save, torch.zeros(1), str(mark)),
    ]  # fmt: skip


def row_18(count: int) -> None:
    """Pickles and configs that carry code: refused, and nothing is executed."""
    for nth in range(count):
        with tempfile.TemporaryDirectory() as place:
            mark, root = Path(place) / "acted", Path(place)
            acts = payloads(mark)
            act = acts[nth % len(acts)]
            way = nth // len(acts) % 6
            if way == 0:
                folder = WRITERS["learned_relu"]().write(root)
                torch.save({"encoder.weight": act, "bias": torch.zeros(3)}, folder / "ae.pt")
            elif way == 1:
                folder = WRITERS["goodfire"]().write(root)
                (folder / "Llama-3.1-8B-Instruct-SAE-l19.pth").write_bytes(pickle.dumps(act))
            elif way == 2:
                folder = WRITERS["gemma_scope"]().write(root)
                with open(folder / "params.npz", "wb") as stream:
                    np.savez(stream, W_enc=np.array([act], dtype=object))
            elif way == 3:
                folder = WRITERS["tracer_relu"]().write(root)
                said = f"!!python/object/apply:os.system ['touch {mark}']"
                (folder / "config.yaml").write_text(f"model_name: {said}\nfeature_input_hook: hook_resid_mid\n")
            elif way == 4:
                folder = WRITERS["saelens_standard"]().write(root)
                config = json.loads((folder / "cfg.json").read_text())
                config |= {"auto_map": {"AutoModel": f"os.system--touch {mark}"}, "_target_": "os.system"}
                (folder / "cfg.json").write_text(json.dumps(config))
            else:
                folder = WRITERS["openai_topk"]().write(root)
                whole = torch.load(folder / "8.pt", weights_only=True)
                torch.save({**whole, "activation": act}, folder / "8.pt")
            refused(folder)
            assert not mark.exists(), f"{nth}: {act.call} was called"


def refused(*given: Any) -> None:
    """Check that a source is refused."""
    try:
        iv.load_dictionary(*given)
    except iv.DictionaryError:
        return
    raise AssertionError(f"{given} was read")


# Row 19: names and links that lead out.


def row_19(count: int) -> None:
    """Names with `..`, links and special files: only regular files inside the folder are read."""
    names = sorted(ALL)
    for nth in range(count):
        with tempfile.TemporaryDirectory() as place:
            written = ALL[names[nth % len(names)]]()
            folder = written.write(Path(place) / "inside")
            files = [*written.configs, *written.tensors]
            path = folder / files[nth // len(names) % len(files)]
            elsewhere = Path(place) / "elsewhere"
            shutil.move(path, elsewhere)
            way = nth % 7
            if way == 0:
                path.symlink_to(elsewhere)
            elif way == 1:
                path.symlink_to(os.path.relpath(elsewhere, path.parent))
            elif way == 2:
                os.mkfifo(path)
            elif way == 3:
                path.mkdir()
            elif way == 4:
                path.symlink_to("/dev/zero")
            elif way == 5:
                path.symlink_to(path.name)
            else:
                # A folder that leads out, with the right name in it.
                shutil.move(elsewhere, Path(place) / path.name)
                shutil.rmtree(folder)
                folder.symlink_to(Path(place) / "nowhere")
            # One file of three layers may be missed without a loss only where it was no field.
            refused(folder)
            refused(Path(place) / "inside", "../elsewhere")
