"""The private parts of submitit that the adapter stands on are there, and behave as it expects."""

import importlib
import inspect
import signal

import pytest

from subnetbench.harness.core.errors import UserError

PRIVATE = {
    ("submitit.slurm.slurm", "_make_sbatch_string"): "batch files cannot be written",
    ("submitit", "JobEnvironment._usr_sig"): "the signal of a time limit is not known",
    ("submitit.core.submission", "process_job"): "jobs cannot do their work",
    ("submitit.core.utils", "DelayedSubmission.set_timeout"): "jobs cannot be queued again after a time limit",
    ("submitit.core.utils", "DelayedSubmission.dump"): "jobs cannot write what they are to do",
}
KEYWORDS = (
    "command",
    "folder",
    "job_name",
    "map_count",
    "setup",
    "srun_args",
    "stderr_to_stdout",
    "wckey",
    "additional_parameters",
    "signal_delay_s",
    "array_parallelism",
)


@pytest.mark.parametrize(("module", "name"), PRIVATE, ids=lambda value: value)
def test_what_the_adapter_uses_is_there(module, name):
    found = importlib.import_module(module)
    for part in name.split("."):
        assert hasattr(found, part), (
            f"this version of submitit has no {module}.{name} any more: {PRIVATE[module, name]}; "
            "adapt harness/execution/slurm/submitit_adapter.py, or lower the upper bound of submitit"
        )
        found = getattr(found, part)


def test_the_batch_file_takes_the_keywords_that_the_adapter_gives():
    from submitit.slurm import slurm

    known = inspect.signature(slurm._make_sbatch_string).parameters
    missing = [name for name in KEYWORDS if name not in known]
    assert not missing, f"submitit's _make_sbatch_string takes no {', '.join(missing)} any more; adapt the adapter"


def test_a_batch_file_has_what_was_asked_for(tmp_path):
    from subnetbench.harness.execution.slurm import submitit_adapter

    text = submitit_adapter.batch_file(
        "python -m work",
        tmp_path,
        "name",
        3,
        setup=["module load x"],
        srun_options=["--kill-on-bad-exit=0"],
        directives={"time": 5, "nodes": 1, "array_parallelism": 2},
        options={"requeue": True, "exclusive": False, "mail_type": "END"},
    )
    for line in ("#SBATCH --array=0-2%2", "#SBATCH --job-name=name", "#SBATCH --requeue", "#SBATCH --mail-type=END"):
        assert line in text
    assert "exclusive" not in text
    assert "module load x" in text
    assert "python -m work" in text


def test_the_user_signal_is_one_that_processes_can_handle():
    from subnetbench.harness.execution.slurm import submitit_adapter

    assert submitit_adapter.user_signal() in (signal.SIGUSR1, signal.SIGUSR2)


def written(folder):
    from subnetbench.harness.execution.slurm import submitit_adapter

    return submitit_adapter.batch_file(
        "true", folder, "name", 1, setup=[], srun_options=[], directives={"time": 5}, options={}
    )


def test_percent_signs_of_a_folder_are_no_placeholders(tmp_path):
    text = written(tmp_path / "50%jobs")
    assert f"#SBATCH --output={tmp_path}/50%%jobs/%A_%a_0_log.out" in text
    assert "50%jobs" not in text
    assert f"--output {tmp_path}/50%%jobs/%A_%a_%t_log.out" in text
    spaced = written(tmp_path / "a b")
    assert f"#SBATCH --output='{tmp_path}/a b/%A_%a_0_log.out'" in spaced
    assert f"--output '{tmp_path}/a b/%A_%a_%t_log.out'" in spaced


@pytest.mark.parametrize("character", ["\\", '"', "'", "\n"])
def test_folders_that_no_batch_file_can_name_are_refused(tmp_path, character):
    with pytest.raises(UserError, match="SLURM cannot write to a folder with"):
        written(tmp_path / f"a{character}b")
