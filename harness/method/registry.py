"""The methods that exist, by name."""

from typing import TYPE_CHECKING, Any

from subnetbench.harness.core.registry import Registry

if TYPE_CHECKING:
    from subnetbench.harness.method.base import Method

METHODS: "Registry[Method[Any]]" = Registry("method", "methods")

register_method = METHODS.register
get_method = METHODS.get
