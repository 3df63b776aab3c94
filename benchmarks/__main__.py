"""`python -m benchmarks`: every benchmark, in the order of docs/benchmarks.md."""

from benchmarks import overhead, quality, search

if __name__ == "__main__":
    quality.main([])
    overhead.main([])
    search.main([])
