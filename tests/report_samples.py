"""Made-up results with everything that a report can show, among them names that would break a careless page."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from subnetbench.harness.core.protocols import protocols_of
from subnetbench.harness.records import RunRecord, Score, write_record
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.spec import RunSpec

START = datetime(2025, 3, 1, 12, tzinfo=UTC)
MARKUP = "</script><script>window.hacked = true</script><img src=x onerror='window.hacked = true'>"
CONTROL = "\x1b[31mred\x1b[0m \u202egnp.exe {{script}}"
CAPACITIES = (0.2, 0.4, 0.6, 0.8, 1.0)


class Results:
    """Writes runs with records, and with logs and learning curves where they are given, into a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written = 0

    def run(self, scores: list[Score], curves: dict[str, list[float]] | None = None, log: str = "", **changes) -> str:
        self.written += 1
        start = START + timedelta(minutes=self.written)
        seed, method = changes.get("seed", 0), changes.get("method", "dense")
        config = changes.pop("config", {"lr": 0.1, "epochs": 3})
        plain = {"method": method, "dataset": "emoji", "config": config, "data": {"size": 32}}
        plain["task"] = changes.get("task", "classification")
        spec = RunSpec.model_validate({**plain, "seed": seed}) if method.isidentifier() else None
        values = {
            "run_id": f"run-{self.written:04}-s{seed}" + (f"-{spec.run_id.rpartition('-')[2]}" if spec else ""),
            "status": "finished",
            "method": method,
            "seed": seed,
            "network": "conv4",
            "dataset": "emoji",
            "task": "classification",
            "protocol": "groups of unseen concepts",
            "data_digest": "0123456789abcdef",
            "budget": "3 epochs x 1000 images",
            "primary_metric": "top1",
            "config": plain,
            "spec": spec.model_dump(mode="json") if spec else {},
            "versions": {"python": "3.11.7", "torch": "2.15.0"},
            "git_sha": "0123456789abcdef0123456789abcdef01234567",
            "host": "machine-one",
            "device": "AMD EPYC",
            "wall_seconds": 10.0 + seed,
            "started_at": start,
            "finished_at": start + timedelta(seconds=10),
            "scores": scores,
        }
        values |= changes
        if "protocol" not in changes:
            values["protocol"] = (*protocols_of(values["dataset"], values["task"]), values["protocol"])[0]
        record = RunRecord(**values)
        write_record(self.path, record)
        if curves or log:
            folder = RunFolder(self.path, record.run_id)
            folder.create("{}")
            folder.log_file.write_text(log)
            write_curves(folder.path / "trackers", curves or {})
        return record.run_id


def write_curves(folder: Path, curves: dict[str, list[float]]) -> None:
    """A TensorBoard file with a value for each epoch, written by TensorBoard's own writer."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    folder.mkdir(parents=True, exist_ok=True)
    writer = EventFileWriter(str(folder))
    for tag, values in curves.items():
        for epoch, value in enumerate(values, 1):
            writer.add_event(Event(step=epoch, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)])))
    writer.close()


def costs(variant: str, sparsity: float) -> list[Score]:
    values = {
        "parameters": 850_000.0,
        "nonzero_parameters": 850_000 * (1 - sparsity),
        "sparsity": sparsity,
        "macs_executed": 24.6e6,
        "macs_nonzero": 24.6e6 * (1 - sparsity),
        "latency_ms": 1.5,
    }
    return [Score(metric=name, value=value, variant=variant) for name, value in values.items()]


def classification(results: Results, random: np.random.Generator, seeds: int = 3) -> None:
    for method, sparsity, quality in (
        *(("edge_popup", s, 0.55 - 0.2 * s) for s in (0.3, 0.5, 0.7, 0.9)),
        *(("magnitude", s, 0.57 - 0.25 * s) for s in (0.5, 0.9)),
        ("dense", 0.0, 0.56),
    ):
        for seed in range(seeds):
            top1 = quality + random.normal(0, 0.01)
            variant = "full" if method == "dense" else "subnetwork"
            curve = (top1 * (1 - np.exp(-np.arange(1, 13) / 3))).tolist()
            results.run(
                [
                    Score(metric="top1", value=top1, split="test", variant=variant),
                    Score(metric="top1", value=top1 - 0.01, split="validation", variant=variant),
                    Score(metric="loss", value=2 - top1, split="test", variant=variant),
                    Score(metric="top1", value=0.1, split="test", variant="trivial"),
                    *costs(variant, sparsity),
                ],
                curves={"validation/top1": curve, "train/loss": [2 - value for value in curve]},
                log=f"epoch 12/12\nfinished {method} with seed {seed}\n",
                method=method,
                seed=seed,
                config={"lr": 0.1, "epochs": 3, **({} if method == "dense" else {"sparsity": sparsity})},
                searched_fields="lr",
                training_macs=3e9,
                input_training_macs=0.0,
                images_seen=3000.0,
                steps=30.0,
            )


def retrieval(results: Results, random: np.random.Generator, seeds: int = 3) -> None:
    for seed in range(seeds):
        scores = []
        for query in CAPACITIES:
            for gallery in CAPACITIES:
                value = 0.3 + 0.2 * query + 0.2 * gallery + random.normal(0, 0.005)
                names = {"split": "test", "variant": f"capacity {query}", "gallery_variant": f"capacity {gallery}"}
                scores += [Score(metric=metric, value=value, **names) for metric in ("recall_at_1", "map")]
            scores += costs(f"capacity {query}", 1 - query)
        more = {"task": "retrieval", "primary_metric": "recall_at_1"}
        results.run(scores, method="prunnet", seed=seed, **more)


def cascades(results: Results, random: np.random.Generator, seeds: int = 3) -> None:
    for width in (10, 25, 50, 100):
        for seed in range(seeds):
            values = {"text_to_image_recall_at_10": 0.6 - 1 / width + random.normal(0, 0.004)}
            scores = [
                Score(metric=name, value=value, split="test", variant="cascade") for name, value in values.items()
            ]
            macs = 1e9 * (1 + width / 20)
            lifetime = Score(metric="lifetime_macs_small_world", value=macs, split="test", variant="cascade")
            more = {"task": "text_image", "primary_metric": "text_to_image_recall_at_10"}
            results.run([*scores, lifetime], method="cascade", seed=seed, config={"m": width}, **more)


def study(results: Results, random: np.random.Generator, trials: int = 15) -> None:
    for trial in range(trials):
        status = "failed" if trial == 4 else "pruned" if trial % 5 == 3 else "finished"
        rate = float(10 ** random.uniform(-3, 0))
        value = 0.5 - 0.1 * (np.log10(rate) + 1.5) ** 2
        scores = [Score(metric="top1", value=value, split="validation", variant="subnetwork")]
        results.run(
            [] if status == "failed" else scores,
            method="edge_popup",
            status=status,
            study="emoji search",
            trial=trial,
            config={"lr": rate, "epochs": 3, "sparsity": 0.5, "mode": "ab"[trial % 2]},
        )
    folder = results.path / "studies" / "emoji"
    folder.mkdir(parents=True)
    best = {"lr": 0.03, "mode": "a", MARKUP: MARKUP}
    summary = {
        "study": "emoji search",
        "objectives": [{"metric": "top1", "direction": "maximize"}],
        "budget": {"trials": trials, "device_hours": None},
        "device_hours": 0.25,
        "sampler": {"name": "tpe"},
        "pruner": {"name": "asha", "min_resource": 2},
        "stopped": f"stopped by {MARKUP}",
        "notes": [f"noted by {MARKUP}", 3],
        "best": [{"trial": 2, "values": [0.5], "config": best}],
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    importances = {"top1": {"mode": 0.2, "lr": 0.75, MARKUP: 0.05}}
    (folder / "importances.json").write_text(json.dumps(importances))


def hostile(results: Results) -> None:
    """A finished and a failed run whose every text is an attack."""
    score = Score(metric="top1", value=0.3, split="test", variant=MARKUP[:60])
    results.run(
        [score, Score(metric=MARKUP, value=1.0, split="test", variant=MARKUP[:60])],
        log=f"{MARKUP}\n{CONTROL}\n",
        curves={MARKUP: [1.0, 2.0]},
        method=MARKUP,
        config={MARKUP: MARKUP, "__proto__": "x", "note": CONTROL},
        git_sha=MARKUP,
        host=MARKUP,
        versions={MARKUP: MARKUP},
    )
    results.run([], method="dense", seed=9, status="failed", error_kind=MARKUP, error=f"{MARKUP} {CONTROL}")


def everything(path: Path) -> Path:
    """A results folder with all of the above."""
    results, random = Results(path), np.random.default_rng(0)
    for part in (classification, retrieval, cascades, study):
        part(results, random)
    hostile(results)
    return path
