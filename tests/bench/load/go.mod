module neuronetz-gateway/tests/bench/load

go 1.26.0
