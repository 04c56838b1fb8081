"""What importing a module loads and changes, told by a process that had imported torch before, and nothing else.

python -m tests.importing torchturbo another    # prints {module: {"loads": [...], "changes": [...]}} as JSON
"""

from __future__ import annotations

import importlib
import json
import sys

import torch  # noqa: F401 - what it loads is not the module's doing

from tests.witness.reading import Witness, differences


def watched_import(module: str, witness: Witness) -> dict[str, list[str]]:
    """Imports a module, and says which others came with it and what is not as it was before."""
    loaded, before = set(sys.modules), witness.read()
    importlib.import_module(module)
    return {"loads": sorted(set(sys.modules) - loaded), "changes": differences(before, witness.read())}


if __name__ == "__main__":
    prepared = Witness.prepare()
    print(json.dumps({module: watched_import(module, prepared) for module in sys.argv[1:]}))
