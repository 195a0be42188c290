"""What a training step costs under each method: time, arithmetic, memory; and what switching adapters costs.

Methods are measured side by side in one process, in random interleaved order, on the same base-model code, and
compared by the ratios of neighbours in time: absolute times depend on what else the machine is doing, ratios
hardly do.
"""
