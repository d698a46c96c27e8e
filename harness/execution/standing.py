"""Whether runs that have begun, or are finished, still stand on what is here now."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from subnetbench.harness.core.errors import SubnetbenchError
from subnetbench.harness.core.hashing import SHORT_DIGITS
from subnetbench.harness.data.described import Contents, describe
from subnetbench.harness.execution.continuing import begun_on, code_changes, data_changes, file_changes, finished_on
from subnetbench.harness.execution.gathering import code_of, files_of, stores
from subnetbench.harness.execution.run import load_data
from subnetbench.harness.runs.contents import content_digest
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.provenance import CodeRead, FilesRead, InputContent, Provenance
from subnetbench.harness.runs.spec import InputRef, RunSpec
from subnetbench.harness.training.trained_run import find_model

_log = logging.getLogger(__name__)


@dataclass
class Standing:
    """What is no longer as it was, by run id, in words; runs that are not named stand on what is here.

    `data` and `files` say what changed there, `code` which modules. `unknown` are runs that an earlier version made,
    `unseen` those whose data are not here, by the reason.
    """

    data: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    code: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    unseen: dict[str, list[str]] = field(default_factory=dict)


def examine(specs: Iterable[RunSpec], results: Path, data_root: Path) -> Standing:
    """Compare what runs stand on with what is here; each data set is loaded once, and none for runs that are new."""
    return _Examination(results, data_root).of(specs)


class _Examination:
    def __init__(self, results: Path, data_root: Path) -> None:
        self.results, self.data_root = results, data_root
        self.found = Standing()
        self._contents: dict[str, Contents | str] = {}

    def of(self, specs: Iterable[RunSpec]) -> Standing:
        for spec in specs:
            folder = RunFolder(self.results, spec.run_id)
            before = finished_on(folder) if folder.finished_file.exists() else begun_on(folder)
            if before is None or folder.state() == "running":
                continue
            if before == Provenance():
                self.found.unknown.append(spec.run_id)
            else:
                self._compare(spec, before)
        return self.found

    def _compare(self, spec: RunSpec, before: Provenance) -> None:
        found, run_id = self.found, spec.run_id
        contents = self._contents_of(spec)
        if isinstance(contents, str):
            found.unseen.setdefault(contents, []).append(run_id)
        elif changed := data_changes(before.data, contents, self.results):
            found.data[run_id] = changed
        if changed := file_changes(before, Provenance(files=self._files(spec))):
            found.files[run_id] = changed
        code = code_of(spec)
        if before.code is not None and _digests(before.code) != _digests(code):
            found.code[run_id] = code_changes(before.code, code)

    def _contents_of(self, spec: RunSpec) -> Contents | str:
        """What the data of a run hold, or why they cannot be loaded."""
        key = spec.model_copy(update={"method": "", "config": {}, "inputs": {}, "seed": 0}).model_dump_json()
        if key not in self._contents:
            try:
                data = load_data(spec, self.data_root)
                self._contents[key] = describe(data, stores(self.data_root, self.results)).contents
            except SubnetbenchError as error:
                self._contents[key] = str(error)
        return self._contents[key]

    def _files(self, spec: RunSpec) -> FilesRead:
        return FilesRead(*files_of(spec, self.data_root), dict(self._inputs(spec)))

    def _inputs(self, spec: RunSpec) -> Iterator[tuple[str, InputContent]]:
        """The inputs that are there; one whose model was removed is not known to have changed."""
        for role, value in spec.inputs.items():
            items = {f"{role}[{i}]": item for i, item in enumerate(value)} if isinstance(value, list) else {role: value}
            for name, item in items.items():
                path = self._model(item)
                if path is not None and path.is_file():
                    yield name, InputContent(path.parent.name, content_digest(path)[:SHORT_DIGITS])

    def _model(self, item: RunSpec | InputRef) -> Path | None:
        if isinstance(item, RunSpec):
            return RunFolder(self.results, item.run_id).model_file
        try:
            return find_model(item.run, self.results) if item.run else Path(str(item.file))
        except SubnetbenchError:
            return None


def _digests(code: CodeRead) -> Mapping[str, str]:
    return {"method": code.method, "dataset": code.dataset, "harness": code.harness}
