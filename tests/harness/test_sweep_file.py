import pytest

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.execution.sweep_file import read_sweep

GOOD = """
name: example
seeds: [0, 1]
defaults: {dataset: emoji, config: {epochs: 3, network: conv2}}
runs:
  - method: dense
  - method: edge_popup
    config: {network: conv4}
    grid: {config.sparsity: [0.5, 0.8], data.train_size: [500, 1000]}
    seeds: [7]
"""


@pytest.fixture
def sweep(tmp_path):
    def write(text):
        path = tmp_path / "sweep.yaml"
        path.write_text(text)
        return read_sweep(path)

    return write


def test_runs_are_combined_with_defaults_grid_and_seeds(sweep):
    specs = sweep(GOOD).expand()
    assert [(s.method, s.seed) for s in specs] == [("dense", 0), ("dense", 1)] + [("edge_popup", 7)] * 4
    assert {s.config["epochs"] for s in specs} == {3}
    assert [s.config["network"] for s in specs] == ["conv2"] * 2 + ["conv4"] * 4
    assert [(s.config["sparsity"], s.data["train_size"]) for s in specs[2:]] == [
        (0.5, 500),
        (0.5, 1000),
        (0.8, 500),
        (0.8, 1000),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: x\nruns: [{method: dense, dataset: emoji, sead: 1}]", "runs.0.sead"),
        ("name: x\nrunz: []", "did you mean 'runs'"),
        ("name: x\nruns: 3", "runs"),
        ("name: x\nruns: []", "expands to no runs"),
        ("name: x\nruns: [{method: dense, dataset: emoji, grid: {config.lr: []}}]", "product is empty"),
        (
            "name: x\nruns: [{method: dense, dataset: emoji}, {method: dense, dataset: emoji}]",
            r"runs\[0\] and runs\[1\]",
        ),
        ("name: x\nruns: [{method: dense}]", r"runs\[0\]\.dataset: must be given"),
        ("name: x\nruns: [{method: dence, dataset: emoji}]", "did you mean 'dense'"),
        ("name: x\nruns: [{method: dense, dataset: emoji, config: {lr: fast}}]", r"config\.lr"),
        ("name: x\nruns: [{method: dense, dataset: emoji, grid: {seed: [1]}}]", "cannot be varied"),
        ("name: a/../b\nruns: [{method: dense, dataset: emoji}]", "name"),
        ("name: [", "not valid YAML"),
        ("- 1\n- 2", "must be a mapping"),
        ("name: !!python/object/apply:os.system ['true']\nruns: []", "not valid YAML"),
    ],
)
def test_faults_are_one_message_that_names_the_place(sweep, text, words):
    with pytest.raises(UserError, match=words):
        sweep(text).expand()


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_sweep(tmp_path / "absent.yaml")
