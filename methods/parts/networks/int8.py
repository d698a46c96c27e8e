"""Convolutions and linear layers with weights of 8 bits, and inputs that are rounded to 8 bits.

Weights are stored as int8; what a layer computes is what integer arithmetic gives, up to the order of sums, but by float
kernels. torch deprecates its quantised tensors, and with them the integer kernels that need no compiler, so times of these
networks say nothing about integer ones.
"""

from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from subnetbench.harness.method import UserError

Range = Literal["minmax", "mean"]
LARGEST, LEVELS = 127, 255


class Int8Layer(nn.Module):
    """What is 8 bits of a layer: mixed into its class, whose `weight` is then int8 (Jacob et al. 2018, section 2.1).

    Weight of output channel o: int8 times `weight_scale[o]`. Input x: clamp(round(x / s) + z, 0, 255), with scale s and
    zero point z of the range [low, high] that contains 0. `ranges` (2,) are low and high, `seen` the number of batches.
    """

    weight: Tensor
    weight_scale: Tensor
    ranges: Tensor
    seen: Tensor
    observing: Range | None

    def quantise(self) -> None:
        """Round the weight to 8 bits."""
        weight = self.weight.detach()
        scale = weight.flatten(1).abs().amax(dim=1).clamp(min=torch.finfo(weight.dtype).tiny) / LARGEST
        shape = (-1, *(1,) * (weight.dim() - 1))
        rounded = (weight / scale.view(shape)).round().clamp(-LARGEST, LARGEST).to(torch.int8)
        self.weight = nn.Parameter(rounded, requires_grad=False)
        self.register_buffer("weight_scale", scale)
        self.register_buffer("ranges", torch.zeros(2, device=weight.device))
        self.register_buffer("seen", torch.zeros((), device=weight.device))
        self.observing = None

    def float_weight(self) -> Tensor:
        """The weight that the integers stand for."""
        shape = (-1, *(1,) * (self.weight.dim() - 1))
        return self.weight.to(self.weight_scale.dtype) * self.weight_scale.view(shape)

    def rounded(self, x: Tensor) -> Tensor:
        """The input that the layer sees: as it is, and noted, while ranges are collected."""
        if self.observing is not None:
            self._note(x)
            return x
        low, high = self.ranges.clamp(max=0)[0], self.ranges.clamp(min=0)[1]
        scale = ((high - low) / LEVELS).clamp(min=torch.finfo(torch.float32).tiny)
        zero = (-low / scale).round().to(torch.int32)
        result: Tensor = torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, LEVELS)
        return result

    def _note(self, x: Tensor) -> None:
        found = torch.stack([x.min(), x.max()]).float()
        if self.observing == "mean":
            self.ranges += (found - self.ranges) / (self.seen + 1)
        else:
            low, high = torch.minimum(found, self.ranges)[0], torch.maximum(found, self.ranges)[1]
            self.ranges.copy_(found if self.seen == 0 else torch.stack([low, high]))
        self.seen += 1


class Int8Conv2d(Int8Layer, nn.Conv2d):
    """A convolution with weights and inputs of 8 bits."""

    def forward(self, input: Tensor) -> Tensor:
        result: Tensor = self._conv_forward(self.rounded(input), self.float_weight(), self.bias)
        return result


class Int8Linear(Int8Layer, nn.Linear):
    """A linear layer with weights and inputs of 8 bits."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(self.rounded(input), self.float_weight(), self.bias)


_KINDS: dict[type[nn.Module], type[Int8Layer]] = {nn.Conv2d: Int8Conv2d, nn.Linear: Int8Linear}


def quantise(network: nn.Module) -> list[Int8Layer]:
    """Make all convolutions and linear layers of a network 8 bits, in place; their ranges are still to be collected.

    Derived classes (which may compute something else) and all other layers stay as they are.

    Raises:
        UserError: There is no layer of these kinds.
    """
    found = []
    for module in network.modules():
        if type(module) in _KINDS:
            module.__class__ = _KINDS[type(module)]
            layer = cast(Int8Layer, module)
            layer.quantise()
            found.append(layer)
    if not found:
        raise UserError("has no convolution or linear layer", field="network", value=type(network).__name__)
    return found


def weight_bytes(network: nn.Module) -> int:
    """Bytes of all parameters and buffers as they are stored."""
    return sum(value.numel() * value.element_size() for value in network.state_dict().values())
