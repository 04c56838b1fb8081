"""The decorator under test: `zoo` puts it on everything it defines, at the moment it is imported.

By default it is the package's own, so that a process that starts afresh and unpickles something from the zoo has that.
A forked child of `table` chooses another one (none at all, a leaky one) before it imports the zoo.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torchturbo import Profile, accelerate

# Something of every kind: the process's, the thread's, the environment's, a region's.
TABLE = Profile(
    "table",
    anomaly=True,
    matmul_precision="medium",
    deterministic="warn",
    grad=False,
    num_threads=1,
    autocast="bf16",
    cublas_workspace=":16:8",
)

decorate: Callable[[Any], Any] = accelerate(profile=TABLE)
plain = False
"""Whether the decorator does nothing, and blocks inside the targets are left out too."""
