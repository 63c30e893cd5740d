"""Where an edit applies: which tokens, at which steps, how strongly, and on what condition."""

from innerview.where.schedules import Constant, Decay, Pulse, Ramp, Schedule, Steps
from innerview.where.where import SCOPES, Scope, Where, Window

__all__ = ["SCOPES", "Constant", "Decay", "Pulse", "Ramp", "Schedule", "Scope", "Steps", "Where", "Window"]
