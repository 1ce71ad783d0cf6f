"""The FaceLift sample format on disk, its splits, and samples as torch data sets."""
