"""`python -m torchturbo`, the same as the command `torchturbo`."""

from __future__ import annotations

from torchturbo.cli import main

main(prog_name="python -m torchturbo")
