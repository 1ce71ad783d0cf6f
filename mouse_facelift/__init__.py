"""Mouse-FaceLift: from what six calibrated cameras saw of a mouse to 3D Gaussians."""

__version__ = "0.1.0"
