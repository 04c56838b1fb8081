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

from torchturbo._accelerate import accelerate, restore, scaler_of
from torchturbo._active import Active
from torchturbo._benchmark import Comparison, benchmark
from torchturbo._report import Report, report
from torchturbo._reproducible import Reproduction, check_reproducible
from torchturbo._tune import Tuned, tune
from torchturbo._turbo import turbo
from torchturbo.profiles import PROFILES, Profile
from torchturbo.regions._scaler import Scaler

__version__ = "0.1.0.dev0"
__all__ = [
    "PROFILES",
    "Active",
    "Comparison",
    "Profile",
    "Report",
    "Reproduction",
    "Scaler",
    "Tuned",
    "__version__",
    "accelerate",
    "benchmark",
    "check_reproducible",
    "report",
    "restore",
    "scaler_of",
    "tune",
    "turbo",
]
