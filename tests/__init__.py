"""Tests. They lie as the code does; helpers are in `support`, slow paths to compare with in `reference`."""
