"""What jobs request: merging of sections, and mistakes in them."""

import pytest

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.execution.slurm.arrays import group
from subnetbench.harness.execution.slurm.profile import Cluster, profiles_folder, read_cluster
from subnetbench.harness.execution.slurm.resources import Resources, SweepResources, merge, resources_for


def test_later_sections_win_and_sbatch_options_are_merged(tiny_spec):
    profile = Cluster.parse({"minutes": 10, "sbatch": {"mail-type": "END"}, "methods": {"dense": {"minutes": 20}}})
    sweep = SweepResources.parse({"gpus": 1, "sbatch": {"nice": 5}, "methods": {"dense": {"gpus": 2}}})
    found = resources_for(tiny_spec(device="auto"), profile, sweep, {"cpus": 3})
    assert (found.minutes, found.gpus, found.cpus) == (20, 2, 3)
    assert found.sbatch == {"mail-type": "END", "nice": 5}
    assert resources_for(tiny_spec("edge_popup", device="cuda"), profile, sweep).gpus == 1


def test_figures_of_a_process_become_those_of_a_node():
    resources = Resources(gpus=1, cpus=4, memory_gb=10, nodes=2)
    found = resources.directives(processes=4, threads=1)
    expected = {"nodes": 2, "ntasks_per_node": 2, "gpus_per_node": 2, "cpus_per_task": 4, "mem": "20480M"}
    assert {name: found[name] for name in expected} == expected
    assert Resources().directives(processes=1, threads=3)["cpus_per_task"] == 3


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"partition": "a\n#SBATCH --wrap=x"}, "one line"),
        ({"setup": ["fine", "two\nlines"]}, "one line"),
        ({"sbatch": {"array": "0-3"}}, r"here\.sbatch\.array: cannot be set"),
        ({"sbatch": {"Mail Type": "x"}}, "not the long name of an option"),
        ({"minuts": 3}, "minutes"),
        ({"gpus": "a100"}, "number of GPUs"),
        ({"gpus": -1}, "number of GPUs"),
        ({"gpus": "a100:x"}, "number of GPUs"),
        (
            {"gpus": 1, "sbatch": {"gpus-per-node": "v100:1"}},
            r"resources\.sbatch\.gpus-per-node: GPUs are requested twice",
        ),
        ({"gpus": "a100:1", "sbatch": {"gpus-per-task": 1}}, "GPUs are requested twice"),
        ({"minutes": "4:00:00"}, "minutes"),
    ],
)
def test_mistakes_are_named(section, message):
    with pytest.raises(UserError, match=message):
        merge([("here", section)])


def test_gpus_may_be_of_a_model():
    resources = Resources(gpus="a100:2", nodes=2)
    assert (resources.gpu_count, resources.gpu_model) == (2, "a100")
    assert resources.directives(processes=4, threads=1)["gpus_per_node"] == "a100:4"
    assert "gpus_per_node" not in Resources(gpus="a100:0").directives(processes=1, threads=1)
    # Other generic resources are none of ours.
    assert merge([("here", {"gpus": 1, "sbatch": {"gres": "nvme:1"}})]).sbatch == {"gres": "nvme:1"}


def test_the_device_of_a_run_and_the_gpus_of_its_job_must_fit(tiny_spec):
    nothing = SweepResources()
    with pytest.raises(UserError, match=r"computes on a GPU .* but its job requests none"):
        resources_for(tiny_spec(device="cuda"), nothing, nothing)
    with pytest.raises(UserError, match=r"computes on the CPU .* but its job requests GPUs"):
        resources_for(tiny_spec(), nothing, SweepResources.parse({"gpus": 1}))
    assert resources_for(tiny_spec(device="auto"), nothing, SweepResources.parse({"gpus": "h100:1"})).gpu_count == 1


def test_the_signal_leaves_half_of_the_time_at_least():
    assert Resources(minutes=2).directives(1, 1)["signal_delay_s"] == 60
    assert Resources(minutes=60).directives(1, 1)["signal_delay_s"] == 120


def test_processes_are_spread_evenly():
    with pytest.raises(UserError, match="3 processes cannot be spread evenly over 2 nodes"):
        Resources(nodes=2).tasks_per_node(3)


def test_profiles_are_read_by_name_and_by_file(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert read_cluster(None) == Cluster()
    profiles_folder().mkdir(parents=True)
    (profiles_folder() / "mysite.yaml").write_text("partition: gpu\nmax_jobs: 50\n")
    assert read_cluster("mysite").max_jobs == 50
    assert read_cluster(str(profiles_folder() / "mysite.yaml")).partition == "gpu"
    with pytest.raises(UserError, match="did you mean 'mysite'"):
        read_cluster("mysit")
    (profiles_folder() / "broken.yaml").write_text("partition: [")
    with pytest.raises(UserError, match="not valid YAML"):
        read_cluster("broken")


def test_runs_that_others_wait_for_are_not_packed(tiny_spec):
    teacher = tiny_spec(seed=7)
    pupil = tiny_spec("edge_popup").model_copy(update={"inputs": {"teacher": teacher}})
    others = [tiny_spec(seed=seed) for seed in range(4)]
    arrays, left_out = group([teacher, *others, pupil], lambda spec: Resources(runs_per_job=2))
    assert not left_out
    assert [len(job) for job in arrays[0].jobs] == [1, 2, 2]
    assert arrays[0].jobs[0] == (teacher,)
    assert arrays[1].after == (teacher.run_id,)


def test_pupils_of_a_teacher_without_room_are_left_out_too(tiny_spec):
    teacher = tiny_spec(seed=7, processes=2)
    pupil = tiny_spec("edge_popup").model_copy(update={"inputs": {"teacher": teacher}})
    arrays, left_out = group([teacher, pupil], lambda spec: Resources(), room=0)
    assert not arrays
    assert left_out == [teacher, pupil]
