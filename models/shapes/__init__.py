"""The bundled world `shapes`: scenes, captions, judge, detector, weights, and how they are trained."""
