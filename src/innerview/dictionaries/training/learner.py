"""One dictionary while it trains: its parameters, its optimizer, what is counted of its features, its curves."""

import dataclasses
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from innerview.dictionaries.architectures import Losses, Step
from innerview.dictionaries.dictionary import Dictionary
from innerview.dictionaries.entries import Active
from innerview.dictionaries.manifest import Manifest, Normalisation
from innerview.dictionaries.training.initial import initial_weights, norm_factor
from innerview.dictionaries.training.processes import Processes
from innerview.dictionaries.training.settings import DictionarySpec, TrainingSettings
from innerview.dictionaries.weights import Weights
from innerview.errors import DictionaryError


class Learner:
    """One dictionary while it trains.

    Args:
        spec: What it is to become.
        settings: How it runs through the tokens.
        sample: First activations by site, shape [rows, d].
        n_steps: Steps of the training.
        processes: Those that train together.
    """

    def __init__(
        self, spec: DictionarySpec, settings: TrainingSettings, sample: Mapping[str, Tensor], n_steps: int, processes: Processes
    ) -> None:  # fmt: skip
        self.spec = spec
        self.n_steps = n_steps
        self.processes = processes
        self.device = settings.where()
        self.dead_after = settings.dead_tokens(n_steps * settings.batch_tokens)
        self.uses_autocast = settings.autocast and self.device.type == "cuda"
        x, target = (sample[site].to(self.device, torch.float32) for site in (spec.site, spec.sites[-1]))
        is_scaled = settings.normalisation == "constant"
        self.factor, self.factor_out = (norm_factor(each) if is_scaled else 1.0 for each in (x, target))
        self.center = target.mean(dim=0) * self.factor_out
        n_features = spec.n_features or 8 * x.shape[1]
        made = initial_weights(
            spec.architecture, n_features, x * self.factor, target * self.factor_out, spec.seed,
            is_transcoder=spec.is_transcoder, has_skip=spec.has_skip, init=spec.init,
        )  # fmt: skip
        self.weights = self._trained(made)
        self.parameters = [tensor for tensor in self.weights.tensors().values() if isinstance(tensor, nn.Parameter)]
        chosen = spec.optimization or spec.architecture.optimization(n_features)
        self.optimization = chosen.fitted(n_steps)
        self.optimizer = torch.optim.Adam(
            self.parameters, self.optimization.learning_rate, self.optimization.betas, self.optimization.epsilon, fused=True
        )  # fmt: skip
        self.last_active = torch.zeros(n_features, dtype=torch.int64, device=self.device)
        self.sums: dict[str, Tensor] = {}
        self.history: list[dict[str, float]] = []
        self.latest: Losses | None = None

    def _trained(self, made: Weights) -> Weights:
        made = made.to(self.device)
        measured = self.spec.architecture.measured
        extras = {name: t if name in measured else nn.Parameter(t) for name, t in made.extras.items()}
        skip = None if made.skip is None else nn.Parameter(made.skip)
        encoder, encoder_bias, decoder, decoder_bias = (
            nn.Parameter(tensor) for tensor in (made.encoder, made.encoder_bias, made.decoder, made.decoder_bias)
        )
        return Weights(encoder, encoder_bias, decoder, decoder_bias, skip, extras)

    def step(self, batch: Mapping[str, Tensor], step: int, seen: int) -> None:
        """One step of the optimizer.

        Args:
            batch: Activations of this process by site, shape [rows, d].
            step: Number of the step.
            seen: Tokens that all processes saw before it.
        """
        architecture, weights = self.spec.architecture, self.weights
        x = batch[self.spec.site].to(self.device, torch.float32) * self.factor
        target = x
        if self.spec.is_transcoder:
            target = batch[self.spec.site_out].to(self.device, torch.float32) * self.factor_out
        subtracts = architecture.subtracts_decoder_bias and not self.spec.is_transcoder
        where = Step(step, self.n_steps, self.last_active, seen, self.dead_after, self.processes.gathered)
        with self._autocast():
            losses = architecture.losses(weights, x - weights.decoder_bias if subtracts else x, target, where)
        losses.total.backward()
        self.processes.average_gradients(self.parameters)
        self._optimize(step)
        self._count(losses, target)
        self.latest = losses

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.uses_autocast else nullcontext()

    def _optimize(self, step: int) -> None:
        self.spec.architecture.constrain_gradients(self.weights)
        if self.optimization.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.optimization.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.optimization.rate(step, self.n_steps)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.spec.architecture.constrain(self.weights)

    @torch.no_grad()
    def _count(self, losses: Losses, target: Tensor) -> None:
        counts = losses.codes.counts() if isinstance(losses.codes, Active) else (losses.codes != 0).sum(dim=0)
        counts = self.processes.summed(counts)
        self.last_active += len(target) * self.processes.count
        self.last_active[counts > 0] = 0
        found = {
            "loss": losses.total.detach(),
            **{name: part.detach() for name, part in losses.parts.items()},
            "active": counts.sum() / (len(target) * self.processes.count),
            "error": (losses.decoded - target).square().sum(),
            "spread": (target - self.center).square().sum(),
            "steps": torch.ones((), device=self.device),
        }
        for name, value in found.items():
            self.sums[name] = self.sums.get(name, torch.zeros((), device=self.device)) + value

    def report(self, step: int, seen: int) -> dict[str, float]:
        """One point of the curves: means since the last one."""
        names = sorted(self.sums)
        # Which parts a loss has is the same in all processes: dead features are counted together.
        told = torch.stack([self.sums[name].double() for name in names])
        own = dict(zip(names, (self.processes.summed(told) / self.processes.count).tolist(), strict=True))
        steps = own.pop("steps") or 1.0
        error, spread = own.pop("error"), own.pop("spread")
        point = {"step": float(step), "tokens": float(seen), "loss": own.pop("loss") / steps}
        point |= {"l0": own.pop("active") / steps, "fvu": error / spread if spread else float("nan")}
        point["dead"] = float((self.last_active >= self.dead_after).float().mean())
        point["learning_rate"] = self.optimization.rate(max(0, step - 1), self.n_steps)
        point |= {name: value / steps for name, value in own.items()}
        if not all(abs(value) < float("inf") for name, value in point.items() if name == "loss"):
            raise DictionaryError(
                f"the loss of {self.spec.architecture!r} at {self.spec.site} is {point['loss']} at step {step}; "
                "take a smaller learning rate, or look at the activations"
            )
        self.sums = {}
        self.history.append(point)
        return point

    # What is kept and handed on.

    def state(self) -> dict[str, Any]:
        """Everything that the next step hangs on."""
        return {
            "weights": {name: tensor.detach() for name, tensor in self.weights.tensors().items()},
            "optimizer": self.optimizer.state_dict(),
            "last_active": self.last_active,
            "factors": [self.factor, self.factor_out],
            "center": self.center,
            "sums": self.sums,
            "history": self.history,
        }

    @torch.no_grad()
    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        for name, tensor in self.weights.tensors().items():
            tensor.copy_(state["weights"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.last_active.copy_(state["last_active"])
        self.factor, self.factor_out = state["factors"]
        self.center = state["center"].to(self.device)
        self.sums = {name: tensor.to(self.device) for name, tensor in state["sums"].items()}
        self.history[:] = state["history"]

    @torch.no_grad()
    def dictionary(self, manifest: Manifest, seen: int) -> Dictionary:
        """The dictionary as it is now, on the CPU in float32, with what is said of it beside its normalisation."""
        plain = {name: tensor.detach().clone() for name, tensor in self.weights.tensors().items()}
        extras = {name: plain[name] for name in self.weights.extras}
        own = Weights(
            plain["encoder"], plain["encoder_bias"], plain["decoder"], plain["decoder_bias"], plain.get("skip"), extras
        )  # fmt: skip
        architecture, weights = self.spec.architecture.finished(own, seen)
        weights = weights.to("cpu", torch.float32)
        subtracts = architecture.subtracts_decoder_bias and not self.spec.is_transcoder
        normalisation = Normalisation() if self.factor == 1.0 else Normalisation("constant", factor=self.factor)
        if self.spec.is_transcoder:
            weights, normalisation = self._folded(weights), Normalisation()
        said = dataclasses.replace(manifest, subtracts_decoder_bias=subtracts, normalisation=normalisation)
        return Dictionary(weights, architecture, said)

    def _folded(self, weights: Weights) -> Weights:
        """A transcoder's weights for activations as they are: its two sites are scaled by two numbers, and a manifest has one."""
        skip = None if weights.skip is None else weights.skip * (self.factor / self.factor_out)
        return dataclasses.replace(
            weights,
            encoder=weights.encoder * self.factor,
            decoder=weights.decoder / self.factor_out,
            decoder_bias=weights.decoder_bias / self.factor_out,
            skip=skip,
        )
