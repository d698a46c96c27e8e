"""How a check says what is wrong."""

from subnetbench.harness.core.errors import SubnetbenchError


class Nonconformance(SubnetbenchError):
    """What a method or data set does wrong."""


def require(condition: bool, message: str) -> None:
    """Raise `Nonconformance` with the message unless the condition holds."""
    if not condition:
        raise Nonconformance(message)
