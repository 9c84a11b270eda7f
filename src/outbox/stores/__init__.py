"""Where messages are kept until they are settled: one module a store."""
