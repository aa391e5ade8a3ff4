package gateway

import (
	"encoding/json"
	"fmt"
	"testing"
)

// TestProgress: the journal notes what a running stream has delivered, once for each time
// that it moved.
func TestProgress(t *testing.T) {
	process, clock := replaceProcess(t)
	j := newJournal(t, new(disk))
	owned(t, j)
	process.journal.Store(j)
	process.node, process.boot = "n", "b"
	moving, still := &exchange{id: "moving"}, &exchange{id: "still"}
	process.streams.add(moving)
	process.streams.add(still)

	process.writeProgress(clock.now())
	equal(t, "", written(t, j), "nothing has moved")

	moving.seen.store(&usage{deltas: 2, textBytes: 9, toolBytes: 1})
	process.writeProgress(clock.now())
	var line journalLine[progressLine]
	must(t, json.Unmarshal([]byte(written(t, j)), &line))
	want := progressLine{
		V: version, Node: "n", Boot: "b", Seq: 1, At: clock.now().Unix(),
		Running: []streamProgress{{content{2, 9, 1}, "moving"}},
	}
	equalJSON(t, want, line.Content, "progress")

	before := written(t, j)
	process.writeProgress(clock.now())
	equal(t, before, written(t, j), "nothing has moved since")
}

// TestProgressOfAStart: a stream that got its slot is named once before it has delivered
// anything: without it a crash would take it for one that still waits, which costs nothing.
func TestProgressOfAStart(t *testing.T) {
	process, clock := replaceProcess(t)
	j := newJournal(t, new(disk))
	owned(t, j)
	process.journal.Store(j)
	started := &exchange{id: "started"}
	started.seen.isStarted.Store(true)
	process.streams.add(started)

	process.writeProgress(clock.now())
	var line journalLine[progressLine]
	must(t, json.Unmarshal([]byte(written(t, j)), &line))
	equalJSON(t, []streamProgress{{content{}, "started"}}, line.Content.Running, "progress")

	before := written(t, j)
	process.writeProgress(clock.now())
	equal(t, before, written(t, j), "it is named once")
}

// TestProgressIsBounded: a line never gets too long for its readers.
func TestProgressIsBounded(t *testing.T) {
	process, clock := replaceProcess(t)
	j := newJournal(t, new(disk))
	owned(t, j)
	process.journal.Store(j)
	for i := range maxProgressStreams + 1 {
		x := &exchange{id: fmt.Sprintf("019ab5c0-1c00-7000-8000-%012d", i)}
		x.seen.store(&usage{deltas: greatestCount, textBytes: greatestCount, toolBytes: greatestCount})
		process.streams.add(x)
	}
	process.writeProgress(clock.now())
	equal(t, uint64(2), process.seq.Load(), "lines")
	if longest := len(written(t, j)); longest > 512<<10 {
		t.Errorf("%d bytes in two lines", longest)
	}
}
