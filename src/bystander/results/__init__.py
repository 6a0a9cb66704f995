"""What came out: analysis, report, board, comparison, export."""
