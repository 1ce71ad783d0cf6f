"""GS-LRM training samples made by an MVDiffusion checkpoint."""
