"""What a study is before it runs: its settings, its run directory, its cells, what can be foretold."""
