"""Loading a network's weights: by the class that its config names, in the numbers and on the devices that are asked for."""

import contextlib
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import torch
import transformers
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSpeechSeq2Seq,
    PreTrainedModel,
)
from transformers.utils import logging

from innerview.bundled import bundled_names
from innerview.errors import ModelError

# Asked in this order where a config does not name its class.
AUTO: tuple[Any, ...] = (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForImageTextToText,
    AutoModelForSpeechSeq2Seq,
)


def load_module(source: str, folder: str, dtype: torch.dtype | None, device_map: Any) -> nn.Module:
    """The network in a folder or of a hub id. Code that comes with weights is never run.

    Args:
        source: What the user named, for messages.
        folder: Where the files are.
        dtype: Numbers of the weights; as stored when None, except float16 on a CPU, which becomes float32.
        device_map: How to spread the weights over devices.
    Raises:
        ModelError: Its files cannot be read, or a package that it needs is missing.
    """
    if device_map is not None and find_spec("accelerate") is None:
        raise ModelError(
            f"device_map={device_map!r} needs the package accelerate, which is not installed; pip install accelerate, or use device="
        )
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        _check_quantized(source, config)
        with _quietly(source in bundled_names()):
            module = class_of(config).from_pretrained(
                folder, config=config, dtype=dtype or "auto", device_map=device_map, trust_remote_code=False
            )
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
        raise ModelError(
            f"model {source!r} could not be opened: {reason}. "
            f"Bundled are {', '.join(bundled_names())}; else give a folder with config.json and weights, a hub id, or a module"
        ) from error
    # Half precision is emulated on a CPU: slow, and several kernels lack it.
    is_slow = dtype is None and module.dtype == torch.float16 and module.device.type == "cpu"
    return module.float() if is_slow and device_map is None else module


def class_of(config: Any) -> Any:
    """The class that loads a config's weights: the one it names, else the first kind of network that there is for it."""
    for name in getattr(config, "architectures", None) or ():
        named = getattr(transformers, name, None)
        if (
            isinstance(named, type)
            and issubclass(named, PreTrainedModel)
            and named.config_class in (type(config), None)
        ):
            return named
    return next((auto for auto in AUTO if type(config) in auto._model_mapping), AutoModel)


def _check_quantized(source: str, config: Any) -> None:
    """Refuse weights quantised by bitsandbytes where it is missing.

    Raises:
        ModelError: It is.
    """
    settings = getattr(config, "quantization_config", None) or {}
    method = settings.get("quant_method") if isinstance(settings, dict) else getattr(settings, "quant_method", None)
    if str(getattr(method, "value", method)) == "bitsandbytes" and find_spec("bitsandbytes") is None:
        raise ModelError(
            f"the weights of {source!r} are quantised by bitsandbytes, which is not installed; "
            "pip install bitsandbytes accelerate, or open the network's weights in half precision"
        )


@contextlib.contextmanager
def _quietly(is_small: bool) -> Iterator[None]:
    """No progress bar for weights that load in an instant."""
    was_shown = logging.is_progress_bar_enabled()
    if is_small:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if is_small and was_shown:
            logging.enable_progress_bar()
