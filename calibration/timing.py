"""When a camera really exposes: line time, start latency, rise of the lights."""
