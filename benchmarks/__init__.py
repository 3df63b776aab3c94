"""What the documentation claims, as runnable programs. Tables go to docs/results."""
