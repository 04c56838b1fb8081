"""Every target runs on a machine whose profiles do something."""

from tests.pretended import cpu_with_bf16, optimizers_are_loaded

__all__ = ["cpu_with_bf16", "optimizers_are_loaded"]
