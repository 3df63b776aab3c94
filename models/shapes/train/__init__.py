"""Training programs of the bundled model: autoencoder, flow, detector: `python -m models.shapes.train`."""
