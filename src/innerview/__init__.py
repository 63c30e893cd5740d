"""A workbench for the inside of neural networks, lived in from a notebook."""

import importlib
from typing import Any

_HOMES = {
    "Activations": "activations",
    "Attachment": "attachments",
    "attach": "attachments",
    "attached": "attachments",
    "detach": "attachments",
    "editing": "attachments",
    "capture": "capturing",
    "CaptureInterrupt": "chunks",
    "Compiled": "compiling",
    "compiled": "compiling",
    "BatchTopK": "dictionaries.architectures",
    "OwnFormat": "dictionaries.loaders",
    "SAELensFormat": "dictionaries.loaders",
    "load_dictionary": "dictionaries.loaders",
    "save_dictionary": "dictionaries.loaders",
    "Codes": "dictionaries.codes",
    "CrossLayerTranscoder": "dictionaries.cross_layer",
    "CrossLayerWeights": "dictionaries.cross_layer",
    "Crosscoder": "dictionaries.crosscoder",
    "Dictionary": "dictionaries.dictionary",
    "DictionaryError": "errors",
    "Gated": "dictionaries.architectures",
    "JumpReLU": "dictionaries.architectures",
    "Manifest": "dictionaries.manifest",
    "Normalisation": "dictionaries.manifest",
    "ReLU": "dictionaries.architectures",
    "TopK": "dictionaries.architectures",
    "Weights": "dictionaries.weights",
    "Splice": "dictionaries.splicing",
    "spliced": "dictionaries.splicing",
    "Direction": "direction",
    "contrast": "directions.mean_difference",
    "project": "directions.projection",
    "Projection": "directions.projection",
    "Add": "edits",
    "Cap": "edits",
    "Custom": "edits",
    "Edit": "edits",
    "GradientSteer": "edits",
    "ProjectOut": "edits",
    "Replace": "edits",
    "Rotate": "edits",
    "Scale": "edits",
    "SetFeatures": "edits",
    "Transport": "edits",
    "tensor_from_code": "edits",
    "CaptureError": "errors",
    "DirectionError": "errors",
    "EditError": "errors",
    "GenerationError": "errors",
    "InnerviewError": "errors",
    "LensError": "errors",
    "ModelError": "errors",
    "RecipeError": "errors",
    "SiteError": "errors",
    "StoreError": "errors",
    "TextError": "errors",
    "WidgetError": "errors",
    "Generation": "generation",
    "generate": "generation",
    "MetricError": "errors",
    "PatchError": "errors",
    "Lens": "lens.logit",
    "logit_lens": "lens.logit",
    "Model": "models.model",
    "open_model": "models.opening",
    "Site": "models.site",
    "Circuit": "models.weights",
    "Neurons": "models.weights",
    "Unembedding": "models.weights",
    "embedding": "models.weights",
    "neurons": "models.weights",
    "ov_circuit": "models.weights",
    "qk_circuit": "models.weights",
    "unembedding": "models.weights",
    "Recipe": "recipes",
    "LogitLens": "widgets.logit_lens",
    "Steer": "widgets.steer",
    "TokenStrip": "widgets.token_strip",
    "logit_difference": "metrics",
    "token_probability": "metrics",
    "PatchGrid": "causal.grid",
    "patch_grid": "causal.grid",
    "FeatureAttributions": "causal.attribution",
    "GradientTimesActivation": "causal.attribution",
    "IntegratedGradients": "causal.attribution",
    "attribute_features": "causal.attribution",
    "Patch": "causal.patching",
    "patch": "causal.patching",
    "Store": "stores",
    "open_store": "stores",
    "Sweep": "sweeps",
    "sweep": "sweeps",
    "Gate": "readings",
    "Reading": "readings",
    "Constant": "where",
    "Decay": "where",
    "Pulse": "where",
    "Ramp": "where",
    "Where": "where",
    "GroupMax": "dictionaries.architectures",
    "MatchingPursuit": "dictionaries.architectures",
    "SemiNMF": "dictionaries.architectures",
    "fit_semi_nmf": "dictionaries.factorization",
    "toy_superposition": "dictionaries.toy",
    "Superposition": "dictionaries.toy",
    "Matryoshka": "dictionaries.architectures",
}

# Parts of the house with a name of their own: `iv.pocket.sentences(...)`.
_NAMESPACES = ("pocket",)

__version__ = "0.1.0"
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _NAMESPACES:
        return importlib.import_module(f"innerview.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'innerview' has no attribute {name!r}; it has {', '.join(__all__)}")
    found = getattr(importlib.import_module(f"innerview.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted((*__all__, *_NAMESPACES))
