"""The bus: one contract, run over both transports, and what is particular to each."""
