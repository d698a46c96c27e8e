"""What a search left beside its trials: budget, importances and best configurations, from `studies/NAME/*.json`.

The files may be anybody's: what does not look as it should is left out.
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from subnetbench.harness.report.texts import significant

MAX_BYTES = 2**20
MOST_STUDIES = 200
MOST_ITEMS = 60
_LONGEST = 200

Search = dict[str, Any]


def read_searches(records: Iterable[Path]) -> dict[str, Search]:
    """The searches that some trials belong to, by the name of the study; `records` are the files of the trials."""
    # RESULTS/trials/records/FILE and RESULTS/studies
    places = {parent / "studies" for record in records for parent in list(record.parents)[1:3]}
    found: dict[str, Search] = {}
    for place in sorted(places):
        for path in sorted(place.glob("*/summary.json"))[:MOST_STUDIES]:
            summary = _read(path)
            if isinstance(summary.get("study"), str):
                found[summary["study"]] = _search(summary, _read(path.with_name("importances.json")))
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text()) if path.stat().st_size <= MAX_BYTES else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _search(summary: Mapping[str, Any], importances: Mapping[str, Any]) -> Search:
    told = _list(summary.get("objectives"))
    objectives = [_text(each["metric"]) for each in told if isinstance(each.get("metric"), str)]
    budget = _mapping(summary.get("budget"))
    return {
        "objectives": objectives,
        "budget": {name: _number(budget.get(name)) for name in ("trials", "device_hours")},
        "device_hours": _number(summary.get("device_hours")),
        "sampler": _name(summary.get("sampler")),
        "pruner": _name(summary.get("pruner")),
        "stopped": _text(summary["stopped"]) if summary.get("stopped") else "",
        "importances": {metric: _importances(_mapping(importances.get(metric))) for metric in objectives},
        "best": [_best(each, objectives) for each in _list(summary.get("best"))],
    }


def _importances(values: Mapping[str, Any]) -> list[list[Any]]:
    """Pairs of a field and its importance, the most important first."""
    pairs: list[list[Any]] = [
        [_text(name), number] for name, value in values.items() if (number := _number(value)) is not None
    ]
    return sorted(pairs, key=lambda pair: -pair[1])[:MOST_ITEMS]


def _best(told: Mapping[str, Any], objectives: list[str]) -> dict[str, Any]:
    values = told.get("values")
    return {
        "trial": _number(told.get("trial")),
        "values": dict(zip(objectives, map(_number, values if isinstance(values, list) else []), strict=False)),
        "config": {_text(name): _plain(value) for name, value in _mapping(told.get("config")).items()},
    }


def _list(value: Any) -> list[Mapping[str, Any]]:
    items = value[:MOST_ITEMS] if isinstance(value, list) else []
    return [each for each in items if isinstance(each, dict)]


def _mapping(value: Any) -> Mapping[str, Any]:
    return dict(list(value.items())[:MOST_ITEMS]) if isinstance(value, dict) else {}


def _number(value: Any) -> float | int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300 or math.isnan(value):
        return None
    return value if isinstance(value, int) else significant(value)


def _plain(value: Any) -> float | int | str | None:
    if value is None or isinstance(value, bool):
        return str(value).lower() if isinstance(value, bool) else None
    return number if (number := _number(value)) is not None else _text(value)


def _name(value: Any) -> str:
    return _text(_mapping(value).get("name", ""))


def _text(value: Any) -> str:
    return (value if isinstance(value, str) else json.dumps(value))[:_LONGEST]
