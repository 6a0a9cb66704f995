"""Training: rows -> LoRA adapter, in one loop that is readable top to bottom."""
