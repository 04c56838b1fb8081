"""What torchturbo costs and what it buys, measured interleaved; `records` keeps every sample with its environment."""
