import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.method.stages import Progress
from subnetbench.methods.parts.optim.schedules import (
    SCHEDULES,
    Cosine,
    Cyclic,
    Exponential,
    MultiStep,
    OneCycle,
    make_schedule,
    raml_schedule,
)


def progress(step: int, epochs: int = 10, steps_per_epoch: int = 6) -> Progress:
    return Progress(step, epochs * steps_per_epoch, step // steps_per_epoch, epochs, steps_per_epoch)


def optimizer(*peaks: float, momentum: float = 0.9) -> torch.optim.SGD:
    return torch.optim.SGD([{"params": torch.zeros(1), "lr": peak} for peak in peaks], momentum=momentum)


def course(schedule, peaks=(0.1,), epochs: int = 10, steps_per_epoch: int = 6) -> list[list[float]]:
    """Learning rates of all groups, and the momentum, at each step."""
    trained = optimizer(*peaks)
    rows = []
    for step in range(epochs * steps_per_epoch):
        schedule.apply(trained, progress(step, epochs, steps_per_epoch))
        rows.append([*(group["lr"] for group in trained.param_groups), trained.param_groups[0]["momentum"]])
    return rows


def torch_course(make, peaks=(0.1,), epochs: int = 10, steps_per_epoch: int = 6, per_epoch: bool = False):
    trained = optimizer(*peaks)
    scheduler = make(trained)
    rows = []
    for step in range(epochs * steps_per_epoch):
        rows.append([*(group["lr"] for group in trained.param_groups), trained.param_groups[0]["momentum"]])
        trained.step()
        if not per_epoch or (step + 1) % steps_per_epoch == 0:
            scheduler.step()
    return rows


def assert_same(mine, theirs):
    torch.testing.assert_close(torch.tensor(mine), torch.tensor(theirs))


def test_one_cycle_is_torchs_with_a_peak_for_each_group():
    peaks = (0.1, 1.0)
    theirs = torch_course(
        lambda o: torch.optim.lr_scheduler.OneCycleLR(
            o, list(peaks), total_steps=60, div_factor=10, final_div_factor=1e4
        ),
        peaks,
    )
    assert_same(course(OneCycle(), peaks), theirs)


def test_cyclic_is_torchs_triangular2():
    theirs = torch_course(
        lambda o: torch.optim.lr_scheduler.CyclicLR(
            o, 0.01, 0.1, step_size_up=10, mode="triangular2", cycle_momentum=False
        )
    )
    assert_same(course(Cyclic(cycles=3)), theirs)


def test_cosine_by_epochs_is_torchs_annealing():
    theirs = torch_course(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 10, eta_min=0.001), per_epoch=True)
    assert_same(course(Cosine(final=0.01, per_epoch=True)), theirs)


def test_multistep_and_exponential_are_torchs():
    steps = torch_course(lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [3, 7], 0.2), per_epoch=True)
    assert_same(course(MultiStep(milestones=(3, 7), gamma=0.2)), steps)
    assert_same(course(MultiStep(milestones=(3, 7), gamma=(0.2, 0.2))), steps)
    decay = torch_course(lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9), per_epoch=True)
    assert_same(course(Exponential(gamma=0.9)), decay)


def test_warm_up_rises_linearly_to_the_peak_and_the_cosine_ends_at_its_final_value():
    for per_epoch, steps_per_epoch in ((False, 6), (True, 1)):
        schedule = Cosine(warmup_epochs=4, final=0.05, per_epoch=per_epoch)
        rates = [row[0] / 0.1 for row in course(schedule, steps_per_epoch=steps_per_epoch)]
        rise = 4 * steps_per_epoch
        assert rates[:rise] == pytest.approx([(i + 1) / rise for i in range(rise)])
        assert all(a > b for a, b in zip(rates[rise:], rates[rise + 1 :], strict=False))
        assert schedule.factor(progress(10 * steps_per_epoch, 10, steps_per_epoch)) == pytest.approx(0.05)


@pytest.mark.parametrize("name", SCHEDULES)
@given(share=st.integers(0, 9), finer=st.integers(2, 5))
def test_the_curve_does_not_depend_on_the_number_of_steps_in_an_epoch(name, share, finer):
    # One-cycle's phases end one step early, which vanishes with the number of steps.
    options = {"multistep": {"milestones": (4, 8)}, "cosine": {"warmup_epochs": 0.5}}.get(name, {})
    schedule = make_schedule(name, **options)
    coarse = schedule.factor(progress(share * 1000 + 999, steps_per_epoch=1000))
    fine = schedule.factor(progress((share * 1000 + 999) * finer, steps_per_epoch=1000 * finer))
    assert fine == pytest.approx(coarse, rel=0.02, abs=2e-3)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_has_no_history(name):
    in_order = course(make_schedule(name), (0.1, 1.0))
    for step in (41, 3, 17):
        trained = optimizer(0.1, 1.0)
        schedule = make_schedule(name)
        schedule.apply(trained, progress(59))
        schedule.apply(trained, progress(step))
        rates = [group["lr"] for group in trained.param_groups]
        assert [*rates, trained.param_groups[0]["momentum"]] == in_order[step]


@pytest.mark.parametrize("name", SCHEDULES)
def test_groups_keep_the_ratio_of_their_peaks_unless_told_otherwise(name):
    for row in course(make_schedule(name), (0.1, 1.0)):
        assert row[1] == pytest.approx(10 * row[0])
    for row in course(make_schedule(name, common_lr=0.1), (0.1, 1.0)):
        assert row[1] == row[0]


def test_momentum_cycling_changes_adams_first_beta_only():
    adam = torch.optim.Adam([torch.zeros(1)], lr=0.1, betas=(0.9, 0.987))
    OneCycle().apply(adam, progress(0))
    assert adam.param_groups[0]["betas"] == (0.95, 0.987)
    OneCycle(momentum_range=None).apply(adam, progress(30))
    assert adam.param_groups[0]["betas"] == (0.95, 0.987)


def test_the_published_step_counts():
    settings = {"images_per_epoch": 5864, "batch_size": 8, "accumulate": 25, "epochs": 200, "lr": 1e-4}
    assert raml_schedule("onecycle", **settings).total_steps == 30 * 200
    assert raml_schedule("cyclic", **settings).total_steps == 6 * 977
    with pytest.raises(UserError, match="too short"):
        raml_schedule("cyclic", **{**settings, "epochs": 0})


def test_bad_input():
    with pytest.raises(UserError, match="onecycle"):
        make_schedule("onecyle")
    with pytest.raises(UserError, match=r"cosine\.warmup: no such option"):
        make_schedule("cosine", warmup=3)
    with pytest.raises(UserError, match="2 numbers"):
        MultiStep(milestones=(1, 2), gamma=(0.1,))
    with pytest.raises(UserError, match="warmup_share"):
        OneCycle(warmup_share=1.0)
