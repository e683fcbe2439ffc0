"""The optimiser: Muon for matrices, AdamW for the rest, one object.

Which tensor gets which rule is read from the one table of tensors (model/init.py, `group`). Weights are updated in
float32: where the model's are narrower the optimiser holds the float32 masters, and the model gets them rounded.
Router balancing biases have no gradient and a rule of their own (train/balance.py). Source: spec pretraining 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

import torch
from torch import Tensor, nn

from zaya.errors import CheckpointError, ConfigError
from zaya.model.init import Group, TensorSpec, tensor_table
from zaya.model.transformer import ZayaModel
from zaya.train.muon import MIN_SIZE, orthogonalize, rms_scale

_BATCH_ELEMENTS = 1 << 26  # of matrices that are orthogonalised together: a few hundred MB of working memory


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupConfig:
    """What one group of tensors does with the learning rate."""

    lr_scale: float = 1.0
    """Multiplies the learning rate."""
    weight_decay: float = 0.0
    """Decay towards 0, decoupled from the gradient; multiplied by the learning rate."""

    def __post_init__(self) -> None:
        if self.lr_scale < 0 or self.weight_decay < 0:
            raise ConfigError(f"lr_scale and weight_decay must not be negative: {self.lr_scale}, {self.weight_decay}")


def _decayed() -> GroupConfig:
    return GroupConfig(weight_decay=0.1)


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """How weights follow their gradients."""

    lr: float = 4e-3
    """Peak learning rate. Muon's steps are scaled to the size of AdamW's, so that one rate can serve both."""
    momentum: float = 0.95
    """Of Muon, in Nesterov's form. 0 holds no state, as in reinforcement learning."""
    beta1: float = 0.9
    """Of AdamW: the average of gradients."""
    beta2: float = 0.95
    """Of AdamW: the average of their squares."""
    eps: float = 1e-8
    """Of AdamW: added to the root of that average."""
    clip: float | None = 1.0
    """Gradients are scaled down to this norm, taken over all tensors; none leaves them."""
    router_lr_scale: float = 1.0
    """Multiplies the learning rate of every tensor of the routers, whatever its group."""
    matrix: GroupConfig = field(default_factory=_decayed)
    """Projections of attention and router. Muon."""
    expert: GroupConfig = field(default_factory=_decayed)
    """Gate, up and down of every expert, each a matrix of its own. Muon."""
    embedding: GroupConfig = field(default_factory=GroupConfig)
    """The tied embedding. AdamW."""
    conv: GroupConfig = field(default_factory=GroupConfig)
    """Weights of the convolutions. AdamW."""
    router_out: GroupConfig = field(default_factory=_decayed)
    """The last projection of the routers. AdamW."""
    vector: GroupConfig = field(default_factory=GroupConfig)
    """Norms, biases, residual scales, key temperatures, state scales. AdamW."""

    def __post_init__(self) -> None:
        for name in ("momentum", "beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"optim.{name} must be at least 0 and below 1: {getattr(self, name)}")
        if self.lr < 0 or self.router_lr_scale < 0:
            raise ConfigError(f"optim.lr and router_lr_scale must not be negative: {self.lr}, {self.router_lr_scale}")
        if self.eps <= 0:
            raise ConfigError(f"optim.eps must be positive: {self.eps}")
        if self.clip is not None and self.clip <= 0:
            raise ConfigError(f"optim.clip must be positive: {self.clip}", hint="none leaves gradients as they are")


@dataclass(frozen=True, slots=True)
class GroupStats:
    """One group of tensors in one step."""

    grad_norm: float
    """Before clipping."""
    update_rms: float
    """Root mean square of what was added to the weights, without decay."""
    weight_rms: float
    """Root mean square of the weights after the step."""


@dataclass(frozen=True, slots=True)
class StepStats:
    """What a step did."""

    grad_norm: float
    """Over all tensors, before clipping."""
    is_clipped: bool
    skipped: Literal["no signal", "not finite"] | None
    """Why nothing was changed, if nothing was. A batch that has nothing to teach gives a gradient of exactly 0;
    without this guard decay and old momentum would act alone, and Muon's momentum at full size."""
    groups: dict[Group, GroupStats]
    """Empty where the step was skipped."""


class Optimizer:
    """Steps the trainable parameters of a model by the gradients they hold.

    Made after the model has its weights: float32 masters are copied here.
    """

    def __init__(self, model: ZayaModel, config: OptimConfig) -> None:
        self.config = config
        self.updates = 0
        self._muon: list[_Muon] = []
        self._adamw: list[_AdamW] = []
        parameters = dict(model.named_parameters())
        for spec in tensor_table(model.config):
            if spec.is_buffer or not parameters[spec.name].requires_grad:
                continue
            if spec.group in ("matrix", "expert") and min(_matrix_shape(spec)) >= MIN_SIZE:
                self._muon.append(_Muon(spec, parameters[spec.name], config))
            else:
                self._adamw.append(_AdamW(spec, parameters[spec.name], config))
        self._slots: list[_Slot] = [*self._muon, *self._adamw]

    @torch.no_grad()
    def step(self, lr: float) -> StepStats:
        """Update every weight once with learning rate `lr`, and return what happened.

        A parameter without a gradient counts as one with a gradient of 0. Gradients stay; see `zero_grad`.
        """
        squares = torch.stack([_square(slot.grad()) for slot in self._slots])
        grad_norm = float(squares.sum().sqrt())
        if grad_norm == 0 or not math.isfinite(grad_norm):
            return StepStats(grad_norm, False, "not finite" if grad_norm else "no signal", {})
        clip = self.config.clip
        is_clipped = clip is not None and grad_norm > clip
        scale = clip / grad_norm if clip is not None and is_clipped else 1.0

        self.updates += 1
        for batch in self._batches():
            directions = orthogonalize(torch.cat([slot.direction(scale) for slot in batch]))
            for slot, part in zip(batch, directions.split([slot.num_matrices for slot in batch]), strict=True):
                slot.step(lr, part)
        for slot in self._adamw:
            slot.step(lr, scale, self.updates)
        return StepStats(grad_norm, is_clipped, None, self._group_stats(squares))

    def zero_grad(self) -> None:
        for slot in self._slots:
            slot.parameter.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that the next step depends on besides the parameters, by the model's names: `momentum/NAME`,
        `first/NAME`, `second/NAME`, `master/NAME`, and `updates`. The tensors themselves, not copies."""
        state = {f"{kind}/{slot.spec.name}": tensor for slot in self._slots for kind, tensor in slot.state.items()}
        return {"updates": torch.tensor(self.updates), **state}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` gave. Raises CheckpointError where it belongs to another model or rule."""
        own = self.state_dict()
        odd = sorted(own.keys() ^ state.keys()) or [name for name in own if own[name].shape != state[name].shape]
        if odd:
            raise CheckpointError(
                f"the optimiser's state does not fit this run: {', '.join(odd[:3])}, {len(odd)} in all",
                hint="resume with the configuration the run was started with",
            )
        for name, tensor in own.items():
            tensor.copy_(state[name])
        self.updates = int(state["updates"])

    def _batches(self) -> Iterator[list[_Muon]]:
        """The tensors under Muon, those with equal matrices together as far as memory allows."""
        by_shape: dict[tuple[int, int], list[_Muon]] = {}
        for slot in self._muon:
            by_shape.setdefault(slot.matrix_shape, []).append(slot)
        for slots in by_shape.values():
            batch: list[_Muon] = []
            for slot in slots:
                if batch and sum(other.spec.numel for other in batch) + slot.spec.numel > _BATCH_ELEMENTS:
                    yield batch
                    batch = []
                batch.append(slot)
            yield batch

    def _group_stats(self, grad_squares: Tensor) -> dict[Group, GroupStats]:
        updates = torch.stack([slot.update_square for slot in self._slots])
        weights = torch.stack([_square(slot.weight) for slot in self._slots])
        totals: dict[Group, list[float]] = {}
        rows = torch.stack([grad_squares, updates, weights], dim=1).tolist()
        for slot, row in zip(self._slots, rows, strict=True):
            total = totals.setdefault(slot.spec.group, [0.0] * 4)
            totals[slot.spec.group] = [a + b for a, b in zip(total, [*row, slot.spec.numel], strict=True)]
        return {
            group: GroupStats(math.sqrt(grad), math.sqrt(update / numel), math.sqrt(weight / numel))
            for group, (grad, update, weight, numel) in totals.items()
        }


class _Slot:
    """One parameter under the optimiser: its float32 weight, and what its rule remembers."""

    def __init__(self, spec: TensorSpec, parameter: nn.Parameter, config: OptimConfig) -> None:
        self.spec, self.parameter, self.config = spec, parameter, config
        group: GroupConfig = getattr(config, spec.group)
        self.decay = group.weight_decay
        self.lr_scale = group.lr_scale * (config.router_lr_scale if ".router." in spec.name else 1.0)
        held = parameter.detach()
        self.state: dict[str, Tensor] = {} if held.dtype == torch.float32 else {"master": held.float()}
        self.weight = self.state.get("master", held)
        self.update_square = self.weight.new_zeros(())

    def grad(self) -> Tensor:
        grad = self.parameter.grad
        return torch.zeros_like(self.parameter) if grad is None else grad

    def change(self, lr: float, update: Tensor) -> None:
        """Decay, and move by lr · update."""
        lr = lr * self.lr_scale
        self.weight.mul_(1 - lr * self.decay).sub_(update, alpha=lr)
        if "master" in self.state:
            self.parameter.copy_(self.weight)
        self.update_square = lr**2 * _square(update)


class _Muon(_Slot):
    def __init__(self, spec: TensorSpec, parameter: nn.Parameter, config: OptimConfig) -> None:
        super().__init__(spec, parameter, config)
        self.matrix_shape = _matrix_shape(spec)
        self.num_matrices = spec.numel // math.prod(self.matrix_shape)
        if config.momentum:
            self.state["momentum"] = torch.zeros_like(self.weight)

    def direction(self, scale: float) -> Tensor:
        """The matrices, one after the other, whose orthogonalised form is the update."""
        grad = self.grad().float() * scale
        if self.config.momentum:
            momentum = self.state["momentum"].mul_(self.config.momentum).add_(grad)
            grad.add_(momentum, alpha=self.config.momentum)
        return grad.reshape(self.num_matrices, *self.matrix_shape)

    def step(self, lr: float, direction: Tensor) -> None:
        self.change(lr, direction.reshape(self.spec.shape) * rms_scale(*self.matrix_shape))


class _AdamW(_Slot):
    def __init__(self, spec: TensorSpec, parameter: nn.Parameter, config: OptimConfig) -> None:
        super().__init__(spec, parameter, config)
        self.state |= {"first": torch.zeros_like(self.weight), "second": torch.zeros_like(self.weight)}

    def step(self, lr: float, scale: float, updates: int) -> None:
        c = self.config
        grad = self.grad().float() * scale
        first = self.state["first"].lerp_(grad, 1 - c.beta1)
        second = self.state["second"].lerp_(grad.square(), 1 - c.beta2)
        root = (second / (1 - c.beta2**updates)).sqrt_()
        self.change(lr, first / (1 - c.beta1**updates) / root.add_(c.eps))


def _matrix_shape(spec: TensorSpec) -> tuple[int, int]:
    """Of each of the matrices in a tensor (..., stacked * rows, cols)."""
    return spec.shape[-2] // spec.stacked, spec.shape[-1]


def _square(x: Tensor) -> Tensor:
    """Sum of squares, float32."""
    return cast(Tensor, torch.linalg.vector_norm(x, dtype=torch.float32)).square()
