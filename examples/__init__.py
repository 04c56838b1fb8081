"""Examples on real data, each of which runs on a CPU: ``python -m examples.demo`` shows the most."""
