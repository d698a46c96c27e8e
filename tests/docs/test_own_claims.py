"""What the README says of results holds on the records that are committed with it."""

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from subnetbench import claims
from subnetbench.harness.api import validate
from subnetbench.harness.cli.app import app
from subnetbench.harness.leaderboard.claim_tests import Result

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "results" / "claims"
README = " ".join((ROOT / "README.md").read_text().split())
TESTED = claims(FOLDER / "claims.yaml")
POINTS = re.compile(r"(?P<mean>\d+\.\d) points")
INTERVAL = re.compile(r"95 % interval (?P<low>-?\d+\.\d) to (?P<high>-?\d+\.\d)")


@pytest.mark.parametrize("result", TESTED.results, ids=lambda result: result.claim)
def test_each_claim_holds_and_is_in_the_readme_as_it_was_measured(result: Result) -> None:
    assert result.status == "holds", result.reason
    said = " ".join(result.says.split())
    assert said in README
    (part,) = result.parts
    assert min(part.seeds_left, part.seeds_right or part.seeds_left) >= 3
    assert (part.failed_left, part.failed_right) == (0, 0)
    if found := POINTS.search(said):
        assert found["mean"] == f"{100 * abs(part.measured):.1f}"
        after = INTERVAL.search(README[README.index(said) :])
        assert after is not None, "a measured difference has its interval beside it"
        assert (after["low"], after["high"]) == tuple(
            f"{100 * bound:.1f}" for bound in sorted((abs(part.low), abs(part.high)))
        )


def test_the_readme_says_nothing_of_results_that_is_not_claimed() -> None:
    said = [" ".join(result.says.split()) for result in TESTED.results]
    for found in re.finditer(r"[-+]?\d+(?:\.\d+)? (?:points|%) (?:of|better|worse|more|less|above|below)", README):
        assert any(found[0] in sentence for sentence in said), found[0]


def test_the_records_are_valid_and_name_no_machine() -> None:
    assert validate(FOLDER).faults == ()
    for path in FOLDER.glob("*.parquet"):
        table = pq.read_table(path)
        assert all(re.fullmatch(r"(machine \d+)?", host) for host in table["host"].unique().to_pylist())
        texts = [name for name in table.column_names if pa.types.is_string(table.schema.field(name).type)]
        found = {
            text
            for name in texts
            for text in table[name].unique().to_pylist()
            if re.search(r"/(?:work|tmp|home|root)/", text)
        }
        assert found == set()


def test_the_command_of_the_readme() -> None:
    assert CliRunner().invoke(app, ["claims", str(FOLDER / "claims.yaml")]).exit_code == 0


def test_a_claim_that_no_longer_holds_fails(tmp_path: Path) -> None:
    text = (FOLDER / "claims.yaml").read_text().replace("results: [.]", f"results: ['{FOLDER}']")
    (tmp_path / "claims.yaml").write_text(text.replace("edge_popup > dense", "edge_popup < dense"))
    done = CliRunner().invoke(app, ["claims", str(tmp_path / "claims.yaml")])
    assert done.exit_code == 1
    assert "contradicted" in done.stdout
