"""What is done to an activation: an operation at a site, one file each."""

from innerview.edits.add import Add
from innerview.edits.cap import Cap
from innerview.edits.code import tensor_from_code
from innerview.edits.context import Context
from innerview.edits.custom import Custom
from innerview.edits.edit import Edit, checked
from innerview.edits.gradient_steer import GradientSteer
from innerview.edits.project_out import ProjectOut
from innerview.edits.replace import Replace
from innerview.edits.rotate import Rotate
from innerview.edits.scale import Scale
from innerview.edits.set_features import SetFeatures
from innerview.edits.shapes import fit, per_token
from innerview.edits.transport import Transport

__all__ = [
    "Add", "Cap", "Context", "Custom", "Edit", "GradientSteer", "ProjectOut", "Replace", "Rotate", "Scale", "SetFeatures", "Transport",
    "checked", "fit", "per_token", "tensor_from_code",
]  # fmt: skip
