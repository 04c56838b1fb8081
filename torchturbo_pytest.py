"""torchturbo's pytest plugin, as far as every run of pytest loads it: options, and no torch until they are asked for.

It stands beside the package and not in it, since whatever is in the package imports torch with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

MARK = (
    "torchturbo_leaks(*names, reason=None): under --torchturbo-leaks, what of torch's global state this test may leave "
    "changed, by name; all of it, if none is named"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option on the command line, and those in the configuration file."""
    parser.getgroup("torchturbo").addoption(
        "--torchturbo-leaks",
        action="store_true",
        help="fail each test that leaves torch's global state changed, name what and both values, and put it back",
    )
    parser.addini("torchturbo_leaks", "watch for leaks: true, false, or warn, which fails no test", default="false")
    parser.addini("torchturbo_leaks_random", "drawn random numbers are leaks too", type="bool", default=False)
    parser.addini("torchturbo_leaks_allow", "names of what any test may leave changed", type="args", default=[])


def pytest_configure(config: pytest.Config) -> None:
    """Makes the mark known, and begins to watch if that is asked for."""
    config.addinivalue_line("markers", MARK)
    asked = "true" if config.getoption("--torchturbo-leaks") else str(config.getini("torchturbo_leaks")).lower()
    if asked in ("false", "no", "off", "0", ""):
        return
    from torchturbo.testing._plugin import Leaks  # imports torch

    config.pluginmanager.register(Leaks(config, asked), "torchturbo-leaks")
