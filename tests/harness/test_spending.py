"""What trainings spend, against counts by hand; resumption, ranks, caches and unlike steps do not change it."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from subnetbench.harness.distributed.energy import EnergyMeter
from subnetbench.harness.distributed.world import open_world
from subnetbench.harness.execution.local import run_locally
from subnetbench.harness.execution.plan import plan_runs
from subnetbench.harness.execution.run import execute, load_data
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.method.context import Context
from subnetbench.harness.method.registry import get_method
from subnetbench.harness.method.resolve import resolve
from subnetbench.harness.records.read import read_records
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.spent import Ledger, Spent
from subnetbench.harness.testing.short_runs import train_inputs
from subnetbench.harness.training import spending
from subnetbench.harness.training.monitor import Interrupted, Monitor
from subnetbench.harness.training.spending import Spending, SpendingCounter
from subnetbench.harness.training.train import train
from subnetbench.harness.training.trained_run import open_inputs

SHORT = {"epochs": 2, "batch_size": 16, "limit_steps": 2}
IMAGES = 2 * 2 * 16
CONV2 = {**SHORT, "network": "conv2", "image_size": 8}
# Per image of conv2 at 8 x 8: 3 -> 64 and 64 -> 64 channels, 3 x 3, then 1024 -> 256 -> 256 -> 8.
FIRST = 8 * 8 * 64 * 27
FORWARD = FIRST + 8 * 8 * 64 * 64 * 9 + 1024 * 256 + 256 * 256 + 256 * 8
# Backward: gradients of all weights and of all inputs but the images.
STEP = 3 * FORWARD - FIRST
# Of cnn8-8 at 16 x 16 with an embedding of 16 and 200 classes.
RETRIEVAL = {**SHORT, "network": "cnn8-8", "image_size": 16, "dim": 16}
EMBED_FIRST = 8 * 8 * 8 * 27
EMBED = EMBED_FIRST + 4 * 4 * 8 * 72 + 8 * 16
CLASSIFY = 16 * 200


def spent(method, config, tmp_path, *, inputs=None, stop_after=None, folder="run"):
    spec = resolve(method, "emoji", config=config, compute={"device": "cpu"}, inputs=inputs)
    train_inputs(spec, tmp_path)
    run = RunFolder(tmp_path / folder, spec.run_id)
    run.create(spec.model_dump_json())
    cls, world = get_method(method), open_world(spec.compute)
    polls = iter(range(10**9))
    try:
        context = Context(
            spec=spec,
            data=load_data(spec, RunSettings().data_root),
            world=world,
            inputs=open_inputs(spec, tmp_path, world),
            cache=tmp_path / "cache",
            scratch=run.path,
        )
        stop = lambda: stop_after is not None and next(polls) >= stop_after - 1  # noqa: E731
        monitor = Monitor(world, run, stop_requested=stop)
        return train(cls(cls.Config.parse(spec.config)), context, monitor=monitor, folder=run).spending
    finally:
        world.close()


def test_a_dense_network(tmp_path):
    assert spent("dense", CONV2, tmp_path) == Spending(macs=IMAGES * STEP, images=IMAGES, steps=4)


@pytest.mark.parametrize("size", [4, 5, 16])
def test_micro_batches_cost_the_same(tmp_path, size):
    found = spent("dense", {**CONV2, "micro_batch_size": size}, tmp_path)
    assert found == Spending(macs=IMAGES * STEP, images=IMAGES, steps=4)


@pytest.mark.parametrize("method", ["edge_popup", "aslp", "supermask"])
def test_masked_weights_are_multiplied_in_full(tmp_path, method):
    assert spent(method, CONV2, tmp_path).macs == IMAGES * STEP


def test_every_capacity_of_prunnet_is_a_pass(tmp_path):
    config = {**RETRIEVAL, "capacities": (0.5, 0.2), "gradients": "sum", "recalibration": "none"}
    forward = EMBED + CLASSIFY
    expected = Spending(macs=3 * IMAGES * (3 * forward - EMBED_FIRST), images=IMAGES, steps=4)
    assert spent("prunnet", config, tmp_path) == expected
    # Behind training each of the three networks sees images to collect its batch-norm statistics.
    recalibrated = spent("prunnet", {**config, "recalibration": "cumulative", "recalibration_images": 32}, tmp_path)
    assert recalibrated.macs == expected.macs + 3 * 32 * EMBED


def test_every_width_of_switchnet_is_a_pass_over_fewer_channels(tmp_path):
    options = {**RETRIEVAL, "capacities": (0.25,), "training": "joint", "recalibration": "none"}
    narrow_first, narrow = 8 * 8 * 4 * 27, 8 * 8 * 4 * 27 + 4 * 4 * 4 * 36 + 4 * 16
    full = 3 * (EMBED + CLASSIFY) - EMBED_FIRST
    half = 3 * (narrow + CLASSIFY) - narrow_first
    assert spent("switchnet", options, tmp_path).macs == IMAGES * (full + half)


def test_a_frozen_teacher_counts_its_forward_pass(tmp_path):
    student = {**RETRIEVAL, "image_size": 8, "views": 2, "loss": "aml_regression", "mixup_alpha": 0}
    teacher = {"teacher": {"method": "triplet", "config": RETRIEVAL}}
    small_first = 4 * 4 * 8 * 27
    small = small_first + 2 * 2 * 8 * 72 + 8 * 16
    per_view = 3 * small - small_first + EMBED
    found = spent("distillation", student, tmp_path, inputs=teacher)
    assert found == Spending(macs=2 * IMAGES * per_view, images=IMAGES, steps=4)


def test_targets_from_the_cache_have_cost_what_they_cost(tmp_path):
    student = {**RETRIEVAL, "mode": "ts_reg", "loss": "aml_regression"}
    teacher = {"teacher": {"method": "triplet", "config": RETRIEVAL}}
    first = spent("distillation", student, tmp_path, inputs=teacher)
    assert list((tmp_path / "cache").glob("*.npy"))
    assert spent("distillation", student, tmp_path, inputs=teacher, folder="again") == first
    data = load_data(resolve("triplet", "emoji"), RunSettings().data_root)
    # Both epochs look them up, the first one computes them.
    assert first.macs == IMAGES * (3 * EMBED - EMBED_FIRST) + len(data.train) * EMBED


def test_epochs_and_stages_add_up(tmp_path):
    one = spent("magnitude", {**CONV2, "epochs": 1, "finetune_epochs": 1}, tmp_path)
    assert one.macs == IMAGES * STEP
    assert one.steps == 4


@pytest.mark.parametrize(
    ("method", "config", "inputs"),
    [
        (
            "distillation",
            {**RETRIEVAL, "mode": "ts_reg", "loss": "aml_regression"},
            {"teacher": {"method": "triplet", "config": RETRIEVAL}},
        ),
        ("dense", {**CONV2, "limit_steps": None, "batch_size": 300}, None),
        ("prunnet", {**RETRIEVAL, "capacities": (0.5,)}, None),
        ("triplet", RETRIEVAL, None),
        ("distillation", {**RETRIEVAL, "image_size": 8}, {"teacher": {"method": "triplet", "config": RETRIEVAL}}),
        ("lottery_ticket", {**CONV2, "epochs": 1}, None),
    ],
)
def test_resumed_runs_count_the_same(tmp_path, method, config, inputs):
    straight = spent(method, config, tmp_path, inputs=inputs)
    stops, resumed = 0, None
    while resumed is None:
        try:
            resumed = spent(method, config, tmp_path, inputs=inputs, stop_after=2, folder="stopped")
        except Interrupted:
            stops += 1
    assert stops > 2
    assert resumed == straight


def test_checkpoints_of_versions_that_did_not_count_leave_it_unknown(tmp_path, monkeypatch):
    with pytest.raises(Interrupted):
        spent("dense", CONV2, tmp_path, stop_after=2)
    monkeypatch.setattr(SpendingCounter, "load", lambda self, _, load=SpendingCounter.load: load(self, None))
    assert spent("dense", CONV2, tmp_path) == Spending()


def test_ranks_add_up(tiny_spec, tmp_path):
    rows = []
    for processes in (1, 2):
        spec = tiny_spec(processes=processes, batch_size=33)
        out = tmp_path / str(processes)
        assert run_locally(plan_runs([spec], out), out, RunSettings(trackers=()), slots=2)[spec.run_id] == "finished"
        (row,) = read_records([out]).runs.to_pylist()
        rows.append({name: row[name] for name in ("training_macs", "images_seen", "steps", "input_training_macs")})
    assert rows[0] == rows[1]
    assert rows[0]["images_seen"] == 2 * 3 * 33


def test_pruned_runs_record_what_they_spent_until_then(tiny_spec, tmp_path):
    spec = tiny_spec(epochs=3)
    prune = lambda epochs_done, value: epochs_done == 2  # noqa: E731
    assert execute(spec, tmp_path, RunSettings(trackers=()), should_prune=prune) == "pruned"
    (row,) = read_records([tmp_path]).runs.to_pylist()
    assert (row["status"], row["steps"], row["images_seen"]) == ("pruned", 2 * 3, 2 * 3 * 64)
    assert row["training_macs"] == 2 * 3 * 64 * STEP


class Alone:
    """Enough of a world for a counter."""

    size, rank, is_main, device = 1, 0, True, torch.device("cpu")

    def gather_objects(self, value):
        return [value]


def test_steps_that_differ_are_counted_one_by_one():
    layer, counter = nn.Linear(2, 1), SpendingCounter(Alone())
    for passes in (1, 3, 2, 5, 4):
        with counter.step("one kind", 1):
            for _ in range(passes):
                layer(torch.ones(1, 2))
    assert counter.total().macs == 2 * 15


def test_alike_steps_are_counted_twice_and_then_now_and_again():
    counted, counter = [], SpendingCounter(Alone())
    layer = nn.Linear(2, 1)
    for number in range(250):
        before = spending.counted
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                spending, "counted", lambda rows, before=before, number=number: counted.append(number) or before(rows)
            )
            with counter.step("one kind", 3):
                layer(torch.ones(1, 2))
    assert counted == [0, 1, 99]
    assert counter.total() == Spending(macs=500, images=750, steps=250)


def test_inputs_count_once_however_often_they_are_used():
    teacher = Ledger.of(Spent("t", training_macs=100), [])
    student = Ledger.of(Spent("s", training_macs=10), [teacher])
    cascade = Ledger.of(Spent("c", training_macs=1), [student, teacher])
    assert cascade.input_training_macs == 110
    assert [each.run_id for each in cascade.inputs] == ["t", "s"]
    assert Ledger.from_json(json.loads(cascade.to_text())) == cascade
    unknown = Ledger.of(Spent("d", training_macs=1), [Ledger.of(Spent("x"), []), teacher])
    assert unknown.input_training_macs is None


def test_a_cascade_counts_its_levels_and_their_teacher_once(tmp_path):
    """Its levels are a student of the two-tower network, and that network."""
    cascade = get_method("cascade")
    spec = resolve("cascade", "emoji", config=cascade.tiny, compute={"device": "cpu"}, inputs=cascade.tiny_inputs)
    for each in (*spec.dependencies(), spec):
        assert execute(each, tmp_path, RunSettings(trackers=())) == "finished"
    found = read_records([tmp_path])
    rows = {row["run_id"]: row for row in found.runs.to_pylist()}
    own = rows.pop(spec.run_id)
    assert own["steps"] == 0
    assert own["training_macs"] > 0  # choosing the share embeds the validation images by both levels
    assert own["input_training_macs"] == sum(row["training_macs"] for row in rows.values())
    scores = [row for row in found.scores.to_pylist() if found.runs["run_id"][row["run"]].as_py() == spec.run_id]
    origins = {row["variant"]: row["origin"] for row in scores if row["split"] == "test" and row["origin"]}
    assert origins == {"level0": "clip_student", "level1": "two_tower"}
    assert {row["origin"] for row in scores if row["variant"] == "cascade"} == {""}
    inputs = Ledger.from_json(json.loads(own["spent_json"])).inputs
    assert {each.method: each.variants for each in inputs} == {"clip_student": ("level0",), "two_tower": ("level1",)}


def rapl(folder, microjoules, *, wraps_at=1000):
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "energy_uj").write_text(f"{microjoules}\n")
        (folder / name / "max_energy_range_uj").write_text(f"{wraps_at}\n")


def test_energy_of_processor_packages_is_added_up_over_wraps(tmp_path):
    rapl(tmp_path, 900)
    meter = EnergyMeter(torch.device("cpu"), tmp_path)
    assert meter.sample() == 0
    rapl(tmp_path, 950)
    assert meter.sample() == pytest.approx(2 * 50e-6)
    rapl(tmp_path, 50)  # began again at 1000
    assert meter.sample() == pytest.approx(2 * 150e-6)
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    assert meter.sample() is None


def test_energy_is_unknown_where_the_device_does_not_tell(tmp_path):
    assert EnergyMeter(torch.device("cpu"), tmp_path / "nothing").sample() is None
    assert EnergyMeter(torch.device("cuda"), tmp_path).sample() is None


def test_energy_of_a_gpu(monkeypatch):
    millijoules = iter([5000, 8000])
    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: {"GPU-1234": "handle"}[uuid],
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(millijoules),
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1234"))
    meter = EnergyMeter(torch.device("cuda"))
    assert meter.sample() == 3.0
    assert meter.device.endswith("/1234")


def test_ranks_of_one_device_count_its_energy_once():
    class Two(Alone):
        size = 2

        def gather_objects(self, value):
            return [value, value]

    counter = SpendingCounter(Two())
    counter._meter = SimpleNamespace(device="here", sample=lambda: 7.0)
    counter.load(
        {"known": True, "images": 1, "steps": 1, "joules": 3.0, "rows": [], "ranks": [{"macs": 5, "kinds": {}}] * 2}
    )
    assert counter.total() == Spending(macs=10, images=1, steps=1, joules=10.0)
