"""HTTP to places that somebody else names: to checked addresses, within a time, and no further."""
