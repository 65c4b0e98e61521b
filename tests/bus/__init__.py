"""The bus: one contract for both transports, and the specific behaviour of each."""
