"""`python -m benchmarks`: every benchmark, in turn."""

from benchmarks import compare, load, loops, overhead, quality, search, sizing

if __name__ == "__main__":
    quality.main([])
    overhead.main([])
    loops.main([])
    load.main([])
    sizing.main()
    search.main([])
    compare.main([])
