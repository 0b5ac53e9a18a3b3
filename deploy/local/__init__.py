"""The shop on one machine: real parts, started, watched and stopped by one command.

`stack.Stack` is what `make up`, the demo, the benchmarks and the tests all start.
"""
