"""The whole gateway on one machine: build, start, watch over and end its processes."""
