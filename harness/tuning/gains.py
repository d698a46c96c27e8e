"""What tuning brought: tuned minus default on the test set, paired by seed."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from subnetbench.harness.run_folder import RunFolder, read_json
from subnetbench.harness.statistics import paired_t
from subnetbench.harness.tuning.objectives import Figures
from subnetbench.harness.tuning.search import Search
from subnetbench.harness.tuning.study_files import write_table


@dataclass(frozen=True)
class Gain:
    """One study: means over `seeds` of the objective on the test set, their difference, its 95 % t interval."""

    study: str
    metric: str
    seeds: int
    default: float
    tuned: float
    difference: float
    low: float
    high: float
    p: float
    trials: int
    device_hours: float


def gains(searches: Sequence[Search], results: Path) -> list[Gain]:
    """Of each study with one objective whose final runs are there, by the records below `results`."""
    found = []
    for search in searches:
        best = search.best()
        if len(search.objectives) > 1 or not best:
            continue
        config = search.space.config_of(best[0].params)
        pairs = []
        for seed in search.file.final_seeds:
            values = [_test_value(search, results, chosen, seed) for chosen in ({}, config)]
            if values[0] is not None and values[1] is not None:
                pairs.append((values[0], values[1]))
        if not pairs:
            continue
        test = paired_t([tuned - default for default, tuned in pairs])
        found.append(
            Gain(
                search.label,
                search.objectives[0].metric,
                len(pairs),
                sum(default for default, _ in pairs) / len(pairs),
                sum(tuned for _, tuned in pairs) / len(pairs),
                test.difference.mean,
                test.difference.low,
                test.difference.high,
                test.p,
                search.completed(),
                search.device_hours(),
            )
        )
    return found


def write_gains(found: Sequence[Gain], path: Path) -> None:
    write_table(path, [field.name for field in fields(Gain)], [astuple(gain) for gain in found])


def _test_value(search: Search, results: Path, config: dict[str, object], seed: int) -> float | None:
    finished = read_json(RunFolder(results, search.spec(config, seed).run_id).finished_file)
    if finished is None:
        return None
    record = results / "records" / Path(str(finished.get("record"))).name
    return Figures.read(record).value(search.objectives[0], split="test")
