"""Multiply-accumulates of all kinds of layers, counted by hand, and the refusal of what nothing counts."""

import pytest
import torch
from torch import Tensor, nn
from torch.ao import quantization
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize, prune

from subnetbench.harness.evaluation.cost import prunable_weights, size_metrics
from subnetbench.harness.evaluation.macs import NotCounted, mac_metrics
from subnetbench.harness.evaluation.protocols import _macs

# Torch's own quantisation is deprecated in favour of another package; what it makes is still out there.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

STEPS, INPUTS, HIDDEN = 4, 6, 5
IMAGE = torch.randn(1, 1, STEPS, INPUTS)


class Sequences(nn.Module):
    """Rows of an image as the steps of a sequence."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images.flatten(0, 1))[0]


class Steps(Sequences):
    """A recurrent cell, step by step."""

    def forward(self, images: Tensor) -> Tensor:
        state = None
        for step in images.flatten(0, 1).unbind(1):
            state = self.layer(step, state)
        return state if isinstance(state, Tensor) else state[0]


def macs(module: nn.Module, image: Tensor = IMAGE) -> tuple[float, float]:
    found = mac_metrics(module.eval(), image)
    return found["macs_executed"], found["macs_nonzero"]


@torch.no_grad()
def without_zeros(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        parameter.copy_(torch.where(parameter == 0, 1.0, parameter))
    return module


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
@pytest.mark.parametrize("directions", [1, 2])
def test_recurrent_layers(kind, gates, directions):
    layer = without_zeros(kind(INPUTS, HIDDEN, num_layers=2, bidirectional=directions == 2, batch_first=True))
    first, second = gates * HIDDEN * (INPUTS + HIDDEN), gates * HIDDEN * (directions * HIDDEN + HIDDEN)
    expected = STEPS * directions * (first + second)
    assert macs(Sequences(layer)) == (expected, expected)
    with torch.no_grad():
        layer.weight_ih_l0[:HIDDEN] = 0
        layer.weight_hh_l1[:, 0] = 0
    lost = STEPS * (HIDDEN * INPUTS + gates * HIDDEN)
    assert macs(Sequences(layer)) == (expected, pytest.approx(expected - lost))
    weights = directions * (first + second)
    assert size_metrics(layer)["sparsity"] == pytest.approx((HIDDEN * INPUTS + gates * HIDDEN) / weights)
    assert macs(Sequences(layer), torch.randn(3, 1, STEPS, INPUTS))[0] == expected


def test_a_projected_recurrent_layer():
    layer = without_zeros(nn.LSTM(INPUTS, HIDDEN, proj_size=2, batch_first=True))
    expected = STEPS * (4 * HIDDEN * (INPUTS + 2) + HIDDEN * 2)
    assert macs(Sequences(layer)) == (expected, expected)


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTMCell, 4), (nn.GRUCell, 3), (nn.RNNCell, 1)])
def test_recurrent_cells(kind, gates):
    cell = without_zeros(kind(INPUTS, HIDDEN))
    expected = STEPS * gates * HIDDEN * (INPUTS + HIDDEN)
    assert macs(Steps(cell)) == (expected, expected)


class Flat(nn.Module):
    """The image as one vector, through a layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images.flatten(1))


PIXELS = STEPS * INPUTS


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3)])
def test_dynamically_quantised_recurrent_layers(kind, gates):
    module = Sequences(kind(INPUTS, HIDDEN, num_layers=2, batch_first=True)).eval()
    sizes = size_metrics(module)["parameters"]
    quantised = quantization.quantize_dynamic(module, {kind}, dtype=torch.qint8)
    expected = STEPS * gates * HIDDEN * (INPUTS + HIDDEN + 2 * HIDDEN)
    executed, nonzero = macs(quantised)
    assert executed == expected
    assert nonzero == pytest.approx(expected - STEPS * zeros_of(quantised))
    assert size_metrics(quantised)["parameters"] == sizes


def zeros_of(module: nn.Module) -> int:
    return sum(int((weight.dequantize() == 0).sum()) for _, weight in prunable_weights(module))


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_dynamically_quantised_cells(kind):
    quantised = quantization.quantize_dynamic(Steps(kind(INPUTS, HIDDEN)).eval(), {kind}, dtype=torch.qint8)
    assert macs(quantised)[0] == macs(Steps(kind(INPUTS, HIDDEN)))[0]
    assert size_metrics(quantised)["parameters"] == size_metrics(kind(INPUTS, HIDDEN))["parameters"]


@pytest.mark.parametrize("dtype", [torch.qint8, torch.float16])
def test_dynamically_quantised_linear_layers(dtype):
    layer = nn.Sequential(nn.Linear(PIXELS, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        layer[0].weight.fill_(1)[:, ::4] = 0
        layer[2].weight.fill_(1)
    quantised = quantization.quantize_dynamic(Flat(layer).eval(), {nn.Linear}, dtype=dtype)
    assert macs(quantised) == (PIXELS * 8 + 24, PIXELS * 8 * 3 / 4 + 24)
    sizes = size_metrics(quantised)
    assert sizes["parameters"] == PIXELS * 8 + 8 + 24 + 3
    assert sizes["sparsity"] == pytest.approx(PIXELS * 2 / (PIXELS * 8 + 24))


class Quantisable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quantise, self.dequantise = quantization.QuantStub(), quantization.DeQuantStub()
        self.conv = nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2)
        self.relu = nn.ReLU()
        self.up = nn.ConvTranspose2d(8, 6, 3, stride=2)
        self.linear = nn.Linear(6, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = self.up(self.relu(self.conv(self.quantise(images))))
        return self.dequantise(self.linear(features.mean((2, 3))))


def test_statically_quantised_layers():
    image = torch.randn(1, 4, 8, 8)
    module = without_zeros(Quantisable()).eval()
    plain, sizes = macs(module, image), size_metrics(module)
    assert plain[0] == 4 * 4 * 8 * 2 * 9 + 8 * 4 * 4 * 6 * 9 + 60
    module = quantization.fuse_modules(module, [["conv", "relu"]])
    module.qconfig = quantization.get_default_qconfig("qnnpack")  # per tensor: transposed convolutions take no other
    quantization.prepare(module, inplace=True)
    module(image)
    quantization.convert(module, inplace=True)
    assert macs(module, image)[0] == plain[0]
    assert size_metrics(module)["parameters"] == sizes["parameters"]


def test_a_quantised_embedding_has_parameters():
    module = nn.Sequential(nn.EmbeddingBag(100, 16))
    module.qconfig = quantization.float_qparams_weight_only_qconfig
    quantization.prepare(module, inplace=True)
    quantization.convert(module, inplace=True)
    assert size_metrics(module)["parameters"] == 1600


@pytest.mark.parametrize("make", [lambda: Flat(nn.Linear(PIXELS, 8)), lambda: nn.Conv2d(1, 8, 3, padding=1)])
def test_masks_count_as_zeros(make):
    module = without_zeros(make())
    layer = getattr(module, "layer", module)
    dense, sizes = macs(module), size_metrics(module)
    prune.random_unstructured(layer, "weight", amount=0.5)
    left = layer.weight.numel() // 2
    assert macs(module) == (dense[0], dense[0] / 2)
    found = size_metrics(module)
    assert found["parameters"] == sizes["parameters"]
    assert found["nonzero_parameters"] == left + 8
    assert found["sparsity"] == 0.5
    with torch.no_grad():  # what the next pass uses, not what the last one left
        layer.weight_orig[layer.weight_mask == 1] = 0
    assert size_metrics(module)["sparsity"] == 1
    prune.remove(layer, "weight")


def test_masks_of_recurrent_layers_and_their_removal_agree():
    layer = without_zeros(nn.GRU(INPUTS, HIDDEN, batch_first=True))
    prune.l1_unstructured(layer, "weight_hh_l0", amount=30)
    masked, sizes = macs(Sequences(layer)), size_metrics(layer)
    prune.remove(layer, "weight_hh_l0")
    assert macs(Sequences(layer)) == masked
    assert masked[0] - masked[1] == pytest.approx(30 * STEPS)
    assert size_metrics(layer) == sizes


class HalfOf(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        mask = torch.ones_like(weight)
        mask[: len(weight) // 2] = 0
        return weight * mask


def test_parametrisations_count_as_they_are_used():
    layer = without_zeros(nn.Linear(PIXELS, 8))
    parametrize.register_parametrization(layer, "weight", HalfOf())
    assert macs(Flat(layer)) == (PIXELS * 8, PIXELS * 4)
    assert size_metrics(layer)["nonzero_parameters"] == PIXELS * 4 + 8
    normed = parametrizations.weight_norm(without_zeros(nn.Linear(PIXELS, 8)))
    assert macs(Flat(normed)) == (PIXELS * 8, PIXELS * 8)
    spectral = parametrizations.spectral_norm(without_zeros(nn.Linear(PIXELS, 8)))
    assert macs(Flat(spectral))[0] >= PIXELS * 8


class Functional(nn.Module):
    """One of several ways to multiply an image by a matrix of its own."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.matrix = nn.Parameter(torch.ones(8, PIXELS))
        self.register_buffer("mask", torch.ones(8, PIXELS))
        self.mask[:2] = 0

    def forward(self, images: Tensor) -> Tensor:
        rows, weight = images.flatten(1), self.matrix * self.mask
        ways = {
            "linear": lambda: functional.linear(rows, weight),
            "matmul": lambda: rows @ weight.T,
            "einsum": lambda: torch.einsum("np,op->no", rows, weight),
            "mv": lambda: weight @ rows[0],
            "addmv": lambda: torch.addmv(torch.ones(8), weight, rows[0]),
            "conv": lambda: functional.conv2d(images, weight.view(8, 1, STEPS, INPUTS)),
            "bmm": lambda: torch.bmm(rows[None], weight.T[None]),
            "addbmm": lambda: torch.addbmm(torch.ones(1, 8), rows[None], weight.T[None]),
            "tensordot": lambda: torch.tensordot(rows, weight, ([1], [1])),
            "baddbmm": lambda: torch.baddbmm(torch.zeros(1, 1, 8), rows[None], weight.T[None]),
            "addmm with a bias of zeros": lambda: torch.addmm(self.mask[:1, :8], rows, weight.T),
        }
        return ways[self.way]()


WAYS = ("linear", "matmul", "einsum", "mv", "addmv", "conv", "bmm", "addbmm", "tensordot", "baddbmm")


@pytest.mark.parametrize("way", [*WAYS, "addmm with a bias of zeros"])
def test_functional_calls_with_a_masked_weight(way):
    assert macs(Functional(way)) == (PIXELS * 8, PIXELS * 6)


def test_a_weight_that_is_no_parameter_counts_its_zeros():
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix = torch.eye(PIXELS)

        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1) @ self.matrix

    assert macs(Plain()) == (PIXELS**2, PIXELS)


def test_bilinear_layers():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = without_zeros(nn.Bilinear(PIXELS, PIXELS, 3))

        def forward(self, images: Tensor) -> Tensor:
            return self.layer(images.flatten(1), images.flatten(1))

    module = Twice()
    first, second = PIXELS * PIXELS * 3, PIXELS * 3
    assert macs(module) == (first + second, first + second)
    with torch.no_grad():
        module.layer.weight[0] = 0
    assert macs(module) == (first + second, pytest.approx(first * 2 / 3 + second))


def test_attention_of_torch_and_its_layers():
    tokens, width = STEPS, 8

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(INPUTS, width)
            self.layer = nn.TransformerEncoderLayer(width, 2, 16, batch_first=True)

        def forward(self, images: Tensor) -> Tensor:
            rows = self.embed(images.flatten(0, 1))
            return functional.scaled_dot_product_attention(rows, rows, rows) + self.layer(rows)

    expected = tokens * (INPUTS * width + 4 * width * width + 2 * width * 16) + 4 * tokens * tokens * width
    assert macs(without_zeros(Attention()))[0] == expected


def test_look_ups_count_nothing():
    class LookUp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.bag = nn.Embedding(10, 4), nn.EmbeddingBag(10, 4)

        def forward(self, images: Tensor) -> Tensor:
            indices = (images.flatten(1) > 0).long()
            return self.table(indices).mean(1) + self.bag(indices)

    assert macs(LookUp()) == (0, 0)


class ByNumpy(nn.Linear):
    """A layer whose work torch does not see."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.from_numpy(images.flatten(1).numpy() @ self.weight.detach().numpy().T)


@torch.library.custom_op("subnetbench_tests::fast_linear", mutates_args=())
def fast_linear(rows: Tensor, weight: Tensor) -> Tensor:
    return rows @ weight.T


class ByItsOwnOperation(nn.Linear):
    def forward(self, images: Tensor) -> Tensor:
        return fast_linear(images.flatten(1), self.weight)


class BySparseMatrix(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = torch.eye(PIXELS).to_sparse()

    def forward(self, images: Tensor) -> Tensor:
        return torch.sparse.mm(self.matrix, images.flatten(1).T)


class ByDistance(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        rows = images.flatten(0, 2)
        return torch.cdist(rows, rows)


@pytest.mark.parametrize(
    ("module", "named"),
    [
        (ByItsOwnOperation(PIXELS, 8), "subnetbench_tests.fast_linear in the network (ByItsOwnOperation)"),
        (nn.Sequential(ByNumpy(PIXELS, 8)), "weight of 0 (ByNumpy)"),
        (BySparseMatrix(), "in the network (BySparseMatrix)"),
        (ByDistance(), "_cdist_forward in the network (ByDistance)"),
    ],
    ids=["own operation", "NumPy", "sparse", "distances"],
)
def test_what_nothing_counts_is_refused_by_name(module, named):
    with pytest.raises(NotCounted) as error:
        mac_metrics(module.eval(), IMAGE)
    assert named in str(error.value)
    assert len(error.value.operations) == 1


def test_a_sparse_parameter_counts_its_elements_that_are_not_zero():
    layer = nn.Linear(PIXELS, 8, bias=False)
    with torch.no_grad():
        layer.weight[:2] = 0
    layer.weight = nn.Parameter(layer.weight.detach().to_sparse(), requires_grad=False)
    sizes = size_metrics(layer)
    assert (sizes["parameters"], sizes["nonzero_parameters"]) == (8 * PIXELS, 6 * PIXELS)


def test_a_run_whose_macs_are_not_known_says_so(caplog):
    assert _macs("full", ByItsOwnOperation(PIXELS, 8).eval(), IMAGE) == {"uncounted_operations": 1}
    assert "full: multiply-accumulates are not known of subnetbench_tests.fast_linear" in caplog.text
