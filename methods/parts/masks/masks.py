"""The mask methods, each as one object that turns scores into the weights of a subnetwork.

A `Mask` knows how scores start, what the weights are while the scores are being searched (sampled, soft or chosen
by rank), and which weights remain in the end. `masking.mask_network` applies it to any network.

Everywhere `sparsity` is the fraction removed.
"""

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from subnetbench.harness.method import UserError
from subnetbench.methods.parts.masks.gates import (
    BernoulliGate,
    BinaryGate,
    FixedGate,
    GumbelGate,
    SoftGate,
    StraightThroughGate,
    binary_weight,
    open_gates,
    rescale_factor,
)
from subnetbench.methods.parts.masks.order_statistics import (
    magnitude_thresholds,
    nested_masks,
    removal_rank,
    sorted_rule_mask,
)

Weighed = tuple[Tensor, Tensor | None]
"""An effective weight, and the sum of its gates where the method has a penalty on it."""


class Mask(nn.Module, ABC):
    """How scores become weights, for all layers of one network.

    `samples`: gates are random, so `search` needs logistic noise. `freezes`: the network's own weights stay as
    they were drawn. `learns_scores`: scores are parameters (else they are stored masks).
    """

    samples = False
    freezes = True
    learns_scores = True

    def attach(self, layers: int) -> None:
        """Called once with the number of masked tensors, before any other method; makes per-layer parameters."""

    @abstractmethod
    def initial_score(self, parameter: Tensor, fan_in: int, generator: torch.Generator | None) -> Tensor:
        """Start values for the scores of a parameter (fan_in: inputs per output of its layer)."""

    @abstractmethod
    def search(self, layer: int, weight: Tensor, score: Tensor, noise: Tensor | None) -> Weighed:
        """The effective weight while scores are learned, with gradients; `layer` counts masked tensors from 0."""

    @abstractmethod
    def keep(self, score: Tensor) -> Tensor:
        """The final mask: boolean, of the scores' shape; nothing random."""

    def gain(self, layer: int, keep: Tensor) -> Tensor | float:
        """What an open gate of the final mask is worth: a number or a 0-d tensor."""
        return 1.0

    def final(self, layer: int, weight: Tensor, score: Tensor) -> Weighed:
        """The effective weight under the final mask; only the weight gets a gradient."""
        keep = self.keep(score)
        return FixedGate.apply(weight, keep, self.gain(layer, keep)), None

    def keep_probability(self, score: Tensor) -> Tensor | None:
        """The chance (or, for soft gates, the degree) to which each weight is in the network during the search."""
        return None


class _SampledMask(Mask):
    """Gates that are open with probability sigmoid(score); in the end those with score >= `cut` remain."""

    samples = True

    def __init__(self, *, initial_value: float = 0.0, cut: float = 0.0) -> None:
        super().__init__()
        self.initial_value = initial_value
        self.cut = cut

    def initial_score(self, parameter: Tensor, fan_in: int, generator: torch.Generator | None) -> Tensor:
        return torch.full_like(parameter, self.initial_value, dtype=score_dtype(parameter))

    def keep(self, score: Tensor) -> Tensor:
        return score >= self.cut

    def keep_probability(self, score: Tensor) -> Tensor:
        return torch.sigmoid(score)


class AslpMask(_SampledMask):
    """ASLP: arbitrarily shifted log-probabilities (Dupont, Alaoui, Sahbi, Lebois 2022, arXiv 2202.12986).

    The score is the log-odds of keeping a weight; gates are hard samples with the gradient of a two-way
    Gumbel-softmax of temperature `tau` (`hard=False`: the soft sample itself). With `learn_scale` (the paper's
    weight rescale) each layer has a learned factor, which starts at 1 and is folded into the final weights:
    `scale`, of shape (layers,).
    """

    scale: nn.Parameter | None

    def __init__(
        self,
        *,
        learn_scale: bool = False,
        tau: float = 1.0,
        hard: bool = True,
        initial_value: float = 0.0,
        cut: float = 0.0,
    ) -> None:
        super().__init__(initial_value=initial_value, cut=cut)
        if tau <= 0:
            raise UserError("a temperature is positive", field="tau", value=tau, allowed="above 0")
        self.tau, self.hard, self.learn_scale = tau, hard, learn_scale
        self.scale = None

    def attach(self, layers: int) -> None:
        if self.learn_scale:
            self.scale = nn.Parameter(torch.ones(layers))

    def search(self, layer: int, weight: Tensor, score: Tensor, noise: Tensor | None) -> Weighed:
        scale = None if self.scale is None else self.scale[layer]
        return GumbelGate.apply(weight, score, noise, scale, self.tau, self.hard), None

    def gain(self, layer: int, keep: Tensor) -> Tensor | float:
        return 1.0 if self.scale is None else self.scale.detach()[layer]


class Supermask(_SampledMask):
    """Supermask (Zhou, Lan, Liu, Yosinski 2019, arXiv 1905.01067): Bernoulli(sigmoid(score)) gates.

    With `rescale` (the dynamic weight rescale) a layer is multiplied with entries / open gates. The final mask
    recomputes that factor for itself; the published code has no deterministic evaluation of rescaled masks.
    """

    def __init__(self, *, rescale: bool = False, initial_value: float = 0.0, cut: float = 0.0) -> None:
        super().__init__(initial_value=initial_value, cut=cut)
        self.rescale = rescale

    def search(self, layer: int, weight: Tensor, score: Tensor, noise: Tensor | None) -> Weighed:
        return BernoulliGate.apply(weight, score, noise, self.rescale), None

    def gain(self, layer: int, keep: Tensor) -> Tensor | float:
        return rescale_factor(keep) if self.rescale else 1.0


class EdgePopupMask(Mask):
    """Edge-popup (Ramanujan et al. 2020, arXiv 1911.13299): keep the largest |score| of each layer.

    `sparsity` is the fraction removed in every layer. `rule`: "threshold" keeps |score| >= k-th smallest (with
    all ties), "sorted" is the released code's exact count.
    """

    def __init__(self, sparsity: float = 0.5, *, rule: Literal["threshold", "sorted"] = "threshold") -> None:
        super().__init__()
        removal_rank(sparsity, 1)  # refuses what is not a fraction
        self.sparsity, self.rule = sparsity, rule

    def initial_score(self, parameter: Tensor, fan_in: int, generator: torch.Generator | None) -> Tensor:
        bound = 1 / math.sqrt(fan_in)
        score = torch.empty_like(parameter, dtype=score_dtype(parameter))
        return score.uniform_(-bound, bound, generator=generator)

    def search(self, layer: int, weight: Tensor, score: Tensor, noise: Tensor | None) -> Weighed:
        return StraightThroughGate.apply(weight, score, self.gate(score)), None

    def gate(self, score: Tensor) -> Tensor:
        """`keep` as a 0/1 tensor of the scores' data type."""
        if self.rule == "sorted":
            return self.keep(score).to(score.dtype)
        return open_gates(score.detach().abs(), magnitude_thresholds(score, [self.sparsity])[0])

    def keep(self, score: Tensor) -> Tensor:
        if self.rule == "sorted":
            return sorted_rule_mask(score, self.sparsity)
        return nested_masks(score, [self.sparsity])[0]


class BinaryMask(EdgePopupMask):
    """Biprop (Diffenderfer and Kailkhura 2021, arXiv 2103.09377): edge-popup's choice over weights of one magnitude.

    A kept weight is worth its sign times the mean |weight| of all that its layer keeps. `rule: sorted` is the released
    code's count.
    """

    def search(self, layer: int, weight: Tensor, score: Tensor, noise: Tensor | None) -> Weighed:
        return BinaryGate.apply(weight, score, self.gate(score)), None

    def final(self, layer: int, weight: Tensor, score: Tensor) -> Weighed:
        return binary_weight(weight, self.keep(score)), None


class ContinuousMask(Mask):
    """Continuous Sparsification (Savarese, Silva, Maire 2020, arXiv 1912.04427): soft gates that harden.

    The gate is c sigmoid(beta s) during the search and c [s > 0] in the end, c = 1 / sigmoid(initial_value), so
    that all gates are 1 at the start. `temperature` (beta) is a 0-d buffer that the schedule sets. The weights
    are trained together with the scores.
    """

    freezes = False
    temperature: Tensor

    def __init__(self, initial_value: float = 0.0) -> None:
        super().__init__()
        self.initial_value = initial_value
        self.ceiling = 1.0 + math.exp(-initial_value)
        self.register_buffer("temperature", torch.tensor(1.0))

    def initial_score(self, parameter: Tensor, fan_in: int, generator: torch.Generator | None) -> Tensor:
        return torch.full_like(parameter, self.initial_value, dtype=score_dtype(parameter))

    def search(self, layer: int, weight: Tensor, score: Tensor, noise: Tensor | None) -> Weighed:
        result: Weighed = SoftGate.apply(weight, score, self.temperature, self.ceiling)
        return result

    def keep(self, score: Tensor) -> Tensor:
        return score > 0

    def gain(self, layer: int, keep: Tensor) -> float:
        return self.ceiling

    def final(self, layer: int, weight: Tensor, score: Tensor) -> Weighed:
        keep = self.keep(score)
        return FixedGate.apply(weight, keep, self.ceiling), torch.count_nonzero(keep) * self.ceiling

    def keep_probability(self, score: Tensor) -> Tensor:
        return torch.sigmoid(self.temperature * score)


class FixedMask(Mask):
    """A given 0/1 mask: magnitude pruning, lottery tickets, random masks. Starts with everything kept.

    The network's own weights are trained unless `freezes`.
    """

    learns_scores = False

    def __init__(self, *, freezes: bool = False) -> None:
        super().__init__()
        self.freezes = freezes

    def initial_score(self, parameter: Tensor, fan_in: int, generator: torch.Generator | None) -> Tensor:
        return torch.ones_like(parameter, dtype=torch.bool)

    def search(self, layer: int, weight: Tensor, score: Tensor, noise: Tensor | None) -> Weighed:
        return self.final(layer, weight, score)

    def keep(self, score: Tensor) -> Tensor:
        return score


def temperature_at(epoch: int, epochs: int, final: float) -> float:
    """Continuous Sparsification's inverse temperature in an epoch (from 0): final^(epoch / (epochs - 1)).

    It rises from 1 in the first epoch to `final` in the last; a round of one epoch runs at `final`.
    """
    return final if epochs == 1 else final ** (epoch / (epochs - 1))


Transition = Literal["scale_then_clamp", "clamp"]


@torch.no_grad()
def between_rounds_(score: Tensor, initial_value: float, temperature: float, rule: Transition) -> Tensor:
    """Continuous Sparsification's step between search rounds, in place.

    "scale_then_clamp": s <- min(beta s, s0) with the beta of the round just finished, so that gates which closed
    stay closed and rounds compound. "clamp": s <- min(s, s0), what the released driver does, because it resets
    beta to 1 first; closed gates reopen.
    """
    if rule == "scale_then_clamp":
        score.mul_(temperature)
    return score.clamp_(max=initial_value)


def score_dtype(parameter: Tensor) -> torch.dtype:
    """Scores are float32 whatever the weights are, and float64 for float64 weights."""
    return torch.promote_types(parameter.dtype, torch.float32)
