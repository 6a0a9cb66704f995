"""Designs: which persona gets which completion (the arms), and the audit of the rows that come out."""
