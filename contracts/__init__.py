"""What crosses the boundary between the API and the workers: data and names, no behaviour of either side.

Imports pydantic and the standard library only, so that both processes can share it.
"""
