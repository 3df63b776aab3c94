"""`python -m benchmarks`: every benchmark, in turn."""

from benchmarks import loops, overhead, quality, search

if __name__ == "__main__":
    quality.main([])
    overhead.main([])
    loops.main([])
    search.main([])
