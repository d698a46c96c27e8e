"""The training loop in this process: gradients over micro-batches, selection, early stop, failures."""

import numpy as np
import pytest
import torch
from torch import nn

from subnetbench.harness.core.errors import RunFailure, UserError
from subnetbench.harness.data.images import TensorImages
from subnetbench.harness.data.splits import Split
from subnetbench.harness.method.registry import get_method
from subnetbench.harness.method.stages import Optimization, Progress, Stage
from subnetbench.harness.method.step import Batch, LogSums, Step
from subnetbench.harness.testing.short_runs import train_here
from subnetbench.harness.training.monitor import Monitor
from subnetbench.harness.training.prefetch import batches_ahead


class OneProcess:
    """Enough of a world for a step."""

    size, rank, is_main = 1, 0, True
    device = torch.device("cpu")

    def autocast(self):
        return torch.autocast("cpu", enabled=False)

    def sum_(self, tensors):
        pass


def make_step(micro_batches, parameters, *, buffers=(), **options):
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    return Step(
        micro_batches=micro_batches,
        global_size=sum(map(len, micro_batches)),
        progress=Progress(0, 10, 0, 1, 10),
        optimizations={"weights": Optimization(optimizer, **options)},
        world=OneProcess(),
        seed=0,
        stage="train",
        buffers=buffers,
        logs=LogSums(torch.device("cpu")),
    )


def batch_of(n):
    generator = torch.Generator().manual_seed(n)
    images = torch.randn(n, 6, generator=generator, dtype=torch.float64)
    return Batch(np.arange(n), images, torch.randint(0, 3, (n,), generator=generator))


@pytest.mark.parametrize("size", [1, 3, 5, 7, 100])
def test_micro_batches_give_the_gradient_of_the_whole_batch(size):
    batch, network = batch_of(11), nn.Linear(6, 3).double()

    def loss(part):
        return {"loss": nn.functional.cross_entropy(network(part.images), part.labels)}

    loss(batch)["loss"].backward()
    expected = [p.grad.clone() for p in network.parameters()]
    step = make_step(batch.pieces(size), network.parameters())
    for found, wanted in zip(step.gradients(loss, list(network.parameters())), expected, strict=True):
        torch.testing.assert_close(found, wanted)
    step.backward(loss)
    for parameter, wanted in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, wanted)


def test_sums_are_added_up_over_micro_batches():
    batch, network = batch_of(9), nn.Linear(6, 3).double()

    def loss(part):
        return {"loss": nn.functional.cross_entropy(network(part.images), part.labels, reduction="sum")}

    loss(batch)["loss"].backward()
    step = make_step(batch.pieces(4), network.parameters())
    found = step.gradients(loss, [network.weight], reduction="sum")
    torch.testing.assert_close(found[0], network.weight.grad)


def test_a_gradient_that_does_not_exist_is_none():
    used, unused = nn.Parameter(torch.ones(6, dtype=torch.float64)), nn.Parameter(torch.ones(2))
    step = make_step([batch_of(4)], [used, unused])
    gradients = step.gradients(lambda part: {"loss": (part.images * used).sum()}, [used, unused])
    assert gradients[0] is not None
    assert gradients[1] is None
    step.backward(lambda part: {"loss": (part.images * used).sum()}, [used])
    assert unused.grad is None


@pytest.mark.parametrize("keeps", [False, True])
def test_micro_batches_move_running_statistics_once(keeps):
    """To the mean of what each micro-batch alone would have moved them to, by numbers of samples."""
    batch, norm = batch_of(10), nn.BatchNorm1d(6).double()
    pieces = batch.pieces(4)
    mean, variance = torch.zeros(6).double(), torch.zeros(6).double()
    for piece in pieces:
        alone = nn.BatchNorm1d(6).double()
        alone(piece.images)
        mean += alone.running_mean * len(piece) / len(batch)
        variance += alone.running_var * len(piece) / len(batch)
    step = make_step(pieces, norm.parameters(), buffers=list(norm.buffers()))
    step.backward(lambda part: {"loss": norm(part.images).square().sum()}, keeps_statistics=keeps)
    if keeps:
        assert int(norm.num_batches_tracked) == len(pieces)
    else:
        assert int(norm.num_batches_tracked) == 1
        torch.testing.assert_close(norm.running_mean, mean)
        torch.testing.assert_close(norm.running_var, variance)


def test_clipping_bounds_the_norm_of_an_update():
    parameter = nn.Parameter(torch.zeros(6, dtype=torch.float64))
    step = make_step([batch_of(4)], [parameter], clip_norm=1.0)
    step.backward(lambda part: {"loss": 1000 * (part.images * parameter).sum()})
    step.update()
    assert parameter.detach().norm().item() == pytest.approx(0.1, rel=1e-6)


def test_logs_are_weighted_means(tiny_spec):
    logs = LogSums(torch.device("cpu"))
    logs.add({"loss": torch.tensor(1.0)}, 0.25)
    logs.add({"loss": torch.tensor(5.0)}, 0.75)
    assert logs.means(OneProcess()) == {"loss": 4.0}


def test_best_weights_come_back_at_the_end(tiny_spec, tmp_path, monkeypatch):
    dense = get_method("dense")
    values = iter([0.2, 0.9, 0.1, 0.3])
    seen = []

    def validate(self, modules, stage, context):
        seen.append({name: value.clone() for name, value in modules.state_dict().items()})
        return {"top1": next(values)}

    monkeypatch.setattr(dense, "validate", validate)
    with train_here(tiny_spec(epochs=4), tmp_path, inputs=tmp_path) as (_, modules, _):
        for name, value in modules.state_dict().items():
            assert torch.equal(value, seen[1][name])
            assert name.endswith("bias") or not torch.equal(value, seen[3][name])


def test_patience_ends_a_stage(tiny_spec, tmp_path, monkeypatch):
    calls = []
    values = iter([0.5, 0.4, 0.3, 0.2, 0.1, 0.0])
    monkeypatch.setattr(get_method("dense"), "validate", lambda *_: {"top1": calls.append(1) or next(values)})
    with train_here(tiny_spec(epochs=6, patience=2), tmp_path, inputs=tmp_path):
        assert len(calls) == 3


def test_epochs_that_do_not_count_select_nothing_and_are_not_waited_for(tiny_spec, tmp_path, monkeypatch):
    dense = get_method("dense")
    values, seen, asked = iter([0.9, 0.8, 0.3, 0.2, 0.1]), [], []

    def validate(self, modules, stage, context):
        seen.append({name: value.clone() for name, value in modules.state_dict().items()})
        return {"top1": next(values)}

    monkeypatch.setattr(dense, "validate", validate)
    monkeypatch.setattr(dense, "stages", lambda self, context: [Stage("train", self.config.epochs, counts_from=3)])
    start = Monitor.__init__
    watched = {"should_prune": lambda done, value: asked.append(done)}
    monkeypatch.setattr(Monitor, "__init__", lambda self, *args, **named: start(self, *args, **{**named, **watched}))
    with train_here(tiny_spec(epochs=5, patience=1), tmp_path, inputs=tmp_path) as (_, modules, _):
        for name, value in modules.state_dict().items():
            assert torch.equal(value, seen[2][name])
    assert len(seen) == 4
    assert asked == [3, 4]


@pytest.mark.parametrize("first", [0, 5])
def test_a_stage_of_which_no_epoch_counts_is_refused(first):
    with pytest.raises(UserError, match="counts_from"):
        Stage("train", 4, counts_from=first)


def test_a_loss_that_is_not_finite_ends_the_run(tiny_spec, tmp_path):
    with (
        pytest.raises(RunFailure, match="training loss is nan") as caught,
        train_here(tiny_spec(lr=1e30, epochs=3), tmp_path, inputs=tmp_path),
    ):
        pass
    assert caught.value.reason == "nan"


class Slow(TensorImages):
    """Images that claim not to be in memory."""

    @property
    def tensor(self):
        return None


def test_batches_made_ahead_come_in_order_and_errors_arrive():
    images = Slow(torch.zeros(4, 1, 2, 2, dtype=torch.uint8))
    plan = [np.array([i]) for i in range(6)]
    assert [list(batch) for batch in batches_ahead(lambda indices: indices, plan, images)] == [[i] for i in range(6)]

    def broken(indices):
        if indices[0] == 2:
            raise ValueError("decoding failed")
        return indices

    with pytest.raises(ValueError, match="decoding failed"):
        list(batches_ahead(broken, plan, images))


def test_abandoned_batches_leave_no_thread():
    import threading

    images = Slow(torch.zeros(4, 1, 2, 2, dtype=torch.uint8))
    ahead = batches_ahead(lambda indices: indices, [np.array([i]) for i in range(50)], images)
    next(ahead)
    ahead.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "batches-ahead"]


def test_split_refuses_what_does_not_fit():
    images = TensorImages(torch.zeros(4, 1, 2, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match="4 images but 3 labels"):
        Split(name="train", images=images, labels=np.zeros(3, np.int64))
