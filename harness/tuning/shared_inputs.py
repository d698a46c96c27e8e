"""What trials start from: one teacher for all of a study, unless its file says otherwise."""

import json
from collections.abc import Iterator

from subnetbench.harness.core.config import OpenFields, UserValues
from subnetbench.harness.method.registry import get_method
from subnetbench.harness.tuning.tuning_file import StudyEntry


def inputs_of(entry: StudyEntry, fixed: UserValues, searched: UserValues) -> OpenFields:
    """The inputs of a trial, as `resolve` takes them.

    A method makes up an input that is not named from the config at hand. A trial's would be trained anew for each value of a
    searched field that it takes over, and trials would differ in their teachers too; so it follows the fixed fields alone.

    Args:
        entry: A study, with defaults filled in.
        fixed: Fields of the method's config that the study fixes.
        searched: Fields of the trial.

    Raises:
        UserError: The fields are no config of the method.
    """
    if entry.inputs_follow:
        return dict(entry.inputs)
    method = get_method(str(entry.method))
    wanted, shared = (method.default_inputs(method.Config.parse(each)) for each in ({**fixed, **searched}, fixed))
    # As a file would have it: a best configuration is written with its inputs.
    made_up = json.loads(json.dumps({role: shared[role] for role in wanted if role in shared}, default=str))
    return {**made_up, **entry.inputs}


def sharing(entry: StudyEntry, fixed: UserValues) -> Iterator[str]:
    """A sentence about the inputs that all trials share without being asked, if there are any."""
    roles = sorted(inputs_of(entry, fixed, {}).keys() - entry.inputs.keys())
    if roles and not entry.inputs_follow:
        yield (
            f"input {', '.join(roles)}: one for all trials of a seed, by the fixed fields of the config; with inputs_follow it "
            "follows each trial's"
        )
