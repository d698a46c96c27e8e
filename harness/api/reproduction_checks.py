"""What a recorded run stood on against what is here, line by line."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from subnetbench.harness.core import environment
from subnetbench.harness.core.numerics import Numerics
from subnetbench.harness.data.described import describe
from subnetbench.harness.distributed.world import open_world
from subnetbench.harness.execution.gathering import code_of, files_of, read_environment, stores
from subnetbench.harness.execution.run import load_data
from subnetbench.harness.runs.differences import part_as_texts, unknown
from subnetbench.harness.runs.provenance import Environment, FilesRead, Provenance
from subnetbench.harness.runs.spec import RunSpec

UNCOMMITTED = " with changes that were not committed"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Check:
    """One thing that scores depend on, as it was recorded and as it is here."""

    name: str
    recorded: str
    here: str

    @property
    def same(self) -> bool:
        # It is not known which changes there were: two such states never count as the same.
        return self.recorded == self.here and not self.here.endswith(UNCOMMITTED)


@dataclass(frozen=True)
class Here:
    """What a run would stand on if it began now; `digest` is that of its data, `declared` the data set's own."""

    provenance: Provenance
    digest: str
    declared: str


def here_for(spec: RunSpec, data_root: Path, results: Path) -> Here:
    """Gather what a run would stand on here, without running it. Raises `DataError` where data are missing."""
    data = load_data(spec, data_root)
    described = describe(data, stores(data_root, results))
    numerics, machine = _computing(spec)
    provenance = Provenance(
        data=described.contents.content,
        files=FilesRead(*files_of(spec, data_root)),
        code=code_of(spec),
        numerics=numerics,
        environment=machine,
    )
    return Here(provenance, described.data.digest, data.digest)


def _computing(spec: RunSpec) -> tuple[Numerics, Environment]:
    """How the run would compute, by a world of one process that is set up as its ranks are."""
    world = open_world(spec.compute.model_copy(update={"processes": 1}))
    try:
        numerics = world.numerics(spec.config.get("micro_batch_size"))
        return replace(numerics, processes=spec.compute.processes), read_environment(world.device)
    finally:
        world.close()


def checks_of(recorded: Provenance, here: Here, digest: str) -> Iterator[Check]:
    """The parts of a provenance, one thing a line, where the record knows them; `digest` is the recorded one of the data.

    Versions of libraries, the device and the commit have columns of their own in a record, and are not among these.
    """
    if missing := unknown(recorded, here.provenance):
        logger.warning("an earlier version made this record: it does not say on which %s it stands", ", ".join(missing))
    yield Check("data digest", digest, here.declared if recorded.data is None else here.digest)
    kinds = {
        "data": "data, {}",
        "files": "file {}",
        "code": "code of {}",
        "numerics": "numerics, {}",
        "environment": "{}",
    }
    one, other = recorded.brief(), here.provenance.brief()
    for part, name in kinds.items():
        old, new = part_as_texts(one, part), part_as_texts(other, part)  # type: ignore[arg-type]
        if old is None or new is None:
            continue
        for key in dict.fromkeys([*old, *new]):
            if not (part == "environment" and key == "device"):
                yield Check(name.format(key), old.get(key, "absent"), new.get(key, "absent"))


def commit_check(sha: str, dirty: bool) -> Check:
    """The commit of a record that knows no digests of code."""
    return Check("code", _commit(sha, dirty), _commit(*environment.git_state()))


def _commit(sha: str, dirty: bool) -> str:
    if not sha:
        return "installed package"
    return f"{sha[:12]}{UNCOMMITTED}" if dirty else sha
