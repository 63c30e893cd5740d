"""Temporal SAEs in SAELens' own format, and its objects of them."""

from innerview.dictionaries.loaders.fields import Fields
from innerview.dictionaries.loaders.format import Source
from innerview.dictionaries.loaders.names import site_of
from innerview.dictionaries.loaders.temporal_sae import attention, kept
from innerview.dictionaries.loaders.tensors import Tensors
from innerview.dictionaries.manifest import Manifest, Normalisation
from innerview.dictionaries.temporal import TemporalSAE
from innerview.errors import DictionaryError


def build(source: Source, fields: Fields, tensors: Tensors, bos: str) -> TemporalSAE:
    """The temporal SAE of a config and tensors.

    Raises:
        DictionaryError: They do not fit, or the config is of a kind that is not trained so.
    """
    about = fields.inner("metadata")
    n, d = fields.whole("d_sae"), fields.whole("d_in")
    if not fields.flag("apply_b_dec_to_input"):
        raise DictionaryError(f"{fields.where}: apply_b_dec_to_input is true for temporal SAEs, not false")
    normalised = fields.text("normalize_activations", among=("none", "constant_scalar_rescale"))
    factor = fields.number("activation_normalization_factor", above=0) if normalised != "none" else 1.0
    decoder = tensors.take("W_dec", n, d)
    encoder = decoder.clone() if fields.flag("tied_weights") else tensors.take("W_enc", d, n, transposed=True)
    layers = tuple(attention(fields, tensors, i, n) for i in range(fields.whole("n_attn_layers", least=0)))
    bias = tensors.take("b_dec", d)
    tensors.done()
    model = about.text("model_name", "") or "unknown"
    manifest = Manifest(
        subtracts_decoder_bias=True,
        normalisation=Normalisation() if factor == 1.0 else Normalisation("constant", factor),
        site=site_of(about.text("hook_name", ""), model),
        model=model,
        bos=bos,  # type: ignore[arg-type]
        source=source.origin("SAELens"),
        commit=source.commit,
        dtype=tensors.dtype("W_dec"),
    )
    return TemporalSAE(encoder, decoder, bias, layers, kept(fields, n), manifest)
