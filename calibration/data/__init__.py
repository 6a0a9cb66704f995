"""What the worlds take from real models: see `make.py`."""
