package gateway

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

const (
	// spareBytes is how much garbage may lie beside what is in use before it is collected. Go's own
	// rule, as much as is in use, has a small process collect a hundred times a second under load.
	spareBytes = 64 << 20

	// leastPercent is Go's own rule, which holds where more than spareBytes is in use: no process
	// takes more than spareBytes above what it would have taken.
	leastPercent = 100

	gcVariable = "GOGC"
	liveMetric = "/gc/heap/live:bytes"
)

// collection exists to be collected: its finalizer runs once after each garbage collection.
type collection struct {
	sample []metrics.Sample
}

// tuneCollections has the process collect garbage seldom while little memory is in use. What the
// operator says in GOGC stays. It reports whether it does.
func tuneCollections() bool {
	isOurs := os.Getenv(gcVariable) == ""
	if isOurs {
		(&collection{[]metrics.Sample{{Name: liveMetric}}}).tune()
	}
	return isOurs
}

// tune sets when the next collection begins, and waits for it.
func (c *collection) tune() {
	metrics.Read(c.sample)
	debug.SetGCPercent(gcPercent(c.sample[0].Value.Uint64()))
	runtime.SetFinalizer(c, (*collection).tune)
}

// gcPercent returns GOGC for a process that uses so much memory: what may become garbage, in percent
// of what is in use.
func gcPercent(live uint64) int {
	const mostPercent = spareBytes / (1 << 20) * 100 // of a heap of a megabyte
	return int(min(mostPercent, max(leastPercent, spareBytes*100/max(1, live))))
}
