"""One mechanism that masks any network: `mask_network(module, mask, where=...) -> MaskedModel`."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.torch_version import TorchVersion

from subnetbench.harness.method import UserError
from subnetbench.methods.parts.masks.gates import logistic_noise_
from subnetbench.methods.parts.masks.masks import Mask
from subnetbench.methods.parts.networks.layer_choice import ChosenParameter, Where, choose_parameters
from subnetbench.methods.parts.networks.named_tensors import put_tensor, tensor_at

Mode = Literal["search", "final"]
"""search: the mask that is being learned (sampled, soft, ranked); final: the mask that `finalise` folds in."""


class EffectiveWeights(NamedTuple):
    """What the layers use in place of their weights, by parameter name, and the sum of all gates.

    `gate_sum` is a 0-d tensor for masks that have a penalty on their gates (Continuous Sparsification), else None.
    """

    weights: dict[str, Tensor]
    gate_sum: Tensor | None


class MaskedModel(nn.Module):
    """A network seen through masks; made by `mask_network`.

    `base` is the untouched network: it keeps its class, its state and its checkpoint format. Every chosen
    parameter `a.b.weight` has a tensor of scores, stored as `scores.a.b.weight`. A forward pass computes the
    effective weights once and runs `base` with them (`torch.func.functional_call`), so tied weights, hooks and
    buffers behave as in the base network.

    Attributes: `names` of the masked parameters in order; `mask`; `mode`, which mask forward passes use.

    Sampled masks need noise. By default each forward pass draws its own from torch's global generator. After
    `draw(generator)` or `set_noise`, forward passes use that noise until the next draw, so that the micro-batches
    of a step, or all batches of an evaluation, see the same subnetwork. Evaluation mode (`eval()`) changes
    nothing about the mask.
    """

    def __init__(
        self, base: nn.Module, mask: Mask, chosen: list[ChosenParameter], generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.base = base
        self.mask = mask
        self.names = tuple(choice.name for choice in chosen)
        self.mode: Mode = "search"
        self.scores = nn.Module()
        with torch.no_grad():
            for choice in chosen:
                score = mask.initial_score(choice.parameter, choice.fan_in, generator)
                put_tensor(self.scores, choice.name, nn.Parameter(score) if mask.learns_scores else score)
        mask.attach(len(chosen))
        mask.to(chosen[0].parameter.device)
        self._noise: dict[str, Tensor] | None = None
        self._noise_buffer: Tensor | None = None
        self._held: EffectiveWeights | None = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(self.effective_weights().weights, *args, **kwargs)

    def call(self, weights: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        """Run the base network with `weights` in place of the parameters of these names."""
        return functional_call(self.base, dict(weights), args, kwargs)

    def effective_weights(self, mode: Mode | None = None) -> EffectiveWeights:
        """The effective weights of all masked parameters, differentiable.

        Without a `mode`: those that are held at the moment, else those of `self.mode`.
        """
        if mode is None and self._held is not None:
            return self._held
        mode = mode or self.mode
        noise = self._current_noise() if mode == "search" and self.mask.samples else {}
        weights: dict[str, Tensor] = {}
        sums = []
        for layer, name in enumerate(self.names):
            weight, score = tensor_at(self.base, name), tensor_at(self.scores, name)
            if mode == "search":
                weights[name], gate_sum = self.mask.search(layer, weight, score, noise.get(name))
            else:
                weights[name], gate_sum = self.mask.final(layer, weight, score)
            if gate_sum is not None:
                sums.append(gate_sum)
        return EffectiveWeights(weights, torch.stack(sums).sum() if sums else None)

    @contextmanager
    def held(self, weights: EffectiveWeights | None = None) -> Iterator[None]:
        """Within the block all forward passes use these weights (default: the present ones), computed once."""
        if weights is None:
            with torch.no_grad():
                weights = self.effective_weights()
        before, self._held = self._held, weights
        try:
            yield
        finally:
            self._held = before

    def draw(self, generator: torch.Generator | None = None) -> None:
        """Draw the noise of all layers at once for the coming forward passes; masks without noise ignore it."""
        if not self.mask.samples:
            return
        buffer, device = self._noise_buffer, self.device
        if buffer is None or buffer.device != device or buffer.numel() != self.entries:
            self._noise_buffer = buffer = torch.empty(self.entries, device=device)
        # Refilled in place: on a CPU, fresh memory of this size costs as much as the draw itself. Autograd
        # refuses a backward pass through noise that has been drawn over.
        self._noise = self._slices(logistic_noise_(buffer.uniform_(generator=generator)))

    def set_noise(self, noise: Mapping[str, Tensor] | None) -> None:
        """Use given logistic noise, by parameter name; None: go back to drawing anew in every forward pass.

        A gate opens where the score exceeds the noise. Uniform u in [0, 1) corresponds to log(u / (1 - u)), two
        Gumbel variables of "keep" and "drop" to drop - keep.
        """
        self._noise = None if noise is None else {name: noise[name] for name in self.names}

    def finalise(self, weights: Mapping[str, Tensor] | None = None) -> nn.Module:
        """A copy of the base network with the final mask (or the given effective weights) written into it.

        The result is a plain network without scores; its removed weights are exactly 0.
        """
        if weights is None:
            weights = self.effective_weights("final").weights
        plain = copy.deepcopy(self.base)
        with torch.no_grad():
            for name in self.names:
                tensor_at(plain, name).copy_(weights[name] + 0.0)  # -0 becomes 0
        return plain

    def score_parameters(self) -> list[nn.Parameter]:
        """The learned scores, in the order of `names`."""
        tensors = [self.score(name) for name in self.names]
        return [score for score in tensors if isinstance(score, nn.Parameter)]

    def score(self, name: str) -> Tensor:
        """The scores of the masked parameter `name`."""
        return tensor_at(self.scores, name)

    def weight(self, name: str) -> Tensor:
        """The base network's own parameter `name`, unmasked."""
        return tensor_at(self.base, name)

    @torch.no_grad()
    def set_masks(self, masks: Mapping[str, Tensor]) -> None:
        """Set the masks of a `FixedMask`: boolean tensors by parameter name."""
        if self.mask.learns_scores:
            raise TypeError(f"the masks of {type(self.mask).__name__} follow from its scores")
        for name in self.names:
            self.score(name).copy_(masks[name])

    @property
    def entries(self) -> int:
        """Number of masked weights."""
        return sum(self.score(name).numel() for name in self.names)

    @property
    def device(self) -> torch.device:
        """Where the scores are."""
        return self.score(self.names[0]).device

    def _apply(self, *args: Any, **kwargs: Any) -> "MaskedModel":
        self.set_noise(None)  # which would stay behind when the network moves to another device
        result: MaskedModel = cast(Any, super())._apply(*args, **kwargs)
        return result

    def _current_noise(self) -> dict[str, Tensor]:
        if self._noise is not None:
            return self._noise
        return self._slices(logistic_noise_(torch.rand(self.entries, device=self.device)))

    def _slices(self, flat: Tensor) -> dict[str, Tensor]:
        shapes = [self.score(name).shape for name in self.names]
        pieces = torch.split(flat, [shape.numel() for shape in shapes])
        return {name: piece.view(shape) for name, piece, shape in zip(self.names, pieces, shapes, strict=True)}


if torch.__version__ < TorchVersion("2.13"):
    # Earlier compilers lose the replaced weights of a functional call and train the unmasked network instead.
    MaskedModel.forward = cast(Any, torch.compiler).disable(MaskedModel.forward)  # type: ignore[method-assign]


def mask_network(
    module: nn.Module,
    mask: Mask,
    where: Where = None,
    *,
    biases: bool = False,
    freeze: Literal["all", "masked", "nothing"] | None = None,
    generator: torch.Generator | None = None,
) -> MaskedModel:
    """Mask a network: give chosen parameters scores, from which `mask` makes the weights of a subnetwork.

    Args:
        module: The network. It is used, not copied.
        mask: How scores become weights. It is copied, so one object can describe the masks of several networks.
        where: Which parameters are masked (see `choose_parameters`).
        biases: Mask the biases of the chosen layers too.
        freeze: Which of the network's own parameters stop being trained; None: what the method does, all for methods
            that search in frozen random weights, none for the others.
        generator: What initial scores are drawn from.

    Raises:
        UserError: When nothing is chosen.

    Example:
        >>> masked = mask_network(nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2)), EdgePopupMask(0.5))
        >>> masked(torch.ones(1, 8)).shape
        torch.Size([1, 2])
    """
    chosen = choose_parameters(module, where, biases=biases)
    frozen = {"all": list(module.parameters()), "masked": [c.parameter for c in chosen], "nothing": []}
    freeze = freeze or ("all" if mask.freezes else "nothing")
    if freeze not in frozen:
        raise UserError("unknown choice", field="freeze", value=freeze, allowed=", ".join(frozen))
    for parameter in frozen[freeze]:
        parameter.requires_grad_(False)
    return MaskedModel(module, copy.deepcopy(mask), chosen, generator)


def masked_network(modules: nn.ModuleDict) -> MaskedModel:
    """The masked network of a method whose modules hold it under `network`."""
    return cast(MaskedModel, modules["network"])
