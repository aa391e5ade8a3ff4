package gateway

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
)

// TestGCPercent: garbage may grow to 64 MiB, or to as much as is in use where that is more.
func TestGCPercent(t *testing.T) {
	const mib = 1 << 20
	for live, expected := range map[uint64]int{
		0: 6400, mib: 6400, 16 * mib: 400, 40 * mib: 160, 64 * mib: 100, 65 * mib: 100, 1 << 40: 100,
	} {
		equal(t, expected, gcPercent(live), fmt.Sprintf("with %d MiB in use", live/mib))
	}
}

// TestCollectionsAreTuned: after each collection the next one depends on what is in use then, unless
// the operator sets GOGC.
func TestCollectionsAreTuned(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(leastPercent))
	t.Setenv(gcVariable, "50")
	equal(t, false, tuneCollections(), "with GOGC of the operator")
	t.Setenv(gcVariable, "")
	equal(t, true, tuneCollections(), "without")
	runtime.GC()
	eventually(t, "little is in use", func() bool { return percentNow() > leastPercent })
	held := make([]byte, 2*spareBytes)
	runtime.GC()
	eventually(t, "much is in use", func() bool { return percentNow() == leastPercent })
	runtime.KeepAlive(held)
	runtime.GC()
	eventually(t, "little is in use again", func() bool { return percentNow() > leastPercent })
}

func percentNow() int {
	sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(sample)
	return int(sample[0].Value.Uint64())
}
