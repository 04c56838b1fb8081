"""torchturbo: the speed your machine has, around the training code you have, and everything back as it was.

>>> import torch
>>> from torchturbo import accelerate, turbo

Around a block:

>>> with turbo("exact", num_threads=1) as active:
...     torch.get_num_threads()
1
>>> active.plan.profile.give
'Speed: on GPUs with TF32, several times slower than fast.'

Around a function:

>>> @accelerate(profile="debug")
... def step(x):
...     return torch.is_anomaly_enabled()
>>> step(torch.ones(2))
True

Options beat the profile, whatever the profile, and a bad one is refused before anything has changed:

>>> turbo("exact", autocast="bf16")
turbo('exact', autocast='bf16')
>>> turbo("fast", cudnn_bencmark=True)
Traceback (most recent call last):
    ...
torchturbo.errors.OptionNameError: there is no option 'cudnn_bencmark': did you mean 'cudnn_benchmark'...

`report()` says what is in force, who asked for it, and what has no effect here and why.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torchturbo._accelerate import accelerate, restore, scaler_of
    from torchturbo._active import Active
    from torchturbo._benchmark import Comparison, benchmark
    from torchturbo._cached import Cache, CacheStats, cache_of, cached
    from torchturbo._distribute import (
        Distribution,
        distribute,
        distribution_of,
        load_checkpoint,
        save_checkpoint,
        shard,
    )
    from torchturbo._layers import LayerCosts, profile_layers
    from torchturbo._memory import MemoryPlan, memory_plan
    from torchturbo._prefetch import prefetch
    from torchturbo._report import Report, report
    from torchturbo._reproducible import Reproduction, check_reproducible
    from torchturbo._tune import Tuned, tune
    from torchturbo._tune_loader import LoaderTuning, tune_loader
    from torchturbo._turbo import turbo
    from torchturbo._watch import watch
    from torchturbo.profiles import PROFILES, Profile
    from torchturbo.regions._scaler import Scaler

__version__ = "0.1.0.dev0"
__all__ = [
    "PROFILES",
    "Active",
    "Cache",
    "CacheStats",
    "Comparison",
    "Distribution",
    "LayerCosts",
    "LoaderTuning",
    "MemoryPlan",
    "Profile",
    "Report",
    "Reproduction",
    "Scaler",
    "Tuned",
    "__version__",
    "accelerate",
    "benchmark",
    "cache_of",
    "cached",
    "check_reproducible",
    "distribute",
    "distribution_of",
    "load_checkpoint",
    "memory_plan",
    "prefetch",
    "profile_layers",
    "report",
    "restore",
    "save_checkpoint",
    "scaler_of",
    "shard",
    "tune",
    "tune_loader",
    "turbo",
    "watch",
]

_FROM = {
    "PROFILES": "profiles",
    "Active": "_active",
    "Cache": "_cached",
    "CacheStats": "_cached",
    "Comparison": "_benchmark",
    "Distribution": "_distribute",
    "LayerCosts": "_layers",
    "LoaderTuning": "_tune_loader",
    "MemoryPlan": "_memory",
    "Profile": "profiles",
    "Report": "_report",
    "Reproduction": "_reproducible",
    "Scaler": "regions._scaler",
    "Tuned": "_tune",
    "accelerate": "_accelerate",
    "benchmark": "_benchmark",
    "cache_of": "_cached",
    "cached": "_cached",
    "check_reproducible": "_reproducible",
    "memory_plan": "_memory",
    "prefetch": "_prefetch",
    "distribute": "_distribute",
    "distribution_of": "_distribute",
    "load_checkpoint": "_distribute",
    "profile_layers": "_layers",
    "report": "_report",
    "restore": "_accelerate",
    "save_checkpoint": "_distribute",
    "scaler_of": "_accelerate",
    "shard": "_distribute",
    "tune": "_tune",
    "tune_loader": "_tune_loader",
    "turbo": "_turbo",
    "watch": "_watch",
}

# Hidden from type checkers, which would otherwise believe that any name is here.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Imports what is asked for, and torch with it: the command line answers, and completes, without either."""
        if name in _FROM:
            globals()[name] = found = getattr(import_module(f"{__name__}.{_FROM[name]}"), name)
            return found
        if not name.startswith("__"):
            try:
                return import_module(f"{__name__}.{name}")
            except ModuleNotFoundError as error:
                if error.name != f"{__name__}.{name}":
                    raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
