"""For tests, yours and ours: machines to pretend, memory that runs out, and what a block leaves changed."""

from torchturbo.testing._leaks import assert_restores
from torchturbo.testing._machines import MACHINES, pretend_hardware
from torchturbo.testing._oom import injected_oom

__all__ = ["MACHINES", "assert_restores", "injected_oom", "pretend_hardware"]
