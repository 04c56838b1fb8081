"""What these tests make torch load is loaded before them, so that it is not taken for what they leave."""

from tests.pretended import cpu_with_bf16, optimizers_are_loaded

__all__ = ["cpu_with_bf16", "optimizers_are_loaded"]
