"""Raw recordings, read exactly: calibration, videos, masks."""
