package gateway

import (
	"sync/atomic"
	"time"
)

const (
	// progressEvery is how often the journal notes what running streams have delivered: of one
	// whose record never comes (a crash) no more than this much time is billed by guess.
	progressEvery = time.Second

	// maxProgressStreams bounds a line, well below what its readers take: 80 bytes a stream.
	maxProgressStreams = 4096
)

// content is what was counted in an answer so far.
type content struct{ deltas, textBytes, toolBytes int64 }

// seen is the content of a running answer, for other goroutines than its own.
type seen struct {
	deltas, textBytes, toolBytes atomic.Int64
	isStarted                    atomic.Bool // it has a slot now, which no line says yet
	reported                     content     // in the last progress line; of reportProgress alone
}

// store takes the counts of a usage.
func (s *seen) store(u *usage) {
	s.deltas.Store(u.deltas)
	s.textBytes.Store(u.textBytes)
	s.toolBytes.Store(u.toolBytes)
}

// load returns the counts.
func (s *seen) load() content {
	return content{s.deltas.Load(), s.textBytes.Load(), s.toolBytes.Load()}
}

// reportProgress writes progress lines for as long as the process runs.
func (s *state) reportProgress() {
	for {
		<-s.clock.after(progressEvery)
		s.writeProgress(s.clock.now())
	}
}

// writeProgress journals what the streams have delivered that moved since the last time; no
// line if none has.
func (s *state) writeProgress(now time.Time) {
	var moved []streamProgress
	for _, x := range s.streams.list() {
		if c := x.seen.load(); c != x.seen.reported || x.seen.isStarted.Load() {
			x.seen.isStarted.Store(false)
			x.seen.reported = c
			moved = append(moved, streamProgress{c, x.id})
		}
	}
	for len(moved) > 0 {
		n := min(len(moved), maxProgressStreams)
		// A journal that can't be written keeps the line, like every other.
		_ = s.journal.Load().line(now, "progress", progressLine{
			V: version, Node: s.node, Boot: s.boot, Seq: s.seq.Add(1),
			At: now.Unix(), Running: moved[:n],
		})
		moved = moved[n:]
	}
}
