"""What innerview raises: each message states the fact, the value received and the way out."""


class InnerviewError(Exception):
    """Anything innerview refuses or cannot do."""


class ModelError(InnerviewError):
    """A network cannot be opened, or is used in a way it does not support."""


class TextError(InnerviewError):
    """A prompt cannot be turned into tokens for this network."""


class SiteError(InnerviewError):
    """A site does not exist in this network, or cannot be used this way."""


class CaptureError(InnerviewError):
    """An activation that was asked for did not come."""


class DirectionError(InnerviewError):
    """A direction cannot be made from what was given."""


class EditError(InnerviewError):
    """An edit cannot be honoured."""


class GenerationError(InnerviewError):
    """Text cannot be generated as asked."""


class LensError(InnerviewError):
    """A lens does not apply to this network."""


class MetricError(InnerviewError):
    """A metric cannot be read from this network, or not for these prompts."""


class PatchError(InnerviewError):
    """Activations of one prompt cannot be put into another."""


class DictionaryError(InnerviewError):
    """A dictionary cannot be read, made, or used this way."""


class FeatureError(InnerviewError):
    """What is known of features cannot be gathered, read or shown this way."""


class EvidenceError(InnerviewError):
    """A claim and its controls do not go together."""


class StoreError(InnerviewError):
    """A store on disk is damaged, is written to by somebody else, or cannot take what it is given."""


class RecipeError(InnerviewError):
    """A recipe on disk is damaged, or written for something else."""


class WidgetError(InnerviewError):
    """A widget cannot be built or shown."""
