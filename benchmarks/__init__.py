"""What the documentation claims, as runnable programs. Results go to benchmarks/results."""
