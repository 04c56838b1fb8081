"""What Dynamo has compiled, found by looking at every code object."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import CodeType, FunctionType


def codes_of(module: object) -> Iterator[CodeType]:
    """The code of every function and method of a module, and of the functions in them."""
    found = [value for value in vars(module).values() if isinstance(value, FunctionType | type)]
    while found:
        value = found.pop()
        if isinstance(value, FunctionType):
            found.append(value.__code__)
        elif isinstance(value, type) and value.__module__ == getattr(module, "__name__", None):
            found += [member for member in vars(value).values() if isinstance(member, FunctionType)]
        elif isinstance(value, CodeType):
            yield value
            found += [constant for constant in value.co_consts if isinstance(constant, CodeType)]


def compiled_by_dynamo(prefix: str) -> list[str]:
    """The functions that Dynamo has compiled, in modules whose names begin so."""
    from torch._C._dynamo.eval_frame import _debug_get_cache_entry_list

    modules = [module for name, module in sys.modules.items() if name.startswith(prefix)]
    return [code.co_qualname for module in modules for code in codes_of(module) if _debug_get_cache_entry_list(code)]
