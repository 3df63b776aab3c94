"""Machine-learning models: flow backends and rewards, each behind a name in `models.registry`."""
