"""For tests, yours and ours: machines to pretend, and what a block leaves changed in torch."""

from torchturbo.testing._leaks import assert_restores
from torchturbo.testing._machines import MACHINES, pretend_hardware

__all__ = ["MACHINES", "assert_restores", "pretend_hardware"]
