"""The Python interface of the README."""

import pytest


def test_names_are_functions_whatever_was_imported_before(tmp_path):
    import subnetbench.harness.execution
    import subnetbench.harness.planning
    from subnetbench.harness import Leaderboard, run, sweep

    assert callable(run)
    assert callable(sweep)
    tiny = {"network": "conv2", "image_size": 8, "epochs": 1, "limit_steps": 2}
    ending = run("dense", "emoji", config=tiny, compute={"device": "cpu"}, results=tmp_path, trackers=["none"])
    assert ending == "finished"
    frame = Leaderboard(tmp_path).frame(metrics=["top1"])
    assert list(frame["method"]) == ["dense"]
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = subnetbench.harness.nothing


def test_libraries_import_from_the_repository_root(tmp_path):
    """`datasets/` here must not stand in for the package of that name, which other libraries import."""
    import subprocess
    import sys
    from pathlib import Path

    root = Path(__file__).resolve().parents[2]
    code = "import transformers, accelerate, timm; import importlib.util as u; s = u.find_spec('datasets'); print(s and s.origin)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=root, capture_output=True, text=True, check=True, timeout=120
    )
    assert str(root / "datasets") not in done.stdout.splitlines()[-1]
