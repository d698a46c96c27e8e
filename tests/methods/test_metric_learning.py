"""Losses, miners and samplers of pytorch-metric-learning as a method."""

import numpy as np
import pytest
import torch
from pytorch_metric_learning import losses, miners
from pytorch_metric_learning.utils import common_functions
from safetensors.torch import load_file
from torch import nn

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.rng import numpy_generator
from subnetbench.harness.execution.local import run_locally
from subnetbench.harness.execution.plan import plan_runs
from subnetbench.harness.execution.run import execute
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.method.resolve import resolve
from subnetbench.harness.method.stages import Optimization, Progress, Stage
from subnetbench.harness.method.step import Batch, LogSums, Step
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.testing.conformance import check_resumes_bit_for_bit, check_trains_and_evaluates
from subnetbench.harness.testing.short_runs import short_spec
from subnetbench.harness.testing.trials import Trials
from subnetbench.methods.metric_learning import KINDS, MetricLearning
from subnetbench.methods.parts.networks.embedding import EmbeddingNetwork
from subnetbench.methods.parts.networks.pooling import make_pool

CLASSES, DIM = 4, 6


class Here:
    """One process: enough of a world, and of a context with labels, for the hooks."""

    size, rank, device = 1, 0, torch.device("cpu")

    def __init__(self, labels: np.ndarray) -> None:
        self.world = self
        self.seed = 0
        self.data = self
        self.train = self
        self.labels = labels
        self.num_classes = int(labels.max()) + 1

    def __len__(self) -> int:
        return len(self.labels)

    def numpy_generator(self, *key):
        return numpy_generator(self.seed, *key)

    def autocast(self):
        return torch.autocast("cpu", enabled=False)

    def sum_(self, tensors):
        pass

    def gather_rows(self, rows):
        return rows

    gather_with_gradient = gather_rows


def method_and_modules(**config):
    torch.manual_seed(0)
    method = MetricLearning(MetricLearning.Config(batch_size=16, **config))
    network = EmbeddingNetwork(nn.Conv2d(3, 5, 3), make_pool("spoc", 5), 5, DIM)
    kind = KINDS[method.config.loss]
    loss = kind.loss(**({"num_classes": CLASSES, "embedding_size": DIM} if kind.proxies else {}))
    return method, nn.ModuleDict({"network": network, "loss": loss})


def batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(CLASSES).repeat_interleave(4)
    return Batch(np.arange(16), torch.randn(16, 3, 6, 6, generator=generator) + labels.view(-1, 1, 1, 1), labels)


def step_of(method, modules, batch) -> Step:
    return Step(
        micro_batches=batch.pieces(method.config.micro_batch_size),
        global_size=len(batch),
        progress=Progress(0, 10, 0, 1, 10),
        optimizations={
            name: Optimization(each.optimizer)
            for name, each in method.optimizers(modules, Stage("train", 1), Here(batch.labels.numpy())).items()
        },
        world=Here(batch.labels.numpy()),
        seed=0,
        stage="train",
        buffers=[],
        logs=LogSums(torch.device("cpu")),
    )


EXPECTED = {
    "triplet": (losses.TripletMarginLoss(), miners.TripletMarginMiner(margin=0.1, type_of_triplets="semihard")),
    "multi_similarity": (losses.MultiSimilarityLoss(), miners.MultiSimilarityMiner(epsilon=0.1)),
}


@pytest.mark.parametrize("loss", EXPECTED)
def test_pair_losses_are_the_library_s_on_what_its_miner_finds(loss):
    method, modules = method_and_modules(loss=loss)
    data = batch()
    found = method.loss(modules, data, step_of(method, modules, data))["loss"]
    criterion, miner = EXPECTED[loss]
    embeddings = modules["network"](data.images)
    torch.testing.assert_close(found, criterion(embeddings, data.labels, miner(embeddings, data.labels)))
    unmined = criterion(embeddings, data.labels)
    assert not torch.isclose(found, unmined)
    method, modules = method_and_modules(loss=loss, miner="none")
    torch.testing.assert_close(method.loss(modules, data, step_of(method, modules, data))["loss"], unmined)


@pytest.mark.parametrize("loss", KINDS)
def test_every_loss_falls_on_a_batch_that_comes_again(loss):
    method, modules = method_and_modules(loss=loss, lr=0.01, schedule="constant")
    data = batch()
    step = step_of(method, modules, data)
    start = {name: tensor.clone() for name, tensor in modules.state_dict().items()}
    before = method.loss(modules, data, step)["loss"]
    for _ in range(40):
        method.training_step(modules, step)
    assert method.loss(modules, data, step)["loss"] < 0.9 * before
    assert all(not torch.equal(tensor, start[name]) for name, tensor in modules.state_dict().items())


@pytest.mark.parametrize("loss", [name for name, kind in KINDS.items() if kind.of_samples])
def test_losses_of_samples_allow_micro_batches(loss):
    gradients = []
    for size in (None, 5):
        method, modules = method_and_modules(loss=loss, micro_batch_size=size)
        step = step_of(method, modules, batch())
        step.update = lambda *names: None
        method.training_step(modules, step)
        gradients.append([parameter.grad for parameter in modules.parameters()])
    for whole, parts in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, parts)


def test_proxies_have_their_own_rate():
    method, modules = method_and_modules(loss="cosface", lr=1e-4, proxy_lr=0.3, proxy_weight_decay=0.5)
    groups = method.optimizers(modules, Stage("train", 1), None)["weights"].optimizer.param_groups
    (of_proxies,) = [group for group in groups if group["params"][0] is modules["loss"].W]
    assert (of_proxies["lr"], of_proxies["weight_decay"]) == (0.3, 0.5)
    assert {group["lr"] for group in groups if group is not of_proxies} == {1e-4}


def test_class_balanced_batches_follow_the_seed_and_leave_numpy_alone():
    labels = np.repeat(np.arange(10), [3] + [7] * 9)
    context = Here(labels)
    method = MetricLearning(MetricLearning.Config(batch_size=12, samples_per_class=4))

    def plan(epoch):
        return np.stack(list(method.plan_epoch(None, Stage("train", 9), epoch, context)))

    first = plan(0)
    assert common_functions.NUMPY_RANDOM is np.random
    assert first.shape == (66 // 12, 12)
    for row in first:
        assert sorted(np.unique(labels[row], return_counts=True)[1]) == [4, 4, 4]
    assert (plan(0) == first).all()
    assert (plan(1) != first).any()
    context.seed = 1
    assert (plan(0) != first).any()


def test_too_few_classes_for_a_batch():
    method = MetricLearning(MetricLearning.Config(batch_size=64))
    with pytest.raises(UserError, match=r"config\.batch_size"):
        method.plan_epoch(None, Stage("train", 1), 0, Here(np.repeat(np.arange(5), 20)))


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"loss": "triplet", "scale": 10}, "scale"),
        ({"loss": "arcface", "miner": "batch_hard"}, "miner"),
        ({"loss": "multi_similarity", "miner": "triplet_margin"}, "miner"),
        ({"loss": "triplet", "decorrelation_weight": 0.1}, "decorrelation_weight"),
        ({"loss": "proxy_anchor", "micro_batch_size": 8}, "micro_batch_size"),
        ({"loss": "triplet", "batch_size": 18}, "batch_size"),
        ({"loss": "contrastive"}, "loss"),
    ],
)
def test_options_that_do_not_go_together(config, field):
    with pytest.raises(UserError, match=field):
        MetricLearning.Config.parse(config)


@pytest.mark.slow
@pytest.mark.parametrize("loss", KINDS)
def test_proxies_are_checkpointed(loss, tmp_path, monkeypatch):
    monkeypatch.setattr(MetricLearning, "tiny", {**MetricLearning.tiny, "loss": loss})
    check_resumes_bit_for_bit(Trials("metric_learning", tmp_path))


@pytest.mark.slow
def test_decorrelated_proxies_run(tmp_path, monkeypatch):
    extra = {"loss": "normalised_softmax", "decorrelation_weight": 1.0, "temperature": 0.1}
    monkeypatch.setattr(MetricLearning, "tiny", {**MetricLearning.tiny, **extra})
    check_trains_and_evaluates(Trials("metric_learning", tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["triplet", "proxy_anchor", "arcface"])
def test_two_ranks_train_what_one_trains(loss, tmp_path):
    """On a backbone without batch norm; pairs reach over ranks."""
    config = {
        **short_spec("metric_learning").config,
        "network": "timm/convnext_atto",
        "image_size": 32,
        "optimizer": "sgd",
        "lr": 0.05,
        "loss": loss,
        "sampler": "shuffle",
        "batch_size": 14,
        "epochs": 1,
    }
    weights = []
    for processes in (1, 2):
        spec = resolve("metric_learning", "emoji", config=config, compute={"processes": processes, "device": "cpu"})
        if processes == 1:
            assert execute(spec, tmp_path, RunSettings(trackers=())) == "finished"
        else:
            statuses = run_locally(plan_runs([spec], tmp_path), tmp_path, RunSettings(trackers=()), slots=2)
            assert statuses == {spec.run_id: "finished"}
        weights.append(load_file(RunFolder(tmp_path, spec.run_id).model_file))
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        torch.testing.assert_close(
            weights[1][name], tensor, rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
        )
