"""The GPU side: an RQ worker that keeps a model and its rewards warm and runs searches."""
