"""What a search left beside its trials: budget, importances and best configurations, from `studies/NAME/*.json`.

The files may be anybody's: what does not look as it should is left out.
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from subnetbench.harness.leaderboard.configs import Leaf
from subnetbench.harness.report.texts import significant
from subnetbench.harness.report.types import BestConfig, Budget, Importance, Search

MAX_BYTES = 2**20
MOST_STUDIES = 200
MOST_ITEMS = 60
_LONGEST = 200


def read_searches(records: Iterable[Path]) -> dict[str, Search]:
    """The searches that some trials belong to, by the name of the study; `records` are the files of the trials."""
    # RESULTS/trials/records/FILE and RESULTS/studies
    folders = {parent / "studies" for record in records for parent in list(record.parents)[1:3]}
    found: dict[str, Search] = {}
    for folder in sorted(folders):
        for path in sorted(folder.glob("*/summary.json"))[:MOST_STUDIES]:
            summary = _read(path)
            if isinstance(study := summary.get("study"), str):
                found[study] = _search(summary, _read(path.with_name("importances.json")))
    return found


def _read(path: Path) -> Mapping[str, object]:
    try:
        value = json.loads(path.read_text()) if path.stat().st_size <= MAX_BYTES else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _search(summary: Mapping[str, object], importances: Mapping[str, object]) -> Search:
    stated = [each.get("metric") for each in _list(summary.get("objectives"))]
    objectives = [_text(metric) for metric in stated if isinstance(metric, str)]
    budget = _mapping(summary.get("budget"))
    return Search(
        objectives=objectives,
        budget=Budget(_number(budget.get("trials")), _number(budget.get("device_hours"))),
        device_hours=_number(summary.get("device_hours")),
        sampler=_name(summary.get("sampler")),
        pruner=_name(summary.get("pruner")),
        stopped=_text(summary["stopped"]) if summary.get("stopped") else "",
        notes=[_long(note) for note in _items(summary.get("notes")) if isinstance(note, str)],
        importances={metric: _importances(_mapping(importances.get(metric))) for metric in objectives},
        best=[_best(each, objectives) for each in _list(summary.get("best"))],
    )


def _importances(values: Mapping[str, object]) -> list[Importance]:
    """The most important field first."""
    known = [
        Importance(_text(name), number) for name, value in values.items() if (number := _number(value)) is not None
    ]
    return sorted(known, key=lambda importance: -importance.value)[:MOST_ITEMS]


def _best(stated: Mapping[str, object], objectives: list[str]) -> BestConfig:
    values = stated.get("values")
    return BestConfig(
        trial=_number(stated.get("trial")),
        values=dict(zip(objectives, map(_number, values if isinstance(values, list) else []), strict=False)),
        config={_text(name): _plain(value) for name, value in _mapping(stated.get("config")).items()},
    )


def _list(value: object) -> list[Mapping[str, object]]:
    return [each for each in _items(value) if isinstance(each, dict)]


def _items(value: object) -> list[object]:
    return value[:MOST_ITEMS] if isinstance(value, list) else []


def _long(text: str) -> str:
    return text[: 5 * _LONGEST]


def _mapping(value: object) -> Mapping[str, object]:
    return dict(list(value.items())[:MOST_ITEMS]) if isinstance(value, dict) else {}


def _number(value: object) -> float | int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300 or math.isnan(value):
        return None
    return value if isinstance(value, int) else significant(value)


def _plain(value: object) -> Leaf:
    if value is None or isinstance(value, bool):
        return str(value).lower() if isinstance(value, bool) else None
    return number if (number := _number(value)) is not None else _text(value)


def _name(value: object) -> str:
    return _text(_mapping(value).get("name", ""))


def _text(value: object) -> str:
    return (value if isinstance(value, str) else json.dumps(value))[:_LONGEST]
