"""What the documentation claims, as runnable programs. Results are JSON and Markdown in benchmarks/results."""
