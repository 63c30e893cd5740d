"""The list of public names: a change here is a change that users see."""

import importlib
import inspect
import pkgutil

import pytest

import innerview as iv

NAMES = [
    "Dashboard", "dashboard", "load_dashboard", "NeuronpediaUpload", "FeatureError", "FeatureStatistics", "feature_statistics", "FeatureView", "OnText", "feature_on_text",
    "FeatureBrowser", "FeatureMap", "FeaturePage", "NeighbourLayout", "PCALayout",
    "Page", "page", "Attention", "Panel", "panel", "TrainingMonitor", "Control", "Evidence", "EvidenceCard", "EvidenceError",
    "train_crosscoder", "train_cross_layer_transcoder", "JointTraining",
    "Label", "Labels", "label_features", "estimate_labels", "KnownLabels", "Endpoint", "CostEstimate",
    "score_labels", "LabelScores", "Detection", "Fuzzing", "Correlation",
    "ActiveSubspace",
    "TanhJumpReLU",
    "DictionarySpec", "DictionaryTraining", "Optimization", "TrainingSettings", "train_dictionaries", "train_dictionary",
    "Matryoshka",
    "Store", "StoreError", "open_store", "Evaluation", "FeatureMatch", "evaluate_dictionary", "match_features",
    "CrossLayerTranscoder", "CrossLayerWeights", "Crosscoder", "Weights", "Splice", "spliced",
    "FeatureAttributions", "GradientTimesActivation", "IntegratedGradients", "attribute_features",
    "toy_superposition", "Superposition",
    "GroupMax", "MatchingPursuit", "SemiNMF", "fit_semi_nmf",
    "BatchTopK", "load_dictionary", "save_dictionary", "TemporalSAE", "OwnFormat", "SAELensFormat", "Codes", "Dictionary", "DictionaryError", "Gated", "JumpReLU", "Manifest", "Normalisation", "ReLU", "SetFeatures", "TopK",
    "Activations", "Add", "Attachment", "Cap", "CaptureError", "CaptureInterrupt", "Compiled", "compiled", "Circuit", "Constant", "Custom", "Decay", "Direction", "DirectionError", "Edit",
    "EditError", "Gate", "Generation", "GenerationError", "GradientSteer", "InnerviewError", "Lens", "LensError", "LogitLens",
    "MetricError", "Model", "ModelError", "Neurons", "Patch", "PatchError", "PatchGrid", "ProjectOut", "Projection", "Pulse", "Ramp", "Reading", "Recipe", "RecipeError",
    "Replace", "Rotate", "Scale", "Site", "SiteError", "Steer", "Sweep", "TextError", "TokenStrip", "Transport", "Unembedding", "Where",
    "WidgetError", "attach", "attached", "capture", "contrast", "detach", "editing", "embedding", "generate", "logit_difference",
    "logit_lens", "neurons", "open_model", "ov_circuit", "patch", "patch_grid", "project", "qk_circuit", "sweep", "tensor_from_code", "token_probability", "unembedding",
]  # fmt: skip


def test_the_public_names_are_these() -> None:
    assert sorted(iv.__all__) == sorted(NAMES)
    assert set(iv.__all__) <= set(dir(iv))


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_can_be_imported_and_says_what_it_is(name: str) -> None:
    thing = getattr(iv, name)
    assert thing is getattr(iv, name)
    first = (inspect.getdoc(thing) or "").split("\n")[0]
    assert len(first) > 10 and first[0].isupper() and not first.startswith(name + "("), (
        "a dataclass's own signature is no docstring"
    )
    assert thing.__name__ == name and thing.__module__.startswith("innerview.")


def test_no_public_name_is_a_modules() -> None:
    for package in [
        iv,
        *(importlib.import_module(f"innerview.{m.name}") for m in pkgutil.iter_modules(iv.__path__) if m.ispkg),
    ]:
        modules = {m.name for m in pkgutil.iter_modules(package.__path__)}
        assert modules & set(getattr(package, "__all__", ())) == set(), package.__name__


def test_an_unknown_name_is_refused_with_the_list() -> None:
    with pytest.raises(AttributeError, match=r"module 'innerview' has no attribute 'steer'; it has .*Steer"):
        iv.steer


def test_every_error_is_an_innerview_error() -> None:
    errors = [getattr(iv, name) for name in NAMES if name.endswith("Error")]
    assert len(errors) == 17 and all(issubclass(e, iv.InnerviewError) for e in errors)


@pytest.mark.parametrize(
    "name", ["capture", "generate", "attach", "contrast", "logit_lens", "Add", "Where", "Direction"]
)
def test_arguments_have_one_name_for_one_thing(name: str) -> None:
    parameters = inspect.signature(getattr(iv, name)).parameters
    assert not {"layer_idx", "hidden_states", "seq", "alpha", "kwargs", "args"} & set(parameters)
